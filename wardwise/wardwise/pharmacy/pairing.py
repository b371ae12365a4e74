"""Which storage job goes with which retrieval into one dual command.

With one I/O point every dual command begins and ends there, so its costs do not depend on the
others: an assignment problem (van den Berg and Gademann, IIE Transactions 31(5), 1999). If loads
may be stored in any open cell, retrieved cells become open later: an assignment without cycles
(Lee and Schaefer, IJPR 34(10), 1996). Rules to compare with: Han, McGinnis, Shieh and White, IIE
Transactions 19(1), 1987.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from wardwise.pharmacy.chain import Ints
    from wardwise.pharmacy.rack import Cells, Floats, Machine

METHODS = ("optimal", "nearest", "perimeter", "first-come")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Dual commands, in the sequence in which they are to be run.

    Parameters
    ----------
    stored, retrieved
        Cells of each dual command, shape (n,).
    travel_s
        Travel of all of them, and of the single commands for jobs without a partner.
    bound_s
        No pairs travel less than this; 0 where none is known.
    """

    stored: Cells
    retrieved: Cells
    travel_s: float
    bound_s: float

    @property
    def is_optimal(self) -> bool:
        """Whether it is proven that there is no less travel."""
        return self.travel_s <= self.bound_s + 1e-9


def pair_jobs(
    machine: Machine,
    stored: ArrayLike,
    retrieved: ArrayLike,
    *,
    method: str = "optimal",
    point: int = 0,
) -> Pairs:
    """Pair storage jobs that have their cells with retrievals.

    Parameters
    ----------
    machine
        Travel times.
    stored, retrieved
        Cells to go to, shapes (s,) and (r,); the shorter list finds partners for all.
    method
        ``optimal``: assignment; ``nearest``: each storage in turn takes the retrieval nearest to
        it; ``perimeter``: the pair with the shortest round trip first; ``first-come``: as listed.
    point
        I/O point of all jobs.

    Raises
    ------
    ValueError
        On an unknown method or point, or a cell outside of the rack.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    stores, fetches = (
        _require_cells(machine, name, cells)
        for name, cells in (("stored", stored), ("retrieved", retrieved))
    )
    reach_s = _reach(machine, point)
    between_s = machine.between_s[np.ix_(stores, fetches)]
    # A pair saves the way home and out again: most savings is least travel.
    saved_s = reach_s[stores][:, None] + reach_s[fetches] - between_s
    if method == "optimal":
        # Where all find partners the ways home cancel out, which SciPy solves three times faster.
        is_even = len(stores) == len(fetches)
        row, column = linear_sum_assignment(between_s if is_even else -saved_s)
    elif method == "first-come":
        row = column = np.arange(min(saved_s.shape))
    elif method == "nearest":
        row, column = _nearest(between_s)
    else:
        row, column = _shortest_first(reach_s[stores][:, None] + reach_s[fetches] + between_s)
    alone_s = 2 * (reach_s[stores].sum() + reach_s[fetches].sum())
    travel_s = float(alone_s - saved_s[row, column].sum())
    return Pairs(
        stored=stores[row], retrieved=fetches[column], travel_s=travel_s,
        bound_s=travel_s if method == "optimal" else 0.0,
    )  # fmt: skip


def pair_shared(
    machine: Machine,
    retrieved: ArrayLike,
    open_cells: ArrayLike,
    *,
    point: int = 0,
    max_nodes: int = 200,
) -> Pairs:
    """Store one load before each retrieval, in any cell that is open by then.

    The assignment of places to retrievals is a lower bound; where it wants a place before it is
    open, the cycle is broken by the cheapest exchange of two places, and branching on the arcs of a
    cycle proves or improves the result.

    Parameters
    ----------
    machine
        Travel times.
    retrieved
        Cells to empty, each once, shape (n,); a load is stored before each.
    open_cells
        Cells that are open from the start, at least one.
    point
        I/O point of all jobs.
    max_nodes
        Limit on the assignments that are solved, at least 1.

    Raises
    ------
    ValueError
        If cells repeat or none is open, or as `pair_jobs`.
    """
    fetches = _require_cells(machine, "retrieved", retrieved)
    opens = _require_cells(machine, "open_cells", open_cells)
    places = np.concatenate([fetches, opens])
    if len(set(places.tolist())) < len(places):
        raise ValueError("retrieved, open_cells: expected each cell once")
    if not len(opens):
        raise ValueError("open_cells: expected at least one")
    if max_nodes < 1:
        raise ValueError(f"max_nodes: expected at least 1, got {max_nodes}")
    reach_s = _reach(machine, point)
    trips_s = (
        reach_s[fetches][:, None] + reach_s[places] + machine.between_s[np.ix_(fetches, places)]
    )
    place_of, travel_s, bound_s = _without_cycles(trips_s, max_nodes)
    order = _in_time(place_of)
    return Pairs(
        stored=places[place_of[order]], retrieved=fetches[order], travel_s=travel_s,
        bound_s=bound_s,
    )  # fmt: skip


def _without_cycles(trips_s: Floats, max_nodes: int) -> tuple[Ints, float, float]:
    """Place of each retrieval, total and lower bound: branch and bound, least bound first."""
    everyone = np.arange(len(trips_s))
    first_s = trips_s.copy()
    first_s[everyone, everyone] = np.inf  # a cell is emptied after its load is stored
    best, best_s = np.zeros(0, dtype=np.int64), np.inf
    heap: list[tuple[float, int, Floats, Ints]] = []
    count = 0

    def add(cost_s: Floats) -> None:
        nonlocal best, best_s, count
        count += 1
        try:
            place_of = linear_sum_assignment(cost_s)[1]
        except ValueError:  # nothing is left to assign
            return
        heapq.heappush(heap, (trips_s[everyone, place_of].sum(), count, cost_s, place_of))
        repaired = _break_cycles(trips_s, place_of)
        total_s = trips_s[everyone, repaired].sum()
        if total_s < best_s:
            best, best_s = repaired, total_s

    add(first_s)
    while heap and heap[0][0] < best_s - 1e-9 and count < max_nodes:
        _, _, cost_s, place_of = heapq.heappop(heap)
        cycle = _cycles(place_of)[0]
        # In every plan one arc of the cycle is missing; those before it can then be taken as kept.
        for k, node in enumerate(cycle):
            child = cost_s.copy()
            child[node, place_of[node]] = np.inf
            for kept in cycle[:k]:
                wanted = child[kept, place_of[kept]]
                child[kept], child[:, place_of[kept]] = np.inf, np.inf
                child[kept, place_of[kept]] = wanted
            add(child)
    bound_s = min(best_s, heap[0][0]) if heap else best_s
    return best, float(best_s), float(bound_s)


def _cycles(place_of: Ints) -> list[list[int]]:
    """Cycles of retrievals that wait for each other's cells, shortest first."""
    n, found = len(place_of), []
    seen = np.zeros(n, dtype=bool)
    for start in range(n):
        path, node = [], start
        while node < n and not seen[node]:
            seen[node] = True
            path.append(node)
            node = int(place_of[node])
        if node in path:
            found.append(path[path.index(node) :])
    return sorted(found, key=len)


