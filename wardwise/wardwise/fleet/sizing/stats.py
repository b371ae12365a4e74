"""Means over days, with 95 % confidence intervals.

Days are independent of each other; requests of one day are not. All intervals
therefore count days: Student's t for means and for differences of one day's outcomes,
and t on the linearised ratio for shares of requests (Cochran, "Sampling Techniques",
chapter 6). Where no request at all or every single one has a property, no variance
can be seen; then Wilson's interval for independent requests stands in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Floats

LEVEL = 0.95
Z = 1.959963984540054  # normal quantile of the same level


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and the bounds of its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the mean differs from zero, at this level."""
        return self.low > 0 or self.high < 0


def mean(values: Floats) -> Interval:
    """Mean over days."""
    middle = float(values.mean())
    reach = _reach(values - middle)
    return Interval(mean=middle, low=middle - reach, high=middle + reach)


def share(parts: Floats, wholes: Floats) -> Interval:
    """Sum of `parts` over that of `wholes`, both by day; 0 to 1."""
    part, whole = float(parts.sum()), float(wholes.sum())
    if whole == 0:
        return Interval(mean=0.0, low=0.0, high=0.0)
    middle = part / whole
    if part in (0.0, whole):
        return _wilson(middle, whole)
    found = ratio(parts, wholes)
    return Interval(mean=middle, low=max(0.0, found.low), high=min(1.0, found.high))


def ratio(parts: Floats, wholes: Floats) -> Interval:
    """Sum of `parts` over that of `wholes`, which is above 0; both by day, of any size."""
    middle = float(parts.sum()) / float(wholes.sum())
    reach = _reach((parts - middle * wholes) / wholes.mean())
    return Interval(mean=middle, low=middle - reach, high=middle + reach)


def _reach(residuals: Floats) -> float:
    """Half the width of the interval, from residuals of mean zero."""
    count = len(residuals)
    variance = float(np.square(residuals).sum()) / (count - 1)
    quantile = float(stdtrit(count - 1, 0.5 + LEVEL / 2))
    return quantile * math.sqrt(variance / count)


def _wilson(middle: float, count: float) -> Interval:
    """Wilson's interval (JASA 22, 1927) at a share of 0 or 1."""
    far = Z**2 / (count + Z**2)
    if middle == 0:
        return Interval(mean=0.0, low=0.0, high=far)
    return Interval(mean=1.0, low=1.0 - far, high=1.0)
