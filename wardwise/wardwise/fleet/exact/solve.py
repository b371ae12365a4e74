"""The best plan of a small instance, and the proof that there is no better one.

First every way of a robot is labelled: for each set of requests the least distance at
which one robot serves it, with the best stations, amounts, trips and order. Then a set
partition chooses ways that serve every request once: the fewest robots, and among those
the least distance.

`run_exact(instance, *, time_limit=60.0) -> Plan` is the method of `solve`; it returns proven
optima or raises. `solve_exact` tells more.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.bounds import direct_legs
from wardwise.fleet.charging import Charged, charge_trips
from wardwise.fleet.charging.network import chargers, network
from wardwise.fleet.charging.trace import steps
from wardwise.fleet.check import check
from wardwise.fleet.exact.partition import Ways, fewest_then_shortest
from wardwise.fleet.exact.ways import all_ways, least_metres
from wardwise.fleet.plan import ChargeVisit
from wardwise.fleet.problem import Kind
from wardwise.fleet.schedule import schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wardwise.fleet.charging.labels import Store
    from wardwise.fleet.charging.network import Ints, Network
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Robot

# Sets of requests double with each request, and labels come to a kilobyte for four.
MAX_REQUESTS = 15
MAX_LABELS = 3_000_000

Trips = tuple[tuple[str | ChargeVisit, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Solved:
    """A plan and what is known about it.

    Parameters
    ----------
    is_proven
        Whether no plan has fewer robots, or as many and less distance, on mean times.
    num_labels, num_ways
        Labels made, and sets of requests that one robot can serve, over all kinds of robots.
    """

    plan: Plan
    is_proven: bool
    num_labels: int
    num_ways: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kind:
    """Robots that differ in nothing but their ids, and all ways that one of them can make."""

    robots: list[Robot]
    net: Network
    store: Store
    num_labels: int
    ends: Ints
    ways: Ways


def run_exact(instance: Instance, *, time_limit: float = 60.0) -> Plan:
    """Plan with the fewest robots and then the least distance; see `solve_exact`.

    Raises
    ------
    ValueError
        As `solve_exact`, and when the proof does not end within the limit.
    """
    solved = solve_exact(instance, time_limit=time_limit)
    if not solved.is_proven:
        raise ValueError(
            f"method: exact: no proof within time_limit = {time_limit:g} s or free slots at "
            f"stations; expected a smaller instance"
        )
    return solved.plan


def solve_exact(instance: Instance, *, time_limit: float = 60.0, eliminates: bool = True) -> Solved:
    """Find the plan with the fewest robots and then the least distance.

    Requests may start late within their tolerance at no price; none is denied. Stations
    are taken to have room for all, and the plan is no proof where it made a robot wait.

    Parameters
    ----------
    time_limit
        Seconds for each of the two programs.
    eliminates
        Whether legs that cannot be part of a plan are left out beforehand.

    Raises
    ------
    ValueError
        When the instance is too large or holds what this method does not know (transfers,
        promises), naming both; when no plan serves all requests, naming those and the
        constraint; when HiGHS (extra ``exact``) is missing.
    """
    if importlib.util.find_spec("highspy") is None:
        raise ValueError("method: 'exact' needs: pip install 'wardwise[exact]'")
    _require_small(instance)
    legs = direct_legs(instance) if eliminates else None
    kinds = [_label(instance, robots, legs) for robots in _alike(instance)]
    _require_served(instance, kinds)
    choice = fewest_then_shortest([kind.ways for kind in kinds], len(instance.requests), time_limit)
    if choice is None:
        most = len(instance.robots)
        raise ValueError(
            f"instance {instance.name!r}: robots: expected enough to serve all "
            f"{len(instance.requests)} requests in time, got {most}"
        )
    routes: dict[str, Trips] = {}
    metres = 0.0
    for number, way in choice.ways:
        kind = kinds[number]
        robot = next(robot for robot in kind.robots if robot.id not in routes)
        routes[robot.id] = _trips(instance, kind, int(kind.ways.sets[way]))
        metres += float(kind.ways.metres[way])
    plan = schedule(instance, routes)
    report = check(instance, plan)
    assert report.cost.distance_m <= metres + 1e-6 * max(1.0, metres)
    return Solved(
        plan=plan,
        is_proven=choice.is_proven and report.is_feasible,
        num_labels=sum(kind.num_labels for kind in kinds),
        num_ways=sum(len(kind.ways.sets) for kind in kinds),
    )


def _require_small(instance: Instance) -> None:
    size = len(instance.requests)
    if not 1 <= size <= MAX_REQUESTS:
        raise ValueError(f"method: exact: expected 1 to {MAX_REQUESTS} requests, got {size}")
    transfers = [request.id for request in instance.requests if request.kind is Kind.TRANSFER]
    if transfers:
        raise ValueError(f"method: exact: expected no transfers, got request {transfers[0]!r}")
    if instance.promise is not None:
        raise ValueError("method: exact: plans on mean times: expected no promise, got one")


def _alike(instance: Instance) -> list[list[Robot]]:
    """Robots by what they can do."""
    kinds: dict[Robot, list[Robot]] = {}
    for robot in instance.robots:
        kinds.setdefault(robot.kind, []).append(robot)
    return list(kinds.values())


def _label(instance: Instance, robots: list[Robot], legs: NDArray[np.bool_] | None) -> _Kind:
    """All ways of a kind of robots."""
    net = network(instance, robots[0], [(request, False) for request in instance.requests])
    can_follow = np.ones((len(net.ready_s),) * 2, dtype=np.bool_)
    if legs is not None:
        can_follow[1 : net.num_stops + 1, 1 : net.num_stops + 1] = legs
    goods_s = np.unique([0.0, *(request.available_s for request in instance.requests)])
    max_trips = robots[0].max_trips or 0
    store, num, ends = all_ways(net, can_follow, goods_s, max_trips, MAX_LABELS)
    if num > MAX_LABELS:
        raise ValueError(
            f"method: exact: expected at most {MAX_LABELS} partial ways, got more: "
            f"{len(instance.requests)} requests with windows this wide are too many"
        )
    metres = least_metres(store, ends)
    sets = np.flatnonzero(np.isfinite(metres))
    return _Kind(
        robots=robots,
        net=net,
        store=store,
        num_labels=num,
        ends=ends,
        ways=Ways(sets, metres[sets], len(robots)),
    )


def _require_served(instance: Instance, kinds: list[_Kind]) -> None:
    """Name the requests that no way serves, with what stands in its way on a trip of its own."""
    served = 0
    for kind in kinds:
        served |= int(np.bitwise_or.reduce(kind.ways.sets, initial=0))
    lost = [r.id for k, r in enumerate(instance.requests) if not served >> k & 1]
    if not lost:
        return
    found = charge_trips(instance, kinds[0].robots[0].id, [[lost[0]]])
    reason = "" if isinstance(found, Charged) else f"; {found.message}"
    names = ", ".join(map(repr, lost))
    raise ValueError(f"instance {instance.name!r}: requests {names}: cannot be served{reason}")


def _trips(instance: Instance, kind: _Kind, served: int) -> Trips:
    """Trips of the best way that serves a set."""
    net, stations = kind.net, chargers(instance)
    found = steps(net, kind.store, int(kind.ends[served]))
    trips: list[list[str | ChargeVisit]] = [[] for _ in range(found[-1].trip + 1)]
    for step in found:
        if step.node <= net.num_stops:
            trips[step.trip].append(instance.requests[step.node - 1].id)
            continue
        station = stations[step.node - net.num_stops - 1].id
        charged_wh = None if net.is_full else step.charged_wh
        trips[step.trip].append(ChargeVisit(station=station, charged_wh=charged_wh))
    return tuple(tuple(trip) for trip in trips)
