"""The one primitive of construction, search and dispatch: cheapest insertion.

For a request ``u`` behind position ``k`` of a chain, with successor ``j``:

* start ``s = max(earliest[u], leave[k] + travel[k, u])``;
* arrival at the successor ``a = s + service[u] + travel[u, j]``;
* in time if and only if ``s <= latest[u]`` and ``a <= latest[j]`` of the chain,
  because the chain's ``latest`` already looks after everything behind ``j``;
* a collected load must fit on all later legs of the trip, a delivered one on all
  earlier ones, which ``peak_after`` and ``peak_before`` answer.

Each verdict takes constant time. Besides, behind every depot of a chain that
has stops ``u`` may open a trip of its own: depot, ``u``, depot. A delivery is
loaded at the depot, so it may not join a trip that has left. Of a transfer both
stops are placed: behind every place for the pickup the loop walks on with the
delayed times and the loads until the next stop would be late.

The price of an insertion is exact, not an estimate: distance, a robot that
leaves home, the delay of ``u``, and, where requests tolerate delay, the delay
passed on to the followers. For the latter the loop walks on only until the
shift is absorbed, and only for positions that can still win.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search.lateness import passed_on
from wardwise.fleet.search.pairs import scan_pairs

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Packed


class Weights(NamedTuple):
    """Price of ``metre * (d_ku + d_uj - saved * d_kj) + push * (s' - begin[j]) + robot``.

    The price of a plan has ``saved = 1`` and ``push = 0``; the others serve
    Solomon's criterion c1, for which the delay ``s' - begin[j]`` of the
    successor counts. Transfers are always priced as in a plan.
    """

    metre: float
    saved: float
    push: float
    robot: float


def plan_weights(packed: Packed) -> Weights:
    """Weights with which the price of an insertion is the change of the plan's price."""
    return Weights(metre=packed.metre_price, saved=1.0, push=0.0, robot=packed.robot_price)


@njit(cache=True)
def no_blinks():  # type: ignore[no-untyped-def]
    """Random state with which a scan looks at every position: see `next_blink`."""
    return np.array([1, 2**62], dtype=np.int64)


@inlined
def draw(state):  # type: ignore[no-untyped-def]
    """Next number in [0, 1) of a xorshift generator (Marsaglia 2003) kept in ``state[0]``."""
    x = np.uint64(state[0])
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    state[0] = np.int64(x)
    return np.float64(x >> np.uint64(11)) * 2.0**-53


@kernel
def next_blink(state, inverse_log):  # type: ignore[no-untyped-def]
    """Draw how many positions a scan looks at before it passes one over, into ``state[1]``.

    Positions are passed over independently with probability ``rate``;
    `inverse_log` is ``1 / log(1 - rate)``.
    """
    state[1] = 1 + np.int64(np.log(1.0 - draw(state)) * inverse_log)


@njit(cache=True)
def best_in_chain(packed, chains, weights, robot, u):  # type: ignore[no-untyped-def]
    """Cheapest feasible insertion of request `u` into one chain.

    Returns
    -------
    price, position, drop_after, opens
        `u` goes behind `position`; of a transfer the pickup does, and the drop
        behind `drop_after`, which is -1 for all else. `opens` tells that it gets
        a trip of its own. The price is infinite when nothing is feasible. Of
        equals the first wins; places in a trip come before new trips.
    """
    return scan(packed, chains, weights, robot, u, np.inf, no_blinks(), 0.0)


@inlined
def scan(packed, chains, weights, robot, u, bound, blink, inverse_log):  # type: ignore[no-untyped-def]
    """`best_in_chain` for a price below `bound`, passing positions over at random."""
    if packed.partner[u] >= 0:
        return scan_pairs(packed, chains, weights, robot, u, bound)
    if packed.capacity[robot] < packed.load[u]:
        return np.inf, -1, -1, False
    k = chains.first[robot]
    if packed.at_depot[u] > 0.0:
        while k < chains.length[robot] - 1 and chains.node[robot, k] != 0:
            k += 1
        peak = chains.peak_before
    else:
        peak = chains.peak_after
    if packed.is_soft or weights.push > 0.0:
        best, position = _scan_soft(packed, chains, weights, robot, u, k, peak, bound)
    else:
        best, position = _scan_hard(
            chains.place, chains.leave, chains.latest, chains.leg, peak,
            packed.distance_to, packed.distance, packed.travel_to, packed.travel,
            robot, k, chains.length[robot] - 1, packed.place[u], packed.earliest[u],
            packed.latest[u], packed.service[u], packed.capacity[robot] - packed.load[u],
            weights.metre, weights.saved, weights.robot, bound, blink, inverse_log,
        )  # fmt: skip
    if packed.max_trips[robot] > 1 and kernels.may_open(packed, chains, robot):
        price, k = _scan_depots(packed, chains, weights, robot, u, min(best, bound))
        if k >= 0:
            return price, k, -1, True
    return best, position, -1, False


# fmt: off
@inlined
def _scan_hard(  # type: ignore[no-untyped-def]
    place, leave, latest, leg, peak, distance_to, distance, travel_to, travel,
    robot, k, last, here, earliest_u, latest_u, service_u, room,
    metre, saved, robot_price, bound, blink, inverse_log,
):
    # fmt: on
    """Cheapest place of one stop in the trips there are, for windows without lateness.

    It takes plain arrays: handing on the tuples that hold them costs ten times
    the arithmetic. A position that cannot win is not looked at twice.
    """
    if last == 1:
        bound -= robot_price
    else:
        robot_price = 0.0
    best, best_k, countdown = bound, -1, blink[1]
    while k < last:
        before, after = place[robot, k], place[robot, k + 1]
        price = distance_to[here, before] + distance[here, after] - saved * leg[robot, k]
        price *= metre
        ready = leave[robot, k]
        if ready > latest_u:
            break  # departures only grow along the chain
        k += 1
        if price >= best or peak[robot, k - 1] > room:
            continue
        start = max(ready + travel_to[here, before], earliest_u)
        if start > latest_u or start + service_u + travel[here, after] > latest[robot, k]:
            continue
        countdown -= 1
        if countdown <= 0:
            next_blink(blink, inverse_log)
            countdown = blink[1]
            continue
        best, best_k = price, k - 1
    blink[1] = countdown
    return (best + robot_price if best_k >= 0 else np.inf), best_k


@kernel
def _scan_soft(packed, chains, weights, robot, u, k, peak, bound):  # type: ignore[no-untyped-def]
    """Cheapest place of one stop in the trips there are, with lateness and push priced."""
    place, leave, latest, begin = chains.place, chains.leave, chains.latest, chains.begin
    distance_to, distance = packed.distance_to, packed.distance
    here, earliest_u, latest_u = packed.place[u], packed.earliest[u], packed.latest[u]
    room, last = packed.capacity[robot] - packed.load[u], chains.length[robot] - 1
    base = weights.robot if last == 1 else 0.0
    best, best_k = bound, -1
    while k < last:
        before, after = place[robot, k], place[robot, k + 1]
        ready = leave[robot, k]
        if ready > latest_u:
            break
        k += 1
        if peak[robot, k - 1] > room:
            continue
        start = max(ready + packed.travel_to[here, before], earliest_u)
        arrive = start + packed.service[u] + packed.travel[here, after]
        if start > latest_u or arrive > latest[robot, k]:
            continue
        saved = weights.saved * chains.leg[robot, k - 1]
        price = weights.metre * (distance_to[here, before] + distance[here, after] - saved) + base
        start_j = max(arrive, packed.earliest[chains.node[robot, k]])
        price += weights.push * (start_j - begin[robot, k])
        price += packed.late_price[u] * max(0.0, start - packed.due[u])
        if packed.is_soft and (price < best or start_j < begin[robot, k]):
            price += passed_on(packed, chains, robot, k, start_j)
        if price < best:
            best, best_k = price, k - 1
    return (best if best_k >= 0 else np.inf), best_k


@kernel
def _scan_depots(packed, chains, weights, robot, u, bound):  # type: ignore[no-untyped-def]
    """Cheapest depot of a chain behind which one stop opens a trip of its own."""
    node, leave, begin = chains.node, chains.leave, chains.begin
    last, here = chains.length[robot] - 1, packed.place[u]
    detour = packed.distance[0, here] + packed.distance[here, 0]
    best, best_k = bound, -1
    for k in range(chains.first[robot], last + 1):
        if node[robot, k] != 0:
            continue
        start = max(leave[robot, k] + packed.travel[0, here], packed.earliest[u])
        if start > packed.latest[u]:
            break
        back = start + packed.service[u] + packed.travel[here, 0]
        price = weights.metre * detour
        price += packed.late_price[u] * max(0.0, start - packed.due[u])
        if k == last:  # nobody follows
            if back > packed.end[robot]:
                continue
            price += weights.push * (back - begin[robot, k])
        else:
            arrive = back + packed.reload + packed.travel[0, chains.place[robot, k + 1]]
            if arrive > chains.latest[robot, k + 1]:
                continue
            start_j = max(arrive, packed.earliest[node[robot, k + 1]])
            price += weights.push * (start_j - begin[robot, k + 1])
            price += passed_on(packed, chains, robot, k + 1, start_j) if packed.is_soft else 0.0
        if price < best:
            best, best_k = price, k
    return best, best_k


@njit(cache=True)
def best_per_robot(packed, chains, weights, u, prices, positions, drops, opens):  # type: ignore[no-untyped-def]
    """`best_in_chain` of every robot, into arrays over robots; infinite price where none is.

    Of idle robots of one kind only the first is looked at.
    """
    blink = no_blinks()
    for robot in range(len(chains.length)):
        twin = packed.twin[robot]
        if chains.length[robot] == 2 and twin >= 0 and chains.length[twin] == 2:
            prices[robot], positions[robot], drops[robot], opens[robot] = np.inf, -1, -1, False
        else:
            prices[robot], positions[robot], drops[robot], opens[robot] = scan(
                packed, chains, weights, robot, u, np.inf, blink, 0.0
            )


@njit(cache=True)
def best_insertion(packed, chains, weights, u):  # type: ignore[no-untyped-def]
    """Cheapest feasible insertion of request `u` into any chain.

    Of idle robots of one kind only the first is looked at.

    Returns
    -------
    price, robot, position, drop_after, opens
        As in `best_in_chain`; the first of equals wins.
    """
    best, best_robot, best_position, best_drop, best_opens = np.inf, -1, -1, -1, False
    blink = no_blinks()
    for robot in range(len(chains.length)):
        twin = packed.twin[robot]
        if chains.length[robot] == 2 and twin >= 0 and chains.length[twin] == 2:
            continue
        price, position, drop, opens = scan(packed, chains, weights, robot, u, best, blink, 0.0)
        if price < best:
            best, best_robot, best_position, best_drop = price, robot, position, drop
            best_opens = opens
    return best, best_robot, best_position, best_drop, best_opens


@njit(cache=True)
def serve(packed, chains, weights, nodes):  # type: ignore[no-untyped-def]
    """Insert requests one by one where each is cheapest; those that do not fit stay out.

    With prices in money a request also stays out when that is cheaper.
    """
    for u in nodes:
        if chains.owner[u] != kernels.UNSERVED:
            continue
        price, robot, position, drop, opens = best_insertion(packed, chains, weights, u)
        if robot >= 0 and not (packed.is_money and price >= packed.denial_price[u]):
            kernels.put(packed, chains, robot, position, drop, opens, u)
