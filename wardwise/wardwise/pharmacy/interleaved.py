"""Bins whose sequence is free, several I/O points: paths of equal length, one through each point.

With m points used in turn, the bins of positions p, p + m, p + 2 m, ... follow each other at one
point: m paths that differ by one bin in length at most and share no costs (Baardman et al.,
Transportation Science 2021, for negligible service times; here the arcs cost w(c) = E[max(c, P)]).
Strongly NP-hard. The search is simulated annealing on all paths one after the other in one array:
swaps, turned segments, moved segments, and equal segments that change paths.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.pharmacy.timing import compiled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from wardwise.pharmacy.chain import Ints
    from wardwise.pharmacy.costs import Costs

NUM_NEIGHBOURS = 12
MOVES_PER_BIN = 40_000
# Temperatures in seconds: a change that hurts so much is taken with probability 1/e.
HOT_S, COLD_S = 1.0, 0.005
NEAR_SHARE = 0.7
LONGEST_EXCHANGE = 20
PYVRP_SCALE = 1000  # costs in whole milliseconds
_LEAST_GAIN = 1e-9


def free_sequence(
    costs: Costs,
    nodes: ArrayLike,
    *,
    method: str = "annealing",
    moves: int | None = None,
    is_start_free: bool = False,
    time_limit: float = 5.0,
    seed: int = 0,
) -> Ints:
    """Sequence bins without orders to keep together, for any number of points.

    Parameters
    ----------
    costs
        Pair costs; see `wardwise.pharmacy.paths` for one point.
    nodes
        Nodes to fetch, shape (n,).
    method
        ``annealing``, or ``pyvrp`` (extra ``pyvrp``): m vehicles, each for half of the bins with
        two points, and so on.
    moves
        Moves that annealing tries; None: 40,000 a bin. Same seed, same sequence.
    is_start_free
        The first bin at each point costs nothing; otherwise what it takes to an empty point.
    time_limit
        Seconds for ``pyvrp``.
    seed
        Of the search.

    Returns
    -------
    The nodes in sequence, shape (n,).

    Raises
    ------
    ValueError
        On an unknown method, a missing extra, or parameters out of range.
    """
    bins = np.asarray(nodes, dtype=np.int64)
    start = costs.free if is_start_free else costs.empty
    if method not in ("annealing", "pyvrp"):
        raise ValueError(f"method: expected 'annealing' or 'pyvrp', got {method!r}")
    if moves is not None and moves < 0:
        raise ValueError(f"moves: expected at least 0, got {moves}")
    if method == "pyvrp":
        if importlib.util.find_spec("pyvrp") is None:
            raise ValueError("method: 'pyvrp' needs: pip install 'wardwise[pyvrp]'")
        return _by_pyvrp(costs, bins, start, time_limit, seed)
    n, m = len(bins), costs.num_points
    if n < 2:
        return bins.copy()
    starts = np.cumsum([0, *(len(range(point, n, m)) for point in range(m))])
    rng = np.random.default_rng(seed)
    between = costs.machine.between_s[np.ix_(costs.cells[bins], costs.cells[bins])]
    near = np.argsort(between, axis=1, kind="stable")[:, 1 : NUM_NEIGHBOURS + 1]
    # The search numbers the bins that it moves; pair costs are looked up by these numbers.
    inside = np.array([*bins, start])
    pair_s = np.ascontiguousarray(costs.pair_s[:, inside][:, :, bins])
    number = np.concatenate([np.arange(n)[point::m] for point in range(m)])
    anneal(
        pair_s, number, starts, near, MOVES_PER_BIN * n if moves is None else moves,
        rng, HOT_S, COLD_S,
    )  # fmt: skip
    paths = bins[number]
    sequence = np.empty(n, dtype=np.int64)
    for point in range(m):
        sequence[point::m] = paths[starts[point] : starts[point + 1]]
    return sequence


def _by_pyvrp(costs: Costs, bins: Ints, start: int, time_limit: float, seed: int) -> Ints:
    """Paths as routes of m vehicles that differ in their arcs."""
    import pyvrp
    from pyvrp.stop import MaxRuntime

    n, m = len(bins), costs.num_points
    matrices: list[Any] = []
    for point in range(m):
        matrix = np.zeros((n + 1, n + 1), dtype=np.int64)
        pair_s = costs.pair_s[point]
        matrix[1:, 1:] = np.rint(pair_s[np.ix_(bins, bins)] * PYVRP_SCALE)
        matrix[0, 1:] = np.rint(pair_s[start, bins] * PYVRP_SCALE)
        np.fill_diagonal(matrix, 0)
        matrices.append(matrix)
    data = pyvrp.ProblemData(
        [pyvrp.Location(0, 0) for _ in range(n + 1)],
        [pyvrp.Client(location=k, delivery=[1]) for k in range(1, n + 1)],
        [pyvrp.Depot(0)],
        [
            pyvrp.VehicleType(num_available=1, capacity=[len(range(point, n, m))], profile=point)
            for point in range(m)
        ],
        distance_matrices=matrices,
        duration_matrices=[np.zeros_like(matrix) for matrix in matrices],
    )
    best = pyvrp.solve(data, MaxRuntime(time_limit), seed=seed, display=False).best
    if not best.is_feasible():
        raise ValueError(f"time_limit: PyVRP found no sequence in {time_limit} s")
    sequence = np.empty(n, dtype=np.int64)
    for route in best.routes():
        visits = [visit.idx for visit in route.schedule() if visit.is_client()]
        sequence[route.vehicle_type() :: m] = bins[visits]
    return sequence


@compiled
def _arc(pair: Any, at: int, a: int, b: int) -> Any:
    """Cost of bin b after bin a on a path; -1 stands for none."""
    return float(pair[at, a, b]) if b >= 0 else 0.0


@compiled
def _before(x: Any, path: Any, p: int) -> int:
    return int(x[p - 1]) if p > 0 and path[p - 1] == path[p] else -1


@compiled
def _after(x: Any, path: Any, p: int) -> int:
    return int(x[p + 1]) if p + 1 < len(x) and path[p + 1] == path[p] else -1


@compiled
def _flip(x: Any, low: int, high: int) -> None:
    while low < high:
        x[low], x[high] = x[high], x[low]
        low += 1
        high -= 1


@compiled
def _gain_of_turn(pair: Any, x: Any, path: Any, p: int, q: int) -> Any:
    """What it saves to reverse places p to q of one path."""
    at, a, b = path[p], _before(x, path, p), _after(x, path, q)
    old = _arc(pair, at, a, x[p]) + _arc(pair, at, x[q], b)
    return old - _arc(pair, at, a, x[q]) - _arc(pair, at, x[p], b)


@compiled
def _gain_of_shift(pair: Any, x: Any, path: Any, p: int, middle: int, q: int) -> Any:
    """What it saves if p .. middle - 1 and middle .. q of one path change places."""
    at, a, b = path[p], _before(x, path, p), _after(x, path, q)
    old = _arc(pair, at, a, x[p]) + _arc(pair, at, x[middle - 1], x[middle])
    old += _arc(pair, at, x[q], b)
    new = _arc(pair, at, a, x[middle]) + _arc(pair, at, x[q], x[p])
    return old - new - _arc(pair, at, x[middle - 1], b)


@compiled
def _gain_of_exchange(pair: Any, x: Any, path: Any, p: int, q: int, length: int) -> float:
    """What it saves if segments of equal length, from p and q on, change paths."""
    gain = 0.0
    for own, other in ((p, q), (q, p)):
        at, a, b = path[own], _before(x, path, own), _after(x, path, own + length - 1)
        gain += _arc(pair, at, a, x[own]) + _arc(pair, at, x[own + length - 1], b)
        gain -= _arc(pair, at, a, x[other]) + _arc(pair, at, x[other + length - 1], b)
        for k in range(1, length):
            gain += _arc(pair, at, x[own + k - 1], x[own + k])
            gain -= _arc(pair, at, x[other + k - 1], x[other + k])
    return gain


@compiled
def _change(x: Any, where: Any, kind: int, p: int, middle: int, q: int, length: int) -> None:
    """Do a move: 0 a turn, 1 a shift, 2 an exchange."""
    if kind == 2:
        for k in range(length):
            x[p + k], x[q + k] = x[q + k], x[p + k]
            where[x[p + k]], where[x[q + k]] = p + k, q + k
        return
    if kind == 1:
        _flip(x, p, middle - 1)
        _flip(x, middle, q)
    _flip(x, p, q)
    for k in range(p, q + 1):
        where[x[k]] = k


@compiled
def anneal(
    pair: Any, x: Any, starts: Any, near: Any, moves: int, rng: Any, hot: float, cold: float
) -> None:
    """Simulated annealing; the best paths found are written to `x`.

    Parameters
    ----------
    pair
        Costs by path, bin before (the last row: none) and bin, shape (m, n + 1, n).
    x
        Bins of all paths, path by path, shape (n,).
    starts
        Where each path begins in `x`, and n; shape (m + 1,).
    near
        Neighbours of each bin, shape (n, k).
    moves, rng
        How many changes are tried, and the generator of random numbers.
    hot, cold
        First and last temperature; it falls by equal factors.
    """
    n = len(x)
    path, where = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    for k in range(len(starts) - 1):
        path[starts[k] : starts[k + 1]] = k
    for p in range(n):
        where[x[p]] = p
    saved, best, found = 0.0, 0.0, x.copy()
    heat, fall = hot, (cold / hot) ** (1.0 / max(1, moves))
    for _ in range(moves):
        heat *= fall
        p, q = int(rng.random() * n), int(rng.random() * n)
        if rng.random() < NEAR_SHARE:
            q = where[near[x[p], int(rng.random() * near.shape[1])]]
        # Bring the bin at q to the place behind p, or before it.
        p += 1 if rng.random() < 0.5 else -1
        if p < 0 or p >= n or p == q:
            continue
        middle, length, kind = 0, 0, int(rng.random() * 2)
        if path[p] != path[q]:
            most = min(starts[path[p] + 1] - p, starts[path[q] + 1] - q, LONGEST_EXCHANGE)
            length = 1 + int(rng.random() * most) if kind else 1
            gain = _gain_of_exchange(pair, x, path, p, q, length)
            kind = 2
        else:
            p, q, forward = min(p, q), max(p, q), p < q
            if kind == 1:
                length = 1 + int(rng.random() * min(3, q - p))
                middle = q + 1 - length if forward else p + length
                gain = _gain_of_shift(pair, x, path, p, middle, q)
            else:
                gain = _gain_of_turn(pair, x, path, p, q)
        if gain < 0 and rng.random() >= np.exp(gain / heat):
            continue
        saved += gain
        _change(x, where, kind, p, middle, q, length)
        if saved > best + _LEAST_GAIN:
            best = saved
            found[:] = x
    x[:] = found
