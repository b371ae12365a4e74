"""The layout advisor: its formulas, held to reference tables, simulations and each other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from wardwise.pharmacy.advice import advise
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.layout import Demand, Layout, analyse, arm_cycles, candidates
from wardwise.pharmacy.layout_check import confirm, open_times
from wardwise.pharmacy.queueing import (
    Moments,
    Pmf,
    kingman_wait_s,
    order_moments,
    places_cycle_s,
    poisson_flow,
    poisson_wait_s,
    priority_waits_s,
)
from wardwise.pharmacy.rack import Machine, Rack
from wardwise.pharmacy.service_time import Exponential, Fixed, Lognormal, ServiceTime
from wardwise.pharmacy.stats import interval
from wardwise.pharmacy.timing import simulate
from wardwise.pharmacy.travel import cyclic_queue_rate

CORNER = (0.0, 0.0)
DEMAND = Demand(orders_per_hour=25)


def layout_of(num_points: int, people: int = 1) -> Layout:
    """All points at the corner of the default rack."""
    machine = Machine(points_m=(CORNER,) * num_points, num_pharmacists=people)
    return Layout(name="", machine=machine)


@pytest.mark.parametrize(
    ("mean_s", "saving", "one", "two"),
    [
        (5, 20.0, 144, 180), (8, 28.5, 129, 180), (10, 32.9, 120, 179), (15, 39.8, 103, 171),
        (20, 41.7, 90, 154), (25, 40.6, 80, 135), (30, 38.2, 72, 117),
    ],
)  # fmt: skip
def test_saving_of_a_second_point(mean_s: float, saving: float, one: int, two: int) -> None:
    """The reference table of savings and of bins an hour with one and two points."""
    first, second = (analyse(layout_of(m), Lognormal(mean_s), DEMAND) for m in (1, 2))
    assert 100 * (1 - second.cycle_s / first.cycle_s) == pytest.approx(saving, abs=0.06)
    assert (round(first.bins_per_hour), round(second.bins_per_hour)) == (one, two)


@pytest.mark.parametrize(
    ("mean_s", "cv", "seconds"),
    [
        (15, 0.4, (34.9, 21.1, 20.1, 20.0, 19.9)), (20, 0.4, (40.0, 23.4, 21.2, 20.7, 20.3)),
        (15, 1.0, (34.8, 23.5, 21.5, 20.9, 20.1)), (20, 1.0, (40.0, 26.6, 23.9, 22.8, 21.3)),
    ],
)  # fmt: skip
def test_seconds_a_bin_with_more_places(mean_s: float, cv: float, seconds: tuple[float]) -> None:
    """The reference table for 1, 2, 3, 4 and 8 places, which was simulated, within 1 %."""
    service = Lognormal(mean_s, cv)
    for m, expected in zip((1, 2, 3, 4, 8), seconds, strict=True):
        found = analyse(layout_of(m), service, DEMAND).cycle_s
        assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("mean_s", [12.0, 20.0, 31.0])
def test_exponential_places_are_the_cyclic_queue(mean_s: float) -> None:
    """With exponential times on both sides any number of places gives the closed queue's rate."""
    arm = Moments(mean_s=20.0, variance_s2=400.0)
    person = Moments(mean_s=mean_s, variance_s2=mean_s**2)
    two_s = 1 / cyclic_queue_rate(20.0, mean_s, 2)
    for m in (1, 2, 3, 5, 12):
        expected = 1 / cyclic_queue_rate(20.0, mean_s, m)
        assert places_cycle_s(arm, person, two_s, m) == pytest.approx(expected, rel=1e-6)


def test_places_without_luck_are_the_slower_of_both() -> None:
    """Where nothing varies two places suffice, and more give the same."""
    still, fixed = (Moments(mean_s=mean, variance_s2=0.0) for mean in (20.0, 15.0))
    assert [places_cycle_s(still, fixed, 20.0, m) for m in (1, 2, 3, 9)] == [35.0, 20.0, 20.0, 20.0]


