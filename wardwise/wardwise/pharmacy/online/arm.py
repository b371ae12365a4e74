"""What the arm does next: the bin that fits best, new packs into their cell, or nothing yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.online.events import Decision, Kind
from wardwise.pharmacy.online.refill import delay_later_s, delay_now_s, pair_now, refill_s
from wardwise.pharmacy.online.state import Moving, Place, State
from wardwise.pharmacy.online.window import Window, best_window
from wardwise.pharmacy.problem import Priority

if TYPE_CHECKING:
    from wardwise.pharmacy.online.events import Refill
    from wardwise.pharmacy.online.orders import OpenLine, OpenOrder
    from wardwise.pharmacy.online.stock import Choice, Slot
    from wardwise.pharmacy.rack import Floats
    from wardwise.pharmacy.service_time import ServiceTime

MOST_PAIRED = 8  # refills and gaps that are paired with each other


@dataclass(eq=False)
class _Look:
    """Orders of the look-ahead with the bins that each line may be fetched from."""

    orders: list[tuple[OpenOrder, list[tuple[OpenLine, Choice, list[Slot]]]]] = field(
        default_factory=list
    )
    refill: Refill | None = None
    refill_order: str = ""

    def cells(self) -> list[list[list[int]]]:
        """Cells of orders, lines and bins."""
        return [[[s.bin.cell for s in slots] for _, _, slots in lines] for _, lines in self.orders]


def answer(state: State, now_s: float) -> list[Decision]:
    """Answer the arm, which has done what it was told and stands at the next point."""
    deliver(state, now_s)
    if state.is_down:
        return [Decision(kind=Kind.WAIT, time_s=now_s, reason="the machine stands still")]
    decisions: list[Decision] = []
    look = _look_ahead(state, now_s, decisions)
    overdue = _overdue(state, now_s)
    if look.refill:
        reason = f"order {look.refill_order} waits for these packs"
        return [*decisions, _store(state, look.refill, now_s, reason)]
    if overdue:
        reason = f"it has waited {now_s - overdue.time_s:.0f} s"
        return [*decisions, _store(state, overdue, now_s, reason)]
    place = state.places[state.next_point]
    window = None
    if look.orders:
        window = best_window(
            state.setup.machine, state.setup.service, _standing(state), state.next_point,
            look.cells(),
        )  # fmt: skip
    if window and not place.picks:
        return [*decisions, *_fetch(state, look, window, now_s)]
    return [*decisions, _fill_gap(state, look, window, now_s)]


def deliver(state: State, now_s: float) -> None:
    """The arm is done: its bin stands at the point, or new packs are in their cell."""
    moving = state.moving
    state.moving = None
    if moving is None:
        return
    if moving.refill:
        state.stock.add(moving.refill.bin, is_part=moving.refill.is_part)
    elif moving.slot:
        point = state.next_point
        moving.slot.is_moving, moving.slot.point = False, point
        picks = [moving.pick] if moving.pick else []
        state.places[point] = Place(slot=moving.slot, picks=picks, since_s=now_s)
        state.next_point = (point + 1) % len(state.places)


def _look_ahead(state: State, now_s: float, decisions: list[Decision]) -> _Look:
    """Collect the next orders' lines; what needs no move of the arm is decided on the way."""
    policy, look, is_free = state.setup.policy, _Look(), not _stat_waits(state)
    for order in state.ranked():
        lines = []
        for line in order.waiting:
            choice = state.choose(line, now_s)
            if not choice.slots:
                refill = state.refill_for(line, now_s)
                if refill is None:
                    decisions.append(state.by_hand(order, line, now_s, choice.reason))
                elif not look.orders and (is_free or order.order.priority is Priority.STAT):
                    look.refill, look.refill_order = refill, order.order.id
                continue
            standing = [slot for slot in choice.slots if slot.point is not None]
            if standing and not look.orders:
                decisions.append(_keep(state, order, line, standing[0], now_s))
                continue  # what that bin does not have is looked for at the next cycle
            in_cells = [slot for slot in choice.slots if slot.point is None]
            if in_cells:
                lines.append((line, choice, in_cells))
        if lines:
            look.refill = None  # there is something to fetch for this order meanwhile
            look.orders.append((order, _nearest(state, lines)[: policy.max_lines]))
        if len(look.orders) == policy.horizon or look.refill:
            break
    return look


def _nearest(
    state: State, lines: list[tuple[OpenLine, Choice, list[Slot]]]
) -> list[tuple[OpenLine, Choice, list[Slot]]]:
    """Lines of a large order, those near the bin that is stored next first."""
    if len(lines) <= state.setup.policy.max_lines:
        return lines
    machine, stored = state.setup.machine, _standing(state)[0]
    from_s = machine.reach_s[state.next_point] if stored is None else machine.between_s[stored]
    return sorted(lines, key=lambda found: float(from_s[found[2][0].bin.cell]))


def _standing(state: State) -> list[int | None]:
    """Cells of the bins at the points, the one to be stored next first."""
    m, first = len(state.places), state.next_point
    slots = [state.places[(first + k) % m].slot for k in range(m)]
    return [slot.bin.cell if slot else None for slot in slots]


def _keep(state: State, order: OpenOrder, line: OpenLine, slot: Slot, now_s: float) -> Decision:
    """Pick again from a bin that stands at a point."""
    pick = state.announce(order, line, slot)
    point = slot.point or 0
    place = state.places[point]
    if not place.picks:
        place.since_s = now_s
    place.picks.append(pick)
    return Decision(
        kind=Kind.KEEP, time_s=now_s, reason="its bin still stands at the point", order=pick.order,
        drug=pick.drug, bin=slot.bin.id, quantity=pick.quantity, point=point,
    )  # fmt: skip


