"""What the dispensing machine holds and what is asked of it.

Every object is checked when it is built. Times are seconds from the start of the day.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import date  # noqa: TC003, readers of files need the types
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.rack import Cells, Machine
from wardwise.pharmacy.service_time import Lognormal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wardwise.pharmacy.service_time import ServiceTime


class Priority(StrEnum):
    """How urgent an order is, most urgent first."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


def _require_id(what: str, value: str) -> None:
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(f"{what}: id: expected printable text without outer spaces, got {value!r}")


def _require_unique(what: str, ids: Iterable[str]) -> None:
    for value, count in Counter(ids).items():
        if count > 1:
            raise ValueError(f"{what}: id: {value!r} stands {count} times")


@dataclass(frozen=True, kw_only=True)
class Bin:
    """A bin in its cell: packs of one drug and one lot.

    Parameters
    ----------
    id, drug
        Its name, and the drug's.
    cell
        Where it belongs, see `wardwise.pharmacy.rack`.
    quantity
        Packs, at least 0.
    lot, expiry
        Lot and the last day of use, where known.
    is_recalled
        Nothing may be taken from it.
    """

    id: str
    drug: str
    cell: int
    quantity: int = 1_000_000
    lot: str = ""
    expiry: date | None = None
    is_recalled: bool = False

    def __post_init__(self) -> None:
        _require_id("bin", self.id)
        _require_id(f"bin {self.id}: drug", self.drug)
        for name in ("cell", "quantity"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"bin {self.id}: {name}: expected at least 0, got {getattr(self, name)}"
                )


@dataclass(frozen=True, kw_only=True)
class Line:
    """One drug of an order.

    Parameters
    ----------
    drug
        What is wanted.
    quantity
        Packs, at least 1.
    min_expiry
        Last day of use that is acceptable at the earliest.
    is_manual
        Taken by hand from a shelf, fridge or safe: the machine has no part in it.
    manual_s
        Seconds that this takes, at least 0; only with manual lines.
    """

    drug: str
    quantity: int = 1
    min_expiry: date | None = None
    is_manual: bool = False
    manual_s: float = 0.0

    def __post_init__(self) -> None:
        _require_id("line: drug", self.drug)
        if self.quantity < 1:
            raise ValueError(
                f"line {self.drug}: quantity: expected at least 1, got {self.quantity}"
            )
        if not (math.isfinite(self.manual_s) and self.manual_s >= 0):
            raise ValueError(
                f"line {self.drug}: manual_s: expected a finite number of at least 0, "
                f"got {self.manual_s}"
            )
        if self.manual_s > 0 and not self.is_manual:
            raise ValueError(f"line {self.drug}: manual_s: expected only with is_manual")


@dataclass(frozen=True, kw_only=True)
class Order:
    """A prescription: lines that are handed out together.

    Parameters
    ----------
    id
        Its name.
    lines
        At least one; a drug stands in one line only.
    priority
        How urgent it is.
    release_s
        When it becomes known, at least 0.
    due_s
        When it should be complete, after `release_s`; None: no promise.
    destination
        Ward or counter, in the words of the hospital.
    """

    id: str
    lines: tuple[Line, ...]
    priority: Priority = Priority.ROUTINE
    release_s: float = 0.0
    due_s: float | None = None
    destination: str = ""

    def __post_init__(self) -> None:
        _require_id("order", self.id)
        if not self.lines:
            raise ValueError(f"order {self.id}: lines: expected at least one, got none")
        for drug, count in Counter(line.drug for line in self.lines).items():
            if count > 1:
                raise ValueError(
                    f"order {self.id}: lines: drug {drug!r} stands {count} times; merge quantities"
                )
        if not (math.isfinite(self.release_s) and self.release_s >= 0):
            raise ValueError(
                f"order {self.id}: release_s: expected a finite number of at least 0, "
                f"got {self.release_s}"
            )
        if self.due_s is not None and not self.release_s < self.due_s < math.inf:
            raise ValueError(
                f"order {self.id}: due_s: expected a number above release_s {self.release_s}, "
                f"got {self.due_s}"
            )


@dataclass(frozen=True, kw_only=True)
class PharmacyDay:
    """A machine, what is in it, and the orders of a day in the sequence in which they came.

    Parameters
    ----------
    machine
        Rack, arm, points and people.
    bins
        What the rack holds; one bin a cell.
    orders
        In the sequence in which they are served unless their priorities say otherwise.
    service
        Time that a pharmacist takes for a bin.

    Raises
    ------
    ValueError
        If ids repeat, two bins share a cell, a bin lies outside of the rack, or a drug that the
        machine should give is in no bin.
    """

    machine: Machine = field(default_factory=Machine)
    bins: tuple[Bin, ...]
    orders: tuple[Order, ...]
    service: ServiceTime = field(default_factory=Lognormal)

    def __post_init__(self) -> None:
        _require_unique("bin", (bin_.id for bin_ in self.bins))
        _require_unique("order", (order.id for order in self.orders))
        num_cells = self.machine.rack.num_cells
        owner: dict[int, str] = {}
        for bin_ in self.bins:
            if bin_.cell >= num_cells:
                raise ValueError(
                    f"bin {bin_.id}: cell: expected 0 to {num_cells - 1}, got {bin_.cell}"
                )
            if bin_.cell in owner:
                raise ValueError(
                    f"bin {bin_.id}: cell: {bin_.cell} is taken by bin {owner[bin_.cell]}"
                )
            owner[bin_.cell] = bin_.id
        for order in self.orders:
            for line in order.lines:
                if not line.is_manual and line.drug not in self.bins_of:
                    raise ValueError(f"order {order.id}: drug: {line.drug!r} is in no bin")

    @cached_property
    def bins_of(self) -> dict[str, tuple[Bin, ...]]:
        """Bins of each drug, in the order of `bins`."""
        found: dict[str, list[Bin]] = {}
        for bin_ in self.bins:
            found.setdefault(bin_.drug, []).append(bin_)
        return {drug: tuple(bins) for drug, bins in found.items()}

    def cells_of(self, order: Order) -> Cells:
        """Cells to visit for an order: the first bin of each drug, shape (lines,)."""
        cells = [self.bins_of[line.drug][0].cell for line in order.lines if not line.is_manual]
        return np.array(cells, dtype=np.int64)
