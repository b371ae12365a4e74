"""Better routes between events, behind what is committed.

A search works on copies of the chains. Pending requests may find their place in it, and
only while there are any a spare may leave home, if no class protects it. What it finds is
adopted if it saves enough for the unrest it makes, and then is an event like any other,
with the routes as its content: a replay adopts them and searches nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from numpy.random import Generator

from wardwise.fleet.dispatch.case import ROUTINE
from wardwise.fleet.dispatch.decision import Decision, Rule, Status
from wardwise.fleet.dispatch.kernels import open_requests, refresh_used
from wardwise.fleet.dispatch.slack_kernels import are_punctual, set_all_limits
from wardwise.fleet.search.chains import UNSERVED, Chains, commit, put, remove, set_chain
from wardwise.fleet.search.insertion import best_in_chain, plan_weights
from wardwise.fleet.search.packed import Ints, Packed

if TYPE_CHECKING:
    from wardwise.fleet.dispatch.day import Day


class Freedom(NamedTuple):
    """What a search may do besides moving open requests.

    Attributes
    ----------
    pending
        Nodes of requests on no chain; each may be served, or else costs its denial.
    spares
        Robots at home that may leave.
    """

    pending: Ints
    spares: Ints


Improver = Callable[[Packed, Chains, Generator, int, Freedom], None]
"""Changes chains for the better, in so many iterations; nothing committed, nothing unserved."""

Routes = dict[str, list[str | None]]

# Iterations of the first run of a search against the clock; it tells how many fit.
FIRST_RUN = 50
# Money and seconds below which two routes are the same.
EPSILON = 1e-6


def better_routes(
    day: Day,
    now_s: float,
    rng: Generator,
    max_iterations: int,
    time_limit_s: float | None,
    stability: float,
    improver: Improver,
) -> Routes:
    """Search from the state at `now_s`; returns the routes that changed, or none."""
    packed, chains = day.state.packed, day.state.roomy_chains(len(day.pool))
    commit(packed, chains, now_s)
    freedom = _freedom(day, now_s)
    chances = day.state.chances(chains)
    if chances is not None:
        # Windows shortened by the deviations of now lead the search; what it finds is confirmed.
        packed = packed._replace(latest=packed.latest.copy(), end=packed.end.copy())
        chances.limit[freedom.pending] = chances.hard[freedom.pending]
        set_all_limits(day.state.packed, chains, chances, packed.latest, packed.end)
        refresh_used(packed, chains)

    def search(iterations: int) -> None:
        improver(packed, chains, rng, iterations, freedom)

    if time_limit_s is None:
        search(max_iterations)
    else:
        _run(search, max_iterations, time_limit_s)
    old = day.state.chains
    assert (chains.owner[old.owner >= 0] >= 0).all(), "a search may leave nothing unserved"
    placed = freedom.pending[chains.owner[freedom.pending] >= 0]
    saved = float(old.price.sum() - chains.price.sum() + packed.denial_price[placed].sum())
    robots = [r for r in range(len(old.length)) if _route(chains, r) != _route(old, r)]
    num_moved = sum(
        _is_moved(day, chains, robot, k) for robot in robots for k in _stops(chains, robot)
    )
    is_kept = chances is None or are_punctual(day.state.packed, chains, chances)
    if not robots or not is_kept or saved <= EPSILON + stability * num_moved:
        return {}
    return {
        day.instance.robots[robot].id: [
            day.state.requests[node].id if node else None
            for node in _route(chains, robot)[chains.first[robot] + 1 :]
        ]
        for robot in robots
    }


def _freedom(day: Day, now_s: float) -> Freedom:
    """Pending requests, and while there are any the spares that even routine requests may use."""
    state = day.state
    pending = np.array([state.nodes[id_] for id_ in sorted(day.pool)], dtype=np.int64)
    num_usable = state.num_spares(now_s) - day.policy.protection[ROUTINE - 1]
    most = max(0, num_usable) if len(pending) else 0
    return Freedom(pending, state.spares(now_s)[:most])


def _run(search: Callable[[int], None], max_iterations: int, time_limit_s: float) -> None:
    """Search in a short run, and then in one that fills the time."""
    start_s, done = time.perf_counter(), 0
    size = min(FIRST_RUN, max_iterations)
    while size > 0:
        search(size)
        done += size
        spent_s = time.perf_counter() - start_s
        affordable = int(max(0.0, time_limit_s - spent_s) / spent_s * done)
        size = min(max_iterations - done, affordable)


def adopt(day: Day, routes: Routes) -> list[Decision]:
    """Drive better routes from now on; returns the answers to pending requests on them."""
    state = day.state
    rows = {}
    for id_, names in routes.items():
        robot = day.robots[id_]
        rows[robot] = [*state.row(robot)[: state.chains.first[robot] + 1], *_nodes(day, names)]
    for robot, row in rows.items():
        state.set_row(robot, row)
    for robot in rows:
        assert state.tighten(robot), f"route of robot {robot} is infeasible"
    placed = [id_ for id_ in sorted(day.pool) if state.chains.owner[state.nodes[id_]] >= 0]
    decisions = [_accepted(day, id_) for id_ in placed]
    for decision in decisions:
        day.settle(decision)
    return decisions


def _accepted(day: Day, id_: str) -> Decision:
    """Answer to a request that was held; its price is what its robot would save without it."""
    state, request = day.state, day.known[id_]
    node = state.nodes[id_]
    robot = int(state.chains.owner[node])
    eta_s, by_s = state.eta(node), state.promised_s(node)
    saved, price = state.save(), float(state.chains.price[robot])
    state.remove(node)
    cost_delta = price - float(state.chains.price[robot])
    state.restore(saved)
    return Decision(
        request=id_,
        status=Status.ACCEPTED,
        rule=Rule.HOLD,
        now_s=day.now_s,
        due_s=float(request.due_s),
        cost_delta=cost_delta,
        robot=day.instance.robots[robot].id,
        eta_s=eta_s,
        by_s=by_s,
    )


def relocate(
    packed: Packed,
    chains: Chains,
    rng: Generator,
    iterations: int,
    freedom: Freedom,  # noqa: ARG001
) -> None:
    """Move one request at a time to where it is cheapest, on any robot in service."""
    nodes = open_requests(packed, chains)
    if len(nodes) > 0:
        _relocate(packed, chains, plan_weights(packed), rng.choice(nodes, iterations))


@njit(cache=True)
def _relocate(packed, chains, weights, nodes):  # type: ignore[no-untyped-def]
    row = np.empty(chains.node.shape[1], dtype=np.int64)
    for node in nodes:
        robot = chains.owner[node]
        length, before = chains.length[robot], chains.price[robot]
        row[:length] = chains.node[robot, :length]
        best, best_robot, best_position, best_drop, best_opens = np.inf, -1, -1, -1, False
        if remove(packed, chains, node):
            for other in range(len(chains.length)):
                if chains.length[other] == 2:
                    continue
                price, position, drop, opens = best_in_chain(packed, chains, weights, other, node)
                if price < best:
                    best, best_robot, best_position = price, other, position
                    best_drop, best_opens = drop, opens
        if chains.price[robot] - before + best < -EPSILON:
            put(packed, chains, best_robot, best_position, best_drop, best_opens, node)
        else:
            set_chain(packed, chains, robot, row, length)


def _route(chains: Chains, robot: int) -> list[int]:
    nodes: list[int] = chains.node[robot, : chains.length[robot]].tolist()
    return nodes


def _stops(chains: Chains, robot: int) -> list[int]:
    """Positions of the stops of a robot that may have changed."""
    first, length = int(chains.first[robot]), int(chains.length[robot])
    return [k for k in range(first + 1, length) if chains.node[robot, k] != 0]


def _is_moved(day: Day, chains: Chains, robot: int, k: int) -> bool:
    """Whether the request of a stop has another robot now, or starts later."""
    node = int(chains.node[robot, k])
    if day.state.packed.is_pickup[node] or day.state.chains.owner[node] == UNSERVED:
        return False
    is_later = chains.begin[robot, k] > day.state.eta(node) + EPSILON
    return bool(is_later or day.state.chains.owner[node] != robot)


def _nodes(day: Day, names: list[str | None]) -> list[int]:
    """Nodes of a route; of a transfer that stands twice the first is the pickup."""
    state, ahead = day.state, Counter(names)
    nodes = []
    for name in names:
        node = 0 if name is None else state.nodes[name]
        is_first_of_two = name is not None and ahead[name] == 2
        nodes.append(int(state.packed.partner[node]) if is_first_of_two else node)
        ahead[name] -= 1
    return nodes
