"""Means over independent replications, with 95 % confidence intervals (Student's t)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and the bounds of its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:,.1f} ± {self.high - self.mean:,.1f}"


def interval(values: ArrayLike) -> Interval:
    """Mean of one value a replication.

    Raises
    ------
    ValueError
        If there are fewer than two.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"replications: expected at least 2, got {len(values)}")
    middle = float(values.mean())
    reach = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(mean=middle, low=middle - reach, high=middle + reach)
