"""What happens at the machine, and what the scheduler answers.

Events carry their time in seconds from the start of the day and do not go back in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from wardwise.pharmacy.problem import Bin, Order  # noqa: TC001, journals need the types


@dataclass(frozen=True, kw_only=True)
class _Event:
    """Something that happened.

    Parameters
    ----------
    time_s
        When, at least 0.
    """

    time_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.time_s) and self.time_s >= 0):
            raise ValueError(
                f"event: time_s: expected a finite number of at least 0, got {self.time_s}"
            )


@dataclass(frozen=True, kw_only=True)
class Submit(_Event):
    """An order came in; the packs of each drug in `single_lot` are to be of one lot."""

    order: Order
    single_lot: tuple[str, ...] = ()
    kind: Literal["submit"] = "submit"


@dataclass(frozen=True, kw_only=True)
class Cancel(_Event):
    """An order is not wanted any more."""

    order: str
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, kw_only=True)
class Ask(_Event):
    """The arm has done what it was told, stands at the next point and asks what to do."""

    kind: Literal["ask"] = "ask"


@dataclass(frozen=True, kw_only=True)
class Sorted(_Event):
    """The pharmacist is done with the oldest pick at a point and got `taken` packs."""

    point: int
    taken: int
    kind: Literal["sorted"] = "sorted"


@dataclass(frozen=True, kw_only=True)
class HandDone(_Event):
    """What was to be fetched by hand for a line is there."""

    order: str
    drug: str
    kind: Literal["hand-done"] = "hand-done"


@dataclass(frozen=True, kw_only=True)
class Refill(_Event):
    """A bin of new packs waits at the first point; it holds opened packs if `is_part`."""

    bin: Bin
    is_part: bool = False
    kind: Literal["refill"] = "refill"


@dataclass(frozen=True, kw_only=True)
class Down(_Event):
    """The machine stands still, as far as is known until `until_s`."""

    until_s: float | None = None
    kind: Literal["down"] = "down"


@dataclass(frozen=True, kw_only=True)
class Up(_Event):
    """The machine works again and goes on with what it was doing."""

    kind: Literal["up"] = "up"


@dataclass(frozen=True, kw_only=True)
class Block(_Event):
    """The arm cannot reach into a cell; what it was fetching there is given up."""

    cell: int
    kind: Literal["block"] = "block"


@dataclass(frozen=True, kw_only=True)
class Unblock(_Event):
    """The cell can be reached again."""

    cell: int
    kind: Literal["unblock"] = "unblock"


@dataclass(frozen=True, kw_only=True)
class Recall(_Event):
    """No pack of a lot may be handed out from now on."""

    drug: str
    lot: str
    kind: Literal["recall"] = "recall"


Event = Submit | Cancel | Ask | Sorted | HandDone | Refill | Down | Up | Block | Unblock | Recall


class Kind(StrEnum):
    """What a decision is about."""

    ACCEPT = "accept"  # an order is in
    FETCH = "fetch"  # arm: store the bin at the point, bring the next one there
    KEEP = "keep"  # no move: the bin that stands at a point is picked from again
    REFILL = "refill"  # arm: store new packs
    WAIT = "wait"  # arm: nothing to do until something happens
    HAND = "hand"  # people: take it by hand; belongs on the manual pick list
    VOID = "void"  # people: do not take what was announced at a point
    ASIDE = "aside"  # people: take the bin away, its cell cannot be reached
    SHORT = "short"  # a bin held fewer packs than the books say: the rest is written off
    DONE = "done"  # the order is complete
    NOTE = "note"  # nothing to do: on record only


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do, and why.

    Parameters
    ----------
    kind, time_s
        What it is about, and when it was taken.
    reason
        In words.
    order, drug, bin
        Ids; empty where they mean nothing.
    quantity
        Packs.
    cell, point
        Where; None where it means nothing.
    stored
        Bin that the arm stores first.
    """

    kind: Kind
    time_s: float
    reason: str
    order: str = ""
    drug: str = ""
    bin: str = ""
    quantity: int = 0
    cell: int | None = None
    point: int | None = None
    stored: str = ""
