"""The dispensing machine: travel, closed forms, service times and exact timing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.problem import Bin, Line, Order, PharmacyDay
from wardwise.pharmacy.rack import Arm, Machine, Rack, axis_time_s
from wardwise.pharmacy.service_time import (
    Empirical,
    Exponential,
    Fixed,
    Gamma,
    Lognormal,
    Normal,
    ServiceTime,
    Triangular,
    Uniform,
    fit_gamma,
    fit_lognormal,
)
from wardwise.pharmacy.timing import arm_times, simulate
from wardwise.pharmacy.travel import (
    bozer_white,
    cyclic_queue_rate,
    eoq_one_way,
    exact_means,
    popular_first_one_way,
)

SAME_END = ((0.0, 0.0), (0.0, 0.0))
OPPOSITE = ((0.0, 0.0), (12.0, 0.0))
DISTRIBUTIONS: tuple[ServiceTime, ...] = (
    Fixed(7.0), Exponential(), Lognormal(), Gamma(), Normal(), Uniform(), Triangular(),
    Triangular(5, 5, 30), Triangular(5, 30, 30), Empirical((3.0, 5.0, 9.0, 30.0)),
)  # fmt: skip


def test_closed_forms_of_the_literature() -> None:
    """Bozer and White's unit square and b = 0.6; storage by popularity; popularity by EOQ."""
    square, flat = bozer_white(1, 1), bozer_white(0.6, 1)
    assert square.single_command_s == pytest.approx(4 / 3)
    assert square.between_s == pytest.approx(7 / 15)
    assert square.dual_command_s == pytest.approx(9 / 5)
    assert flat.single_command_s == pytest.approx(1.12)
    assert flat.between_s == pytest.approx(0.386133, abs=1e-6)
    assert flat.dual_command_s == pytest.approx(1.506133, abs=1e-6)
    assert popular_first_one_way(1) == pytest.approx(2 / 3)
    assert popular_first_one_way(0.5) == 0.5
    assert eoq_one_way(1) == pytest.approx(2 / 3)


@pytest.mark.parametrize("b", [1.0, 0.6])
def test_closed_forms_agree_with_samples(b: float) -> None:
    """Two million random pairs of places in a continuous rack give the formulas' means."""
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 2, 2_000_000)) * np.array([1.0, b])[:, None, None]
    out_s = np.maximum(x[0], y[0]).mean()
    between_s = np.maximum(abs(x[0] - x[1]), abs(y[0] - y[1])).mean()
    means = bozer_white(1, b)
    assert 2 * out_s == pytest.approx(means.single_command_s, abs=2e-3)
    assert between_s == pytest.approx(means.between_s, abs=1e-3)


def test_default_rack() -> None:
    """Means over all cells of the 40 x 15 rack, and of its cycles with the default service time."""
    machine = Machine()
    means = exact_means(machine)
    assert means.single_command_s == pytest.approx(8.914, abs=1e-3)
    assert means.between_s == pytest.approx(3.074, abs=1e-3)
    cells = np.arange(600)
    cycle_s = machine.cycle_s(0, cells[:, None], cells)[~np.eye(600, dtype=bool)]
    assert cycle_s.mean() == pytest.approx(19.988, abs=1e-3)
    assert cycle_s.std() == pytest.approx(3.268, abs=1e-3)
    assert Lognormal().expected_max_s(cycle_s).mean() == pytest.approx(21.056, abs=1e-3)
    assert cycle_s.mean() + 15 == pytest.approx(34.988, abs=1e-3)
    assert 3 * (2 * means.single_command_s + 8 + 15) == pytest.approx(122.48, abs=0.01)


@pytest.mark.parametrize(
    ("acceleration", "single", "between"), [(1.0, 11.55, 4.35), (0.5, 14.19, 5.59)]
)
def test_accelerations_slow_the_arm(acceleration: float, single: float, between: float) -> None:
    """With 1.0 and 0.5 m/s2 on both axes the means are the reference figures (over all pairs)."""
    arm = Arm(acceleration_x_mps2=acceleration, acceleration_y_mps2=acceleration)
    means = exact_means(Machine(arm=arm))
    assert means.single_command_s == pytest.approx(single, abs=0.005)
    assert means.between_s * 599 / 600 == pytest.approx(between, abs=0.005)


