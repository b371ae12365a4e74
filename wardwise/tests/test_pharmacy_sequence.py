"""In which sequence a dispensing machine fetches bins: exact, by windows, by search, by rule."""

from __future__ import annotations

from datetime import date
from itertools import pairwise, permutations, product
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.pharmacy.baselines import at_random, greedy
from wardwise.pharmacy.chain import Packed, best_chain, pack
from wardwise.pharmacy.costs import Costs, costs_of
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.local_search import improve
from wardwise.pharmacy.problem import Bin, Line, Order, PharmacyDay
from wardwise.pharmacy.rack import Machine, Rack
from wardwise.pharmacy.sequence import METHODS, sequence, usable_bins
from wardwise.pharmacy.service_time import Exponential, Fixed, Lognormal, ServiceTime, Uniform
from wardwise.pharmacy.timing import simulate
from wardwise.pharmacy.windows import disjoint, isolated, rolling

ONE = ((0.0, 0.0),)
SAME_END = ((0.0, 0.0), (0.0, 0.0))
OPPOSITE = ((0.0, 0.0), (12.0, 0.0))
LAYOUTS = {"one": ONE, "same end": SAME_END, "opposite ends": OPPOSITE}
layouts = pytest.mark.parametrize("points_m", LAYOUTS.values(), ids=LAYOUTS)
PROGRAMS = ("highs", "cp-sat")


def of_cells(points_m, orders, service: ServiceTime | None = None) -> tuple[Costs, Packed]:
    """Costs and packed orders, from lists of lines of cells."""
    packed = pack(orders)
    costs = costs_of(Machine(points_m=points_m), service or Lognormal(), packed.node)
    return costs, packed._replace(node=costs.nodes_of(packed.node))


def random_orders(rng: np.random.Generator, sizes, bins: int = 1) -> list[list[list[int]]]:
    """Orders of these sizes, each line with some cells of its own."""
    return [
        rng.choice(600, n * bins, replace=False).reshape(n, bins).tolist() for n in sizes
    ]  # fmt: skip


def all_sequences(packed: Packed) -> np.ndarray:
    """Every sequence of candidates, shape (sequences, lines)."""
    parts = []
    for low, high in pairwise(packed.start.tolist()):
        lines = [
            [c for c in range(low, high) if packed.line[c] == line]
            for line in range(packed.line[low:high].max() + 1)
        ]
        parts.append([way for choice in product(*lines) for way in permutations(choice)])
    return np.array([sum(way, ()) for way in product(*parts)])


def least_cost(costs: Costs, packed: Packed, standing, position: int, following) -> float:
    """Cost of the cheapest of all sequences, counted pair by pair."""
    m, nodes = costs.num_points, packed.node[all_sequences(packed)]
    rows = len(nodes)
    whole = np.hstack(
        [np.tile(standing, (rows, 1)), nodes, np.tile(following, (rows, 1)).reshape(rows, -1)]
    ).astype(int)
    total = np.zeros(rows)
    for p in range(m, whole.shape[1]):
        total += costs.pair_s[(p - m + position) % m, whole[:, p - m], whole[:, p]]
    return float(total.min())


@layouts
@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))
def test_chain_is_as_good_as_the_best_of_all_sequences(points_m, seed, num, after, bins) -> None:
    """Up to three orders of three lines, anything before and after, one or two bins a line."""
    rng = np.random.default_rng(seed)
    orders = random_orders(rng, rng.integers(1, 4 - (bins - 1), num), bins)
    costs, packed = of_cells(points_m, orders)
    m = costs.num_points
    standing = rng.integers(0, costs.any_bin + 1, m)
    following = rng.integers(0, len(costs.cells), min(after, m))
    position = int(rng.integers(0, 2))
    found, cost = best_chain(
        costs, packed, standing=standing.tolist(), position=position, following=following.tolist()
    )
    assert cost == pytest.approx(least_cost(costs, packed, standing, position, following))
    if not position and not after:
        assert costs.of_pairs(packed.node[found], standing).sum() == pytest.approx(cost)
    lines = [
        (k, packed.line[c])
        for k in range(num)
        for c in found
        if packed.start[k] <= c < packed.start[k + 1]
    ]
    assert len(set(lines)) == packed.num_lines


@layouts
def test_large_orders_are_exact_too(points_m) -> None:
    """Eight lines: the best of all 40,320 sequences; thirteen lines are no worse than a search."""
    rng = np.random.default_rng(3)
    costs, packed = of_cells(points_m, random_orders(rng, [8]))
    empty = [costs.empty] * costs.num_points
    found, cost = best_chain(costs, packed)
    assert cost == pytest.approx(least_cost(costs, packed, empty, 0, []))
    costs, packed = of_cells(points_m, random_orders(rng, [13]))
    found, cost = best_chain(costs, packed)
    assert sorted(found) == list(range(13))
    assert cost <= costs.of_pairs(packed.node[improve(costs, packed)]).sum() + 1e-9


