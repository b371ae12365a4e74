"""First descent, then repeated destruction and greedy repair.

From the best construction: relocate single stops and exchange tails until
neither pays, then try to empty one robot after the other. From there on every
iteration takes a set of related requests out (after Shaw 1998), puts them back
one by one in a shuffled order where each is cheapest, and keeps the result
unless it is worse. There is no uphill step: this is a descent with large steps,
the yardstick for stronger searches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.search.construct import best_start, urgency_order
from wardwise.fleet.search.exchange import relocate_sweep, tail_sweep
from wardwise.fleet.search.fleet import IDLE, Fleet, is_better
from wardwise.fleet.search.insertion import plan_weights

if TYPE_CHECKING:
    from numpy.random import Generator

    from wardwise.fleet.search.packed import Floats, Packed
    from wardwise.fleet.search.watch import Watch

# Ours: from "hardly a change" to "about three Solomon routes".
FEWEST_REMOVED, MOST_REMOVED = 4, 30
# Ours: how often a whole robot goes home, for objectives that pay for robots.
EMPTYING_RATE = 0.1
# As in the granular neighbourhood of the method sheet: a second of waiting is worth 0.2 of travel.
WAIT_WEIGHT = 0.2


def descent(packed: Packed, rng: Generator, watch: Watch) -> None:
    """Descend from the best construction until the watch says stop."""
    fleet = best_start(packed, watch)
    if watch.is_late() or len(packed.service) == 1:
        return
    descend(fleet, rng, watch)
    related = relatedness(packed)
    while watch.advance():
        trial = fleet.copy()
        destroy(trial, related, rng)
        repair(trial, rng)
        if not is_better(fleet.score(), trial.score()):
            fleet = trial
            watch.improve(fleet)


def descend(fleet: Fleet, rng: Generator, watch: Watch) -> None:
    """Relocate, exchange tails and empty robots until nothing of it pays."""
    packed, weights = fleet.packed, plan_weights(fleet.packed)
    num_robots, num_nodes = len(packed.capacity), len(packed.service)
    while not watch.is_late():
        nodes = rng.permutation(np.arange(1, num_nodes))
        num_moves = relocate_sweep(packed, fleet.chains, weights, nodes)
        num_moves += tail_sweep(packed, fleet.chains, rng.permutation(num_robots))
        if num_moves == 0:
            num_moves = empty_a_robot(fleet)
        watch.improve(fleet)
        if num_moves == 0:
            return


def empty_a_robot(fleet: Fleet) -> int:
    """Give all stops of one robot to others if that pays; returns 1 if it did.

    Robots with few stops are tried first.
    """
    urgency = {node: rank for rank, node in enumerate(urgency_order(fleet.packed))}
    for robot in sorted(fleet.used(), key=lambda robot: fleet.chains.length[robot]):
        trial = fleet.copy()
        trial.set_chain(robot, IDLE)
        trial.serve(sorted(fleet.stops(robot), key=urgency.__getitem__))
        if is_better(trial.score(), fleet.score()):
            fleet.assign(trial)
            return 1
    return 0


def relatedness(packed: Packed) -> Floats:
    """Cost of visiting one request right after another, smaller of both directions; (N, N).

    Travel plus the waiting that the windows force (Vidal et al. 2013, granular search).
    """
    leave = packed.latest + packed.service
    wait = np.maximum(packed.earliest[None, :] - packed.travel - leave[:, None], 0.0)
    after = packed.travel + WAIT_WEIGHT * wait
    return np.minimum(after, after.T)


def destroy(fleet: Fleet, related: Floats, rng: Generator) -> None:
    """Take out the requests most related to a random one, or all of a robot and some more."""
    num_requests = len(related) - 1
    center = int(rng.integers(1, num_requests + 1))
    most = min(MOST_REMOVED, num_requests)
    count = int(rng.integers(min(FEWEST_REMOVED, most), most + 1))
    nearest = np.argpartition(related[center, 1:], count - 1)[:count] + 1
    if fleet.packed.robot_price > 0 and rng.random() < EMPTYING_RATE:
        used = fleet.used()
        if used:
            fleet.release(fleet.stops(used[int(rng.integers(len(used)))]))
    fleet.release(nearest)


def repair(fleet: Fleet, rng: Generator) -> None:
    """Serve the unserved again, each where it is cheapest, in one of three orders."""
    packed = fleet.packed
    nodes = rng.permutation(np.array(fleet.unserved(), dtype=np.int64))
    keys = (None, packed.latest - packed.earliest, -packed.distance[0])
    key = keys[int(rng.integers(len(keys)))]
    if key is not None:
        nodes = nodes[np.argsort(key[nodes], kind="stable")]
    fleet.serve(nodes)
