"""The scheduler of a running day: events in, decisions with their reasons out.

Nothing is decided earlier than it must be. Each time the arm has done a cycle it asks; a cycle is
never interrupted, an order may be, between two of its bins. The same events give the same
decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wardwise.pharmacy.online import people
from wardwise.pharmacy.online.arm import answer
from wardwise.pharmacy.online.events import (
    Ask,
    Block,
    Cancel,
    Down,
    HandDone,
    Recall,
    Refill,
    Sorted,
    Submit,
    Unblock,
    Up,
)
from wardwise.pharmacy.online.state import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wardwise.pharmacy.online.events import Decision, Event
    from wardwise.pharmacy.online.state import Setup

_REACTIONS: dict[type, Callable[[State, Any], list[Decision]]] = {
    Ask: lambda state, event: answer(state, event.time_s),
    Block: people.block,
    Cancel: people.cancel,
    Down: people.down,
    HandDone: people.hand_done,
    Recall: people.recall,
    Refill: people.refill,
    Sorted: people.sort_done,
    Submit: people.submit,
    Unblock: people.unblock,
    Up: people.up,
}


class ManualPick(NamedTuple):
    """A line of the manual pick list: packs of a drug for an order, from a bin or elsewhere."""

    cell: int | None
    bin: str
    order: str
    drug: str
    quantity: int


class Scheduler:
    """Decides during the day what the arm fetches and what people do.

    The arm sends `Ask` whenever it is free, and again after each event while it was told to wait.
    All else that happens is sent as it happens.

    Parameters
    ----------
    setup
        What the day begins with.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.state = State(setup)

    def handle(self, event: Event) -> tuple[Decision, ...]:
        """Answer an event.

        Raises
        ------
        ValueError
            If it is earlier than the one before, or does not fit to what is known; nothing has
            changed then.
        """
        state = self.state
        if event.time_s < state.clock_s:
            raise ValueError(
                f"event: time_s: expected at least {state.clock_s}, the time of the one before, "
                f"got {event.time_s}"
            )
        decisions = tuple(_REACTIONS[type(event)](state, event))
        state.clock_s = event.time_s
        return decisions

    def pick_list(self) -> list[ManualPick]:
        """All that is to be taken by hand now: outside of the machine first, then cell by cell."""
        found = []
        for name, order in self.state.orders.items():
            for drug, line in order.lines.items():
                rest = line.by_hand
                for slot, quantity in line.hand_slots:
                    rest -= quantity
                    found.append(ManualPick(slot.bin.cell, slot.bin.id, name, drug, quantity))
                if rest:
                    found.append(ManualPick(None, "", name, drug, rest))
        return sorted(found, key=lambda pick: -1 if pick.cell is None else pick.cell)
