"""What the scheduler knows: stock, open orders, what stands where, and what the arm is doing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wardwise.pharmacy.online.events import Decision, Kind, Refill
from wardwise.pharmacy.online.orders import OpenLine, OpenOrder, Pick
from wardwise.pharmacy.online.policy import Policy
from wardwise.pharmacy.online.stock import Choice, Slot, Stock, StockRules
from wardwise.pharmacy.service_time import Lognormal
from wardwise.pharmacy.travel import exact_means

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import date

    from wardwise.pharmacy.problem import Bin
    from wardwise.pharmacy.rack import Machine
    from wardwise.pharmacy.service_model import ServiceModel
    from wardwise.pharmacy.service_time import ServiceTime


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a day begins with.

    Parameters
    ----------
    machine, bins, service
        The machine, what is in it, and the time of a pharmacist for a bin.
    policy, rules
        How orders and bins are chosen.
    today
        Date of the day's first second; None: expiry is not looked at.
    part_bins
        Ids of bins that hold opened packs.
    model
        Service times by drug and packs, where known; for the gaps that refills go into.

    Raises
    ------
    ValueError
        If a part bin is not there.
    """

    machine: Machine
    bins: tuple[Bin, ...]
    service: ServiceTime = field(default_factory=Lognormal)
    policy: Policy = field(default_factory=Policy)
    rules: StockRules = field(default_factory=StockRules)
    today: date | None = None
    part_bins: tuple[str, ...] = ()
    model: ServiceModel | None = None

    def __post_init__(self) -> None:
        unknown = set(self.part_bins) - {bin_.id for bin_ in self.bins}
        if unknown:
            raise ValueError(f"setup: part_bins: there is no bin {min(unknown)!r}")


@dataclass(eq=False)
class Place:
    """An I/O point: the bin on it and what is still to be picked from it, oldest first."""

    slot: Slot | None = None
    picks: list[Pick] = field(default_factory=list)
    since_s: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Moving:
    """What the arm is doing: a bin on its way to the next point, or a refill into its cell."""

    slot: Slot | None = None
    pick: Pick | None = None
    refill: Refill | None = None


