"""Lines of prescriptions as hospital systems send them, in HL7 or in FHIR, before they are orders.

What the two have in common is here: one drug a line, lines that belong together by the number of
their prescription, and amounts in tablets or millilitres where a dispensing machine counts packs.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from wardwise.pharmacy.problem import Line, Order, Priority

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import date

MAX_PACKS = 1_000_000
OVERDUE_S = 1.0
PACK_UNITS = frozenset({
    "PACK", "PACKS", "PACKAGE", "PCK", "PKG", "PK", "BOX", "BX", "{PACK}", "{PACKAGE}", "{BOX}",
})  # fmt: skip
_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Action(StrEnum):
    """What is to happen with a line."""

    NEW = "new"
    CHANGE = "change"
    CANCEL = "cancel"
    HOLD = "hold"
    RELEASE = "release"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One drug of a prescription, as it was asked for.

    Parameters
    ----------
    id
        Number of the line at the system that placed it.
    order
        Number of the prescription; lines of one prescription are handed out together. Empty where
        a cancellation does not tell.
    action
        What is to happen.
    patient
        Number of the patient.
    drug
        Code of what is wanted; empty where a cancellation does not tell.
    quantity
        Packs.
    priority
        How urgent it is.
    start, end
        When it is wanted at the earliest, and at the latest; times without an offset are local.
    destination
        Ward, in the words of the hospital.
    is_manual
        To be taken by hand: a controlled drug, something to be made, a traditional package.
    note
        What people should read.
    source
        Fields that an answer repeats, under the names that they have in the format.
    """

    id: str
    order: str = ""
    action: Action = Action.NEW
    patient: str = ""
    drug: str = ""
    quantity: int = 1
    priority: Priority = Priority.ROUTINE
    start: datetime | None = None
    end: datetime | None = None
    destination: str = ""
    is_manual: bool = False
    note: str = ""
    source: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Given:
    """Packs of one lot that were given out for a line.

    Parameters
    ----------
    item
        The line.
    quantity
        Packs.
    lot, expiry
        Of the packs, where known.
    prepared_at
        When they were picked.
    handed_over_at
        When they left the pharmacy, where known.
    person, place
        Who picked them, and where.
    note
        What the ward should read.
    """

    item: Item
    quantity: int
    lot: str = ""
    expiry: date | None = None
    prepared_at: datetime
    handed_over_at: datetime | None = None
    person: str = ""
    place: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.quantity <= MAX_PACKS:
            raise ValueError(
                f"given: quantity: expected 0 to {MAX_PACKS} packs, got {self.quantity}"
            )


def packs(amount: float, unit: str, size: float | None = None, size_unit: str = "") -> int:
    """Packs that hold an amount, rounded up.

    Parameters
    ----------
    amount, unit
        What is wanted; a unit of `PACK_UNITS`, or none together with no size, means packs.
    size, size_unit
        What one pack holds.

    Raises
    ------
    ValueError
        If it cannot be told how many packs these are, or it is no whole number of 1 to 1,000,000.
    """
    number = amount
    if unit.upper() not in PACK_UNITS and (unit or size is not None):
        if size is None:
            raise ValueError(f"expected packs, or a package size, since the amount is in {unit!r}")
        if not size > 0:
            raise ValueError(f"expected a package size above 0, got {size:g}")
        if size_unit and unit and size_unit.upper() != unit.upper():
            raise ValueError(
                f"expected one unit for amount and package size, got {unit!r} and {size_unit!r}"
            )
        # Amounts are decimals: 0.3 of packs of 0.1 are three.
        number = math.ceil(round(amount / size, 9))
    if not (number == math.floor(number) and 1 <= number <= MAX_PACKS):
        raise ValueError(f"expected 1 to {MAX_PACKS} whole packs, got {number:g}")
    return int(number)


def order_of(
    name: str,
    items: Sequence[Item],
    midnight: datetime,
    *,
    machine_drugs: Collection[str] | None = None,
    manual_s: float = 0.0,
    had: Counter[str] | None = None,
) -> Order | None:
    """Make one order of lines that are handed out together.

    The order is as urgent as its most urgent line, becomes known with its last line and is due
    with its first. A drug that stands in several lines is fetched once. What was due before it
    became known is due at once.

    Parameters
    ----------
    name
        Its name.
    items
        At least one.
    midnight
        Start of the day, with an offset; times without one are read with this offset.
    machine_drugs
        Drugs that the machine holds: all others are taken by hand. None: not known.
    manual_s
        Seconds that a line taken by hand needs.
    had
        Packs by drug that are there already.

    Returns
    -------
    None if nothing is missing.

    Raises
    ------
    ValueError
        Naming the field, if a code is one that orders cannot hold.
    """
    wanted: Counter[str] = Counter()
    for item in items:
        wanted[item.drug] += item.quantity
    by_hand = {item.drug for item in items if item.is_manual}
    if machine_drugs is not None:
        by_hand |= wanted.keys() - set(machine_drugs)
    wanted -= had or Counter()
    if not wanted:
        return None
    starts = (seconds(item.start, midnight) for item in items if item.start)
    release_s = max([0.0, *starts])
    dues = [seconds(item.end, midnight) for item in items if item.end]
    return Order(
        id=name,
        lines=tuple(
            Line(
                drug=drug, quantity=quantity, is_manual=drug in by_hand,
                manual_s=manual_s if drug in by_hand else 0.0,
            )
            for drug, quantity in wanted.items()
        ),
        priority=most_urgent(item.priority for item in items),
        release_s=release_s,
        due_s=max(min(dues), release_s + OVERDUE_S) if dues else None,
        destination=next((item.destination for item in items if item.destination), ""),
    )  # fmt: skip


def most_urgent(priorities: Iterable[Priority]) -> Priority:
    """The first in urgency; routine if there are none."""
    return min(priorities, key=_RANKS.__getitem__, default=Priority.ROUTINE)


def seconds(moment: datetime, midnight: datetime) -> float:
    """Seconds from the start of the day; a time without an offset has that of the day."""
    return (aware(moment, midnight) - midnight).total_seconds()


def aware(moment: datetime, midnight: datetime) -> datetime:
    """Time with an offset, that of the day where it has none."""
    return moment if moment.tzinfo else moment.replace(tzinfo=midnight.tzinfo)


def first_midnight(items: Iterable[Item]) -> datetime:
    """Midnight before the earliest line; at UTC if its time has no offset.

    Raises
    ------
    ValueError
        If no line has a time.
    """
    utc = datetime(1970, 1, 1, tzinfo=UTC)
    starts = [aware(item.start, utc) for item in items if item.start]
    if not starts:
        raise ValueError("orders: expected a line with a time, got none; name the day")
    return min(starts).replace(hour=0, minute=0, second=0, microsecond=0)
