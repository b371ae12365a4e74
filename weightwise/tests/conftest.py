"""What several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def law_data() -> Path:
    """Folder of the scaling-law data."""
    folder = os.environ.get("WEIGHTWISE_DATA")
    if not folder:
        pytest.skip("WEIGHTWISE_DATA is not set")
    return Path(folder)
