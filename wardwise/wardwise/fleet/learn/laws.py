"""Laws of positive times by maximum likelihood, each with its own mean.

With mean ``m`` and cv ``c``:

- gamma: shape ``k = c ** -2`` solves ``log k - digamma(k) = log mean(x) - mean(log x)``,
  from the start of Minka (2002) by Newton steps in ``1 / k``;
- log-normal: mean and variance of logarithms;
- normal: mean and variance, where ``c`` is at most 1/3;
- triangular: for given ends the best mode is one of the values (Kotz and van Dorp, 2004,
  "Beyond Beta", chapter 1); the ends, beyond the values and not below 0, by Nelder and
  Mead;
- empirical: quantiles of the values, of which the first and last are moved so that the
  outermost pieces keep their means.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit, gammainc, gammaln, ndtr, polygamma, psi

from wardwise.fleet.randomness import MOST_CV, MOST_NORMAL_CV, Law, Spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NEWTON_STEPS = 30
# The likelihood of a triangle needs no more: quantiles of the values, ends included.
MOST_FOR_TRIANGLE = 5000
# An empirical law has one quantile for so many values, and no more than so many.
VALUES_PER_QUANTILE = 10
MOST_QUANTILES = 201


class Fitted(NamedTuple):
    """A law, the number of its parameters, its log-likelihood, and its distribution function."""

    spread: Spread
    num_parameters: int
    log_likelihood: float
    cdf: Callable[[Floats], Floats]


def fit_gamma(values: Floats) -> Fitted | None:
    """None without positive values, or where the cv is out of range."""
    if values[0] <= 0:
        return None
    mean, logs = float(values.mean()), np.log(values)
    gap = math.log(mean) - float(logs.mean())
    if gap <= 0:
        return None
    shape = (3 - gap + math.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(NEWTON_STEPS):
        slope = 1 / shape - float(polygamma(1, shape))
        step = (math.log(shape) - float(psi(shape)) - gap) / (shape * shape * slope)
        shape = 1 / (1 / shape + step)
        if abs(step * shape) < 1e-12:
            break
    cv = shape**-0.5
    if not cv <= MOST_CV:
        return None
    rate, n = shape / mean, len(values)
    likelihood = (shape - 1) * float(logs.sum()) - rate * float(values.sum())
    likelihood += n * (shape * math.log(rate) - float(gammaln(shape)))
    return Fitted(
        Spread(law=Law.GAMMA, cv=cv), 2, likelihood, lambda x: np.asarray(gammainc(shape, x * rate))
    )


def fit_lognormal(values: Floats) -> Fitted | None:
    """None without positive values, or where the cv is out of range."""
    if values[0] <= 0:
        return None
    logs = np.log(values)
    middle, deviation = float(logs.mean()), float(logs.std())
    if not 0 < deviation**2 <= math.log1p(MOST_CV**2):
        return None
    likelihood = _normal_likelihood(len(values), deviation) - float(logs.sum())

    def cdf(x: Floats) -> Floats:
        return np.asarray(ndtr((np.log(x) - middle) / deviation))

    spread = Spread(law=Law.LOGNORMAL, cv=math.sqrt(math.expm1(deviation**2)))
    return Fitted(spread, 2, likelihood, cdf)


def fit_normal(values: Floats) -> Fitted | None:
    """None where the cv is above 1/3."""
    mean, deviation = float(values.mean()), float(values.std())
    if not 0 < deviation <= MOST_NORMAL_CV * mean:
        return None
    return Fitted(
        Spread(law=Law.NORMAL, cv=deviation / mean),
        2,
        _normal_likelihood(len(values), deviation),
        lambda x: np.asarray(ndtr((x - mean) / deviation)),
    )


def _normal_likelihood(count: int, deviation: float) -> float:
    """Log-likelihood at the best mean and deviation."""
    return -count * (math.log(deviation) + 0.5 * math.log(2 * math.pi) + 0.5)


def fit_triangular(values: Floats) -> Fitted | None:
    """None without positive values."""
    first, last = float(values[0]), float(values[-1])
    if first <= 0 or first == last:
        return None
    few = values
    if len(values) > MOST_FOR_TRIANGLE:
        few = values[np.linspace(0, len(values) - 1, MOST_FOR_TRIANGLE).astype(np.int64)]

    def ends(at: Floats) -> tuple[float, float]:
        return first * float(expit(at[0])), last + (last - first) * math.exp(min(at[1], 50.0))

    from scipy.optimize import minimize  # slow to import

    best = minimize(
        lambda at: -_best_mode(few, *ends(at))[0], np.array([2.0, -2.0]), method="Nelder-Mead",
        options={"maxiter": 200, "xatol": 1e-4, "fatol": 1e-3},
    )  # fmt: skip
    low, high = ends(best.x)
    likelihood, mode = _best_mode(values, low, high)
    if not math.isfinite(likelihood):
        return None

    def cdf(x: Floats) -> Floats:
        rising = (x - low) ** 2 / ((high - low) * max(mode - low, 1e-300))
        falling = 1 - (high - x) ** 2 / ((high - low) * max(high - mode, 1e-300))
        return np.asarray(np.where(x <= mode, rising, falling))

    spread = Spread(law=Law.TRIANGULAR, shape=(low, mode, high))
    return Fitted(spread, 3, likelihood, cdf)


def _best_mode(values: Floats, low: float, high: float) -> tuple[float, float]:
    """Largest log-likelihood over modes among the values, and that mode."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rising, falling = np.log(values - low), np.log(high - values)
        n = len(values)
        before = np.concatenate([[0.0], np.cumsum(rising)])[:n]
        after = np.concatenate([np.cumsum(falling[::-1])[::-1], [0.0]])[1:]
        rank = np.arange(n)
        likelihood = before - rank * rising + after - (n - 1 - rank) * falling
    likelihood = np.where(np.isnan(likelihood), -np.inf, likelihood)
    best = int(np.argmax(likelihood))
    return float(likelihood[best]) + n * math.log(2 / (high - low)), float(values[best])


def empirical(values: Floats) -> Spread:
    """Law with the quantiles of sorted values, at least two."""
    count = min(MOST_QUANTILES, max(2, len(values) // VALUES_PER_QUANTILE))
    quantiles = np.quantile(values, np.linspace(0, 1, count))
    if count > 2:
        low, high = quantiles[1], quantiles[-2]
        first = 2 * float(values[values <= low].mean()) - low
        last = 2 * float(values[values >= high].mean()) - high
        quantiles[0], quantiles[-1] = max(0.0, first), max(high, last)
    return Spread(law=Law.EMPIRICAL, quantiles=tuple(map(float, quantiles)))
