"""The one primitive of construction, descent and dispatch: cheapest insertion.

For a request ``u`` behind position ``k`` of a chain, with successor ``j``:

* arrival ``a = begin[k] + pause + travel[k, u]``, start ``s = max(earliest[u], a)``;
* start at the successor ``s' = max(earliest[j], s + service[u] + travel[u, j])``;
* in time if and only if ``s <= latest[u]`` and ``s' <= latest[j]`` of the chain,
  because the chain's ``latest`` already looks after everything behind ``j``;
* a collected load must fit on all later legs of the trip, a delivered one on all
  earlier ones, which ``peak_after`` and ``peak_before`` answer.

Each verdict takes constant time. Besides, behind every depot of a chain that
has stops ``u`` may open a trip of its own: depot, ``u``, depot.

The price of an insertion is exact, not an estimate: distance, a robot that
leaves home, the delay of ``u``, and, where requests tolerate delay, the delay
passed on to the followers. For the latter the loop walks on only until the
shift is absorbed, and only for positions that can still win.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from wardwise.fleet.search import chains as kernels

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Packed


class Weights(NamedTuple):
    """Price of ``metre * (d_ku + d_uj - saved * d_kj) + push * (s' - begin[j]) + robot``.

    The price of a plan has ``saved = 1`` and ``push = 0``; the others serve
    Solomon's criterion c1.
    """

    metre: float
    saved: float
    push: float
    robot: float


def plan_weights(packed: Packed) -> Weights:
    """Weights with which the price of an insertion is the change of the plan's price."""
    return Weights(metre=packed.metre_price, saved=1.0, push=0.0, robot=packed.robot_price)


@njit(cache=True)
def best_in_chain(packed, chains, weights, robot, u):  # type: ignore[no-untyped-def]
    """Cheapest feasible insertion of node `u` into one chain.

    Arrays are bound to local names: looking them up in a tuple inside the loop
    costs more than the arithmetic.

    Returns
    -------
    price, position, opens_trip
        `u` goes behind `position`; price is infinite when nothing is feasible.
    """
    node, begin, latest = chains.node[robot], chains.begin[robot], chains.latest[robot]
    travel, distance, service, earliest = (
        packed.travel,
        packed.distance,
        packed.service,
        packed.earliest,
    )
    metre, saved, push = weights.metre, weights.saved, weights.push
    last = chains.length[robot] - 1
    peak = chains.peak_before[robot] if packed.is_deliver[u] else chains.peak_after[robot]
    room = packed.capacity[robot] - packed.load[u]
    may_open = _may_open(packed, chains, robot)
    best, best_position, best_opens = np.inf, -1, False
    for k in range(last + 1 if room >= 0.0 else 0):
        here = node[k]
        leave = begin[k] + (service[here] if here != 0 else packed.reload if k > 0 else 0.0)
        if leave > packed.latest[u]:
            break  # starts only grow along the chain
        start = max(leave + travel[here, u], earliest[u])
        if start > packed.latest[u]:
            continue
        outward = metre * distance[here, u]
        outward += packed.late_price[u] * max(0.0, start - packed.due[u])
        for opens in (False, True):
            if opens and not (may_open and here == 0):
                continue
            if not opens and (k == last or peak[k] > room):
                continue
            price, free, i = outward, start + service[u], u
            if opens:
                price += metre * distance[u, 0]
                free, i = free + travel[u, 0] + packed.reload, 0
            if k == last:  # a new trip at the end: nobody follows, nothing is saved
                is_in_time = free - packed.reload <= packed.end[robot]
                price += push * (free - packed.reload - begin[k])
            else:
                j = node[k + 1]
                start_j = max(free + travel[i, j], earliest[j])
                is_in_time = start_j <= latest[k + 1]
                price += metre * (distance[i, j] - saved * distance[here, j])
                price += push * (start_j - begin[k + 1])
                price += weights.robot if last == 1 else 0.0
                if packed.is_soft and (price < best or start_j < begin[k + 1]):
                    price += _passed_on(packed, chains, robot, k + 1, start_j)
            if is_in_time and price < best:
                best, best_position, best_opens = price, k, opens
    return best, best_position, best_opens


@njit(cache=True)
def _may_open(packed, chains, robot):  # type: ignore[no-untyped-def]
    """Whether a robot that leaves home may make one more trip."""
    last = chains.length[robot] - 1
    num_trips = 0
    for k in range(last):
        num_trips += chains.node[robot, k] == 0
    return last > 1 and num_trips < packed.max_trips[robot]


@njit(cache=True)
def best_insertion(packed, chains, weights, u):  # type: ignore[no-untyped-def]
    """Cheapest feasible insertion of node `u` into any chain.

    Of idle robots of one kind only the first is looked at.

    Returns
    -------
    price, robot, position, opens_trip
        As in `best_in_chain`; the first of equals wins.
    """
    best, best_robot, best_position, best_opens = np.inf, -1, -1, False
    for robot in range(len(chains.length)):
        twin = packed.twin[robot]
        if chains.length[robot] == 2 and twin >= 0 and chains.length[twin] == 2:
            continue
        price, position, opens = best_in_chain(packed, chains, weights, robot, u)
        if price < best:
            best, best_robot, best_position, best_opens = price, robot, position, opens
    return best, best_robot, best_position, best_opens


@njit(cache=True)
def _passed_on(packed, chains, robot, k, start):  # type: ignore[no-untyped-def]
    """Change in the price of delays from position `k` on, when `k` starts at `start`."""
    node, begin = chains.node[robot], chains.begin[robot]
    last = chains.length[robot] - 1
    change = 0.0
    while start != begin[k]:
        due = packed.due[node[k]]
        late = max(0.0, start - due) - max(0.0, begin[k] - due)
        change += packed.late_price[node[k]] * late
        if k == last:
            break
        leave = start + kernels.pause_at(packed, node[k], k)
        k += 1
        arrive = leave + packed.travel[node[k - 1], node[k]]
        start = max(arrive, packed.earliest[node[k]])
    return change


@njit(cache=True)
def serve(packed, chains, weights, nodes):  # type: ignore[no-untyped-def]
    """Insert nodes one by one where each is cheapest; those that do not fit stay out.

    With prices in money a node also stays out when that is cheaper.
    """
    for u in nodes:
        if chains.owner[u] != kernels.UNSERVED:
            continue
        price, robot, position, opens = best_insertion(packed, chains, weights, u)
        if robot >= 0 and not (packed.is_money and price >= packed.denial_price[u]):
            kernels.insert(packed, chains, robot, position, opens, u)
