"""Where orders go that other systems send: to the scheduler of a running day, or on a list."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from wardwise.dispenser.taken import Taken, TakenBook
from wardwise.pharmacy.online.events import Cancel, Submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wardwise.pharmacy.online import Session
    from wardwise.pharmacy.online.events import Decision, Event
    from wardwise.pharmacy.problem import Order


class Sink(Protocol):
    """Something that takes orders.

    Attributes
    ----------
    forgets
        Whether the name of an order may be used again once the order is cancelled.
    """

    forgets: bool

    def has(self, order: str) -> bool:
        """Whether a name is in use, or was."""

    def missing(self, order: str) -> Counter[str] | None:
        """Packs still to come for an order, by drug; None if it is not open."""

    def is_untouched(self, order: str) -> bool:
        """Whether nobody has begun with an open order."""

    def taken(self, order: str) -> tuple[Taken, ...]:
        """Packs that an order got."""

    def submit(self, order: Order) -> None:
        """Take an order."""

    def cancel(self, order: str) -> None:
        """Give an open order up."""


class OrderList:
    """Orders on a list, as they stand after all that came.

    Parameters
    ----------
    save
        Called with all orders before each change of the list, which is not made if this raises.
    """

    forgets = True

    def __init__(self, save: Callable[[Iterable[Order]], object] | None = None) -> None:
        self.orders: dict[str, Order] = {}
        self.save = save

    def has(self, order: str) -> bool:
        """Whether an order is on the list."""
        return order in self.orders

    def missing(self, order: str) -> Counter[str] | None:
        """All packs of an order; None if it is not on the list."""
        found = self.orders.get(order)
        return Counter({line.drug: line.quantity for line in found.lines}) if found else None

    def is_untouched(self, order: str) -> bool:
        """Whether it is on the list: nobody begins with a list."""
        return order in self.orders

    def taken(self, order: str) -> tuple[Taken, ...]:  # noqa: ARG002, as others have it
        """Nothing."""
        return ()

    def submit(self, order: Order) -> None:
        """Put an order on the list."""
        self._change({**self.orders, order.id: order})

    def cancel(self, order: str) -> None:
        """Take an order off the list."""
        self._change({name: one for name, one in self.orders.items() if name != order})

    def _change(self, orders: dict[str, Order]) -> None:
        if self.save:
            self.save(orders.values())
        self.orders = orders


class Desk:
    """A session through which all events of the day go, with the lots that orders got.

    Parameters
    ----------
    session
        The scheduler with its journal.
    clock
        Seconds from the start of the day, now.
    on_done
        Called with the name of each order that is complete.
    """

    forgets = False

    def __init__(
        self,
        session: Session,
        clock: Callable[[], float],
        on_done: Callable[[str], object] | None = None,
    ) -> None:
        self.session, self._clock, self.on_done = session, clock, on_done
        self._book = TakenBook(session.scheduler.setup.bins)
        self.done: list[str] = []
        for event, decisions in session.answers:
            self.done += self._book.add(event, decisions)

    def handle(self, event: Event) -> tuple[Decision, ...]:
        """Answer an event, see `wardwise.pharmacy.online.Session.handle`."""
        decisions = self.session.handle(event)
        for order in self._book.add(event, decisions):
            self.done.append(order)
            if self.on_done:
                self.on_done(order)
        return decisions

    def has(self, order: str) -> bool:
        """Whether an order of this name came, today."""
        return order in self.session.scheduler.state.known

    def missing(self, order: str) -> Counter[str] | None:
        """Packs that nobody has in hand yet, by drug; None if the order is not open."""
        found = self.session.scheduler.state.orders.get(order)
        if found is None:
            return None
        return Counter(
            {drug: line.line.quantity - line.got for drug, line in found.lines.items()}
        )  # fmt: skip

    def is_untouched(self, order: str) -> bool:
        """Whether neither arm nor people have anything to do with an open order yet."""
        found = self.session.scheduler.state.orders.get(order)
        return found is not None and all(
            line.waiting == line.line.quantity for line in found.lines.values()
        )

    def taken(self, order: str) -> tuple[Taken, ...]:
        """Packs that an order got."""
        return self._book.of(order)

    def submit(self, order: Order) -> None:
        """Tell the scheduler of an order, now."""
        self.handle(Submit(time_s=self._now_s(), order=order))

    def cancel(self, order: str) -> None:
        """Tell the scheduler that an order is not wanted any more, now."""
        self.handle(Cancel(time_s=self._now_s(), order=order))

    def _now_s(self) -> float:
        """Time of now, never before the last event."""
        return max(self._clock(), self.session.scheduler.state.clock_s)
