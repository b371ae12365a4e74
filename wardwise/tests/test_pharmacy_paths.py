"""Wider problems of the machine: free sequences, pairs of jobs, tours, storage."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from wardwise.pharmacy.chain import best_chain, pack
from wardwise.pharmacy.costs import costs_of
from wardwise.pharmacy.free_orders import arrange, free_orders
from wardwise.pharmacy.interleaved import free_sequence
from wardwise.pharmacy.multi_pick import multi_pick
from wardwise.pharmacy.pairing import pair_jobs, pair_shared
from wardwise.pharmacy.paths import length_of, nearest_neighbour, shortest_path
from wardwise.pharmacy.rack import Arm, Machine, Rack
from wardwise.pharmacy.service_time import Lognormal
from wardwise.pharmacy.storage import (
    by_correlation,
    by_popularity,
    demand_of,
    expected_travel_s,
)

ONE = ((0.0, 0.0),)
SAME_END = ((0.0, 0.0), (0.0, 0.0))
OPPOSITE = ((0.0, 0.0), (12.0, 0.0))
# Reference study: travel as given, by nearest neighbour, and by LKH, for n bins.
PATHS = {
    10: (27.78, 18.00, 13.46), 20: (51.55, 18.34, 15.56), 50: (143.8, 34.88, 31.35),
    100: (302.1, 56.44, 41.83),
}  # fmt: skip


def reference_cells(n: int) -> np.ndarray:
    """Cells of the reference study's path of n bins."""
    return np.random.default_rng(1000 + n).permutation(600)[:n]


def distance_of(cells) -> np.ndarray:
    """Travel between cells of the default rack."""
    return Machine().between_s[np.ix_(cells, cells)]


@pytest.mark.parametrize("n", PATHS)
def test_paths_of_the_reference_study(n: int) -> None:
    """As given, nearest neighbour, and a path no longer than that of LKH, in 5,000 kicks."""
    distance = distance_of(reference_cells(n))
    given_s, nearest_s, lkh_s = PATHS[n]
    assert length_of(distance, range(n)) == pytest.approx(given_s, rel=5e-4)
    assert length_of(distance, nearest_neighbour(distance)) == pytest.approx(nearest_s, abs=0.01)
    path = shortest_path(distance, max_kicks=5000, time_limit=60)
    assert sorted(path) == list(range(n))
    assert length_of(distance, path) <= lkh_s * 1.004


@pytest.mark.parametrize("n", [10, 20])
def test_short_paths_are_proven_best_by_cp_sat(n: int) -> None:
    """A circuit through the bins and a node at no distance, solved to the optimum by CP-SAT."""
    from ortools.sat.python import cp_model

    distance = distance_of(reference_cells(n))
    closed = np.zeros((n + 1, n + 1))
    closed[:n, :n] = distance
    model = cp_model.CpModel()
    arcs = [(i, j, model.new_bool_var("")) for i in range(n + 1) for j in range(n + 1) if i != j]
    model.add_circuit(arcs)
    model.minimize(sum(round(1e6 * closed[i, j]) * arc for i, j, arc in arcs))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(model) == cp_model.OPTIMAL
    path = shortest_path(distance, max_kicks=2000, time_limit=60)
    assert length_of(distance, path) == pytest.approx(solver.objective_value / 1e6, abs=1e-4)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 7), st.booleans())
def test_paths_are_as_short_as_the_best_of_all(seed: int, n: int, is_fixed: bool) -> None:
    """Up to seven random cells, with the first one given or not: all sequences tried."""
    rng = np.random.default_rng(seed)
    distance = distance_of(rng.choice(600, n, replace=False))
    start = int(rng.integers(n)) if is_fixed and n else None
    path = shortest_path(distance, start=start, max_kicks=300, time_limit=60)
    ways = [way for way in permutations(range(n)) if start in (None, way[0] if way else None)]
    assert sorted(path) == list(range(n))
    assert length_of(distance, path) == pytest.approx(min(length_of(distance, w) for w in ways))
    assert start is None or path[0] == start


def test_same_seed_same_path() -> None:
    """Limited by kicks, the search repeats itself bit for bit."""
    distance = distance_of(reference_cells(200))
    one, two = (shortest_path(distance, max_kicks=500, time_limit=60, seed=3) for _ in range(2))
    assert (one == two).all()