def test_an_unknown_bin_costs_the_mean() -> None:
    """Before an order that is looked at alone, any bin may stand: the mean over all of them."""
    for points_m in LAYOUTS.values():
        costs, _ = of_cells(points_m, [[[3], [77]], [[400]]])
        for point in range(costs.num_points):
            expected = costs.pair_s[point, :3].mean(axis=0)
            assert costs.pair_s[point, costs.any_bin] == pytest.approx(expected)
        assert (costs.pair_s[:, costs.free] == 0).all()


@layouts
def test_horizon_as_one_window_is_the_chain(points_m) -> None:
    """A hundred orders: a rolling and a disjoint window over all of them give the optimum."""
    costs, packed = of_cells(
        points_m, random_orders(np.random.default_rng(0), [1, 2, 3, 4, 5] * 20)
    )
    _, cost = best_chain(costs, packed)
    for found in (rolling(costs, packed, 100), disjoint(costs, packed, 100)):
        assert costs.of_pairs(packed.node[found]).sum() == pytest.approx(cost)


@layouts
def test_more_look_ahead_is_better_on_average(points_m) -> None:
    """Chain, rolling and disjoint pairs, conditioned, isolated, random: each beats the next."""
    names = ("chain", "rolling", "disjoint", "conditioned", "isolated", "random")
    days = [
        generate_pharmacy(seed, num_orders=100, machine=Machine(points_m=points_m))
        for seed in range(4)
    ]
    cost = {name: mean(sequence(day, method=name).objective_s for day in days) for name in names}
    for better, worse in pairwise(names):
        assert cost[better] < cost[worse]


@pytest.mark.parametrize(
    ("points_m", "random_s", "gain"),
    [(ONE, 107.2, 2.67), (SAME_END, 64.5, 3.86), (OPPOSITE, 85.8, 11.1)],
    ids=LAYOUTS,
)
def test_gain_of_the_chain_is_that_of_the_reference_study(points_m, random_s, gain) -> None:
    """Seconds an order at random, and per cent that the chain saves; five days of 200 orders."""
    days = [
        generate_pharmacy(seed, num_orders=200, machine=Machine(points_m=points_m))
        for seed in range(5)
    ]
    at_random_s = [sequence(day, method="random").seconds_per_order for day in days]
    chain_s = [sequence(day).seconds_per_order for day in days]
    assert mean(at_random_s) == pytest.approx(random_s, abs=2.5)
    assert 100 * (1 - mean(chain_s) / mean(at_random_s)) == pytest.approx(gain, abs=0.6)


def test_with_one_point_the_service_time_does_not_matter() -> None:
    """Whatever the distribution, the best sequence for one point is the same."""
    plans = [
        sequence(generate_pharmacy(5, num_orders=40, service=service)).cells
        for service in (Lognormal(), Exponential(40), Fixed(3), Uniform())
    ]
    assert all(cells == plans[0] for cells in plans)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in PROGRAMS])
@layouts
def test_objective_is_the_makespan_where_nothing_is_left_to_luck(points_m, method) -> None:
    """With fixed service times: equal for one place, an upper bound for points apart."""
    machine = Machine(points_m=points_m)
    day = generate_pharmacy(2, num_orders=15, machine=machine, service=Fixed(14.0))
    plan = sequence(day, method=method, replications=1)
    if points_m == OPPOSITE:
        assert not plan.is_expectation
        assert plan.makespan_s <= plan.objective_s + 1e-9
    else:
        assert plan.is_expectation
        assert plan.objective_s == pytest.approx(plan.makespan_s)
    if method != "single-command":
        service_s = np.full((1, len(plan.steps)), 14.0)
        assert simulate(machine, plan.cells, service_s).makespan_s[0] == pytest.approx(
            plan.makespan_s
        )


