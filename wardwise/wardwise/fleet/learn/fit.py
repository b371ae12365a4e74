"""Which law times follow: candidates by maximum likelihood, choice by BIC.

Of gamma, log-normal, normal and triangular the law with the least BIC (Schwarz, 1978) is
taken among those that a Kolmogorov-Smirnov test does not reject at `KS_LEVEL`. If it
rejects all, and there are `LEAST_FOR_QUANTILES` values, the empirical law is; with fewer
the least BIC stands. The test knows nothing of the parameters having been fitted, which
makes it reject less often than stated: the empirical law is the last resort.

Crowded days make all legs of a day long. The variance between days is that of one-way
analysis of variance with random effects: with mean squares ``B`` between and ``W`` within
days, ``(B - W) / n0``, where ``n0 = (N - sum n_d ** 2 / N) / (D - 1)`` for days of
unequal size (Searle, Casella and McCulloch, 1992, "Variance Components", chapter 3). It
is taken for 0 where the F test does not reject that at `F_LEVEL`. Legs are then divided
by the factor of their day, which is drawn towards 1 as far as it is uncertain (best
linear prediction), before their own law is fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import fdtrc, kolmogorov

from wardwise.fleet.learn.laws import (
    Fitted,
    empirical,
    fit_gamma,
    fit_lognormal,
    fit_normal,
    fit_triangular,
)
from wardwise.fleet.randomness import MOST_CV, Law, Spread
from wardwise.fleet.sizing.stats import Interval, Z, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Fewer values say too little about a law, and fewer days about what days have in common.
LEAST_VALUES = 30
LEAST_FOR_QUANTILES = 200
LEAST_DAYS = 5
KS_LEVEL = 0.01
F_LEVEL = 0.05
# Times that differ by less are the same.
CERTAIN_CV = 1e-6


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A law that was tried; `p_value` is that of the Kolmogorov-Smirnov test."""

    law: Law
    cv: float
    bic: float
    distance: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The law of a time over its mean.

    Attributes
    ----------
    spread
        The law; `None` where there are too few values.
    count
        Values.
    mean
        Of the values, with its interval over days; 1 where the instance's means are right.
    cv
        Of the law, with an interval from the moments of the values.
    candidates
        What was tried, best BIC first.
    """

    spread: Spread | None
    count: int
    mean: Interval | None
    cv: Interval | None
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DayFactor:
    """What legs of a day have in common.

    Attributes
    ----------
    cv
        Standard deviation of the factor; `None` where there are too few days.
    estimate
        The same before the test.
    p_value
        Of the F test that days do not differ.
    """

    cv: float | None
    estimate: float
    p_value: float
    num_days: int


def fit_spread(values: Floats, day: Ints) -> Fit:
    """Fit a law.

    Parameters
    ----------
    values
        Shape (N,), at least 0.
    day
        Shape (N,): day of each value.
    """
    if len(values) < LEAST_VALUES or not values.mean() > 0:
        return Fit(spread=None, count=len(values), mean=mean_over_days(values, day), cv=None)
    values_of_law = np.sort(values)
    spread, candidates = _chosen(values_of_law)
    return Fit(
        spread=spread,
        count=len(values),
        mean=mean_over_days(values, day),
        cv=_cv_interval(values, spread.cv),
        candidates=candidates,
    )


def _chosen(values: Floats) -> tuple[Spread, tuple[Candidate, ...]]:
    """Law of sorted values, and what was tried."""
    if float(values.std()) <= CERTAIN_CV * float(values.mean()):
        return Spread(cv=0.0), ()
    tried = [fit(values) for fit in (fit_gamma, fit_lognormal, fit_normal, fit_triangular)]
    found = [(each, _candidate(values, each)) for each in tried if each is not None]
    found.sort(key=lambda each: each[1].bic)
    candidates = tuple(candidate for _, candidate in found)
    fitting = [fitted for fitted, candidate in found if candidate.p_value >= KS_LEVEL]
    if fitting:
        return fitting[0].spread, candidates
    if found and len(values) < LEAST_FOR_QUANTILES:
        return found[0][0].spread, candidates
    return empirical(values), candidates


def _candidate(values: Floats, fitted: Fitted) -> Candidate:
    n = len(values)
    at, rank = fitted.cdf(values), np.arange(n)
    distance = float(max((at - rank / n).max(), ((rank + 1) / n - at).max()))
    # Stephens (1970): the limit law, at a distance corrected for few values.
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    return Candidate(
        law=fitted.spread.law,
        cv=fitted.spread.cv,
        bic=fitted.num_parameters * math.log(n) - 2 * fitted.log_likelihood,
        distance=distance,
        p_value=float(kolmogorov(scaled)),
    )


def _cv_interval(values: Floats, cv: float) -> Interval:
    """Around the law's cv, as wide as the sample's cv is uncertain (Cramér, 1946, 27.7)."""
    scores = values / values.mean() - 1
    second, third, fourth = (float((scores**power).mean()) for power in (2, 3, 4))
    if second <= CERTAIN_CV**2:
        return Interval(mean=cv, low=cv, high=cv)
    relative = (fourth - second**2) / (4 * second**2) - third / second + second
    reach = Z * cv * math.sqrt(max(relative, 0.0) / len(values))
    return Interval(mean=cv, low=max(0.0, cv - reach), high=cv + reach)


def mean_over_days(values: Floats, day: Ints) -> Interval | None:
    """Mean of values with an interval that counts days; `None` with fewer than two."""
    counts = np.bincount(day) if len(day) else np.zeros(0, dtype=np.int64)
    has_values = counts > 0
    if has_values.sum() < 2:
        return None
    sums = np.bincount(day, weights=values).astype(np.float64)
    return ratio(sums[has_values], counts[has_values].astype(np.float64))


def day_factor(values: Floats, day: Ints) -> tuple[DayFactor, Floats]:
    """Estimate what days have in common, and take it out of the values.

    Returns
    -------
    The factor's spread, and the values without it, shape as `values`.
    """
    counts = np.bincount(day) if len(day) else np.zeros(0, dtype=np.int64)
    num_days, n = int((counts > 0).sum()), len(values)
    if num_days < LEAST_DAYS or n - num_days < LEAST_VALUES or not values.mean() > 0:
        return DayFactor(cv=None, estimate=0.0, p_value=1.0, num_days=num_days), values
    mean = float(values.mean())
    means = np.bincount(day, weights=values) / np.maximum(counts, 1)
    between = float((counts * (means - mean) ** 2).sum()) / (num_days - 1)
    within = float(((values - means[day]) ** 2).sum()) / (n - num_days)
    size = (n - float((counts.astype(np.float64) ** 2).sum()) / n) / (num_days - 1)
    variance = max(0.0, between - within) / size
    estimate = min(math.sqrt(variance) / mean, MOST_CV)
    p_value = float(fdtrc(num_days - 1, n - num_days, between / within)) if within > 0 else 0.0
    if between <= (CERTAIN_CV * mean) ** 2:
        p_value = 1.0
    if p_value >= F_LEVEL:
        return DayFactor(cv=0.0, estimate=estimate, p_value=p_value, num_days=num_days), values
    trust = variance / (variance + within / np.maximum(counts, 1))
    factor = 1 + trust * (means / mean - 1)
    found = DayFactor(cv=estimate, estimate=estimate, p_value=p_value, num_days=num_days)
    return found, values / factor[day]
