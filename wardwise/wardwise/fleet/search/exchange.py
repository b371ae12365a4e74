"""Compiled sweeps of the descent: relocate one stop, exchange the tails of two chains.

Both accept the first strict improvement and walk on. Tails may hold whole
trips. A pair of chains is evaluated by driving through both (one pass), after a
bound in constant time has ruled out most pairs.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search.chains import UNSERVED
from wardwise.fleet.search.insertion import best_insertion

_EPSILON = 1e-6


@njit(cache=True)
def relocate_sweep(packed, chains, weights, order):  # type: ignore[no-untyped-def]
    """Move every node of `order` to its best place, or deny it, where that pays.

    Returns
    -------
    num_moves
        How many nodes changed place; unserved ones that found a place included.
    """
    num_moves = 0
    for u in order:
        robot = chains.owner[u]
        saved = packed.denial_price[u] if packed.is_money else np.inf
        if robot != UNSERVED:
            length = chains.length[robot]
            old = chains.node[robot, :length].copy()
            saved = kernels.chain_cost(packed, chains, robot)
            if not kernels.remove(packed, chains, u):
                kernels.set_chain(packed, chains, robot, old, length)
                continue
            saved -= kernels.chain_cost(packed, chains, robot)
        price, target, position, opens = best_insertion(packed, chains, weights, u)
        if price < saved - _EPSILON:
            kernels.insert(packed, chains, target, position, opens, u)
            num_moves += 1
        elif robot != UNSERVED:
            if packed.is_money and packed.denial_price[u] < saved - _EPSILON:
                num_moves += 1
            else:
                kernels.set_chain(packed, chains, robot, old, length)
    return num_moves


@njit(cache=True)
def tail_sweep(packed, chains, order):  # type: ignore[no-untyped-def]
    """Exchange the tails of two chains (2-opt*) wherever that pays.

    Returns
    -------
    num_moves
        How many pairs of tails changed places.
    """
    num_moves = 0
    for a in order:
        for b in range(len(chains.length)):
            if a < b and (chains.length[a] > 2 or chains.length[b] > 2):
                num_moves += _exchange_tails(packed, chains, a, b)
    return num_moves


@njit(cache=True)
def _exchange_tails(packed, chains, a, b):  # type: ignore[no-untyped-def]
    """Make the first improving exchange between two chains; returns 0 or 1."""
    node_a, node_b = chains.node[a], chains.node[b]
    length_a, length_b = chains.length[a], chains.length[b]
    cost = kernels.chain_cost(packed, chains, a) + kernels.chain_cost(packed, chains, b)
    new_a = np.empty(length_a + length_b, dtype=np.int64)
    new_b = np.empty(length_a + length_b, dtype=np.int64)
    old_a, old_b = node_a[:length_a].copy(), node_b[:length_b].copy()
    for i in range(length_a - 1):
        for j in range(length_b - 1):
            if not _may_pay(packed, chains, a, b, i, j):
                continue
            size_a = _join(new_a, old_a, i, old_b, j)
            size_b = _join(new_b, old_b, j, old_a, i)
            if not _trips_fit(packed, a, new_a, size_a):
                continue
            if not _trips_fit(packed, b, new_b, size_b):
                continue
            is_feasible = kernels.set_chain(packed, chains, a, new_a, size_a)
            is_feasible &= kernels.set_chain(packed, chains, b, new_b, size_b)
            new_cost = kernels.chain_cost(packed, chains, a)
            new_cost += kernels.chain_cost(packed, chains, b)
            if is_feasible and new_cost < cost - _EPSILON:
                return 1
            kernels.set_chain(packed, chains, a, old_a, length_a)
            kernels.set_chain(packed, chains, b, old_b, length_b)
    return 0


@njit(cache=True)
def _may_pay(packed, chains, a, b, i, j):  # type: ignore[no-untyped-def]
    """Rule out, in constant time, exchanges that are late at the joint or longer."""
    node_a, node_b = chains.node[a], chains.node[b]
    pause_a = kernels.pause_at(packed, node_a[i], i)
    pause_b = kernels.pause_at(packed, node_b[j], j)
    start_b = chains.begin[a, i] + pause_a + packed.travel[node_a[i], node_b[j + 1]]
    start_a = chains.begin[b, j] + pause_b + packed.travel[node_b[j], node_a[i + 1]]
    same_shift = packed.end[a] == packed.end[b]
    if same_shift and (start_b > chains.latest[b, j + 1] or start_a > chains.latest[a, i + 1]):
        return False
    if packed.is_soft:
        return True
    d = packed.distance
    gain = d[node_a[i], node_a[i + 1]] + d[node_b[j], node_b[j + 1]]
    gain -= d[node_a[i], node_b[j + 1]] + d[node_b[j], node_a[i + 1]]
    empties = (i == 0 and j == chains.length[b] - 2) or (j == 0 and i == chains.length[a] - 2)
    return empties or gain > 0.0


@njit(cache=True)
def _join(out, head, i, tail, j):  # type: ignore[no-untyped-def]
    """Write ``head[: i + 1] + tail[j + 1 :]`` without empty trips; returns its length."""
    size = 0
    for k in range(i + 1):
        out[size] = head[k]
        size += 1
    for k in range(j + 1, len(tail)):
        if tail[k] == 0 and out[size - 1] == 0:
            continue
        out[size] = tail[k]
        size += 1
    if size == 1:
        out[1] = 0
        size = 2
    return size


@njit(cache=True)
def _trips_fit(packed, robot, nodes, size):  # type: ignore[no-untyped-def]
    depots = 0
    for k in range(size):
        depots += nodes[k] == 0
    return depots - 1 <= packed.max_trips[robot]