def test_trapezoid_by_hand() -> None:
    """Two metres at 1 m/s and 1 m/s2 take 3 s; a quarter of a metre never reaches the speed."""
    assert axis_time_s([2.0, 0.25, 0.0], 1.0, 1.0).tolist() == [3.0, 1.0, 0.0]
    assert axis_time_s(-3.0, 1.5, None) == 2.0
    sequential = Arm(is_sequential=True, speed_x_mps=1, speed_y_mps=1)
    assert sequential.travel_s(3.0, 4.0) == 7.0
    assert Arm(speed_x_mps=1, speed_y_mps=1).travel_s(3.0, 4.0) == 4.0


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.booleans(), st.sampled_from([None, 0.7]))
def test_travel_is_a_metric(
    columns: int, rows: int, is_sequential: bool, acceleration: float | None
) -> None:
    """Travel is symmetric, zero at home, and without accelerations no detour is shorter."""
    arm = Arm(is_sequential=is_sequential, acceleration_x_mps2=acceleration)
    machine = Machine(rack=Rack(num_columns=columns, num_rows=rows), arm=arm)
    between = machine.between_s
    assert (between == between.T).all()
    assert (np.diag(between) == 0).all()
    if acceleration is None:
        detour = (between[:, :, None] + between[None, :, :]).min(axis=1)
        assert (between <= detour + 1e-12).all()
    mirrored = between.reshape(rows, columns, rows, columns)[:, ::-1, :, ::-1]
    np.testing.assert_allclose(mirrored.reshape(between.shape), between, atol=1e-12)


