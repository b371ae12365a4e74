"""From sequences of stops to a timed plan.

A robot drives a chain of trips: depot, stops, depot, reload, stops, ..., depot.
Two passes give the times:

1. forward, every service starts as early as possible,
   ``start[k] = max(earliest[k], start[k-1] + service[k-1] + travel[k-1, k])``;
2. every departure from the depot then moves as late as it can without moving
   the service start that follows, so a robot waits at the depot, loaded, and
   not in front of a ward.

Early starts are kept because with them no delay can be avoided by another
timing of the same sequence.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wardwise.fleet.problem import Instance, Request, Robot

# Sums in another order differ by far less; a robot never notices a microsecond.
TOLERANCE_S = 1e-6
# Of the capacity, or of one slot if that is more: 0.1 + 0.2 fits into 0.3.
LOAD_TOLERANCE = 1e-9


def schedule(
    instance: Instance,
    routes: Mapping[str, Sequence[Sequence[str]]],
    denied: Sequence[str] = (),
) -> Plan:
    """Time the trips of every robot.

    Parameters
    ----------
    instance
        The problem that the sequences belong to.
    routes
        For each robot its trips in driving order, each the ids of its requests. The
        id of a transfer stands twice on its trip, at its pickup and at its drop.
    denied
        Ids of the requests that are turned down; passed on as they are.

    Returns
    -------
    Plan
        Service starts as early as possible, departures as late as possible.
        Whether every request is served exactly once is left to the checker.

    Raises
    ------
    ValueError
        Naming robot and request, when an id is unknown, a transfer has not its two
        stops, a load does not fit, a window closes before the robot comes, or its
        shift ends before it is back.
    """
    trips: list[Trip] = []
    for robot_id, sequences in routes.items():
        if robot_id not in instance.robot_by_id:
            raise ValueError(f"robot {robot_id!r}: no robot of this name in {instance.name!r}")
        robot = instance.robot_by_id[robot_id]
        if robot.max_trips is not None and len(sequences) > robot.max_trips:
            raise ValueError(
                f"robot {robot_id!r}: trips: expected at most {robot.max_trips}, "
                f"got {len(sequences)}"
            )
        ready_s = robot.start_s
        for sequence in sequences:
            trips.append(_time_trip(instance, robot, ready_s, _look_up(instance, robot, sequence)))
            ready_s = trips[-1].return_s + instance.reload_s
    return Plan(instance=instance.name, trips=tuple(trips), denied=tuple(denied))


def _look_up(
    instance: Instance, robot: Robot, sequence: Sequence[str]
) -> list[tuple[Request, bool]]:
    """Each stop's request, and whether it is the pickup of a transfer."""
    if not sequence:
        raise ValueError(f"robot {robot.id!r}: trip: expected at least one request, got none")
    for request_id in sequence:
        if request_id not in instance.request_by_id:
            raise ValueError(
                f"robot {robot.id!r}: request {request_id!r}: "
                f"no request of this name in {instance.name!r}"
            )
    requests = [instance.request_by_id[request_id] for request_id in sequence]
    for request_id, count in Counter(sequence).items():
        is_transfer = instance.request_by_id[request_id].kind is Kind.TRANSFER
        if is_transfer and count != 2:
            raise ValueError(
                f"robot {robot.id!r}: request {request_id!r}: stops: "
                f"expected a pickup and a drop on one trip, got {count}"
            )
    stops = [
        (request, request.kind is Kind.TRANSFER and request.id not in sequence[:k])
        for k, request in enumerate(requests)
    ]
    _require_loads_fit(robot, stops)
    return stops


def _require_loads_fit(robot: Robot, stops: list[tuple[Request, bool]]) -> None:
    load = sum(request.load for request, _ in stops if request.kind is Kind.DELIVER)
    _require_room(robot, stops[0][0], load)
    for request, is_pickup in stops:
        load += request.load if is_pickup or request.kind is Kind.COLLECT else -request.load
        _require_room(robot, request, load)


def _require_room(robot: Robot, request: Request, load: float) -> None:
    if load > robot.capacity + LOAD_TOLERANCE * max(1.0, robot.capacity):
        raise ValueError(
            f"robot {robot.id!r}: request {request.id!r}: load: "
            f"expected at most the capacity {robot.capacity:g}, got {load:g}"
        )


def _time_trip(
    instance: Instance, robot: Robot, ready_s: float, visits: list[tuple[Request, bool]]
) -> Trip:
    """Time one trip of a robot that stands ready at the depot from `ready_s` on."""
    stops: list[Stop] = []
    here, leave_s = 0, ready_s
    for request, is_pickup in visits:
        there = instance.place_index[request.stop_place(is_pickup=is_pickup)]
        arrive_s = leave_s + float(instance.travel_s[here, there])
        start_s = max(arrive_s, request.earliest_s)
        if not (is_pickup or start_s <= request.latest_s + TOLERANCE_S):
            raise ValueError(
                f"robot {robot.id!r}: request {request.id!r}: service: "
                f"expected to start by {request.latest_s:g}, got {start_s:g}"
            )
        if not stops:
            # The robot waits at the depot, so it arrives at the first stop on time.
            out_s = float(instance.travel_s[0, there])
            depart_s = max(ready_s, start_s - out_s)
            arrive_s = start_s
        stops.append(
            Stop(request=request.id, arrive_s=arrive_s, start_s=start_s, is_pickup=is_pickup)
        )
        here, leave_s = there, start_s + request.service_s
    return_s = leave_s + float(instance.travel_s[here, 0])
    if not return_s <= robot.end_s + TOLERANCE_S:
        raise ValueError(
            f"robot {robot.id!r}: request {stops[-1].request!r}: return: "
            f"expected by {robot.end_s:g}, got {return_s:g}"
        )
    return Trip(robot=robot.id, depart_s=depart_s, stops=tuple(stops), return_s=return_s)
