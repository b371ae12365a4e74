"""An instance with batteries as a structure of arrays over vertices.

Vertex 0 is the depot, vertex ``i`` the request at position ``i - 1`` of the instance,
and behind the requests stand the stations that have a charger. A vertex 0 inside a
route is a reload: it ends a trip and starts the next.

A charger counts as linear. Where its curve bends, the slowest part of the curve is
taken: what the search holds feasible then stays so with the true curve.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wardwise.fleet.chance.legs import legs_of
from wardwise.fleet.chance.normal import z_of
from wardwise.fleet.energy import HOUR_S, Recharge
from wardwise.fleet.problem import Kind
from wardwise.fleet.randomness import Scope
from wardwise.fleet.search.packed import Objective, in_billionths, quantise, twins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.problem import Instance, Robot, Station
    from wardwise.fleet.search.packed import Floats, Ints

# Stations that are tried on the way from one vertex to another.
NUM_STATIONS = 6
# Charges whose idling losses, made up for beforehand, may still be aboard at a charger.
SURPLUS = 4.0
# Metres and seconds where there is no way: no window is open so late.
BLOCKED = 1e12
NO_TRIP_LIMIT = np.iinfo(np.int64).max


class Model(NamedTuple):
    """Arrays over vertices (V), pairs of them (V, V) and robots (K), and prices.

    Parameters
    ----------
    earliest, latest, due, late_price, available, deliver, collect
        Of requests; the depot and stations are always open and carry nothing.
    rate
        Watt-hours a second at a charger; of the depot, while robots reload; else 0.
    station_of, num_slots
        Of vertices the station where robots charge there, -1 where none waits for a slot;
        of stations the slots.
    near_station
        Shape (V, V, C): stations by the metres they add to a leg.
    battery, reserve, first, per_m, base
        Of robots: capacity, least and first level in Wh, Wh a metre, Wh a second. Without
        a battery all are 0, and the reserve is minus infinity.
    inverse_rate
        Seconds a watt-hour where all chargers are alike, else that of the slowest.
    travel_var, service_var, z, share
        Variances in s2; standard deviations by which a mean arrival must be in time (of
        the depot: back by the end of the shift), and shares of days on which a request
        may be late. Changed by a search that has its plans certified.
    is_money, saves_robots
        Whether plans are judged by money, or by the robots that leave home first; else by
        distance alone.
    is_joint
        Whether promises hold for all requests of a trip at once.
    is_exact
        Whether suffixes of routes answer in constant time: chargers alike, nothing drawn
        while waiting, no tolerated lateness.
    """

    distance: Floats
    travel: Floats
    service: Floats
    earliest: Floats
    latest: Floats
    due: Floats
    late_price: Floats
    available: Floats
    deliver: Floats
    collect: Floats
    denial_price: Floats
    rate: Floats
    near_station: Ints
    travel_var: Floats
    service_var: Floats
    z: Floats
    share: Floats
    capacity: Floats
    start: Floats
    end: Floats
    max_trips: Ints
    battery: Floats
    reserve: Floats
    first: Floats
    per_m: Floats
    base: Floats
    twin: Ints
    num_requests: int
    reload: float
    robot_price: float
    metre_price: float
    inverse_rate: float
    is_partial: bool
    is_exact: bool
    is_soft: bool
    has_goods: bool
    is_money: bool
    saves_robots: bool
    is_joint: bool
    has_promise: bool
    station_of: Ints
    num_slots: Ints
    has_slots: bool


def chargers(instance: Instance) -> list[Station]:
    """Stations with a charger, in the order of their vertices."""
    return [station for station in instance.stations if station.charge is not None]


def model(instance: Instance, objective: Objective) -> Model:
    """Arrays of `instance`, with the prices that make `objective` a sum."""
    requests, robots, costs = instance.requests, instance.robots, instance.costs
    stations = chargers(instance)
    index = instance.place_index
    place = np.array([0, *(index[r.place] for r in requests), *(index[s.place] for s in stations)])
    distance, travel = (
        quantise(np.minimum(matrix[np.ix_(place, place)], BLOCKED))
        for matrix in (instance.distance_m, instance.travel_s)
    )
    num_requests = len(requests)
    rates = [slowest_rate(station) for station in stations]
    at_depot = [rate for s, rate in zip(stations, rates, strict=True) if index[s.place] == 0]
    rate = np.array([max(at_depot, default=0.0), *([0.0] * num_requests), *rates])
    has_battery = any(robot.battery is not None for robot in robots)
    is_soft = any(r.tolerance_s > 0 for r in requests)
    is_alike = len({round(value, 12) for value in rates}) <= 1
    draws = any(b.base_w > 0 for b in instance.batteries)
    is_money = objective is Objective.COST
    return Model(
        distance=distance,
        travel=travel,
        **_requests(instance, len(stations), floor=0.0 if is_money else 1.0),
        rate=rate,
        near_station=_near_stations(distance, num_requests, is_useful=has_battery),
        capacity=in_billionths([r.capacity for r in robots]),
        start=quantise([r.start_s for r in robots]),
        end=quantise([r.end_s for r in robots]),
        max_trips=np.array([r.max_trips or NO_TRIP_LIMIT for r in robots], dtype=np.int64),
        **_batteries(robots, _loss(instance)),
        twin=twins(robots),
        num_requests=num_requests,
        reload=float(quantise([instance.reload_s])[0]),
        robot_price=costs.per_robot if is_money else 0.0,
        metre_price=costs.per_metre if is_money else 1.0,
        inverse_rate=1.0 / min(rates) if rates and has_battery else 0.0,
        is_partial=instance.recharge is Recharge.PARTIAL,
        is_exact=not (is_soft or (has_battery and (draws or not is_alike))),
        is_soft=is_soft,
        has_goods=any(r.available_s > 0 for r in requests),
        is_money=is_money,
        saves_robots=objective is Objective.HIERARCHICAL,
        **_promises(instance, place),
        **_slots(instance, stations),
    )


def _requests(instance: Instance, num_stations: int, *, floor: float) -> dict[str, Any]:
    """Times, loads and prices of requests; a denial weighs at least `floor`."""
    requests, costs = instance.requests, instance.costs

    def over_vertices(values: Sequence[float], elsewhere: float = 0.0) -> Floats:
        return quantise([elsewhere, *values, *([elsewhere] * num_stations)])

    return {
        "service": over_vertices([r.service_s for r in requests]),
        "earliest": over_vertices([r.earliest_s for r in requests]),
        "latest": over_vertices([r.latest_s for r in requests], math.inf),
        "due": over_vertices([r.due_s for r in requests], math.inf),
        "late_price": over_vertices([costs.lateness_per_s[r.priority - 1] for r in requests]),
        "available": over_vertices([r.available_s for r in requests]),
        "deliver": _loads(instance, Kind.DELIVER, num_stations),
        "collect": _loads(instance, Kind.COLLECT, num_stations),
        "denial_price": over_vertices([costs.per_denial[r.priority - 1] + floor for r in requests]),
    }


def _promises(instance: Instance, place: Ints) -> dict[str, Any]:
    """Variances and promises."""
    requests, promise = instance.requests, instance.promise
    size = len(place)
    if promise is None:
        none = np.zeros(size)
        return {
            "travel_var": np.zeros((1, 1)),
            "service_var": none,
            "z": none,
            "share": none,
            "is_joint": False,
            "has_promise": False,
        }
    legs = legs_of(instance)
    service_var, share = np.zeros(size), np.full(size, promise.return_share)
    service_var[1 : len(requests) + 1] = legs.service_var_s2
    for v, request in enumerate(requests, start=1):
        share[v] = promise.late_share[request.priority - 1]
    return {
        "travel_var": np.ascontiguousarray(legs.travel_var_s2[np.ix_(place, place)]),
        "service_var": service_var,
        "z": np.array([z_of(float(value)) for value in share]),
        "share": share,
        "is_joint": promise.scope is Scope.TRIP,
        "has_promise": True,
    }


def home_of(instance: Instance) -> Station | None:
    """The charger of the depot: the quickest, as `Model.rate` of the depot."""
    at_depot = [s for s in chargers(instance) if instance.place_index[s.place] == 0]
    return max(at_depot, key=slowest_rate, default=None)


def _slots(instance: Instance, stations: Sequence[Station]) -> dict[str, Any]:
    """Stations by vertex, and their slots."""
    home = home_of(instance)
    charging = [home, *([None] * len(instance.requests)), *stations]
    station_of = np.array(
        [-1 if s is None or s.num_slots is None else stations.index(s) for s in charging],
        dtype=np.int64,
    )
    has_battery = any(robot.battery is not None for robot in instance.robots)
    return {
        "station_of": station_of,
        "num_slots": np.array([s.num_slots or 0 for s in stations], dtype=np.int64),
        "has_slots": has_battery and bool((station_of >= 0).any()),
    }


def slowest_rate(station: Station) -> float:
    """Watt-hours a second towards the end of a charger's curve."""
    assert station.charge is not None
    (level, time_s), (last_level, last_s) = station.charge.points[-2:]
    return (last_level - level) / (last_s - time_s)


