"""Stated times: within shifts and windows, and possible one after the other."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from wardwise.fleet.check.verdict import Constraint, Timing, Violation, finite, violation
from wardwise.fleet.check.visits import DEPOT, depot_charges, is_drop, is_pickup, visits
from wardwise.fleet.plan import Charge, Stop
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wardwise.fleet.check.visits import Visit
    from wardwise.fleet.plan import Trip
    from wardwise.fleet.problem import Instance, Request


def robot_violations(
    instance: Instance, robot_id: str, trips: Sequence[Trip], tolerance_s: float, timing: Timing
) -> Iterator[Violation]:
    """Unknown robot, shift, number of trips, reloads and charges between them."""

    def broken(constraint: Constraint, finding: str) -> Violation:
        return violation(constraint, robot_id, None, finding)

    is_fact = timing == Timing.EXECUTED
    robot = instance.robot_by_id.get(robot_id)
    if robot is None:
        yield broken(Constraint.UNKNOWN_ROBOT, "does not exist")
    else:
        if robot.max_trips is not None and len(trips) > robot.max_trips:
            finding = f"makes {len(trips)} trips, at most {robot.max_trips} allowed"
            yield broken(Constraint.MAX_TRIPS, finding)
        for trip in trips:
            if finite(trip.depart_s) < robot.start_s - tolerance_s:
                finding = (
                    f"departs at {trip.depart_s:.10g}, its shift starts at {robot.start_s:.10g}"
                )
                yield broken(Constraint.SHIFT, finding)
            if finite(trip.return_s) > robot.end_s + tolerance_s and not is_fact:
                finding = f"returns at {trip.return_s:.10g}, its shift ends at {robot.end_s:.10g}"
                yield broken(Constraint.SHIFT, finding)
    for before, after in pairwise(trips):
        # A broken robot is loaded anew as part of its repair, whose length no plan states.
        has_reload = not (is_fact or before.is_broken_off)
        ready_s = finite(before.return_s) + (instance.reload_s if has_reload else 0.0)
        if finite(after.depart_s) < ready_s - tolerance_s:
            finding = f"departs at {after.depart_s:.10g}, is back and reloaded at {ready_s:.10g}"
            yield broken(Constraint.RELOAD, finding)
    back_s = robot.start_s if robot is not None else math.nan
    for trip in trips:
        yield from _depot_violations(instance, trip, back_s, tolerance_s)
        back_s = finite(trip.return_s)


def _depot_violations(
    instance: Instance, trip: Trip, back_s: float, tolerance_s: float
) -> Iterator[Violation]:
    """Charges at the depot, from when the robot is back to when it departs."""
    free_s = back_s
    for charge in depot_charges(instance, trip):
        yield from _charge_violations(trip, charge, free_s, tolerance_s)
        free_s = finite(charge.end_s)
    if free_s != back_s and finite(trip.depart_s) < free_s - tolerance_s:
        finding = f"departs at {trip.depart_s:.10g}, is charged until {free_s:.10g}"
        yield violation(Constraint.CHARGING, trip.robot, None, finding)


def time_violations(
    instance: Instance, trip: Trip, tolerance_s: float, timing: Timing
) -> Iterator[Violation]:
    """Stated times not finite, out of their window, or impossible after those before."""
    for name, value in (("depart_s", trip.depart_s), ("return_s", trip.return_s)):
        if not math.isfinite(value):
            yield violation(Constraint.NON_FINITE, trip.robot, None, f"has {name} = {value}")
    place: int | None = DEPOT
    free_s = finite(trip.depart_s)
    start_s = free_s
    for visit in visits(instance, trip):
        travel_s = _travel_s(instance, place, visit.place, timing)
        place, start_s = visit.place, finite(visit.event.start_s)
        if isinstance(visit.event, Charge):
            yield from _charge_violations(trip, visit.event, free_s + travel_s, tolerance_s)
            free_s = finite(visit.event.end_s)
        else:
            yield from _stop_violations(trip, visit, free_s, travel_s, tolerance_s, timing)
            service_s = math.nan if visit.request is None else visit.request.service_s
            free_s = start_s + (0.0 if timing == Timing.EXECUTED else service_s)
    if trip.is_broken_off:
        possible_s, end = start_s, "breaks off"
    else:
        possible_s, end = free_s + _travel_s(instance, place, DEPOT, timing), "is back"
    if finite(trip.return_s) < possible_s - tolerance_s:
        finding = f"{end} at {trip.return_s:.10g}, possible from {possible_s:.10g}"
        yield violation(Constraint.RETURN, trip.robot, None, finding)


def _stop_violations(
    trip: Trip, visit: Visit, free_s: float, travel_s: float, tolerance_s: float, timing: Timing
) -> Iterator[Violation]:
    """Times of one stop of a robot that is free at the visit before from `free_s` on."""
    stop = visit.event
    assert isinstance(stop, Stop)

    def broken(constraint: Constraint, finding: str) -> Violation:
        return violation(constraint, trip.robot, stop.request, finding)

    for name, value in (("arrive_s", stop.arrive_s), ("start_s", stop.start_s)):
        if not math.isfinite(value):
            yield broken(Constraint.NON_FINITE, f"has {name} = {value}")
    arrive_s, start_s = finite(stop.arrive_s), finite(stop.start_s)
    if start_s < arrive_s - tolerance_s:
        finding = f"starts at {start_s:.10g}, before the robot arrives at {arrive_s:.10g}"
        yield broken(Constraint.WAITING, finding)
    request = visit.request
    if request is None:
        return
    if arrive_s < free_s + travel_s - tolerance_s:
        finding = f"is reached at {arrive_s:.10g}, possible from {free_s + travel_s:.10g}"
        yield broken(Constraint.TRAVEL, finding)
    depart_s = finite(trip.depart_s)
    if 0 < request.available_s > depart_s + tolerance_s:
        finding = f"leaves the depot at {depart_s:.10g}, stands there from {request.available_s:g}"
        yield broken(Constraint.GOODS, finding)
    # Goods to deliver are on board from the depot; else the robot may have left at the
    # latest moment at which it still arrives when it does.
    left_s = depart_s if request.kind == Kind.DELIVER else arrive_s - travel_s
    if timing != Timing.PLANNED and 0 < request.release_s > left_s + tolerance_s:
        finding = f"is left for at {left_s:.10g}, known from {request.release_s:.10g}"
        yield broken(Constraint.FORESIGHT, finding)
    for constraint, finding in _window_findings(request, stop, tolerance_s, timing):
        yield broken(constraint, finding)


def _window_findings(
    request: Request, stop: Stop, tolerance_s: float, timing: Timing
) -> Iterator[tuple[Constraint, str]]:
    """Service out of its window, which opens for a transfer's pickup and closes for its drop."""
    start_s = finite(stop.start_s)
    earliest_s = max(request.ready_s, request.release_s)
    latest_s = request.due_s + request.tolerance_s
    if start_s < earliest_s - tolerance_s and not is_drop(request, stop):
        yield Constraint.EARLY, f"starts at {start_s:.10g}, earliest {earliest_s:.10g}"
    has_deadline = timing != Timing.EXECUTED and not is_pickup(request, stop)
    if start_s > latest_s + tolerance_s and has_deadline:
        yield Constraint.LATE, f"starts at {start_s:.10g}, latest {latest_s:.10g}"