def test_enumeration_by_hand() -> None:
    """Three cells in a row at 1 m/s: every pair's cycle, weighted by how often both are wanted."""
    rack = Rack(num_columns=3, num_rows=1, column_pitch_m=2.0, row_pitch_m=0.2)
    machine = Machine(rack=rack, points_m=((0.0, 0.1),))
    arm = replace(machine.arm, speed_x_mps=1.0, handling_s=0.5)
    machine = replace(machine, arm=arm)
    # Centres at 1, 3 and 5 m: out, between and back always add up to twice the farther one.
    cycles, weights = arm_cycles(machine, Demand(weights=np.array([1.0, 2.0, 3.0])))
    assert weights is not None
    assert dict(zip(cycles.tolist(), weights.tolist(), strict=False)) == {8.0: 2.0, 12.0: 6.0}
    assert weights.tolist() == [2.0, 3.0, 6.0]
    figures = analyse(Layout(name="", machine=machine), Fixed(4.0), Demand(sizes=(2,)))
    assert figures.cycle_s == pytest.approx((8 + 12 + 12) / 3 + 4, abs=1)
    weighted = Demand(sizes=(2,), weights=np.array([1.0, 2.0, 3.0]))
    exact = (2 * 8 + 9 * 12) / 11 + 4
    assert analyse(Layout(name="", machine=machine), Fixed(4.0), weighted).cycle_s == exact


@pytest.mark.parametrize(
    ("layout", "service", "rate"),
    [
        (layout_of(1), Lognormal(), 25.0),
        (layout_of(1), Exponential(12.0), 8.0),
        (layout_of(2), Lognormal(), 40.0),
        (layout_of(2), Lognormal(), 8.0),
        (layout_of(3), Lognormal(20.0), 30.0),
        (layout_of(2, 2), Lognormal(20.0), 30.0),
        (replace(layout_of(1), dwell_m=(6.0, 1.9)), Lognormal(), 8.0),
        (replace(layout_of(2), dwell_m=(6.0, 1.9)), Lognormal(), 8.0),
        (candidates(Machine())[3], Lognormal(), 20.0),
    ],
    ids=["1", "1-exponential", "2", "2-quiet", "3", "2-people", "1-dwell", "2-dwell", "2-apart"],
)
def test_formulas_agree_with_simulated_days(
    layout: Layout, service: ServiceTime, rate: float
) -> None:
    """Seconds a bin, flow times with their tails, and utilisations agree with 40 long days."""
    demand = Demand(orders_per_hour=rate)
    figures = analyse(layout, service, demand)
    found = confirm(layout, service, demand, replications=40)
    assert figures.flow is not None
    assert figures.cycle_s == pytest.approx(found.cycle_s.mean, rel=0.012)
    spread = found.flow_s.high - found.flow_s.mean
    assert figures.flow.flow_s == pytest.approx(found.flow_s.mean, rel=0.045, abs=1.5 * spread)
    for level in (0, 1, 2):
        simulated = found.flow_quantiles_s[level]
        reach = 1.5 * (simulated.high - simulated.mean)
        expected = figures.flow.flow_quantiles_s[level]
        assert expected == pytest.approx(simulated.mean, rel=0.05, abs=reach)
    assert figures.people_busy == pytest.approx(found.people_busy.mean, rel=0.02)
    if layout.dwell_m is None:
        assert figures.arm_busy == pytest.approx(found.arm_busy.mean, rel=0.02)


def test_days_of_orders_equal_the_exact_timing() -> None:
    """When all orders are there at the start, the recursion with releases is that of the timing."""
    rng = np.random.default_rng(1)
    cells, service_s = rng.integers(0, 600, 60), Lognormal().sample((60,), rng)
    for layout in (layout_of(1), layout_of(3, 2), candidates(Machine())[3]):
        begun_s, sorted_s, _ = open_times(layout, cells, service_s, np.zeros(60))
        timeline = simulate(layout.machine, cells, service_s[None])
        np.testing.assert_allclose(sorted_s, timeline.sorted_s[0])
        assert (begun_s <= timeline.delivered_s[0]).all()


def test_waits_of_the_textbook() -> None:
    """M/M/1 at load 0.8 waits 4 services; M/D/1 half of that; Kingman agrees for both."""
    exponential = Moments(mean_s=10.0, variance_s2=100.0)
    fixed = Moments(mean_s=10.0, variance_s2=0.0)
    assert poisson_wait_s(0.08, exponential) == pytest.approx(40.0)
    assert poisson_wait_s(0.08, fixed) == pytest.approx(20.0)
    assert kingman_wait_s(0.08, exponential, 1.0) == pytest.approx(40.0)
    assert kingman_wait_s(0.08, fixed, 0.5) == pytest.approx(10.0)
    assert poisson_wait_s(0.1, fixed) == math.inf
    assert kingman_wait_s(0.2, fixed, 1.0) == math.inf
    # Two lines a mean of 10 s each, orders of one or three lines: variance 2 * 100 + 1 * 100.
    assert order_moments([1, 3], exponential) == Moments(mean_s=20.0, variance_s2=300.0)


