"""Cheapest insertion of a transfer: two stops of one trip, or a trip of their own."""

from __future__ import annotations

import numpy as np

from wardwise.fleet.compiled import kernel
from wardwise.fleet.search.chains import may_open
from wardwise.fleet.search.lateness import lateness, passed_on


@kernel
def scan_pairs(packed, chains, weights, robot, u, bound):  # type: ignore[no-untyped-def]
    """Cheapest two places of a transfer in one trip, or the depot where it opens one."""
    pickup, last = packed.partner[u], chains.length[robot] - 1
    room = packed.capacity[robot] - packed.load[u]
    is_open = may_open(packed, chains, robot)
    best, best_k, best_drop, best_opens = bound, -1, -1, False
    if room < 0.0:
        return np.inf, -1, -1, False
    for opens in (False, True):
        for k in range(chains.first[robot], last + 1):
            if opens and not (is_open and chains.node[robot, k] == 0):
                continue
            if not opens and (k == last or chains.on_board[robot, k] > room):
                continue
            start = chains.leave[robot, k]
            start += packed.travel[chains.place[robot, k], packed.place[pickup]]
            start = max(start, packed.earliest[pickup])
            if start > packed.latest[pickup]:
                continue
            price, drop = _drop(packed, chains, weights, robot, u, k, start, room, opens, best)
            if price < best:
                best, best_k, best_drop, best_opens = price, k, drop, opens
    return (best if best_k >= 0 else np.inf), best_k, best_drop, best_opens


@kernel
def _drop(packed, chains, weights, robot, u, k, start, room, opens, bound):  # type: ignore[no-untyped-def]
    """Cheapest place for the drop when the pickup behind `k` starts at `start`."""
    node, place, last = chains.node, chains.place, chains.length[robot] - 1
    pickup = packed.partner[u]
    from_place, here = packed.place[pickup], packed.place[u]
    distance, travel = packed.distance, packed.travel
    leave = start + packed.service[pickup]
    reached = 0.0
    base = weights.metre * distance[place[robot, k], from_place]
    base += weights.robot if last == 1 else 0.0
    best, best_j = bound, -1
    j = k
    while True:
        # The drop comes behind position j, which the robot leaves at `leave` from `from_place`.
        begin = max(leave + travel[from_place, here], packed.earliest[u])
        if begin <= packed.latest[u]:
            price = base + reached + weights.metre * distance[from_place, here]
            price += packed.late_price[u] * max(0.0, begin - packed.due[u])
            price, is_in_time = _rejoin(packed, chains, weights, robot, u, j, begin, opens, price)
            if is_in_time and price < best:
                best, best_j = price, j
        if opens or j + 1 >= last or node[robot, j + 1] == 0:
            break
        after = max(
            leave + travel[from_place, place[robot, j + 1]], packed.earliest[node[robot, j + 1]]
        )
        # Its own closing only: by way of the drop its follower may be reached sooner.
        if after > packed.latest[node[robot, j + 1]] or chains.on_board[robot, j + 1] > room:
            break
        reached += weights.metre * (
            distance[from_place, place[robot, j + 1]] - chains.leg[robot, j]
        )
        if packed.is_soft:
            reached += lateness(packed, node[robot, j + 1], after)
            reached -= lateness(packed, node[robot, j + 1], chains.begin[robot, j + 1])
        leave = after + packed.service[node[robot, j + 1]]
        j += 1
        from_place = place[robot, j]
    return best, best_j


@kernel
def _rejoin(packed, chains, weights, robot, u, j, begin, opens, price):  # type: ignore[no-untyped-def]
    """Price and verdict when the drop, served from `begin` on, precedes position ``j + 1``."""
    last, here = chains.length[robot] - 1, packed.place[u]
    free = begin + packed.service[u]
    if opens:
        free += packed.travel[here, 0]
        price += weights.metre * packed.distance[here, 0]
        if j == last:
            return price, free <= packed.end[robot]
        free, here = free + packed.reload, 0
    target = chains.place[robot, j + 1]
    arrive = free + packed.travel[here, target]
    if arrive > chains.latest[robot, j + 1]:
        return price, False
    start = max(arrive, packed.earliest[chains.node[robot, j + 1]])
    if not opens:
        price += weights.metre * (packed.distance[here, target] - chains.leg[robot, j])
    if packed.is_soft:
        price += passed_on(packed, chains, robot, j + 1, start)
    return price, True
