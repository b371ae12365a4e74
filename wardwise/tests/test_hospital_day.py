"""A hospital's day from prescription to bedside."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.check import check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Costs, Instance, Place, Request, Robot
from wardwise.generate import generate_hospital
from wardwise.hospital import (
    HospitalDay,
    Status,
    compare_quantiles,
    dispense,
    draw_prescriptions,
    drive,
    hospital_day,
    live,
    with_deliveries,
    without_medicine,
)
from wardwise.pharmacy.problem import Bin, Line, Order, PharmacyDay, Priority
from wardwise.pharmacy.service_time import Fixed

# Dock, pharmacy and ward: 30 s to the pharmacy, 100 s on to the ward, 110 s home.
TRAVEL = np.array([[0.0, 30, 120], [30, 0, 100], [110, 100, 0]])
TINY = Instance(
    name="tiny",
    places=(Place(id="dock"), Place(id="pharmacy"), Place(id="ward")),
    requests=(),
    robots=(Robot(id="R1", capacity=4, end_s=9000),),
    travel_s=TRAVEL,
    distance_m=TRAVEL,
    reload_s=40.0,
    costs=Costs(per_metre=0.01),
)
# Two bins beside the only point: 0.125 m up and 0.15 or 0.45 m along, 0.3 m apart.
NEAR_S, FAR_S, BETWEEN_S = 0.125 / 0.8, 0.45 / 1.5, 0.3 / 1.5
BINS = (Bin(id="near", drug="A", cell=0), Bin(id="far", drug="B", cell=1))
CREAM = Line(drug="cream", is_manual=True, manual_s=300)
BOTH = (Line(drug="A"), Line(drug="B"))


def order(name: str, written_s: float, *drugs: Line, **more: object) -> Order:
    """An order of the only ward."""
    return Order(id=name, release_s=written_s, lines=drugs, destination="ward", **more)


THREE = PharmacyDay(
    bins=BINS,
    orders=(
        order("a", 100, *BOTH),
        order("c", 400, Line(drug="A"), priority=Priority.URGENT),
        order("b", 950, Line(drug="B"), CREAM, due_s=2330),
    ),
    service=Fixed(10.0),
)


@pytest.fixture(scope="module")
def compared() -> tuple[HospitalDay, ...]:
    """Half a small hospital's day at three quantiles."""
    hospital = without_medicine(
        generate_hospital(num_floors=3, num_wards=12, transfers=True, hours=4, seed=3)
    )
    return compare_quantiles(3, hospital=hospital, num_days=40, max_iterations=300)


def test_rounds_of_three_orders_by_hand():
    """An urgent prescription opens a round and takes along what was written before it."""
    found = dispense(THREE, round_s=900, replications=3)
    assert [(one.opens_s, one.orders) for one in found.rounds] == [
        (400, ("c", "a")),
        (1800, ("b",)),
    ]
    # c: fetch the near bin, sort it. a: near again, then far: 3 short ways and one long, against
    # 2 and 2 the other way round. Four moves of 2 s by hand a cycle, 10 s to sort.
    c_s = 400 + 2 * NEAR_S + 4 + 10
    a_s = c_s + 3 * NEAR_S + FAR_S + BETWEEN_S + 2 * (8 + 10)
    # b: the cream of 300 s outlasts the machine.
    assert found.ready_s(0.9) == pytest.approx({"a": a_s, "c": c_s, "b": 2100.0})


def test_a_round_waits_for_the_one_before():
    """What is written while the machine works starts when its last bins are back."""
    orders = (
        order("a", 100, *BOTH, priority=Priority.URGENT),
        order("b", 110, Line(drug="A"), priority=Priority.STAT),
    )
    found = dispense(replace(THREE, orders=orders), replications=2)
    # a takes 2 cycles from 100; which bin comes last does not matter for its time:
    # near and far, each once from the point, and between.
    a_s = 100 + 2 * NEAR_S + 4 + NEAR_S + BETWEEN_S + FAR_S + 8 + 20
    back_s = {"near": 2 * NEAR_S, "far": 2 * FAR_S}[found.rounds[0].plan.steps[-1].bin] + 4
    if found.rounds[0].plan.steps[0].bin == "far":
        a_s += 2 * (FAR_S - NEAR_S)
    b_s = a_s + back_s + 2 * NEAR_S + 4 + 10
    assert found.ready_s(0.5) == pytest.approx({"a": a_s, "b": b_s})


