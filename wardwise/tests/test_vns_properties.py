"""Limits and monotonicity of days with batteries, trips and promises.

Where a day is small enough the optima are proven ones (`wardwise.fleet.exact`), so that
nothing depends on the luck of a search.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.chance import certify
from wardwise.fleet.charging import Charged, charge_trips
from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.exact import run_exact
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.randomness import Promise, Randomness, Spread
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.solvers import solve
from wardwise.fleet.vns.labels import empty_routes
from wardwise.fleet.vns.model import model
from wardwise.fleet.vns.punctual import is_row_punctual

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan

pytest.importorskip("highspy")

INFEASIBLE = (math.inf, math.inf)
SURE = Randomness(travel=Spread(cv=0.0), service=Spread(cv=0.0))
EVEN = Promise(late_share=(0.5, 0.5, 0.5), return_share=0.5)


def day(
    *,
    num_wards: int = 5,
    num_robots: int = 3,
    capacity: float = 3.0,
    capacity_wh: float | None = 60.0,
    base_w: float = 0.0,
    window_s: float = 200.0,
    num_slots: int | None = None,
    seed: int = 1,
) -> Instance:
    """Wards up to 20 away, late goods for every third; a charger at home, one 10 to the east."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, num_wards), rng.uniform(5, 20, num_wards)
    wards = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    spots = np.vstack([[0, 0], [10, 0], wards])
    way = np.hypot(*(spots[:, None] - spots[None, :]).T).T
    ready = rng.uniform(20, 250, num_wards)
    requests = tuple(
        Request(
            id=f"r{w}", place=f"p{2 + w}", load=1.0, service_s=5.0,
            ready_s=float(ready[w]), due_s=float(ready[w]) + window_s,
            kind=Kind.COLLECT if w % 3 == 1 else Kind.DELIVER,
            available_s=float(rng.uniform(0, ready[w])) if w % 3 == 0 else 0.0,
        )
        for w in range(num_wards)
    )  # fmt: skip
    battery = None
    if capacity_wh is not None:
        battery = Battery(capacity_wh=capacity_wh, reserve_wh=1.0, wh_per_m=1.0, base_w=base_w)
    curve = ChargeCurve(points=((0.0, 0.0), (40.0, 20.0), (200.0, 180.0)))
    return Instance(
        name="day",
        places=tuple(Place(id=f"p{k}") for k in range(len(spots))),
        requests=requests,
        robots=tuple(
            Robot(id=f"k{k}", capacity=capacity, end_s=900.0, battery=battery)
            for k in range(num_robots)
        ),
        stations=tuple(
            Station(id=place, place=place, num_slots=num_slots, charge=curve)
            for place in ("p0", "p1")
        ),
        travel_s=way,
        distance_m=way,
        reload_s=5.0,
    )


def price(instance: Instance, plan: Plan) -> tuple[float, float]:
    """Robots, then metres, of a plan that the referee accepts and that serves all."""
    report = check(instance, plan)
    assert report.violations == ()
    assert plan.denied == ()
    return report.cost.num_robots, round(report.cost.distance_m, 6)


def optimum(instance: Instance) -> tuple[float, float]:
    """Proven fewest robots, then least metres."""
    try:
        return price(instance, run_exact(instance))
    except ValueError:
        return INFEASIBLE


def searched(instance: Instance, iterations: int = 1500, **terms: str) -> Plan:
    """Plan of the variable neighbourhood search."""
    return solve(instance, method="vns", max_iterations=iterations, time_limit=60.0, **terms)


def in_time(instance: Instance) -> Instance:
    """All goods at the depot from the start."""
    return replace(instance, requests=tuple(replace(r, available_s=0.0) for r in instance.requests))


@pytest.mark.parametrize("capacity_wh", [None, 60.0])
def test_without_spread_the_promise_costs_nothing(capacity_wh: float | None) -> None:
    """Variance 0: the plan of the mean day, bit for bit, and that is the proven optimum."""
    plain = day(num_wards=6, capacity_wh=capacity_wh)
    sure = replace(plain, randomness=SURE, promise=Promise())
    found = searched(sure)
    assert found.trips == searched(plain).trips
    assert price(plain, found) == optimum(plain)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), waits=st.booleans(), scale=st.floats(0.2, 1.2))
def test_late_on_half_of_the_days_is_the_mean_day(seed: int, waits: bool, scale: float) -> None:
    """With z = 0 a row is punctual exactly if it is in time on mean times.

    Where robots wait, the mean start lies behind the start of the mean day (the larger of
    two times has a mean above the larger mean), so that punctual rows are still in time.
    """
    plain = day(num_wards=6, capacity_wh=None, capacity=6.0, window_s=150.0, seed=seed % 50)
    ready = 1.0 if waits else 0.0
    requests = tuple(
        replace(r, ready_s=ready * r.ready_s, due_s=scale * r.due_s + ready * r.ready_s)
        for r in (plain if waits else in_time(plain)).requests
    )
    plain = replace(plain, requests=requests)
    rng = np.random.default_rng(seed)
    order = [int(v) for v in rng.permutation(6)[: rng.integers(2, 7)] + 1]
    cut = int(rng.integers(1, len(order) + 1))
    trips = [trip for trip in (order[:cut], order[cut:]) if trip]
    row = [0, *(v for trip in trips for v in (*trip, 0))]
    m = model(replace(plain, promise=EVEN), Objective.HIERARCHICAL)
    routes = empty_routes(m)
    routes.row[: len(row)] = row
    is_punctual = bool(is_row_punctual(m, routes, 0, len(row)))
    names = [[requests[v - 1].id for v in trip] for trip in trips]
    is_in_time = isinstance(charge_trips(plain, "k0", names), Charged)
    assert is_in_time or not is_punctual
    assert waits or is_punctual == is_in_time


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("recharge", Recharge)
def test_a_battery_for_the_whole_day_is_none(seed: int, recharge: Recharge) -> None:
    """Proven robots and metres are those without a battery, and the search finds them."""
    without = day(num_wards=5, capacity_wh=None, seed=seed)
    filled = replace(day(num_wards=5, capacity_wh=200.0, seed=seed), recharge=recharge)
    assert optimum(filled) == optimum(without)
    assert price(filled, searched(filled)) == optimum(without)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_room_for_all_loads_needs_no_reload(seed: int) -> None:
    """Goods there from the start: as good as with one trip a robot, of which each makes one."""
    roomy = in_time(day(num_wards=5, capacity_wh=None, capacity=100.0, seed=seed))
    once = replace(roomy, robots=tuple(replace(r, max_trips=1) for r in roomy.robots))
    assert optimum(roomy) == optimum(once) != INFEASIBLE
    plan = searched(roomy)
    assert price(roomy, plan) == optimum(roomy)
    assert len(plan.trips) == len(plan.trips_by_robot())


