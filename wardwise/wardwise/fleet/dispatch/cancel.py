"""A request is withdrawn, as far as that is still possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.fleet.dispatch.day import FIRST_MOMENT_S
from wardwise.fleet.dispatch.decision import Cancellation, CancelStatus, Decision, Status
from wardwise.fleet.dispatch.recovery import repair
from wardwise.fleet.problem import Kind, Request

if TYPE_CHECKING:
    from wardwise.fleet.dispatch.day import Day


def cancel(day: Day, id_: str) -> tuple[Cancellation, list[Decision]]:
    """Withdraw a request; goods that are on board ride back to the depot.

    Returns
    -------
    cancellation, decisions
        The answer, and decisions about requests that lost their place because the
        goods stay on board longer.
    """
    state, status = day.state, day.status[id_]
    if status is Status.PENDING:
        del day.pool[id_]
        state.free(state.nodes[id_])
        day.forget(id_, Status.CANCELLED)
        return Cancellation(request=id_, status=CancelStatus.REMOVED), []
    if status is not Status.ACCEPTED:
        return Cancellation(request=id_, status=CancelStatus.NOT_OPEN), []
    node = state.nodes[id_]
    robot = int(state.chains.owner[node])
    if state.is_open(node):
        state.remove(node)
        state.free(node)
        day.forget(id_, Status.CANCELLED)
        removed = repair(day, robot)
        return Cancellation(request=id_, status=CancelStatus.REMOVED), day.place_all(removed)
    if _is_under_way(day, node):
        return Cancellation(request=id_, status=CancelStatus.TOO_LATE), []
    if state.position(node) <= state.chains.first[robot]:
        return Cancellation(request=id_, status=CancelStatus.SERVED), []
    name = _send_back(day, node)
    cancellation = Cancellation(request=id_, status=CancelStatus.RETURNED, return_request=name)
    return cancellation, day.place_all(repair(day, robot))


def _is_under_way(day: Day, node: int) -> bool:
    """Whether the robot has left for a stop of the request and not started it."""
    state, chains = day.state, day.state.chains
    robot = int(chains.owner[node])
    first = int(chains.first[robot])
    is_next = state.request_node(int(chains.node[robot, first])) == node
    return is_next and bool(chains.begin[robot, first] > day.now_s)


def _send_back(day: Day, node: int) -> str:
    """Let goods on board ride home; returns the id under which they do."""
    state, request = day.state, day.state.requests[node]
    if request.place == day.depot and request.kind is Kind.DELIVER:
        return request.id  # they already do
    robot, position = int(state.chains.owner[node]), state.position(node)
    row = state.row(robot)
    rest = row[position + 1 :]
    name = day.new_id(request.id, "return")
    day.forget(request.id, Status.CANCELLED)
    day.status[name] = Status.ACCEPTED
    if request.kind is Kind.TRANSFER:
        state.set_row(robot, row[:position] + rest)
        day.keep_pickup(node, name)
        return name
    # The goods weigh until the depot: they are delivered there, as the last stop of the trip.
    day.known[name] = Request(
        id=name,
        kind=Kind.DELIVER,
        place=day.depot,
        load=request.load,
        due_s=day.end_s,
        release_s=request.release_s or FIRST_MOMENT_S,
        priority=request.priority,
    )
    state.rewrite(node, day.known[name])
    end = rest.index(0)
    state.set_row(robot, [*row[:position], *rest[:end], node, *rest[end:]])
    return name
