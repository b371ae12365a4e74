"""The referee: says whether a plan is feasible, and what it costs.

Whoever plans may use any shortcut; what counts is the verdict of this file. It
therefore shares no code with any solver, takes nothing from the plan but the
stated times, and recomputes the rest stop by stop in double precision.

Each stated time is compared with the earliest time possible after the *stated*
times before it. One wrong time is so reported where it stands, not at every stop
after it. All violations are reported, not the first alone.

Times are a plan's, or facts that were measured while it was driven; see `Timing`.

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

    from wardwise.fleet.plan import Plan, Stop, Trip
    from wardwise.fleet.problem import Instance, Request

# Sums of loads such as 0.1 + 0.2 may exceed a full robot by rounding only.
LOAD_TOLERANCE = 1e-9
DEPOT = 0


class Timing(StrEnum):
    """What the times of a plan are.

    ``planned``: all requests are known beforehand. ``dispatched``: planned, and no
    robot leaves for a request before it is released. ``executed``: measured facts;
    quick driving and service, late starts and overrun shifts are then outcomes, not
    violations, and times must only follow one another. Lateness is priced in any case.
    """

    PLANNED = "planned"
    DISPATCHED = "dispatched"
    EXECUTED = "executed"


class Constraint(StrEnum):
    """What a plan can violate."""

    INSTANCE = "instance"
    UNKNOWN_ROBOT = "unknown-robot"
    UNKNOWN_REQUEST = "unknown-request"
    UNSERVED = "unserved"
    SERVED_TWICE = "served-twice"
    DENIED_TWICE = "denied-twice"
    SERVED_AND_DENIED = "served-and-denied"
    PAIRING = "pairing"
    NON_FINITE = "non-finite"
    CAPACITY = "capacity"
    EARLY = "early"
    LATE = "late"
    FORESIGHT = "foresight"
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


def check(
    instance: Instance,
    plan: Plan,
    *,
    tolerance_s: float = 1e-6,
    timing: Timing = Timing.PLANNED,
) -> Report:
    """Recompute feasibility and cost of a plan.

    Parameters
    ----------
    tolerance_s
        Seconds by which a stated time may miss a bound through rounding. Lateness
        up to it is no lateness.
    timing
        What the stated times are, and with it which of them can be at fault.

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
        violations += _robot_violations(instance, robot_id, trips, tolerance_s, timing)
        for trip in trips:
            violations += _time_violations(instance, trip, tolerance_s, timing)
            violations += _load_violations(instance, trip)
    return Report(violations=tuple(violations), cost=_cost(instance, plan, tolerance_s))


def _violation(
    constraint: Constraint, robot: str | None, request: str | None, finding: str
) -> Violation:
    what = f"robot {robot!r}" if request is None else f"request {request!r}"
    return Violation(
        constraint=constraint, request=request, robot=robot, message=f"{what} {finding}"
    )


def _plan_violations(instance: Instance, plan: Plan) -> Iterator[Violation]:
    """Plan of another instance; requests not served, in a sound way, or denied exactly once."""
    if plan.instance != instance.name:
        yield Violation(
            constraint=Constraint.INSTANCE,
            message=f"the plan is for instance {plan.instance!r}, not {instance.name!r}",
        )
    # Of every request the number of the trip and whether it is a pickup, stop by stop.
    stops: dict[str, list[tuple[int, bool]]] = {}
    for number, trip in enumerate(plan.trips):
        for stop in trip.stops:
            stops.setdefault(stop.request, []).append((number, stop.is_pickup))
    denied = Counter(plan.denied)
    for id_ in dict.fromkeys([*stops, *denied]):
        request, visits, times = instance.request_by_id.get(id_), stops.get(id_, []), denied[id_]
        is_transfer = request is not None and request.kind == Kind.TRANSFER
        num_served = sum(not (is_transfer and is_pickup) for _, is_pickup in visits)
        findings = (
            (Constraint.UNKNOWN_REQUEST, request is None, "does not exist"),
            (Constraint.SERVED_TWICE, num_served > 1, f"is served {num_served} times"),
            (Constraint.DENIED_TWICE, times > 1, f"is denied {times} times"),
            (Constraint.SERVED_AND_DENIED, visits and times, "is both served and denied"),
            (
                Constraint.PAIRING,
                request is not None and not _is_paired(request, visits),
                "is not picked up and then dropped on one trip"
                if is_transfer
                else "is picked up, but is no transfer",
            ),
        )
        robot = plan.trips[visits[-1][0]].robot if visits else None
        for constraint, is_violated, finding in findings:
            if is_violated:
                yield _violation(constraint, robot, id_, finding)
    for id_ in instance.request_by_id:
        if id_ not in stops and id_ not in denied:
            yield _violation(Constraint.UNSERVED, None, id_, "is neither served nor denied")


