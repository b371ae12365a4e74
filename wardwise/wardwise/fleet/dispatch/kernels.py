"""Compiled loops over chains that only a running day needs.

All of them leave the committed part of a chain alone; see `search.chains`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from wardwise.fleet.compiled import kernel
from wardwise.fleet.dispatch.slack_kernels import best_kept
from wardwise.fleet.search.chains import UNSERVED, pause_at, refresh, remove, set_chain
from wardwise.fleet.search.insertion import best_in_chain


@kernel
def copy_chains(source, target):  # type: ignore[no-untyped-def]
    """Copy the used part of all chains into arrays of the same shape."""
    for robot in range(len(source.length)):
        for k in range(source.length[robot]):
            target.node[robot, k] = source.node[robot, k]
            target.place[robot, k] = source.place[robot, k]
            target.begin[robot, k] = source.begin[robot, k]
            target.leave[robot, k] = source.leave[robot, k]
            target.latest[robot, k] = source.latest[robot, k]
            target.leg[robot, k] = source.leg[robot, k]
            target.on_board[robot, k] = source.on_board[robot, k]
            target.peak_before[robot, k] = source.peak_before[robot, k]
            target.peak_after[robot, k] = source.peak_after[robot, k]
        target.length[robot] = source.length[robot]
        target.first[robot] = source.first[robot]
        target.floor[robot] = source.floor[robot]
        target.price[robot] = source.price[robot]
    for node in range(len(source.owner)):
        target.owner[node] = source.owner[node]


@kernel
def refresh_used(packed, chains):  # type: ignore[no-untyped-def]
    """Recompute the chains of all robots that have any stop."""
    for robot in range(len(chains.length)):
        if chains.length[robot] > 2:
            refresh(packed, chains, robot)


@kernel
def tighten(packed, chains, robot, end):  # type: ignore[no-untyped-def]
    """Make the starts of a chain its promises; returns whether it is feasible.

    From now on a request is served by its due time or by the start just promised,
    whichever is later, and the robot is back by `end` unless it cannot be.
    """
    last = chains.length[robot] - 1
    for k in range(chains.first[robot], last + 1):
        node = chains.node[robot, k]
        if node == 0:
            continue
        kept = packed.latest[node] if packed.is_pickup[node] else packed.due[node]
        packed.latest[node] = max(kept, chains.begin[robot, k])
    packed.end[robot] = max(end, chains.begin[robot, last]) if last > 1 else end
    return refresh(packed, chains, robot)


@kernel
def starts(packed, chains, robots, positions, drops, u, found):  # type: ignore[no-untyped-def]
    """Start of service of request `u` at each of some places that `best_in_chain` found."""
    for i in range(len(robots)):
        robot, k = robots[i], positions[i]
        leave, place = chains.leave[robot, k], chains.place[robot, k]
        if drops[i] >= 0:
            pickup = packed.partner[u]
            begin = max(leave + packed.travel[place, packed.place[pickup]], packed.earliest[pickup])
            leave, place = begin + packed.service[pickup], packed.place[pickup]
            for j in range(k + 1, drops[i] + 1):
                node = chains.node[robot, j]
                arrive = leave + packed.travel[place, packed.place[node]]
                leave = max(arrive, packed.earliest[node]) + pause_at(packed, node, j)
                place = packed.place[node]
        found[i] = max(leave + packed.travel[place, packed.place[u]], packed.earliest[u])


@kernel
def is_open(packed, chains, node):  # type: ignore[no-untyped-def]
    """Whether a request can still be taken from its robot.

    It cannot once the robot is under way to it or has its goods on board, which
    are loaded at the depot where they are to be delivered.
    """
    robot = chains.owner[node]
    if robot == UNSERVED:
        return False
    nodes, first = chains.node[robot], chains.first[robot]
    stop = packed.partner[node] if packed.partner[node] >= 0 else node
    k = first + 1
    while k < chains.length[robot] and nodes[k] != stop:
        k += 1
    if k == chains.length[robot]:
        return False
    if packed.at_depot[node] == 0.0:
        return True
    depot = k
    while depot > first and nodes[depot] != 0:
        depot -= 1
    return nodes[depot] == 0


@njit(cache=True)
def open_requests(packed, chains):  # type: ignore[no-untyped-def]
    """Nodes of all requests that can still be taken from their robots, robot by robot."""
    found = np.empty(len(chains.owner), dtype=np.int64)
    count = 0
    for robot in range(len(chains.length)):
        for k in range(chains.first[robot] + 1, chains.length[robot]):
            node = chains.node[robot, k]
            if node != 0 and not packed.is_pickup[node] and is_open(packed, chains, node):
                found[count] = node
                count += 1
    return found[:count]


@njit(cache=True)
def best_ejection(packed, chains, weights, chances, u, priority, wanted, row):  # type: ignore[no-untyped-def]
    """Open request of one class whose place request `u` can take at the smallest loss.

    Parameters
    ----------
    chances
        What promises `u` must leave kept; `None`: none.
    priority, wanted
        Class of each node, and the class to choose from.
    row
        Scratch as wide as a chain.

    Returns
    -------
    loss, node, robot, position, drop_after, opens
        Change of the chain's price, which request goes, and where `u` then fits in;
        infinite loss and node -1 where none does.
    """
    best, best_node, best_robot = np.inf, -1, -1
    best_position, best_drop, best_opens = -1, -1, False
    for robot in range(len(chains.length)):
        length, before = chains.length[robot], chains.price[robot]
        if packed.capacity[robot] < packed.load[u]:
            continue
        for k in range(chains.first[robot] + 1, length - 1):
            node = chains.node[robot, k]
            if node == 0 or priority[node] != wanted or packed.is_pickup[node]:
                continue
            if not is_open(packed, chains, node):
                continue
            for j in range(length):
                row[j] = chains.node[robot, j]
            is_feasible = remove(packed, chains, node)
            if chances is None:
                price, position, drop, opens = best_in_chain(packed, chains, weights, robot, u)
            else:
                price, position, drop, opens = best_kept(packed, chains, weights, chances, robot, u)
            loss = chains.price[robot] - before + price
            set_chain(packed, chains, robot, row, length)
            if is_feasible and loss < best:
                best, best_node, best_robot = loss, node, robot
                best_position, best_drop, best_opens = position, drop, opens
    return best, best_node, best_robot, best_position, best_drop, best_opens


@kernel
def last_departure(packed, chains, u):  # type: ignore[no-untyped-def]
    """Last moment at which any robot could leave for request `u` from where it will be.

    Minus infinity where no robot will be anywhere in time.
    """
    target, closes = u, packed.latest[u]
    pickup = packed.partner[u]
    if pickup >= 0:
        way = packed.service[pickup] + packed.travel[packed.place[pickup], packed.place[u]]
        target, closes = pickup, min(packed.latest[pickup], closes - way)
    best = -np.inf
    for robot in range(len(chains.length)):
        if packed.capacity[robot] < packed.load[u]:
            continue
        for k in range(chains.first[robot], chains.length[robot]):
            if packed.at_depot[u] > 0.0 and chains.node[robot, k] != 0:
                continue
            departure = closes - packed.travel[chains.place[robot, k], packed.place[target]]
            if chains.leave[robot, k] <= departure:
                best = max(best, departure)
    return best


@kernel
def from_depot(packed, capacity, start, end, u, now):  # type: ignore[no-untyped-def]
    """Price at which an empty robot that stands at the depot `now` could serve request `u`.

    Arrays run over robots. Infinite where none could.
    """
    target, here = packed.partner[u], packed.place[u]
    first = packed.place[target] if target >= 0 else here
    metres = packed.distance[0, first] + packed.distance[here, 0]
    metres += packed.distance[first, here] if target >= 0 else 0.0
    best = np.inf
    for robot in range(len(capacity)):
        if capacity[robot] < packed.load[u]:
            continue
        begin = max(now, start[robot]) + packed.travel[0, first]
        if target >= 0:
            begin = max(begin, packed.earliest[target]) + packed.service[target]
            begin += packed.travel[first, here]
        begin = max(begin, packed.earliest[u])
        back = begin + packed.service[u] + packed.travel[here, 0]
        if begin <= packed.latest[u] and back <= end[robot]:
            late = packed.late_price[u] * max(0.0, begin - packed.due[u])
            best = min(best, packed.robot_price + packed.metre_price * metres + late)
    return best
