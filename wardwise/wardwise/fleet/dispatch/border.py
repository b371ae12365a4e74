"""What the dispatcher refuses: inputs that make no sense, in one line each."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from wardwise.fleet.check import check
from wardwise.fleet.dispatch.day import FIRST_MOMENT_S
from wardwise.fleet.dispatch.events import Breakdown, Cancel, Delay, Return, Submit
from wardwise.fleet.dispatch.state import clock

if TYPE_CHECKING:
    from wardwise.fleet.dispatch.day import Day
    from wardwise.fleet.dispatch.events import Event
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Request


def require_plan(instance: Instance, plan: Plan) -> None:
    """Refuse a plan that is infeasible, or forgets a request that is known at the start."""
    named = {stop.request for trip in plan.trips for stop in trip.stops} | {*plan.denied}
    for request in instance.requests:
        if request.id not in named and request.release_s == 0:
            raise ValueError(
                f"plan: request {request.id!r}: expected served or denied, got neither"
            )
    known = tuple(request for request in instance.requests if request.id in named)
    violations = check(replace(instance, requests=known), plan).violations
    if violations:
        raise ValueError(f"plan: expected a feasible plan: {violations[0].message}")


def require_event(day: Day, event: Event) -> None:
    """Refuse an event that cannot be, or names what does not exist."""
    if not (math.isfinite(event.now_s) and clock(event.now_s) >= day.now_s):
        raise ValueError(f"now_s: expected at least {day.now_s:.10g}, got {event.now_s}")
    if isinstance(event, Submit):
        require_request(day, event.request, event.now_s)
    elif isinstance(event, Cancel):
        if event.request not in day.status:
            raise ValueError(f"request {event.request!r}: no request of this name is known")
    elif isinstance(event, Delay | Breakdown | Return):
        _require_robot(day, event)


def require_request(day: Day, request: Request, now_s: float) -> None:
    """Refuse a request that no robot of this fleet could ever serve, or that is known."""
    name, instance = f"request {request.id!r}", day.instance
    if request.id in day.status:
        raise ValueError(f"{name}: id: expected a new one, this one is known")
    if request.release_s > now_s:
        raise ValueError(
            f"{name}: release_s: expected at most now = {now_s:.10g}, got {request.release_s:.10g}"
        )
    places = [request.place] if request.origin is None else [request.origin, request.place]
    for field, place in zip(("place", "origin"), reversed(places), strict=False):
        if place not in instance.place_index:
            raise ValueError(f"{name}: {field}: no place is called {place!r}")
    way = [0, *(instance.place_index[place] for place in places), 0]
    if not all(math.isfinite(instance.travel_s[leg]) for leg in pairwise(way)):
        raise ValueError(f"{name}: unreachable: no way between the depot and its places")
    if request.load > day.largest:
        raise ValueError(
            f"{name}: load: expected at most the largest capacity {day.largest:g}, "
            f"got {request.load:g}"
        )


def revealed(request: Request, now_s: float) -> Request:
    """A request as the day knows it: released when it was heard of, unless it says when."""
    if request.release_s > 0:
        return request
    return replace(request, release_s=max(now_s, FIRST_MOMENT_S))


def _require_robot(day: Day, event: Delay | Breakdown | Return) -> None:
    name = f"robot {event.robot!r}"
    if event.robot not in day.robots:
        raise ValueError(f"{name}: no robot is called so")
    is_out = day.state.is_out_of_order(day.robots[event.robot])
    if isinstance(event, Return):
        if not is_out:
            raise ValueError(f"{name}: expected one that broke down, it is in service")
        return
    if is_out:
        raise ValueError(f"{name}: expected one in service, it broke down")
    if isinstance(event, Delay):
        if not math.isfinite(event.delay_s):
            raise ValueError(f"{name}: delay_s: expected a finite number, got {event.delay_s}")
    elif event.place is not None and event.place not in day.instance.place_index:
        raise ValueError(f"{name}: place: no place is called {event.place!r}")