def _loads(instance: Instance, kind: Kind, num_stations: int) -> Floats:
    loads = [r.load if r.kind is kind else 0.0 for r in instance.requests]
    return in_billionths([0.0, *loads, *([0.0] * num_stations)])


def _loss(instance: Instance) -> float:
    """Share of a charge that idling takes from who was charged quicker than the search thinks.

    A robot that draws energy while it waits loses it in the time by which the true curve
    is quicker than its slowest part.
    """
    base = max((b.base_w for b in instance.batteries), default=0.0) / HOUR_S
    spread = 0.0
    for station in chargers(instance):
        assert station.charge is not None
        (_, _), (level, time_s), *_ = station.charge.points
        spread = max(spread, 1.0 / slowest_rate(station) - time_s / level)
    return base * spread


def _batteries(robots: Sequence[Robot], loss: float) -> dict[str, Any]:
    full = 1.0 - SURPLUS * loss
    rows = [
        (0.0, -math.inf, 0.0, 0.0, 0.0)
        if b is None
        else (b.capacity_wh * full, b.reserve_wh, b.first_wh, b.wh_per_m, b.base_w / HOUR_S)
        for b in (robot.battery for robot in robots)
    ]
    names = ("battery", "reserve", "first", "per_m", "base")
    return {
        name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def _near_stations(distance: Floats, num_requests: int, *, is_useful: bool) -> Ints:
    """Stations by metres added to each leg; from and to a station itself none is."""
    size = len(distance)
    stations = np.arange(num_requests + 1, size)
    count = min(NUM_STATIONS, len(stations)) if is_useful else 0
    near = np.zeros((size, size, count), dtype=np.int64)
    if count:
        onward = distance[stations]
        for vertex in range(size):
            detour = distance[vertex, stations][:, None] + onward
            detour[stations == vertex] = np.inf
            near[vertex] = stations[np.argsort(detour, axis=0, kind="stable")[:count].T]
    return near
