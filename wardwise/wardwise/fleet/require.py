"""Checks that the frozen objects of a fleet make of themselves when they are built."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def require_id(what: str, value: str) -> None:
    """Refuse an id that no message and no table could show."""
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(f"{what}: id: expected printable text without outer spaces, got {value!r}")


def require_unique(what: str, ids: Iterable[str]) -> None:
    """Refuse an id that stands twice."""
    for value, count in Counter(ids).items():
        if count > 1:
            raise ValueError(f"{what}: id: {value!r} stands {count} times")


def require_finite(owner: str, **values: float) -> None:
    """Refuse infinities and what is no number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{owner}: {name}: expected a finite number, got {value}")


def require_non_negative(owner: str, **values: float) -> None:
    """Refuse negative and infinite numbers."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(
                f"{owner}: {name}: expected a finite number of at least 0, got {value}"
            )
