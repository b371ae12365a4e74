"""What must hold whatever the numbers are: symmetries, policies in order, bounds, other solvers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations
from statistics import mean

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.pharmacy.chain import best_chain, pack
from wardwise.pharmacy.costs import costs_of
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.paths import length_of, shortest_path
from wardwise.pharmacy.rack import Arm, Machine, Rack
from wardwise.pharmacy.sequence import sequence
from wardwise.pharmacy.service_time import Lognormal
from wardwise.pharmacy.timing import simulate
from wardwise.pharmacy.travel import popular_first_one_way

ONE = ((0.0, 0.0),)
SAME_END = ((0.0, 0.0), (0.0, 0.0))
OPPOSITE = ((0.0, 0.0), (12.0, 0.0))
LAYOUTS = {"one": ONE, "same end": SAME_END, "opposite ends": OPPOSITE}
layouts = pytest.mark.parametrize("points_m", LAYOUTS.values(), ids=LAYOUTS)


def packed_of(machine: Machine, orders):
    """Costs and packed orders, from lists of lines of cells."""
    packed = pack(orders)
    costs = costs_of(machine, Lognormal(), packed.node)
    return costs, packed._replace(node=costs.nodes_of(packed.node))


@layouts
@settings(max_examples=30)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_a_mirrored_machine_has_identical_costs(points_m, seed: int, left: bool, up: bool) -> None:
    """Rack, points and orders mirrored along either axis: the same optimum, the same makespans."""
    rng = np.random.default_rng(seed)
    arm = Arm(acceleration_x_mps2=1.0, acceleration_y_mps2=0.5) if seed % 2 else Arm()
    machine = Machine(points_m=points_m, arm=arm)
    rack = machine.rack
    row, column = np.divmod(np.arange(rack.num_cells), rack.num_columns)
    row = rack.num_rows - 1 - row if up else row
    column = rack.num_columns - 1 - column if left else column
    image = row * rack.num_columns + column
    mirrored_m = tuple(
        (rack.width_m - x_m if left else x_m, rack.height_m - y_m if up else y_m)
        for x_m, y_m in points_m
    )
    mirrored = replace(machine, points_m=mirrored_m)
    orders = [rng.choice(600, n, replace=False)[:, None].tolist() for n in rng.integers(1, 5, 3)]
    other = [[[int(image[cell]) for cell in line] for line in order] for order in orders]
    best, again = (best_chain(*packed_of(*each))[1] for each in
                   ((machine, orders), (mirrored, other)))  # fmt: skip
    assert again == pytest.approx(best)
    cells = np.array([cell for order in orders for (cell,) in order])
    service_s = Lognormal().sample((3, len(cells)), rng)
    makespan_s = simulate(machine, cells, service_s).makespan_s
    mirrored_s = simulate(mirrored, image[cells], service_s).makespan_s
    np.testing.assert_allclose(mirrored_s, makespan_s)


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_a_second_pharmacist_helps_and_one_a_point_is_enough(m: int, seed: int) -> None:
    """In every replication: a second never hurts; with one for each point more change nothing."""
    rng = np.random.default_rng(seed)
    cells, service_s = rng.integers(0, 600, 30), Lognormal(40.0).sample((10, 30), rng)
    points = tuple((float(x_m), 0.0) for x_m in rng.uniform(0, 12, m))
    makespan_s = [
        simulate(Machine(points_m=points, num_pharmacists=q), cells, service_s).makespan_s
        for q in range(1, m + 2)
    ]
    assert (makespan_s[1] <= makespan_s[0] + 1e-9).all()
    for fewer in makespan_s:
        assert (makespan_s[m - 1] <= fewer + 1e-9).all()
    np.testing.assert_array_equal(makespan_s[m], makespan_s[m - 1])


def test_a_third_pharmacist_may_delay_where_bins_are_taken_in_turn() -> None:
    """Four points: two would have taken a bin earlier than the third whose turn it is."""
    rng = np.random.default_rng(1)
    cells, service_s = rng.integers(0, 600, 30), Lognormal(40.0).sample((10, 30), rng)
    points = tuple((float(x_m), 0.0) for x_m in rng.uniform(0, 12, 4))
    two, three = (
        simulate(Machine(points_m=points, num_pharmacists=q), cells, service_s).makespan_s
        for q in (2, 3)
    )
    assert (three > two).any()
    assert three.mean() < two.mean()


def test_further_places_help_on_average() -> None:
    """Other bins meet in a cycle, so that a single day may last longer; the mean does not."""
    rng = np.random.default_rng(0)
    cells, service_s = rng.integers(0, 600, 2000), Lognormal(20.0).sample((10, 2000), rng)
    means = [
        simulate(Machine(points_m=((0.0, 0.0),) * m), cells, service_s).makespan_s.mean()
        for m in (1, 2, 3, 4, 8)
    ]
    for fewer, more in pairwise(means):
        assert more < fewer


@layouts
def test_better_policies_end_earlier_with_the_same_luck(points_m) -> None:
    """Simulated with common random numbers: chain, rolling, conditioned, isolated, random."""
    days = [
        generate_pharmacy(seed, num_orders=150, machine=Machine(points_m=points_m))
        for seed in range(6)
    ]
    methods = ("chain", "rolling", "conditioned", "isolated", "random")
    makespan_s = {
        method: mean(sequence(day, method=method, replications=50).makespan_s for day in days)
        for method in methods
    }
    for better, worse in pairwise(methods):
        assert makespan_s[better] < makespan_s[worse]


@pytest.mark.parametrize("far_m", [1.2, 12.0])
def test_bound_for_points_apart_is_close(far_m: float) -> None:
    """The sum of pair costs is above the simulated mean, by less than 1.5 per cent."""
    machine = Machine(points_m=((0.0, 0.0), (far_m, 0.0)))
    plan = sequence(generate_pharmacy(3, num_orders=200, machine=machine), replications=400)
    assert not plan.is_expectation
    assert plan.makespan_s < plan.objective_s < 1.015 * plan.makespan_s


@layouts
@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_orders_kept_together_never_cost_less(points_m, seed: int) -> None:
    """All sequences of six lines: the best with orders apart <= in any sequence <= as they came."""
    rng = np.random.default_rng(seed)
    orders = [rng.choice(600, n, replace=False)[:, None].tolist() for n in (2, 1, 3)]
    costs, packed = packed_of(Machine(points_m=points_m), orders)
    ways = np.array(list(permutations(range(packed.num_lines))))
    cost = np.array([costs.of_pairs(packed.node[way]).sum() for way in ways])
    order = np.repeat(np.arange(3), packed.size)[ways]
    is_together = (np.diff(order, axis=1) != 0).sum(axis=1) == 2
    came = best_chain(costs, packed)[1]
    assert cost.min() <= cost[is_together].min() + 1e-9
    assert cost[is_together].min() <= came + 1e-9
    assert came == pytest.approx(
        cost[is_together & (np.diff(order, axis=1) >= 0).all(axis=1)].min()
    )


@pytest.mark.parametrize("skew", [1.0, 0.5, 0.25])
def test_popular_drugs_near_the_point_have_the_formulas_mean(skew: float) -> None:
    """A fine rack, square in time, drugs by popularity nearest first: 2 s / (2 s + 1) of T."""
    rack = Rack(num_columns=200, num_rows=200, column_pitch_m=0.005, row_pitch_m=0.005)
    x_m, y_m = rack.centre_m.T
    arm = Arm(speed_x_mps=1.0, speed_y_mps=1.0)
    one_way_s = np.sort(arm.travel_s(x_m, y_m))
    share = np.diff(np.linspace(0, 1, rack.num_cells + 1) ** skew)
    assert share @ one_way_s == pytest.approx(popular_first_one_way(skew), abs=0.005)


@pytest.mark.parametrize("n", [5, 9, 16, 30])
def test_paths_are_no_longer_than_those_of_networkx(n: int) -> None:
    """Christofides', greedy and annealed paths of networkx on the same graph, and its own sums."""
    cells = np.random.default_rng(n).choice(600, n, replace=False)
    distance = Machine().between_s[np.ix_(cells, cells)]
    graph = nx.from_numpy_array(distance)
    ours = shortest_path(distance, max_kicks=2000, time_limit=60).tolist()
    assert nx.path_weight(graph, ours, "weight") == pytest.approx(length_of(distance, ours))
    approximation = nx.approximation
    christofides = approximation.traveling_salesman_problem(graph, cycle=False)
    greedy = approximation.greedy_tsp(graph, source=0)[:-1]
    annealed = approximation.simulated_annealing_tsp(graph, "greedy", source=0, seed=1)[:-1]
    for path in (christofides, greedy, annealed):
        assert length_of(distance, ours) <= nx.path_weight(graph, path, "weight") + 1e-9


def test_exact_paths_of_networkx_by_all_simple_paths() -> None:
    """Six bins: the least of all simple paths through every node, enumerated by networkx."""
    cells = np.random.default_rng(11).choice(600, 6, replace=False)
    distance = Machine().between_s[np.ix_(cells, cells)]
    graph = nx.from_numpy_array(distance)
    lengths = [
        nx.path_weight(graph, path, "weight")
        for start in range(6)
        for path in nx.all_simple_paths(graph, start, [k for k in range(6) if k != start])
        if len(path) == 6
    ]
    assert len(lengths) == 720
    ours = shortest_path(distance, max_kicks=500, time_limit=60)
    assert length_of(distance, ours) == pytest.approx(min(lengths))
