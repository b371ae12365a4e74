"""In which cell each drug should lie: by popularity, and by what is wanted together.

By popularity alone the problem is an assignment whose costs are products, demand times the way to
the cell: the most popular drug gets the nearest cell (rearrangement inequality). Drugs that are
prescribed together should lie close, too: a quadratic assignment problem, NP-hard; from the best
assignment by popularity pairs of drugs change cells as long as that helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from wardwise.pharmacy.timing import compiled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike

    from wardwise.pharmacy.rack import Cells, Floats, Machine

MAX_SWEEPS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class Storage:
    """Where drugs should lie, and what that is worth before anything is moved.

    Parameters
    ----------
    cells
        New cell of each drug, shape (drugs,).
    before_s, after_s
        Expected travel of the arm for all orders, with lines in random sequence: to and from the
        I/O points, and between bins that follow each other.
    num_moved
        Drugs whose cell changes.
    """

    cells: Cells
    before_s: float
    after_s: float
    num_moved: int

    @property
    def gain(self) -> float:
        """Share of the travel that is saved."""
        return 1 - self.after_s / self.before_s if self.before_s else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """What orders ask of the rack.

    Parameters
    ----------
    lines
        Lines of each drug, shape (drugs,).
    follows
        How often two drugs are expected to follow each other, symmetric, shape (drugs, drugs).
    """

    lines: Floats
    follows: csr_matrix


def demand_of(orders: Iterable[Sequence[int]], num_drugs: int) -> Demand:
    """Demand of a log of orders, served one after the other with lines in random sequence.

    In an order of n lines two given ones are neighbours with probability 2/n; the last of one order
    and the first of the next are each pair of their lines with equal probability.

    Parameters
    ----------
    orders
        Drugs of each order, numbers from 0.
    num_drugs
        Drugs in all.
    """
    lines = np.zeros(num_drugs)
    row: list[int] = []
    column: list[int] = []
    weight: list[float] = []
    before: Sequence[int] = ()
    for order in orders:
        if order and not 0 <= min(order) <= max(order) < num_drugs:
            raise ValueError(f"orders: expected drugs from 0 to {num_drugs - 1}, got {order}")
        for k, a in enumerate(order):
            lines[a] += 1
            together = [(b, 2 / len(order)) for b in order[k + 1 :]]
            for b, share in together + [(b, 1 / len(order) / len(before)) for b in before]:
                if a != b:
                    row += [a, b]
                    column += [b, a]
                    weight += [share, share]
        before = order or before
    return Demand(lines=lines, follows=csr_matrix((weight, (row, column)), (num_drugs,) * 2))


def expected_travel_s(machine: Machine, demand: Demand, cells: ArrayLike) -> float:
    """Expected travel for all orders with drugs in these cells, see `Storage`."""
    array = np.asarray(cells, dtype=np.int64)
    pairs = demand.follows.tocoo()
    between_s = machine.between_s[array[pairs.row], array[pairs.col]]
    return float(2 * (demand.lines * _reach(machine)[array]).sum() + between_s @ pairs.data / 2)


def by_popularity(machine: Machine, demand: Demand, cells: ArrayLike) -> Storage:
    """The more popular a drug, the nearer its cell to the I/O points.

    Parameters
    ----------
    machine
        Travel times; with several points the mean way to all of them counts.
    demand
        Of the drugs.
    cells
        Cell of each drug now, shape (drugs,); the same cells are given out anew.

    Raises
    ------
    ValueError
        If the cells are not those of the drugs, or repeat.
    """
    array = _require_cells(machine, demand, cells)
    new = np.empty_like(array)
    ways = array[np.argsort(_reach(machine)[array], kind="stable")]
    new[np.argsort(-demand.lines, kind="stable")] = ways
    return _storage(machine, demand, array, new)


def by_correlation(machine: Machine, demand: Demand, cells: ArrayLike) -> Storage:
    """Popular drugs near the points and drugs of the same orders near each other.

    Starts with `by_popularity`, or the cells of now if they are better; parameters as there.
    """
    array = _require_cells(machine, demand, cells)
    popular = by_popularity(machine, demand, array)
    new = (popular.cells if popular.after_s <= popular.before_s else array).copy()
    follows = demand.follows
    swap_cells(
        machine.between_s, _reach(machine), demand.lines, follows.indptr, follows.indices,
        follows.data, new, MAX_SWEEPS,
    )  # fmt: skip
    return _storage(machine, demand, array, new)


def _storage(machine: Machine, demand: Demand, old: Cells, new: Cells) -> Storage:
    return Storage(
        cells=new,
        before_s=expected_travel_s(machine, demand, old),
        after_s=expected_travel_s(machine, demand, new),
        num_moved=int((old != new).sum()),
    )


def _reach(machine: Machine) -> Floats:
    return np.asarray(machine.reach_s.mean(axis=0))


def _require_cells(machine: Machine, demand: Demand, cells: ArrayLike) -> Cells:
    array = np.asarray(cells, dtype=np.int64)
    if array.shape != demand.lines.shape:
        raise ValueError(f"cells: expected shape {demand.lines.shape}, got {array.shape}")
    if len(np.unique(array)) < len(array):
        raise ValueError("cells: expected each cell once")
    if len(array) and not 0 <= array.min() <= array.max() < machine.rack.num_cells:
        raise ValueError(f"cells: expected 0 to {machine.rack.num_cells - 1}")
    return array


@compiled
def swap_cells(
    between: Any, reach: Any, lines: Any, start: Any, other: Any, weight: Any, cells: Any,
    max_sweeps: int,
) -> None:  # fmt: skip
    """Let pairs of drugs change cells while that helps; `cells` is overwritten.

    Parameters
    ----------
    between, reach
        Travel between cells and to the points, by cell.
    lines
        Lines of each drug.
    start, other, weight
        Compressed rows of `Demand.follows`.
    cells
        Cell of each drug.
    max_sweeps
        Limit on passes over all pairs.
    """
    for _ in range(max_sweeps):
        helped = False
        for a in range(len(cells)):
            for b in range(a + 1, len(cells)):
                x, y = cells[a], cells[b]
                gain = 2 * (lines[a] - lines[b]) * (reach[x] - reach[y])
                for drug, here, there in ((a, x, y), (b, y, x)):
                    for k in range(start[drug], start[drug + 1]):
                        if other[k] != a and other[k] != b:
                            cell = cells[other[k]]
                            gain += weight[k] * (between[here, cell] - between[there, cell])
                if gain > 1e-9:
                    cells[a], cells[b] = y, x
                    helped = True
        if not helped:
            break
