"""A day on which every new request is answered by a full re-solve of what is left.

Robots leave as late as their next start allows, as under our dispatcher; what they
have left for is fixed. The solver sees the rest with the new request, which it may
turn down, and its present plan; everybody who was accepted stays promised. An answer
that breaks a window in double precision is not driven: then the old plan stays, and
the request is turned down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import Submit, order_events
from wardwise.fleet.plan import Plan, Stop, Trip

from .committed import State, Vehicle

if TYPE_CHECKING:
    from collections.abc import Callable

    from wardwise.fleet.check import Report
    from wardwise.fleet.problem import Instance, Request, Robot

    from .committed import Answer


@dataclass(kw_only=True)
class Van:
    """A robot of the day: where it is committed to, since when it is free, and what is ahead."""

    robot: Robot
    place: int = 0
    free_s: float = 0.0
    load: float = 0.0
    done: list[Stop] = field(default_factory=list)
    ahead: list[Request] = field(default_factory=list)


class Driven(NamedTuple):
    """The day as it was, and the answers that had to be left aside."""

    plan: Plan
    report: Report
    seconds: tuple[float, ...]
    num_unused: int


def drive(instance: Instance, first_plan: Plan, solver: Callable[[State], Answer]) -> Driven:
    """Live through the day of a plain dynamic instance (collections, one trip a robot)."""
    vans = {robot.id: Van(robot=robot, free_s=robot.start_s) for robot in instance.robots}
    for trip in first_plan.trips:
        vans[trip.robot].ahead = [instance.request_by_id[stop.request] for stop in trip.stops]
    denied = [*first_plan.denied]
    seconds, num_unused = [], 0
    for event in order_events(
        Submit(now_s=r.release_s, request=r) for r in instance.requests if r.release_s > 0
    ):
        for van in vans.values():
            _commit(instance, van, event.now_s)
        state = _state(instance, [*vans.values()], event.request)
        answer = solver(state)
        seconds.append(answer.seconds)
        if not answer.is_feasible:
            num_unused += 1
            denied.append(event.request.id)
            continue
        denied += answer.denied
        for van, route in zip(vans.values(), answer.routes, strict=True):
            van.ahead = [state.requests[position] for position in route]
    for van in vans.values():
        _commit(instance, van, van.robot.end_s)
    trips = tuple(_trip(instance, van) for van in vans.values() if van.done)
    plan = Plan(instance=instance.name, trips=trips, denied=tuple(denied))
    report = check(instance, plan, timing=Timing.DISPATCHED)
    return Driven(plan, report, tuple(seconds), num_unused)


def _commit(instance: Instance, van: Van, now_s: float) -> None:
    """Leave for everybody whose start asks for it by now."""
    while van.ahead:
        request = van.ahead[0]
        there = instance.place_index[request.place]
        travel_s = float(instance.travel_s[van.place, there])
        start_s = max(request.earliest_s, van.free_s + travel_s)
        if start_s - travel_s > now_s:
            break
        van.ahead.pop(0)
        van.done.append(Stop(request=request.id, arrive_s=start_s, start_s=start_s))
        van.place, van.free_s = there, start_s + request.service_s
        van.load += request.load
    van.free_s = max(van.free_s, now_s if now_s < van.robot.end_s else 0.0)


def _state(instance: Instance, vans: list[Van], request: Request) -> State:
    ahead = [each for van in vans for each in van.ahead]
    plan, count = [], 0
    for van in vans:
        plan.append(tuple(range(count, count + len(van.ahead))))
        count += len(van.ahead)
    return State(
        instance=instance,
        vehicles=tuple(
            Vehicle(
                place=van.place,
                free_s=van.free_s,
                room=van.robot.capacity - van.load,
                end_s=van.robot.end_s,
                is_used=bool(van.done),
            )
            for van in vans
        ),
        requests=(*ahead, request),
        optional=frozenset({request.id}),
        plan=tuple(plan),
    )


def _trip(instance: Instance, van: Van) -> Trip:
    first = van.done[0]
    place = instance.place_index[instance.request_by_id[first.request].place]
    return Trip(
        robot=van.robot.id,
        depart_s=first.start_s - float(instance.travel_s[0, place]),
        stops=tuple(van.done),
        return_s=van.free_s + float(instance.travel_s[van.place, 0]),
    )
