"""Closed forms for spare robots: how often a request finds none, and how many to keep back.

If every request that comes in takes one spare robot for a random time and is lost
when none is free, the spares are a loss system. Its only inputs are the number of
spares and the load in erlangs: arrivals per second times mean seconds a robot is
away. Denial is then Erlang's B formula, whatever the distribution of those times
(M/G/s/s; Erlang 1917, Sevastyanov 1957).

With protection level R a class gets a spare only while more than R are free. For
exponential times of the same mean the number of busy spares is a birth-death
chain: up by the load of the classes still admitted, down by the number busy. This
one is exact for exponential times only.

Littlewood (1972) and EMSR-b (Belobaba 1992) choose the levels from prices instead:
keep a spare back while the chance that a better class needs it, times what that
class pays, is above the price at hand. They count requests in a look-ahead in which
no robot comes back, and take the worse classes to come first.

Classes run from the most to the least urgent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, pdtrc

if TYPE_CHECKING:
    from collections.abc import Sequence


def erlang_b(num_spares: int, load: float) -> float:
    """Share of requests that find all spares away (Erlang B).

    Parameters
    ----------
    num_spares
        At least 0.
    load
        Erlangs: arrival rate times mean time away; finite, at least 0.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    _require_system(num_spares, [load])
    # B(s) = a B(s-1) / (s + a B(s-1)): every term is positive and at most 1, so
    # that nothing cancels or overflows as powers and factorials would.
    denial = 1.0
    for spare in range(1, num_spares + 1):
        denial = load * denial / (spare + load * denial)
    return denial


def spares_needed(load: float, max_denial: float) -> int:
    """Smallest number of spares at which Erlang B is at most `max_denial`.

    Parameters
    ----------
    load
        Erlangs, finite, at least 0.
    max_denial
        Above 0, at most 1.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    _require_system(0, [load])
    if not 0 < max_denial <= 1:
        raise ValueError(f"max_denial: expected above 0, at most 1, got {max_denial}")
    denial = 1.0
    for spare in count(1):
        if denial <= max_denial:
            return spare - 1
        denial = load * denial / (spare + load * denial)
    raise AssertionError("the denial falls to 0")


def protected_denial(
    num_spares: int, loads: Sequence[float], levels: Sequence[int]
) -> tuple[float, ...]:
    """Share of each class that is denied under nested protection levels.

    Parameters
    ----------
    num_spares
        At least 0.
    loads
        Erlangs of each class, most urgent first; finite, at least 0.
    levels
        Spares that each class may not use; the first is 0 and none is below the one
        before it.

    Returns
    -------
    tuple
        For class p the chance of at most ``levels[p]`` free spares.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    _require_system(num_spares, loads)
    if len(levels) != len(loads):
        raise ValueError(f"levels: expected one for each of {len(loads)} loads, got {len(levels)}")
    if levels[0] != 0 or any(lower > upper for lower, upper in pairwise(levels)):
        raise ValueError(f"levels: expected 0 first and none below the one before, got {levels}")
    free = num_spares - np.arange(num_spares)  # before each step up: all of them, ..., 1
    admitted = (free[:, None] > np.asarray(levels)) @ np.asarray(loads, dtype=np.float64)
    # Weights of the states are products of up / down; logarithms keep a^n / n! in range.
    with np.errstate(divide="ignore"):
        steps = np.log(admitted) - np.log(np.arange(1, num_spares + 1))
    log_weight = np.concatenate([[0.0], np.cumsum(steps)])
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    return tuple(float(weight[max(num_spares - level, 0) :].sum()) for level in levels)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Requests of one class in a look-ahead: Poisson, or normal where `sd` is given."""

    mean: float
    sd: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("mean", self.mean), ("sd", self.sd)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"demand: {name}: expected a finite number of at least 0, got {value}"
                )

    def exceeds(self, level: int) -> float:
        """Chance of more than `level` requests."""
        if self.sd is None:
            return float(pdtrc(level, self.mean))
        if self.sd == 0:
            return float(self.mean > level)
        return float(ndtr((self.mean - level) / self.sd))


def littlewood(demand: Demand, price_ratio: float) -> int:
    """Spares to keep back for one class from another that pays less.

    The smallest R with P(demand > R) <= `price_ratio`, which for two classes no
    other level beats.

    Parameters
    ----------
    demand
        Of the class that pays more.
    price_ratio
        Price of the other class divided by that of this one; above 0, at most 1.

    Raises
    ------
    ValueError
        If the ratio is out of range.

    References
    ----------
    K. Littlewood, "Forecasting and control of passenger bookings", AGIFORS 1972.
    """
    if not 0 < price_ratio <= 1:
        raise ValueError(f"price_ratio: expected above 0, at most 1, got {price_ratio}")
    return next(level for level in count() if demand.exceeds(level) <= price_ratio)


def emsr_b(demands: Sequence[Demand], prices: Sequence[float]) -> tuple[int, ...]:
    """Nested protection levels of several classes by EMSR-b.

    Each class sees all better ones as a single class with the sum of their demand
    and the mean of their prices weighted by demand, and applies `littlewood`. With
    three classes and more this is a heuristic. Sums with a normal demand in them are
    taken as normal.

    Parameters
    ----------
    demands
        Of each class, most urgent first.
    prices
        Loss when a request of the class is denied; above 0, none above the one before.

    Returns
    -------
    tuple
        For each class the spares it may not use: 0 for the first, never falling.

    Raises
    ------
    ValueError
        Naming the parameter and its range.

    References
    ----------
    P. Belobaba, "Optimal vs. heuristic methods for nested seat allocation", AGIFORS
    1992.
    """
    if not demands or len(demands) != len(prices):
        raise ValueError(
            f"prices: expected one for each of 1 or more demands, "
            f"got {len(prices)} for {len(demands)}"
        )
    if not (prices[-1] > 0 and prices[0] < math.inf) or any(
        upper < lower for upper, lower in pairwise(prices)
    ):
        raise ValueError(
            f"prices: expected above 0 and none above the one before, got {tuple(prices)}"
        )
    levels = [0]
    for better in range(1, len(demands)):
        joint = _sum(demands[:better])
        mean_price = prices[0]
        if joint.mean > 0:
            income = (d.mean * p for d, p in zip(demands[:better], prices[:better], strict=True))
            mean_price = math.fsum(income) / joint.mean
        # Widely spread normal demands can make a level fall; nesting forbids it.
        levels.append(max(levels[-1], littlewood(joint, min(1.0, prices[better] / mean_price))))
    return tuple(levels)


def _sum(demands: Sequence[Demand]) -> Demand:
    """Sum of independent demands."""
    mean = math.fsum(demand.mean for demand in demands)
    if all(demand.sd is None for demand in demands):
        return Demand(mean=mean)
    variance = math.fsum(d.mean if d.sd is None else d.sd**2 for d in demands)
    return Demand(mean=mean, sd=math.sqrt(variance))


def _require_system(num_spares: int, loads: Sequence[float]) -> None:
    if num_spares < 0:
        raise ValueError(f"num_spares: expected at least 0, got {num_spares}")
    if not loads:
        raise ValueError("loads: expected at least one class, got none")
    for load in loads:
        if not (math.isfinite(load) and load >= 0):
            raise ValueError(f"load: expected a finite number of at least 0, got {load}")
