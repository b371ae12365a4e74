"""How long a pharmacist takes for one bin: distributions with E[max(c, P)] in closed form.

While the pharmacist sorts one bin the arm makes a cycle of c seconds for the next; the pair goes on
when both are done, so a cycle costs max(c, P). Its mean is ``c + E[(P - c)^+]``, convex in c with
slope ``P(P <= c)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from wardwise.pharmacy.rack import Floats


class ServiceTime(Protocol):
    """A distribution of seconds, at least 0."""

    @property
    def mean_s(self) -> float:
        """Mean."""
        ...

    @property
    def sd_s(self) -> float:
        """Standard deviation."""
        ...

    def expected_max_s(self, cycle_s: ArrayLike) -> Floats:
        """Mean of max(c, P) for each c of at least 0."""
        ...

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """Draw times."""
        ...


def _check(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{owner}: {name}: expected a finite number above 0, got {value}")


@dataclass(frozen=True)
class Fixed:
    """Always the same time."""

    mean_s: float = 15.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean_s) and self.mean_s >= 0):
            raise ValueError(
                f"fixed: mean_s: expected a finite number of at least 0, got {self.mean_s}"
            )

    @property
    def sd_s(self) -> float:
        """Zero."""
        return 0.0

    def expected_max_s(self, cycle_s: ArrayLike) -> Floats:
        """See `ServiceTime`."""
        return np.maximum(cycle_s, self.mean_s)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `ServiceTime`."""
        return np.full(shape, self.mean_s)


@dataclass(frozen=True)
class Exponential:
    """Exponential times: the worst case that queueing formulas like."""

    mean_s: float = 15.0

    def __post_init__(self) -> None:
        _check("exponential", mean_s=self.mean_s)

    @property
    def sd_s(self) -> float:
        """As large as the mean."""
        return self.mean_s

    def expected_max_s(self, cycle_s: ArrayLike) -> Floats:
        """See `ServiceTime`."""
        cycle = np.asarray(cycle_s, dtype=np.float64)
        return cycle + self.mean_s * np.exp(-cycle / self.mean_s)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """See `ServiceTime`."""
        return rng.exponential(self.mean_s, shape)


