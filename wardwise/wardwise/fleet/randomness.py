"""How far times stray from their means, and what is promised all the same.

A random time is its mean times a factor of mean 1, so that one `Spread` serves short
and long legs alike. A factor is given by its quantile function: a draw is the quantile
at a uniform number, which lets the same luck be stretched over another mean or another
variance and compared between plans (common random numbers).

Gamma and log-normal factors are positive and skewed, as driving in corridors and waits
for elevators are. Normal ones serve comparisons with formulas; they are cut off at 0,
which moves the mean by less than 2e-4 at the largest variance allowed. Triangular and
empirical ones take their variance from their shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaincinv, ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CV = 10.0
MOST_NORMAL_CV = 1 / 3
NUM_PRIORITIES = 3
MOST_SHARE = 0.5


class Law(StrEnum):
    """Distribution of driving, service and waiting times."""

    GAMMA = "gamma"
    LOGNORMAL = "lognormal"
    NORMAL = "normal"
    TRIANGULAR = "triangular"
    EMPIRICAL = "empirical"


class Scope(StrEnum):
    """Whether a promise holds for each request or for all requests of a trip at once."""

    REQUEST = "request"
    TRIP = "trip"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Distribution of a time over its mean.

    Parameters
    ----------
    law
        Kind of distribution.
    cv
        Standard deviation over the mean: 0 to 10, of a normal law 0 to 1/3. Triangular
        and empirical laws set it from their shape.
    quantiles
        Of an empirical law: at least two values at equally spaced probabilities from
        0 to 1, not negative, not falling, in any unit; linear in between.
    shape
        Of a triangular law: lowest, most frequent and highest value, in any unit.

    Raises
    ------
    ValueError
        Naming the field and the accepted range.
    """

    law: Law = Law.GAMMA
    cv: float = 0.2
    quantiles: tuple[float, ...] = ()
    shape: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.law not in list(Law):
            raise ValueError(f"spread: law: expected one of {', '.join(Law)}, got {self.law!r}")
        object.__setattr__(self, "law", Law(self.law))
        self._require_shape()
        if self.law is Law.TRIANGULAR:
            object.__setattr__(self, "cv", _triangular_cv(*self._shape))
        elif self.law is Law.EMPIRICAL:
            object.__setattr__(self, "cv", _empirical_cv(self.quantiles))
        most_cv = MOST_NORMAL_CV if self.law is Law.NORMAL else MOST_CV
        if not 0 <= self.cv <= most_cv:
            raise ValueError(f"spread: cv: expected 0 to {most_cv:.3g}, got {self.cv}")

    def quantile(
        self, uniform: NDArray[np.float64] | float, cv: float | None = None
    ) -> NDArray[np.float64]:
        """Factors at given probabilities.

        Parameters
        ----------
        uniform
            Probabilities, above 0 and below 1, of any shape.
        cv
            Standard deviation of the factor where it is not that of the law: the factor
            of a triangular or empirical law is then stretched about 1, and cut off at 0.

        Returns
        -------
        Not negative, of mean 1, in the shape of `uniform`.
        """
        uniform = np.asarray(uniform, dtype=np.float64)
        cv = self.cv if cv is None else cv
        if cv == 0 or self.cv == 0:
            return np.ones_like(uniform)
        if self.law is Law.GAMMA:
            return np.asarray(gammaincinv(cv**-2, uniform) * cv**2)
        if self.law is Law.LOGNORMAL:
            spread = math.log1p(cv**2)
            return np.asarray(np.exp(math.sqrt(spread) * ndtri(uniform) - spread / 2))
        if self.law is Law.NORMAL:
            return np.asarray(np.maximum(0.0, 1 + cv * ndtri(uniform)))
        factor = self._triangular(uniform) if self.law is Law.TRIANGULAR else self._linear(uniform)
        return np.asarray(np.maximum(0.0, 1 + (factor - 1) * (cv / self.cv)))

    @property
    def _shape(self) -> tuple[float, float, float]:
        assert self.shape is not None
        return self.shape

    def _require_shape(self) -> None:
        for name, value, law in (
            ("shape", self.shape, Law.TRIANGULAR),
            ("quantiles", self.quantiles, Law.EMPIRICAL),
        ):
            if (self.law is law) != bool(value):
                expected = "values" if self.law is law else "none"
                raise ValueError(
                    f"spread: {name}: expected {expected} for law {self.law}, got {value}"
                )
        values = self.shape or self.quantiles
        if not values:
            return
        name, least = ("shape", 3) if self.shape else ("quantiles", 2)
        are_rising = all(low <= high for low, high in pairwise(values))
        if len(values) < least or not are_rising or not 0 <= values[0] <= values[-1] < math.inf:
            raise ValueError(
                f"spread: {name}: expected at least {least} finite values of at least 0, "
                f"none below the one before, got {values}"
            )
        if values[-1] <= 0 or (self.shape and len(self.shape) != least):
            raise ValueError(
                f"spread: {name}: expected {least} values, the last above 0, got {values}"
            )

    def _triangular(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        low, mode, high = self._shape
        width = high - low
        rising = low + np.sqrt(uniform * width * (mode - low))
        falling = high - np.sqrt((1 - uniform) * width * (high - mode))
        values = np.where(uniform * width <= mode - low, rising, falling)
        return np.asarray(values * 3 / (low + mode + high))

    def _linear(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.array(self.quantiles)
        mean = (values[1:] + values[:-1]).mean() / 2
        return np.asarray(np.interp(uniform, np.linspace(0, 1, len(values)), values) / mean)


def _triangular_cv(low: float, mode: float, high: float) -> float:
    """Root of the variance ((h - l)^2 + (m - l)(m - h)) / 18, over the mean."""
    variance = ((high - low) ** 2 + (mode - low) * (mode - high)) / 18
    return math.sqrt(max(variance, 0.0)) * 3 / (low + mode + high)


def _empirical_cv(quantiles: tuple[float, ...]) -> float:
    """Exact for a quantile function that is linear between the values."""
    low, high = np.array(quantiles[:-1]), np.array(quantiles[1:])
    mean = float((low + high).mean()) / 2
    # Between two values the distribution is uniform: its own variance and that of centres.
    centres = ((low + high) / 2 - mean) ** 2 + (high - low) ** 2 / 12
    return math.sqrt(float(centres.mean())) / mean


@dataclass(frozen=True, kw_only=True)
class Randomness:
    """What is random on a day.

    Parameters
    ----------
    travel
        Of a leg's time; in a building, of its driving part.
    service
        Of a service time.
    elevator
        Of the wait for an elevator.
    day
        Standard deviation over the mean of a log-normal factor, 0 to 10, that all legs
        of a day have in common (crowded corridors).
    uses_matrix
        Whether legs have the variances of the instance where it states them, with the
        law of `travel`.
    """

    travel: Spread = Spread()
    service: Spread = Spread()
    elevator: Spread = Spread(law=Law.LOGNORMAL, cv=1.0)
    day: float = 0.0
    uses_matrix: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.day <= MOST_CV:
            raise ValueError(f"randomness: day: expected 0 to {MOST_CV:g}, got {self.day}")


@dataclass(frozen=True, kw_only=True)
class Promise:
    """How often robots may be late: chance constraints of a plan.

    Parameters
    ----------
    late_share
        Largest probability of service that starts past its last moment, for the
        priorities stat, urgent and routine; above 0, at most 0.5.
    scope
        Whether it holds for each request or for all of a trip at once; a trip is held
        to the strictest priority aboard.
    return_share
        Largest probability that a robot is back after its shift; the same range.
    """

    late_share: tuple[float, float, float] = (0.05, 0.05, 0.05)
    scope: Scope = Scope.REQUEST
    return_share: float = 0.05

    def __post_init__(self) -> None:
        if self.scope not in list(Scope):
            raise ValueError(
                f"promise: scope: expected one of {', '.join(Scope)}, got {self.scope!r}"
            )
        object.__setattr__(self, "scope", Scope(self.scope))
        if len(self.late_share) != NUM_PRIORITIES:
            raise ValueError(
                f"promise: late_share: expected {NUM_PRIORITIES} values, got {len(self.late_share)}"
            )
        for name, values in (
            ("late_share", self.late_share),
            ("return_share", (self.return_share,)),
        ):
            for value in values:
                if not 0 < value <= MOST_SHARE:
                    raise ValueError(
                        f"promise: {name}: expected above 0 and at most {MOST_SHARE:g}, got {value}"
                    )
