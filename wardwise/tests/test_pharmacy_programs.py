"""0-1 programs for sequences, points and scenarios: the same optima as everything else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from itertools import permutations, product

import numpy as np
import pytest

from wardwise.pharmacy.chain import best_chain, pack
from wardwise.pharmacy.costs import costs_of
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.points import choose_points, replay
from wardwise.pharmacy.programs import SOLVERS, solve_program
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.scenarios import solve_scenarios
from wardwise.pharmacy.sequence import sequence
from wardwise.pharmacy.service_time import Lognormal
from wardwise.pharmacy.timing import simulate

ONE = ((0.0, 0.0),)
SAME_END = ((0.0, 0.0), (0.0, 0.0))
OPPOSITE = ((0.0, 0.0), (12.0, 0.0))
LAYOUTS = {"one": ONE, "same end": SAME_END, "opposite ends": OPPOSITE}
layouts = pytest.mark.parametrize("points_m", LAYOUTS.values(), ids=LAYOUTS)


def packed_day(points_m, sizes, bins: int = 1, seed: int = 0, pharmacists: int = 1):
    """Costs and orders of these sizes at random cells, and the generator."""
    rng = np.random.default_rng(seed)
    orders = [rng.choice(600, n * bins, replace=False).reshape(n, bins).tolist() for n in sizes]
    packed = pack(orders)
    machine = Machine(points_m=points_m, num_pharmacists=pharmacists)
    costs = costs_of(machine, Lognormal(), packed.node)
    return costs, packed._replace(node=costs.nodes_of(packed.node)), rng


def orderly(packed) -> list[np.ndarray]:
    """Every sequence with the orders one after the other, one bin a line."""
    parts = [
        permutations(range(low, high))
        for low, high in zip(packed.start, packed.start[1:], strict=False)
    ]
    return [np.array(sum(way, ())) for way in product(*parts)]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sizes", [(3,), (2, 3), (1, 1, 2), (3, 3, 3)], ids=str)
@layouts
def test_programs_have_the_optimum_of_all_sequences(points_m, sizes, solver) -> None:
    """One order (M0), pairs and three orders: brute force, chain, HiGHS and CP-SAT agree."""
    costs, packed, _ = packed_day(points_m, sizes)
    least = min(costs.of_pairs(packed.node[way]).sum() for way in orderly(packed))
    solved = solve_program(costs, packed, solver=solver)
    assert solved.is_optimal
    assert solved.cost_s == pytest.approx(least, abs=1e-5)
    assert best_chain(costs, packed)[1] == pytest.approx(least)
    assert costs.of_pairs(packed.node[solved.sequence]).sum() == pytest.approx(solved.cost_s)


@pytest.mark.parametrize("solver", SOLVERS)
@layouts
def test_programs_agree_with_the_chain_on_larger_pairs(points_m, solver) -> None:
    """Five and four lines, two bins a line, and bins that stand at the points at the start."""
    costs, packed, _ = packed_day(points_m, (5, 4), bins=2, seed=1)
    standing = [3, 1][: costs.num_points]
    _, least = best_chain(costs, packed, standing=standing)
    solved = solve_program(costs, packed, solver=solver, standing=standing)
    assert solved.cost_s == pytest.approx(least, abs=1e-5)
    assert len(set(packed.line[solved.sequence[:5]])) == 5


@pytest.mark.parametrize("solver", SOLVERS)
def test_programs_take_three_points(solver) -> None:
    """The program of three points, which the chain does not do, against all sequences."""
    costs, packed, _ = packed_day((*OPPOSITE, (6.0, 0.0)), (3, 3), seed=2)
    least = min(costs.of_pairs(packed.node[way]).sum() for way in orderly(packed))
    assert solve_program(costs, packed, solver=solver).cost_s == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_programs_are_methods_of_sequence(solver) -> None:
    """A day of six orders has the same objective by program and by chain."""
    day = generate_pharmacy(3, num_orders=6, machine=Machine(points_m=SAME_END))
    plan = sequence(day, method=solver)
    assert plan.method == solver
    assert plan.objective_s == pytest.approx(sequence(day).objective_s, abs=1e-5)


@pytest.mark.slow
def test_solvers_leave_standard_output_alone() -> None:
    """In a fresh process, where HiGHS greets, nothing but our own line comes out."""
    code = (
        "from wardwise.pharmacy.generate import generate_pharmacy as day\n"
        "from wardwise.pharmacy.sequence import sequence\n"
        "sequence(day(num_orders=2), method='highs')\n"
        "sequence(day(num_orders=2), method='cp-sat')\n"
        "print('ours')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "ours\n"


@layouts
def test_chain_of_twenty_orders_is_proven_by_highs(points_m) -> None:
    """Sixty lines as one program: HiGHS proves the optimum that the chain found."""
    costs, packed, _ = packed_day(points_m, [1, 2, 3, 4, 5] * 4, seed=7)
    solved = solve_program(costs, packed)
    assert solved.is_optimal
    assert solved.cost_s == pytest.approx(best_chain(costs, packed)[1], abs=1e-6)


@pytest.mark.parametrize("pharmacists", [1, 2])
@layouts
def test_scenarios_in_turn_have_the_optimum_of_all_sequences(points_m, pharmacists) -> None:
    """Points in turn, five scenarios: least mean and least CVaR of the simulated makespans."""
    costs, packed, rng = packed_day(points_m, (2, 3), pharmacists=pharmacists)
    service_s = Lognormal().sample((5, 5), rng)
    ways = orderly(packed)
    found = np.array(
        [
            simulate(costs.machine, costs.cells[packed.node[way]], service_s).makespan_s
            for way in ways
        ]
    )
    mean = solve_scenarios(costs, packed, service_s, free_points=False)
    assert mean.is_optimal
    assert mean.value_s == pytest.approx(found.mean(axis=1).min(), abs=0.02)
    assert mean.value_s == pytest.approx(mean.makespan_s.mean())
    worst = solve_scenarios(costs, packed, service_s, free_points=False, cvar=0.6)
    two_worst = np.sort(found, axis=1)[:, -2:].mean(axis=1)
    assert worst.value_s == pytest.approx(two_worst.min(), abs=0.02)


def test_free_points_have_the_optimum_of_all_choices() -> None:
    """Points free, quick pharmacist: all sequences and all points tried one by one."""
    costs, packed, rng = packed_day(OPPOSITE, (2, 2), seed=4)
    service_s = Lognormal(6.0).sample((4, 4), rng)
    least = min(
        replay(costs.machine, costs.cells[packed.node[way]], points, service_s).mean()
        for way in orderly(packed)
        for points in product(range(2), repeat=4)
    )
    free = solve_scenarios(costs, packed, service_s)
    assert free.value_s == pytest.approx(least, abs=0.02)
    assert free.value_s <= solve_scenarios(costs, packed, service_s, free_points=False).value_s


def test_replay_is_the_simulation_where_points_take_turns() -> None:
    """For points in turn and any number of pharmacists, event by event."""
    rng = np.random.default_rng(0)
    for pharmacists in (1, 2):
        machine = Machine(points_m=(*OPPOSITE, (3.0, 1.0)), num_pharmacists=pharmacists)
        cells, service_s = rng.integers(0, 600, 20), Lognormal().sample((7, 20), rng)
        again = replay(machine, cells, np.arange(20) % 3, service_s)
        np.testing.assert_allclose(again, simulate(machine, cells, service_s).makespan_s)


def test_chosen_points_are_the_best_of_all_choices() -> None:
    """Eight bins and all 256 ways to send them to two ends: none has a lower sum."""
    costs, _, _ = packed_day(OPPOSITE, (8,), seed=6)
    machine, service, cells = costs.machine, costs.service, costs.cells
    two_h, mean_s = 2 * machine.arm.handling_s, service.mean_s

    def expected_s(points) -> float:
        total, standing = 0.0, {}
        for p, (cell, point) in enumerate(zip(cells, points, strict=True)):
            last = points[p - 1] if p else 0
            if p and last == point:
                total += mean_s + float(machine.cycle_s(point, cells[p - 1], cell))
            elif point in standing:
                cycle_s = machine.cycle_s(point, standing[point], cell)
                total += float(service.expected_max_s(cycle_s + machine.shift_s[last, point]))
            else:
                out_s = machine.reach_s[last, cell] + machine.reach_s[point, cell] + two_h
                total += float(service.expected_max_s(out_s)) if p else float(out_s)
            standing[point] = cell
        return total + mean_s

    points, value = choose_points(costs, np.arange(8))
    assert value == pytest.approx(min(map(expected_s, product(range(2), repeat=8))))
    assert value == pytest.approx(expected_s(points.tolist()))
    assert value <= costs.expected_s(np.arange(8)) + 1e-9
    assert choose_points(costs, [])[1] == 0


def test_free_points_save_time_in_simulation() -> None:
    """A hundred random bins, points at opposite ends: fewer crossings, a shorter mean makespan."""
    machine = Machine(points_m=OPPOSITE)
    rng = np.random.default_rng(9)
    cells = rng.choice(600, 100, replace=False)
    costs = costs_of(machine, Lognormal(), cells)
    points, bound_s = choose_points(costs, costs.nodes_of(cells))
    service_s = Lognormal().sample((200, 100), rng)
    free_s = replay(machine, cells, points, service_s).mean()
    assert free_s < 0.98 * simulate(machine, cells, service_s).makespan_s.mean()
    assert free_s <= bound_s + 1.0


def test_bad_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown solvers, shapes, shares and machines are refused; so is a missing package."""
    costs, packed, _ = packed_day(SAME_END, (2,))
    with pytest.raises(ValueError, match="solver: expected one of highs, cp-sat, got 'gurobi'"):
        solve_program(costs, packed, solver="gurobi")
    with pytest.raises(ValueError, match="time_limit: expected a finite number above 0, got nan"):
        solve_program(costs, packed, time_limit=float("nan"))
    with pytest.raises(ValueError, match=r"service_s: expected shape \(scenarios, 2\)"):
        solve_scenarios(costs, packed, np.ones((3, 4)))
    with pytest.raises(ValueError, match="cvar: expected 0 to below 1, got 1"):
        solve_scenarios(costs, packed, np.ones((3, 2)), cvar=1.0)
    with pytest.raises(ValueError, match="machine: expected two points and one pharmacist"):
        choose_points(packed_day(ONE, (2,))[0], [0, 1])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"'highs' needs: pip install 'wardwise\[exact\]'"):
        solve_program(costs, packed)
