"""The referee: says whether a plan is feasible, and what it costs.

Whoever plans may use any shortcut; what counts is the verdict of this file. It
therefore shares no code with any solver, takes nothing from the plan but the
stated times, and recomputes the rest stop by stop in double precision.

Each stated time is compared with the earliest time possible after the *stated*
times before it. One wrong time is so reported where it stands, not at every stop
after it. All violations are reported, not the first alone.

Legs to and from an unknown request, or where there is no way, count no metres:
the plan is infeasible anyhow, and its cost stays finite.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from wardwise.fleet.plan import CostBreakdown
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wardwise.fleet.plan import Plan, Trip
    from wardwise.fleet.problem import Instance, Robot

# Sums of loads such as 0.1 + 0.2 may exceed a full robot by rounding only.
LOAD_TOLERANCE = 1e-9
DEPOT = 0


class Constraint(StrEnum):
    """What a plan can violate."""

    INSTANCE = "instance"
    UNKNOWN_ROBOT = "unknown-robot"
    UNKNOWN_REQUEST = "unknown-request"
    UNSERVED = "unserved"
    SERVED_TWICE = "served-twice"
    DENIED_TWICE = "denied-twice"
    SERVED_AND_DENIED = "served-and-denied"
    NON_FINITE = "non-finite"
    CAPACITY = "capacity"
    EARLY = "early"
    LATE = "late"
    TRAVEL = "travel"
    WAITING = "waiting"
    RETURN = "return"
    SHIFT = "shift"
    RELOAD = "reload"
    MAX_TRIPS = "max-trips"


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One broken rule; `request` and `robot` are ids where the rule concerns one."""

    constraint: Constraint
    message: str
    request: str | None = None
    robot: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdict on a plan."""

    violations: tuple[Violation, ...]
    cost: CostBreakdown

    @property
    def is_feasible(self) -> bool:
        """Whether no rule is broken."""
        return not self.violations


def check(instance: Instance, plan: Plan, *, tolerance_s: float = 1e-6) -> Report:
    """Recompute feasibility and cost of a plan.

    Parameters
    ----------
    tolerance_s
        Seconds by which a stated time may miss a bound through rounding. Lateness
        up to it is no lateness.

    Returns
    -------
    Report
        Every violation, in the order: plan, requests, then each robot's trips in
        driving order; and the cost, which for an infeasible plan is that of the
        part that can be driven.

    Raises
    ------
    ValueError
        If `tolerance_s` is negative or not finite.
    """
    if not (math.isfinite(tolerance_s) and tolerance_s >= 0):
        raise ValueError(f"tolerance_s: expected a finite number of at least 0, got {tolerance_s}")
    violations = [*_plan_violations(instance, plan)]
    for robot_id, trips in plan.trips_by_robot().items():
        violations += _robot_violations(instance, robot_id, trips, tolerance_s)
        for trip in trips:
            violations += _time_violations(instance, trip, tolerance_s)
            violations += _load_violations(instance, trip)
    return Report(violations=tuple(violations), cost=_cost(instance, plan, tolerance_s))


def _plan_violations(instance: Instance, plan: Plan) -> Iterator[Violation]:
    """Plan of another instance; requests not served or denied exactly once."""
    if plan.instance != instance.name:
        yield Violation(
            constraint=Constraint.INSTANCE,
            message=f"the plan is for instance {plan.instance!r}, not {instance.name!r}",
        )
    driver = {stop.request: trip.robot for trip in plan.trips for stop in trip.stops}
    served = Counter(stop.request for trip in plan.trips for stop in trip.stops)
    denied = Counter(plan.denied)
    for request in dict.fromkeys([*served, *denied]):
        robot = driver.get(request)
        findings = (
            (Constraint.UNKNOWN_REQUEST, request not in instance.request_by_id, "does not exist"),
            (Constraint.SERVED_TWICE, served[request] > 1, f"is served {served[request]} times"),
            (Constraint.DENIED_TWICE, denied[request] > 1, f"is denied {denied[request]} times"),
            (
                Constraint.SERVED_AND_DENIED,
                served[request] > 0 and denied[request] > 0,
                "is both served and denied",
            ),
        )
        for constraint, is_violated, finding in findings:
            if is_violated:
                yield Violation(
                    constraint=constraint,
                    request=request,
                    robot=robot,
                    message=f"request {request!r} {finding}",
                )
    for request in instance.request_by_id:
        if request not in served and request not in denied:
            yield Violation(
                constraint=Constraint.UNSERVED,
                request=request,
                message=f"request {request!r} is neither served nor denied",
            )


def _robot_violations(
    instance: Instance, robot_id: str, trips: Sequence[Trip], tolerance_s: float
) -> Iterator[Violation]:
    """Unknown robot, shift, number of trips, and time to reload between them."""

    def violation(constraint: Constraint, finding: str) -> Violation:
        return Violation(
            constraint=constraint, robot=robot_id, message=f"robot {robot_id!r} {finding}"
        )

    robot = instance.robot_by_id.get(robot_id)
    if robot is None:
        yield violation(Constraint.UNKNOWN_ROBOT, "does not exist")
    else:
        if robot.max_trips is not None and len(trips) > robot.max_trips:
            yield violation(
                Constraint.MAX_TRIPS, f"makes {len(trips)} trips, at most {robot.max_trips} allowed"
            )
        for trip in trips:
            if _finite(trip.depart_s) < robot.start_s - tolerance_s:
                yield violation(
                    Constraint.SHIFT,
                    f"departs at {trip.depart_s:.10g}, its shift starts at {robot.start_s:.10g}",
                )
            if _finite(trip.return_s) > robot.end_s + tolerance_s:
                yield violation(
                    Constraint.SHIFT,
                    f"returns at {trip.return_s:.10g}, its shift ends at {robot.end_s:.10g}",
                )
    for before, after in pairwise(trips):
        ready_s = _finite(before.return_s) + instance.reload_s
        if _finite(after.depart_s) < ready_s - tolerance_s:
            yield violation(
                Constraint.RELOAD,
                f"departs at {after.depart_s:.10g}, is back and reloaded at {ready_s:.10g}",
            )


def _time_violations(instance: Instance, trip: Trip, tolerance_s: float) -> Iterator[Violation]:
    """Stated times not finite, out of their window, or impossible after those before."""

    def violation(constraint: Constraint, request: str | None, finding: str) -> Violation:
        what = f"robot {trip.robot!r}" if request is None else f"request {request!r}"
        return Violation(
            constraint=constraint, request=request, robot=trip.robot, message=f"{what} {finding}"
        )

    for name, value in (("depart_s", trip.depart_s), ("return_s", trip.return_s)):
        if not math.isfinite(value):
            yield violation(Constraint.NON_FINITE, None, f"has {name} = {value}")
    place: int | None = DEPOT
    free_s = _finite(trip.depart_s)
    for stop in trip.stops:
        for name, value in (("arrive_s", stop.arrive_s), ("start_s", stop.start_s)):
            if not math.isfinite(value):
                yield violation(Constraint.NON_FINITE, stop.request, f"has {name} = {value}")
        arrive_s, start_s = _finite(stop.arrive_s), _finite(stop.start_s)
        if start_s < arrive_s - tolerance_s:
            finding = f"starts at {start_s:.10g}, before the robot arrives at {arrive_s:.10g}"
            yield violation(Constraint.WAITING, stop.request, finding)
        request = instance.request_by_id.get(stop.request)
        if request is None:
            place, free_s = None, math.nan
            continue
        here = instance.place_index[request.place]
        possible_s = free_s + _travel_s(instance, place, here)
        if arrive_s < possible_s - tolerance_s:
            finding = f"is reached at {arrive_s:.10g}, possible from {possible_s:.10g}"
            yield violation(Constraint.TRAVEL, stop.request, finding)
        earliest_s = max(request.ready_s, request.release_s)
        latest_s = request.due_s + request.tolerance_s
        if start_s < earliest_s - tolerance_s:
            finding = f"starts at {start_s:.10g}, earliest {earliest_s:.10g}"
            yield violation(Constraint.EARLY, stop.request, finding)
        if start_s > latest_s + tolerance_s:
            finding = f"starts at {start_s:.10g}, latest {latest_s:.10g}"
            yield violation(Constraint.LATE, stop.request, finding)
        place, free_s = here, start_s + request.service_s
    possible_s = free_s + _travel_s(instance, place, DEPOT)
    if _finite(trip.return_s) < possible_s - tolerance_s:
        finding = f"is back at {trip.return_s:.10g}, possible from {possible_s:.10g}"
        yield violation(Constraint.RETURN, None, finding)


def _load_violations(instance: Instance, trip: Trip) -> Iterator[Violation]:
    """Legs fuller than the robot; named is the stop before which or at which the load grew.

    What is delivered is on board from departure to its stop, what is collected
    from its stop to the return. A leg that starts with a hand-over is never fuller
    than the one before it, so that overfull legs are reported where they begin.
    """
    robot = instance.robot_by_id.get(trip.robot)
    if robot is None:
        return
    requests = [instance.request_by_id.get(stop.request) for stop in trip.stops]
    known = [request for request in requests if request is not None]
    load = math.fsum(request.load for request in known if request.kind == Kind.DELIVER)
    if _is_overfull(load, robot):
        first = trip.stops[0].request
        yield _overload(robot, load, first, f"leaves the depot towards request {first!r}")
    for request in known:
        if request.kind == Kind.DELIVER:
            load -= request.load
            continue
        load += request.load
        if _is_overfull(load, robot):
            yield _overload(robot, load, request.id, f"leaves request {request.id!r}")


def _is_overfull(load: float, robot: Robot) -> bool:
    return load > robot.capacity + LOAD_TOLERANCE * max(1.0, robot.capacity)


def _overload(robot: Robot, load: float, request: str, finding: str) -> Violation:
    return Violation(
        constraint=Constraint.CAPACITY,
        request=request,
        robot=robot.id,
        message=f"robot {robot.id!r} {finding} with load {load:.10g}, "
        f"its capacity is {robot.capacity:.10g}",
    )


def _cost(instance: Instance, plan: Plan, tolerance_s: float) -> CostBreakdown:
    """Price robots, metres, lateness and denials; each denied request counts once."""
    costs = instance.costs
    robots = {trip.robot for trip in plan.trips}
    metres: list[float] = []
    late_s: list[float] = []
    late_cost: list[float] = []
    for trip in plan.trips:
        place: int | None = DEPOT
        for stop in trip.stops:
            request = instance.request_by_id.get(stop.request)
            if request is None:
                place = None
                continue
            here = instance.place_index[request.place]
            metres.append(_distance_m(instance, place, here))
            place = here
            delay_s = _finite(stop.start_s) - request.due_s
            if delay_s > tolerance_s:
                late_s.append(delay_s)
                late_cost.append(delay_s * costs.lateness_per_s[request.priority - 1])
        metres.append(_distance_m(instance, place, DEPOT))
    denied = [r for r in (instance.request_by_id.get(id_) for id_ in set(plan.denied)) if r]
    distance_m = math.fsum(metres)
    return CostBreakdown(
        num_robots=len(robots),
        distance_m=distance_m,
        num_late=len(late_s),
        lateness_s=math.fsum(late_s),
        num_denied=len(denied),
        robot_cost=len(robots) * costs.per_robot,
        distance_cost=distance_m * costs.per_metre,
        lateness_cost=math.fsum(late_cost),
        denial_cost=math.fsum(costs.per_denial[request.priority - 1] for request in denied),
    )


def _travel_s(instance: Instance, origin: int | None, target: int) -> float:
    """Time of a leg; not a number where it starts at an unknown place."""
    return math.nan if origin is None else float(instance.travel_s[origin, target])


def _distance_m(instance: Instance, origin: int | None, target: int) -> float:
    """Metres of a leg that can be driven, else 0."""
    if origin is None or not math.isfinite(instance.distance_m[origin, target]):
        return 0.0
    return float(instance.distance_m[origin, target])


def _finite(value: float) -> float:
    """Turn an infinite time into not-a-number, which no comparison finds at fault again."""
    return value if math.isfinite(value) else math.nan
