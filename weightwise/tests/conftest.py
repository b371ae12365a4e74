"""What several test files share."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest


@pytest.fixture
def law_data() -> Path:
    """Folder of the scaling-law data."""
    folder = os.environ.get("WEIGHTWISE_DATA")
    if not folder:
        pytest.skip("WEIGHTWISE_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of a few steps whose tokenizer knows conversations."""
    from rich.console import Console

    from weightwise.recipes import tiny
    from weightwise.train import train

    base, folder = tiny(), tmp_path_factory.mktemp("chat-model")
    recipe = replace(
        base,
        name="base",
        model=replace(base.model, max_length=96),
        data=replace(base.data, chat_tokens=True),
        train=replace(base.train, steps=4),
    )
    quiet = Console(quiet=True)
    train(recipe, folder / "run", cache_dir=folder / "cache", console=quiet)
    return folder / "run"
