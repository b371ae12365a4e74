"""Charges in timed plans: amounts, slots in order of arrival, and the referee's consent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.plan import ChargeVisit
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.schedule import schedule

CURVE = ChargeCurve(points=((0.0, 0.0), (80.0, 160.0), (100.0, 260.0)))
PLACES = tuple(
    Place(id=id_, x_m=x_m) for id_, x_m in zip("0abc", (0.0, 10.0, 20.0, 30.0), strict=True)
)


def line(requests, battery, *, num_slots=1, recharge=Recharge.PARTIAL, reload_s=0.0) -> Instance:
    """Depot and three places at 10, 20, 30 on a line; chargers at the depot and at b."""
    x = np.array([place.x_m for place in PLACES])
    distance = np.abs(x[:, None] - x[None, :])
    return Instance(
        name="line",
        places=PLACES,
        requests=requests,
        robots=tuple(Robot(id=id_, capacity=9.0, end_s=5000.0, battery=battery) for id_ in "rs"),
        travel_s=distance,
        distance_m=distance,
        stations=tuple(
            Station(id=f"S{place}", place=place, num_slots=num_slots, charge=CURVE)
            for place in "0b"
        ),
        recharge=recharge,
        reload_s=reload_s,
    )


A, B, C = (Request(id=p.upper(), place=p, due_s=4000.0, service_s=5.0) for p in "abc")
BATTERY = Battery(capacity_wh=100.0, reserve_wh=10.0, wh_per_m=1.0)


def test_a_charge_takes_the_time_of_its_curve_from_the_level_at_arrival() -> None:
    """At b with 80 of 100 Wh after C, 5 s and 10 m home-wards: 60 left; to full 40 + 100 s."""
    instance = line((C,), BATTERY)
    plan = schedule(instance, {"r": [["C", ChargeVisit(station="Sb")]]})
    (charge,) = plan.trips[0].charges
    # 30 m out, 10 m back: 60 Wh. From 60 to 80 at 2 s/Wh, from 80 to 100 at 5 s/Wh.
    assert charge.charged_wh == pytest.approx(40.0)
    assert (charge.before, charge.arrive_s) == (1, 45.0)
    assert charge.end_s - charge.start_s == pytest.approx(140.0)
    assert check(instance, plan).is_feasible


def test_the_first_to_arrive_gets_the_slot() -> None:
    """Robot s is at b at 20, r after C at 45: it waits. From 80 Wh on, 20 Wh take 100 s."""
    instance = line((B, C), BATTERY)
    visit = ChargeVisit(station="Sb", charged_wh=20.0)
    plan = schedule(instance, {"r": [["C", visit]], "s": [[visit, "B"]]})
    waits, first = (trip.charges[0] for trip in plan.trips)
    assert (first.start_s, first.end_s) == (20.0, 120.0)
    assert (waits.arrive_s, waits.start_s) == (45.0, 120.0)
    assert check(instance, plan).is_feasible


def test_a_robot_is_charged_while_it_is_reloaded() -> None:
    """Back at 65 with 40 Wh; 20 Wh take 40 s, reloading 100 s: it leaves at 165."""
    instance = line((B, C), BATTERY, reload_s=100.0)
    depot = ChargeVisit(station="S0", charged_wh=20.0)
    plan = schedule(instance, {"r": [["C"], [depot, "B"]]})
    assert (plan.trips[1].charges[0].start_s, plan.trips[1].charges[0].end_s) == (65.0, 105.0)
    assert plan.trips[1].depart_s == 165.0
    assert check(instance, plan).is_feasible


def test_an_empty_battery_is_refused_with_its_numbers() -> None:
    """After C and back 40 of 100 Wh are left; B and back take 40 more, to 0 of at least 10."""
    instance = line((B, C), BATTERY)
    with pytest.raises(ValueError, match=r"'r': request 'B': return: battery: .* 10 Wh, got 0"):
        schedule(instance, {"r": [["C"], ["B"]]})


def test_goods_that_come_later_delay_the_trip() -> None:
    """Goods stand at the depot from 50 on: departure then, not before."""
    late = Request(id="D", place="a", kind=Kind.DELIVER, due_s=90.0, available_s=50.0)
    instance = line((late,), BATTERY)
    plan = schedule(instance, {"r": [["D"]]})
    assert plan.trips[0].depart_s == 50.0
    assert check(instance, plan).is_feasible


def test_two_slots_for_three_robots_let_the_third_wait() -> None:
    """At b 20 Wh take 100 s from 20 on; the third waits at the depot and is there at 120."""
    instance = line((A, B, C), BATTERY, num_slots=2)
    third = replace(instance.robots[0], id="t")
    instance = replace(instance, robots=(*instance.robots, third))
    visit = ChargeVisit(station="Sb", charged_wh=20.0)
    plan = schedule(instance, {"r": [[visit, "A"]], "s": [[visit, "B"]], "t": [[visit, "C"]]})
    charges = [charge for trip in plan.trips for charge in trip.charges]
    assert sorted(charge.arrive_s for charge in charges) == [20.0, 20.0, 120.0]
    assert sorted(charge.start_s for charge in charges) == [20.0, 20.0, 120.0]
    assert check(instance, plan).is_feasible


def test_many_random_routes_are_scheduled_and_accepted() -> None:
    """On one valid instance: two robots, random order, a charge in front of each visit or not."""
    battery = replace(BATTERY, base_w=20.0)
    instance = line((A, B, C), battery, reload_s=7.0)
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(200):
        routes: dict[str, list[list[str | ChargeVisit]]] = {"r": [], "s": []}
        for request in rng.permutation(["A", "B", "C"]):
            trip: list[str | ChargeVisit] = [str(request)]
            if rng.random() < 0.7:
                station = str(rng.choice(["S0", "Sb"]))
                trip.insert(0, ChargeVisit(station=station, charged_wh=float(rng.uniform(0, 30))))
            routes[str(rng.choice(["r", "s"]))].append(trip)
        try:
            plan = schedule(instance, routes)
        except ValueError:
            continue
        assert check(instance, plan).violations == ()
        accepted += any(trip.charges for trip in plan.trips)
    assert accepted >= 40, accepted


visits = st.sampled_from(["A", "B", "C"])
charges = st.builds(
    ChargeVisit,
    station=st.sampled_from(["S0", "Sb"]),
    charged_wh=st.one_of(st.none(), st.floats(0.0, 30.0)),
)
trips = st.lists(st.one_of(visits, charges, charges), min_size=1, max_size=5)


@given(
    st.lists(trips, max_size=3),
    st.lists(trips, max_size=3),
    st.floats(0.0, 200.0),
    st.sampled_from([1, 2, None]),
    st.sampled_from(list(Recharge)),
)
def test_the_referee_accepts_whatever_is_scheduled(mine, theirs, base_w, num_slots, recharge):
    """Random routes with charges, drains and slots: what comes back is feasible."""
    battery = Battery(capacity_wh=100.0, reserve_wh=10.0, wh_per_m=1.0, base_w=base_w)
    try:
        instance = line((A, B, C), battery, num_slots=num_slots, recharge=recharge, reload_s=7.0)
        taken: set[str] = set()
        routes = {}
        for robot, days in (("r", mine), ("s", theirs)):
            routes[robot] = []
            for day in days:
                kept = [e for e in day if not isinstance(e, str) or e not in taken]
                kept = [
                    e for k, e in enumerate(kept) if not isinstance(e, str) or e not in kept[:k]
                ]
                taken |= {e for e in kept if isinstance(e, str)}
                if any(isinstance(e, str) for e in kept):
                    routes[robot].append(kept)
        plan = schedule(instance, routes, sorted({"A", "B", "C"} - taken))
    except ValueError:
        return
    assert check(instance, plan).violations == ()
