"""Shortest path through bins whose sequence is free: one I/O point, no orders to keep together.

With one point a cycle costs c(i, j) = t(A, i) + t(i, j) + t(j, A) + handling, so only the travel
between consecutive bins depends on the sequence: a Hamiltonian path, NP-hard. The search is
2-opt and Or-opt on neighbour lists with don't-look bits, and iterated: two neighbouring segments
change places, the ends are repaired, and what did not help is undone. A node more, at distance 0
from all, closes the path to a tour.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.pharmacy.timing import compiled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from wardwise.pharmacy.chain import Ints
    from wardwise.pharmacy.rack import Floats

NUM_NEIGHBOURS = 10
LONGEST_SEGMENT = 3
LONGEST_KICK = 50
BATCH = 2000  # kicks between two looks at the clock
_LEAST_GAIN = 1e-9


def shortest_path(
    distance: ArrayLike,
    *,
    start: int | None = None,
    time_limit: float = 2.0,
    max_kicks: int | None = None,
    seed: int = 0,
) -> Ints:
    """Short path that visits every node once.

    Parameters
    ----------
    distance
        Symmetric, at least 0, shape (n, n).
    start
        Node that must be first; None: any.
    time_limit
        Seconds of processor time of the search, above 0.
    max_kicks
        Limit on the tries; if it comes first, the same seed gives the same path.
    seed
        Of the search.

    Returns
    -------
    Nodes in sequence, shape (n,).

    Raises
    ------
    ValueError
        On a matrix that is no such distance, or parameters out of range.
    """
    distance = _require_distance(distance)
    n = len(distance)
    if start is not None and not 0 <= start < n:
        raise ValueError(f"start: expected 0 to {n - 1}, got {start}")
    if not 0 < time_limit < math.inf:
        raise ValueError(f"time_limit: expected a finite number above 0, got {time_limit}")
    if n < 3:
        others = [node for node in range(n) if node != start]
        return np.array(([] if start is None else [start]) + others, dtype=np.int64)
    first = 0 if start is None else start
    # Node n closes the tour; where the start is given, it is chained to it.
    closed = np.zeros((n + 1, n + 1))
    closed[:n, :n] = distance
    if start is not None:
        closed[start, n] = closed[n, start] = -2 * n * (distance.max() + 1)
    tour = np.append(n, nearest_neighbour(distance, first))
    neighbours = _neighbours(closed)
    rng = np.random.default_rng(seed)
    position = np.argsort(tour)
    log = np.empty((100 * (n + 1), 2), dtype=np.int64)
    repair(closed, tour, position, neighbours, tour.copy(), n + 1, log, 0)
    kick(closed, tour, position, neighbours, np.empty((0, 3)), log)  # compiles before the clock
    begun, left = time.process_time(), max_kicks if max_kicks is not None else 2**62
    while left > 0 and n > 4 and time.process_time() - begun < time_limit:
        draws = rng.random((min(BATCH, left), 3))
        kick(closed, tour, position, neighbours, draws, log)
        left -= len(draws)
    path = np.roll(tour, -int(position[n]))[1:]
    return path[::-1].copy() if start is not None and path[0] != start else path


def nearest_neighbour(distance: ArrayLike, start: int = 0) -> Ints:
    """Path that goes on to the nearest node not yet visited; shape (n,)."""
    ahead = np.array(distance, dtype=np.float64)
    path = [start]
    for _ in range(len(ahead) - 1):
        ahead[:, path[-1]] = np.inf
        path.append(int(np.argmin(ahead[path[-1]])))
    return np.array(path, dtype=np.int64)


def length_of(distance: ArrayLike, path: ArrayLike) -> float:
    """Sum of the distances between consecutive nodes of a path."""
    path = np.asarray(path, dtype=np.int64)
    return float(np.asarray(distance)[path[:-1], path[1:]].sum())


def _require_distance(distance: ArrayLike) -> Floats:
    matrix = np.asarray(distance, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"distance: expected a square matrix, got shape {matrix.shape}")
    if not (np.isfinite(matrix) & (matrix >= 0)).all() or not np.allclose(matrix, matrix.T):
        raise ValueError("distance: expected a symmetric matrix of finite numbers of at least 0")
    return matrix


def _neighbours(closed: Floats) -> Ints:
    """Nearest nodes of each node, nearest first, shape (n + 1, k)."""
    ahead = closed.copy()
    np.fill_diagonal(ahead, np.inf)
    count = min(NUM_NEIGHBOURS + 1, len(ahead) - 1)
    return np.argsort(ahead, axis=1, kind="stable")[:, :count].astype(np.int64)


@compiled
def turn(tour: Any, position: Any, low: int, high: int) -> None:
    """Reverse the tour from one position on to another one, past the end if need be."""
    size = len(tour)
    inside = (high - low + size) % size + 1
    if 2 * inside > size:  # the rest reversed is the same tour
        low, high = (high + 1) % size, (low - 1 + size) % size
        inside = size - inside
    for _ in range(inside // 2):
        a, b = tour[low], tour[high]
        tour[low], tour[high] = b, a
        position[b], position[a] = low, high
        low = low + 1 if low + 1 < size else 0
        high = high - 1 if high > 0 else size - 1


@compiled
def _next(tour: Any, position: Any, node: int, step: int) -> int:
    at = position[node] + step
    return int(tour[at if at < len(tour) else 0])  # -1 is the last


@compiled
def exchange(tour: Any, position: Any, a: int, b: int, c: int, d: int, log: Any, count: int) -> int:
    """Replace edges a-b and c-d by a-c and b-d; notes what was turned, returns the new count.

    Along the tour b must follow a as d follows c.
    """
    if _next(tour, position, a, 1) == b:
        low, high = position[b], position[c]
    else:
        low, high = position[a], position[d]
    turn(tour, position, low, high)
    log[count, 0], log[count, 1] = low, high
    return count + 1


@compiled
def improve_node(
    d: Any, tour: Any, position: Any, neighbours: Any, a: int, log: Any, count: int, touched: Any
) -> Any:
    """First move that shortens the tour at a node: its gain (0: none) and the new log count.

    `touched` gets the six nodes whose edges have changed.
    """
    for step in (1, -1):
        b = _next(tour, position, a, step)
        for c in neighbours[a]:
            gain = d[a, b] - d[a, c]
            if gain <= _LEAST_GAIN:
                break
            e = _next(tour, position, c, step)
            total = gain + d[c, e] - d[b, e]
            if total > _LEAST_GAIN:
                count = exchange(tour, position, a, b, c, e, log, count)
                touched[:] = np.array([a, b, c, e, a, b])
                return total, count
            # Or-opt: the segment a .. last leaves b and `after` and goes between c and e.
            last = a
            for _ in range(LONGEST_SEGMENT):
                after = _next(tour, position, last, -step)
                if c == last or after == b:
                    break
                cut = gain + d[last, after] - d[b, after]
                for side in (1, -1):
                    e = _next(tour, position, c, side)
                    total = cut + d[c, e] - d[last, e]
                    if total > _LEAST_GAIN and c != b and e != b and (c != after or e != last):
                        x, y = (c, e) if side == -step else (e, c)
                        count = exchange(tour, position, b, a, x, y, log, count)
                        if x != after:
                            count = exchange(tour, position, b, x, after, last, log, count)
                        if x == c:
                            count = exchange(tour, position, x, last, a, y, log, count)
                        touched[:] = np.array([a, b, last, after, c, e])
                        return total, count
                last = after
    return 0.0, count


@compiled
def repair(
    d: Any, tour: Any, position: Any, neighbours: Any, queue: Any, num_queued: int, log: Any,
    count: int,
) -> Any:  # fmt: skip
    """Improve at queued nodes, and at those that change, until nothing helps or the log is full.

    Returns the gain and the new log count. `queue` has room for all nodes.
    """
    size, total = len(tour), 0.0
    waits = np.zeros(size, dtype=np.bool_)
    for k in range(num_queued):
        waits[queue[k]] = True
    touched = np.empty(6, dtype=np.int64)
    head = 0
    while num_queued and count + 3 <= len(log):
        a = queue[head]
        head = head + 1 if head + 1 < size else 0
        num_queued -= 1
        waits[a] = False
        gain, count = improve_node(d, tour, position, neighbours, a, log, count, touched)
        if gain > 0:
            total += gain
            for node in touched:
                if not waits[node]:
                    waits[node] = True
                    queue[(head + num_queued) % size] = node
                    num_queued += 1
    return total, count


@compiled
def kick(d: Any, tour: Any, position: Any, neighbours: Any, draws: Any, log: Any) -> None:
    """Let two neighbouring segments change places and repair; undo what did not help.

    `draws` are random numbers from 0 to 1, shape (kicks, 3).
    """
    size = len(tour)
    longest = max(1, min(LONGEST_KICK, size // 4))
    queue = np.empty(size, dtype=np.int64)
    for draw in draws:
        at = int(draw[0] * size)
        one, two = 1 + int(draw[1] * longest), 1 + int(draw[2] * longest)
        ends = np.array([0, one, one + two])
        before = 0.0
        count = 0
        for k in range(3):
            p = (at + ends[k]) % size
            queue[2 * k], queue[2 * k + 1] = tour[p], tour[(p + 1) % size]
            before += d[queue[2 * k], queue[2 * k + 1]]
        a, b, c, e, f, g = queue[0], queue[1], queue[2], queue[3], queue[4], queue[5]
        first, last = (at + 1) % size, (at + ends[2]) % size
        middle = (first + ends[2] - ends[1]) % size
        for low, high in ((first, last), (first, (middle - 1) % size), (middle, last)):
            turn(tour, position, low, high)
            log[count, 0], log[count, 1] = low, high
            count += 1
        change = d[a, e] + d[f, b] + d[c, g] - before
        num_queued = 0
        for node in np.array([a, b, c, e, f, g]):
            is_new = True
            for k in range(num_queued):
                is_new = is_new and queue[k] != node
            if is_new:
                queue[num_queued] = node
                num_queued += 1
        gain, count = repair(d, tour, position, neighbours, queue, num_queued, log, count)
        if gain < change - _LEAST_GAIN:
            for k in range(count - 1, -1, -1):
                turn(tour, position, log[k, 0], log[k, 1])