def _break_cycles(trips_s: Floats, place_of: Ints) -> Ints:
    """Merge each cycle with a chain that begins at an open cell, by the cheapest exchange."""
    n, place_of = len(trips_s), place_of.copy()
    while cycles := _cycles(place_of):
        cycle = np.array(cycles[0])
        own_s = trips_s[cycle, place_of[cycle]][:, None]
        # Each place is used once, so what is in no cycle is in a chain.
        others = np.setdiff1d(np.arange(n), np.concatenate(cycles))
        extra_s = trips_s[np.ix_(cycle, place_of[others])] - own_s
        extra_s += (trips_s[np.ix_(others, place_of[cycle])]).T - trips_s[others, place_of[others]]
        unused = np.setdiff1d(np.arange(n, trips_s.shape[1]), place_of)
        extra_s = np.hstack([extra_s, trips_s[np.ix_(cycle, unused)] - own_s])
        row, column = np.unravel_index(int(np.argmin(extra_s)), extra_s.shape)
        node = cycle[row]
        if column < len(others):
            other = others[column]
            place_of[[node, other]] = place_of[[other, node]]
        else:
            place_of[node] = unused[column - len(others)]
    return place_of


def _in_time(place_of: Ints) -> list[int]:
    """Sequence in which every place is open when it is wanted."""
    n, order = len(place_of), []
    done: set[int] = set()
    for start in range(n):
        path, node = [], start
        while node < n and node not in done:
            path.append(node)
            done.add(node)
            node = int(place_of[node])
        order += path[::-1]
    return order


def _nearest(between_s: Floats) -> tuple[Ints, Ints]:
    ahead, count = between_s.copy(), min(between_s.shape)
    column = np.empty(count, dtype=np.int64)
    for row in range(count):
        column[row] = int(np.argmin(ahead[row]))
        ahead[:, column[row]] = np.inf
    return np.arange(count), column


def _shortest_first(trips_s: Floats) -> tuple[Ints, Ints]:
    ahead, chosen = trips_s.copy(), []
    for _ in range(min(ahead.shape)):
        row, column = np.unravel_index(int(np.argmin(ahead)), ahead.shape)
        chosen.append((int(row), int(column)))
        ahead[row], ahead[:, column] = np.inf, np.inf
    pairs = np.array(chosen, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _reach(machine: Machine, point: int) -> Floats:
    if not 0 <= point < machine.num_points:
        raise ValueError(f"point: expected 0 to {machine.num_points - 1}, got {point}")
    return np.asarray(machine.reach_s[point])


def _require_cells(machine: Machine, name: str, cells: ArrayLike) -> Cells:
    array = np.asarray(cells, dtype=np.int64).reshape(-1)
    if len(array) and not 0 <= array.min() <= array.max() < machine.rack.num_cells:
        raise ValueError(f"{name}: expected cells from 0 to {machine.rack.num_cells - 1}")
    return array
