"""Days lived through: the robots drive their plan while orders are complete earlier or later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wardwise.fleet.check import Report, Timing, check
from wardwise.fleet.plan import Plan, Stop, Trip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wardwise.fleet.problem import Instance
    from wardwise.hospital.deliveries import Delivery

FOREVER_S = 1e9  # of a window or a shift that may be overrun


@dataclass(frozen=True, kw_only=True)
class Brought:
    """One prescription on its way through one day.

    Parameters
    ----------
    order, robot
        Ids.
    completed_s
        When machine and people were done with it.
    arrived_s, picked_s
        When its robot came to the pharmacy and when the hand-over began.
    bedside_s
        When the ward has it.
    wait_s
        Seconds that the robot stood there because the order was later than its release.
    """

    order: str
    robot: str
    completed_s: float
    arrived_s: float
    picked_s: float
    bedside_s: float
    wait_s: float


@dataclass(frozen=True, kw_only=True)
class LivedDay:
    """One day as it was.

    Parameters
    ----------
    plan
        Trips as driven.
    report
        The checker's verdict on them.
    brought
        Prescriptions that a robot brought, in the sequence of the day.
    """

    plan: Plan
    report: Report
    brought: tuple[Brought, ...]


def live(
    instance: Instance,
    plan: Plan,
    deliveries: Sequence[Delivery],
    completed_s: Mapping[str, float],
) -> LivedDay:
    """Drive a plan while orders are complete at other times than it was made for.

    Robots make their trips as planned and leave the depot no earlier than planned. At the pharmacy
    they take an order as soon as it is complete and wait for one that is late; what they lose or
    gain is passed on to the stops behind it. Only the times of the pharmacy are random.

    Parameters
    ----------
    instance
        With the requests of `with_deliveries`.
    plan
        A feasible plan of it.
    deliveries
        All prescriptions.
    completed_s
        When each order is complete.

    Returns
    -------
    LivedDay
        Its times are checked like those of a plan, with the true completions as the start of the
        windows; windows and shifts may be overrun.
    """
    carried = {d.request.id: d for d in deliveries if d.request is not None}
    truth = _as_it_was(instance, {id_: completed_s[id_] for id_ in carried})
    driven = drive(truth, plan)
    pickups: dict[str, Stop] = {}
    drops: dict[str, tuple[str, float]] = {}
    for trip in driven.trips:
        for stop in trip.stops:
            if stop.request in carried and stop.is_pickup:
                pickups[stop.request] = stop
            elif stop.request in carried:
                end_s = stop.start_s + truth.request_by_id[stop.request].service_s
                drops[stop.request] = (trip.robot, end_s)
    brought = tuple(
        Brought(
            order=id_, robot=drops[id_][0], completed_s=completed_s[id_],
            arrived_s=pickups[id_].arrive_s, picked_s=pickups[id_].start_s,
            bedside_s=drops[id_][1],
            wait_s=max(0.0, completed_s[id_] - max(pickups[id_].arrive_s, carried[id_].ready_s)),
        )
        for id_ in carried
        if id_ in drops
    )  # fmt: skip
    report = check(truth, driven, timing=Timing.DISPATCHED)
    return LivedDay(plan=driven, report=report, brought=brought)


def drive(instance: Instance, plan: Plan) -> Plan:
    """Time the trips of a plan at the windows of `instance`, leaving no earlier than planned.

    Windows may be closed and shifts over: that is for the checker to say.
    """
    trips = []
    for robot, planned in plan.trips_by_robot().items():
        free_s = instance.robot_by_id[robot].start_s
        for trip in planned:
            trips.append(_drive_trip(instance, trip, max(trip.depart_s, free_s)))
            free_s = trips[-1].return_s + instance.reload_s
    return Plan(instance=plan.instance, trips=tuple(trips), denied=plan.denied)


def _drive_trip(instance: Instance, trip: Trip, depart_s: float) -> Trip:
    stops, here, free_s = [], 0, depart_s
    for stop in trip.stops:
        request = instance.request_by_id[stop.request]
        there = instance.place_index[request.stop_place(is_pickup=stop.is_pickup)]
        # Nobody leaves for what is not known yet.
        arrive_s = max(free_s, request.release_s) + float(instance.travel_s[here, there])
        is_drop = request.origin is not None and not stop.is_pickup
        start_s = arrive_s if is_drop else max(arrive_s, request.earliest_s)
        stops.append(replace(stop, arrive_s=arrive_s, start_s=start_s))
        here, free_s = there, start_s + request.service_s
    return_s = free_s + float(instance.travel_s[here, 0])
    return replace(trip, depart_s=depart_s, stops=tuple(stops), return_s=return_s)


def _as_it_was(instance: Instance, completed_s: Mapping[str, float]) -> Instance:
    """The instance with true completions, whose windows and shifts may be overrun."""
    requests = []
    for request in instance.requests:
        ready_s = completed_s.get(request.id, request.ready_s)
        due_s = max(request.due_s, ready_s)
        requests.append(replace(request, ready_s=ready_s, due_s=due_s, tolerance_s=FOREVER_S))
    robots = (replace(robot, end_s=FOREVER_S) for robot in instance.robots)
    return replace(instance, requests=tuple(requests), robots=tuple(robots))
