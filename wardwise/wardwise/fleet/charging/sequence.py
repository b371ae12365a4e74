"""Where and how much a robot charges on trips whose stops are settled: the exact answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.charging.labels import METRES, NONE
from wardwise.fleet.charging.network import DEPOT, chargers, network
from wardwise.fleet.charging.search import search
from wardwise.fleet.charging.trace import steps
from wardwise.fleet.plan import ChargeVisit
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.charging.network import Floats, Ints, Network
    from wardwise.fleet.charging.trace import Step
    from wardwise.fleet.problem import Instance, Request, Robot

LOAD_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Charged:
    """Trips of a robot with the charges that make them possible.

    Parameters
    ----------
    trips
        Request ids and charges, as `wardwise.fleet.schedule.schedule` takes them.
    distance_m
        Least distance of all trips together.
    end_s
        Earliest return from the last trip at that distance.
    """

    trips: tuple[tuple[str | ChargeVisit, ...], ...]
    distance_m: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why trips cannot be driven: the constraint that fails first, and before which request.

    Parameters
    ----------
    constraint
        ``capacity``, ``max-trips``, ``window``, ``shift`` or ``battery``.
    request
        The request that cannot be served; `None`: the robot does not get home after the last.
    finding
        What was expected and what was found.
    message
        All of it in one line.
    """

    constraint: str
    request: str | None
    finding: str
    message: str


def charge_trips(
    instance: Instance, robot_id: str, trips: Sequence[Sequence[str]]
) -> Charged | Obstacle:
    """Choose stations, their positions and amounts for one robot's trips, at least distance.

    Any number of stations may stand between two stops; between trips and before the first
    one the robot may be charged at the depot, too. With partial recharge the amounts are
    as small as the stops after them allow, but at the depot a robot charges as long as it
    waits anyway: more energy never harms. Slots of stations are taken to be free.

    Parameters
    ----------
    trips
        Ids of requests in driving order; a transfer stands twice on its trip.

    Raises
    ------
    ValueError
        When a robot or request is unknown, or a trip is empty.

    Notes
    -----
    A label per front of battery levels over time (`wardwise.fleet.charging.fronts`), kept
    if no other has been driven as little and has as much energy at every time. After
    Froger, Mendoza, Jabali and Laporte 2019, Computers & Operations Research 104, to which
    idle power, trips and the choice among more than one station in a row are added.
    """
    robot = _robot(instance, robot_id)
    stops = [_stops(instance, robot, trip) for trip in trips]
    if not stops:
        return Charged(trips=(), distance_m=0.0, end_s=robot.start_s)
    net = network(instance, robot, [stop for trip in stops for stop in trip])
    targets, goods_s = _targets(stops)
    obstacle = _obstacle_without_battery(net, robot, stops, targets, goods_s)
    if obstacle is not None:
        return obstacle
    store, best, reached = search(net, targets, goods_s, _latest_s(net, targets))
    if best == NONE:
        return _battery_obstacle(robot, stops, targets, reached)
    return Charged(
        trips=_named(instance, net, stops, steps(net, store, best)),
        distance_m=float(store.amount[best, METRES]),
        end_s=float(store.t[best, 0]),
    )


def _robot(instance: Instance, robot_id: str) -> Robot:
    if robot_id not in instance.robot_by_id:
        raise ValueError(f"robot {robot_id!r}: no robot of this name in {instance.name!r}")
    return instance.robot_by_id[robot_id]


def _stops(instance: Instance, robot: Robot, trip: Sequence[str]) -> list[tuple[Request, bool]]:
    """Each stop's request, and whether it is the pickup of a transfer."""
    if not trip:
        raise ValueError(f"robot {robot.id!r}: trip: expected at least one request, got none")
    for id_ in trip:
        if id_ not in instance.request_by_id:
            raise ValueError(
                f"robot {robot.id!r}: request {id_!r}: no request of this name in {instance.name!r}"
            )
    requests = [instance.request_by_id[id_] for id_ in trip]
    return [
        (request, request.kind is Kind.TRANSFER and request.id not in trip[:k])
        for k, request in enumerate(requests)
    ]


