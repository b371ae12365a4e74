"""Many random days of one plan: how often what is late, beside what the plan promises.

Day k has the seed ``seed + k``, so that two plans meet the same days. Shares and means
have 95 % intervals over days. Where the plan has a certificate, its shares stand beside
those of the twin: they agree where robots do not queue and batteries last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.chance.legs import legs_of
from wardwise.fleet.problem import NUM_PRIORITIES
from wardwise.fleet.simulate.days import gather_days, require_days
from wardwise.fleet.simulate.plan_day import carry_out, require_drivable
from wardwise.fleet.simulate.plan_ways import PlanWays
from wardwise.fleet.sizing.stats import Interval, mean, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wardwise.fleet.chance.legs import Legs
    from wardwise.fleet.facts import DrivenDay
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance


@dataclass(frozen=True, kw_only=True)
class PlanFigures:
    """Figures of one day; `queues` has station and time in its queue of every charge."""

    seed: int
    late: tuple[str, ...]
    unserved: tuple[str, ...]
    late_returns: tuple[str, ...]
    lateness_s: float
    distance_m: float
    used_wh: float
    charged_wh: float
    num_below_reserve: int
    num_stranded: int
    num_detours: int
    num_skips: int
    queues: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class LateShare:
    """Share that is late on the twin's days, and that of the plan's certificate, if any."""

    count: int
    simulated: Interval
    certified: float | None


@dataclass(frozen=True, kw_only=True)
class StationQueue:
    """Queueing at one station: charges and mean wait of a day, longest wait of all."""

    station: str
    charges: Interval
    queue_s: Interval
    longest_s: float


@dataclass(frozen=True, kw_only=True)
class PlanDays:
    """Several days of a plan.

    Attributes
    ----------
    is_complete
        False when the simulation was interrupted; `days` are then fewer.
    late
        Of the requests of each priority that the plan serves; late or unserved.
    late_returns
        Of the robots that the plan uses: back after their shift, or never.
    late_by_request
        Share of days on which each request is late.
    """

    name: str
    seed: int
    uses_building: bool
    days: tuple[PlanFigures, ...]
    is_complete: bool
    late: tuple[LateShare, ...]
    late_returns: LateShare
    late_by_request: dict[str, float]
    lateness_s: Interval
    distance_m: Interval
    used_wh: Interval
    charged_wh: Interval
    num_below_reserve: Interval
    num_stranded: Interval
    num_detours: Interval
    num_skips: Interval
    stations: tuple[StationQueue, ...]


def simulate_plan_days(
    instance: Instance,
    plan: Plan,
    *,
    num_days: int = 200,
    seed: int = 0,
    uses_building: bool = False,
    jobs: int | None = 1,
    on_progress: Callable[[int, int], None] | None = None,
    on_day: Callable[[DrivenDay], None] | None = None,
) -> PlanDays:
    """Carry out a plan on several days, as `simulate_plan` does on one.

    Parameters
    ----------
    num_days
        At least 2.
    jobs
        Processes; `None`: one for each core. The result does not depend on it.
    on_progress
        Called with the days done and the days in all.
    on_day
        Called with what was measured on each day, in order, to log it.

    Returns
    -------
    PlanDays
        After Ctrl-C of those days that were done.

    Raises
    ------
    ValueError
        If a parameter is out of range, or as `simulate_plan`.
    KeyboardInterrupt
        On Ctrl-C before two days are done.
    """
    require_days(num_days, seed, jobs)
    require_drivable(instance, plan)
    legs = legs_of(instance)
    PlanWays(instance, seed, uses_building=uses_building, legs=legs)  # is there a building?
    one = partial(_one, instance, plan, legs, uses_building, seed, on_day is not None)
    done = gather_days(one, seed, num_days, jobs, on_progress, on_day)
    return _conclude(instance, plan, done, seed, num_days, uses_building=uses_building)


def _one(
    instance: Instance,
    plan: Plan,
    legs: Legs,
    uses_building: bool,
    first_seed: int,
    is_logged: bool,
    seed: int,
) -> tuple[PlanFigures, DrivenDay | None]:
    ways = PlanWays(instance, seed, uses_building=uses_building, legs=legs)
    day = carry_out(instance, plan, ways, seed)
    figures = PlanFigures(
        seed=seed,
        late=day.late,
        unserved=day.unserved,
        late_returns=day.late_returns,
        lateness_s=day.report.cost.lateness_s,
        distance_m=day.report.cost.distance_m,
        used_wh=math.fsum(each.used_wh for each in day.energy),
        charged_wh=math.fsum(each.charged_wh for each in day.energy),
        num_below_reserve=sum(each.is_below_reserve for each in day.energy),
        num_stranded=sum(each.is_stranded for each in day.energy),
        num_detours=sum(each.num_detours for each in day.energy),
        num_skips=sum(each.num_skips for each in day.energy),
        queues=tuple((each.station, each.start_s - each.arrive_s) for _, each in day.charges),
    )
    return figures, day.driven(seed - first_seed) if is_logged else None


def _conclude(
    instance: Instance,
    plan: Plan,
    days: list[PlanFigures],
    seed: int,
    num_days: int,
    *,
    uses_building: bool,
) -> PlanDays:
    def of(name: str) -> Interval:
        return mean(np.array([getattr(day, name) for day in days], dtype=np.float64))

    certificate = plan.certificate
    risks = {each.request: each.late_share for each in certificate.requests} if certificate else {}
    returns = {each.robot: each.late_share for each in certificate.returns} if certificate else {}
    planned = {stop.request for trip in plan.trips for stop in trip.stops}
    asked = [request for request in instance.requests if request.id in planned]
    late_days = [set(day.late) for day in days]
    return PlanDays(
        name=instance.name,
        seed=seed,
        uses_building=uses_building,
        days=tuple(days),
        is_complete=len(days) == num_days,
        late=tuple(
            _late({r.id for r in asked if r.priority == priority}, late_days, risks)
            for priority in range(1, NUM_PRIORITIES + 1)
        ),
        late_returns=_late(
            set(plan.trips_by_robot()), [set(day.late_returns) for day in days], returns
        ),
        late_by_request={
            request.id: sum(request.id in late for late in late_days) / len(days)
            for request in asked
        },
        lateness_s=of("lateness_s"),
        distance_m=of("distance_m"),
        used_wh=of("used_wh"),
        charged_wh=of("charged_wh"),
        num_below_reserve=of("num_below_reserve"),
        num_stranded=of("num_stranded"),
        num_detours=of("num_detours"),
        num_skips=of("num_skips"),
        stations=tuple(_queues(instance, days)),
    )


def _late(ids: set[str], late_days: list[set[str]], certified: dict[str, float]) -> LateShare:
    parts = np.array([len(ids & late) for late in late_days], dtype=np.float64)
    known = [certified[id_] for id_ in sorted(ids) if id_ in certified]
    return LateShare(
        count=len(ids),
        simulated=share(parts, np.full(len(late_days), float(len(ids)))),
        certified=math.fsum(known) / len(known) if known and len(known) == len(ids) else None,
    )


def _queues(instance: Instance, days: list[PlanFigures]) -> Iterable[StationQueue]:
    """Queues of the stations at which robots were charged."""
    for station in instance.stations:
        waits = [[wait_s for id_, wait_s in day.queues if id_ == station.id] for day in days]
        if any(waits):
            counts = np.array([len(each) for each in waits], dtype=np.float64)
            means = np.array([math.fsum(each) / max(len(each), 1) for each in waits])
            yield StationQueue(
                station=station.id,
                charges=mean(counts),
                queue_s=mean(means),
                longest_s=max(map(max, filter(None, waits))),
            )
