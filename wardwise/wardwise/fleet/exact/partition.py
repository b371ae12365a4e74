"""The cheapest choice of ways that serves every request once: set partitioning in HiGHS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wardwise.highs import quiet_highs

if TYPE_CHECKING:
    from wardwise.fleet.charging.network import Floats, Ints


class Ways(NamedTuple):
    """Candidate ways of one kind of robot.

    Parameters
    ----------
    sets
        Shape (W,): requests of each way as bits.
    metres
        Shape (W,).
    num_robots
        How many robots there are of the kind.
    """

    sets: Ints
    metres: Floats
    num_robots: int


class Choice(NamedTuple):
    """Chosen ways as pairs (kind, place among its ways); whether it is proven best."""

    ways: list[tuple[int, int]]
    is_proven: bool


def fewest_then_shortest(kinds: list[Ways], num_requests: int, time_limit: float) -> Choice | None:
    """Serve every request once with the fewest robots and then the least distance.

    Two programs: the first counts the ways, the second takes the count as a bound and adds
    metres. `None` when no choice serves all, or none is found in time.
    """
    owner = np.concatenate([np.full(len(kind.sets), k) for k, kind in enumerate(kinds)])
    sets = np.concatenate([kind.sets for kind in kinds])
    metres = np.concatenate([kind.metres for kind in kinds])
    if not len(sets):
        return None
    members = (sets[None, :] >> np.arange(num_requests)[:, None]) & 1
    rows = [np.flatnonzero(row) for row in members]
    lower, upper = [1.0] * num_requests, [1.0] * num_requests
    for k, kind in enumerate(kinds):
        rows.append(np.flatnonzero(owner == k))
        lower.append(0.0)
        upper.append(float(kind.num_robots))
    rows.append(np.arange(len(sets)))
    ones = np.ones(len(sets))
    first = _run(ones, rows, [*lower, 0.0], [*upper, np.inf], time_limit)
    if first is None:
        return None
    count = float(len(first[0]))
    second = _run(metres, rows, [*lower, 0.0], [*upper, count], time_limit)
    chosen, is_proven = second if second is not None else first
    begin = np.cumsum([0, *(len(kind.sets) for kind in kinds)])
    ways = [(int(owner[c]), int(c - begin[owner[c]])) for c in chosen]
    return Choice(ways, first[1] and second is not None and is_proven)


def _run(
    cost: Floats, rows: list[Any], lower: list[float], upper: list[float], time_limit: float
) -> tuple[list[int], bool] | None:
    """Columns at 1, and whether that is proven best."""
    highspy, solver = quiet_highs(time_limit)
    num = len(cost)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = num, len(rows)
    model.col_cost_ = cost
    model.col_lower_, model.col_upper_ = np.zeros(num), np.ones(num)
    model.row_lower_, model.row_upper_ = np.array(lower), np.array(upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *map(len, rows)])
    model.a_matrix_.index_ = np.concatenate(rows)
    model.a_matrix_.value_ = np.ones(sum(map(len, rows)))
    model.integrality_ = [highspy.HighsVarType.kInteger] * num
    solver.passModel(model)
    solver.run()
    if solver.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    values = np.array(solver.getSolution().col_value)
    is_proven = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return np.flatnonzero(values > 0.5).tolist(), is_proven