def test_priority_classes() -> None:
    """Two classes by hand; the weighted mean of waits is kept; an overload only hurts the last."""
    service = Moments(mean_s=10.0, variance_s2=100.0)
    urgent, routine = priority_waits_s([0.02, 0.06], [service, service])
    # R = 0.08 * 200 / 2 = 8: 8 / 0.8 and 8 / (0.8 * 0.2).
    assert (urgent, routine) == pytest.approx((10.0, 50.0))
    assert (0.02 * urgent + 0.06 * routine) / 0.08 == pytest.approx(poisson_wait_s(0.08, service))
    urgent, routine = priority_waits_s([0.02, 0.2], [service, service])
    assert routine == math.inf
    # The server is always busy: it never stands still, and R = 0.1 * 200 / 2.
    assert urgent == pytest.approx(10 / 0.8)
    with pytest.raises(ValueError, match="rates: expected one of at least 0"):
        priority_waits_s([-1.0], [service])


def test_priority_formula_agrees_with_a_simulated_queue() -> None:
    """200,000 customers of two classes through one server wait as the formula says."""
    rng = np.random.default_rng(3)
    num, waits, counts = 200_000, np.zeros(2), np.zeros(2)
    arrival = np.cumsum(rng.exponential(1 / 0.07, num)).tolist()
    kind = (rng.random(num) < 0.7).astype(int).tolist()
    service = rng.gamma(4.0, 2.5, num).tolist()
    queues: tuple[list[int], list[int]] = ([], [])
    heads, clock, coming = [0, 0], 0.0, 0
    for _ in range(num):
        if heads[0] == len(queues[0]) and heads[1] == len(queues[1]):
            clock = max(clock, arrival[coming])
        while coming < num and arrival[coming] <= clock:
            queues[kind[coming]].append(coming)
            coming += 1
        chosen = 0 if heads[0] < len(queues[0]) else 1
        customer = queues[chosen][heads[chosen]]
        heads[chosen] += 1
        waits[chosen] += clock - arrival[customer]
        counts[chosen] += 1
        clock += service[customer]
    moments = Moments(mean_s=10.0, variance_s2=25.0)
    expected = priority_waits_s([0.3 * 0.07, 0.7 * 0.07], [moments, moments])
    assert waits / counts == pytest.approx(expected, rel=0.05)


def test_flow_distribution_of_the_textbook() -> None:
    """In M/M/1 flow times are exponential with mean 1 / (mu - lambda), waits at load rho times."""
    step_s, num = 0.1, 1 << 14
    person = Pmf.of_service(Exponential(10.0), step_s, num)
    assert person.moments.mean_s == pytest.approx(10.0, rel=1e-6)
    usual = np.fft.rfft(person.mass)
    flow = poisson_flow(0.06, (usual, usual, np.ones_like(usual)), step_s, (0.5, 0.9, 0.99))
    assert flow.flow_s == pytest.approx(25.0, rel=1e-3)
    assert flow.wait_s == pytest.approx(15.0, rel=1e-3)
    quantiles = [-25 * math.log(1 - level) for level in (0.5, 0.9, 0.99)]
    assert flow.flow_quantiles_s == pytest.approx(quantiles, rel=0.01)
    waits = [max(0.0, -25 * math.log((1 - level) / 0.6)) for level in (0.5, 0.9, 0.99)]
    assert flow.wait_quantiles_s == pytest.approx(waits, rel=0.01, abs=0.2)


def test_probabilities_on_a_grid_keep_means() -> None:
    """Times off the grid keep their weighted mean; the larger of two has the enumerated mean."""
    values, weights = np.array([1.23, 4.56, 7.0]), np.array([1.0, 2.0, 1.0])
    pmf = Pmf.of_values(values, weights, 0.01, 2000)
    assert pmf.moments.mean_s == pytest.approx((1.23 + 2 * 4.56 + 7) / 4)
    both = pmf.larger(Pmf.of_service(Lognormal(5.0), 0.01, 2000))
    expected = np.average(Lognormal(5.0).expected_max_s(values), weights=weights)
    assert both.moments.mean_s == pytest.approx(expected, rel=2e-3)


