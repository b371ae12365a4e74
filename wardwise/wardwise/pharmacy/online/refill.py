"""Storing new packs while the arm would wait anyway.

Between two deliveries the arm waits (P - c)^+ for the pharmacist. A refill of r seconds in that gap
delays the next bin by E[max(c + r, P)] - E[max(c, P)] on average: nothing for a quick refill behind
a slow sort. Refills that wait are paired with the next gaps so that the sum of delays is least
(linear assignment); what is paired with the gap at hand may be done now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.pharmacy.rack import Floats, Machine
    from wardwise.pharmacy.service_time import ServiceTime

SLOPE_S = 0.01  # step of the slope of E[max(c, P)], which is P's distribution function


def refill_s(machine: Machine, point: int, cells: Sequence[int]) -> Floats:
    """Seconds of the arm for refills that begin and end at a point; bins wait at the first one."""
    cell = np.asarray(cells, dtype=np.int64)
    back_s = machine.reach_s[0, cell] + machine.reach_s[point, cell]
    return np.asarray(machine.shift_s[point, 0] + back_s + 2 * machine.arm.handling_s)


def delay_now_s(service: ServiceTime, sorting_s: float, refills_s: Floats) -> Floats:
    """Expected delay of each refill begun now, while a bin is being sorted for `sorting_s`.

    E[(r - R)^+] with R the rest of the sorting time, given that it is not over yet.
    """
    at = np.array([sorting_s - SLOPE_S, sorting_s, sorting_s + SLOPE_S])
    low, here, high = service.expected_max_s(np.maximum(at, 0.0))
    over = (high - low) / (at[2] - max(at[0], 0.0))
    if over > 1 - 1e-9:  # it takes longer than it ever should: it may end at any moment
        return np.asarray(refills_s, dtype=np.float64)
    later = service.expected_max_s(sorting_s + refills_s)
    delay_s = (later - here - refills_s * over) / (1 - over)
    return np.asarray(np.clip(delay_s, 0.0, refills_s))


def delay_later_s(service: ServiceTime, cycles_s: Floats, refills_s: Floats) -> Floats:
    """Expected delay of each refill in the gap after each coming cycle, shape (refills, gaps)."""
    longer = service.expected_max_s(cycles_s + refills_s[:, None])
    return np.asarray(longer - service.expected_max_s(cycles_s))


def pair_now(now_s: Floats, later_s: Floats) -> tuple[int, float] | None:
    """The refill that the best pairing gives to the gap at hand, and its delay; None: another time.

    Parameters
    ----------
    now_s
        Delay of each refill in the gap at hand, shape (refills,).
    later_s
        The same in the gaps that follow, shape (refills, gaps).
    """
    costs = np.column_stack([now_s, later_s])
    rows, columns = linear_sum_assignment(costs)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if column == 0:
            return row, float(now_s[row])
    return None
