"""Charging between the trips of a settled day: by hand, and judged by the checker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.charging import charge_while_idle
from wardwise.fleet.check import check
from wardwise.fleet.energy import HOUR_S, Battery, ChargeCurve, Recharge
from wardwise.fleet.plan import Plan
from wardwise.fleet.problem import Costs, Instance, Place, Request, Robot, Station
from wardwise.fleet.replay import replay_day
from wardwise.fleet.schedule import schedule
from wardwise.report.energy import level_of

# Empty to full in 1000 s and 2000 s more for the upper half.
CURVE = ChargeCurve(points=((0.0, 0.0), (50.0, 1000.0), (100.0, 3000.0)))


def shuttle(starts_s: tuple[float, ...], num_slots: int | None, num_robots: int = 2) -> Instance:
    """Robots to a ward 100 s and 100 m away, 10 Wh each way; requests at given moments."""
    travel = np.array([[0.0, 100.0], [100.0, 0.0]])
    battery = Battery(capacity_wh=100.0, start_wh=60.0, wh_per_m=0.1)
    return Instance(
        name="shuttle",
        places=(Place(id="dock"), Place(id="ward")),
        requests=tuple(
            Request(id=str(k), place="ward", load=1.0, ready_s=s, due_s=s + 1e4)
            for k, s in enumerate(starts_s)
        ),
        robots=tuple(
            Robot(id=f"r{k}", capacity=1.0, end_s=1e6, battery=battery) for k in range(num_robots)
        ),
        stations=(Station(id="bay", place="dock", num_slots=num_slots, charge=CURVE),),
        travel_s=travel,
        distance_m=travel,
        costs=Costs(per_metre=0.0),
    )


def test_robots_charge_in_turn_up_to_their_departure_or_the_full_battery():
    """Both stand at 0 with 60 Wh: the one slot is r0's until it departs at 400, then r1's."""
    instance = shuttle((500.0, 1100.0, 4700.0), num_slots=1)
    plan = schedule(instance, {"r0": [["0"], ["2"]], "r1": [["1"]]})
    charged = charge_while_idle(instance, plan)
    assert check(instance, charged).is_feasible
    (first, last, other) = (trip.charges for trip in charged.trips)
    # 40 s a watt-hour above 50 Wh: 400 s are 10 Wh. Back at 600 with 60 + 10 - 20 = 50 Wh, in
    # the slot that r1 leaves at 1000: full after 2000 s, at 3000.
    assert [(c.start_s, c.end_s, c.charged_wh) for c in first] == [(0, 400, pytest.approx(10))]
    assert [(c.start_s, c.end_s, c.charged_wh) for c in other] == [(400, 1000, pytest.approx(15))]
    (last,) = last
    assert (last.arrive_s, last.start_s, last.end_s) == (600, 1000, 3000)
    assert last.charged_wh == pytest.approx(50)
    bare = tuple(replace(trip, charges=()) for trip in charged.trips)
    assert replace(charged, trips=bare) == plan


def test_full_charges_or_none_and_nothing_without_batteries():
    """Where every charge must fill the battery, only the long stand does; no robot, no charge."""
    instance = replace(shuttle((500.0, 4700.0), num_slots=None), recharge=Recharge.FULL)
    plan = schedule(instance, {"r0": [["0"], ["1"]]})
    charges = [trip.charges for trip in charge_while_idle(instance, plan).trips]
    assert charges[0] == ()
    assert charges[1][0].end_s == 600 + 200 + 2000  # from 40 Wh: 10 at 20 s, 50 at 40 s
    bare = replace(instance, robots=tuple(replace(r, battery=None) for r in instance.robots))
    assert charge_while_idle(bare, plan) is plan
    assert charge_while_idle(replace(instance, stations=()), plan) is plan
    assert charge_while_idle(instance, Plan(instance="shuttle", trips=())).trips == ()


@settings(max_examples=40)
@given(
    st.lists(st.floats(0, 4e4), min_size=1, max_size=14),
    st.integers(1, 4),
    st.sampled_from((1, 2, None)),
)
def test_the_checker_accepts_slots_times_and_amounts(ready_s, num_robots, num_slots):
    """Whatever the day: no battery too full, no slot taken twice, energy adds up."""
    instance = shuttle(tuple(sorted(ready_s)), num_slots, num_robots)
    routes: dict[str, list[list[str]]] = {}
    for k in range(len(ready_s)):
        routes.setdefault(f"r{k % num_robots}", []).append([str(k)])
    # Room for fourteen trips of 20 Wh without a single charge.
    large = Battery(capacity_wh=300.0, start_wh=290.0, wh_per_m=0.1, base_w=0.01)
    curve = ChargeCurve(points=((0.0, 0.0), (150.0, HOUR_S), (300.0, 3 * HOUR_S)))
    instance = replace(
        instance,
        robots=tuple(replace(robot, battery=large) for robot in instance.robots),
        stations=tuple(replace(station, charge=curve) for station in instance.stations),
    )
    charged = charge_while_idle(instance, schedule(instance, routes))
    report = check(instance, charged)
    assert report.violations == ()
    left_wh = 0.0
    for robot, trips in charged.trips_by_robot().items():
        level = level_of(instance, robot, trips)
        assert level is not None
        left_wh += level.points[-1][1] - 290
    assert left_wh == pytest.approx(report.cost.charged_wh - report.cost.energy_wh, abs=1e-6)


def test_a_dispatched_day_is_charged():
    """Its plan has the charges, and its verdict and cost count them."""
    instance = shuttle((500.0, 4700.0), num_slots=1)
    late = replace(instance.requests[1], release_s=4000.0)
    day = replay_day(
        replace(instance, requests=(instance.requests[0], late)),
        first_plan=schedule(instance, {"r0": [["0"]]}),
    )
    assert day.report.is_feasible
    assert day.report.cost.num_charges == sum(len(trip.charges) for trip in day.plan.trips) == 2
