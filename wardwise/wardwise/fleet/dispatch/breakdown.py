"""A robot breaks down, is rescued, and comes back.

The goods on board become requests of their own: from where the robot stands to
where they were to go. A delivery that was under way is replaced by its rescue. Of a
transfer that was picked up the pickup remains, as a collection, beside its rescue.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wardwise.fleet.dispatch.day import FIRST_MOMENT_S
from wardwise.fleet.dispatch.decision import Decision, Status
from wardwise.fleet.dispatch.state import OUT_OF_ORDER
from wardwise.fleet.problem import Kind, Request

if TYPE_CHECKING:
    from wardwise.fleet.dispatch.day import Day


def breakdown(day: Day, robot: int, place: str | None) -> list[Decision]:
    """Stop a robot where it is, and place anew what it can no longer do.

    Stops that it has started count as served.
    """
    state, chains = day.state, day.state.chains
    row, first = state.row(robot), int(chains.first[robot])
    last = first if first == 0 or state.reached_s(robot, first) <= day.now_s else first - 1
    start = max(k for k in range(last + 1) if row[k] == 0)
    here = day.instance.places[chains.place[robot, last]].id if place is None else place
    behind = row[last + 1 :]
    loaded = collected = []
    if first > start:  # the robot has left the depot on this trip
        driven, ahead = row[start + 1 : last + 1], behind[: behind.index(0)]
        loaded = [n for n in ahead if _is_loaded(day, n, driven)]
        collected = [n for n in driven if state.requests[n].kind is Kind.COLLECT]
    again = {state.request_node(n) for n in behind if n != 0} - set(loaded)
    _stop(day, robot, row, last)
    rescued = []
    for node in loaded:
        if here == day.depot and state.requests[node].kind is Kind.DELIVER:
            again.add(node)  # its goods are where they came from
        else:
            rescued += _rescue(day, node, here)
    rescued += [_bring_home(day, node, here) for node in collected if here != day.depot]
    return day.place_all(again, rescued)


def return_to_service(day: Day, robot: int) -> None:
    """Let a robot that was out of order, now empty and at the depot, work again."""
    state, packed, chains = day.state, day.state.packed, day.state.chains
    packed.capacity[robot] = state.capacity[robot]
    k = int(chains.first[robot])
    if k == 0:
        packed.start[robot] = max(day.now_s, float(state.start[robot]))
        chains.begin[robot, 0] = packed.start[robot]
    else:
        state.returned.setdefault((robot, k), float(chains.begin[robot, k]))
        chains.begin[robot, k] = day.now_s
    state.mark_twins()
    state.tighten(robot)


def _is_loaded(day: Day, node: int, driven: list[int]) -> bool:
    """Whether the goods of a stop ahead are on board."""
    state = day.state
    kind = state.requests[node].kind
    is_picked_up = kind is Kind.TRANSFER and int(state.packed.partner[node]) in driven
    return kind is Kind.DELIVER or is_picked_up


def _stop(day: Day, robot: int, row: list[int], last: int) -> None:
    """End a robot's chain behind position `last`, and take the robot out of order."""
    state, packed, chains = day.state, day.state.packed, day.state.chains
    if row[last] != 0:  # on a trip: no way home, but the chain needs its depot
        end = (robot, last + 1)
        chains.begin[end] = state.returned[end] = day.now_s
        chains.first[robot] = last + 1
        state.broken_off.add(end)
        metres = packed.distance[chains.place[robot, last], 0]
        day.undriven_cost += float(packed.metre_price * metres)
        state.set_row(robot, [*row[: last + 1], 0])
    else:
        state.departed.pop((robot, last), None)
        chains.first[robot] = last
        state.set_row(robot, row[: last + 1] if last > 0 else [0, 0])
    state.tighten(robot)
    packed.capacity[robot] = OUT_OF_ORDER
    day.note_overrun(robot)
    state.mark_twins()


def _rescue(day: Day, node: int, here: str) -> list[int]:
    """Put a request in place of one whose goods are on board; returns its node.

    There is none when the goods are already where they were to go.
    """
    state, request = day.state, day.state.requests[node]
    if request.kind is Kind.TRANSFER:
        day.status[request.id] = Status.REPLACED
        day.keep_pickup(node, request.id)
    else:
        day.forget(request.id, Status.REPLACED)
        state.free(node)
    if here == request.place:
        return []
    is_at_depot = here == day.depot
    rescue = replace(
        request,
        id=day.new_id(request.id, "rescue"),
        kind=Kind.DELIVER if is_at_depot else Kind.TRANSFER,
        origin=None if is_at_depot else here,
        release_s=max(day.now_s, FIRST_MOMENT_S),
    )
    return [day.reveal(rescue)]


def _bring_home(day: Day, node: int, here: str) -> int:
    """Request to carry collected goods to the depot by the end of the day."""
    request = day.state.requests[node]
    rescue = Request(
        id=day.new_id(request.id, "rescue"),
        kind=Kind.TRANSFER,
        origin=here,
        place=day.depot,
        load=request.load,
        due_s=day.end_s,
        service_s=request.service_s,
        release_s=max(day.now_s, FIRST_MOMENT_S),
        priority=request.priority,
    )
    return day.reveal(rescue)
