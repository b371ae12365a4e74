"""A chain that no longer holds its promises, and robots that are late.

Promises first slip within the tolerances. Where that is not enough, requests are
taken off and placed anew by the rules, the most urgent first. What cannot be taken
off, because its goods are on board, stays and is late; that is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.fleet.dispatch.day import EPSILON_S

if TYPE_CHECKING:
    from wardwise.fleet.dispatch.day import Day
    from wardwise.fleet.dispatch.decision import Decision


def delay(day: Day, robot: int, delay_s: float) -> list[Decision]:
    """Shift what a robot is doing, and repair its chain.

    Under way it arrives later. At a stop it leaves later, as if the service took
    longer; at the depot it is ready later.
    """
    state, packed, chains = day.state, day.state.packed, day.state.chains
    k = int(chains.first[robot])
    node, begin_s = int(chains.node[robot, k]), state.reached_s(robot, k)
    ready_s = max(day.now_s, float(chains.leave[robot, k]) + delay_s)
    if k == 0:
        packed.start[robot] = chains.begin[robot, 0] = ready_s
        state.mark_twins()
    elif begin_s > day.now_s:
        state.note_departure(robot, k - 1)
        earliest_s = max(day.now_s, float(packed.earliest[node]))
        chains.begin[robot, k] = max(earliest_s, begin_s + delay_s)
    elif node != 0:
        packed.service[node] = ready_s - begin_s
    else:
        state.returned.setdefault((robot, k), begin_s)
        chains.begin[robot, k] = ready_s - packed.reload
    return day.place_all(repair(day, robot))


def repair(day: Day, robot: int) -> list[int]:
    """Make a chain keep its promises again; returns the nodes that had to be taken off."""
    state, packed, chains = day.state, day.state.packed, day.state.chains
    removed: list[int] = []
    if not state.refresh(robot):
        for node in state.row(robot)[chains.first[robot] + 1 :]:
            if node != 0:
                packed.latest[node] = max(packed.latest[node], state.hard[node])
    while not state.refresh(robot):
        k = _first_fault(day, robot)
        node, victim = int(chains.node[robot, k]), _victim(day, robot, k)
        if victim is not None:
            state.remove(victim)
            removed.append(victim)
        elif node == 0:
            packed.end[robot] = chains.begin[robot, k]
        else:
            packed.latest[node] = chains.begin[robot, k]
    _record(day, robot)
    return removed


def _first_fault(day: Day, robot: int) -> int:
    """First position behind the committed one that is late or leaves too full."""
    packed, chains = day.state.packed, day.state.chains
    for k in range(int(chains.first[robot]) + 1, int(chains.length[robot])):
        node = chains.node[robot, k]
        closes = packed.latest[node] if node != 0 else packed.end[robot]
        if chains.begin[robot, k] > closes or chains.on_board[robot, k] > packed.capacity[robot]:
            return k
    raise AssertionError(f"chain of robot {robot} is infeasible without a fault")


def _victim(day: Day, robot: int, fault: int) -> int | None:
    """Request to take off: the one at fault, else of the least urgent before it the last."""
    state = day.state
    row = state.row(robot)
    if row[fault] != 0 and state.is_open(state.request_node(row[fault])):
        return state.request_node(row[fault])
    before = row[state.chains.first[robot] + 1 : fault]
    nodes = [state.request_node(node) for node in before if node != 0]
    found = [
        (int(state.priority[node]), k, node) for k, node in enumerate(nodes) if state.is_open(node)
    ]
    return max(found)[2] if found else None


def _record(day: Day, robot: int) -> None:
    """Note what will be too late, and make the starts as they are promises."""
    state, chains = day.state, day.state.chains
    first, last = int(chains.first[robot]), int(chains.length[robot]) - 1
    for k in range(first, last + 1):
        node = int(chains.node[robot, k])
        if node == 0 or state.packed.is_pickup[node]:
            continue
        begin_s, request = float(chains.begin[robot, k]), state.requests[node]
        if begin_s > state.packed.due[node]:
            state.count_lateness()
        if begin_s > state.hard[node] + EPSILON_S:
            day.overdue[request.id] = begin_s - float(state.hard[node])
        else:
            day.overdue.pop(request.id, None)
    day.note_overrun(robot)
    state.tighten(robot)
