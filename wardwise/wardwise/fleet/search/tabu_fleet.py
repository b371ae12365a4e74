"""Fleet reduction: send a robot home by ejection.

Each stop of the robot goes where it is cheapest in the others; if it fits nowhere,
another request makes room for it that fits elsewhere (an ejection of depth 2).
All insertions keep windows, shifts and loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from wardwise.fleet.compiled import kernel
from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search.chains import UNSERVED
from wardwise.fleet.search.fleet import EPSILON, IDLE
from wardwise.fleet.search.insertion import best_insertion, no_blinks, plan_weights, scan

if TYPE_CHECKING:
    from numpy.random import Generator

    from wardwise.fleet.search.fleet import Fleet


def without_shortest(fleet: Fleet, rng: Generator) -> Fleet | None:
    """Copy in which the robot with fewest stops stays at home, or `None` if that fails.

    Its stops are placed in random order, so that another try may succeed.
    """
    used = fleet.used()
    if len(used) < 2:
        return None
    robot = min(used, key=lambda r: len(fleet.stops(r)))
    stops = rng.permutation(fleet.stops(robot))
    other = fleet.copy()
    other.set_chain(robot, IDLE)
    weights = plan_weights(other.packed)
    is_empty = all(place(other.packed, other.chains, weights, node) for node in stops)
    return other if is_empty else None


@njit(cache=True)
def place(packed, chains, weights, u):  # type: ignore[no-untyped-def]
    """Serve a request with the robots in use, if need be by ejection; returns whether it worked."""
    blink = no_blinks()
    if _insert(packed, chains, weights, u, blink) < np.inf:
        return True
    saved = np.zeros(chains.node.shape[1], dtype=np.int64)
    best, best_w = np.inf, u
    for w in range(1, len(chains.owner)):
        robot = chains.owner[w]
        if robot == UNSERVED or w == u:
            continue
        length = chains.length[robot]
        saved[:length] = chains.node[robot, :length]
        first = _exchange(packed, chains, weights, w, u, blink)
        second = _insert(packed, chains, weights, w, blink) if first < best else np.inf
        if first + second < best:
            best, best_w = first + second, w
        if second < np.inf:
            kernels.remove(packed, chains, w)
        kernels.set_chain(packed, chains, robot, saved, length)
    if best_w == u:
        return False
    _exchange(packed, chains, weights, best_w, u, blink)
    _insert(packed, chains, weights, best_w, blink)
    return True


@kernel
def _insert(packed, chains, weights, u, blink):  # type: ignore[no-untyped-def]
    """Put a request where it is cheapest among the robots in use; returns the price."""
    best, best_robot, best_position, best_opens = np.inf, -1, -1, False
    for robot in range(len(chains.length)):
        if chains.length[robot] == 2:
            continue
        price, position, _, opens = scan(packed, chains, weights, robot, u, best, blink, 0.0)
        if price < best:
            best, best_robot, best_position, best_opens = price, robot, position, opens
    if best_robot >= 0:
        kernels.put(packed, chains, best_robot, best_position, -1, best_opens, u)
    return best


@kernel
def _exchange(packed, chains, weights, w, u, blink):  # type: ignore[no-untyped-def]
    """Put a request into the chain of another one that leaves it; returns the change in price."""
    robot = chains.owner[w]
    before = chains.price[robot]
    if not kernels.remove(packed, chains, w):
        return np.inf
    price, position, _, opens = scan(packed, chains, weights, robot, u, np.inf, blink, 0.0)
    if position < 0:
        return np.inf
    price += chains.price[robot] - before
    kernels.put(packed, chains, robot, position, -1, opens, u)
    return price


@njit(cache=True)
def drop_dear(packed, chains):  # type: ignore[no-untyped-def]
    """Deny requests that cost more than their denial."""
    saved = np.zeros(chains.node.shape[1], dtype=np.int64)
    for u in range(1, len(chains.owner)):
        robot = chains.owner[u]
        if robot == UNSERVED:
            continue
        length, before = chains.length[robot], chains.price[robot]
        saved[:length] = chains.node[robot, :length]
        is_feasible = kernels.remove(packed, chains, u)
        if not is_feasible or before - chains.price[robot] <= packed.denial_price[u]:
            kernels.set_chain(packed, chains, robot, saved, length)


@njit(cache=True)
def reinsert(packed, chains, weights):  # type: ignore[no-untyped-def]
    """Put each request where it is cheapest, lateness included, until nothing improves."""
    saved = np.zeros(chains.node.shape[1], dtype=np.int64)
    is_improved = True
    while is_improved:
        is_improved = False
        for u in range(1, len(chains.owner)):
            robot = chains.owner[u]
            if robot == UNSERVED:
                continue
            length, before = chains.length[robot], chains.price[robot]
            saved[:length] = chains.node[robot, :length]
            is_feasible = kernels.remove(packed, chains, u)
            price, target, position, _, opens = best_insertion(packed, chains, weights, u)
            if is_feasible and price + chains.price[robot] < before - EPSILON:
                kernels.put(packed, chains, target, position, -1, opens, u)
                is_improved = True
            else:
                kernels.set_chain(packed, chains, robot, saved, length)
