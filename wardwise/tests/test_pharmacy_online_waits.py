"""Nobody waits for ever: what the ageing policy promises holds on random days; people's pauses."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.online import (
    Decision,
    Event,
    Kind,
    Policy,
    Recall,
    Scheduler,
    Setup,
    Sorted,
)
from wardwise.pharmacy.problem import Bin, Line, Order, Priority
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.running_day import RunningDay, live_day
from wardwise.pharmacy.service_model import ServiceModel, ServiceRecord, fit_service_model
from wardwise.pharmacy.service_time import Fixed
from wardwise.pharmacy.staff import Staff
from wardwise.pharmacy.twin import Disturbances

CLASSES = list(Priority)
DAY = generate_pharmacy(1, num_orders=1)
SORT_S = 15.0


def random_orders(rng: np.random.Generator, num: int) -> list[Order]:
    """Orders of one to four lines at up to three times the machine's pace; no drug comes twice."""
    drugs = iter(rng.permutation(len(DAY.bins)))
    release_s = np.cumsum(rng.exponential(rng.choice([30.0, 90.0, 200.0]), num))
    shares = rng.dirichlet((2, 2, 2))
    return [
        Order(
            id=f"o{k}", release_s=float(release_s[k]), priority=rng.choice(CLASSES, p=shares),
            lines=tuple(
                Line(drug=DAY.bins[next(drugs)].drug) for _ in range(int(rng.integers(1, 5)))
            ),
        )
        for k in range(num)
    ]  # fmt: skip


def worst_line_s(machine: Machine) -> float:
    """No line takes the machine longer than this: the longest ways, and sorting after it."""
    ways_s = 2 * machine.reach_s.max() + machine.between_s.max() + machine.shift_s.max()
    return float(ways_s) + 4 * machine.arm.handling_s + SORT_S


def last_begun_s(lived: RunningDay) -> dict[str, float]:
    """When the last line of each order was fetched."""
    return {d.order: d.time_s for d in lived.decisions if d.kind is Kind.FETCH}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 2]), st.booleans(),
    st.tuples(*3 * [st.floats(0, 2000)]).map(sorted),
)  # fmt: skip
def test_no_order_waits_longer_than_it_is_promised(
    seed: int, num_points: int, is_apart: bool, ageing_s: list[float]
) -> None:
    """Nothing that comes after the promise goes first, and the work until then bounds the wait."""
    rng = np.random.default_rng(seed)
    ends = ((0.0, 0.0), (12.0 if is_apart else 0.0, 0.0))[:num_points]
    machine = Machine(points_m=ends)
    policy = Policy(ageing_s=(ageing_s[0], ageing_s[1], ageing_s[2]))
    orders = random_orders(rng, 40)
    setup = Setup(machine=machine, bins=DAY.bins, service=Fixed(SORT_S), policy=policy)
    lived = live_day(setup, orders)
    begun_s, line_s = last_begun_s(lived), worst_line_s(machine)
    fetches = [d for d in lived.decisions if d.kind is Kind.FETCH]
    known = {order.id: order for order in orders}
    for order in orders:
        limit_s = order.release_s + policy.overtaking_s(order.priority)
        ahead = len(order.lines)
        for fetch in fetches:
            other = known[fetch.order]
            if other is order or not order.release_s < fetch.time_s <= begun_s[order.id]:
                continue
            # Fetched before it: came within the promise, whatever its class.
            assert other.release_s <= limit_s
            ahead += 1
        assert ahead <= sum(len(o.lines) for o in orders if o.release_s <= limit_s)
        # One cycle may be under way when it comes, and others' bins stand at the points.
        bound_s = (ahead + 1 + num_points) * line_s
        assert lived.done_s[order.id] - order.release_s <= bound_s


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_promise_holds_in_trouble(seed: int) -> None:
    """Breakdowns and missing packs delay orders, but do not let later ones pass."""
    rng = np.random.default_rng(seed)
    orders = random_orders(rng, 40)
    policy = Policy()
    setup = Setup(machine=Machine(points_m=((0.0, 0.0),) * 2), bins=DAY.bins, policy=policy)
    trouble = Disturbances(mtbf_s=1000.0, mttr_s=200.0, missing=0.1)
    lived = live_day(setup, orders, disturbances=trouble, seed=seed)
    assert set(lived.done_s) == {order.id for order in orders}
    known, begun_s = {order.id: order for order in orders}, last_begun_s(lived)
    for order in orders:
        for fetch in lived.decisions:
            if fetch.kind is Kind.FETCH and order.release_s < fetch.time_s:
                late_s = known[fetch.order].release_s - order.release_s
                if late_s > policy.overtaking_s(order.priority):
                    assert fetch.time_s > begun_s.get(order.id, 0.0)