def test_completions_are_those_of_an_event_loop():
    """Rounds with two points again, bin by bin and round after round, with the same luck."""
    hospital = generate_hospital(num_floors=2, num_wards=10, transfers=True, hours=3, seed=1)
    day = draw_prescriptions(hospital, seed=1, per_hour=40)
    found = dispense(day, replications=4, seed=7)
    machine, rng = day.machine, np.random.default_rng([7, 0])
    luck = [day.service.sample((4, len(one.plan.steps)), rng) for one in found.rounds]
    for r in range(4):
        free_s, expected = 0.0, {}
        for one, service_s in zip(found.rounds, luck, strict=True):
            at_s = max(free_s, one.opens_s)
            done_s: list[float] = []
            for k, step in enumerate(one.plan.steps):
                if k < 2:
                    cycle_s = machine.fetch_s(k, step.cell)
                else:
                    at_s = max(at_s, done_s[k - 2])
                    cycle_s = machine.cycle_s(k % 2, one.plan.steps[k - 2].cell, step.cell)
                at_s += float(cycle_s)
                done_s.append(max([at_s, *done_s[-1:]]) + service_s[r, k])
                expected[step.order] = done_s[-1]
            standing = [(k % 2, s.cell) for k, s in enumerate(one.plan.steps)][-2:]
            free_s = done_s[-1] + sum(float(machine.fetch_s(p, cell)) for p, cell in standing)
        times = dict(zip((o.id for o in day.orders), found.expected.completed_s[r], strict=True))
        assert times == pytest.approx(expected)


def test_tiny_day_by_hand():
    """Fixed times: the day is lived as planned, down to the second at the bedside."""
    day = hospital_day(0, hospital=TINY, pharmacy=THREE, replications=2, num_days=2, round_s=900)
    assert day.is_sound
    assert set(day.status.values()) == {Status.DELIVERED}
    ready_s = day.dispensing.ready_s(0.9)
    for lived in day.days:
        assert lived.plan == day.plan
        for b in lived.brought:
            assert b.wait_s == 0
            assert b.picked_s >= ready_s[b.order]
            assert b.bedside_s >= b.picked_s + 60 + 100 + 60
    figures = day.figures()
    assert figures.num_delivered == 3
    assert figures.late_share == 0
    parts_s = figures.machine_s + figures.pickup_s + figures.ride_s
    assert figures.mean_s == pytest.approx(parts_s)
    # Complete at 2100, two hand-overs and the way between: in time for 2330 on a trip of its own.
    (b,) = (b for b in day.days[0].brought if b.order == "b")
    assert b.bedside_s == pytest.approx(2100 + 60 + 100 + 60)


def test_a_late_order_is_waited_for_and_an_early_one_saves_time():
    """What a robot loses or gains at the pharmacy is passed on, to the next trip too."""
    orders = (order("a", 0, Line(drug="A")), order("b", 0, Line(drug="A")))
    dispensing = dispense(replace(THREE, orders=orders), replications=1)
    instance, deliveries = with_deliveries(TINY, dispensing)
    # As if a were released at 500 and b at 1000.
    instance = replace(
        instance,
        requests=tuple(
            replace(r, ready_s=s) for r, s in zip(instance.requests, (500, 1000), strict=True)
        ),
    )
    deliveries = tuple(
        replace(d, ready_s=float(s)) for d, s in zip(deliveries, (500, 1000), strict=True)
    )

    def trip(name: str, ready_s: float) -> Trip:
        pickup = Stop(request=name, arrive_s=ready_s, start_s=ready_s, is_pickup=True)
        drop = Stop(request=name, arrive_s=ready_s + 160, start_s=ready_s + 160)
        return Trip(robot="R1", depart_s=ready_s - 30, stops=(pickup, drop), return_s=ready_s + 330)

    plan = Plan(instance="tiny", trips=(trip("a", 500), trip("b", 1000)))
    assert check(instance, plan).is_feasible
    late = live(instance, plan, deliveries, {"a": 700.0, "b": 990.0})
    assert late.report.is_feasible
    a, b = late.brought
    # a: 200 s late, at the ward at 700 + 60 + 100, bedside 60 s later; home at 920 + 110 = 1030.
    assert (a.arrived_s, a.picked_s, a.wait_s, a.bedside_s) == (500, 700, 200, 920)
    # b: loaded again at 1070, so at the pharmacy at 1100, where it was complete long since.
    assert (b.arrived_s, b.picked_s, b.wait_s, b.bedside_s) == (1100, 1100, 0, 1320)
    early = live(instance, plan, deliveries, {"a": 450.0, "b": 990.0})
    assert [b.bedside_s for b in early.brought] == [720, 1220]


