"""Ruin and recreate by slack induction by string removals: the default search.

Christiaens and Vanden Berghe 2020, Transportation Science 54(2) 417-433; the
loop is in `ruin_kernels`, and between its iterations tails of chains are exchanged
(`tails`). Simulated annealing cools from `Cooling.start` to `Cooling.end` times the
mean price of a request over the time that is granted.

For fewest robots, the first part of the time goes into emptying one robot after
the other with absence counters. Plans of so few robots lie far apart, with no way
between them that keeps every window. So the routes of several such plans are
shortened for a while, each a third of the requests apart from the best one before
it, and only the best is worked out in the rest of the time.

Beyond `GRANULAR_FROM` requests a request is put back only into chains that serve
one of its `GRANULAR_NEAR` nearest, or into an idle robot.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.search.chains import refresh
from wardwise.fleet.search.construct import best_start
from wardwise.fleet.search.fleet import IDLE, Fleet
from wardwise.fleet.search.insertion import plan_weights
from wardwise.fleet.search.neighbours import closeness, nearest, proximity
from wardwise.fleet.search.packed import is_request
from wardwise.fleet.search.ruin_kernels import Strings, Work, anneal
from wardwise.fleet.search.undo import keep

if TYPE_CHECKING:
    from numpy.random import Generator

    from wardwise.fleet.search.chains import Chains
    from wardwise.fleet.search.packed import Floats, Ints, Packed
    from wardwise.fleet.search.watch import Watch

GRANULAR_FROM, GRANULAR_NEAR = 400, 50
# Strings are taken out around a request; no iteration reaches further than this.
ADJACENT = 200
# Share of the time in which robots are emptied, when fewest robots count.
EMPTYING_SHARE = 0.4
# Plans that are then tried, the share of the time by which the last one must be ready,
# and the share of requests that are taken out of the best and placed anew for the next.
NUM_PLANS, PLANS_UNTIL, RELEASED_SHARE = 8, 0.88, 0.3
# Iterations per request that a plan takes at least; with fewer, fewer plans are tried.
PLAN_ITERATIONS = 60
# Mean prices of a request: the temperature while robots are emptied, and what an
# unserved request costs while the routes of a small fleet are shortened. Such a fleet
# can hardly be changed without leaving somebody out for a while.
EMPTYING_TEMPERATURE = 0.3
ABSENCE_PRICE = 10.0
# Where requests must stay unserved, each outweighs all driving.
DENIAL_WEIGHT = 100.0
REPORT_EVERY_S = 0.25
# Exchanges of tails that are tried before each iteration; the second beyond `GRANULAR_FROM`,
# where an iteration takes longer and tails are worth more.
NUM_EXCHANGES, NUM_EXCHANGES_OF_MANY = 50, 100


@dataclass(frozen=True, kw_only=True)
class Cooling:
    """Temperatures at start and end, in mean prices of a request; found by experiment."""

    start: float = 2.0
    end: float = 0.05


# The best of several plans is worked out at lower temperatures, to stay near it.
WORKING_OUT = Cooling(start=1.0)


def ruin(packed: Packed, rng: Generator, watch: Watch) -> None:
    """Improve the best construction until the watch says stop."""
    fleet = best_start(packed, watch)
    if watch.spent() >= 1 or len(packed.service) == 1:
        return
    search = Ruin(fleet, rng, watch)
    if packed.robot_price > 0 and not packed.is_money:
        search.empty_robots(EMPTYING_SHARE)
        if search.try_plans(PLANS_UNTIL):
            search.shorten(WORKING_OUT)
            return
    search.shorten(Cooling())


class Ruin:
    """One search: chains, scratch arrays, and the clock.

    Parameters
    ----------
    fleet
        Where to start; changed by the search.
    """

    def __init__(self, fleet: Fleet, rng: Generator, watch: Watch) -> None:
        self._fleet, self._rng, self._watch = fleet, rng, watch
        requests = np.flatnonzero(is_request(fleet.packed))
        self._work = make_work(fleet.packed, fleet.chains, rng, requests)
        self._weights = plan_weights(fleet.packed)
        can_exchange = _may_exchange(fleet.packed, fleet.chains, self._work)
        num_exchanges = NUM_EXCHANGES if len(requests) <= GRANULAR_FROM else NUM_EXCHANGES_OF_MANY
        self._strings = Strings(num_exchanges=num_exchanges if can_exchange else 0)
        self._iterations_per_s = 1e4
        self._reported_s = 0.0

    def empty_robots(self, until: float) -> None:
        """Send robots home one by one, until a share of the watch is spent or none can go."""
        work, chains = self._work, self._fleet.chains
        self._pay(robots=0.0, penalty=0.0)
        keep(chains, work)
        least = _fewest_robots(self._fleet.packed)
        while self._watch.spent() < until:
            if not self._fleet.unserved():
                keep(chains, work)
                self._report()
                used = self._fleet.used()
                if len(used) <= least:
                    break
                self._close(min(used, key=self._hardness))
            self._serve_all(until)
        self._restore()

    def try_plans(self, until: float) -> bool:
        """Shorten several plans with the robots in use, and go on from the best of all.

        Returns
        -------
        is_tried
            False if somebody stays unserved, or the time is too short for two plans.
        """
        begun = self._watch.spent()
        if begun >= until or self._fleet.unserved():
            return False
        iterations = self._watch.left(self._iterations_per_s) * (until - begun) / (1 - begun)
        num_plans = int(iterations / (PLAN_ITERATIONS * len(self._work.requests)))
        num_plans = min(num_plans, NUM_PLANS)
        if num_plans < 2:
            return False
        turn = (until - begun) / num_plans
        for i in range(num_plans):
            if i > 0:
                self._place_anew(RELEASED_SHARE, begun + (i + 0.5) * turn)
            self.shorten(Cooling(), begun + (i + 1) * turn)
            assert self._watch.best is not None
            self._fleet.assign(self._watch.best)
        return True

    def shorten(self, cooling: Cooling, until: float = 1.0) -> None:
        """Anneal until a share of the watch is spent; for fewest robots, with those in use now."""
        packed, work, chains = self._fleet.packed, self._work, self._fleet.chains
        is_fleet_small = packed.robot_price > 0 and not packed.is_money
        self._pay(
            robots=packed.robot_price if packed.is_money else 0.0,
            penalty=1.0 if packed.is_money else DENIAL_WEIGHT * (1.0 + chains.price.sum()),
        )
        if is_fleet_small:
            work.is_closed[:] = chains.length == 2
            if not self._fleet.unserved():
                work.penalty[:] = ABSENCE_PRICE * self._mean_price()
        state = self._state()
        keep(chains, work)
        scale, begun, improvements = self._mean_price(), self._watch.spent(), 0
        while (spent := self._watch.spent()) < until:
            share = (spent - begun) / (until - begun)
            temperature = scale * cooling.start * (cooling.end / cooling.start) ** share
            improvements += self._anneal(state, temperature, is_emptying=False)
            if improvements and self._watch.elapsed_s > self._reported_s + REPORT_EVERY_S:
                self._report()
                improvements = 0
        self._restore()

    def _serve_all(self, until: float) -> None:
        """Anneal by absence counters until nobody is left out or the share is spent."""
        state, temperature = self._state(), EMPTYING_TEMPERATURE * self._mean_price()
        while self._watch.spent() < until and state[2] > 0:
            self._anneal(state, temperature, is_emptying=True)

    def _place_anew(self, share: float, until: float) -> None:
        """Take a share of the requests out and find another plan; or leave all as it was."""
        work, nodes = self._work, self._work.requests
        self._pay(robots=0.0, penalty=0.0)
        keep(self._fleet.chains, work)
        work.is_closed[:] = self._fleet.chains.length == 2
        count = max(1, round(share * len(nodes)))
        self._fleet.release(self._rng.choice(nodes, count, replace=False))
        self._serve_all(until)
        self._restore()

    def _state(self) -> Floats:
        """Cost, best cost, unserved requests, and how many of them the best may have."""
        unserved = self._fleet.unserved()
        cost = float(self._fleet.chains.price.sum() + self._work.penalty[unserved].sum())
        most = len(self._work.requests) if self._packed.is_money else len(unserved)
        return np.array([cost, cost, len(unserved), most])

    def _mean_price(self) -> float:
        """Price of all chains, per request."""
        return float(self._fleet.chains.price.sum()) / max(1, len(self._work.requests))

    def _anneal(self, state: Floats, temperature: float, *, is_emptying: bool) -> int:
        """Run a batch of the compiled loop; returns how often the best was improved."""
        count = self._watch.batch(self._iterations_per_s)
        start = time.perf_counter()
        improvements, done = anneal(
            self._packed, self._fleet.chains, self._weights, self._work, self._strings,
            state, temperature, is_emptying, count,
        )  # fmt: skip
        elapsed_s = max(time.perf_counter() - start, 1e-6)
        self._iterations_per_s = 0.5 * (self._iterations_per_s + done / elapsed_s)
        self._watch.advance(int(done))
        return int(improvements)

    def _pay(self, *, robots: float, penalty: float) -> None:
        """Set what a used robot and an unserved request cost in this part of the search."""
        self._packed = self._fleet.packed._replace(robot_price=robots)
        self._weights = plan_weights(self._packed)
        self._work.penalty[:] = penalty * self._packed.denial_price
        for robot in range(len(self._fleet.chains.length)):
            refresh(self._packed, self._fleet.chains, robot)

    def _hardness(self, robot: int) -> tuple[float, int]:
        """How hard the requests of a robot were to place so far."""
        stops = self._fleet.stops(robot)
        return float(self._work.absences[stops].sum()), len(stops)

    def _close(self, robot: int) -> None:
        """Send a robot home for good, and all that are idle."""
        self._fleet.set_chain(robot, IDLE)
        self._work.is_closed[:] = self._fleet.chains.length == 2
        self._work.absences[:] = np.maximum(self._work.absences, 1.0)

    def _restore(self) -> None:
        """Go back to the best result of this part, and tell the watch."""
        self._pay(robots=self._fleet.packed.robot_price, penalty=0.0)
        for robot, length in enumerate(self._work.best_length):
            self._fleet.set_chain(robot, self._work.best_node[robot, :length])
        self._work.is_closed[:] = False
        self._watch.improve(self._fleet)

    def _report(self) -> None:
        """Tell the watch of the best so far without disturbing the search."""
        work = self._work
        rows = enumerate(zip(work.best_node, work.best_length, strict=True))
        chains = {robot: row[:length] for robot, (row, length) in rows if length > 2}
        self._watch.improve(Fleet.from_chains(self._fleet.packed, chains))
        self._reported_s = self._watch.elapsed_s


def _fewest_robots(packed: Packed) -> int:
    """Robots that the loads alone ask for, where each makes one trip."""
    if packed.max_trips.max() > 1:
        return 1
    collected = packed.delta[(packed.delta > 0) & ~packed.is_pickup].sum()
    load = max(float(packed.at_depot.sum()), float(collected))
    return max(1, math.ceil(load / float(packed.capacity.max())))


def _may_exchange(packed: Packed, chains: Chains, work: Work) -> bool:
    """Whether a tail of one chain can be the tail of any other."""
    has_single_stops = bool((packed.partner < 0).all())
    is_all_free = not work.is_fixed[1:].any() and not chains.first.any()
    return has_single_stops and is_all_free and packed.max_trips.max() == 1


def make_work(packed: Packed, chains: Chains, rng: Generator, requests: Ints) -> Work:
    """Scratch arrays to move `requests` with; all other nodes stay where they are."""
    shape, num_nodes = chains.node.shape, len(packed.place)
    num_robots = shape[0]
    is_fixed = np.ones(num_nodes, dtype=np.bool_)
    partners = packed.partner[requests]
    is_fixed[requests] = is_fixed[partners[partners >= 0]] = False
    near = proximity(packed, requests)
    count = GRANULAR_NEAR if len(requests) > GRANULAR_FROM else 0
    return Work(
        random=np.array([rng.integers(1, 2**62), 0], dtype=np.int64),
        requests=requests,
        adjacent=nearest(closeness(packed, requests), requests, num_nodes, ADJACENT),
        near=nearest(np.minimum(near, near.T), requests, num_nodes, count),
        is_fixed=is_fixed,
        is_closed=np.zeros(num_robots, dtype=np.bool_),
        penalty=np.zeros(num_nodes),
        absences=np.zeros(num_nodes),
        saved_node=np.zeros(shape, dtype=np.int64),
        saved_length=np.zeros(num_robots, dtype=np.int64),
        saved_price=np.zeros(num_robots),
        touched=np.zeros(num_robots, dtype=np.int64),
        is_touched=np.zeros(num_robots, dtype=np.bool_),
        best_node=np.zeros(shape, dtype=np.int64),
        best_length=np.full(num_robots, 2, dtype=np.int64),
        pool=np.zeros(num_nodes, dtype=np.int64),
        keys=np.zeros(num_nodes),
        was_absent=np.zeros(num_nodes, dtype=np.bool_),
        seen=np.zeros(num_robots, dtype=np.int64),
        tally=np.zeros(2, dtype=np.int64),
    )