@pytest.mark.parametrize("points_m", [ONE, SAME_END, OPPOSITE, (*OPPOSITE, (6.0, 0.0))])
@pytest.mark.parametrize("is_start_free", [False, True])
def test_free_sequences_are_the_best_of_all(points_m, is_start_free) -> None:
    """Seven bins, one to three points: none of the 5,040 sequences costs less."""
    cells = np.random.default_rng(5).choice(600, 7, replace=False)
    costs = costs_of(Machine(points_m=points_m), Lognormal(), cells)
    standing = [costs.free if is_start_free else costs.empty] * costs.num_points
    least = min(costs.of_pairs(way, standing).sum() for way in permutations(range(7)))
    found = free_sequence(costs, range(7), is_start_free=is_start_free)
    assert costs.of_pairs(found, standing).sum() == pytest.approx(least)


@pytest.mark.slow
@pytest.mark.parametrize("points_m", [SAME_END, OPPOSITE])
def test_free_sequences_match_pyvrp(points_m) -> None:
    """Fifty bins in two paths: not longer than PyVRP's routes by more than 0.1 per cent."""
    cells = reference_cells(50)
    costs = costs_of(Machine(points_m=points_m), Lognormal(), cells)
    nodes = costs.nodes_of(cells)
    ours = costs.of_pairs(free_sequence(costs, nodes)).sum()
    theirs = free_sequence(costs, nodes, method="pyvrp", time_limit=2.0)
    assert sorted(theirs) == sorted(nodes)
    assert ours <= 1.001 * costs.of_pairs(theirs).sum()
    assert ours < 0.95 * costs.of_pairs(nodes).sum()


@pytest.mark.slow
def test_two_paths_of_the_reference_study() -> None:
    """A hundred bins, arcs w(c): as given, and at most the reference study's best plus 0.1 %."""
    cells = reference_cells(100)
    costs = costs_of(Machine(points_m=SAME_END), Lognormal(), cells)
    nodes, free = costs.nodes_of(cells), [costs.free] * 2
    assert costs.of_pairs(nodes, free).sum() == pytest.approx(2084.69, abs=0.01)
    found = free_sequence(costs, nodes, is_start_free=True)
    assert costs.of_pairs(found, free).sum() <= 1.001 * 1899.43


@pytest.mark.slow
@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_freedom_never_costs(seed: int) -> None:
    """Lines of all orders mixed <= sequence of orders free <= orders as they came."""
    rng = np.random.default_rng(seed)
    packed = pack(
        [rng.choice(600, rng.integers(1, 4), replace=False)[:, None].tolist() for _ in range(3)]
    )
    costs = costs_of(Machine(), Lognormal(), packed.node)
    packed = packed._replace(node=costs.nodes_of(packed.node))
    _, fixed = best_chain(costs, packed)
    _, found, free = free_orders(costs, packed, tries=60)
    mixed = costs.of_pairs(free_sequence(costs, packed.node, moves=60_000)).sum()
    assert costs.of_pairs(packed.node[found]).sum() == pytest.approx(free)
    assert mixed <= free + 1e-9 <= fixed + 2e-9


@pytest.mark.parametrize("points_m", [ONE, OPPOSITE])
def test_free_orders_are_the_best_of_all_sequences(points_m) -> None:
    """Five orders: each of the 120 sequences of orders, with its lines sequenced exactly."""
    rng = np.random.default_rng(3)
    packed = pack([rng.choice(600, n, replace=False)[:, None].tolist() for n in (2, 1, 4, 3, 2)])
    costs = costs_of(Machine(points_m=points_m), Lognormal(), packed.node)
    packed = packed._replace(node=costs.nodes_of(packed.node))
    least = min(
        best_chain(costs, arrange(packed, np.array(way))[0])[1] for way in permutations(range(5))
    )
    orders, found, total = free_orders(costs, packed, tries=500)
    assert total == pytest.approx(least)
    assert sorted(orders) == list(range(5))
    assert sorted(found) == list(range(12))