def test_orders_on_time_are_driven_as_planned(compared: tuple[HospitalDay, ...]):
    """With every order complete at its release the trips are those of the plan."""
    for day in compared:
        for trip, planned in zip(drive(day.instance, day.plan).trips, day.plan.trips, strict=True):
            assert trip.return_s == pytest.approx(planned.return_s)
            for stop, as_planned in zip(trip.stops, planned.stops, strict=True):
                assert stop.start_s == pytest.approx(as_planned.start_s)


def test_every_prescription_is_delivered_once_or_reported(compared: tuple[HospitalDay, ...]):
    """In the plan, and on every lived day."""
    for day in compared:
        assert day.is_sound
        ids = [o.id for o in day.dispensing.day.orders]
        assert [d.order.id for d in day.deliveries] == ids
        assert sorted(i for one in day.dispensing.rounds for i in one.orders) == sorted(ids)
        delivered = {name for name, status in day.status.items() if status is Status.DELIVERED}
        for plan in (day.plan, *(lived.plan for lived in day.days)):
            stops = Counter(
                (stop.request, stop.is_pickup) for trip in plan.trips for stop in trip.stops
            )
            for name in ids:
                expected = int(name in delivered)
                assert stops[name, True] == stops[name, False] == expected
        for lived in day.days:
            assert {b.order for b in lived.brought} == delivered
        assert day.figures().num_delivered == len(delivered) > 0


@pytest.mark.slow
def test_what_no_robot_brings_is_reported():
    """Too few robots deny some; what is complete when shifts end is held over."""
    orders = tuple(
        order(f"o{k}", 60.0 * k, Line(drug="A"), due_s=60.0 * k + 600) for k in range(60)
    )
    late = order("late", 8900, Line(drug="A"))
    day = hospital_day(
        hospital=TINY, pharmacy=replace(THREE, orders=(*orders, late)), num_days=2, replications=5
    )
    assert day.is_sound
    assert set(day.status.values()) == set(Status)
    assert day.status["late"] is Status.HELD_OVER
    assert set(day.plan.denied) == {n for n, s in day.status.items() if s is Status.DENIED}


def test_no_release_before_its_quantile(compared: tuple[HospitalDay, ...]):
    """So many of the expected days are in time, and no earlier release would do."""
    for day in compared:
        completed_s = day.dispensing.expected.completed_s
        for column, delivery in enumerate(day.deliveries):
            assert (completed_s[:, column] <= delivery.ready_s).mean() >= day.quantile
            assert (completed_s[:, column] < delivery.ready_s).mean() < day.quantile
            assert delivery.order.release_s <= delivery.opens_s < delivery.ready_s
            if delivery.request is not None:
                assert delivery.request.ready_s == delivery.ready_s
        for trip in day.plan.trips:
            for stop in trip.stops:
                if stop.is_pickup:
                    assert stop.start_s >= day.instance.request_by_id[stop.request].ready_s - 1e-6


def test_a_higher_quantile_makes_fewer_late(compared: tuple[HospitalDay, ...]):
    """The share of late orders on days with other luck is about one minus the quantile."""
    half, nine, most = (day.figures() for day in compared)
    assert half.late_share > nine.late_share > most.late_share
    # Orders of a round share their luck: 40 days count as some hundred independent draws.
    for day, figures in zip(compared, (half, nine, most), strict=True):
        assert figures.late_share == pytest.approx(1 - day.quantile, abs=0.08)
    assert half.wait_s > most.wait_s
    for day in compared:
        assert len({tuple(times) for times in day.run.completed_s.tolist()}) == 40
    # Common luck: the machine does the same whatever the robots are told.
    assert np.array_equal(compared[0].run.completed_s, compared[2].run.completed_s)


