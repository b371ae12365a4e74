"""Prescriptions of which lines come, change, rest and go, as orders for a machine.

Lines of one prescription are one order as long as nobody has begun with it: a line that comes later
joins it, else it is an order of its own. A line that goes takes its order along, and what of that
is still wanted comes back as a new one, less the packs that are there already, so that nothing is
given out twice. Orders after the first are called ``number/2``, ``number/3``.

Planning and doing are apart: a plan can be written down before anybody acts on it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from wardwise.errors import quote
from wardwise.io.hl7 import Code, Hl7Error
from wardwise.io.prescriptions import Action, Given, order_of
from wardwise.pharmacy.problem import Order  # noqa: TC001, journals need the types

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from wardwise.dispenser.sinks import Sink
    from wardwise.dispenser.taken import Taken
    from wardwise.io.prescriptions import Item


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A line and where it is: in an order, or on hold, or in neither if it is cancelled.

    Parameters
    ----------
    item
        The line.
    order
        Name of its order, empty if there is none.
    is_held
        Whether it waits for a release.
    """

    item: Item
    order: str = ""
    is_held: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What follows from a message.

    Parameters
    ----------
    cancels
        Orders to be given up, before the others.
    orders
        New ones.
    places
        Name of the order that each line is in from then on, empty for none.
    before
        Orders given up whose packs each of the named orders goes on with.
    complete
        Orders, not to be submitted, all of whose packs are there.
    """

    cancels: tuple[str, ...] = ()
    orders: tuple[Order, ...] = ()
    places: dict[str, str]
    before: dict[str, tuple[str, ...]]
    complete: tuple[str, ...] = ()


class Prescriptions:
    """Lines as they stand, and the orders that they are in.

    Parameters
    ----------
    sink
        Where orders go.
    midnight
        Start of the day, with an offset.
    machine_drugs
        Drugs that the machine holds; all others are taken by hand. None: not known.
    manual_s
        Seconds that a line taken by hand needs.
    """

    def __init__(
        self,
        sink: Sink,
        midnight: datetime,
        *,
        machine_drugs: Collection[str] | None = None,
        manual_s: float = 0.0,
    ) -> None:
        if midnight.tzinfo is None:
            raise ValueError("midnight: expected a time with an offset, got none")
        self._sink, self._midnight = sink, midnight
        self._machine_drugs, self._manual_s = machine_drugs, manual_s
        self.lines: dict[str, Placed] = {}
        self._of_group: dict[str, list[str]] = {}
        self._before: dict[str, tuple[str, ...]] = {}

    @property
    def held(self) -> tuple[Item, ...]:
        """Lines that wait for a release."""
        return tuple(placed.item for placed in self.lines.values() if placed.is_held)

    def plan(self, items: Sequence[Item]) -> Plan:
        """Say what a message asks for; nothing is done.

        Raises
        ------
        Hl7Error
            Naming the ORC whose line is there already, is not there, or is another patient's.
        """
        lines = self._concerned(items)
        waiting: list[str] = []
        broken: dict[str, None] = {}
        for number, item in enumerate(items, start=1):
            self._require_fit(item, number, lines)
            before = lines.get(item.id)
            if before and before.order:
                broken[before.order] = None
            lines[item.id] = self._moved(item, before)
            if item.action in (Action.NEW, Action.RELEASE, Action.CHANGE):
                waiting += [] if lines[item.id].is_held else [item.id]
        groups = dict.fromkeys(lines[item.id].item.order for item in items)
        arriving = {lines[name].item.order for name in waiting}
        broken |= dict.fromkeys(self._joined(lines, arriving))
        return self._orders(lines, waiting, tuple(broken), groups)

    def commit(self, items: Sequence[Item], plan: Plan) -> None:
        """Remember what a plan has made of the lines."""
        for item in items:
            known = self.lines.get(item.id)
            self.lines[item.id] = self._moved(item, known)
            if known is None:
                self._of_group.setdefault(item.order, []).append(item.id)
        for name, order in plan.places.items():
            self.lines[name] = replace(self.lines[name], order=order)
        self._before |= plan.before

    def given(self, order: str, *, place: str = "") -> list[Given]:
        """Packs of each line of a complete order, lot by lot."""
        taken = [one for name in self._history([order]) for one in self._sink.taken(name)]
        left = [one.quantity for one in taken]
        return [
            self._given(placed.item, one, quantity, place)
            for placed in self.lines.values()
            if placed.order == order
            for one, quantity in _shares(placed.item, taken, left)
        ]

    def _history(self, orders: Iterable[str]) -> tuple[str, ...]:
        """Of orders and those that they go on with, all that got anything."""
        names = [name for order in orders for name in (*self._before.get(order, ()), order)]
        return tuple(dict.fromkeys(name for name in names if self._sink.taken(name)))

    def _given(self, item: Item, taken: Taken, quantity: int, place: str) -> Given:
        return Given(
            item=item, quantity=quantity, lot=taken.lot, expiry=taken.expiry,
            prepared_at=self._midnight + timedelta(seconds=taken.time_s),
            place=place or ("by hand" if taken.point is None else f"point {taken.point + 1}"),
        )  # fmt: skip

    def _concerned(self, items: Sequence[Item]) -> dict[str, Placed]:
        """Lines of all prescriptions that a message speaks of, as they stand."""
        known = [self.lines[item.id].item for item in items if item.id in self.lines]
        groups = dict.fromkeys(item.order for item in (*known, *items))
        names = (name for group in groups for name in self._of_group.get(group, ()))
        return {name: self.lines[name] for name in names}

    def _require_fit(self, item: Item, number: int, lines: dict[str, Placed]) -> None:
        """Refuse what does not go with what came before."""

        def error(code: Code, problem: str) -> Hl7Error:
            return Hl7Error(code, problem, segment="ORC", number=number, field=2)

        known = lines.get(item.id)
        if item.action is Action.NEW:
            if known:
                raise error(Code.DUPLICATE_KEY, f"expected a new order, got {quote(item.id)} again")
            known = next((one for one in lines.values() if one.item.order == item.order), None)
        elif known is None:
            problem = f"expected an order that came before, got {quote(item.id)}"
            raise error(Code.UNKNOWN_KEY, problem)
        elif item.order and item.order not in (known.item.order, item.id):
            problem = f"expected an order of {quote(known.item.order)}, got {quote(item.order)}"
            raise error(Code.UNKNOWN_KEY, problem)
        elif not (known.order or known.is_held):
            raise error(
                Code.UNKNOWN_KEY, "expected an order that is open, got one cancelled before"
            )
        elif known.order and self._sink.missing(known.order) is None:
            raise error(Code.UNKNOWN_KEY, "expected an order that is open, got a complete one")
        elif item.action is Action.RELEASE and not known.is_held:
            raise error(Code.UNKNOWN_KEY, "expected an order on hold, got one that is not")
        if known and item.patient and known.item.patient not in ("", item.patient):
            problem = f"expected patient {quote(known.item.patient)}, got {quote(item.patient)}"
            raise error(Code.UNKNOWN_KEY, problem)

    def _moved(self, item: Item, before: Placed | None) -> Placed:
        """Where a line is after what was asked for it, before it is in an order."""
        if item.action is Action.NEW or before is None:
            return Placed(item=item)
        if item.action is Action.CHANGE:
            return Placed(item=replace(item, order=before.item.order), is_held=before.is_held)
        return Placed(item=before.item, is_held=item.action is Action.HOLD)

    def _joined(self, lines: dict[str, Placed], groups: Collection[str]) -> Iterator[str]:
        """Orders that new lines join, as nobody has begun with them."""
        for placed in lines.values():
            is_ours = placed.order and placed.item.order in groups
            if is_ours and self._sink.is_untouched(placed.order):
                yield placed.order

    def _orders(
        self, lines: dict[str, Placed], waiting: list[str], broken: tuple[str, ...],
        groups: Collection[str],
    ) -> Plan:  # fmt: skip
        """Make one order a prescription of what is left and what is new."""
        orders: list[Order] = []
        places = {name: "" for name in lines if lines[name].order in broken}
        before: dict[str, tuple[str, ...]] = {}
        complete = []
        for group in groups:
            own = [name for name, one in lines.items() if one.item.order == group]
            placed = {self.lines[line].order for line in self._of_group.get(group, ())}
            old = self._history(order for order in broken if order in placed)
            names = [name for name in own if lines[name].order in broken or name in waiting]
            if not names:
                continue
            name = self._name(group, broken, [order.id for order in orders])
            order = order_of(
                name, [lines[line].item for line in names], self._midnight,
                machine_drugs=self._machine_drugs, manual_s=self._manual_s, had=self._had(old),
            )  # fmt: skip
            places |= dict.fromkeys(names, name)
            before[name] = old
            if order is None:
                complete.append(name)
            else:
                orders.append(order)
        return Plan(
            cancels=broken, orders=tuple(orders), places=places, before=before,
            complete=tuple(complete),
        )  # fmt: skip

    def _name(self, group: str, cancelled: Collection[str], new: Collection[str]) -> str:
        """First name of a prescription that no other order has or had."""
        name, number = group, 1
        while name in new or self._is_used(name, cancelled):
            number += 1
            name = f"{group}/{number}"
        return name

    def _is_used(self, name: str, cancelled: Collection[str]) -> bool:
        if self._sink.forgets:
            return self._sink.has(name) and name not in cancelled
        return self._sink.has(name) or name in self._before

    def _had(self, orders: Iterable[str]) -> Counter[str]:
        """Packs that orders got."""
        found: Counter[str] = Counter()
        for order in orders:
            for taken in self._sink.taken(order):
                found[taken.drug] += taken.quantity
        return found


def _shares(
    item: Item, taken: Sequence[Taken], left: list[int]
) -> Iterator[tuple[Taken, int]]:  # fmt: skip
    """Packs for a line, out of those taken that no line before it has."""
    missing = item.quantity
    for k, one in enumerate(taken):
        used = min(missing, left[k]) if one.drug == item.drug else 0
        if used:
            left[k] -= used
            missing -= used
            yield one, used
