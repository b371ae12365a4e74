"""A day of the machine with the online scheduler at the desk, simulated event by event."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from wardwise.pharmacy.online import (
    Ask,
    Decision,
    Down,
    Event,
    HandDone,
    Kind,
    Recall,
    Refill,
    Scheduler,
    Setup,
    Sorted,
    Submit,
    Up,
)
from wardwise.pharmacy.staff import Desk, Staff, Stretch
from wardwise.pharmacy.twin import ArmTwin, Disturbances

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from wardwise.pharmacy.problem import Order

    Process = Generator[simpy.Event, Any, None]

HAND_S = 60.0  # a line that becomes manual during the day, as long as nothing else is known


@dataclass(frozen=True, kw_only=True, eq=False)
class RunningDay:
    """What became of a day.

    Parameters
    ----------
    orders
        All orders that came in.
    done_s
        When each was complete, by id.
    begun_s
        When the arm or somebody began with it, by id.
    decisions
        All decisions in their order, without those to wait.
    arm_busy, people_busy, down
        Shares of the time until the last order was complete.
    end_s
        That time.
    log
        What arm and pharmacists did, repairs and pauses among it, by the time of its end.
    """

    orders: tuple[Order, ...]
    done_s: dict[str, float]
    begun_s: dict[str, float]
    decisions: tuple[Decision, ...]
    arm_busy: float
    people_busy: float
    down: float
    end_s: float
    log: tuple[Stretch, ...]

    @cached_property
    def incomplete(self) -> frozenset[str]:
        """Orders for which the machine could not give all that it should have."""
        manual = {
            (order.id, line.drug) for order in self.orders for line in order.lines if line.is_manual
        }
        return frozenset(
            decision.order
            for decision in self.decisions
            if decision.kind is Kind.HAND and (decision.order, decision.drug) not in manual
        )

    def count(self, kind: Kind) -> int:
        """Decisions of a kind."""
        return sum(decision.kind is kind for decision in self.decisions)


def live_day(
    setup: Setup,
    orders: Sequence[Order],
    *,
    refills: Sequence[Refill] = (),
    recalls: Sequence[Recall] = (),
    disturbances: Disturbances | None = None,
    staff: Staff | None = None,
    num_hand: int = 1,
    restock_s: float | None = None,
    seed: int = 0,
    handle: Callable[[Event], tuple[Decision, ...]] | None = None,
) -> RunningDay:
    """Let the scheduler drive the machine until all orders are complete.

    Parameters
    ----------
    setup
        Machine, bins, policy.
    orders
        Each comes in at its release.
    refills, recalls
        New packs, and lots that must not be handed out, with the times when that happens.
    disturbances
        Breakdowns and missing packs.
    staff
        How pharmacists work.
    num_hand
        People who fetch manual lines, one after the other, at least 1.
    restock_s
        A bin that is empty is replaced by one that is as full as it was in the morning, which
        waits at the first point so many seconds later, at least 0; None: it stays empty.
    seed
        Of all luck: an order's sorting times and missing packs are the same under every policy.
    handle
        Takes events and gives decisions, as `Session.handle` does; None: a scheduler of its own.
    """
    if num_hand < 1:
        raise ValueError(f"num_hand: expected at least 1, got {num_hand}")
    if restock_s is not None and not restock_s >= 0:
        raise ValueError(f"restock_s: expected at least 0, got {restock_s}")
    handle = handle or Scheduler(setup).handle
    day = _Day(setup, orders, disturbances or Disturbances(), staff or Staff(), seed, handle)
    day.hands, day.restock_s = simpy.Resource(day.env, num_hand), restock_s
    for refill in refills:
        day.env.process(day.bring(refill))
    for recall in recalls:
        day.env.process(day.hear(recall))
    for order in orders:
        day.env.process(day.come(order))
    day.env.process(day.drive())
    day.env.run()
    end_s = max(day.done_s.values(), default=0.0) or 1.0
    return RunningDay(
        orders=tuple(orders), done_s=day.done_s, begun_s=day.begun_s,
        decisions=tuple(day.decisions), arm_busy=day.arm.busy_s / end_s,
        people_busy=day.desk.sorting_s / end_s / setup.machine.num_pharmacists,
        down=day.arm.down_s / end_s, end_s=end_s,
        log=tuple(sorted(day.log + day.desk.log, key=lambda done: done.to_s)),
    )  # fmt: skip


@dataclass(eq=False)
class _Luck:
    """Sorting times and missing packs of each order and drug, whatever is decided."""

    setup: Setup
    disturbances: Disturbances
    seed: int
    streams: dict[tuple[str, str], np.random.Generator] = field(default_factory=dict)

    def draw(self, order: str, drug: str, packs: int, person: str) -> tuple[float, int]:
        """Seconds of sorting, and packs found."""
        key = order, drug
        if key not in self.streams:
            words = [self.seed, *f"{order}/{drug}".encode()]
            self.streams[key] = np.random.default_rng(words)
        rng, model = self.streams[key], self.setup.model
        service = self.setup.service
        if model:
            service = model.service(drug=drug, packs=packs, person=person)
        seconds = float(service.sample((1,), rng)[0])
        return seconds, 0 if rng.random() < self.disturbances.missing else packs


class _Day:
    """Processes of one day."""

    def __init__(
        self,
        setup: Setup,
        orders: Sequence[Order],
        disturbances: Disturbances,
        staff: Staff,
        seed: int,
        handle: Callable[[Event], tuple[Decision, ...]],
    ) -> None:
        self.env = simpy.Environment()
        self.handle = handle
        self.arm = ArmTwin(
            self.env, setup.machine, disturbances, np.random.default_rng(seed), self.fail
        )
        self.desk = Desk(
            self.env, setup.machine.num_pharmacists, staff, lambda: len(self.done_s) < len(orders)
        )
        self.points = [simpy.Resource(self.env) for _ in setup.machine.points_m]
        self.hands = simpy.Resource(self.env)
        self.luck = _Luck(setup, disturbances, seed)
        self.manual_s = {
            (order.id, line.drug): line.manual_s for order in orders for line in order.lines
        }
        self.cell_of = {bin_.id: bin_.cell for bin_ in setup.bins}
        self.bins = {bin_.id: bin_ for bin_ in setup.bins}
        self.packs = {bin_.id: bin_.quantity for bin_ in setup.bins}
        self.restock_s: float | None = None
        self.bell = self.env.event()
        self.listed: Counter[tuple[str, str]] = Counter()  # packs on the manual pick list
        self.void: Counter[tuple[int, str, str, str]] = Counter()  # picks that are withdrawn
        self.done_s: dict[str, float] = {}
        self.begun_s: dict[str, float] = {}
        self.decisions: list[Decision] = []
        self.log: list[Stretch] = []
        self.down_s = 0.0

    def tell(self, event: Event) -> tuple[Decision, ...]:
        """Send an event, act on what concerns people, wake the arm."""
        decisions = self.handle(event)
        for decision in decisions:
            self._act(decision)
        if not isinstance(event, Ask):
            self.bell.succeed()
            self.bell = self.env.event()
        return decisions

    def come(self, order: Order) -> Process:
        """An order comes in."""
        yield self.env.timeout(order.release_s)
        self.tell(Submit(time_s=self.env.now, order=order))

    def bring(self, refill: Refill) -> Process:
        """New packs come in."""
        yield self.env.timeout(refill.time_s - self.env.now)
        bin_ = refill.bin
        self.cell_of[bin_.id], self.bins[bin_.id] = bin_.cell, bin_
        self.packs[bin_.id] = bin_.quantity
        self.tell(refill)

    def hear(self, recall: Recall) -> Process:
        """A lot is recalled."""
        yield self.env.timeout(recall.time_s)
        self.tell(recall)

    def fail(self, until_s: float | None) -> None:
        """The arm stands still, or goes on."""
        now_s = self.env.now
        if until_s is None:
            self.log.append(Stretch(who=None, what="repair", from_s=self.down_s, to_s=now_s))
        self.down_s = now_s
        self.tell(Up(time_s=now_s) if until_s is None else Down(time_s=now_s, until_s=until_s))

    def drive(self) -> Process:
        """The arm asks, does, and asks again."""
        m = len(self.arm.machine.points_m)
        following, used = 0, [False] * m
        while True:
            if used[following]:
                yield from self.arm.shift(following)
            bell = self.bell
            from_s = self.env.now
            decision = self.tell(Ask(time_s=from_s))[-1]
            if decision.kind is Kind.FETCH:
                assert decision.cell is not None
                stored = self.cell_of[decision.stored] if decision.stored else None
                yield from self.arm.fetch(following, decision.cell, stored)
                self._note(decision, from_s)
                self.env.process(self.sort(decision))
                used[following] = True
                following = (following + 1) % m
            elif decision.kind is Kind.REFILL:
                assert decision.cell is not None
                yield from self.arm.refill(decision.cell)
                self._note(decision, from_s)
            else:
                yield bell

    def sort(self, decision: Decision) -> Process:
        """A pharmacist takes the packs; at one point one after the other, as announced."""
        point, taken = decision.point, 0
        assert point is not None

        def seconds_of(person: str) -> float:
            nonlocal taken
            seconds, taken = self.luck.draw(
                decision.order, decision.drug, decision.quantity, person
            )
            return seconds

        with self.points[point].request() as first:
            yield first
            if self._is_void(decision):
                return
            yield from self.desk.sort(
                seconds_of, order=decision.order, drug=decision.drug, point=point
            )
            if self._is_void(decision):
                return  # the packs go back into their bin
            self.tell(Sorted(time_s=self.env.now, point=point, taken=taken))

    def fetch_by_hand(self, decision: Decision) -> Process:
        """Somebody walks for a line."""
        key = decision.order, decision.drug
        with self.hands.request() as turn:
            yield turn
            yield self.env.timeout(self.manual_s[key] or HAND_S)
        if self.listed.pop(key, 0) > 0:
            self.tell(HandDone(time_s=self.env.now, order=decision.order, drug=decision.drug))

    def _act(self, decision: Decision) -> None:
        """What people do at once, and what is noted."""
        if decision.kind is Kind.WAIT:
            return
        self.decisions.append(decision)
        self._count(decision)
        if decision.kind in (Kind.FETCH, Kind.KEEP, Kind.HAND):
            self.begun_s.setdefault(decision.order, decision.time_s)
        if decision.kind is Kind.KEEP:
            self.env.process(self.sort(decision))
        elif decision.kind is Kind.HAND:
            key = decision.order, decision.drug
            if not self.listed[key]:
                self.env.process(self.fetch_by_hand(decision))
            self.listed[key] += decision.quantity
        elif decision.kind is Kind.VOID and decision.point is None:
            self.listed[decision.order, decision.drug] -= decision.quantity
        elif decision.kind is Kind.VOID:
            self.void[_pick(decision)] += 1
        elif decision.kind is Kind.DONE:
            self.done_s[decision.order] = decision.time_s

    def _is_void(self, decision: Decision) -> bool:
        """Whether a pick has been withdrawn; told once."""
        key = _pick(decision)
        is_void = self.void[key] > 0
        self.void[key] -= is_void
        return is_void

    def _note(self, decision: Decision, from_s: float) -> None:
        """Keep what the arm did for a decision."""
        self.log.append(
            Stretch(
                who=None, what=decision.kind.value, from_s=from_s, to_s=self.env.now,
                order=decision.order, drug=decision.drug, point=decision.point,
            )
        )  # fmt: skip

    def _count(self, decision: Decision) -> None:
        """Packs that are left by the books; an empty bin is replaced."""
        name = decision.bin
        before = self.packs.get(name, 0)
        if decision.kind in (Kind.FETCH, Kind.KEEP, Kind.HAND) and name:
            self.packs[name] -= decision.quantity
        elif decision.kind is Kind.VOID:
            self.packs[name] += decision.quantity
        elif decision.kind is Kind.SHORT:
            self.packs[name] = 0
        if before and not self.packs[name] and self.restock_s is not None:
            time_s = self.env.now + self.restock_s
            old = self.bins[name]
            new = replace(old, id=f"{name}+")
            self.env.process(self.bring(Refill(time_s=time_s, bin=new)))


def _pick(decision: Decision) -> tuple[int, str, str, str]:
    """What tells picks apart."""
    assert decision.point is not None
    return decision.point, decision.order, decision.drug, decision.bin