def _is_paired(request: Request, visits: Sequence[tuple[int, bool]]) -> bool:
    """Whether each pickup of a transfer is followed by a drop on its trip; no other is allowed."""
    if request.kind != Kind.TRANSFER:
        return not any(is_pickup for _, is_pickup in visits)
    pickups, drops = visits[::2], visits[1::2]
    return all(is_pickup for _, is_pickup in pickups) and list(drops) == [
        (trip, False) for trip, _ in pickups
    ]


def _robot_violations(
    instance: Instance, robot_id: str, trips: Sequence[Trip], tolerance_s: float, timing: Timing
) -> Iterator[Violation]:
    """Unknown robot, shift, number of trips, and time to reload between them."""

    def violation(constraint: Constraint, finding: str) -> Violation:
        return _violation(constraint, robot_id, None, finding)

    is_fact = timing == Timing.EXECUTED
    robot = instance.robot_by_id.get(robot_id)
    if robot is None:
        yield violation(Constraint.UNKNOWN_ROBOT, "does not exist")
    else:
        if robot.max_trips is not None and len(trips) > robot.max_trips:
            finding = f"makes {len(trips)} trips, at most {robot.max_trips} allowed"
            yield violation(Constraint.MAX_TRIPS, finding)
        for trip in trips:
            if _finite(trip.depart_s) < robot.start_s - tolerance_s:
                finding = (
                    f"departs at {trip.depart_s:.10g}, its shift starts at {robot.start_s:.10g}"
                )
                yield violation(Constraint.SHIFT, finding)
            if _finite(trip.return_s) > robot.end_s + tolerance_s and not is_fact:
                finding = f"returns at {trip.return_s:.10g}, its shift ends at {robot.end_s:.10g}"
                yield violation(Constraint.SHIFT, finding)
    for before, after in pairwise(trips):
        # A broken robot is loaded anew as part of its repair, whose length no plan states.
        has_reload = not (is_fact or before.is_broken_off)
        ready_s = _finite(before.return_s) + (instance.reload_s if has_reload else 0.0)
        if _finite(after.depart_s) < ready_s - tolerance_s:
            finding = f"departs at {after.depart_s:.10g}, is back and reloaded at {ready_s:.10g}"
            yield violation(Constraint.RELOAD, finding)


def _time_violations(
    instance: Instance, trip: Trip, tolerance_s: float, timing: Timing
) -> Iterator[Violation]:
    """Stated times not finite, out of their window, or impossible after those before."""

    def violation(constraint: Constraint, request: str | None, finding: str) -> Violation:
        return _violation(constraint, trip.robot, request, finding)

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
        here = instance.place_index[request.stop_place(is_pickup=stop.is_pickup)]
        travel_s = _travel_s(instance, place, here, timing)
        if arrive_s < free_s + travel_s - tolerance_s:
            finding = f"is reached at {arrive_s:.10g}, possible from {free_s + travel_s:.10g}"
            yield violation(Constraint.TRAVEL, stop.request, finding)
        # Goods to deliver are on board from the depot; else the robot may have left at the
        # latest moment at which it still arrives when it does.
        left_s = _finite(trip.depart_s) if request.kind == Kind.DELIVER else arrive_s - travel_s
        if timing != Timing.PLANNED and 0 < request.release_s > left_s + tolerance_s:
            finding = f"is left for at {left_s:.10g}, known from {request.release_s:.10g}"
            yield violation(Constraint.FORESIGHT, stop.request, finding)
        for constraint, finding in _window_findings(request, stop, tolerance_s, timing):
            yield violation(constraint, stop.request, finding)
        place = here
        free_s = start_s + (0.0 if timing == Timing.EXECUTED else request.service_s)
    if trip.is_broken_off:
        possible_s, end = _finite(trip.stops[-1].start_s), "breaks off"
    else:
        possible_s, end = free_s + _travel_s(instance, place, DEPOT, timing), "is back"
    if _finite(trip.return_s) < possible_s - tolerance_s:
        finding = f"{end} at {trip.return_s:.10g}, possible from {possible_s:.10g}"
        yield violation(Constraint.RETURN, None, finding)


