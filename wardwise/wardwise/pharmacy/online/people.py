"""What follows from all that happens beside the arm: orders, picks, defects, recalls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wardwise.pharmacy.online.arm import deliver
from wardwise.pharmacy.online.events import Decision, Kind
from wardwise.pharmacy.online.orders import OpenOrder
from wardwise.pharmacy.online.state import Moving
from wardwise.pharmacy.problem import Priority

if TYPE_CHECKING:
    from wardwise.pharmacy.online.events import (
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


def submit(state: State, event: Submit) -> list[Decision]:
    """Take an order in; manual lines and those without packs are listed at once."""
    asked, now_s = event.order, event.time_s
    if asked.id in state.known:
        raise ValueError(f"order {asked.id}: id: it has come already")
    unknown = set(event.single_lot) - {line.drug for line in asked.lines}
    if unknown:
        raise ValueError(f"order {asked.id}: single_lot: {min(unknown)!r} is in no line")
    number = state.known[asked.id] = len(state.known)
    order = OpenOrder(asked, number, state.line_s, event.single_lot)
    state.orders[asked.id] = order
    found = [
        Decision(
            kind=Kind.ACCEPT, time_s=now_s, order=asked.id,
            reason=f"{asked.priority}, {len(asked.lines)} lines",
        )
    ]  # fmt: skip
    manual = [line for line in order.lines.values() if line.line.is_manual]
    found += [state.by_hand(order, line, now_s, "not kept in the machine") for line in manual]
    found += state.list_short_lines(now_s, order.lines.keys())
    if state.is_down:
        found += _list_urgent(state, now_s)
    return found


def cancel(state: State, event: Cancel) -> list[Decision]:
    """Take an order out; what is announced for it is withdrawn."""
    order = _order(state, event.order)
    found = [
        state.withdraw(pick, event.time_s, "the order is cancelled")
        for pick, _ in list(state.picks())
        if pick.order == event.order
    ]
    for line in order.lines.values():
        found += [
            state.withdraw_hand(order, line, slot, event.time_s)
            for slot in dict.fromkeys(slot for slot, _ in line.hand_slots)
        ]
    del state.orders[event.order]
    done = Decision(kind=Kind.DONE, time_s=event.time_s, reason="cancelled", order=event.order)
    return [*found, done]


def sort_done(state: State, event: Sorted) -> list[Decision]:
    """Count what the pharmacist took; what is missing comes from elsewhere."""
    point, now_s = event.point, event.time_s
    if not 0 <= point < len(state.places):
        raise ValueError(f"sorted: point: expected 0 to {len(state.places) - 1}, got {point}")
    moving = state.moving
    if moving and moving.pick and point == state.next_point and not state.places[point].picks:
        if not 0 <= event.taken <= moving.pick.quantity:
            raise ValueError(_taken(moving.pick.quantity, event.taken))
        deliver(state, now_s)
    place = state.places[point]
    if not place.picks:
        raise ValueError(f"sorted: point: nothing is to be picked at point {point}")
    pick = place.picks[0]
    if not 0 <= event.taken <= pick.quantity:
        raise ValueError(_taken(pick.quantity, event.taken))
    place.picks.pop(0)
    state.sorted_s = now_s
    order, line = state.orders[pick.order], state.line_of(pick)
    missing = pick.quantity - event.taken
    line.announced -= pick.quantity
    line.got += event.taken
    line.waiting += missing
    found = []
    if missing:
        written_off, pick.slot.quantity = pick.slot.quantity + missing, 0
        reason = f"held {event.taken} of {pick.quantity} packs; looked for elsewhere"
        found = [
            Decision(
                kind=Kind.SHORT, time_s=now_s, reason=reason, order=pick.order, drug=pick.drug,
                bin=pick.slot.bin.id, quantity=written_off, point=point,
            )
        ]  # fmt: skip
        found += state.list_short_lines(now_s, {pick.drug})
    return found + state.close_if_done(order, now_s)


def hand_done(state: State, event: HandDone) -> list[Decision]:
    """Packs of the manual pick list are there."""
    order = _order(state, event.order)
    line = order.lines.get(event.drug)
    if line is None or not line.by_hand:
        raise ValueError(f"order {event.order}: drug: {event.drug!r} is not on the pick list")
    line.got, line.by_hand, line.hand_slots = line.got + line.by_hand, 0, []
    return state.close_if_done(order, event.time_s) or [
        _note(event.time_s, "by hand, the order waits for other lines", event.order, event.drug)
    ]


def refill(state: State, event: Refill) -> list[Decision]:
    """New packs wait to be stored."""
    cells = state.setup.machine.rack.num_cells
    if event.bin.cell >= cells:
        raise ValueError(
            f"bin {event.bin.id}: cell: expected 0 to {cells - 1}, got {event.bin.cell}"
        )
    waiting = {other.bin.id for other in state.refills}
    if state.moving and state.moving.refill:
        waiting.add(state.moving.refill.bin.id)
    slot = state.stock.slots.get(event.bin.id)
    if event.bin.id in waiting or (slot and slot.bin.cell != event.bin.cell):
        raise ValueError(f"bin {event.bin.id}: id: there is such a bin already")
    state.refills.append(event)
    return [_note(event.time_s, f"refill of {event.bin.quantity} waits", "", event.bin.drug)]


def down(state: State, event: Down) -> list[Decision]:
    """The machine stands still: what cannot wait is taken by hand."""
    state.is_down, state.until_s = True, event.until_s
    until = "" if event.until_s is None else f" until {event.until_s:.0f} s"
    return [_note(event.time_s, f"machine down{until}"), *_list_urgent(state, event.time_s)]


def up(state: State, event: Up) -> list[Decision]:
    """The machine works again."""
    state.is_down, state.until_s = False, None
    return [_note(event.time_s, "machine up")]


def block(state: State, event: Block) -> list[Decision]:
    """A cell is out of reach; what the arm was doing there is given up."""
    _require_cell(state, event.cell)
    state.stock.blocked.add(event.cell)
    now_s, moving = event.time_s, state.moving
    found = [_note(now_s, f"cell {event.cell} blocked")]
    if moving and moving.slot and moving.slot.bin.cell == event.cell:
        if moving.pick:
            found.append(state.withdraw(moving.pick, now_s, f"cell {event.cell} is blocked"))
        moving.slot.is_moving = False
        state.moving = None
    if moving and moving.refill and moving.refill.bin.cell == event.cell:
        state.refills.insert(0, moving.refill)
        state.moving = None
    slot = state.stock.slot_at(event.cell)
    waiting = {other.bin.drug for other in state.refills if other.bin.cell == event.cell}
    return found + state.list_short_lines(now_s, waiting | ({slot.bin.drug} if slot else set()))


def unblock(state: State, event: Unblock) -> list[Decision]:
    """A cell is within reach again; a bin that was set aside is back in it."""
    _require_cell(state, event.cell)
    state.stock.blocked.discard(event.cell)
    slot = state.stock.slot_at(event.cell)
    if slot:
        slot.is_aside = False
    return [_note(event.time_s, f"cell {event.cell} within reach")]


def recall(state: State, event: Recall) -> list[Decision]:
    """Nothing of a lot is handed out any more, not even what stands at a point already."""
    now_s = event.time_s
    reason = f"lot {event.lot} of {event.drug} is recalled"
    slots = [slot for slot in state.stock.of_drug(event.drug) if slot.bin.lot == event.lot]
    for slot in slots:
        slot.is_recalled = True
    state.refills = [_recalled(other, event) for other in state.refills]
    if state.moving and state.moving.refill:
        state.moving = Moving(refill=_recalled(state.moving.refill, event))
    found = [_note(now_s, reason, "", event.drug)]
    found += [
        state.withdraw(pick, now_s, reason)
        for pick, _ in list(state.picks())
        if pick.slot.is_recalled
    ]
    for order in state.orders.values():
        for line in order.lines.values():
            for slot in dict.fromkeys(slot for slot, _ in line.hand_slots):
                if slot.is_recalled:
                    found.append(state.withdraw_hand(order, line, slot, now_s))
    return found + state.list_short_lines(now_s, {event.drug})


def _recalled(other: Refill, event: Recall) -> Refill:
    bin_ = other.bin
    if (bin_.drug, bin_.lot) != (event.drug, event.lot):
        return other
    return replace(other, bin=replace(bin_, is_recalled=True))


def _list_urgent(state: State, now_s: float) -> list[Decision]:
    """Manual pick list of the orders that cannot wait until the machine works again."""
    found = []
    for order in state.ranked():
        asked = order.order
        too_late = (
            asked.due_s is not None and state.until_s is not None
            and state.until_s + order.work_s > asked.due_s
        )  # fmt: skip
        if asked.priority is not Priority.STAT and not too_late:
            continue
        why = "stat" if asked.priority is Priority.STAT else f"due at {asked.due_s:.0f} s"
        for line in order.waiting:
            while line.waiting:
                slots = state.choose(line, now_s).slots
                if not slots:
                    found.append(state.by_hand(order, line, now_s, f"{why}, machine down"))
                    break
                reason = f"{why}, machine down; first to expire"
                found.append(state.by_hand(order, line, now_s, reason, slots[0]))
    return found


def _order(state: State, name: str) -> OpenOrder:
    if name not in state.orders:
        raise ValueError(f"order {name}: id: there is no such open order")
    return state.orders[name]


def _require_cell(state: State, cell: int) -> None:
    last = state.setup.machine.rack.num_cells - 1
    if not 0 <= cell <= last:
        raise ValueError(f"cell: expected 0 to {last}, got {cell}")


def _taken(most: int, taken: int) -> str:
    return f"sorted: taken: expected 0 to {most} packs, got {taken}"


def _note(now_s: float, reason: str, order: str = "", drug: str = "") -> Decision:
    return Decision(kind=Kind.NOTE, time_s=now_s, reason=reason, order=order, drug=drug)
