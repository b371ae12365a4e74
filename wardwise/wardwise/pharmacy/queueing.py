"""Fast answers on throughput and waiting: renewal and queueing formulas.

Poisson arrivals to one server (M/G/1, Pollaczek and Khinchine), general arrivals (Kingman, Proc.
Cambridge Philosophical Society 57, 1961), priority classes without preemption (Cobham, Operations
Research 2, 1954), and an arm and a pharmacist with m places between them. Times are seconds, rates
are per second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from wardwise.pharmacy.rack import Floats
    from wardwise.pharmacy.service_time import ServiceTime


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and variance of a time, in seconds and their square."""

    mean_s: float
    variance_s2: float

    @property
    def second_s2(self) -> float:
        """Second moment, E[S^2]."""
        return self.variance_s2 + self.mean_s**2

    @property
    def scv(self) -> float:
        """Squared coefficient of variation."""
        return self.variance_s2 / self.mean_s**2 if self.mean_s else 0.0


def order_moments(sizes: ArrayLike, cycle: Moments) -> Moments:
    """Moments of the time for an order: the sum of one independent cycle for each of its lines.

    Parameters
    ----------
    sizes
        Lines of the orders that are as likely as each other, shape (orders,).
    cycle
        Moments of one cycle.
    """
    lines = np.asarray(sizes, dtype=np.float64)
    return Moments(
        mean_s=float(lines.mean()) * cycle.mean_s,
        variance_s2=float(lines.mean() * cycle.variance_s2 + lines.var() * cycle.mean_s**2),
    )


def poisson_wait_s(rate: float, service: Moments) -> float:
    """Mean wait W_q = rate E[S^2] / (2 (1 - rho)) of M/G/1; infinite if rho is 1 or more."""
    return priority_waits_s([rate], [service])[0]


def kingman_wait_s(rate: float, service: Moments, arrival_scv: float) -> float:
    """Mean wait for general arrivals: rho / (1 - rho) (c_a^2 + c_s^2) / 2 E[S], approximately."""
    load = rate * service.mean_s
    if load >= 1:
        return math.inf
    return load / (1 - load) * (arrival_scv + service.scv) / 2 * service.mean_s


def priority_waits_s(rates: Sequence[float], services: Sequence[Moments]) -> list[float]:
    """Mean wait of each class, most urgent first; a service that has begun is not interrupted.

    R / ((1 - sigma_(k-1)) (1 - sigma_k)) with the residual R = sum of rate E[S^2] / 2 and sigma_k
    the load of the first k classes; infinite for classes that the load does not leave room for.
    Where more urgent classes alone are too much, less urgent ones get no service and leave no
    residual.
    """
    if len(rates) != len(services) or any(rate < 0 for rate in rates):
        raise ValueError("rates: expected one of at least 0 for each service time")
    served, residual_s = 0.0, 0.0
    for rate, service in zip(rates, services, strict=True):
        load = rate * service.mean_s
        # An overloaded class takes all that is left; the rest is never served.
        share = min(1.0, (1 - served) / load) if load else 0.0
        residual_s += share * rate * service.second_s2 / 2
        served += share * load
    waits, before = [], 0.0
    for rate, service in zip(rates, services, strict=True):
        after = before + rate * service.mean_s
        waits.append(residual_s / ((1 - before) * (1 - after)) if after < 1 else math.inf)
        before = after
    return waits


