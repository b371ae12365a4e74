"""Rows that the study prints: figures, and claims of the paper beside what was found."""

from __future__ import annotations

from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Row = dict[str, Any]
Goal = tuple[str, float]
POSITIVE: Goal = (">=", 0.0)


def figure(
    name: str, values: Sequence[float], unit: str, *, goal: Goal | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Row:  # fmt: skip
    """Mean over seeds, with the standard deviation as ``spread`` where there are several.

    Parameters
    ----------
    name, unit
        Of the row.
    values
        One of each seed.
    goal
        What the mean should be.
    detail
        More to keep.
    """
    spread = {"spread": stdev(values)} if len(values) > 1 else {}
    return {
        "name": f"study_{name}", "value": mean(values), "unit": unit, "goal": goal,
        "detail": {"by_seed": list(values), **spread, **(detail or {})},
    }  # fmt: skip


def claim(
    name: str, words: str, paper: str, values: Sequence[float], unit: str, *,
    goal: Goal = POSITIVE, detail: Mapping[str, Any] | None = None,
) -> Row:  # fmt: skip
    """A claim of the paper: it holds here if the mean over seeds reaches the goal.

    Parameters
    ----------
    name, unit
        Of the row.
    words
        The claim, as a part of a sentence.
    paper
        What the paper says about it, figures included where it has some.
    values
        One of each seed; differences pair runs of one seed.
    goal
        What the mean is when the claim holds.
    detail
        More to keep.
    """
    more = {"claim": words, "paper": paper, **(detail or {})}
    return figure(name, values, unit, goal=goal, detail=more)


def differences(larger: Sequence[float], smaller: Sequence[float]) -> list[float]:
    """How much larger the first values are, seed by seed."""
    return [a - b for a, b in zip(larger, smaller, strict=True)]
