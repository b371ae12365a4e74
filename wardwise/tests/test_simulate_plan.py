"""A plan carried out on random days: times, batteries, slots, doors, recourse."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.check import Constraint, check
from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.plan import ChargeVisit
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.randomness import Law, Randomness, Spread
from wardwise.fleet.schedule import schedule
from wardwise.fleet.simulate import simulate_plan
from wardwise.fleet.simulate.battery import BatteryTwin
from wardwise.fleet.simulate.plan_robot import Act
from wardwise.generate import generate_hospital

CURVE = ChargeCurve(points=((0.0, 0.0), (80.0, 160.0), (100.0, 260.0)))
SURE = Randomness(travel=Spread(cv=0.0), service=Spread(cv=0.0), elevator=Spread(cv=0.0))
RANDOM = Randomness(travel=Spread(cv=0.4), service=Spread(cv=0.5), day=0.2)
BATTERY = Battery(capacity_wh=100.0, reserve_wh=10.0, wh_per_m=1.0, base_w=36.0)
FULL = ChargeVisit(station="Sb")


def line(requests, battery=BATTERY, randomness=SURE, *, robots="rs", **others) -> Instance:
    """Depot and three places at 10, 20, 30 on a line; chargers at the depot and at b."""
    x = np.array([0.0, 10.0, 20.0, 30.0])
    distance = np.abs(x[:, None] - x[None, :])
    return Instance(
        name="line",
        places=tuple(Place(id=id_, x_m=x_m) for id_, x_m in zip("0abc", x, strict=True)),
        requests=requests,
        robots=tuple(Robot(id=id_, capacity=9.0, end_s=5000.0, battery=battery) for id_ in robots),
        travel_s=distance,
        distance_m=distance,
        stations=tuple(Station(id=f"S{place}", place=place, charge=CURVE) for place in "0b"),
        randomness=randomness,
        **others,
    )


A, B, C = (Request(id=p.upper(), place=p, due_s=4000.0, service_s=5.0) for p in "abc")


def times(plan):
    """Starts, ends of charges and returns of all trips, by robot."""
    return {
        robot: [
            [
                [visit.start_s, getattr(visit, "end_s", 0.0), getattr(visit, "charged_wh", 0.0)]
                for visit in trip.visits()
            ]
            + [[trip.return_s, 0.0, 0.0]]
            for trip in trips
        ]
        for robot, trips in plan.trips_by_robot().items()
    }


def flat(plan) -> list[float]:
    """All of `times` in one row."""
    found = times(plan)
    return [x for robot in sorted(found) for trip in found[robot] for row in trip for x in row]


@pytest.mark.parametrize("recharge", list(Recharge))
def test_without_luck_a_day_is_the_plan(recharge):
    """Queueing for one slot, goods that come late, reloading with a charge: all as planned."""
    goods = Request(id="G", place="a", due_s=4000.0, kind=Kind.DELIVER, load=1.0, available_s=700.0)
    instance = line((A, B, C, goods), reload_s=30.0, recharge=recharge)
    at_depot = ChargeVisit(station="S0")
    routes = {"r": [["C", FULL], [at_depot, "G"]], "s": [["B", FULL, "A"]]}
    plan = schedule(instance, routes)
    assert check(instance, plan).is_feasible
    day = simulate_plan(instance, plan, seed=3)
    assert flat(day.plan) == pytest.approx(flat(plan), abs=1e-6)
    assert day.report.is_feasible
    assert (day.late, day.late_returns) == ((), ())
    assert day.report.cost.energy_wh == pytest.approx(sum(e.used_wh for e in day.energy))


def test_a_charge_does_not_pay_for_reloading_after_the_next():
    """Charged to 75 Wh for C at 30 m; the long reloading after it runs beside the next charge."""
    instance = line((B, C), replace(BATTERY, start_wh=50.0), reload_s=2000.0)
    first, second = (ChargeVisit(station="S0", charged_wh=wh) for wh in (25.0, 60.0))
    plan = schedule(instance, {"r": [[first, "C"], [second, "B"]]})
    day = simulate_plan(instance, plan)
    assert flat(day.plan) == pytest.approx(flat(plan), abs=1e-6)


def test_a_charge_does_not_pay_for_the_time_that_it_takes():
    """Charging for 50 s shortens the wait at C, and 63 Wh are just enough for it."""
    instance = line((replace(C, ready_s=300.0),), replace(BATTERY, start_wh=48.0))
    # At C at 300 after 250 s awake, 5 s of service, 30 s home: 2.85 Wh and 60 for the way.
    first = ChargeVisit(station="S0", charged_wh=24.86)
    plan = schedule(instance, {"r": [[first, "C"]]})
    day = simulate_plan(instance, plan)
    assert flat(day.plan) == pytest.approx(flat(plan), abs=1e-6)
    assert day.energy[0].left_wh == pytest.approx(10.0, abs=0.01)


def test_without_luck_a_hospital_day_is_the_plan():
    """In a building nobody else uses, pieces of legs sum to the legs of the plan."""
    instance = generate_hospital(num_floors=3, num_wards=10, num_robots=4, hours=2, seed=1)
    instance = replace(instance, randomness=replace(SURE, uses_matrix=False))
    request = min(instance.requests, key=lambda each: each.ready_s)
    only = replace(instance, requests=(request,))
    plan = schedule(only, {instance.robots[0].id: [[request.id]]})
    for uses_building in (False, True):
        day = simulate_plan(only, plan, uses_building=uses_building)
        assert flat(day.plan) == pytest.approx(flat(plan), abs=1e-6)


sequences = st.permutations("ABC").flatmap(
    lambda ids: st.tuples(
        st.just(ids), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 3)
    )
)


@settings(max_examples=60, deadline=None)
@given(sequences, st.integers(0, 10**6), st.booleans(), st.floats(0.0, 100.0))
def test_energy_books_balance_and_slots_are_kept(found, seed, is_full, base_w):
    """Start + charged = used + left, within the battery; the referee finds no slot taken twice."""
    ids, charges, border = found
    recharge = Recharge.FULL if is_full else Recharge.PARTIAL
    instance = line(
        (A, B, C), replace(BATTERY, base_w=base_w), RANDOM, recharge=recharge, reload_s=10.0
    )
    route = [x for id_, c in zip(ids, charges, strict=False) for x in ([FULL, id_] if c else [id_])]
    parts = {"r": route[:border], "s": route[border:]}
    routes = {
        robot: [part]
        for robot, part in parts.items()
        if any(isinstance(element, str) for element in part)
    }
    served = [x for trips in routes.values() for x in trips[0] if isinstance(x, str)]
    instance = replace(instance, requests=tuple(r for r in instance.requests if r.id in served))
    try:
        plan = schedule(instance, routes)
    except ValueError:
        return
    day = simulate_plan(instance, plan, seed=seed)
    allowed = {Constraint.BATTERY} if any(e.is_below_reserve for e in day.energy) else set()
    if any(e.is_stranded for e in day.energy):
        allowed |= {Constraint.UNSERVED}
    assert {each.constraint for each in day.report.violations} <= allowed
    for each in day.energy:
        balance_wh = each.start_wh + each.charged_wh - each.used_wh - each.left_wh
        assert balance_wh == pytest.approx(0.0, abs=1e-6)
        assert -1e-5 <= each.least_wh <= each.left_wh <= 100.0 + 1e-5
        assert each.is_below_reserve == (each.least_wh < 10.0 - 1e-5)
    levels = [r.level_wh for r in day.readings if r.level_wh is not None]
    assert levels
    assert min(levels) >= min(e.least_wh for e in day.energy) - 1e-9


def test_the_second_robot_waits_for_the_slot():
    """Three robots at b at 20 at once, one slot; 36 W draw 0.01 Wh a second."""
    instance = line((B, replace(B, id="B2"), replace(B, id="B3")), robots="rst")
    plan = schedule(instance, {"r": [[FULL, "B"]], "s": [[FULL, "B2"]], "t": [[FULL, "B3"]]})
    day = simulate_plan(instance, plan)
    spans = sorted((c.start_s, c.end_s) for _, c in day.charges)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert [c.arrive_s for _, c in day.charges] == [20.0] * 3
    assert spans[1][0] == spans[0][1] > 20.0


def test_the_same_seed_is_the_same_day_and_another_one_is_not():
    """Seed-stable to the last bit."""
    instance = line((A, B, C), randomness=RANDOM)
    plan = schedule(instance, {"r": [["C", FULL, "A"]], "s": [["B"]]})
    assert simulate_plan(instance, plan, seed=5) == simulate_plan(instance, plan, seed=5)
    assert simulate_plan(instance, plan, seed=5).plan != simulate_plan(instance, plan, seed=6).plan


def test_a_robot_short_of_energy_makes_a_detour():
    """With 45 Wh and 10 in reserve C is 60 m there and back; a charger at b lies on the way."""
    battery = replace(BATTERY, start_wh=45.0, base_w=0.0)
    rich, poor = line((C,), replace(battery, start_wh=100.0)), line((C,), battery)
    plan = schedule(rich, {"r": [["C"]]})
    day = simulate_plan(poor, plan)
    (energy,) = day.energy
    # From the depot neither 60 m nor 30 m and 10 m to b leave 10 Wh, but it stands at a charger:
    # it charges there up to 60 + 10.
    assert (energy.num_detours, energy.charged_wh) == (1, pytest.approx(25.0))
    assert energy.least_wh == pytest.approx(10.0)
    assert [r.act for r in day.readings if r.act in (Act.DETOUR, Act.STRANDED)] == [Act.DETOUR]
    assert day.report.is_feasible


def test_a_robot_without_a_charger_in_reach_is_stranded():
    """30 Wh and no charger: after C at 30 m it is empty, and A is never served."""
    battery = replace(BATTERY, start_wh=30.0, base_w=0.0)
    rich = replace(line((C, A), replace(battery, start_wh=100.0), robots="r"), stations=())
    plan = schedule(rich, {"r": [["C", "A"]]})
    poor = replace(rich, robots=(replace(rich.robots[0], battery=battery),))
    day = simulate_plan(poor, plan)
    (energy,) = day.energy
    assert energy.is_stranded
    assert energy.is_below_reserve
    assert (energy.left_wh, day.unserved, day.late) == (pytest.approx(0.0), ("A",), ("A",))
    assert day.late_returns == ("r",)
    assert day.readings[-1].act is Act.STRANDED


def test_robots_charge_up_to_the_planned_level_or_pass_by():
    """0.2 Wh/m and 0.5 Wh/s: quick service of 20 s saves more than the planned 2 Wh, slow does not.

    30 m out take 21 Wh, service 10, 10 m to b 7: 62 Wh, planned to be 64 afterwards.
    """
    battery = replace(BATTERY, wh_per_m=0.2, base_w=1800.0)
    law = Randomness(travel=Spread(cv=0.0), service=Spread(cv=0.5))
    instance = line((replace(C, service_s=20.0),), battery, law)
    plan = schedule(instance, {"r": [["C", ChargeVisit(station="Sb", charged_wh=2.0)]]})
    skips = 0
    for seed in range(20):
        day = simulate_plan(instance, plan, seed=seed)
        seconds = {r.act: r.now_s for r in day.readings}
        arrive_wh = 72.0 - 0.5 * (seconds[Act.END] - 30.0)
        if day.energy[0].num_skips:
            skips += 1
            assert arrive_wh >= 64.0
        else:
            (charged,) = (c.charged_wh for _, c in day.charges)
            assert charged == pytest.approx(64.0 - arrive_wh)
        assert day.report.is_feasible
    assert 0 < skips < 20


def test_one_robot_at_a_time_passes_an_elevator():
    """Two robots leave for one ward at once: in the building the second one is later."""
    instance = generate_hospital(num_floors=3, num_wards=10, num_robots=4, hours=2, seed=1)
    upper = next(r for r in instance.requests if _floor(instance, r) > 0)
    pair = tuple(
        replace(upper, id=id_, kind=Kind.COLLECT, origin=None, available_s=0.0, ready_s=0.0)
        for id_ in "AB"
    )
    instance = replace(instance, requests=pair, randomness=replace(SURE, uses_matrix=False))
    first, second = (robot.id for robot in instance.robots[:2])
    plan = schedule(instance, {first: [["A"]], second: [["B"]]})
    free = simulate_plan(instance, plan)
    busy = simulate_plan(instance, plan, uses_building=True)
    arrivals = [sorted(s.arrive_s for t in day.plan.trips for s in t.stops) for day in (free, busy)]
    assert arrivals[0][0] == arrivals[0][1] == pytest.approx(arrivals[1][0])
    assert arrivals[1][1] > arrivals[1][0] + 20.0


def _floor(instance, request) -> int:
    depot = instance.places[0].floor
    return abs(instance.places[instance.place_index[request.place]].floor - depot)


def test_late_shares_are_those_of_the_law():
    """One leg of 30 s with a log-normal factor of cv 0.4: late where it exceeds its quantile."""
    law = Spread(law=Law.LOGNORMAL, cv=0.4)
    due_s = 30.0 * float(law.quantile(0.8))
    request = replace(C, due_s=due_s)
    instance = line((request,), None, Randomness(travel=law, service=Spread(cv=0.0)))
    plan = schedule(instance, {"r": [["C"]]})
    late = sum(bool(simulate_plan(instance, plan, seed=seed).late) for seed in range(400))
    # Binomial with n = 400, p = 0.2: standard deviation 8.
    assert abs(late - 80) < 24


def test_plans_that_nobody_can_drive_are_refused():
    """A request that is served by nobody, and a seed below 0."""
    instance = line((A, B))
    plan = schedule(replace(instance, requests=(A,)), {"r": [["A"]]})
    with pytest.raises(ValueError, match=r"plan: unserved: .*'B'"):
        simulate_plan(instance, plan)
    with pytest.raises(ValueError, match="seed: expected at least 0, got -1"):
        simulate_plan(line((A,)), plan, seed=-1)


def test_a_battery_twin_keeps_its_books():
    """100 Wh, 30 out, 10 in: 80 left, at least 70, and never below the reserve of 10."""
    twin = BatteryTwin(BATTERY)
    twin.draw(30.0)
    twin.charge(10.0)
    assert (twin.level_wh, twin.least_wh, twin.used_wh, twin.charged_wh) == (80, 70, 30, 10)
    with pytest.raises(AssertionError):
        twin.draw(81.0)
