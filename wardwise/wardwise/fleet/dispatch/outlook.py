"""A running day for others: as a plan, as an instance, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from wardwise.fleet.dispatch.day import TURNED_DOWN
from wardwise.fleet.dispatch.decision import Status
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import NUM_PRIORITIES
from wardwise.fleet.search.chains import may_open

if TYPE_CHECKING:
    from wardwise.fleet.dispatch.day import Day
    from wardwise.fleet.problem import Instance


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where the day stands; every revealed request is counted once.

    ``served`` have started, ``open`` are accepted and have not. Tuples run over the
    priorities. `cost` leaves pending requests out. `overdue` and `overrun` are the
    seconds by which requests miss their tolerance, and robots the end of their shift.
    """

    now_s: float
    num_revealed: int
    num_served: int
    num_open: int
    num_pending: int
    num_denied: int
    num_unservable: int
    num_cancelled: int
    num_replaced: int
    denied_by_priority: tuple[int, ...]
    revealed_by_priority: tuple[int, ...]
    num_robots: int
    num_spares: int
    cost: float
    overdue: dict[str, float]
    overrun: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a robot does at one position of its day.

    Attributes
    ----------
    request
        `None` at the depot.
    depart_s
        When the robot leaves for it; once it has left, by when it had to.
    earliest_s
        When it may start: of a request its window, at the depot 0.
    start_s
        When it starts; at the depot, when the robot is back.
    end_s
        When the robot can go on: served, or reloaded.
    """

    request: str | None
    place: str
    is_pickup: bool
    depart_s: float
    earliest_s: float
    start_s: float
    end_s: float


def step_of(day: Day, robot: int, position: int) -> Step | None:
    """What a robot does at a position of its chain behind the first; `None` at its end."""
    packed, chains = day.state.packed, day.state.chains
    last = int(chains.length[robot]) - 1
    if last == 1 or position > last:
        return None
    node, place = int(chains.node[robot, position]), int(chains.place[robot, position])
    travel_s = float(packed.travel[chains.place[robot, position - 1], place])
    pause_s = float(packed.service[node]) if node else packed.reload
    start_s = float(chains.begin[robot, position])
    depart_s = start_s - travel_s
    if position > chains.first[robot]:  # as `commit` will have it
        depart_s = max(float(chains.leave[robot, position - 1]), depart_s)
        if position == last and not may_open(packed, chains, robot):
            depart_s = float(chains.latest[robot, last]) - travel_s
        start_s = max(start_s, depart_s + travel_s)
    return Step(
        request=day.state.requests[node].id if node else None,
        place=day.instance.places[place].id,
        is_pickup=bool(packed.is_pickup[node]),
        depart_s=depart_s,
        earliest_s=float(packed.earliest[node]),
        start_s=start_s,
        end_s=start_s + pause_s,
    )


def plan_of(day: Day) -> Plan:
    """All trips, driven and planned; what is pending counts as denied."""
    is_out = (*TURNED_DOWN, Status.PENDING)
    return Plan(
        instance=day.instance.name,
        trips=tuple(
            trip for robot in range(len(day.instance.robots)) for trip in _trips(day, robot)
        ),
        denied=tuple(id_ for id_ in day.known if day.status[id_] in is_out),
    )


def committed_of(day: Day) -> dict[str, tuple[Stop, ...]]:
    """Stops of each robot that has left the depot, up to the one it is at or under way to."""
    found = {}
    for index, robot in enumerate(day.instance.robots):
        row = day.state.row(index)[: day.state.chains.first[index] + 1]
        stops = tuple(_stop(day, index, k) for k, node in enumerate(row) if node != 0)
        if stops:
            found[robot.id] = stops
    return found


def instance_of(day: Day) -> Instance:
    """The instance with the requests that are known by now, without the withdrawn ones."""
    return replace(day.instance, requests=tuple(day.known.values()))


def outcome_of(day: Day) -> Outcome:
    """Numbers of the day so far."""
    count = Counter(day.status.values())
    accepted = [id_ for id_, status in day.status.items() if status is Status.ACCEPTED]
    num_served = sum(_is_started(day, id_) for id_ in accepted)
    denied = [0] * NUM_PRIORITIES
    revealed = [0] * NUM_PRIORITIES
    for id_, request in day.known.items():
        revealed[request.priority - 1] += 1
        denied[request.priority - 1] += day.status[id_] is Status.DENIED
    return Outcome(
        now_s=day.now_s,
        num_revealed=len(day.status),
        num_served=num_served,
        num_open=len(accepted) - num_served,
        num_pending=count[Status.PENDING],
        num_denied=count[Status.DENIED],
        num_unservable=count[Status.UNSERVABLE],
        num_cancelled=count[Status.CANCELLED],
        num_replaced=count[Status.REPLACED],
        denied_by_priority=tuple(denied),
        revealed_by_priority=tuple(revealed),
        num_robots=int(day.state.in_service().sum()),
        num_spares=day.state.num_spares(day.now_s),
        cost=day.money(),
        overdue=dict(day.overdue),
        overrun=dict(day.overrun),
    )


def _is_started(day: Day, id_: str) -> bool:
    node = day.state.nodes[id_]
    is_committed = day.state.position(node) <= day.state.chains.first[day.state.chains.owner[node]]
    return bool(is_committed and day.state.eta(node) <= day.now_s)


def _trips(day: Day, robot: int) -> list[Trip]:
    state, chains = day.state, day.state.chains
    row = state.row(robot)
    if len(row) == 2:
        return []
    depots = [k for k, node in enumerate(row) if node == 0]
    trips = []
    for start, end in pairwise(depots):
        travel_s = state.packed.travel[0, chains.place[robot, start + 1]]
        planned_s = float(chains.begin[robot, start + 1] - travel_s)
        trips.append(
            Trip(
                robot=day.instance.robots[robot].id,
                depart_s=state.departed.get((robot, start), planned_s),
                stops=tuple(_stop(day, robot, k) for k in range(start + 1, end)),
                return_s=_return_s(day, robot, end),
                is_broken_off=(robot, end) in state.broken_off,
            )
        )
    return trips


def _return_s(day: Day, robot: int, end: int) -> float:
    """When a robot was, or can be, back at the depot."""
    state, chains = day.state, day.state.chains
    return_s = state.reached_s(robot, end)
    if end == chains.first[robot] + 1:
        # It may stay at its last stop for what is still to come; then it is back later.
        travel_s = state.packed.travel[chains.place[robot, end - 1], 0]
        return_s = max(return_s, float(chains.leave[robot, end - 1] + travel_s))
    return return_s


def _stop(day: Day, robot: int, k: int) -> Stop:
    """Robots wait where they are and leave in time, so they arrive when service starts."""
    state = day.state
    node, begin_s = int(state.chains.node[robot, k]), float(state.chains.begin[robot, k])
    return Stop(
        request=state.requests[node].id,
        arrive_s=begin_s,
        start_s=begin_s,
        is_pickup=bool(state.packed.is_pickup[node]),
    )
