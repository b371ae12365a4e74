"""What it costs to fetch one bin after another: the pair costs that sequences are made of.

With m I/O points used in turn, the bin at position p is fetched in the cycle that stores the bin of
position p - m. The expected makespan of a sequence is then a sum over pairs::

    m = 1   sum of c(i, j), and the service times: they do not depend on the sequence
    m = 2   first delivery + sum of w(c(i, j) + shift) + one service time, w(c) = E[max(c, P)]

For two points at one place and one pharmacist the second line is exact: arm and pharmacist go in
lockstep. For points apart it is an upper bound, for more pharmacists too; for three points and more
the same sum is what sequences are compared by. The classical two-place system is Bozer and White,
Management Science 36(7), 1990; the interleaved paths are Baardman et al., Transportation Science
2021, here with random service times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from wardwise.pharmacy.rack import Cells, Floats, Machine
    from wardwise.pharmacy.service_time import ServiceTime


@dataclass(frozen=True, kw_only=True, eq=False)
class Costs:
    """Pair costs between the cells of a day.

    Nodes number the cells, from 0; three nodes more can stand where a sequence starts: `empty`, an
    empty point; `free`, which costs nothing; and `any_bin`, of which nothing is known.

    Parameters
    ----------
    machine, service
        What the costs are made of.
    cells
        Cell of each node, ascending, shape (U,).
    keeps_bins
        With one point: a bin that is wanted again next stays there, at no cost.
    """

    machine: Machine
    service: ServiceTime
    cells: Cells
    keeps_bins: bool = False

    def __post_init__(self) -> None:
        if self.keeps_bins and self.machine.num_points > 1:
            raise ValueError(
                "keeps_bins: expected a machine with one I/O point, got "
                f"{self.machine.num_points} points"
            )

    @property
    def num_points(self) -> int:
        """Points m: the bin that is stored stands m positions before."""
        return self.machine.num_points

    @property
    def empty(self) -> int:
        """Node of an empty point."""
        return len(self.cells)

    @property
    def free(self) -> int:
        """Node after which any bin costs nothing."""
        return len(self.cells) + 1

    @property
    def any_bin(self) -> int:
        """Node of a bin that may be any of the day's, each as likely: costs are means."""
        return len(self.cells) + 2

    @property
    def is_exact(self) -> bool:
        """Whether sums of pair costs are expected makespans exactly, and no bound."""
        m = self.num_points
        at_one_place = not self.machine.shift_s.any()
        return m == 1 or (m == 2 and at_one_place and self.machine.num_pharmacists == 1)

    @cached_property
    def pair_s(self) -> Floats:
        """Cost in seconds by point, stored node and fetched node; shape (m, U + 3, U)."""
        machine, m, size = self.machine, self.num_points, len(self.cells)
        pair_s = np.zeros((m, size + 3, size))
        # Upper half only: a cycle takes as long the other way round.
        upper = np.triu_indices(size)
        row, column = self.cells[upper[0]], self.cells[upper[1]]
        for point in range(m):
            cycle_s = machine.cycle_s(point, row, column) + machine.shift_s[point - 1, point]
            cost_s = cycle_s if m == 1 else self.service.expected_max_s(cycle_s)
            pair_s[point][upper] = cost_s
            pair_s[point][upper[1], upper[0]] = cost_s
            pair_s[point, size] = self._first_s(point)
            pair_s[point, size + 2] = pair_s[point, :size].sum(axis=0) / max(1, size)
        if self.keeps_bins:
            np.fill_diagonal(pair_s[0], 0.0)
        return pair_s

    def _first_s(self, point: int) -> Floats:
        """Cost of each node where nothing is to be stored."""
        machine, cells = self.machine, self.cells
        if point == 0:  # nobody sorts yet
            return machine.fetch_s(0, cells)
        reach_s = machine.reach_s[point - 1, cells] + machine.reach_s[point, cells]
        return self.service.expected_max_s(reach_s + 2 * machine.arm.handling_s)

    def nodes_of(self, cells: ArrayLike) -> Cells:
        """Node of each cell."""
        return np.searchsorted(self.cells, np.asarray(cells, dtype=np.int64))

    def before(self, nodes: ArrayLike, standing: ArrayLike | None = None) -> Cells:
        """Node that is stored when each node of a sequence is fetched, shape (n,).

        Parameters
        ----------
        nodes
            Sequence of nodes, shape (n,).
        standing
            Nodes at the points at the start, oldest first, shape (m,); None: all empty.
        """
        m, sequence = self.num_points, np.asarray(nodes, dtype=np.int64)
        first = np.full(m, self.empty) if standing is None else np.asarray(standing)
        return np.concatenate([first, sequence])[: len(sequence)].astype(np.int64)

    def of_pairs(self, nodes: ArrayLike, standing: ArrayLike | None = None) -> Floats:
        """Cost of each position of a sequence, shape (n,); parameters as of `before`."""
        sequence = np.asarray(nodes, dtype=np.int64)
        point = np.arange(len(sequence)) % self.num_points
        return self.pair_s[point, self.before(sequence, standing), sequence]

    def expected_s(self, nodes: ArrayLike) -> float:
        """Expected seconds until the last line is sorted, machine empty at the start.

        Exact if `is_exact`.
        """
        sequence = np.asarray(nodes, dtype=np.int64)
        if not len(sequence):
            return 0.0
        sorting = len(sequence) if self.num_points == 1 else 1
        return float(self.of_pairs(sequence).sum() + sorting * self.service.mean_s)


def costs_of(
    machine: Machine, service: ServiceTime, cells: ArrayLike, *, keeps_bins: bool = False
) -> Costs:
    """Pair costs between the cells that are named, in any sequence and as often as you like.

    Raises
    ------
    ValueError
        If a cell is not in the rack, or `keeps_bins` with several points.
    """
    unique = np.unique(np.asarray(cells, dtype=np.int64))
    if len(unique) and not 0 <= unique[0] <= unique[-1] < machine.rack.num_cells:
        raise ValueError(
            f"cells: expected 0 to {machine.rack.num_cells - 1}, got {unique[0]} to {unique[-1]}"
        )
    return Costs(machine=machine, service=service, cells=unique, keeps_bins=keeps_bins)
