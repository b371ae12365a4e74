"""The charges of a settled way as a linear programme: a slow reference.

Variables are times, levels and amounts of every event. Only for chargers of one rate: with
others, the time for an amount is not convex in the level at which the charge begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import linprog

from wardwise.fleet.charging.network import DEPOT
from wardwise.fleet.energy import HOUR_S
from wardwise.fleet.plan import ChargeVisit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.charging.network import Floats
    from wardwise.fleet.energy import Battery
    from wardwise.fleet.problem import Instance, Robot


def least_end_s(
    instance: Instance, robot: Robot, visits: Sequence[str | ChargeVisit]
) -> float | None:
    """Earliest return from one trip that visits requests and stations in this order.

    Amounts of the visits to stations are chosen; partial recharge is assumed. The robot may
    wait anywhere, also before it is charged.

    Returns
    -------
    `None` where no amounts make the trip possible.

    Raises
    ------
    ValueError
        When the robot has no battery, or a station charges at more than one rate.
    """
    battery = robot.battery
    if battery is None:
        raise ValueError(f"robot {robot.id!r}: battery: expected one, got none")
    way = _way(instance, robot, visits)
    rows, right = _orders(instance, way, battery.capacity_wh)
    equal, same = _balances(instance, way, battery, robot.start_s)
    num = len(way.places)
    bounds = [*zip(way.ready_s, way.latest_s, strict=True), *[(battery.reserve_wh, None)] * num]
    bounds += [(0.0, None if rate > 0 else 0.0) for rate in way.s_per_wh]
    cost = np.zeros(3 * num)
    cost[num - 1] = 1.0
    found = linprog(cost, np.array(rows), right, np.array(equal), same, bounds)
    return float(found.fun) if found.success else None


class _Way(NamedTuple):
    """Events in driving order: departure, visits, return. Rates are 0 but at chargers."""

    places: list[int]
    ready_s: list[float]
    latest_s: list[float]
    service_s: list[float]
    s_per_wh: list[float]


def _way(instance: Instance, robot: Robot, visits: Sequence[str | ChargeVisit]) -> _Way:
    goods_s = [instance.request_by_id[v].available_s for v in visits if isinstance(v, str)]
    way = _Way([DEPOT], [max([robot.start_s, *goods_s])], [robot.end_s], [0.0], [0.0])
    for visit in visits:
        if isinstance(visit, ChargeVisit):
            station = instance.station_by_id[visit.station]
            rate = _s_per_wh(station.id, station.charge.points if station.charge else ())
            event = (instance.place_index[station.place], 0.0, robot.end_s, 0.0, rate)
        else:
            request = instance.request_by_id[visit]
            window = request.earliest_s, request.latest_s, request.service_s
            event = (instance.place_index[request.place], *window, 0.0)
        _append(way, event)
    _append(way, (DEPOT, 0.0, robot.end_s, 0.0, 0.0))
    return way


def _append(way: _Way, event: tuple[int, float, float, float, float]) -> None:
    place, *numbers = event
    way.places.append(place)
    for values, value in zip(way[1:], numbers, strict=True):
        values.append(value)


# Columns: times, levels on arrival, and amounts, each a block with one for every event.
def _orders(instance: Instance, way: _Way, capacity_wh: float) -> tuple[list[Floats], list[float]]:
    """Rows of what is at most: each event after the one before, and no battery overfull."""
    num = len(way.places)
    rows, right = [], []
    for k in range(num - 1):
        row = np.zeros(3 * num)
        row[[k, k + 1, 2 * num + k]] = 1.0, -1.0, way.s_per_wh[k]
        rows.append(row)
        leg_s = float(instance.travel_s[way.places[k], way.places[k + 1]])
        right.append(-(way.service_s[k] + leg_s))
    for k in range(num):
        row = np.zeros(3 * num)
        row[[num + k, 2 * num + k]] = 1.0
        rows.append(row)
        right.append(capacity_wh)
    return rows, right


def _balances(
    instance: Instance, way: _Way, battery: Battery, start_s: float
) -> tuple[list[Floats], list[float]]:
    """Rows of energy: level' = level + amount - driven - base (time' - time - charging)."""
    num, base = len(way.places), battery.base_w / HOUR_S
    first = np.zeros(3 * num)
    first[[0, num]] = base, 1.0
    rows, right = [first], [battery.first_wh + base * start_s]
    for k in range(num - 1):
        row = np.zeros(3 * num)
        row[[num + k, num + k + 1, 2 * num + k]] = -1.0, 1.0, -1.0 - base * way.s_per_wh[k]
        row[[k, k + 1]] = -base, base
        rows.append(row)
        leg_m = float(instance.distance_m[way.places[k], way.places[k + 1]])
        right.append(-battery.wh_per_m * leg_m)
    return rows, right


def _s_per_wh(station: str, points: Sequence[tuple[float, float]]) -> float:
    """Time for one watt-hour of a curve of one rate."""
    slopes = np.diff(np.array(points), axis=0)
    rates = slopes[:, 1] / slopes[:, 0] if len(slopes) else np.zeros(0)
    if not len(rates) or np.ptp(rates) > 1e-9 * rates.max():
        raise ValueError(f"station {station!r}: charge: expected one rate, got {points}")
    return float(rates[0])
