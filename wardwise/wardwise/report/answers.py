"""How quickly and how well a day was answered: response times, service levels, before and after."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.check import check
from wardwise.report.kpi import summarise
from wardwise.report.service import PRIORITIES

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.replay import Replay
    from wardwise.report.kpi import Kpis

BINS_PER_DECADE = 8
MOST_BINS_FINE = 3 * BINS_PER_DECADE  # wider axes are labelled at powers of ten alone


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Response times on a logarithmic axis; positions and heights are percent.

    Attributes
    ----------
    bars
        Left, width, height, and what is read out.
    ticks
        Position and label.
    """

    bars: tuple[tuple[float, float, float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    count: int
    median_ms: float
    median_at: float
    p99_ms: float
    p99_at: float


@dataclass(frozen=True, kw_only=True)
class Level:
    """What became of the requests of one class."""

    priority: str
    num_requests: int
    num_on_time: int
    num_late: int
    num_denied: int

    @property
    def summary(self) -> str:
        """Denials in words."""
        return f"{self.num_denied} {self.priority}"

    def percent(self, count: int) -> float:
        """Share of the class."""
        return round(100 * count / max(self.num_requests, 1), 2)


def histogram_of(latency_s: tuple[float, ...]) -> Histogram | None:
    """Distribution of response times; `None` where nothing was asked."""
    if not latency_s:
        return None
    times_ms = 1000 * np.array(latency_s)
    number = np.floor(BINS_PER_DECADE * np.log10(times_ms)).astype(int)
    low, high = int(number.min()), int(number.max()) + 1
    counts = np.bincount(number - low).tolist()
    edges_ms = (10 ** (np.arange(low, high + 1) / BINS_PER_DECADE)).tolist()

    def at(time_ms: float) -> float:
        return round(100 * (BINS_PER_DECADE * math.log10(time_ms) - low) / (high - low), 2)

    factors = (1, 2, 5) if high - low <= MOST_BINS_FINE else (1,)
    powers = range(low // BINS_PER_DECADE, high // BINS_PER_DECADE + 1)
    ticks_ms = [factor * 10.0**power for power in powers for factor in factors]
    median_ms, p99_ms = np.quantile(times_ms, [0.5, 0.99]).tolist()
    return Histogram(
        bars=tuple(
            (
                at(left),
                round(at(right) - at(left), 2),
                round(100 * count / max(counts), 1),
                f"{count} in {left:.3g} to {right:.3g} ms",
            )
            for count, (left, right) in zip(counts, pairwise(edges_ms), strict=True)
            if count
        ),
        ticks=tuple((at(t), f"{t:g} ms") for t in ticks_ms if edges_ms[0] <= t <= edges_ms[-1]),
        count=len(times_ms),
        median_ms=median_ms,
        median_at=at(median_ms),
        p99_ms=p99_ms,
        p99_at=at(p99_ms),
    )


def levels_of(instance: Instance, plan: Plan) -> tuple[Level, ...]:
    """Service level of each class; what is not served counts as denied."""
    start_s = {s.request: s.start_s for t in plan.trips for s in t.stops if not s.is_pickup}
    levels = []
    for number, name in PRIORITIES.items():
        requests = [r for r in instance.requests if r.priority == number]
        served = [r for r in requests if r.id in start_s]
        num_late = sum(start_s[r.id] > r.due_s + 1e-6 for r in served)
        levels.append(
            Level(
                priority=name,
                num_requests=len(requests),
                num_on_time=len(served) - num_late,
                num_late=num_late,
                num_denied=len(requests) - len(served),
            )
        )
    return tuple(levels)


def first_kpis(replay: Replay) -> Kpis:
    """Figures of the plan made in advance, for what was known then."""
    plan = replay.first_plan
    named = {stop.request for trip in plan.trips for stop in trip.stops} | {*plan.denied}
    known = tuple(r for r in replay.instance.requests if r.id in named)
    instance = replace(replay.instance, requests=known)
    return summarise(instance, plan, check(instance, plan))