def test_pairs_are_an_assignment() -> None:
    """Equal lists: SciPy's assignment on the travel between; every rule is at least as long."""
    machine = Machine()
    rng = np.random.default_rng(1)
    stored, retrieved = rng.choice(600, 80, replace=False), rng.choice(600, 80, replace=False)
    between = machine.between_s[np.ix_(stored, retrieved)]
    row, column = linear_sum_assignment(between)
    to_and_from = machine.reach_s[0, stored].sum() + machine.reach_s[0, retrieved].sum()
    best = pair_jobs(machine, stored, retrieved)
    assert best.is_optimal
    assert best.travel_s == pytest.approx(between[row, column].sum() + to_and_from)
    for method in ("nearest", "perimeter", "first-come"):
        pairs = pair_jobs(machine, stored, retrieved, method=method)
        assert sorted(pairs.stored) == sorted(stored)
        assert sorted(pairs.retrieved) == sorted(retrieved)
        assert pairs.travel_s > best.travel_s
        assert not pairs.is_optimal


@pytest.mark.parametrize(("num_stored", "num_retrieved"), [(3, 5), (5, 3), (4, 4), (0, 3)])
def test_jobs_without_a_partner_go_alone(num_stored: int, num_retrieved: int) -> None:
    """Lists of different length: all ways to pair tried, the rest as single commands."""
    machine = Machine(points_m=OPPOSITE)
    rng = np.random.default_rng(2)
    stored, retrieved = rng.choice(600, num_stored), rng.choice(600, num_retrieved)
    reach, between = machine.reach_s[1], machine.between_s
    count = min(num_stored, num_retrieved)

    def travel_s(some, others) -> float:
        pairs = sum(reach[a] + between[a, b] + reach[b] for a, b in zip(some, others, strict=True))
        rest = reach[stored].sum() + reach[retrieved].sum() - reach[list(some)].sum()
        return float(pairs + 2 * (rest - reach[list(others)].sum()))

    least = min(
        travel_s(some, others)
        for some in permutations(stored.tolist(), count)
        for others in permutations(retrieved.tolist(), count)
    )
    assert pair_jobs(machine, stored, retrieved, point=1).travel_s == pytest.approx(least)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 2))
def test_shared_storage_is_the_best_of_all_plans(seed: int, n: int, num_open: int) -> None:
    """Up to five retrievals in any sequence, each load into any cell that is open by then."""
    machine = Machine()
    cells = np.random.default_rng(seed).choice(600, n + num_open, replace=False).tolist()
    retrieved, opens = cells[:n], cells[n:]
    reach, between = machine.reach_s[0], machine.between_s

    def least(left: frozenset[int], places: frozenset[int]) -> float:
        if not left:
            return 0.0
        return min(
            reach[place] + between[place, cell] + reach[cell]
            + least(left - {cell}, places - {place} | {cell})
            for cell in left for place in places
        )  # fmt: skip

    pairs = pair_shared(machine, retrieved, opens)
    assert pairs.is_optimal
    assert pairs.travel_s == pytest.approx(least(frozenset(retrieved), frozenset(opens)))
    is_open = set(opens)
    for place, cell in zip(pairs.stored.tolist(), pairs.retrieved.tolist(), strict=True):
        is_open.remove(place)
        is_open.add(cell)


def test_shared_storage_of_many_jobs_is_near_its_bound() -> None:
    """Sixty retrievals and three open cells: within one per cent of the assignment's bound."""
    cells = np.random.default_rng(0).choice(600, 63, replace=False)
    pairs = pair_shared(Machine(), cells[:60], cells[60:], max_nodes=50)
    assert pairs.bound_s <= pairs.travel_s <= 1.01 * pairs.bound_s
    assert sorted(pairs.retrieved) == sorted(cells[:60])


@pytest.mark.slow
def test_arm_for_several_bins() -> None:
    """Capacity 1: there and back for each bin; 2 and 3: no way to form tours is shorter."""
    cells = np.random.default_rng(4).choice(600, 6, replace=False)
    reach, between = Machine().reach_s[0], Machine().between_s

    def travel_s(way, sizes) -> float:
        total, at = 0.0, 0
        for size in sizes:
            tour = way[at : at + size]
            legs = sum(between[a, b] for a, b in pairwise(tour))
            total, at = total + reach[tour[0]] + legs + reach[tour[-1]], at + size
        return float(total)

    assert multi_pick(Machine(), cells)[1] == pytest.approx(2 * reach[cells].sum())
    ways = list(permutations(cells.tolist()))
    for capacity, splits in ((2, [(2, 2, 2)]), (3, [(3, 3), (2, 2, 2), (3, 2, 1), (1, 2, 3)])):
        tours, total = multi_pick(Machine(arm=Arm(capacity=capacity)), cells)
        assert max(map(len, tours)) <= capacity
        assert sorted(cell for tour in tours for cell in tour) == sorted(cells)
        assert total == pytest.approx(min(travel_s(way, sizes) for way in ways for sizes in splits))
    assert multi_pick(Machine(), []) == ([], 0.0)


