"""A robot's world as arrays: nodes, moves between them, windows, charging curves.

Nodes are the depot (0), the stops (1 to n) and, for a robot with a battery, the charging
stations behind them. A stop is served, then left: a move takes the service at its origin
and the leg, and the energy of both. What a robot without a battery takes is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wardwise.fleet.energy import HOUR_S, Recharge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.energy import Battery, ChargeCurve
    from wardwise.fleet.problem import Instance, Request, Robot, Station

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DEPOT = 0
# Of the capacity; far below what the referee forgives.
ENERGY_TOLERANCE = 1e-9


class Network(NamedTuple):
    """Arrays over nodes; K points a charging curve.

    Parameters
    ----------
    num_stops
        Stops are the nodes 1 to this.
    distance_m, move_s, move_wh
        Shape (nodes, nodes): metres; time and energy of serving a node and driving on.
    ready_s, latest_s
        Shape (nodes,): window of the start of service; of the depot the shift; of stations
        none but the shift.
    home_wh
        Shape (nodes,): least energy with which a robot that is about to be served at a node
        gets to a charger or to the depot, whatever it visits on the way.
    collected, delivered
        Shape (nodes,): load taken aboard at a stop, load that leaves there.
    available_s
        Shape (nodes,): since when the goods of a stop stand at the depot.
    curve_wh, curve_s
        Shape (nodes, K): charging curve of each station, its last point repeated.
    is_at_depot
        Shape (nodes,): whether a station stands at the depot.
    is_full
        Whether every charge ends with the full battery.
    """

    num_stops: int
    distance_m: Floats
    move_s: Floats
    move_wh: Floats
    ready_s: Floats
    latest_s: Floats
    home_wh: Floats
    collected: Floats
    delivered: Floats
    available_s: Floats
    curve_wh: Floats
    curve_s: Floats
    is_at_depot: NDArray[np.bool_]
    is_full: bool
    capacity: float
    capacity_wh: float
    reserve_wh: float
    first_wh: float
    base_wh_per_s: float
    reload_s: float
    tolerance_wh: float


def network(instance: Instance, robot: Robot, stops: Sequence[tuple[Request, bool]]) -> Network:
    """Arrays of what one robot may do.

    Parameters
    ----------
    stops
        Requests, and of each whether this is the pickup of a transfer.
    """
    battery = robot.battery
    stations = chargers(instance) if battery is not None else []
    places = [DEPOT]
    places += [instance.place_index[r.stop_place(is_pickup=first)] for r, first in stops]
    places += [instance.place_index[station.place] for station in stations]
    size, behind = len(places), len(stations)
    table = np.ix_(places, places)
    service_s = np.array([0.0, *(r.service_s for r, _ in stops), *[0.0] * behind])
    leg_s, distance_m = instance.travel_s[table], instance.distance_m[table]
    move_s = service_s[:, None] + leg_s
    move_wh, home_wh = _energies(battery, distance_m, leg_s, service_s, len(stops))
    ready_s, latest_s = np.full(size, robot.start_s), np.full(size, robot.end_s)
    collected, delivered = np.zeros(size), np.zeros(size)
    available_s = np.zeros(size)
    for node, (request, is_pickup) in enumerate(stops, start=1):
        is_drop = request.origin is not None and not is_pickup
        ready_s[node] = 0.0 if is_drop else request.earliest_s
        latest_s[node] = np.inf if is_pickup else request.latest_s
        load = collected if request.kind == "collect" else delivered
        load[node] = request.load
        available_s[node] = request.available_s
    curve_wh, curve_s = _curves(size, [s.charge for s in stations if s.charge is not None])
    is_at_depot = np.zeros(size, dtype=np.bool_)
    is_at_depot[size - behind :] = [instance.place_index[s.place] == DEPOT for s in stations]
    return Network(
        num_stops=len(stops),
        distance_m=distance_m,
        move_s=move_s,
        move_wh=move_wh,
        ready_s=ready_s,
        latest_s=latest_s,
        home_wh=home_wh,
        collected=collected,
        delivered=delivered,
        available_s=available_s,
        curve_wh=curve_wh,
        curve_s=curve_s,
        is_at_depot=is_at_depot,
        is_full=instance.recharge is Recharge.FULL,
        capacity=robot.capacity,
        capacity_wh=1.0 if battery is None else battery.capacity_wh,
        reserve_wh=0.0 if battery is None else battery.reserve_wh,
        first_wh=1.0 if battery is None else battery.first_wh,
        base_wh_per_s=0.0 if battery is None else battery.base_w / HOUR_S,
        reload_s=instance.reload_s,
        tolerance_wh=ENERGY_TOLERANCE * (1.0 if battery is None else battery.capacity_wh),
    )


def chargers(instance: Instance) -> list[Station]:
    """Stations that charge, in the order of their nodes."""
    return [station for station in instance.stations if station.charge is not None]


def _energies(
    battery: Battery | None, distance_m: Floats, leg_s: Floats, service_s: Floats, num_stops: int
) -> tuple[Floats, Floats]:
    """Energy of moves, and the least energy from each node to a charger or the depot."""
    if battery is None:
        return np.zeros_like(distance_m), np.zeros(len(distance_m))
    with np.errstate(invalid="ignore", over="ignore"):
        leg_wh = battery.wh_per_m * distance_m + battery.base_w / HOUR_S * leg_s
    leg_wh = np.where(np.isnan(leg_wh), np.inf, leg_wh)
    service_wh = battery.base_w / HOUR_S * service_s
    move_wh = service_wh[:, None] + leg_wh
    home_wh = np.full(len(leg_wh), np.inf)
    home_wh[[DEPOT, *range(num_stops + 1, len(leg_wh))]] = 0.0
    # Legs need not obey the triangle inequality: the least energy is that of a shortest path.
    while True:
        nearer = np.minimum(home_wh, (move_wh + home_wh).min(axis=1))
        if (nearer == home_wh).all():
            return move_wh, home_wh
        home_wh = nearer


def _curves(size: int, curves: Sequence[ChargeCurve]) -> tuple[Floats, Floats]:
    num_points = max((len(curve.points) for curve in curves), default=2)
    levels, times = np.zeros((size, num_points)), np.zeros((size, num_points))
    for node, curve in enumerate(curves, start=size - len(curves)):
        points = [*curve.points, *[curve.points[-1]] * (num_points - len(curve.points))]
        levels[node], times[node] = np.array(points).T
    return levels, times