@pytest.mark.parametrize("method", [name for name in METHODS if name not in PROGRAMS])
def test_plans_serve_every_line_once_order_by_order(method) -> None:
    """Orders stay together and in their sequence; points take turns; times go up."""
    day = generate_pharmacy(7, num_orders=12, machine=Machine(points_m=OPPOSITE))
    plan = sequence(day, method=method, seed=4)
    assert plan == sequence(day, method=method, seed=4)
    place = 0
    for order in day.orders:
        steps = plan.steps[place : place + len(order.lines)]
        assert {step.order for step in steps} == {order.id}
        assert sorted(step.drug for step in steps) == sorted(line.drug for line in order.lines)
        place += len(steps)
    assert place == len(plan.steps)
    assert [step.point for step in plan.steps] == [k % 2 for k in range(place)]
    for step, after in pairwise(plan.steps):
        assert step.delivered_s < step.sorted_s <= after.sorted_s
        assert (
            step.sorted_quantiles_s[0] <= step.sorted_quantiles_s[1] <= step.sorted_quantiles_s[2]
        )
    assert plan.steps[-1].sorted_s == pytest.approx(plan.makespan_s)
    assert plan.seconds_per_order == pytest.approx(plan.makespan_s / 12)


def test_single_commands_by_hand() -> None:
    """Two bins, 1 s and 3 s away, 2 s a handling, 10 s to sort: 6 + 10 + (2 + 6 + 8) + 10 s."""
    machine = Machine(
        rack=Rack(num_columns=4, num_rows=1, column_pitch_m=1.5, row_pitch_m=1e-6),
        points_m=((-0.75, 0.0),),
    )
    bins = tuple(Bin(id=f"B{c}", drug=f"D{c}", cell=c) for c in range(4))
    order = Order(id="a", lines=(Line(drug="D0"), Line(drug="D2")))
    day = PharmacyDay(machine=machine, bins=bins, orders=(order,), service=Fixed(10.0))
    assert sequence(day, method="single-command").makespan_s == pytest.approx(42.0)
    # Dual command saves the way home between D0 and D2: 1 + 2 + 3 + 8 s instead of 16 s.
    assert sequence(day, method="first-come").makespan_s == pytest.approx(40.0)