@pytest.mark.slow
def test_same_seed_same_day():
    """Bit for bit, and another seed gives another day."""
    one, two, other = (
        hospital_day(seed, replications=20, num_days=2, max_iterations=20) for seed in (4, 4, 5)
    )
    assert one.plan == two.plan
    assert one.days == two.days
    assert one.deliveries == two.deliveries
    assert one.days != other.days


def test_figures_by_class_add_up(compared: tuple[HospitalDay, ...]):
    """Means of the classes, weighed by their numbers, are the mean of all."""
    day = compared[1]
    whole, classes = day.figures(), [day.figures(priority) for priority in Priority]
    assert sum(c.num_delivered for c in classes) == whole.num_delivered
    assert sum(c.num_delivered * c.mean_s for c in classes) == pytest.approx(
        whole.num_delivered * whole.mean_s
    )
    assert sum(c.wait_s for c in classes) == pytest.approx(whole.wait_s)
    assert whole.mean_s <= whole.p95_s


def test_dynamic_requests_are_known_when_their_round_opens():
    """Not before, and no robot can leave for them earlier."""
    instance, deliveries = with_deliveries(TINY, dispense(THREE), is_dynamic=True)
    released = {r.id: r.release_s for r in instance.requests}
    assert (
        released == {d.order.id: d.opens_s for d in deliveries} == {"a": 400, "c": 400, "b": 1800}
    )


def test_medicine_comes_from_the_machine_alone():
    """The generated flows of medicine are gone, all others are left."""
    hospital = generate_hospital(transfers=True, seed=1)
    kept = Counter(r.id.rpartition("-")[0] for r in without_medicine(hospital).requests)
    whole = Counter(r.id.rpartition("-")[0] for r in hospital.requests)
    gone = {"stat-medicine", "medicine", "dispensed"}
    assert gone < set(whole)
    assert kept == {name: count for name, count in whole.items() if name not in gone}


def test_prescriptions_come_from_every_kind_of_hospital():
    """Wards of the building, or every place but dock and pharmacy without one."""
    hospital = generate_hospital(transfers=True, seed=1)
    found = draw_prescriptions(hospital, seed=2)
    wards = {o.destination for o in found.orders}
    assert all(name.startswith("ward-") for name in wards)
    assert len(wards) > 12
    assert max(o.release_s for o in found.orders) <= hospital.robots[0].end_s - 7200
    assert {o.destination for o in draw_prescriptions(TINY, per_hour=30).orders} == {"ward"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hospital_day(quantile=1.0, max_iterations=1), "quantile: expected a number betw"),
        (lambda: hospital_day(num_days=0), "num_days: expected at least 1, got 0"),
        (lambda: hospital_day(-1), "seed: expected at least 0, got -1"),
        (lambda: dispense(THREE, round_s=0), "round_s: expected a finite number above 0"),
        (lambda: dispense(THREE, replications=0), "replications: expected at least 1, got 0"),
        (lambda: dispense(THREE, method="single-command"), "method: expected one with dual"),
        (lambda: draw_prescriptions(TINY, per_hour=0), "per_hour: expected 0.01 to 100000"),
        (
            lambda: draw_prescriptions(
                replace(TINY, robots=(Robot(id="R", capacity=1, end_s=60),))
            ),
            "hospital: robots: expected shifts",
        ),
        (
            lambda: draw_prescriptions(replace(TINY, places=tuple(map(_renamed, TINY.places)))),
            "hospital: places: expected one called 'pharmacy'",
        ),
        (
            lambda: with_deliveries(
                TINY, dispense(replace(THREE, orders=(Order(id="x", lines=BOTH),)))
            ),
            "order x: destination: expected a ward, got ''",
        ),
        (
            lambda: with_deliveries(
                replace(TINY, requests=(Request(id="a", place="ward", due_s=5000),)),
                dispense(THREE),
            ),
            "'a' stands 2 times",
        ),
    ],
)
def test_bad_input_is_named(call, message: str):
    """The parameter, its range and what was found."""
    with pytest.raises(ValueError, match=message):
        call()


def _renamed(place: Place) -> Place:
    return replace(place, id=f"{place.id}-2")
