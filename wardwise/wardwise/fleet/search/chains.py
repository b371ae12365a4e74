"""Chains: the sequence of each robot, with what a constant-time test needs.

A chain is depot, stops, depot, stops, ..., depot; a robot that stays at home
has the chain depot, depot. For position ``k`` of a chain:

* ``begin[k]``: earliest start, ``max(earliest, begin[k-1] + service + travel)``;
* ``latest[k]``: latest start that keeps every later stop in its window and the
  robot in its shift, ``min(latest, latest[k+1] - service - travel)``; the chain
  is in time if and only if ``begin[0] <= latest[0]``;
* ``peak_before[k]``, ``peak_after[k]``: most slots on board on any leg of the
  same trip up to, or from, the leg that leaves position ``k``.

A change of one stop costs one pass over its chain. Sources: Savelsbergh 1992
(ORSA Journal on Computing 4(2)) for the slack, Vidal et al. 2013 for the loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Floats, Ints, Packed

UNSERVED = -1


class Chains(NamedTuple):
    """Chains of all robots: arrays over robots and positions, `owner` over nodes."""

    node: Ints
    length: Ints
    owner: Ints
    begin: Floats
    latest: Floats
    peak_before: Floats
    peak_after: Floats


def empty_chains(packed: Packed) -> Chains:
    """All robots at home, nothing served."""
    num_nodes, num_robots = len(packed.service), len(packed.capacity)
    most_trips = min(num_nodes, int(packed.max_trips.max()))
    # Stops, one depot a trip, and the depot at the start; two depots for an idle robot.
    shape = (num_robots, num_nodes + most_trips + 1)
    chains = Chains(
        node=np.zeros(shape, dtype=np.int64),
        length=np.full(num_robots, 2, dtype=np.int64),
        owner=np.full(num_nodes, UNSERVED, dtype=np.int64),
        begin=np.zeros(shape),
        latest=np.zeros(shape),
        peak_before=np.zeros(shape),
        peak_after=np.zeros(shape),
    )
    for robot in range(num_robots):
        refresh(packed, chains, robot)
    return chains


@njit(cache=True, inline="always")
def pause_at(packed, node, position):  # type: ignore[no-untyped-def]
    """Seconds from the start at a position to the departure: service, or a reload."""
    if node != 0:
        return packed.service[node]
    return packed.reload if position > 0 else 0.0


@njit(cache=True)
def refresh(packed, chains, robot):  # type: ignore[no-untyped-def]
    """Recompute the derived arrays of one chain; returns whether it is feasible."""
    node, begin, latest = chains.node[robot], chains.begin[robot], chains.latest[robot]
    last = chains.length[robot] - 1
    begin[0] = packed.start[robot]
    for k in range(1, last + 1):
        before, here = node[k - 1], node[k]
        arrive = begin[k - 1] + pause_at(packed, before, k - 1) + packed.travel[before, here]
        begin[k] = max(arrive, packed.earliest[here])
    latest[last] = packed.end[robot]
    for k in range(last - 1, -1, -1):
        here, after = node[k], node[k + 1]
        closes = packed.latest[here] if here != 0 else packed.end[robot]
        leave = latest[k + 1] - packed.travel[here, after]
        latest[k] = min(closes, leave - pause_at(packed, here, k))
    peak = _refresh_loads(packed, chains, robot)
    return begin[0] <= latest[0] and peak <= packed.capacity[robot]


@njit(cache=True)
def _refresh_loads(packed, chains, robot):  # type: ignore[no-untyped-def]
    """Recompute the peaks of one chain; returns the highest."""
    node = chains.node[robot]
    before, after = chains.peak_before[robot], chains.peak_after[robot]
    last = chains.length[robot] - 1
    highest = 0.0
    first = 0
    while first < last:
        end = first + 1
        load = 0.0
        while node[end] != 0:
            load += packed.load[node[end]] if packed.is_deliver[node[end]] else 0.0
            end += 1
        before[first] = after[first] = load
        for k in range(first + 1, end):
            load += -packed.load[node[k]] if packed.is_deliver[node[k]] else packed.load[node[k]]
            before[k] = max(before[k - 1], load)
            after[k] = load
        for k in range(end - 2, first - 1, -1):
            after[k] = max(after[k], after[k + 1])
        highest = max(highest, after[first])
        first = end
    before[last] = after[last] = 0.0
    return highest


@njit(cache=True)
def set_chain(packed, chains, robot, nodes, length):  # type: ignore[no-untyped-def]
    """Give a robot another chain; returns whether it is feasible.

    Stops that the old chain served and the new one does not become unserved
    unless another robot owns them by now.
    """
    for k in range(chains.length[robot]):
        old = chains.node[robot, k]
        if old != 0 and chains.owner[old] == robot:
            chains.owner[old] = UNSERVED
    for k in range(length):
        chains.node[robot, k] = nodes[k]
        if nodes[k] != 0:
            chains.owner[nodes[k]] = robot
    chains.length[robot] = length
    return refresh(packed, chains, robot)


@njit(cache=True)
def insert(packed, chains, robot, position, opens_trip, node):  # type: ignore[no-untyped-def]
    """Put a node behind a position, with a depot behind it if it opens a trip."""
    nodes = chains.node[robot]
    width = 2 if opens_trip else 1
    for k in range(chains.length[robot] - 1, position, -1):
        nodes[k + width] = nodes[k]
    nodes[position + 1] = node
    if opens_trip:
        nodes[position + 2] = 0
    chains.length[robot] += width
    chains.owner[node] = robot
    return refresh(packed, chains, robot)


@njit(cache=True)
def remove(packed, chains, node):  # type: ignore[no-untyped-def]
    """Take a node out of its chain, with its trip if it was alone; returns feasibility."""
    robot = chains.owner[node]
    nodes = chains.node[robot]
    k = 1
    while nodes[k] != node:
        k += 1
    is_alone = nodes[k - 1] == 0 and nodes[k + 1] == 0 and chains.length[robot] > 3
    width = 2 if is_alone else 1
    for j in range(k + width, chains.length[robot]):
        nodes[j - width] = nodes[j]
    chains.length[robot] -= width
    chains.owner[node] = UNSERVED
    return refresh(packed, chains, robot)


@njit(cache=True)
def release(packed, chains, nodes):  # type: ignore[no-untyped-def]
    """Make nodes unserved.

    Without the triangle inequality the rest of a chain may become late; then
    all of that chain becomes unserved.
    """
    idle = np.zeros(2, dtype=np.int64)
    for node in nodes:
        robot = chains.owner[node]
        if robot != UNSERVED and not remove(packed, chains, node):
            set_chain(packed, chains, robot, idle, 2)


@njit(cache=True)
def fleet_cost(packed, chains):  # type: ignore[no-untyped-def]
    """Price of all chains."""
    cost = 0.0
    for robot in range(len(chains.length)):
        cost += chain_cost(packed, chains, robot)
    return cost


@njit(cache=True)
def chain_cost(packed, chains, robot):  # type: ignore[no-untyped-def]
    """Price of one chain: its robot, its distance and its late starts."""
    node, begin = chains.node[robot], chains.begin[robot]
    if chains.length[robot] == 2:
        return 0.0
    distance = late = 0.0
    for k in range(1, chains.length[robot]):
        distance += packed.distance[node[k - 1], node[k]]
        late += packed.late_price[node[k]] * max(0.0, begin[k] - packed.due[node[k]])
    # The depot is never late: its price is zero.
    return packed.robot_price + packed.metre_price * distance + late
