"""Published routes with partial recharge: feasible to the scheduler and to the referee.

The routes name stations without amounts. These come from a linear program of this file
alone, which shares no code with the library.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import linprog

from wardwise.fleet.check import check
from wardwise.fleet.plan import ChargeVisit
from wardwise.fleet.schedule import schedule
from wardwise.io import read_evrptw

if TYPE_CHECKING:
    from wardwise.fleet.problem import Instance

DATA = Path(os.environ.get("WARDWISE_DATA") or "absent")
PUBLISHED = {}
if (DATA / "solutions.json").exists():
    PUBLISHED = {
        name: found["hier_partial"]
        for name, found in json.loads((DATA / "solutions.json").read_text()).items()
        if "hier_partial" in found
    }

pytestmark = pytest.mark.skipif(not PUBLISHED, reason="WARDWISE_DATA is not set")


def read(name: str) -> Instance:
    """One of the instances of 100 customers and 21 stations."""
    return read_evrptw(DATA / "evrptw" / "100" / f"{name}.txt")


def amounts_wh(instance: Instance, route: list[str]) -> dict[int, float] | None:
    """Amounts to charge at the stations of a route, by position; None: there are none.

    Variables are, a node, the time at which it begins and the amount charged there. A
    level is the full battery, less what was driven, and the amounts before.
    """
    requests = {request.id: request for request in instance.requests}
    stations = {station.id: station for station in instance.stations}
    robot = instance.robots[0]
    assert robot.battery is not None
    depot = instance.places[0].id
    nodes = [depot, *route, depot]
    at = [instance.place_index[stations[n].place if n in stations else n] for n in nodes]
    legs = list(pairwise(at))
    travel_s = [instance.travel_s[leg] for leg in legs]
    used_wh = np.cumsum([0, *(instance.distance_m[leg] for leg in legs)]) * robot.battery.wh_per_m
    count = len(nodes)
    bounds: list[tuple[float, float]] = []
    rows, limits = [], []
    for k, node in enumerate(nodes):
        window = (robot.start_s, robot.end_s)
        if node in requests:
            window = (requests[node].ready_s, requests[node].due_s)
        bounds.append(window)
        arrives_with = np.zeros(2 * count)  # charged before, at most what was driven
        arrives_with[count : count + k + 1] = 1
        rows.append(arrives_with)
        limits.append(used_wh[k])
        needs = np.zeros(2 * count)
        needs[count : count + k] = -1
        rows.append(needs)
        limits.append(robot.battery.capacity_wh - used_wh[k])
        if k + 1 < count:
            follows = np.zeros(2 * count)
            follows[k], follows[k + 1] = 1, -1
            if node in stations:
                follows[count + k] = charge_s_per_wh(instance, node)
            rows.append(follows)
            service_s = requests[node].service_s if node in requests else 0.0
            limits.append(-service_s - travel_s[k])
    most = robot.battery.capacity_wh
    bounds += [(0.0, most if node in stations else 0.0) for node in nodes]
    goal = np.zeros(2 * count)
    goal[count - 1] = 1
    found = linprog(goal, A_ub=np.array(rows), b_ub=np.array(limits), bounds=bounds)
    if found.status == 2:
        return None
    assert found.status == 0, found.message
    return {k - 1: float(found.x[count + k]) for k, n in enumerate(nodes) if n in stations}


def charge_s_per_wh(instance: Instance, station_id: str) -> float:
    """The one rate of a linear charger."""
    (station,) = (station for station in instance.stations if station.id == station_id)
    assert station.charge is not None
    (_, (level_wh, time_s)) = station.charge.points
    return time_s / level_wh


def timed(instance: Instance, routes: list[list[str]]):
    """Plan of routes with the least amounts of the program; ValueError: there is none."""
    trips = {}
    for robot, route in zip(instance.robots, routes, strict=False):
        amounts = amounts_wh(instance, route)
        if amounts is None:
            raise ValueError(f"no amounts for {route}")
        visits = [
            ChargeVisit(station=node, charged_wh=max(amounts[k], 0.0)) if k in amounts else node
            for k, node in enumerate(route)
        ]
        trips[robot.id] = [visits]
    return schedule(instance, trips)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_routes_are_feasible_and_as_long_as_published(name: str) -> None:
    """Fleet as published, distance to 1e-3, every customer once."""
    instance, published = read(name), PUBLISHED[name]
    plan = timed(instance, published["routes"])
    report = check(instance, plan)
    assert report.violations == ()
    assert len({trip.robot for trip in plan.trips}) == published["vehicles"]
    assert report.cost.distance_m == pytest.approx(published["value"], abs=1e-3)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_route_without_its_stations_is_refused_by_both(name: str) -> None:
    """Of every fleet some route needs a charge: the scheduler says battery, so does the referee."""
    instance, published = read(name), PUBLISHED[name]
    stations = {station.id for station in instance.stations}
    route = max(published["routes"], key=lambda nodes: sum(n in stations for n in nodes))
    bare = [node for node in route if node not in stations]
    with pytest.raises(ValueError, match="battery: expected at least"):
        schedule(instance, {"1": [bare]})
    plan = timed(instance, published["routes"])
    longest = max(plan.trips, key=lambda trip: len(trip.charges))
    robbed = replace(longest, charges=())
    mutated = replace(plan, trips=tuple(robbed if t is longest else t for t in plan.trips))
    assert any(
        "battery" in violation for violation in map(str, check(instance, mutated).violations)
    )


@pytest.mark.parametrize("name", ["c101_21", "r105_21", "rc101_21"])
def test_two_customers_in_the_other_order_miss_a_window(name: str) -> None:
    """With narrow windows, first and last customer of a route cannot change places."""
    instance, published = read(name), PUBLISHED[name]
    customers = {request.id for request in instance.requests}
    route = max(published["routes"], key=len)
    first, *_, last = (k for k, node in enumerate(route) if node in customers)
    swapped = list(route)
    swapped[first], swapped[last] = swapped[last], swapped[first]
    assert amounts_wh(instance, route) is not None
    assert amounts_wh(instance, swapped) is None
    visits = [node if node in customers else ChargeVisit(station=node) for node in swapped]
    with pytest.raises(ValueError, match="expected"):
        schedule(replace(instance, recharge="full"), {"1": [visits]})