@pytest.mark.slow
def test_cart_in_one_row_is_swept_from_near_to_far() -> None:
    """40 bins in a row: nothing beats one sweep that ends at the farthest, and it is found."""
    machine = Machine(rack=Rack(num_columns=60, num_rows=1))
    cells = np.random.default_rng(2).choice(60, 40, replace=False)
    costs = costs_of(machine, Lognormal(), cells)
    packed = pack([[[int(costs.nodes_of(cell))] for cell in cells]])
    found = improve(costs, packed)
    assert (np.diff(costs.cells[packed.node[found]]) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("points_m", [*LAYOUTS.values(), (*SAME_END, (6.0, 0.0))])
def test_search_on_carts_beats_the_greedy_sequence(points_m) -> None:
    """Carts of 14 to 40 lines between small orders; every line stays in its order."""
    rng = np.random.default_rng(8)
    costs, packed = of_cells(points_m, random_orders(rng, [20, 3, 2, 14, 1, 40]))
    start = greedy(costs, packed)
    found = improve(costs, packed, start, kicks=3)
    ends = np.cumsum(packed.size)
    for low, high, first, last in zip(
        ends - packed.size, ends, packed.start[:-1], packed.start[1:], strict=True
    ):
        assert sorted(found[low:high]) == list(range(first, last))
    old, new = (costs.of_pairs(packed.node[way]).sum() for way in (start, found))
    assert new < 0.995 * old


@pytest.mark.parametrize("seed", range(5))
def test_search_finds_the_best_sequence_for_three_points(seed: int) -> None:
    """Three points, two orders of four lines: the best of all 576 sequences by pair costs."""
    rng = np.random.default_rng(seed)
    costs, packed = of_cells((*SAME_END, (0.0, 0.0)), random_orders(rng, [4, 4]))
    best = least_cost(costs, packed, [costs.empty] * 3, 0, [])
    found = improve(costs, packed, at_random(packed, rng))
    assert costs.of_pairs(packed.node[found]).sum() == pytest.approx(best)


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_a_further_line_never_saves_travel_with_one_point(seed: int) -> None:
    """Triangle inequality: the optimum with a line more is not below the one without."""
    rng = np.random.default_rng(seed)
    orders = random_orders(rng, rng.integers(2, 6, 3))
    costs, packed = of_cells(ONE, orders)
    shorter = [list(order) for order in orders]
    shorter[1].pop()
    fewer = pack(
        [[[int(costs.nodes_of(cell)) for cell in line] for line in order] for order in shorter]
    )
    assert best_chain(costs, fewer)[1] <= best_chain(costs, packed)[1] + 1e-9


@layouts
def test_more_bins_to_choose_from_never_hurt(points_m) -> None:
    """With a second bin for every drug the best sequence is at least as short."""
    orders = random_orders(np.random.default_rng(4), [3, 2, 4, 1, 5], bins=2)
    both = of_cells(points_m, orders)
    first = of_cells(points_m, [[line[:1] for line in order] for order in orders])
    assert best_chain(*both)[1] < best_chain(*first)[1]
    blind = isolated(*both)
    assert len(blind) == 15


def test_bins_are_chosen_among_those_that_will_do() -> None:
    """Recalled, nearly empty and expiring bins are left; of the others the near one is taken."""
    bins = (
        Bin(id="far", drug="X", cell=39), Bin(id="recalled", drug="X", cell=0, is_recalled=True),
        Bin(id="few", drug="X", cell=1, quantity=1),
        Bin(id="old", drug="X", cell=2, expiry=date(2026, 1, 1)),
        Bin(id="near", drug="X", cell=3, expiry=date(2027, 1, 1)),
        Bin(id="later", drug="X", cell=38, expiry=date(2028, 1, 1)),
    )  # fmt: skip
    line = Line(drug="X", quantity=2, min_expiry=date(2026, 6, 1))
    day = PharmacyDay(bins=bins, orders=(Order(id="a", lines=(line,)),))
    assert [bin_.id for bin_ in usable_bins(day, line)] == ["near", "later"]
    assert sequence(day).steps[0].bin == "near"
    assert sequence(day, choose_bins=False).steps[0].bin == "near"
    none = PharmacyDay(bins=bins[1:3], orders=day.orders)
    with pytest.raises(ValueError, match="line X: expected a bin with 2 packs"):
        sequence(none)


def test_a_bin_that_is_wanted_again_stays() -> None:
    """Two orders for the same drug: keeping the bin saves storing and fetching it again."""
    day = PharmacyDay(
        bins=(Bin(id="B", drug="X", cell=0), Bin(id="C", drug="Y", cell=300)),
        orders=(
            Order(id="a", lines=(Line(drug="X"), Line(drug="Y"))),
            Order(id="b", lines=(Line(drug="X"),)),
        ),
        service=Fixed(10.0),
    )  # fmt: skip
    kept, stored = sequence(day, keep_bins=True), sequence(day)
    assert [step.drug for step in kept.steps] == ["Y", "X", "X"]
    cycle_s = float(day.machine.cycle_s(0, 0, 0))
    assert kept.makespan_s == pytest.approx(stored.makespan_s - cycle_s)
    assert kept.objective_s == pytest.approx(kept.makespan_s)
    with pytest.raises(ValueError, match="keeps_bins: expected a machine with one I/O point"):
        sequence(generate_pharmacy(machine=Machine(points_m=SAME_END)), keep_bins=True)


def test_lines_taken_by_hand_are_left_out() -> None:
    """Manual lines have no step; a day of nothing else has an empty plan."""
    by_hand = Line(drug="insulin", is_manual=True, manual_s=60)
    bins = (Bin(id="B", drug="X", cell=7),)
    mixed = PharmacyDay(bins=bins, orders=(Order(id="a", lines=(by_hand, Line(drug="X"))),))
    assert [step.drug for step in sequence(mixed).steps] == ["X"]
    manual = PharmacyDay(bins=bins, orders=(Order(id="a", lines=(by_hand,)),))
    for method in METHODS:
        plan = sequence(manual, method=method)
        assert plan.steps == ()
        assert plan.makespan_s == plan.objective_s == plan.seconds_per_order == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method: expected one of chain"),
        ({"method": "rolling", "window": 0}, "window: expected at least 1, got 0"),
        ({"replications": 0}, "replications: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"method": "cp-sat", "time_limit": 0.0}, "time_limit: expected a finite number above 0"),
    ],
)
def test_bad_options_are_named(options, message) -> None:
    """A wrong option is refused with its name and range."""
    with pytest.raises(ValueError, match=message):
        sequence(generate_pharmacy(num_orders=2), **options)


def test_bad_input_of_the_engines_is_named() -> None:
    """Three points, empty orders, huge orders, cells outside of the rack, unknown rules."""
    orders = random_orders(np.random.default_rng(0), [20])
    with pytest.raises(ValueError, match="order 1 has 20, too many"):
        best_chain(*of_cells(ONE, orders))
    with pytest.raises(ValueError, match="expected one or two points, got 3"):
        best_chain(*of_cells((*SAME_END, (1.0, 0.0)), [[[1]]]))
    with pytest.raises(ValueError, match="order 2: expected lines with at least one bin"):
        pack([[[1]], [[]]])
    with pytest.raises(ValueError, match="cells: expected 0 to 599, got 3 to 600"):
        costs_of(Machine(), Lognormal(), [3, 600])
    with pytest.raises(ValueError, match="rule: expected 'nearest'"):
        greedy(*of_cells(ONE, orders), "best")
