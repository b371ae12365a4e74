"""The event-by-event twin: equal to the exact recursions, and right with what goes wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.layout import Layout
from wardwise.pharmacy.layout_check import open_times
from wardwise.pharmacy.online import Kind, Session, Setup
from wardwise.pharmacy.problem import Line, Order
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.running_day import live_day
from wardwise.pharmacy.service_time import Fixed, Lognormal
from wardwise.pharmacy.timing import simulate
from wardwise.pharmacy.twin import Disturbances, replay


def machine_of(rng: np.random.Generator, num_points: int, people: int) -> Machine:
    """The default rack with points anywhere along it."""
    points = tuple((float(x), float(y)) for x, y in rng.uniform(-1, 12, (num_points, 2)))
    return Machine(points_m=points, num_pharmacists=people)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4), st.integers(1, 3), st.lists(st.integers(0, 599), min_size=1, max_size=30),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_twin_equals_the_recursion(m: int, q: int, cells: list[int], seed: int) -> None:
    """Every bin of every replication is delivered and sorted when the recursion says."""
    rng = np.random.default_rng(seed)
    machine = machine_of(rng, m, q)
    service = Lognormal().sample((3, len(cells)), rng)
    exact, lived = simulate(machine, cells, service), replay(machine, cells, service)
    np.testing.assert_allclose(lived.delivered_s, exact.delivered_s, rtol=1e-12)
    np.testing.assert_allclose(lived.sorted_s, exact.sorted_s, rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_twin_equals_the_recursion_with_arrivals(m: int, q: int, seed: int) -> None:
    """The same when orders come during the day."""
    rng = np.random.default_rng(seed)
    machine = machine_of(rng, m, q)
    cells, service = rng.integers(0, 600, 30), Lognormal().sample((30,), rng)
    release_s = np.cumsum(rng.exponential(30.0, 30))
    _, sorted_s, _ = open_times(Layout(name="", machine=machine), cells, service, release_s)
    lived = replay(machine, cells, service[None], release_s=release_s)
    np.testing.assert_allclose(lived.sorted_s[0], sorted_s, rtol=1e-12)


def test_breakdowns_cost_their_share() -> None:
    """An arm that always has to work loses mean repair over mean time between failures."""
    rng = np.random.default_rng(1)
    cells, service = rng.integers(0, 600, 4000), np.zeros((5, 4000))
    machine = Machine(points_m=((0.0, 0.0),) * 2)
    broken = Disturbances(mtbf_s=600.0, mttr_s=150.0)
    assert broken.availability == pytest.approx(0.8)
    whole = simulate(machine, cells, service).makespan_s[0]
    lived = replay(machine, cells, service, disturbances=broken, seed=3).makespan_s
    # About 650 repairs of 150 s; their sum has a standard deviation of 7 %.
    assert whole / lived.mean() == pytest.approx(0.8, rel=0.02)
    assert len(set(lived)) == 5
    again = replay(machine, cells, service, disturbances=broken, seed=3).makespan_s
    assert again.tolist() == lived.tolist()


@pytest.mark.parametrize("points", [((0.0, 0.0),), ((0.0, 0.0),) * 2, ((0.0, 0.0), (12.0, 0.0))])
def test_a_running_day_takes_what_the_recursion_says(points: tuple[tuple[float, float]]) -> None:
    """The sequence that the scheduler chose, timed by the recursion, ends at the same second."""
    day = generate_pharmacy(4, num_orders=1, max_lines=40, machine=Machine(points_m=points))
    order = Order(id="one", lines=tuple(Line(drug=b.drug) for b in day.bins[:40]))
    service = Fixed(15.0)
    lived = live_day(Setup(machine=day.machine, bins=day.bins, service=service), [order])
    cells = [d.cell for d in lived.decisions if d.kind is Kind.FETCH]
    exact = simulate(day.machine, cells, service.sample((1, 40), np.random.default_rng(0)))
    assert lived.end_s == pytest.approx(exact.makespan_s[0], rel=1e-12)
    assert lived.people_busy == pytest.approx(600 / lived.end_s)


def test_a_day_with_everything_ends_complete() -> None:
    """Arrivals, breakdowns, missing packs and manual lines: each order is complete in the end."""
    day = generate_pharmacy(5, num_orders=150, arrivals_per_hour=50, zipf=0.8)
    orders = list(day.orders)
    by_hand = Line(drug="fridge", is_manual=True, manual_s=240.0)
    orders[3] = Order(id="mixed", lines=(*orders[3].lines, by_hand), release_s=orders[3].release_s)
    setup = Setup(machine=Machine(points_m=((0.0, 0.0),) * 2), bins=day.bins)
    trouble = Disturbances(mtbf_s=2000.0, mttr_s=200.0, missing=0.05)
    lived = live_day(setup, orders, disturbances=trouble, seed=2)
    assert set(lived.done_s) == {order.id for order in orders}
    assert lived.done_s["mixed"] >= orders[3].release_s + 240
    assert lived.count(Kind.SHORT) > 3
    assert lived.down > 0.02
    for order in orders:
        assert order.release_s <= lived.begun_s[order.id] <= lived.done_s[order.id]
    again = live_day(setup, orders, disturbances=trouble, seed=2)
    assert again.decisions == lived.decisions


def test_a_day_may_be_kept_in_a_journal(tmp_path) -> None:
    """The twin drives a session as well as a bare scheduler, with the same decisions."""
    day = generate_pharmacy(6, num_orders=10, arrivals_per_hour=50)
    setup = Setup(machine=day.machine, bins=day.bins)
    with Session(setup, tmp_path / "day.jsonl") as session:
        kept = live_day(setup, day.orders, handle=session.handle)
    assert kept.decisions == live_day(setup, day.orders).decisions


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Disturbances(mtbf_s=0), "mtbf_s: expected a number above 0, got 0"),
        (lambda: Disturbances(mttr_s=-1), "mttr_s: expected a finite number above 0"),
        (lambda: Disturbances(missing=2), "missing: expected 0 to 1, got 2"),
        (lambda: replay(Machine(), [1], [1.0]), "service_s: expected shape"),
        (lambda: live_day(Setup(machine=Machine(), bins=()), [], num_hand=0), "num_hand: expected"),
    ],
)
def test_bad_input_is_named(make, message: str) -> None:
    """What is wrong is said with field and range."""
    with pytest.raises(ValueError, match=message):
        make()