def places_cycle_s(arm: Moments, service: Moments, two_places_s: float, num_points: int) -> float:
    """Seconds per bin of an arm and a pharmacist with m places, from the exact value for two.

    Exponential times have the closed form ``mu (1 - r^m) / (1 - r^(m + 1))``, r the pharmacists'
    time over the arm's. Real times vary less, which is as if there were more places: y of them give
    `two_places_s`, and each further place counts as 2 / (c_a^2 + c_p^2), as in a diffusion
    between two barriers. For exponential times, and for m = 1 and 2, this is exact; for lognormal
    times it agrees with simulations of one pharmacist within 1 %.

    Parameters
    ----------
    arm, service
        Moments of the arm's cycle and of the pharmacist's time.
    two_places_s
        Seconds per bin with two places.
    num_points
        Places m, at least 1.
    """
    if num_points == 1:
        return arm.mean_s + service.mean_s
    if num_points == 2:
        return two_places_s
    slower_s, ratio = max(arm.mean_s, service.mean_s), service.mean_s / arm.mean_s
    if two_places_s <= slower_s * (1 + 1e-12):
        return slower_s

    def cycle_s(places: float) -> float:
        if abs(ratio - 1) < 1e-9:
            return arm.mean_s * (places + 1) / places
        power = ratio**places
        return float(arm.mean_s * (1 - power * ratio) / (1 - power))

    # Where the power leaves the range of numbers, more places change nothing.
    least, most = 1e-3, 600.0 / max(abs(math.log(ratio)), 1e-6)
    if not cycle_s(most) < two_places_s < cycle_s(least):
        return slower_s
    places: float = brentq(lambda y: cycle_s(y) - two_places_s, least, most)
    step = 2 / max(arm.scv + service.scv, 1e-9)
    return cycle_s(min(places + (num_points - 2) * step, most))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pmf:
    """A time as probabilities on multiples of a step; means are kept exactly.

    Parameters
    ----------
    step_s
        Distance of the points.
    mass
        Probability of 0, 1, 2, ... steps.
    """

    step_s: float
    mass: Floats

    @classmethod
    def of_values(cls, values_s: Floats, weights: Floats | None, step_s: float, num: int) -> Pmf:
        """From times of at least 0 with weights; each is shared by the two points around it."""
        scaled = np.minimum(values_s / step_s, num - 1.001)
        low = scaled.astype(np.int64)
        high_share = scaled - low
        weight = np.full(len(low), 1 / len(low)) if weights is None else weights / weights.sum()
        mass = np.zeros(num)
        mass += np.bincount(low, weight * (1 - high_share), num)
        mass += np.bincount(low + 1, weight * high_share, num)
        return cls(step_s=step_s, mass=mass)

    @classmethod
    def of_service(cls, service: ServiceTime, step_s: float, num: int) -> Pmf:
        """From a distribution: the second differences of E[max(c, P)] over c."""
        curve = service.expected_max_s(np.arange(num + 1) * step_s)
        slope = np.diff(curve, prepend=curve[0]) / step_s
        return cls(step_s=step_s, mass=np.maximum(np.diff(slope), 0.0))

    @property
    def moments(self) -> Moments:
        """Mean and variance."""
        at_s = np.arange(len(self.mass)) * self.step_s
        # No product of matrices: its threads cost more than they give.
        mean_s = float((at_s * self.mass).sum())
        second_s2 = float((at_s * at_s * self.mass).sum())
        return Moments(mean_s=mean_s, variance_s2=second_s2 - mean_s**2)

    def larger(self, other: Pmf) -> Pmf:
        """The larger of two independent times."""
        both = np.cumsum(self.mass) * np.cumsum(other.mass)
        return Pmf(step_s=self.step_s, mass=np.diff(both, prepend=0.0))

    def mixed(self, other: Pmf, share: float) -> Pmf:
        """One of two times, this one with probability `share`."""
        return Pmf(step_s=self.step_s, mass=share * self.mass + (1 - share) * other.mass)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Waits until an order is begun, and times until it is complete, in seconds.

    Parameters
    ----------
    wait_s, flow_s
        Means.
    wait_quantiles_s, flow_quantiles_s
        Quantiles, one for each level asked for.
    """

    wait_s: float
    wait_quantiles_s: tuple[float, ...]
    flow_s: float
    flow_quantiles_s: tuple[float, ...]


def poisson_flow(
    rate: float,
    transforms: tuple[ArrayLike, ArrayLike, ArrayLike],
    step_s: float,
    levels: Sequence[float],
) -> Flow:
    """Waits and flow times, first come, first served, with their distributions.

    M/G/1 in which who finds nobody takes another time S0 (Welch, Operations Research 12, 1964), by
    the transform of the wait, ``p (1 + r (S0(s) - 1) / (r - s - r S(s)))`` with p the share that
    finds nobody, inverted by a Fourier transform.

    Parameters
    ----------
    rate
        Arrivals a second, r; the load is below 1.
    transforms
        Fourier transforms (`numpy.fft.rfft`) of the usual time S, of S0, and of a time that follows
        either and keeps nobody waiting; shape (points / 2 + 1,).
    step_s
        Step of the grid.
    levels
        Levels of the quantiles, between 0 and 1.
    """
    usual, first, after = (np.asarray(transform) for transform in transforms)
    num = 2 * (len(usual) - 1)
    s = 2j * np.pi * np.arange(len(usual)) / (num * step_s)
    own, alone, later = (
        Pmf(step_s=step_s, mass=np.fft.irfft(f, num)).moments for f in (usual, first, after)
    )
    room = 1 - rate * own.mean_s
    nobody = room / (room + rate * alone.mean_s)
    # The mean from the transform's derivative: the inverse rings where waits begin.
    wait_s = (1 - nobody) * (
        alone.second_s2 / (2 * alone.mean_s) + rate * own.second_s2 / (2 * room)
    )
    bottom = rate - s - rate * usual
    bottom[0] = 1.0
    waiting = nobody * rate * (first - 1) / bottom
    waiting[0] = 1 - nobody
    flow = (nobody * first + waiting * usual) * after
    quantiles = []
    for transform, at_once in ((waiting, nobody), (flow, 0.0)):
        share = np.maximum.accumulate(at_once + np.cumsum(np.fft.irfft(transform, num)))
        found = np.searchsorted(share, np.asarray(levels))
        quantiles.append(tuple(float(k) * step_s for k in found))
    served_s = nobody * alone.mean_s + (1 - nobody) * own.mean_s + later.mean_s
    return Flow(
        wait_s=wait_s, wait_quantiles_s=quantiles[0], flow_s=wait_s + served_s,
        flow_quantiles_s=quantiles[1],
    )  # fmt: skip