@pytest.mark.slow
def test_strict_starves_what_ageing_serves() -> None:
    """Stat orders faster than the machine: strict serves the routine one last, ageing in time."""
    drugs = iter(DAY.bins)
    routine = Order(id="routine", lines=(Line(drug=next(drugs).drug),))
    stats = [
        Order(id=f"s{k}", release_s=20.0 * k, priority=Priority.STAT,
              lines=(Line(drug=next(drugs).drug),))
        for k in range(200)
    ]  # fmt: skip

    def waited(rule: str) -> float:
        policy = Policy(rule=rule, ageing_s=(0.0, 300.0, 900.0))
        setup = Setup(machine=DAY.machine, bins=DAY.bins, service=Fixed(SORT_S), policy=policy)
        return live_day(setup, [*stats, routine]).done_s["routine"]

    # At 20 s an order 45 stat orders come within the promise; the machine needs 35 s for each.
    assert waited("ageing") < 47 * worst_line_s(DAY.machine)
    assert waited("strict") > 200 * 20.0
    assert waited("strict") > 2 * waited("ageing")


def long_order(num: int) -> Order:
    """Many lines that are all there at the start."""
    return Order(id="o", lines=tuple(Line(drug=b.drug) for b in DAY.bins[:num]))


def test_tired_people_sort_slower_until_they_pause() -> None:
    """Times grow with the hours since the last pause; pauses come when due or after a pick."""
    staff = Staff(slower_per_h=0.5, pause_every_s=1800.0, pause_s=600.0)
    setup = Setup(machine=DAY.machine, bins=DAY.bins, service=Fixed(60.0))
    lived = live_day(setup, [long_order(60)], staff=staff)
    sorts = [done for done in lived.log if done.what == "sort"]
    pauses = [done for done in lived.log if done.what == "pause"]
    assert len(sorts) == 60
    assert len(pauses) >= 2
    rested_s = 0.0
    for done in sorted(sorts + pauses, key=lambda done: done.from_s):
        if done.what == "pause":
            # Due 1800 s after the one before; a pick of at most 75 s goes before it.
            assert 0 <= done.from_s - rested_s - 1800 <= 75
            assert done.to_s - done.from_s == pytest.approx(600)
            rested_s = done.to_s
        else:
            hours = (done.from_s - rested_s) / 3600
            assert done.to_s - done.from_s == pytest.approx(60 * (1 + 0.5 * hours))


def test_idle_people_pause_in_quiet_times() -> None:
    """Who has nothing to do takes the pause when it is due, and nobody after the last order."""
    late = Order(id="late", lines=(Line(drug=DAY.bins[0].drug),), release_s=3000.0)
    staff = Staff(pause_every_s=1000.0, pause_s=100.0)
    machine = Machine(num_pharmacists=2)
    lived = live_day(Setup(machine=machine, bins=DAY.bins), [late], staff=staff)
    pauses = [(done.who, done.from_s) for done in lived.log if done.what == "pause"]
    # First pauses are spread: after half of the time, and after all of it.
    assert pauses == [(0, 500.0), (1, 1000.0), (0, 1600.0), (1, 2100.0), (0, 2700.0)]


def test_work_is_shared_and_by_person() -> None:
    """Two people sort about as often; the log's quick one takes less time for the same bins."""
    rng = np.random.default_rng(2)
    log = [
        ServiceRecord(seconds=seconds * factor, person=person)
        for seconds in np.exp(3 + 0.1 * rng.standard_normal(400))
        for person, factor in (("quick", 0.5), ("slow", 2.0))
    ]
    model = fit_service_model(log)
    assert isinstance(model, ServiceModel)
    machine = Machine(points_m=((0.0, 0.0),) * 2, num_pharmacists=2)
    setup = Setup(machine=machine, bins=DAY.bins, model=model)
    lived = live_day(setup, [long_order(80)], staff=Staff(persons=("quick", "slow")))
    quick, slow = (
        [done.to_s - done.from_s for done in lived.log if done.who == who and done.what == "sort"]
        for who in (0, 1)
    )
    assert np.mean(slow) / np.mean(quick) == pytest.approx(4, rel=0.1)
    assert len(quick) >= len(slow) > 10


