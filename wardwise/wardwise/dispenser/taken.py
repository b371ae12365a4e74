"""Which packs an order got, with their lots: read off the decisions of the scheduler.

A decision to fetch or keep a bin announces packs at a point; people take them first come, first
served at each point. What is taken by hand from a bin of the machine has a lot as well, what comes
from elsewhere has none.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.pharmacy.online.events import Cancel, HandDone, Kind, Refill, Sorted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from wardwise.pharmacy.online.events import Decision, Event
    from wardwise.pharmacy.problem import Bin


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Packs of one lot that are there for an order.

    Parameters
    ----------
    drug, quantity
        What, and how many packs.
    lot, expiry
        Of the packs; empty where nobody knows.
    time_s
        When they were there.
    point
        I/O point, from 0; None: by hand.
    """

    drug: str
    quantity: int
    lot: str = ""
    expiry: date | None = None
    time_s: float
    point: int | None = None


class TakenBook:
    """Books of what each order got; orders keep theirs when they are cancelled.

    Parameters
    ----------
    bins
        What the machine held in the beginning.
    """

    def __init__(self, bins: Iterable[Bin]) -> None:
        self._bins = {bin_.id: bin_ for bin_ in bins}
        self._coming: dict[str, Bin] = {}
        self._at: defaultdict[int, deque[Decision]] = defaultdict(deque)
        self._by_hand: defaultdict[tuple[str, str], list[Decision]] = defaultdict(list)
        self._taken: defaultdict[str, list[Taken]] = defaultdict(list)

    def of(self, order: str) -> tuple[Taken, ...]:
        """Packs that an order got so far."""
        return tuple(self._taken.get(order, ()))

    def add(self, event: Event, decisions: Iterable[Decision]) -> tuple[str, ...]:
        """Note an event with its decisions; returns the orders that it completed."""
        if isinstance(event, Refill):
            self._coming[event.bin.id] = event.bin
        elif isinstance(event, Sorted):
            self._sort(event)
        elif isinstance(event, HandDone):
            for decision in self._by_hand.pop((event.order, event.drug), ()):
                self._take(decision, decision.quantity, event.time_s)
        done = []
        for decision in decisions:
            if decision.kind in (Kind.FETCH, Kind.KEEP) and decision.point is not None:
                self._at[decision.point].append(decision)
            elif decision.kind is Kind.HAND:
                self._by_hand[decision.order, decision.drug].append(decision)
            elif decision.kind is Kind.VOID:
                self._withdraw(decision)
            elif decision.kind is Kind.REFILL:
                self._bins[decision.bin] = self._coming[decision.bin]
            elif decision.kind is Kind.DONE and not isinstance(event, Cancel):
                done.append(decision.order)
        return tuple(done)

    def _sort(self, event: Sorted) -> None:
        self._take(self._at[event.point].popleft(), event.taken, event.time_s)

    def _take(self, decision: Decision, quantity: int, time_s: float) -> None:
        if quantity:
            bin_ = self._bins.get(decision.bin)
            self._taken[decision.order].append(
                Taken(
                    drug=decision.drug, quantity=quantity, lot=bin_.lot if bin_ else "",
                    expiry=bin_.expiry if bin_ else None, time_s=time_s, point=decision.point,
                )
            )  # fmt: skip

    def _withdraw(self, void: Decision) -> None:
        """Forget what was announced; of a line's bin on the pick list, all of it."""
        if void.point is None:
            key = void.order, void.drug
            self._by_hand[key] = [one for one in self._by_hand[key] if one.bin != void.bin]
            return
        queue = self._at[void.point]
        same = (void.order, void.drug, void.bin, void.quantity)
        for one in queue:
            if (one.order, one.drug, one.bin, one.quantity) == same:
                queue.remove(one)
                return