@dataclass(frozen=True)
class Lognormal:
    """Lognormal times: people's work is skewed to the right. The default of this package."""

    mean_s: float = 15.0
    cv: float = 0.4

    def __post_init__(self) -> None:
        _check("lognormal", mean_s=self.mean_s, cv=self.cv)

    @classmethod
    def of_logs(cls, mu: float, sigma: float) -> Lognormal:
        """From mean and standard deviation of the logarithm."""
        mean = math.exp(mu + sigma**2 / 2)
        return cls(mean, math.sqrt(math.expm1(sigma**2)))

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm."""
        return math.sqrt(math.log1p(self.cv**2))

    @property
    def mu(self) -> float:
        """Mean of the logarithm."""
        return math.log(self.mean_s) - self.sigma**2 / 2

    @property
    def sd_s(self) -> float:
        """Standard deviation."""
        return self.mean_s * self.cv

    def expected_max_s(self, cycle_s: ArrayLike) -> Floats:
        """See `ServiceTime`."""
        cycle = np.asarray(cycle_s, dtype=np.float64)
        with np.errstate(divide="ignore"):
            z = (np.log(cycle) - self.mu) / self.sigma
        early, late = special.ndtr(z), special.ndtr(self.sigma - z)
        return np.asarray(cycle * early + self.mean_s * late)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """See `ServiceTime`."""
        return rng.lognormal(self.mu, self.sigma, shape)


@dataclass(frozen=True)
class Gamma:
    """Gamma times."""

    mean_s: float = 15.0
    cv: float = 0.4

    def __post_init__(self) -> None:
        _check("gamma", mean_s=self.mean_s, cv=self.cv)

    @property
    def sd_s(self) -> float:
        """Standard deviation."""
        return self.mean_s * self.cv

    @property
    def shape(self) -> float:
        """K."""
        return 1 / self.cv**2

    def expected_max_s(self, cycle_s: ArrayLike) -> Floats:
        """See `ServiceTime`."""
        cycle = np.asarray(cycle_s, dtype=np.float64)
        ratio = cycle * self.shape / self.mean_s
        upper = self.mean_s * special.gammaincc(self.shape + 1, ratio)
        return np.asarray(cycle + upper - cycle * special.gammaincc(self.shape, ratio))

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """See `ServiceTime`."""
        return rng.gamma(self.shape, self.mean_s / self.shape, shape)


@dataclass(frozen=True)
class Normal:
    """Normal times, cut at 0 when drawn; its closed form does not know of the cut.

    With ``cv`` up to 0.4, as here, less than 0.7 % of the times are cut.
    """

    mean_s: float = 15.0
    cv: float = 0.4

    def __post_init__(self) -> None:
        _check("normal", mean_s=self.mean_s, cv=self.cv)
        if self.cv > 0.4:
            raise ValueError(f"normal: cv: expected at most 0.4, got {self.cv}")

    @property
    def sd_s(self) -> float:
        """Standard deviation."""
        return self.mean_s * self.cv

    def expected_max_s(self, cycle_s: ArrayLike) -> Floats:
        """See `ServiceTime`."""
        cycle = np.asarray(cycle_s, dtype=np.float64)
        z = (cycle - self.mean_s) / self.sd_s
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        early, late = special.ndtr(z), special.ndtr(-z)
        return np.asarray(cycle * early + self.mean_s * late + self.sd_s * density)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """See `ServiceTime`."""
        return np.maximum(rng.normal(self.mean_s, self.sd_s, shape), 0.0)


@dataclass(frozen=True)
class Uniform:
    """Uniform times between two bounds."""

    low_s: float = 5.0
    high_s: float = 25.0

    def __post_init__(self) -> None:
        if not 0 <= self.low_s < self.high_s < math.inf:
            raise ValueError(
                f"uniform: low_s, high_s: expected 0 <= low_s < high_s, got {self.low_s} and "
                f"{self.high_s}"
            )

    @property
    def mean_s(self) -> float:
        """Mean."""
        return (self.low_s + self.high_s) / 2

    @property
    def sd_s(self) -> float:
        """Standard deviation."""
        return (self.high_s - self.low_s) / math.sqrt(12)

    def expected_max_s(self, cycle_s: ArrayLike) -> Floats:
        """See `ServiceTime`."""
        cycle = np.asarray(cycle_s, dtype=np.float64)
        inside = np.clip(cycle, self.low_s, self.high_s)
        late = (self.high_s - inside) ** 2 / (2 * (self.high_s - self.low_s))
        return np.where(cycle < self.low_s, self.mean_s, np.maximum(cycle, inside) + late)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """See `ServiceTime`."""
        return rng.uniform(self.low_s, self.high_s, shape)


@dataclass(frozen=True)
class Triangular:
    """Triangular times: three guesses of somebody who knows the work."""

    low_s: float = 5.0
    mode_s: float = 12.0
    high_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.low_s <= self.mode_s <= self.high_s < math.inf or (
            self.low_s == self.high_s
        ):
            raise ValueError(
                "triangular: low_s, mode_s, high_s: expected 0 <= low_s <= mode_s <= high_s and "
                f"low_s < high_s, got {self.low_s}, {self.mode_s}, {self.high_s}"
            )

    @property
    def mean_s(self) -> float:
        """Mean."""
        return (self.low_s + self.mode_s + self.high_s) / 3

    @property
    def sd_s(self) -> float:
        """Standard deviation."""
        a, b, c = self.low_s, self.high_s, self.mode_s
        return math.sqrt((a * a + b * b + c * c - a * b - a * c - b * c) / 18)

    def expected_max_s(self, cycle_s: ArrayLike) -> Floats:
        """See `ServiceTime`: c + E[(P - c)^+], cubic on either side of the mode."""
        a, m, b = self.low_s, self.mode_s, self.high_s
        cycle = np.asarray(cycle_s, dtype=np.float64)
        x = np.clip(cycle, a, b)
        falling = (b - x) ** 3 / (3 * (b - a) * (b - m)) if b > m else np.zeros_like(x)
        # Below the mode: E[(P - c)^+] = mean - c + E[(c - P)^+].
        early = (x - a) ** 3 / (3 * (b - a) * (m - a)) if m > a else np.zeros_like(x)
        late = np.where(x >= m, falling, self.mean_s - x + early)
        return np.where(cycle < a, self.mean_s, np.maximum(cycle, x) + late)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """See `ServiceTime`."""
        return rng.triangular(self.low_s, self.mode_s, self.high_s, shape)


@dataclass(frozen=True)
class Empirical:
    """Times of a log, each as likely as the others.

    Parameters
    ----------
    samples_s
        Times, at least one, finite and at least 0.
    """

    samples_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples_s:
            raise ValueError("empirical: samples_s: expected at least one time, got none")
        for number, value in enumerate(self.samples_s, start=1):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"empirical: samples_s: time {number}: expected a finite number of at least "
                    f"0, got {value}"
                )

    @cached_property
    def _sums(self) -> tuple[Floats, Floats]:
        """Sorted times, and sums of all times from each on."""
        times = np.sort(np.array(self.samples_s, dtype=np.float64))
        return times, np.append(np.cumsum(times[::-1])[::-1], 0.0)

    @property
    def mean_s(self) -> float:
        """Mean."""
        return float(np.mean(self.samples_s))

    @property
    def sd_s(self) -> float:
        """Standard deviation."""
        return float(np.std(self.samples_s))

    def expected_max_s(self, cycle_s: ArrayLike) -> Floats:
        """See `ServiceTime`."""
        cycle = np.asarray(cycle_s, dtype=np.float64)
        times, sums = self._sums
        shorter = np.searchsorted(times, cycle, side="right")
        return np.asarray((cycle * shorter + sums[shorter]) / len(times))

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """See `ServiceTime`."""
        return rng.choice(np.array(self.samples_s), shape)


def fit_lognormal(samples_s: ArrayLike) -> Lognormal:
    """Most likely lognormal distribution of a log of times.

    Raises
    ------
    ValueError
        If there are fewer than two times, one is not above 0, or all are the same.
    """
    times = np.asarray(samples_s, dtype=np.float64)
    if times.ndim != 1 or len(times) < 2 or not (np.isfinite(times) & (times > 0)).all():
        raise ValueError("samples_s: expected at least two finite times above 0")
    logs = np.log(times)
    if logs.std() == 0:
        raise ValueError("samples_s: expected times that differ")
    return Lognormal.of_logs(float(logs.mean()), float(logs.std()))


def fit_gamma(samples_s: ArrayLike) -> Gamma:
    """Most likely gamma distribution of a log of times; raises as `fit_lognormal`."""
    times = np.asarray(samples_s, dtype=np.float64)
    fit_lognormal(times)
    from scipy import stats  # slow to import

    shape, _, scale = stats.gamma.fit(times, floc=0)
    return Gamma(float(shape * scale), float(shape**-0.5))
