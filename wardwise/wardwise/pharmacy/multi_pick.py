"""Tours of an arm that holds several bins: capacitated vehicle routing with one vehicle.

The arm leaves an I/O point empty, picks up to q bins and comes back; bins go back to their cells
by tours of the same kind. The search keeps one sequence of all bins, cuts it into tours in the best
way by dynamic programming, and changes it by simulated annealing (route first, cluster second;
Beasley, Omega 11(4), 1983).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.pharmacy.timing import compiled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from wardwise.pharmacy.rack import Floats, Machine

MOVES_PER_BIN = 3000
HOT_S, COLD_S = 1.0, 0.01


def multi_pick(
    machine: Machine,
    cells: ArrayLike,
    *,
    point: int = 0,
    moves: int | None = None,
    seed: int = 0,
) -> tuple[list[list[int]], float]:
    """Tours that fetch all bins with the capacity of the machine's arm.

    Parameters
    ----------
    machine
        Travel times and the arm's capacity.
    cells
        Cells to fetch from, shape (n,).
    point
        I/O point where tours begin and end.
    moves
        Changes that are tried; None: 3,000 a bin. Same seed, same tours.
    seed
        Of the search.

    Returns
    -------
    Cells of each tour in sequence, and the travel of all tours in seconds, without handling.

    Raises
    ------
    ValueError
        If the point is not there or a cell is outside of the rack.
    """
    array = np.asarray(cells, dtype=np.int64)
    if not 0 <= point < machine.num_points:
        raise ValueError(f"point: expected 0 to {machine.num_points - 1}, got {point}")
    if len(array) and not 0 <= array.min() <= array.max() < machine.rack.num_cells:
        raise ValueError(f"cells: expected 0 to {machine.rack.num_cells - 1}")
    n = len(array)
    if not n:
        return [], 0.0
    reach_s = np.asarray(machine.reach_s[point, array])
    between_s = machine.between_s[np.ix_(array, array)]
    sequence = np.argsort(reach_s, kind="stable")
    rng = np.random.default_rng(seed)
    tries = MOVES_PER_BIN * n if moves is None else moves
    _anneal(reach_s, between_s, machine.arm.capacity, sequence, tries, rng, HOT_S, COLD_S)
    return cut(array, reach_s, between_s, machine.arm.capacity, sequence)


def cut(
    cells: ArrayLike, reach_s: Floats, between_s: Floats, capacity: int, sequence: ArrayLike
) -> tuple[list[list[int]], float]:
    """Best way to cut a sequence of bins into tours; see `multi_pick`."""
    order, array = np.asarray(sequence, dtype=np.int64), np.asarray(cells)
    begins = np.empty(len(order) + 1, dtype=np.int64)
    total = float(_split(reach_s, between_s, capacity, order, np.empty(len(order) + 1), begins))
    tours, end = [], len(order)
    while end > 0:
        tours.append(array[order[begins[end] : end]].tolist())
        end = int(begins[end])
    return tours[::-1], total


@compiled
def _split(reach: Any, between: Any, capacity: int, sequence: Any, value: Any, begins: Any) -> Any:
    """Least travel to serve the first k bins for each k; `begins` is where the last tour begins."""
    value[0] = 0.0
    for end in range(1, len(sequence) + 1):
        value[end] = np.inf
        inside = 0.0
        for begin in range(end - 1, max(-1, end - capacity - 1), -1):
            if begin < end - 1:
                inside += between[sequence[begin], sequence[begin + 1]]
            home = reach[sequence[begin]] + reach[sequence[end - 1]]
            if value[begin] + inside + home < value[end]:
                value[end], begins[end] = value[begin] + inside + home, begin
    return value[len(sequence)]


@compiled
def _anneal(
    reach: Any, between: Any, capacity: int, x: Any, moves: int, rng: Any, hot: float, cold: float
) -> None:
    """Swap bins, move them, turn stretches; the best sequence found is written to `x`."""
    n = len(x)
    value, begins = np.empty(n + 1), np.empty(n + 1, dtype=np.int64)
    cost = _split(reach, between, capacity, x, value, begins)
    best, found, old = cost, x.copy(), x.copy()
    heat, fall = hot, (cold / hot) ** (1.0 / max(1, moves))
    for _ in range(moves):
        heat *= fall
        p, q, kind = int(rng.random() * n), int(rng.random() * n), int(rng.random() * 3)
        if p == q:
            continue
        low, high = min(p, q), max(p, q)
        old[low : high + 1] = x[low : high + 1]
        if kind == 0:
            x[p], x[q] = x[q], x[p]
        elif kind == 1:
            x[low : high + 1] = old[low : high + 1][::-1]
        elif p < q:
            x[low:high] = old[low + 1 : high + 1]
            x[high] = old[low]
        else:
            x[low + 1 : high + 1] = old[low:high]
            x[low] = old[high]
        new = _split(reach, between, capacity, x, value, begins)
        if new <= cost or rng.random() < np.exp((cost - new) / heat):
            cost = new
            if cost < best - 1e-9:
                best = cost
                found[:] = x
        else:
            x[low : high + 1] = old[low : high + 1]
    x[:] = found
