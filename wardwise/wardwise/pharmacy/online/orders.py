"""Orders that are not complete yet, line by line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardwise.pharmacy.online.stock import Slot
    from wardwise.pharmacy.problem import Line, Order


@dataclass(eq=False)
class OpenLine:
    """A line and where its packs are: waiting + announced + by_hand + got = quantity.

    Parameters
    ----------
    line
        What is wanted.
    waiting
        Packs that nobody fetches yet.
    announced
        Packs that the machine brings or has brought and the pharmacist has not taken yet.
    by_hand
        Packs on the manual pick list.
    got
        Packs that are there.
    single_lot, lot
        Whether all are to be of one lot, and that lot once it is begun.
    hand_slots
        Bins of the machine that packs are to be taken from by hand, and how many.
    """

    line: Line
    waiting: int
    announced: int = 0
    by_hand: int = 0
    got: int = 0
    single_lot: bool = False
    lot: str = ""
    hand_slots: list[tuple[Slot, int]] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether all packs are there."""
        return self.got == self.line.quantity


class OpenOrder:
    """An order on its way.

    Parameters
    ----------
    order
        What came in.
    number
        How many came before it.
    line_s
        Expected seconds of the machine for a line.
    single_lot
        Drugs whose packs are to be of one lot.
    """

    def __init__(
        self, order: Order, number: int, line_s: float, single_lot: tuple[str, ...]
    ) -> None:
        self.order, self.number, self._line_s = order, number, line_s
        self.lines = {
            line.drug: OpenLine(
                line=line, waiting=line.quantity, single_lot=line.drug in single_lot
            )
            for line in order.lines
        }
        self.whole_work_s = self.work_s

    @property
    def work_s(self) -> float:
        """Expected seconds until complete if nothing else were done."""
        machine_s, hand_s = 0.0, 0.0
        for line in self.lines.values():
            if line.line.is_manual and not line.is_done:
                hand_s = max(hand_s, line.line.manual_s)
            elif line.waiting or line.announced:
                machine_s += self._line_s
        return max(machine_s, hand_s)

    @property
    def waiting(self) -> list[OpenLine]:
        """Lines that the machine has still to serve."""
        return [line for line in self.lines.values() if line.waiting]

    @property
    def is_done(self) -> bool:
        """Whether all lines are there, those of the machine and those taken by hand."""
        return all(line.is_done for line in self.lines.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class Pick:
    """Packs that the pharmacist is to take from a bin at a point."""

    order: str
    drug: str
    slot: Slot
    quantity: int
