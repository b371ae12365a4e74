"""When each bin is delivered and sorted: exact recursions for any service times.

Bins are fetched in a given sequence and use the m I/O points in turn; the q pharmacists take them
in turn. The machine starts empty with the arm at the first point. Bin k can start once the arm is
there and the bin that stands on its point is sorted::

    D_k = max(D_(k-1) + t(A_(k-1), A_k), F_(k-m)) + (store bin k-m, fetch bin k)
    F_k = max(F_(k-q), D_k) + P_k

The last m bins go back after the last line is sorted; that is arm work and no picking time. Times
never fall when a cycle or a service grows. Turns have a price, though: with four points and more, a
third pharmacist may take a bin later than two would have done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from wardwise.pharmacy.rack import Floats, Machine

compiled: Any = njit(cache=True, nogil=True)
# Replications that are run side by side: what fills a cache line, and was fastest of 1 to 16.
ABREAST = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """Times of the n lines of a sequence in R replications, in seconds from the start.

    Parameters
    ----------
    delivered_s, sorted_s
        When a bin stands at its point, and when the pharmacist is done with it; shape (R, n).
    """

    delivered_s: Floats
    sorted_s: Floats

    @property
    def makespan_s(self) -> Floats:
        """When the last line is sorted, shape (R,)."""
        return np.asarray(self.sorted_s.max(axis=1))

    def completed_s(self, sizes: ArrayLike) -> Floats:
        """When each order is complete, shape (R, orders).

        Parameters
        ----------
        sizes
            Lines of each order, at least 1 each, in the order of the sequence.
        """
        starts = np.concatenate([[0], np.cumsum(np.asarray(sizes))[:-1]])
        return np.asarray(np.maximum.reduceat(self.sorted_s, starts, axis=1))


def arm_times(machine: Machine, cells: ArrayLike) -> tuple[Floats, Floats]:
    """Seconds that the arm needs for each line of a sequence.

    Parameters
    ----------
    machine
        The machine.
    cells
        Cells in the sequence of retrieval, shape (n,).

    Returns
    -------
    Arrays of shape (n,): the cycle of each line (store the bin that stands on the point, if there
    is one, and fetch the next), and the move from the point before.
    """
    sequence = np.asarray(cells, dtype=np.int64)
    n, m = len(sequence), machine.num_points
    point = np.arange(n) % m
    before = np.concatenate([[0], point[:-1]]) if n else point
    handling_s = machine.arm.handling_s
    reach_s = machine.reach_s[point, sequence]
    # Nothing stands on the first m points: the arm goes out from where it is.
    out_s = machine.reach_s[before, sequence] + 2 * handling_s
    stored = sequence[: max(0, n - m)]
    back_s = machine.reach_s[point[m:], stored] + machine.between_s[stored, sequence[m:]]
    out_s[m:] = back_s + 4 * handling_s
    shift_s = machine.shift_s[before, point]
    shift_s[:m] = 0.0
    return out_s + reach_s, shift_s


def simulate(machine: Machine, cells: ArrayLike, service_s: ArrayLike) -> Timeline:
    """Times of a sequence for given service times.

    Parameters
    ----------
    machine
        The machine.
    cells
        Cells in the sequence of retrieval, shape (n,).
    service_s
        Seconds that the pharmacist takes for each line, shape (R, n): with the same times for
        several sequences or machines, their differences are not luck (common random numbers).

    Raises
    ------
    ValueError
        If the shapes do not go together, a cell is not in the rack, or a time is negative.
    """
    sequence, service = np.asarray(cells, dtype=np.int64), np.asarray(service_s, dtype=np.float64)
    if service.ndim != 2 or service.shape[1:] != sequence.shape:
        raise ValueError(
            f"service_s: expected shape (replications, {len(sequence)}), got {service.shape}"
        )
    if len(sequence) and not 0 <= sequence.min() <= sequence.max() < machine.rack.num_cells:
        raise ValueError(f"cells: expected 0 to {machine.rack.num_cells - 1}")
    if not service.min(initial=0.0) >= 0:
        raise ValueError("service_s: expected times of at least 0")
    cycle_s, shift_s = arm_times(machine, sequence)
    delivered_s, sorted_s = np.empty_like(service), np.empty_like(service)
    recur(
        cycle_s,
        shift_s,
        service,
        machine.num_points,
        machine.num_pharmacists,
        delivered_s,
        sorted_s,
    )
    return Timeline(delivered_s=delivered_s, sorted_s=sorted_s)


@njit(inline="always", nogil=True)
def _recur_abreast(
    cycle_s: Any, shift_s: Any, service_s: Any, m: int, q: int, delivered_s: Any, sorted_s: Any,
    at: Any, width: int,
) -> None:  # fmt: skip
    """Line by line for a few replications: each waits for its own line before, not for others."""
    at[:] = 0.0
    for k in range(service_s.shape[1]):
        for r in range(width):
            start = at[r] + shift_s[k]
            if k >= m:
                start = max(start, sorted_s[r, k - m])
            at[r] = start + cycle_s[k]
            begin = at[r] if k < q else max(at[r], sorted_s[r, k - q])
            delivered_s[r, k], sorted_s[r, k] = at[r], begin + service_s[r, k]


@compiled
def recur(
    cycle_s: Any, shift_s: Any, service_s: Any, m: int, q: int, delivered_s: Any, sorted_s: Any
) -> None:
    """Run the recursion of every replication; the last two arrays are overwritten.

    Parameters
    ----------
    cycle_s, shift_s
        As `arm_times` gives them, shape (n,).
    service_s, delivered_s, sorted_s
        Shape (R, n).
    m, q
        Points and pharmacists.
    """
    num = service_s.shape[0]
    whole = num - num % ABREAST
    at = np.empty(ABREAST)
    for r in range(0, whole, ABREAST):
        rows = slice(r, r + ABREAST)
        _recur_abreast(
            cycle_s, shift_s, service_s[rows], m, q, delivered_s[rows], sorted_s[rows], at, ABREAST
        )
    for r in range(whole, num):
        rows = slice(r, r + 1)
        _recur_abreast(
            cycle_s, shift_s, service_s[rows], m, q, delivered_s[rows], sorted_s[rows], at, 1
        )
