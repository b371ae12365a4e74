"""Mean travel times of an arm whose axes move together, in closed form.

For one I/O point at a corner, random storage and no acceleration (Bozer and White, IIE Transactions
16(4), 1984): T is the time to the farther end of the rack, and b, the shape factor, the time to the
nearer end over T. `exact_means` enumerates the cells of a real rack instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wardwise.pharmacy.rack import Machine


@dataclass(frozen=True, kw_only=True)
class MeanTimes:
    """Means over uniformly random cells, in seconds.

    Parameters
    ----------
    single_command_s
        To a random cell and back, without handling.
    between_s
        From one random cell to another one.
    dual_command_s
        To a random cell, to another one, and back, without handling.
    """

    single_command_s: float
    between_s: float
    dual_command_s: float


def bozer_white(horizontal_s: float, vertical_s: float) -> MeanTimes:
    """Means for a continuous rack with the I/O point at its corner.

    Parameters
    ----------
    horizontal_s, vertical_s
        Times to the ends of the rack along each axis, at least 0 and not both 0.
    """
    longer_s = max(horizontal_s, vertical_s)
    if min(horizontal_s, vertical_s) < 0 or longer_s == 0:
        raise ValueError(
            f"expected times of at least 0, not both 0, got {horizontal_s} and {vertical_s}"
        )
    b = min(horizontal_s, vertical_s) / longer_s
    return MeanTimes(
        single_command_s=longer_s * (1 + b**2 / 3),
        between_s=longer_s * (1 / 3 + b**2 / 6 - b**3 / 30),
        dual_command_s=longer_s * (4 / 3 + b**2 / 2 - b**3 / 30),
    )


def exact_means(machine: Machine, point: int = 0) -> MeanTimes:
    """Means over all cells, and over all pairs of different cells, of a real rack."""
    num_cells = machine.rack.num_cells
    one_way_s = float(machine.reach_s[point].mean())
    pairs = max(1, num_cells * (num_cells - 1))
    between_s = float(machine.between_s.sum() / pairs)
    return MeanTimes(
        single_command_s=2 * one_way_s, between_s=between_s,
        dual_command_s=2 * one_way_s + between_s,
    )  # fmt: skip


def popular_first_one_way(skew: float) -> float:
    """Mean one-way time over T when drugs are stored by popularity, nearest first.

    One bin a drug, a rack that is square in time, and demand of the fraction i of drugs that are
    most popular ``i^skew``: ``2 s / (2 s + 1)``, 2/3 for s = 1 (all alike).

    Parameters
    ----------
    skew
        s, above 0 and at most 1.
    """
    if not 0 < skew <= 1:
        raise ValueError(f"skew: expected a number above 0 and at most 1, got {skew}")
    return 2 * skew / (2 * skew + 1)


def eoq_one_way(skew: float) -> float:
    """The same when a drug takes space by its economic order quantity: ``4 s / (5 s + 1)``.

    Hausman, Schwarz and Graves, Management Science 22(6), 1976.
    """
    if not 0 < skew <= 1:
        raise ValueError(f"skew: expected a number above 0 and at most 1, got {skew}")
    return 4 * skew / (5 * skew + 1)


def cyclic_queue_rate(arm_s: float, service_s: float, num_points: int) -> float:
    """Bins a second of arm and pharmacist with exponential times and m places between them.

    Closed queue with two stations: ``mu (1 - r^m) / (1 - r^(m+1))`` with the arm's rate mu and r
    the arm's rate over the pharmacist's.
    """
    if arm_s <= 0 or service_s <= 0 or num_points < 1:
        raise ValueError(
            f"expected times above 0 and at least 1 point, got {arm_s}, {service_s}, {num_points}"
        )
    ratio = service_s / arm_s
    powers = ratio ** np.arange(num_points + 1)
    return float(powers[:-1].sum() / powers.sum() / arm_s)
