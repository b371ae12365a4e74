"""Chains: the sequence of each robot, with what a constant-time test needs.

A chain is depot, stops, depot, stops, ..., depot; a robot that stays at home
has the chain depot, depot. For position ``k`` of a chain:

* ``begin[k]``: earliest start, ``max(earliest, leave[k-1] + travel)``;
* ``leave[k]``: earliest departure, ``begin[k]`` and the service or reload;
* ``latest[k]``: latest start that keeps every later stop in its window and the
  robot in its shift, ``min(latest, latest[k+1] - pause - travel)``;
* ``leg[k]``: distance to the next position;
* ``on_board[k]``: slots on the leg that leaves ``k``; ``peak_before[k]`` and
  ``peak_after[k]`` the most on any leg of the same trip up to, or from, that leg.

Up to position ``first`` a chain is committed: what stands there has happened or
is under way, its times are facts, and only what follows may change. A robot
leaves position ``first`` at ``floor`` at the earliest. For plans made in
advance ``first`` and ``floor`` are zero.

A change of one stop costs one pass over its chain. Sources: Savelsbergh 1992
(ORSA Journal on Computing 4(2)) for the slack, Vidal et al. 2013 for the loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from wardwise.fleet.compiled import inlined, kernel

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Floats, Ints, Packed

UNSERVED = -1


class Chains(NamedTuple):
    """Chains of all robots: arrays over robots and positions, over robots, and `owner` over nodes.

    ``place`` is where a position is, ``price`` the price of a whole chain.
    """

    node: Ints
    place: Ints
    begin: Floats
    leave: Floats
    latest: Floats
    leg: Floats
    on_board: Floats
    peak_before: Floats
    peak_after: Floats
    length: Ints
    first: Ints
    floor: Floats
    price: Floats
    owner: Ints


def empty_chains(packed: Packed) -> Chains:
    """All robots at home, nothing served."""
    num_nodes, num_robots = len(packed.service), len(packed.capacity)
    most_trips = min(num_nodes, int(packed.max_trips.max()))
    # Stops, one depot a trip, and the depot at the start; two depots for an idle robot.
    shape = (num_robots, num_nodes + most_trips + 1)
    chains = Chains(
        node=np.zeros(shape, dtype=np.int64),
        place=np.zeros(shape, dtype=np.int64),
        begin=np.zeros(shape),
        leave=np.zeros(shape),
        latest=np.zeros(shape),
        leg=np.zeros(shape),
        on_board=np.zeros(shape),
        peak_before=np.zeros(shape),
        peak_after=np.zeros(shape),
        length=np.full(num_robots, 2, dtype=np.int64),
        first=np.zeros(num_robots, dtype=np.int64),
        floor=np.zeros(num_robots),
        price=np.zeros(num_robots),
        owner=np.full(num_nodes, UNSERVED, dtype=np.int64),
    )
    chains.begin[:, 0] = packed.start
    for robot in range(num_robots):
        refresh(packed, chains, robot)
    return chains


@inlined
def pause_at(packed, node, position):  # type: ignore[no-untyped-def]
    """Seconds from the start at a position to the departure: service, or a reload."""
    if node != 0:
        return packed.service[node]
    return packed.reload if position > 0 else 0.0


@inlined
def refresh(packed, chains, robot):  # type: ignore[no-untyped-def]
    """Recompute the derived arrays of one chain; returns whether it is feasible.

    Loads of the committed part are facts; they count in the peaks, but only a
    load too high behind it is a fault.
    """
    node, place, begin = chains.node, chains.place, chains.begin
    leave, latest, leg = chains.leave, chains.latest, chains.leg
    last, first = chains.length[robot] - 1, chains.first[robot]
    is_idle = last == 1
    late = distance = 0.0
    before = packed.place[0]
    for k in range(last + 1):
        here = node[robot, k]
        there = packed.place[here]
        place[robot, k] = there
        if k > first:
            travel = 0.0 if is_idle else packed.travel[before, there]
            begin[robot, k] = max(leave[robot, k - 1] + travel, packed.earliest[here])
        leave[robot, k] = begin[robot, k] + pause_at(packed, here, k)
        if k == first:
            leave[robot, k] = max(leave[robot, k], chains.floor[robot])
        if k > 0:
            metres = 0.0 if is_idle else packed.distance[before, there]
            leg[robot, k - 1] = metres
            distance += metres
        if packed.is_soft:  # the depot is never late: its price is zero
            late += packed.late_price[here] * max(0.0, begin[robot, k] - packed.due[here])
        before = there
    leg[robot, last] = 0.0
    price = packed.robot_price + packed.metre_price * distance + late
    chains.price[robot] = 0.0 if is_idle else price
    bound = latest[robot, last] = packed.end[robot]
    is_feasible = first == last or begin[robot, last] <= bound
    for k in range(last - 1, first - 1, -1):
        here = node[robot, k]
        closes = packed.latest[here] if here != 0 else packed.end[robot]
        travel = 0.0 if is_idle else packed.travel[place[robot, k], place[robot, k + 1]]
        bound = min(closes, bound - travel - pause_at(packed, here, k))
        latest[robot, k] = bound
        is_feasible &= k == first or begin[robot, k] <= bound
    return is_feasible and _refresh_loads(packed, chains, robot) <= packed.capacity[robot]


@inlined
def _refresh_loads(packed, chains, robot):  # type: ignore[no-untyped-def]
    """Recompute the loads of one chain; returns the highest behind the committed part."""
    node, on_board = chains.node, chains.on_board
    before, after = chains.peak_before, chains.peak_after
    last, committed = chains.length[robot] - 1, chains.first[robot]
    highest = 0.0
    first = 0
    while first < last:
        end = first + 1
        load = 0.0
        while node[robot, end] != 0:
            load += packed.at_depot[node[robot, end]]
            end += 1
        peak = load
        for k in range(first, end):
            if k > first:
                load += packed.delta[node[robot, k]]
            peak = max(peak, load)
            on_board[robot, k] = load
            before[robot, k] = peak
        peak = load
        for k in range(end - 1, first - 1, -1):
            peak = max(peak, on_board[robot, k])
            after[robot, k] = peak
            if k >= committed:
                highest = max(highest, peak)
        first = end
    on_board[robot, last] = before[robot, last] = after[robot, last] = 0.0
    return highest


@kernel
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


@inlined
def insert(packed, chains, robot, position, opens, node):  # type: ignore[no-untyped-def]
    """Put a node behind a position, with a depot behind it if it opens a trip."""
    nodes = chains.node
    width = 2 if opens else 1
    for k in range(chains.length[robot] - 1, position, -1):
        nodes[robot, k + width] = nodes[robot, k]
    nodes[robot, position + 1] = node
    if opens:
        nodes[robot, position + 2] = 0
    chains.length[robot] += width
    chains.owner[node] = robot
    return refresh(packed, chains, robot)


@kernel
def insert_pair(packed, chains, robot, position, drop_after, opens, node):  # type: ignore[no-untyped-def]
    """Put a transfer into a chain: its pickup behind one position, its drop behind another.

    Both positions are those of the chain as it is; they are equal when the drop
    follows the pickup at once, and always when the pair opens a trip.
    """
    nodes, pickup = chains.node[robot], packed.partner[node]
    width = 3 if opens else 2
    for k in range(chains.length[robot] - 1, drop_after, -1):
        nodes[k + width] = nodes[k]
    for k in range(drop_after, position, -1):
        nodes[k + 1] = nodes[k]
    nodes[position + 1] = pickup
    nodes[drop_after + 2] = node
    if opens:
        nodes[drop_after + 3] = 0
    chains.length[robot] += width
    chains.owner[node] = chains.owner[pickup] = robot
    return refresh(packed, chains, robot)


@inlined
def put(packed, chains, robot, position, drop_after, opens, node):  # type: ignore[no-untyped-def]
    """Insert a request of any kind where `best_in_chain` says."""
    if drop_after >= 0:
        return insert_pair(packed, chains, robot, position, drop_after, opens, node)
    return insert(packed, chains, robot, position, opens, node)


@kernel
def remove(packed, chains, node):  # type: ignore[no-untyped-def]
    """Take a request out of its chain, and its trip if nothing is left of it; returns feasibility.

    Of a transfer both stops go.
    """
    robot, partner = chains.owner[node], packed.partner[node]
    chains.owner[node] = UNSERVED
    if partner >= 0:
        chains.owner[partner] = UNSERVED
    close_gaps(chains, robot)
    return refresh(packed, chains, robot)


@inlined
def close_gaps(chains, robot):  # type: ignore[no-untyped-def]
    """Drop from a chain the stops that its robot no longer owns, and trips without stops."""
    nodes, length, first = chains.node, chains.length[robot], chains.first[robot]
    size = first + 1
    for k in range(first + 1, length):
        node = nodes[robot, k]
        if node != 0 and chains.owner[node] != robot:
            continue
        if node == 0 and nodes[robot, size - 1] == 0:
            continue
        nodes[robot, size] = node
        size += 1
    if size == 1:
        nodes[robot, 1] = 0
        size = 2
    chains.length[robot] = size


@njit(cache=True)
def release(packed, chains, nodes):  # type: ignore[no-untyped-def]
    """Make requests unserved.

    Without the triangle inequality the rest of a chain may become late; then
    all of that chain becomes unserved.
    """
    idle = np.zeros(2, dtype=np.int64)
    for node in nodes:
        robot = chains.owner[node]
        if robot != UNSERVED and not remove(packed, chains, node):
            set_chain(packed, chains, robot, idle, 2)


@kernel
def commit(packed, chains, now):  # type: ignore[no-untyped-def]
    """Commit every leg whose departure is not after `now`, in all chains.

    A robot leaves for its next stop as late as that stop's start allows. A way
    home is driven at once, unless the robot may make no further trip: then it
    stays where it is until it must go home. From `now` on, a robot that has not
    left can leave no earlier than `now`.
    """
    for robot in range(len(chains.length)):
        node, place = chains.node[robot], chains.place[robot]
        last = chains.length[robot] - 1
        if last > 1:
            while chains.first[robot] < last:
                k = chains.first[robot]
                travel = packed.travel[place[k], place[k + 1]]
                departure = max(chains.leave[robot, k], chains.begin[robot, k + 1] - travel)
                if k + 1 == last and not may_open(packed, chains, robot):
                    departure = chains.latest[robot, last] - travel
                if departure > now:
                    break
                chains.first[robot] = k + 1
                # The same, but for a robot that stayed out longer than its last stop asked for.
                chains.begin[robot, k + 1] = max(chains.begin[robot, k + 1], departure + travel)
        chains.floor[robot] = now
        k = chains.first[robot]
        leave = chains.begin[robot, k] + pause_at(packed, node[k], k)
        chains.leave[robot, k] = max(leave, now)
        if last == 1:
            chains.begin[robot, 1] = chains.leave[robot, 1] = chains.leave[robot, 0]


@inlined
def may_open(packed, chains, robot):  # type: ignore[no-untyped-def]
    """Whether a robot that leaves home may make one more trip."""
    last, most = chains.length[robot] - 1, packed.max_trips[robot]
    if last == 1 or most == 1:
        return False
    num_trips = 0
    for k in range(last):
        num_trips += chains.node[robot, k] == 0
    return num_trips < most