class State:
    """Everything that changes during the day, and the changes that several events share.

    Parameters
    ----------
    setup
        What the day begins with.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        machine = setup.machine
        self.stock = Stock(setup.bins, setup.rules, setup.today, setup.part_bins)
        self.orders: dict[str, OpenOrder] = {}
        self.known: dict[str, int] = {}
        self.places = [Place() for _ in machine.points_m]
        self.next_point = 0
        self.moving: Moving | None = None
        self.refills: list[Refill] = []
        self.is_down = False
        self.until_s: float | None = None
        self.clock_s = 0.0
        self.sorted_s = 0.0
        arm_s = exact_means(machine).dual_command_s + 4 * machine.arm.handling_s
        if machine.num_points == 1:
            self.line_s = arm_s + setup.service.mean_s
        else:
            self.line_s = float(setup.service.expected_max_s(arm_s))

    def ranked(self) -> list[OpenOrder]:
        """Orders with something for the machine to do, the next first."""
        waiting = [order for order in self.orders.values() if order.waiting]
        return sorted(waiting, key=self.setup.policy.rank)

    def picks(self) -> Iterator[tuple[Pick, int]]:
        """Announced picks with the point each is or will be at."""
        for point, place in enumerate(self.places):
            for pick in place.picks:
                yield pick, point
        if self.moving and self.moving.pick:
            yield self.moving.pick, self.next_point

    def line_of(self, pick: Pick) -> OpenLine:
        """Line that a pick belongs to."""
        return self.orders[pick.order].lines[pick.drug]

    def announce(self, order: OpenOrder, line: OpenLine, slot: Slot) -> Pick:
        """Book packs of a bin for a line: as many as it needs and the bin has."""
        quantity = min(line.waiting, slot.quantity)
        self.stock.take(slot, quantity)
        line.waiting -= quantity
        line.announced += quantity
        line.lot = line.lot or slot.lot
        return Pick(order=order.order.id, drug=line.line.drug, slot=slot, quantity=quantity)

    def withdraw(self, pick: Pick, time_s: float, reason: str) -> Decision:
        """Undo an announced pick: its packs stay in their bin, its line waits again."""
        point = next(at for other, at in self.picks() if other is pick)
        for place in self.places:
            place.picks = [other for other in place.picks if other is not pick]
        if self.moving and self.moving.pick is pick:
            self.moving = Moving(slot=self.moving.slot)
        self.stock.give_back(pick.slot, pick.quantity)
        line = self.line_of(pick)
        line.announced -= pick.quantity
        line.waiting += pick.quantity
        self._forget_lot(line)
        return Decision(
            kind=Kind.VOID, time_s=time_s, reason=reason, order=pick.order, drug=pick.drug,
            bin=pick.slot.bin.id, quantity=pick.quantity, point=point,
        )  # fmt: skip

    def withdraw_hand(self, order: OpenOrder, line: OpenLine, slot: Slot, now_s: float) -> Decision:
        """Take packs of a bin off the manual pick list: they stay, the line waits again."""
        quantity = sum(number for other, number in line.hand_slots if other is slot)
        line.hand_slots = [(other, n) for other, n in line.hand_slots if other is not slot]
        self.stock.give_back(slot, quantity)
        line.by_hand -= quantity
        line.waiting += quantity
        self._forget_lot(line)
        return Decision(
            kind=Kind.VOID, time_s=now_s, reason="off the manual pick list", order=order.order.id,
            drug=line.line.drug, bin=slot.bin.id, quantity=quantity, cell=slot.bin.cell,
        )  # fmt: skip

    def by_hand(
        self, order: OpenOrder, line: OpenLine, now_s: float, reason: str, slot: Slot | None = None
    ) -> Decision:
        """Put what a line still waits for on the manual pick list, from a bin if one is given."""
        quantity = line.waiting if slot is None else min(line.waiting, slot.quantity)
        line.waiting -= quantity
        line.by_hand += quantity
        if slot:
            self.stock.take(slot, quantity)
            line.hand_slots.append((slot, quantity))
            line.lot = line.lot or slot.lot
        return Decision(
            kind=Kind.HAND, time_s=now_s, reason=reason, order=order.order.id, drug=line.line.drug,
            bin=slot.bin.id if slot else "", quantity=quantity,
            cell=slot.bin.cell if slot else None,
        )  # fmt: skip

    def list_short_lines(self, now_s: float, drugs: Collection[str]) -> list[Decision]:
        """Lines that neither bin nor refill can serve go on the manual pick list at once."""
        found = []
        for order in self.orders.values():
            for line in order.waiting:
                if line.line.drug not in drugs:
                    continue
                choice = self.choose(line, now_s)
                if not choice.slots and not self.refill_for(line, now_s):
                    found.append(self.by_hand(order, line, now_s, choice.reason))
        return found

    def choose(self, line: OpenLine, now_s: float) -> Choice:
        """Bins that a line may take now."""
        return self.stock.choose(
            line.line, line.waiting, now_s, single_lot=line.single_lot, lot=line.lot
        )

    def refill_for(self, line: OpenLine, now_s: float) -> Refill | None:
        """A waiting refill whose packs a line may take."""
        for refill in self.refills:
            bin_ = refill.bin
            if (
                bin_.drug == line.line.drug and bin_.quantity and not bin_.is_recalled
                and self.can_store(refill) and self.stock.is_good(bin_, line.line, now_s)
                and (not line.single_lot or self._suits_lot(line, bin_))
            ):  # fmt: skip
                return refill
        return None

    def can_store(self, refill: Refill) -> bool:
        """Whether a refill's cell is empty and within reach; recalled packs are not stored."""
        bin_ = refill.bin
        is_near = bin_.cell not in self.stock.blocked
        return is_near and not bin_.is_recalled and self.stock.has_room(bin_)

    def close_if_done(self, order: OpenOrder, now_s: float) -> list[Decision]:
        """An order whose last part is there leaves the books."""
        if not order.is_done:
            return []
        asked = order.order
        del self.orders[asked.id]
        took_s = now_s - asked.release_s
        late = asked.due_s is not None and now_s > asked.due_s
        reason = f"all {len(order.lines)} lines are there, {took_s:.0f} s after it came"
        reason += f", {now_s - asked.due_s:.0f} s late" if late and asked.due_s else ""
        return [Decision(kind=Kind.DONE, time_s=now_s, reason=reason, order=asked.id)]

    def _suits_lot(self, line: OpenLine, bin_: Bin) -> bool:
        own = bin_.lot or f"bin {bin_.id}"
        return own == line.lot if line.lot else bin_.quantity >= line.waiting

    def _forget_lot(self, line: OpenLine) -> None:
        """A single-lot line that has nothing of its lot yet may take another."""
        if not (line.announced or line.by_hand or line.got):
            line.lot = ""
