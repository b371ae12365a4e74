"""Which I/O point each bin of a given sequence should go to, if the points need not take turns.

Two points, one pharmacist, service times alike: as in `wardwise.pharmacy.costs` a cycle to the
other point lasts max(c, P), because the bin that stands there is sorted while the pharmacist has
the newest one; the same point again must wait for that one, P + c. What matters for the rest is the
last point and what stands at the other one, so dynamic programming is exact for this sum. Free
points and sequence at once are NP-hard in general (Buckow, Goerigk, Knust, OR Spectrum 47, 2025);
`wardwise.pharmacy.scenarios` does small cases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.pharmacy.timing import compiled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from wardwise.pharmacy.chain import Ints
    from wardwise.pharmacy.costs import Costs
    from wardwise.pharmacy.rack import Floats, Machine


def choose_points(costs: Costs, nodes: ArrayLike) -> tuple[Ints, float]:
    """Best points for a sequence on a machine with two points.

    Parameters
    ----------
    costs
        Pair costs of a machine with two points and one pharmacist.
    nodes
        Sequence of nodes, shape (n,).

    Returns
    -------
    Point of each bin, shape (n,), and the expected seconds until the last line is sorted; the first
    bin goes to point 0 or 1. An upper bound if the points are apart, like `Costs.expected_s`.

    Raises
    ------
    ValueError
        For any other machine.
    """
    machine = costs.machine
    if machine.num_points != 2 or machine.num_pharmacists != 1:
        raise ValueError(
            "machine: expected two points and one pharmacist, got "
            f"{machine.num_points} and {machine.num_pharmacists}"
        )
    sequence = np.asarray(nodes, dtype=np.int64)
    n = len(sequence)
    if not n:
        return np.zeros(0, dtype=np.int64), 0.0
    cells = costs.cells[sequence]
    mean_s, handling_s = costs.service.mean_s, 2 * machine.arm.handling_s
    # From the other point, with nothing to store; and from the same one, whose bin must be sorted.
    reach_s = machine.reach_s[:, cells]
    empty = costs.service.expected_max_s(reach_s.sum(axis=0) + handling_s)
    again = np.full((2, n), np.inf)
    for point in range(2):
        again[point, 1:] = mean_s + machine.cycle_s(point, cells[:-1], cells[1:])
    first = reach_s[0, 0] + reach_s[:, 0] + handling_s
    pair_s = costs.pair_s[:, : len(costs.cells)]
    points = np.empty(n, dtype=np.int64)
    total = _best_points(pair_s, sequence, empty, again, first, points)
    return points, float(total) + mean_s


@compiled
def _best_points(pair: Any, nodes: Any, empty: Any, again: Any, first: Any, points: Any) -> Any:
    """Dynamic programme; `points` is overwritten.

    State: the point of the last position, and one more than the position whose bin stands at the
    other one, 0 if it is empty. Only after a change of points can that be the position before.
    """
    n = len(points)
    value = np.full((2, n + 1), np.inf)
    value[:, 0] = first
    came = np.zeros((n, 2), dtype=np.int64)  # what stood there before the change to each point
    for p in range(1, n):
        change = np.full(2, np.inf)
        for b in range(2):
            for r in range(p):
                cost = pair[b, nodes[r - 1], nodes[p]] if r else empty[p]
                if value[1 - b, r] + cost < change[b]:
                    change[b], came[p, b] = value[1 - b, r] + cost, r
        for a in range(2):
            value[a, :p] += again[a, p]
            value[a, p] = change[a]
    a, r, best = 0, 0, np.inf
    for point in range(2):
        for column in range(n):
            if value[point, column] < best:
                a, r, best = point, column, value[point, column]
    for p in range(n - 1, -1, -1):
        points[p] = a
        if r == p and p:
            r = came[p, a]
            a = 1 - a
    return best


def replay(machine: Machine, cells: ArrayLike, points: ArrayLike, service_s: ArrayLike) -> Floats:
    """Makespan of a sequence with given points in each scenario, shape (S,).

    The recursion of `wardwise.pharmacy.timing` for points in any order.

    Parameters
    ----------
    machine
        With any number of points and pharmacists.
    cells, points
        Cells in the sequence of retrieval and the point of each, shape (n,).
    service_s
        Service time at each position, shape (S, n).
    """
    service = np.asarray(service_s, dtype=np.float64)
    cells = np.asarray(cells, dtype=np.int64)
    handling_s = machine.arm.handling_s
    delivered = np.zeros(len(service))
    done: list[Floats] = []
    standing: dict[int, int] = {}
    at = 0
    for p, point in enumerate(np.asarray(points, dtype=np.int64).tolist()):
        cell = cells[p]
        if point in standing:
            old = standing[point]
            begin = np.maximum(delivered + machine.shift_s[at, point], done[old])
            delivered = begin + machine.cycle_s(point, cells[old], cell)
        else:
            out_s = machine.reach_s[at, cell] + machine.reach_s[point, cell] + 2 * handling_s
            delivered = delivered + out_s
        q = machine.num_pharmacists
        begin = delivered if p < q else np.maximum(delivered, done[p - q])
        done.append(begin + service[:, p])
        standing[point], at = p, point
    return np.max(done, axis=0) if done else delivered