@pytest.mark.parametrize("service", DISTRIBUTIONS, ids=lambda service: type(service).__name__)
def test_expected_maximum_agrees_with_samples(service: ServiceTime) -> None:
    """A million draws give mean, deviation and E[max(c, P)]; the latter is convex in c."""
    drawn = service.sample((1_000_000,), np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(service.mean_s, abs=0.06)
    assert drawn.std() == pytest.approx(service.sd_s, abs=0.06)
    cycles = np.array([0.0, 2.0, 8.0, 12.0, 16.0, 20.0, 28.0, 40.0])
    expected = service.expected_max_s(cycles)
    for cycle, value in zip(cycles, expected, strict=True):
        assert np.maximum(cycle, drawn).mean() == pytest.approx(value, abs=0.06)
    fine = service.expected_max_s(np.linspace(0, 60, 241))
    slopes = np.diff(fine)
    assert (np.diff(slopes) >= -1e-9).all()
    assert slopes.max() <= 0.25 + 1e-9


def test_expected_maxima_of_the_reference_table() -> None:
    """The table of E[max(c, P)] for five distributions."""
    for service, values in (
        (Lognormal.of_logs(2.79, 0.35), (17.310, 18.582, 30.196)),
        (Exponential(15), (15.748, 20.518, 32.030)),
        (Gamma(15, 0.4), (15.013, 17.362, 30.068)),
        (Normal(15, 0.4), (15.119, 17.394, 30.012)),
    ):
        assert service.expected_max_s([5, 15, 30]) == pytest.approx(values, abs=6e-4)
    assert Uniform().expected_max_s([10, 20]) == pytest.approx([15.625, 20.625])


def test_fits_find_the_distribution_of_a_log() -> None:
    """From 20,000 times both fits find mean and coefficient of variation within 2 %."""
    rng = np.random.default_rng(2)
    lognormal = fit_lognormal(Lognormal(17, 0.34).sample((20_000,), rng))
    gamma = fit_gamma(Gamma(17, 0.34).sample((20_000,), rng))
    for found in (lognormal, gamma):
        assert found.mean_s == pytest.approx(17, rel=0.02)
        assert found.cv == pytest.approx(0.34, rel=0.02)
    for wrong in ([], [1.0], [1.0, 1.0], [1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="samples_s: expected"):
            fit_lognormal(wrong)


def slow_simulation(machine: Machine, cells: list[int], service: list[float]) -> list[float]:
    """Sorted times of one replication, bin by bin, with explicit positions."""
    m, q = machine.num_points, machine.num_pharmacists
    points = [machine.arm.travel_s] and machine.points_m
    centre = machine.rack.centre_m

    def travel(a: tuple[float, float], b: tuple[float, float]) -> float:
        return float(machine.arm.travel_s(a[0] - b[0], a[1] - b[1]))

    position, clock, done = points[0], 0.0, []
    for k, cell in enumerate(cells):
        point, goal = points[k % m], tuple(centre[cell])
        if k >= m:
            old = tuple(centre[cells[k - m]])
            clock = max(clock + travel(position, point), done[k - m])
            clock += travel(point, old) + 2 * machine.arm.handling_s + travel(old, goal)
        else:
            clock += travel(position, goal)
        clock += travel(goal, point) + 2 * machine.arm.handling_s
        position = point
        done.append(max([clock, *([done[k - q]] if k >= q else [])]) + service[k])
    return done


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.integers(0, 599), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_recursion_equals_a_walk_through_the_day(
    m: int, q: int, cells: list[int], seed: int
) -> None:
    """The recursion over precomputed cycles equals a simulation with explicit positions."""
    rng = np.random.default_rng(seed)
    points = tuple((float(x), float(y)) for x, y in rng.uniform(-1, 12, (m, 2)))
    machine = Machine(points_m=points, num_pharmacists=q)
    service = Lognormal().sample((3, len(cells)), rng)
    timeline = simulate(machine, cells, service)
    for r in range(3):
        expected = slow_simulation(machine, cells, service[r].tolist())
        np.testing.assert_allclose(timeline.sorted_s[r], expected, rtol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("q", [1, 2])
def test_replications_side_by_side_are_those_alone(m: int, q: int) -> None:
    """Of nineteen replications, sixteen run abreast: each has the bits that it has alone."""
    rng = np.random.default_rng(m)
    machine = Machine(points_m=(*OPPOSITE, (6.0, 0.0))[:m], num_pharmacists=q)
    cells, service = rng.integers(0, 600, 37), Lognormal().sample((19, 37), rng)
    together = simulate(machine, cells, service)
    for r in range(19):
        alone = simulate(machine, cells, service[r : r + 1])
        assert (together.delivered_s[r] == alone.delivered_s[0]).all()
        assert (together.sorted_s[r] == alone.sorted_s[0]).all()


def test_two_points_at_one_place_run_in_lockstep() -> None:
    """The makespan is the first delivery plus max(cycle, service) of every step, to rounding."""
    rng = np.random.default_rng(3)
    machine = Machine(points_m=SAME_END)
    cells, service = rng.integers(0, 600, 50), Lognormal().sample((4000, 50), rng)
    timeline = simulate(machine, cells, service)
    cycle_s, _ = arm_times(machine, cells)
    steps = np.maximum(np.append(cycle_s[1:], 0.0), service).sum(axis=1)
    np.testing.assert_allclose(timeline.makespan_s, timeline.delivered_s[:, 0] + steps, rtol=1e-13)


def test_one_point_adds_everything_up() -> None:
    """With one point the makespan is the sum of all cycles and all service times."""
    rng = np.random.default_rng(4)
    cells, service = rng.integers(0, 600, 40), Lognormal().sample((100, 40), rng)
    timeline = simulate(Machine(), cells, service)
    cycle_s, _ = arm_times(Machine(), cells)
    np.testing.assert_allclose(timeline.makespan_s, cycle_s.sum() + service.sum(axis=1))


def test_extreme_service_times() -> None:
    """Without service only the arm works; with endless service only the pharmacist counts."""
    rng = np.random.default_rng(5)
    machine, cells = Machine(points_m=SAME_END), rng.integers(0, 600, 30)
    cycle_s, _ = arm_times(machine, cells)
    assert simulate(machine, cells, np.zeros((1, 30))).makespan_s == pytest.approx(cycle_s.sum())
    slow = np.full((1, 30), 1000.0)
    assert simulate(machine, cells, slow).makespan_s == pytest.approx(cycle_s[0] + 30_000)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_more_time_never_ends_earlier(m: int, q: int, seed: int) -> None:
    """Longer service or a slower arm never save time; a person for each point never costs any."""
    rng = np.random.default_rng(seed)
    cells, service = rng.integers(0, 600, 20), Lognormal().sample((1, 20), rng)
    points = tuple((float(x), 0.0) for x in rng.uniform(0, 12, m))

    def makespan(handling_s: float, people: int, extra: np.ndarray) -> float:
        machine = Machine(arm=Arm(handling_s=handling_s), points_m=points, num_pharmacists=people)
        return float(simulate(machine, cells, service + extra).makespan_s[0])

    base = makespan(2.0, q, np.zeros(20))
    assert makespan(2.0, q, rng.random(20) * 5) >= base
    assert makespan(2.5, q, np.zeros(20)) >= base
    # Bins are taken in turn: with fewer people than points, one more may take a bin later.
    assert makespan(2.0, max(q + 1, m), np.zeros(20)) <= base + 1e-9


def test_exponential_places_follow_the_cyclic_queue() -> None:
    """With exponential arm and service times the rate is that of the closed two-station queue."""
    from wardwise.pharmacy.timing import recur

    rng = np.random.default_rng(6)
    n = 400_000
    for m in (1, 2, 4):
        arm_s, service = rng.exponential(20.0, n), rng.exponential(15.0, (1, n))
        delivered, done = np.empty((1, n)), np.empty((1, n))
        recur(arm_s, np.zeros(n), service, m, 1, delivered, done)
        # The queue counts m bins in turn; here the arm waits for the place of its next one.
        expected = cyclic_queue_rate(20.0, 15.0, m)
        assert n / done[0, -1] == pytest.approx(expected, rel=0.01)
    assert cyclic_queue_rate(20, 15, 1) == pytest.approx(1 / 35)


def test_times_of_orders() -> None:
    """An order is complete when the last of its lines is."""
    service = np.full((1, 5), 3.0)
    timeline = simulate(Machine(), [1, 2, 3, 4, 5], service)
    done = timeline.sorted_s[0]
    assert timeline.completed_s([2, 3]).tolist() == [[done[1], done[4]]]


def test_generated_days_repeat_and_are_as_asked() -> None:
    """The same seed gives the same day; popular drugs are asked for more often."""
    day = generate_pharmacy(7, num_orders=300, zipf=0.8, arrivals_per_hour=60)
    assert day == generate_pharmacy(7, num_orders=300, zipf=0.8, arrivals_per_hour=60)
    assert {len(order.lines) for order in day.orders} == {1, 2, 3, 4, 5}
    wanted = [int(line.drug[1:]) for order in day.orders for line in order.lines]
    assert np.median(wanted) < 250
    assert all(a.release_s < b.release_s for a, b in zip(day.orders, day.orders[1:], strict=False))
    assert len(day.cells_of(day.orders[0])) == len(day.orders[0].lines)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rack(num_rows=0), "rack: num_rows: expected at least 1, got 0"),
        (lambda: Rack(row_pitch_m=-1), "rack: row_pitch_m: expected a finite number above 0"),
        (lambda: Arm(speed_x_mps=0), "arm: speed_x_mps: expected a finite number above 0, got 0"),
        (lambda: Arm(capacity=0), "arm: capacity: expected at least 1"),
        (lambda: Machine(points_m=()), "machine: points_m: expected at least one point"),
        (lambda: Machine(points_m=((0.0, np.nan),)), "points_m: point 1: expected two finite"),
        (lambda: Machine(num_pharmacists=0), "num_pharmacists: expected at least 1"),
        (lambda: Lognormal(-1), "lognormal: mean_s: expected a finite number above 0"),
        (lambda: Uniform(5, 5), "uniform: low_s, high_s"),
        (lambda: Triangular(5, 4, 8), "triangular: low_s, mode_s, high_s"),
        (lambda: Empirical(()), "empirical: samples_s: expected at least one"),
        (lambda: Normal(15, 0.9), "normal: cv: expected at most 0.4"),
        (lambda: Order(id="a", lines=()), "order a: lines: expected at least one"),
        (lambda: Line(drug="x", quantity=0), "line x: quantity: expected at least 1, got 0"),
        (lambda: Bin(id="b", drug="x", cell=-1), "bin b: cell: expected at least 0, got -1"),
        (
            lambda: PharmacyDay(bins=(Bin(id="b", drug="x", cell=600),), orders=()),
            "bin b: cell: expected 0 to 599, got 600",
        ),
        (
            lambda: PharmacyDay(
                bins=(Bin(id="b", drug="x", cell=1),),
                orders=(Order(id="o", lines=(Line(drug="y"),)),),
            ),
            "order o: drug: 'y' is in no bin",
        ),
        (lambda: simulate(Machine(), [1, 2], np.ones((1, 3))), "service_s: expected shape"),
        (lambda: simulate(Machine(), [600], np.ones((1, 1))), "cells: expected 0 to 599"),
        (lambda: generate_pharmacy(num_orders=0), "num_orders: expected at least 1"),
        (lambda: bozer_white(0, 0), "not both 0"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(make: object, message: str) -> None:
    """Each message names the field and its range."""
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