def _targets(stops: list[list[tuple[Request, bool]]]) -> tuple[Ints, Floats]:
    """Nodes in driving order with the depot behind each trip, and when goods are ready."""
    targets: list[int] = []
    ready = [max(request.available_s for request, _ in trip) for trip in stops]
    goods: list[float] = []
    node = 0
    for number, trip in enumerate(stops):
        for _ in trip:
            node += 1
            targets.append(node)
            goods.append(0.0)
        targets.append(DEPOT)
        goods.append(ready[(number + 1) % len(stops)])
    return np.array(targets), np.array(goods)


def _latest_s(net: Network, targets: Ints) -> Floats:
    """Latest times at the depot and at each target from which all that follows is in time."""
    latest = np.full(len(targets) + 1, net.latest_s[DEPOT])
    way = [DEPOT, *targets.tolist()]
    for layer in range(len(targets) - 1, -1, -1):
        here, there = way[layer], way[layer + 1]
        reload_s = net.reload_s if there == DEPOT and layer + 1 < len(targets) else 0.0
        on_time_s = latest[layer + 1] - reload_s - net.move_s[here, there]
        latest[layer] = min(net.latest_s[here], on_time_s)
    return latest


def _obstacle_without_battery(
    net: Network,
    robot: Robot,
    stops: list[list[tuple[Request, bool]]],
    targets: Ints,
    goods_s: Floats,
) -> Obstacle | None:
    """What would stop a robot that needs no energy: trips, loads, windows, the shift."""
    if robot.max_trips is not None and len(stops) > robot.max_trips:
        finding = f"expected at most {robot.max_trips} trips, got {len(stops)}"
        return _obstacle(robot, "max-trips", None, finding)
    marked: list[tuple[Request, bool | None]]
    for trip in stops:
        marked = [(trip[0][0], None), *trip]
        load = sum(request.load for request, _ in trip if request.kind is Kind.DELIVER)
        for request, is_pickup in marked:
            if is_pickup is not None:
                takes = is_pickup or request.kind is Kind.COLLECT
                load += request.load if takes else -request.load
            if load > robot.capacity + LOAD_TOLERANCE * max(1.0, robot.capacity):
                finding = f"expected a load of at most {robot.capacity:g}, got {load:g}"
                return _obstacle(robot, "capacity", request.id, finding)
    flat = [request for trip in stops for request, _ in trip]
    now_s = max(robot.start_s, float(goods_s[-1]))
    way = [DEPOT, *targets.tolist()]
    for layer, (here, there) in enumerate(pairwise(way)):
        now_s += float(net.move_s[here, there])
        goal = flat[there - 1] if there != DEPOT else None
        now_s = max(now_s, float(net.ready_s[there]))
        if now_s > net.latest_s[there] + 1e-6:
            constraint = "shift" if goal is None else "window"
            finding = f"expected to be there by {net.latest_s[there]:g}, is at {now_s:g}"
            return _obstacle(robot, constraint, goal.id if goal else None, finding)
        if there == DEPOT:
            now_s = max(now_s + net.reload_s, float(goods_s[layer]))
    return None


def _battery_obstacle(
    robot: Robot, stops: list[list[tuple[Request, bool]]], targets: Ints, reached: int
) -> Obstacle:
    """Name the request behind the last layer that some choice of charges reaches."""
    flat = [request.id for trip in stops for request, _ in trip]
    ahead = [int(target) for target in targets[reached:] if target != DEPOT]
    request = flat[ahead[0] - 1] if ahead else None
    finding = "no choice of stations and amounts gets there with the reserve and in time"
    return _obstacle(robot, "battery", request, finding)


def _obstacle(robot: Robot, constraint: str, request: str | None, finding: str) -> Obstacle:
    where = "return" if request is None else f"request {request!r}"
    message = f"robot {robot.id!r}: {where}: {constraint}: {finding}"
    return Obstacle(constraint=constraint, request=request, finding=finding, message=message)


def _named(
    instance: Instance, net: Network, stops: list[list[tuple[Request, bool]]], found: list[Step]
) -> tuple[tuple[str | ChargeVisit, ...], ...]:
    stations = chargers(instance)
    flat = [request.id for trip in stops for request, _ in trip]
    trips: list[list[str | ChargeVisit]] = [[] for _ in stops]
    for step in found:
        if step.node <= net.num_stops:
            trips[step.trip].append(flat[step.node - 1])
            continue
        station = stations[step.node - net.num_stops - 1]
        charged_wh = None if net.is_full else step.charged_wh
        trips[step.trip].append(ChargeVisit(station=station.id, charged_wh=charged_wh))
    return tuple(tuple(trip) for trip in trips)