@pytest.mark.parametrize("seed", [2, 4])
def test_robots_for_nothing_give_the_least_distance(seed: int) -> None:
    """Money for metres alone, and the objective distance; one robot alone drives farther here."""
    instance = in_time(day(num_wards=4, capacity_wh=None, window_s=40.0, seed=seed))
    robots = tuple(replace(robot, max_trips=1) for robot in instance.robots)
    instance = replace(instance, robots=robots)
    costs = Costs(per_robot=0.0, per_metre=1.0, per_denial=(1e4, 1e4, 1e4))
    free = replace(instance, costs=costs)
    metres = shortest(instance)
    assert price(free, searched(free, objective="cost"))[1] == pytest.approx(metres)
    assert price(instance, searched(instance, objective="distance"))[1] == pytest.approx(metres)
    assert metres < optimum(instance)[1] - 1.0


def shortest(instance: Instance) -> float:
    """Least distance of all ways to share the requests among the robots."""
    requests, robots = instance.requests, len(instance.robots)
    whole = (1 << len(requests)) - 1
    alone = replace(instance, robots=instance.robots[:1])
    way = {
        bits: optimum(
            replace(alone, requests=tuple(r for k, r in enumerate(requests) if bits >> k & 1))
        )[1]
        for bits in range(1, whole + 1)
    }
    best = dict.fromkeys(range(1, whole + 1), math.inf) | {0: 0.0}
    for _ in range(robots):
        for bits in range(whole, 0, -1):
            parts = (part for part in way if part & bits == part)
            best[bits] = min(best[bits], *(best[bits ^ part] + way[part] for part in parts))
    return best[whole]


@pytest.mark.parametrize("seed", [1, 2])
def test_proven_costs_never_rise(seed: int) -> None:
    """With the battery, with the load of a robot, and with the number of stations."""
    bare = day(num_wards=5, num_robots=5, seed=seed, base_w=50.0)

    def with_battery(capacity_wh: float) -> Instance:
        return day(num_wards=5, num_robots=5, seed=seed, base_w=50.0, capacity_wh=capacity_wh)

    def with_capacity(capacity: float) -> Instance:
        return replace(bare, robots=tuple(replace(r, capacity=capacity) for r in bare.robots))

    families = (
        [with_battery(capacity_wh) for capacity_wh in (42.0, 50.0, 65.0, 200.0)],
        [with_capacity(capacity) for capacity in (1.0, 2.0, 5.0)],
        [replace(bare, stations=bare.stations[:count]) for count in range(3)],
    )
    for family in families:
        prices = [optimum(instance) for instance in family]
        assert prices == sorted(prices, reverse=True)
        assert prices[-1] != INFEASIBLE


def test_a_plan_for_a_strict_promise_keeps_a_lax_one() -> None:
    """So the best plan never gets dearer; nor do those that the search finds here."""
    spread = Spread(cv=0.3)
    base = replace(
        day(num_wards=6, num_robots=6, capacity_wh=None, window_s=60.0),
        randomness=Randomness(travel=spread, service=spread),
    )
    days = [
        replace(base, promise=Promise(late_share=(share, share, share), return_share=0.5))
        for share in (0.01, 0.1, 0.5)
    ]
    plans = [searched(instance) for instance in days]
    prices = [price(instance, plan) for instance, plan in zip(days, plans, strict=True)]
    assert prices == sorted(prices, reverse=True)
    for strict, lax in pairwise(range(len(days))):
        certified = certify(days[lax], plans[strict], num_scenarios=4000)
        assert certified.certificate is not None
        assert certified.certificate.holds


def test_a_plan_for_few_slots_is_one_for_more() -> None:
    """So the best plan never gets dearer with slots; nor do those that the search finds here."""
    days = [
        day(num_wards=6, num_robots=6, capacity_wh=45.0, num_slots=num_slots)
        for num_slots in (1, 2, None)
    ]
    plans = [searched(instance) for instance in days]
    prices = [price(instance, plan) for instance, plan in zip(days, plans, strict=True)]
    assert prices == sorted(prices, reverse=True)
    for few, more in pairwise(range(len(days))):
        assert price(days[more], plans[few]) == prices[few]


def test_robots_that_draw_while_they_wait_for_goods_are_charged_before() -> None:
    """A charge at home that is full before the goods are there: what is planned can be driven."""
    instance = day(num_wards=6, num_robots=6, capacity_wh=45.0, base_w=20.0)
    assert check(instance, searched(instance, 600)).violations == ()
