"""Plans from nothing: Solomon's I1 and cheapest insertion in order of urgency.

I1 (Solomon 1987, Operations Research 35(2)) fills one robot after the other.
A seed opens the robot; then, over all unserved requests ``u`` at their best
place between ``i`` and ``j``,

    c1 = a1 (d_iu + d_uj - mu d_ij) + a2 (b'_j - b_j)      smallest place
    c2 = lambda d_0u - c1                                  largest request next

with the delay of ``u`` and its followers added to ``c1`` at its price. When
nothing fits, the next robot opens.

Cheapest insertion takes the requests by priority, then by due time, and puts
each where it raises the price least; it may leave a request denied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search.chains import UNSERVED
from wardwise.fleet.search.fleet import IDLE, Fleet
from wardwise.fleet.search.insertion import Weights, best_in_chain
from wardwise.fleet.search.packed import is_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator

    from wardwise.fleet.search.packed import Packed
    from wardwise.fleet.search.watch import Watch

# (mu, lambda, alpha1, alpha2), Solomon 1987, and his two kinds of seeds.
I1_PARAMETERS = (
    (1.0, 1.0, 1.0, 0.0),
    (1.0, 2.0, 1.0, 0.0),
    (1.0, 1.0, 0.0, 1.0),
    (1.0, 2.0, 0.0, 1.0),
)
I1_SEEDS = ("farthest", "earliest")


def insertion(packed: Packed, rng: Generator, watch: Watch) -> None:  # noqa: ARG001
    """Construct plans with every start; needs no randomness."""
    for fleet in starts(packed):
        watch.improve(fleet)
        if not watch.advance():
            return


def best_start(packed: Packed, watch: Watch) -> Fleet:
    """Best of all constructions that the time allows."""
    for fleet in starts(packed):
        watch.improve(fleet)
        if watch.is_late():
            break
    assert watch.best is not None
    return watch.best.copy()


def starts(packed: Packed) -> Iterator[Fleet]:
    """All constructions, one after the other, each a feasible plan."""
    yield cheapest_first(packed)
    for seeds in I1_SEEDS:
        for parameters in I1_PARAMETERS:
            yield solomon_i1(packed, parameters, seeds)


def cheapest_first(packed: Packed) -> Fleet:
    """Insert the requests by priority, then due time, each where it is cheapest."""
    fleet = Fleet(packed)
    fleet.serve(urgency_order(packed))
    return fleet


def urgency_order(packed: Packed) -> list[int]:
    """Nodes by falling price of a denial, then by due time."""
    nodes = np.flatnonzero(is_request(packed))
    order = np.lexsort((packed.due[nodes], -packed.denial_price[nodes]))
    return [int(node) for node in nodes[order]]


def solomon_i1(packed: Packed, parameters: tuple[float, float, float, float], seeds: str) -> Fleet:
    """Build a plan robot by robot.

    Parameters
    ----------
    packed
        The instance.
    parameters
        ``(mu, lambda, alpha1, alpha2)``.
    seeds
        ``farthest`` from the depot or ``earliest`` deadline first.

    Returns
    -------
    Fleet
        A feasible plan. What no robot had room for when it was filled is tried
        once more everywhere, then denied.
    """
    mu, lam, alpha_1, alpha_2 = parameters
    weights = Weights(metre=alpha_1, saved=mu, push=alpha_2, robot=0.0)
    nodes = np.flatnonzero(is_request(packed))
    distance = packed.distance[0, packed.place[nodes]]
    rank = -distance if seeds == "farthest" else packed.latest[nodes]
    order = nodes[np.argsort(rank, kind="stable")]
    fleet = Fleet(packed)
    for robot in range(len(packed.capacity)):
        _fill(packed, fleet.chains, weights, lam, robot, order)
    fleet.serve(urgency_order(packed))
    if packed.is_money:
        drop_losses(fleet)
    return fleet


def drop_losses(fleet: Fleet) -> None:
    """Send home every robot that costs more than denying all it serves."""
    for robot in fleet.used():
        denial = fleet.packed.denial_price[fleet.stops(robot)].sum()
        if fleet.chains.price[robot] > denial:
            fleet.set_chain(robot, IDLE)


@njit(cache=True)
def _fill(packed, chains, weights, lam, robot, order):  # type: ignore[no-untyped-def]
    """Open one robot with the first seed of `order` that it can serve, then fill it."""
    for u in order:
        if chains.owner[u] != UNSERVED:
            continue
        _, position, drop, opens = best_in_chain(packed, chains, weights, robot, u)
        if position >= 0:
            kernels.put(packed, chains, robot, position, drop, opens, u)
            break
    while True:
        best, best_u, best_position, best_drop, best_opens = -np.inf, -1, -1, -1, False
        for u in order:
            if chains.owner[u] != UNSERVED:
                continue
            c1, position, drop, opens = best_in_chain(packed, chains, weights, robot, u)
            c2 = lam * packed.distance[0, packed.place[u]] - c1
            if position >= 0 and c2 > best:
                best, best_u = c2, u
                best_position, best_drop, best_opens = position, drop, opens
        if best_u < 0:
            return
        kernels.put(packed, chains, robot, best_position, best_drop, best_opens, best_u)
