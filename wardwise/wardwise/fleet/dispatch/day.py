"""A running day: the fleet, and where every request stands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wardwise.fleet.dispatch.case import Case
from wardwise.fleet.dispatch.decision import Decision, Status
from wardwise.fleet.dispatch.policy import Slacks
from wardwise.fleet.dispatch.rules import decide, last_moment_s
from wardwise.fleet.dispatch.slacks import Quantiles, has_quantiles
from wardwise.fleet.dispatch.state import State
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wardwise.fleet.dispatch.policy import Policy
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Request

TURNED_DOWN = (Status.DENIED, Status.UNSERVABLE)
# Requests that the dispatcher makes itself are never known "before the day starts".
FIRST_MOMENT_S = 2.0**-30
# Rounding of a sum of times.
EPSILON_S = 1e-6


class Day:
    """State of the fleet and of all requests that were revealed.

    Attributes
    ----------
    known
        Revealed requests by id, without those cancelled or replaced.
    status, decisions
        Where each revealed request stands, and the last decision about it.
    pool
        Pending requests, each with the last moment at which it may still find a place.
    overdue
        Seconds by which requests will miss their tolerance: their goods are on
        board of a robot that was delayed.
    overrun
        Seconds by which robots will be back after the end of their shift.
    """

    def __init__(self, instance: Instance, policy: Policy) -> None:
        self.instance = instance
        self.policy = policy
        self.state = State(instance)
        if policy.slacks is Slacks.QUANTILE and has_quantiles(instance):
            self.state.quantiles = Quantiles(instance, self.state.end, policy.aim)
        self.now_s = 0.0
        self.known: dict[str, Request] = {}
        self.status: dict[str, Status] = {}
        self.decisions: dict[str, Decision] = {}
        self.pool: dict[str, float] = {}
        self.overdue: dict[str, float] = {}
        self.overrun: dict[str, float] = {}
        self.robots = {robot.id: index for index, robot in enumerate(instance.robots)}
        self.depot = instance.places[0].id
        self.largest = max(robot.capacity for robot in instance.robots)
        self.end_s = float(max(robot.end_s for robot in instance.robots))
        self.undriven_cost = 0.0
        self._denied_cost = 0.0

    def begin(self, plan: Plan) -> None:
        """Take over the plan made in advance."""
        state = self.state
        requests = self.instance.request_by_id
        for id_ in [stop.request for trip in plan.trips for stop in trip.stops]:
            if id_ not in self.known:
                self.reveal(requests[id_])
                self.status[id_] = Status.ACCEPTED
        for id_ in plan.denied:
            node = self.reveal(requests[id_])
            self.turn_down(node, Status.DENIED)
        for id_, trips in plan.trips_by_robot().items():
            row = [0]
            for trip in trips:
                for stop in trip.stops:
                    node = state.nodes[stop.request]
                    row.append(int(state.packed.partner[node]) if stop.is_pickup else node)
                row.append(0)
            state.set_row(self.robots[id_], row)
            state.tighten(self.robots[id_])

    def advance(self, now_s: float) -> None:
        """Let time pass."""
        self.now_s = now_s
        self.state.commit(now_s)

    def reveal(self, request: Request) -> int:
        """Enter a request that becomes known; returns its node."""
        self.known[request.id] = request
        return self.state.add(request)

    def place(self, node: int, *, is_new: bool, is_owed: bool = False) -> list[Decision]:
        """Decide about a request that is on no chain, and enter the outcome.

        One that is owed, since it had a place before, may be late with a probability that
        nobody would be promised, where there is no surer place.
        """
        self.state.release_promise(node)
        case = Case(self.state, self.policy, node, self.now_s, is_new)
        decisions = decide(case)
        quantiles = self.state.quantiles
        if is_owed and quantiles and decisions[0].status is not Status.ACCEPTED:
            self.state.quantiles = None
            decisions = decide(case)
            self.state.quantiles = quantiles
        for decision in decisions:
            self.settle(decision)
        return list(decisions)

    def place_all(self, nodes: Iterable[int], new: Iterable[int] = ()) -> list[Decision]:
        """Decide about several requests that lost their places, the most urgent first."""
        fresh = set(new)
        requests = self.state.requests
        order = sorted({*nodes, *fresh}, key=lambda node: urgency(requests[node]))
        found = []
        for node in order:
            found += self.place(node, is_new=node in fresh, is_owed=True)
        return found

    def retry_pool(self) -> list[Decision]:
        """Try all pending requests again; returns what is decided now."""
        found = []
        for id_ in sorted(self.pool, key=lambda id_: urgency(self.known[id_])):
            decisions = self.place(self.state.nodes[id_], is_new=False)
            if decisions[0].status is not Status.PENDING:
                found += decisions
        return found

    def turn_down(self, node: int, status: Status) -> None:
        """Give up a request and book its loss."""
        self._denied_cost += float(self.state.packed.denial_price[node])
        self.status[self.state.requests[node].id] = status
        self.state.free(node)

    def forget(self, id_: str, status: Status) -> None:
        """Drop a request that is cancelled or goes on under another name."""
        del self.known[id_]
        self.status[id_] = status
        self.overdue.pop(id_, None)

    def keep_pickup(self, drop: int, id_: str) -> None:
        """Leave of a transfer its pickup, under an id: a collection that was never late."""
        transfer = self.state.requests[drop]
        assert transfer.origin is not None
        self.known[id_] = replace(
            transfer,
            id=id_,
            kind=Kind.COLLECT,
            place=transfer.origin,
            origin=None,
            due_s=max(transfer.latest_s, self.end_s),
            tolerance_s=0.0,
            release_s=transfer.release_s or FIRST_MOMENT_S,
        )
        self.state.keep_pickup(drop, self.known[id_])

    def note_overrun(self, robot: int) -> None:
        """Note by how much a robot will be back after its shift."""
        state, name = self.state, self.instance.robots[robot].id
        last = int(state.chains.length[robot]) - 1
        overrun_s = state.reached_s(robot, last) - float(state.end[robot]) if last > 1 else 0.0
        if overrun_s > EPSILON_S:
            self.overrun[name] = overrun_s
        else:
            self.overrun.pop(name, None)

    def new_id(self, id_: str, suffix: str) -> str:
        """Unused id for what becomes of a request."""
        name = f"{id_}/{suffix}"
        while name in self.status:
            name += f"/{suffix}"
        return name

    def money(self) -> float:
        """Cost of the day as planned now; what is pending counts nothing yet."""
        return float(self.state.chains.price.sum()) - self.undriven_cost + self._denied_cost

    def settle(self, decision: Decision) -> None:
        """Enter an answer."""
        id_, status = decision.request, decision.status
        node = self.state.nodes[id_]
        self.decisions[id_] = decision
        self.status[id_] = status
        self.pool.pop(id_, None)
        if status is Status.PENDING:
            case = Case(self.state, self.policy, node, self.now_s, is_new=False)
            self.pool[id_] = last_moment_s(case)
        elif status in TURNED_DOWN:
            self.turn_down(node, status)


def urgency(request: Request) -> tuple[int, float, str]:
    """Sorting key: stat first, then by release, then by id."""
    return (request.priority, request.release_s, request.id)