def _window_findings(
    request: Request, stop: Stop, tolerance_s: float, timing: Timing
) -> Iterator[tuple[Constraint, str]]:
    """Service out of its window, which opens for a transfer's pickup and closes for its drop."""
    start_s = _finite(stop.start_s)
    earliest_s = max(request.ready_s, request.release_s)
    latest_s = request.due_s + request.tolerance_s
    if start_s < earliest_s - tolerance_s and not _is_drop(request, stop):
        yield Constraint.EARLY, f"starts at {start_s:.10g}, earliest {earliest_s:.10g}"
    has_deadline = timing != Timing.EXECUTED and not _is_pickup(request, stop)
    if start_s > latest_s + tolerance_s and has_deadline:
        yield Constraint.LATE, f"starts at {start_s:.10g}, latest {latest_s:.10g}"


def _is_pickup(request: Request, stop: Stop) -> bool:
    """Whether a stop is the first of the two of a transfer."""
    return request.kind == Kind.TRANSFER and stop.is_pickup


def _is_drop(request: Request, stop: Stop) -> bool:
    """Whether a stop is the second of the two of a transfer."""
    return request.kind == Kind.TRANSFER and not stop.is_pickup


def _load_violations(instance: Instance, trip: Trip) -> Iterator[Violation]:
    """Legs fuller than the robot; named is the stop before which or at which the load grew.

    What is delivered is on board from departure to its stop, what is collected
    from its stop to the return, what is transferred between its stops. A leg that
    starts with a hand-over is never fuller than the one before it, so that overfull
    legs are reported where they begin. Goods that were never handed over, because the
    trip was broken off, have no stop on it: they are unknown here and weigh nothing.
    """
    robot = instance.robot_by_id.get(trip.robot)
    if robot is None:
        return
    visits = [(instance.request_by_id.get(stop.request), stop) for stop in trip.stops]
    known = [(request, stop) for request, stop in visits if request is not None]
    load = math.fsum(request.load for request, _ in known if request.kind == Kind.DELIVER)
    legs = [("leaves the depot towards", trip.stops[0].request, load)]
    for request, stop in known:
        if request.kind == Kind.DELIVER or _is_drop(request, stop):
            load -= request.load
        else:
            load += request.load
            legs.append(("leaves", request.id, load))
    most = robot.capacity + LOAD_TOLERANCE * max(1.0, robot.capacity)
    for leaves, request_id, load in legs:
        if load > most:
            yield Violation(
                constraint=Constraint.CAPACITY,
                request=request_id,
                robot=robot.id,
                message=f"robot {robot.id!r} {leaves} request {request_id!r} with load "
                f"{load:.10g}, its capacity is {robot.capacity:.10g}",
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
            here = instance.place_index[request.stop_place(is_pickup=stop.is_pickup)]
            metres.append(_distance_m(instance, place, here))
            place = here
            delay_s = _finite(stop.start_s) - request.due_s
            if delay_s > tolerance_s and not _is_pickup(request, stop):
                late_s.append(delay_s)
                late_cost.append(delay_s * costs.lateness_per_s[request.priority - 1])
        # How far a robot came on the leg on which it broke down, no plan states.
        if not trip.is_broken_off:
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


def _travel_s(instance: Instance, origin: int | None, target: int, timing: Timing) -> float:
    """Least time of a leg: of a driven one 0; not a number where it starts at an unknown place."""
    if origin is None:
        return math.nan
    travel_s = float(instance.travel_s[origin, target])
    return 0.0 if timing == Timing.EXECUTED and math.isfinite(travel_s) else travel_s


def _distance_m(instance: Instance, origin: int | None, target: int) -> float:
    """Metres of a leg that can be driven, else 0."""
    if origin is None or not math.isfinite(instance.distance_m[origin, target]):
        return 0.0
    return float(instance.distance_m[origin, target])


def _finite(value: float) -> float:
    """Turn an infinite time into not-a-number, which no comparison finds at fault again."""
    return value if math.isfinite(value) else math.nan
