"""Days at random, checked by a ledger that knows only events and decisions.

Whatever happens: no expired or recalled pack is taken, the first to expire goes first within the
tolerance, no pack appears or vanishes, and every order is complete in the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.pharmacy import online
from wardwise.pharmacy.problem import Bin, Line, Order, Priority
from wardwise.pharmacy.rack import Machine, Rack

TODAY = date(2026, 3, 1)
DRUGS = ("A", "B", "C", "D")
RACK = Rack(num_columns=6, num_rows=4)


@dataclass
class Account:
    """A bin as the ledger sees it."""

    bin: Bin
    quantity: int
    is_part: bool
    is_recalled: bool
    place: str = "cell"


class Ledger:
    """Keeps books on packs from events and decisions alone, and complains."""

    def __init__(self, setup: online.Setup) -> None:
        self.rules = setup.rules
        self.books = {b.id: self._account(b, b.id in setup.part_bins) for b in setup.bins}
        self.refills: dict[str, tuple[Bin, bool]] = {}
        self.blocked: set[int] = set()
        self.wanted: dict[str, dict[str, Line]] = {}
        self.got: dict[tuple[str, str], int] = {}
        self.lots: Counter[tuple[str, str, str]] = Counter()
        self.single: set[tuple[str, str]] = set()
        self.picks: dict[int, list[tuple[str, str, str, int]]] = {}
        self.hand: dict[tuple[str, str], list[tuple[str, int]]] = {}
        self.moving = ""
        self.brought = sum(b.quantity for b in setup.bins)
        self.handed_out = self.written_off = 0
        self.done: list[str] = []

    @staticmethod
    def _account(bin_: Bin, is_part: bool) -> Account:
        return Account(bin_, bin_.quantity, is_part, bin_.is_recalled)

    def event(self, event: online.Event) -> None:
        """What happened before the decisions on it."""
        match event:
            case online.Submit():
                self.wanted[event.order.id] = {line.drug: line for line in event.order.lines}
                self.single |= {(event.order.id, drug) for drug in event.single_lot}
            case online.Refill():
                self.refills[event.bin.id] = (event.bin, event.is_part)
            case online.Recall():
                for account in self.books.values():
                    if (account.bin.drug, account.bin.lot) == (event.drug, event.lot):
                        account.is_recalled = True
                for name, (b, part) in self.refills.items():
                    if (b.drug, b.lot) == (event.drug, event.lot):
                        self.refills[name] = (replace(b, is_recalled=True), part)
            case online.Block():
                self.blocked.add(event.cell)
            case online.Unblock():
                self.blocked.discard(event.cell)
                for account in self.books.values():
                    if account.place == "aside" and account.bin.cell == event.cell:
                        account.place = "cell"
            case online.Sorted():
                order, drug, name, quantity = self.picks[event.point].pop(0)
                assert not self.books[name].is_recalled
                self.handed_out += event.taken
                self.got[order, drug] = self.got.get((order, drug), 0) + event.taken
                self.books[name].quantity += quantity - event.taken
                self.lots[order, drug, self.books[name].bin.lot] -= quantity - event.taken
            case online.HandDone():
                for name, quantity in self.hand.pop((event.order, event.drug)):
                    self.handed_out += quantity if name else 0
                    key = event.order, event.drug
                    self.got[key] = self.got.get(key, 0) + quantity

    def decision(self, decision: online.Decision) -> None:
        """A decision, checked and booked."""
        assert decision.reason
        key, name = (decision.order, decision.drug), decision.bin
        match decision.kind:
            case online.Kind.FETCH | online.Kind.KEEP:
                self._check(decision)
                account = self.books[name]
                account.quantity -= decision.quantity
                assert decision.point is not None
                self.picks.setdefault(decision.point, []).append((*key, name, decision.quantity))
                if decision.kind is online.Kind.FETCH:
                    assert account.place == "cell"
                    if decision.stored:
                        assert self.books[decision.stored].place == f"point {decision.point}"
                        assert self.books[decision.stored].bin.cell not in self.blocked
                        self.books[decision.stored].place = "cell"
                    account.place, self.moving = f"point {decision.point}", name
                else:
                    assert account.place == f"point {decision.point}"
            case online.Kind.HAND:
                if name:
                    self._check(decision)
                    self.books[name].quantity -= decision.quantity
                self.hand.setdefault(key, []).append((name, decision.quantity))
            case online.Kind.VOID:
                self.books[name].quantity += decision.quantity
                self.lots[*key, self.books[name].bin.lot] -= decision.quantity
                if decision.point is None:
                    self.hand[key] = [entry for entry in self.hand[key] if entry[0] != name]
                else:
                    entry = (*key, name, decision.quantity)
                    self.picks[decision.point].remove(entry)
            case online.Kind.ASIDE:
                self.books[name].place = "aside"
            case online.Kind.SHORT:
                assert self.books[name].quantity == decision.quantity
                self.written_off += decision.quantity
                self.books[name].quantity = 0
            case online.Kind.REFILL:
                bin_, _ = self.refills[name]
                assert not bin_.is_recalled
                assert bin_.cell not in self.blocked
            case online.Kind.DONE:
                lines = self.wanted.pop(decision.order)
                if decision.reason != "cancelled":
                    for drug, line in lines.items():
                        assert self.got[decision.order, drug] == line.quantity
                self.done.append(decision.order)

    def stored(self, name: str) -> None:
        """The arm has put new packs into their cell, where nothing was left."""
        bin_, is_part = self.refills.pop(name)
        for other, account in list(self.books.items()):
            if account.bin.cell == bin_.cell:
                assert account.quantity == 0
                assert account.place in ("cell", "aside")
                del self.books[other]
        self.books[name] = self._account(bin_, is_part)
        self.brought += bin_.quantity

    def balance(self) -> None:
        """Packs brought = in bins + announced + listed from bins + handed out + written off."""
        announced = sum(pick[3] for picks in self.picks.values() for pick in picks)
        listed = sum(n for entries in self.hand.values() for name, n in entries if name)
        left = sum(account.quantity for account in self.books.values())
        assert min((a.quantity for a in self.books.values()), default=0) >= 0
        assert self.brought == left + announced + listed + self.handed_out + self.written_off

    def _check(self, decision: online.Decision) -> None:
        """The bin is good, and the first to expire within the tolerance."""
        line = self.wanted[decision.order][decision.drug]
        day = TODAY + timedelta(days=int(decision.time_s // 86_400))
        good = [a for a in self.books.values() if self._is_good(a, line, day)]
        chosen = self.books[decision.bin]
        assert chosen in good
        assert 1 <= decision.quantity <= chosen.quantity
        key = decision.order, decision.drug
        if key in self.single:
            self.lots[*key, chosen.bin.lot] += decision.quantity
            good = [a for a in good if a.bin.lot == chosen.bin.lot]
        full = [a for a in good if not a.is_part]
        if self.rules.avoids_part_packs and full:
            assert not chosen.is_part
            good = full
        first = min(a.bin.expiry for a in good)
        assert chosen.bin.expiry <= first + timedelta(days=self.rules.tolerance_days)

    def _is_good(self, account: Account, line: Line, day: date) -> bool:
        bin_ = account.bin
        return (
            bin_.drug == line.drug and account.quantity > 0 and not account.is_recalled
            and account.place != "aside"
            and (account.place != "cell" or bin_.cell not in self.blocked)
            and bin_.expiry >= day + timedelta(days=self.rules.min_remaining_days)
            and (line.min_expiry is None or bin_.expiry >= line.min_expiry)
        )  # fmt: skip


class World:
    """Machine and people around the scheduler: they do what it says, and things go wrong."""

    def __init__(self, setup: online.Setup, rng: np.random.Generator) -> None:
        self.scheduler, self.ledger, self.rng = online.Scheduler(setup), Ledger(setup), rng
        self.num_points = len(setup.machine.points_m)
        self.time_s, self.count = float(rng.choice([0.0, 85_000.0])), 0  # or near midnight
        self.arm: online.Decision | None = None
        self.is_down = False

    def send(self, event: online.Event) -> list[online.Decision]:
        """Tell the scheduler, the ledger in between."""
        self.ledger.event(event)
        decisions = list(self.scheduler.handle(event))
        for decision in decisions:
            self.ledger.decision(decision)
        if self.arm and self.arm.kind is online.Kind.FETCH and isinstance(event, online.Block):
            if self.arm.cell == event.cell:
                self.ledger.books[self.arm.bin].place = "cell"
                self.arm = None
        elif self.arm and isinstance(event, online.Block) and self.arm.cell == event.cell:
            self.arm = None
        self.ledger.balance()
        return decisions

    def act(self) -> None:
        """One thing at random."""
        self.time_s += float(self.rng.exponential(20.0))
        actions = [self.submit, self.ask, self.ask, self.sort, self.sort, self.hand, self.trouble]
        actions[int(self.rng.integers(len(actions)))]()

    def submit(self) -> None:
        """An order with some lines, a few of them manual."""
        self.count += 1
        drugs = self.rng.choice(DRUGS, int(self.rng.integers(1, 4)), replace=False)
        lines = tuple(
            Line(
                drug=str(drug), quantity=int(self.rng.integers(1, 6)),
                is_manual=bool(self.rng.random() < 0.1),
                min_expiry=TODAY + timedelta(days=40) if self.rng.random() < 0.1 else None,
            )
            for drug in drugs
        )  # fmt: skip
        priority = list(Priority)[int(self.rng.integers(3))]
        order = Order(
            id=f"O{self.count}", lines=lines, priority=priority, release_s=self.time_s,
            due_s=self.time_s + 900 if self.rng.random() < 0.5 else None,
        )  # fmt: skip
        lot = tuple(str(d) for d in drugs[:1]) if self.rng.random() < 0.2 else ()
        self.send(online.Submit(time_s=self.time_s, order=order, single_lot=lot))

    def ask(self) -> bool:
        """The arm has done what it was told; returns whether there is something to do."""
        if self.arm and self.arm.kind is online.Kind.REFILL:
            self.ledger.stored(self.arm.bin)
        self.arm = None
        decisions = self.send(online.Ask(time_s=self.time_s))
        assert decisions[-1].kind in (online.Kind.FETCH, online.Kind.REFILL, online.Kind.WAIT)
        if self.is_down:
            assert decisions[-1].kind is online.Kind.WAIT
        self.arm = decisions[-1] if decisions[-1].kind is not online.Kind.WAIT else None
        return len(decisions) > 1 or self.arm is not None

    def sort(self) -> bool:
        """A pharmacist takes packs from a bin that stands there, sometimes fewer than booked."""
        for point, picks in self.ledger.picks.items():
            is_coming = self.arm and self.arm.kind is online.Kind.FETCH and self.arm.point == point
            if picks and not is_coming:
                most = picks[0][3]
                taken = int(self.rng.integers(0, most + 1)) if self.rng.random() < 0.1 else most
                self.send(online.Sorted(time_s=self.time_s, point=point, taken=taken))
                return True
        return False

    def hand(self) -> bool:
        """Somebody brings what was to be taken by hand."""
        for order, drug in self.ledger.hand:
            if self.ledger.hand[order, drug] and order in self.ledger.wanted:
                self.send(online.HandDone(time_s=self.time_s, order=order, drug=drug))
                return True
        return False

    def trouble(self) -> None:
        """A refill, recall, blocked cell, breakdown or cancelled order."""
        now_s, rng = self.time_s, self.rng
        cell = int(rng.integers(RACK.num_cells))
        match int(rng.integers(6)):
            case 0:
                self.count += 1
                new = bin_of(rng, self.count, cell)
                self.send(online.Refill(time_s=now_s, bin=new, is_part=bool(rng.random() < 0.2)))
            case 1 if rng.random() < 0.3:
                self.send(
                    online.Recall(time_s=now_s, drug=str(rng.choice(DRUGS)), lot=f"L{cell % 3}")
                )
            case 2:
                self.send(online.Block(time_s=now_s, cell=cell))
            case 3 if self.ledger.blocked:
                self.send(online.Unblock(time_s=now_s, cell=min(self.ledger.blocked)))
            case 4:
                self.is_down = not self.is_down
                until_s = now_s + 600 if rng.random() < 0.5 else None
                self.send(
                    online.Down(time_s=now_s, until_s=until_s)
                    if self.is_down
                    else online.Up(time_s=now_s)
                )
            case 5 if self.ledger.wanted and rng.random() < 0.3:
                order = min(self.ledger.wanted)
                self.send(online.Cancel(time_s=now_s, order=order))
                self.ledger.hand = {k: v for k, v in self.ledger.hand.items() if k[0] != order}

    def finish(self) -> None:
        """All is repaired, and everybody works until nothing is left to do."""
        if self.is_down:
            self.is_down = False
            self.send(online.Up(time_s=self.time_s))
        for cell in sorted(self.ledger.blocked):
            self.send(online.Unblock(time_s=self.time_s, cell=cell))
        for _ in range(2000):
            self.time_s += 30
            if not (self.ask() | self.sort() | self.hand()):
                break
        assert self.ledger.wanted == {}, "orders are left open"
        assert not self.scheduler.state.orders


def bin_of(rng: np.random.Generator, number: int, cell: int) -> Bin:
    """A bin with few packs that expire within two months, some of them before today."""
    return Bin(
        id=f"B{number}", drug=DRUGS[int(rng.integers(4))], cell=cell,
        quantity=int(rng.integers(0, 9)), lot=f"L{int(rng.integers(3))}",
        expiry=TODAY + timedelta(days=int(rng.integers(-3, 60))),
        is_recalled=bool(rng.random() < 0.05),
    )  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.sampled_from(["strict", "ageing", "slack", "weighted"]),
    st.integers(0, 30),
    st.integers(0, 5),
)
def test_no_day_breaks_a_rule(
    seed: int, num_points: int, rule: str, tolerance: int, remaining: int
) -> None:
    """A hundred things at random: the books balance after each, and all orders end complete."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(RACK.num_cells)[:12].tolist()
    bins = tuple(bin_of(rng, 1000 + k, cell) for k, cell in enumerate(cells))
    machine = Machine(rack=RACK, points_m=((0.0, 0.0),) * num_points)
    setup = online.Setup(
        machine=machine, bins=bins, today=TODAY, part_bins=tuple(b.id for b in bins[:3]),
        policy=online.Policy(rule=rule),
        rules=online.StockRules(
            tolerance_days=tolerance, min_remaining_days=remaining,
            avoids_part_packs=bool(rng.random() < 0.7),
        ),
    )  # fmt: skip
    world = World(setup, rng)
    for _ in range(100):
        world.act()
    world.finish()
    # The scheduler's own books say the same.
    own = {name: slot.quantity for name, slot in world.scheduler.state.stock.slots.items()}
    assert own == {name: account.quantity for name, account in world.ledger.books.items()}
    of_one_lot = Counter(key[:2] for key, packs in world.ledger.lots.items() if packs > 0)
    assert set(of_one_lot.values()) <= {1}


def test_the_ledger_finds_what_is_wrong() -> None:
    """Packs of an expired, a recalled or a later bin, or from nowhere, are found."""
    early, late = (
        Bin(id=f"B{k}", drug="A", cell=k, quantity=3, lot="L", expiry=TODAY + timedelta(days=k))
        for k in (0, 9)
    )
    stale = replace(early, id="B7", cell=7, expiry=TODAY - timedelta(days=1))
    setup = online.Setup(machine=Machine(rack=RACK), bins=(early, late, stale), today=TODAY)
    order = Order(id="O", lines=(Line(drug="A"),))
    fetch = online.Decision(
        kind=online.Kind.FETCH, time_s=0, reason="r", order="O", drug="A", quantity=1, point=0
    )
    for name in ("B7", "B9"):
        ledger = Ledger(setup)
        ledger.event(online.Submit(time_s=0, order=order))
        with pytest.raises(AssertionError):
            ledger.decision(replace(fetch, bin=name))
    ledger = Ledger(setup)
    ledger.event(online.Submit(time_s=0, order=order))
    ledger.decision(replace(fetch, bin="B0"))
    ledger.balance()
    ledger.books["B9"].quantity += 1
    with pytest.raises(AssertionError):
        ledger.balance()