def small_demand():
    """A rack of 30 cells, drugs at random in it, and 300 orders with popular pairs."""
    machine = Machine(rack=Rack(num_columns=6, num_rows=5, column_pitch_m=1.0, row_pitch_m=1.0))
    rng = np.random.default_rng(7)
    share = np.arange(1, 31) ** -0.8
    orders = [
        rng.choice(30, rng.integers(1, 5), replace=False, p=share / share.sum()).tolist()
        for _ in range(300)
    ]
    orders = [[*order, order[0] ^ 1] if order[0] ^ 1 not in order else order for order in orders]
    return machine, orders, demand_of(orders, 30), rng.permutation(30)


def test_popular_drugs_go_to_the_nearest_cells() -> None:
    """The assignment of least travel to and from the point, as SciPy finds it."""
    machine, _, demand, cells = small_demand()
    storage = by_popularity(machine, demand, cells)
    ways = np.outer(demand.lines, machine.reach_s[0])
    row, column = linear_sum_assignment(ways)
    assert sorted(storage.cells) == list(range(30))
    assert demand.lines @ machine.reach_s[0, storage.cells] == pytest.approx(
        ways[row, column].sum()
    )
    assert 0 < storage.gain < 1
    assert storage.num_moved == (storage.cells != cells).sum()


def test_drugs_of_the_same_orders_come_together() -> None:
    """Better than by popularity alone, and no exchange of two drugs helps any more."""
    machine, _, demand, cells = small_demand()
    popular, together = (way(machine, demand, cells) for way in (by_popularity, by_correlation))
    assert together.after_s < popular.after_s < popular.before_s
    assert together.before_s == popular.before_s
    for a in range(30):
        for b in range(a):
            changed = together.cells.copy()
            changed[[a, b]] = changed[[b, a]]
            assert expected_travel_s(machine, demand, changed) >= together.after_s - 1e-6


def test_expected_travel_is_the_mean_of_random_sequences() -> None:
    """Lines of each order shuffled 400 times and driven; the first and last leg count apart."""
    machine, orders, demand, cells = small_demand()
    rng = np.random.default_rng(1)
    reach, totals = machine.reach_s[0], []
    for _ in range(400):
        visits = cells[np.concatenate([rng.permutation(order) for order in orders])]
        totals.append(2 * reach[visits].sum() + machine.between_s[visits[:-1], visits[1:]].sum())
    assert np.mean(totals) == pytest.approx(expected_travel_s(machine, demand, cells), rel=2e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shortest_path(np.ones((2, 3))), "distance: expected a square matrix"),
        (lambda: shortest_path([[0, 1], [2, 0]]), "distance: expected a symmetric matrix"),
        (lambda: shortest_path(np.zeros((3, 3)), start=3), "start: expected 0 to 2, got 3"),
        (lambda: shortest_path(np.zeros((3, 3)), time_limit=0), "time_limit: expected a finite"),
        (lambda: pair_jobs(Machine(), [1], [2], method="best"), "method: expected one of optimal"),
        (lambda: pair_jobs(Machine(), [600], [2]), "stored: expected cells from 0 to 599"),
        (lambda: pair_jobs(Machine(), [1], [2], point=1), "point: expected 0 to 0, got 1"),
        (lambda: pair_shared(Machine(), [1], []), "open_cells: expected at least one"),
        (lambda: pair_shared(Machine(), [1], [1]), "expected each cell once"),
        (lambda: multi_pick(Machine(), [-1]), "cells: expected 0 to 599"),
        (lambda: demand_of([[0, 5]], 5), "orders: expected drugs from 0 to 4"),
        (lambda: by_popularity(Machine(), demand_of([[0]], 2), [3, 3]), "cells: expected each"),
        (lambda: by_popularity(Machine(), demand_of([[0]], 2), [3]), "cells: expected shape"),
        (lambda: free_sequence(costs_of(Machine(), Lognormal(), [1]), [0], method="x"), "method:"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message) -> None:
    """What does not fit is refused with its name and range."""
    with pytest.raises(ValueError, match=message):
        call()