def _fetch(state: State, look: _Look, window: Window, now_s: float) -> list[Decision]:
    """Store what stands at the next point and bring the first bin of the best sequence."""
    k, n, b = window.steps[0]
    order, lines = look.orders[k]
    line, choice, slots = lines[n]
    slot, point = slots[b], state.next_point
    decisions, stored = _clear(state, now_s)
    pick = state.announce(order, line, slot)
    slot.is_moving = True
    state.moving = Moving(slot=slot, pick=pick)
    num_lines = sum(len(found) for _, found in look.orders)
    reason = f"{state.setup.policy.reason(order, now_s)}; {choice.reason}"
    if num_lines > 1:
        reason += (
            f"; first of the best sequence of {num_lines} lines in {len(look.orders)} orders, "
            f"{window.cost_s:.1f} s"
        )
    fetch = Decision(
        kind=Kind.FETCH, time_s=now_s, reason=reason, order=pick.order, drug=pick.drug,
        bin=slot.bin.id, quantity=pick.quantity, cell=slot.bin.cell, point=point, stored=stored,
    )  # fmt: skip
    return [*decisions, fetch]


def _clear(state: State, now_s: float) -> tuple[list[Decision], str]:
    """Free the next point; a bin whose cell is out of reach is taken away by people."""
    slot = state.places[state.next_point].slot
    state.places[state.next_point] = Place()
    if slot is None:
        return [], ""
    slot.point = None
    if slot.bin.cell not in state.stock.blocked:
        return [], slot.bin.id
    slot.is_aside = True
    reason = f"its cell {slot.bin.cell} is out of reach"
    aside = Decision(
        kind=Kind.ASIDE, time_s=now_s, reason=reason, drug=slot.bin.drug, bin=slot.bin.id,
        cell=slot.bin.cell, point=state.next_point,
    )  # fmt: skip
    return [aside], ""


def _fill_gap(state: State, look: _Look, window: Window | None, now_s: float) -> Decision:
    """The arm would wait: a refill, if it delays nobody by much, or nothing."""
    place = state.places[state.next_point]
    if window and place.slot:
        wait = f"bin {place.slot.bin.id} at point {state.next_point + 1} is not sorted yet"
    else:
        wait = "there is nothing to fetch"
    refills = [refill for refill in state.refills if state.can_store(refill)]
    if refills and _stat_waits(state):
        wait += "; no refill while a stat order waits"
    elif refills and window is None:
        pressing = min(refills, key=lambda r: (state.stock.cover(r.bin.drug), r.time_s, r.bin.id))
        return _store(state, pressing, now_s, "there is nothing to fetch")
    elif refills and window:
        found = _pair(state, refills[:MOST_PAIRED], look, window, now_s)
        if found and found[1] <= state.setup.policy.max_refill_delay_s:
            reason = f"{wait}, and this delays the next bin by {found[1]:.1f} s on average"
            return _store(state, found[0], now_s, reason)
        wait += "; refills fit better later"
    return Decision(kind=Kind.WAIT, time_s=now_s, reason=wait)


def _pair(
    state: State, refills: list[Refill], look: _Look, window: Window, now_s: float
) -> tuple[Refill, float] | None:
    """Pair refills with this gap and those after the next cycles."""
    machine, place = state.setup.machine, state.places[state.next_point]
    work_s = refill_s(machine, state.next_point, [refill.bin.cell for refill in refills])
    sorting_s = now_s - max(place.since_s, state.sorted_s)
    service = _service(state, place)
    now = delay_now_s(service, max(sorting_s, 0.0), work_s)
    later = delay_later_s(state.setup.service, _coming_cycles(state, look, window), work_s)
    paired = pair_now(now, later[:, :MOST_PAIRED])
    return (refills[paired[0]], paired[1]) if paired else None


def _service(state: State, place: Place) -> ServiceTime:
    """Distribution of the pick that the arm waits for."""
    if state.setup.model is None or not place.picks:
        return state.setup.service
    pick = place.picks[0]
    return state.setup.model.service(drug=pick.drug, packs=pick.quantity)


def _coming_cycles(state: State, look: _Look, window: Window) -> Floats:
    """Cycles of the arm for the window's sequence."""
    machine, m = state.setup.machine, len(state.places)
    coming = [look.cells()[k][n][b] for k, n, b in window.steps]
    before = [*_standing(state), *coming]
    found = []
    for at, fetched in enumerate(coming):
        stored, point = before[at], (state.next_point + at) % m
        if stored is None:
            found.append(machine.fetch_s(point, fetched))
        else:
            found.append(machine.cycle_s(point, stored, fetched))
    return np.array(found, dtype=np.float64)


def _store(state: State, refill: Refill, now_s: float, reason: str) -> Decision:
    """New packs into their cell."""
    state.refills.remove(refill)
    state.moving = Moving(refill=refill)
    return Decision(
        kind=Kind.REFILL, time_s=now_s, reason=reason, drug=refill.bin.drug, bin=refill.bin.id,
        quantity=refill.bin.quantity, cell=refill.bin.cell,
    )  # fmt: skip


def _overdue(state: State, now_s: float) -> Refill | None:
    """A refill that has waited too long, unless a stat order waits."""
    patience_s = state.setup.policy.refill_patience_s
    late = [r for r in state.refills if now_s - r.time_s > patience_s and state.can_store(r)]
    return None if _stat_waits(state) else next(iter(late), None)


def _stat_waits(state: State) -> bool:
    """Whether a stat order has lines that nobody fetches yet."""
    return any(
        order.order.priority is Priority.STAT and order.waiting for order in state.orders.values()
    )