def test_the_log_tells_a_possible_day() -> None:
    """Arm and pharmacist do one thing at a time, and shares of the day are those of the log."""
    day = generate_pharmacy(7, num_orders=40, arrivals_per_hour=40, packs_per_bin=3)
    machine = Machine(points_m=((0.0, 0.0),) * 2, num_pharmacists=2)
    lived = live_day(
        Setup(machine=machine, bins=day.bins), day.orders, restock_s=300.0,
        staff=Staff(pause_every_s=1500.0, pause_s=200.0), seed=4,
    )  # fmt: skip
    assert {done.what for done in lived.log} == {"fetch", "refill", "sort", "pause"}
    for who in (None, 0, 1):
        own = sorted((done for done in lived.log if done.who == who), key=lambda d: d.from_s)
        for before, after in pairwise(own):
            assert before.to_s <= after.from_s + 1e-9
    sorting_s = sum(done.to_s - done.from_s for done in lived.log if done.what == "sort")
    assert lived.people_busy == pytest.approx(sorting_s / lived.end_s / 2)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(0, 900))
def test_a_recall_stops_a_lot_at_once(seed: int, num_points: int, recall_s: float) -> None:
    """From its moment nothing of the lot is counted as sorted, and all orders get other packs."""
    rng = np.random.default_rng(seed)
    bins = tuple(
        Bin(id=f"{drug}{lot}", drug=drug, cell=int(cell), lot=lot, quantity=200)
        for (drug, lot), cell in zip(
            [(drug, lot) for drug in "ABC" for lot in ("old", "new")], rng.permutation(600)[:6],
            strict=True,
        )
    )  # fmt: skip
    orders = [
        Order(id=f"o{k}", lines=tuple(
            Line(drug=str(drug), quantity=int(rng.integers(1, 4)))
            for drug in rng.choice(list("ABC"), int(rng.integers(1, 4)), replace=False)
        ), release_s=float(rng.uniform(0, 900)))
        for k in range(25)
    ]  # fmt: skip
    machine = Machine(points_m=((0.0, 0.0),) * num_points)
    setup = Setup(machine=machine, bins=bins, today=date(2026, 3, 1))
    recalls = [Recall(time_s=recall_s, drug=drug, lot="old") for drug in "AB"]
    trouble = Disturbances(mtbf_s=500.0, mttr_s=100.0, missing=0.05)
    scheduler = Scheduler(setup)
    counted: list[tuple[float, str]] = []

    def handle(event: Event) -> tuple[Decision, ...]:
        if isinstance(event, Sorted):
            name = scheduler.state.places[event.point].picks
            counted.extend((event.time_s, pick.slot.bin.id) for pick in name[:1])
        return scheduler.handle(event)

    lived = live_day(setup, orders, recalls=recalls, disturbances=trouble, seed=seed, handle=handle)
    assert set(lived.done_s) == {order.id for order in orders}
    assert all(name not in ("Aold", "Bold") for time_s, name in counted if time_s > recall_s)
    for decision in lived.decisions:
        if decision.kind in (Kind.FETCH, Kind.KEEP) and decision.time_s > recall_s:
            assert decision.bin not in ("Aold", "Bold")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Staff(pause_every_s=0), "staff: pause_every_s: expected a number above 0, got 0"),
        (lambda: Staff(pause_s=-1), "staff: pause_s: expected a finite number of at least 0"),
        (lambda: Staff(slower_per_h=np.inf), "staff: slower_per_h: expected a finite number"),
        (
            lambda: live_day(Setup(machine=DAY.machine, bins=()), [], restock_s=-1.0),
            "restock_s: expected at least 0, got -1.0",
        ),
        (lambda: generate_pharmacy(packs_per_bin=0), "packs_per_bin: expected at least 1, got 0"),
    ],
)
def test_bad_input_is_named(make, message: str) -> None:
    """What is wrong is said with field and range."""
    with pytest.raises(ValueError, match=message):
        make()
