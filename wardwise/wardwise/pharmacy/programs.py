"""Sequencing as a 0-1 program over positions, for HiGHS and CP-SAT (extra ``exact``).

A line's candidate i is at position p (y), and i stands where j is fetched m positions later (z)::

    min   sum W(standing_p, i) y_ip  +  sum W_p(i, j) z_ijp
    s.t.  one candidate at each position; each line once, inside its order's positions
          sum_j z_ijp = y_i,p-m   and   sum_i z_ijp = y_jp   for p >= m

M0 is one order alone, M1 one point and W = c, M2 two points and W = w(c), each with the cost of the
position's point. Their optima are those of `wardwise.pharmacy.chain`; they take a thousand times
longer, serve as referees, and take side constraints. M3, with the choice of points, is in
`wardwise.pharmacy.scenarios`.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wardwise.highs import quiet_highs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.pharmacy.chain import Ints, Packed
    from wardwise.pharmacy.costs import Costs
    from wardwise.pharmacy.rack import Floats

SOLVERS = ("highs", "cp-sat")
MICROSECONDS = 1_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Solved:
    """What a program found.

    Parameters
    ----------
    sequence
        Candidates in sequence, shape (lines,).
    cost_s
        Sum of its pair costs.
    is_optimal
        Whether the solver has proven that there is no better one; within 1e-9 of the cost for
        HiGHS and a microsecond a pair for CP-SAT, which computes with integers.
    """

    sequence: Ints
    cost_s: float
    is_optimal: bool


class Program(NamedTuple):
    """Columns (all 0-1) with their costs, and rows that are equalities.

    `used` lists the columns of each row, `minus` those with coefficient -1 in addition.
    """

    cost_s: Floats
    used: list[list[int]]
    minus: list[list[int]]
    right: list[int]
    at: dict[tuple[int, int], int]  # column of candidate i at position p


def solve_program(
    costs: Costs,
    packed: Packed,
    *,
    solver: str = "highs",
    standing: Sequence[int] | None = None,
    time_limit: float = 60.0,
) -> Solved:
    """Solve the 0-1 program of some orders.

    Parameters
    ----------
    costs
        Pair costs for any number of points.
    packed
        Orders in the sequence of service: one for M0, two for a pair, or all.
    solver
        ``highs`` or ``cp-sat``, on one thread.
    standing
        Nodes at the points at the start, oldest first, shape (m,); None: all empty.
    time_limit
        Seconds, above 0.

    Raises
    ------
    ValueError
        On an unknown solver, a missing extra, or no sequence in time.
    """
    require_solver(solver, time_limit)
    if not packed.num_lines:
        return Solved(sequence=np.zeros(0, dtype=np.int64), cost_s=0.0, is_optimal=True)
    program = build(costs, packed, standing)
    run = _run_highs if solver == "highs" else _run_cp_sat
    chosen, is_optimal = run(program, time_limit)
    found = np.full(packed.num_lines, -1, dtype=np.int64)
    for (i, p), column in program.at.items():
        if column in chosen:
            found[p] = i
    cost_s = float(costs.of_pairs(packed.node[found], standing).sum())
    return Solved(sequence=found, cost_s=cost_s, is_optimal=is_optimal)


def require_solver(solver: str, time_limit: float) -> None:
    """Refuse unknown solvers, missing packages and times that are no times."""
    if solver not in SOLVERS:
        raise ValueError(f"solver: expected one of {', '.join(SOLVERS)}, got {solver!r}")
    package = "highspy" if solver == "highs" else "ortools"
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"solver: {solver!r} needs: pip install 'wardwise[exact]'")
    if not 0 < time_limit < math.inf:
        raise ValueError(f"time_limit: expected a finite number above 0, got {time_limit}")


def build(costs: Costs, packed: Packed, standing: Sequence[int] | None = None) -> Program:
    """Columns and rows of the program of some orders; parameters as of `solve_program`."""
    m = costs.num_points
    first = [costs.empty] * m if standing is None else list(standing)
    pair_s, node = costs.pair_s, packed.node
    cost_s: list[float] = []
    at: dict[tuple[int, int], int] = {}
    used: list[list[int]] = []
    right: list[int] = []
    fits: list[range] = []  # candidates that may be at each position
    for k, size in enumerate(packed.size.tolist()):
        own = range(int(packed.start[k]), int(packed.start[k + 1]))
        places = range(len(fits), len(fits) + size)
        for p in places:
            fits.append(own)
            for i in own:
                at[i, p] = len(cost_s)
                cost_s.append(float(pair_s[p % m, first[p], node[i]]) if p < m else 0.0)
            used.append([at[i, p] for i in own])
            right.append(1)
        for line in range(size):
            mine = [i for i in own if packed.line[i] == line]
            used.append([at[i, p] for i in mine for p in places])
            right.append(1)
    minus: list[list[int]] = [[] for _ in used]
    for p in range(m, len(fits)):
        z = {}
        for i in fits[p - m]:
            for j in fits[p]:
                if fits[p] != fits[p - m] or packed.line[i] != packed.line[j]:
                    z[i, j] = len(cost_s)
                    cost_s.append(float(pair_s[p % m, node[i], node[j]]))
        for i in fits[p - m]:
            used.append([column for (a, _), column in z.items() if a == i])
            minus.append([at[i, p - m]])
        for j in fits[p]:
            used.append([column for (_, b), column in z.items() if b == j])
            minus.append([at[j, p]])
    right += [0] * (len(used) - len(right))
    return Program(np.array(cost_s), used, minus, right, at)


def _run_highs(program: Program, time_limit: float) -> tuple[set[int], bool]:
    """Columns at 1, and whether that is proven best."""
    highspy, solver = quiet_highs(time_limit)
    num = len(program.cost_s)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = num, len(program.used)
    model.col_cost_ = program.cost_s
    model.col_lower_, model.col_upper_ = np.zeros(num), np.ones(num)
    model.row_lower_ = model.row_upper_ = np.array(program.right, dtype=np.float64)
    rows = [used + minus for used, minus in zip(program.used, program.minus, strict=True)]
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *map(len, rows)])
    model.a_matrix_.index_ = np.concatenate(rows)
    model.a_matrix_.value_ = np.concatenate(
        [
            np.repeat([1.0, -1.0], [len(used), len(minus)])
            for used, minus in zip(program.used, program.minus, strict=True)
        ]
    )
    # Only the places need to be whole; the pairs then are.
    places = set(program.at.values())
    whole, any_ = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
    model.integrality_ = [whole if k in places else any_ for k in range(num)]
    solver.passModel(model)
    solver.run()
    if solver.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        raise ValueError(f"time_limit: HiGHS found no sequence in {time_limit} s")
    values = np.array(solver.getSolution().col_value)
    is_optimal = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return set(np.flatnonzero(values > 0.5).tolist()), is_optimal


def _run_cp_sat(program: Program, time_limit: float) -> tuple[set[int], bool]:
    """Columns at 1, and whether that is proven best; costs in whole microseconds."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    columns = [model.new_bool_var("") for _ in program.cost_s]
    for used, minus, right in zip(program.used, program.minus, program.right, strict=True):
        literals = [columns[k] for k in used]
        if not minus:
            model.add_exactly_one(literals)
        else:
            model.add(sum(literals) == right + sum(columns[k] for k in minus))
    scaled: Any = np.rint(program.cost_s * MICROSECONDS).astype(np.int64).tolist()
    model.minimize(cp_model.LinearExpr.weighted_sum(columns, scaled))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = time_limit
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise ValueError(f"time_limit: CP-SAT found no sequence in {time_limit} s")
    chosen = {k for k, column in enumerate(columns) if solver.boolean_value(column)}
    return chosen, status == cp_model.OPTIMAL