def test_more_never_hurts() -> None:
    """Faster arms and a second person never take longer; apart never beats together."""
    service = Lognormal(18.0)
    two = layout_of(2)
    quick = replace(two.machine.arm, speed_x_mps=3.0, speed_y_mps=1.6)
    slow = analyse(two, service, DEMAND)
    fast = analyse(replace(two, machine=replace(two.machine, arm=quick)), service, DEMAND)
    assert fast.cycle_s < slow.cycle_s
    same, people, apart, _ = (analyse(c, service, DEMAND) for c in candidates(Machine())[1:5])
    assert people.cycle_s < same.cycle_s < apart.cycle_s


def test_demand_of_a_day() -> None:
    """Rate, sizes and wanted cells are those of the orders; manual lines do not count."""
    day = generate_pharmacy(2, num_orders=200, arrivals_per_hour=30, zipf=0.8)
    demand = Demand.of_day(day)
    assert demand.orders_per_hour == pytest.approx(30, rel=0.2)
    assert sum(demand.sizes) == sum(len(order.lines) for order in day.orders)
    assert demand.weights is not None
    assert demand.weights.sum() == sum(demand.sizes)
    assert Demand.of_day(generate_pharmacy(2)).orders_per_hour == 30.0
    popular = analyse(layout_of(1), Lognormal(), demand)
    found = confirm(layout_of(1), Lognormal(), demand, replications=4)
    assert popular.cycle_s == pytest.approx(found.cycle_s.mean, rel=0.03)


@pytest.mark.slow
def test_advice_says_when_a_second_point_pays() -> None:
    """Needed, paying, not paying and no prices: each has its sentence."""

    def verdict(rate: float, cost: float | None = None, wage: float | None = None) -> str:
        demand = Demand(orders_per_hour=rate)
        found = advise(
            Machine(), Lognormal(), demand, cost_per_hour=cost, wage_per_hour=wage
        )  # fmt: skip
        assert "39.8 % off each bin (35.0 to 21.1 s)" in found.sentences[0]
        return found.sentences[1]

    assert verdict(40).startswith("It is needed: one point manages 34 orders an hour")
    assert verdict(90).startswith("It is not enough")
    # 60 bins an hour save 13.93 s each: 836 s, 13.9 minutes, 6.97 at a wage of 30.
    assert "14 minutes" in verdict(20, 5, 30)
    assert "worth 6.97, and costs 5.00: it pays." in verdict(20, 5, 30)
    assert verdict(5, 5, 30).endswith("it does not pay.")
    assert "costs less than 0.23 of their hourly wage" in verdict(20)


@pytest.mark.slow
def test_advice_covers_what_is_asked() -> None:
    """Speeds and dwell points multiply the candidates; simulations come when asked for."""
    seen: list[tuple[int, int]] = []
    found = advise(
        Machine(), Lognormal(), Demand(orders_per_hour=20), speeds=(1.0, 1.5),
        dwells_m=(None, (6.0, 2.0)), replications=2,
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert len(found.figures) == len(found.simulated) == 4 * len(candidates(Machine()))
    assert seen[-1] == (36, 36)
    assert found.figures[-1].layout.name.endswith("1.5 x speed, arm waits at 6, 2 m")
    overload = advise(Machine(), Lognormal(), Demand(orders_per_hour=40))
    assert overload.figures[0].flow is None
    assert len(overload.sentences) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Demand(orders_per_hour=0), "demand: orders_per_hour: expected a number above 0"),
        (lambda: Demand(sizes=()), "demand: sizes: expected numbers of at least 1"),
        (lambda: Demand(sizes=(0,)), "demand: sizes: expected numbers of at least 1"),
        (lambda: Demand(weights=np.array([1.0, 0.0])), "demand: weights: expected"),
        (lambda: confirm(layout_of(1), Fixed(), DEMAND, num_orders=5), "num_orders: expected"),
        (lambda: confirm(layout_of(1), Fixed(), DEMAND, replications=1), "replications: expected"),
        (lambda: advise(Machine(), Fixed(), DEMAND, cost_per_hour=-1), "cost_per_hour: expected"),
        (lambda: advise(Machine(), Fixed(), DEMAND, speeds=(0.0,)), "speeds: expected factors"),
        (lambda: interval([1.0]), "replications: expected at least 2, got 1"),
    ],
)  # fmt: skip
def test_bad_input_is_named(make, message: str) -> None:
    """What is wrong is said with field and range."""
    with pytest.raises(ValueError, match=message):
        make()