def _charge_violations(
    trip: Trip, charge: Charge, possible_s: float, tolerance_s: float
) -> Iterator[Violation]:
    """Times of one charge of a robot that may be at its station from `possible_s` on."""
    where = f"station {charge.station!r}"

    def broken(constraint: Constraint, finding: str) -> Violation:
        return violation(constraint, trip.robot, None, finding)

    for name in ("arrive_s", "start_s", "end_s", "charged_wh"):
        value = getattr(charge, name)
        if not math.isfinite(value):
            yield broken(Constraint.NON_FINITE, f"has {name} = {value} at {where}")
    arrive_s, start_s, end_s = map(finite, (charge.arrive_s, charge.start_s, charge.end_s))
    if arrive_s < possible_s - tolerance_s:
        finding = f"is at {where} at {arrive_s:.10g}, possible from {possible_s:.10g}"
        yield broken(Constraint.TRAVEL, finding)
    if start_s < arrive_s - tolerance_s:
        finding = f"is charged at {where} from {start_s:.10g}, arrives at {arrive_s:.10g}"
        yield broken(Constraint.WAITING, finding)
    if end_s < start_s - tolerance_s:
        finding = f"is charged at {where} until {end_s:.10g}, from {start_s:.10g}"
        yield broken(Constraint.CHARGING, finding)


def _travel_s(instance: Instance, origin: int | None, target: int | None, timing: Timing) -> float:
    """Least time of a leg: of a driven one 0; not a number where an end of it is unknown."""
    if origin is None or target is None:
        return math.nan
    travel_s = float(instance.travel_s[origin, target])
    return 0.0 if timing == Timing.EXECUTED and math.isfinite(travel_s) else travel_s
