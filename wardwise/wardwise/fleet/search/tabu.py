"""Tabu search over all classical moves, through plans that break windows and loads.

Assembled from Cordeau, Laporte, Mercier 2001 (unified tabu search), Taillard et al.
1997 and Schneider, Stenger, Goeke 2014. It starts from the best construction; the
loop is in `tabu_kernels`, the moves in `tabu_moves` and `tabu_inside`.

Around the loop, where the sources leave the choice open:

* after `TabuParams.patience` iterations without a better plan it goes back to the
  best one, forgets what is tabu, and moves a share of the requests at random;
* requests that no robot serves are tried again with every better plan, and by
  ejection at every such return; with prices in money, what costs more to serve than
  to deny is dropped there;
* where robots cost something, every `TabuParams.reduce_every` iterations the robot
  with fewest stops is emptied by ejection (`tabu_fleet`). For fewest robots, the
  first part of the time empties one after the other through infeasible plans, too;
  the rest shortens the routes of those that are left.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.search.chains import UNSERVED, refresh
from wardwise.fleet.search.construct import best_start, drop_losses, urgency_order
from wardwise.fleet.search.fleet import Fleet, is_better
from wardwise.fleet.search.insertion import plan_weights
from wardwise.fleet.search.neighbours import nearest, proximity
from wardwise.fleet.search.packed import is_request
from wardwise.fleet.search.tabu_fleet import drop_dear, place, reinsert, without_shortest
from wardwise.fleet.search.tabu_kernels import Rule, move_behind, search
from wardwise.fleet.search.tabu_memory import (
    BEST,
    CLOCK,
    IS_DESCENT,
    LAST_GAIN,
    PER_FREQUENCY,
    PER_LOAD,
    PER_SECOND,
    TENURE,
    TOO_MUCH,
    Memory,
)
from wardwise.fleet.search.tabu_routes import NUM_FIELDS, add_up_all, sums_of
from wardwise.fleet.search.undo import keep

if TYPE_CHECKING:
    from numpy.random import Generator

    from wardwise.fleet.search.packed import Ints, Packed
    from wardwise.fleet.search.watch import Watch

REPORT_EVERY_S = 0.25


@dataclass(frozen=True, kw_only=True)
class TabuParams:
    """Constants of the search; weights in prices of a second's driving, or of a load's share.

    Parameters
    ----------
    num_near
        Candidates on each side of a request; ours.
    tenure
        A request may not come back for ``ceil(tenure log10 n)`` iterations; Cordeau,
        Laporte, Mercier 2001.
    start_weight, least_weight, most_weight
        Weights of overload and time warp; after Schneider, Stenger, Goeke 2014.
    growth
        After each iteration weights are multiplied with, or divided by, ``1 + growth``;
        Cordeau, Laporte, Mercier 2001.
    diversification
        Factor of the penalty of frequent attributes in moves that do not improve; the
        same source.
    reduce_every
        Iterations between attempts to send a robot home; ours.
    patience, patience_per_request
        Iterations without a better plan before a new start from the best, the smaller
        of both; found by experiment (usual is 1000).
    shaken_share
        Share of the requests that are then moved at random; found by experiment.
    emptying_share, emptying_patience
        Share of the time in which robots are emptied, when fewest count, and iterations
        in which that must succeed; as in `ruin`, and ours.
    """

    num_near: int = 30
    tenure: float = 7.5
    start_weight: float = 10.0
    least_weight: float = 0.5
    most_weight: float = 5000.0
    growth: float = 0.5
    diversification: float = 0.015
    reduce_every: int = 200
    patience: int = 300
    patience_per_request: int = 3
    shaken_share: float = 0.1
    emptying_share: float = 0.4
    emptying_patience: int = 1000


def tabu(packed: Packed, rng: Generator, watch: Watch) -> None:
    """Improve the best construction until the watch says stop.

    Raises
    ------
    ValueError
        If there are transfers.
    """
    _run(packed, rng, watch, TabuParams())


def rehearse(packed: Packed, rng: Generator, watch: Watch) -> None:
    """Search as `tabu` does, with every part of it in each iteration."""
    _run(packed, rng, watch, TabuParams(patience=1, reduce_every=1, emptying_patience=1))


def _run(packed: Packed, rng: Generator, watch: Watch, params: TabuParams) -> None:
    if (packed.partner >= 0).any():
        raise ValueError("method: 'tabu' plans no transfers; take 'ruin'")
    fleet = best_start(packed, watch)
    if watch.spent() < 1 and fleet.used():
        Tabu(fleet, rng, watch, params).run()


class Tabu:
    """One search: chains, their sums, its memory, and the clock.

    Parameters
    ----------
    fleet
        Where to start; a feasible plan.
    """

    def __init__(self, fleet: Fleet, rng: Generator, watch: Watch, params: TabuParams) -> None:
        packed = fleet.packed
        self._is_fewest = packed.robot_price > 0 and not packed.is_money
        # For fewest robots no idle one is touched, so that distance alone counts.
        self._packed = packed._replace(robot_price=0.0) if self._is_fewest else packed
        self._whole, self._rng, self._watch, self._params = packed, rng, watch, params
        self._fleet = Fleet(self._packed)
        self._sums = sums_of(self._packed, self._fleet.chains)
        self._memory = new_memory(fleet, rng, params)
        self._patience = min(
            params.patience, params.patience_per_request * len(self._memory.tabu_until)
        )
        self._adopt(fleet)
        self._rule = self._set_weights()
        self._next_reduction = params.reduce_every
        self._iterations_per_s, self._reported_s, self._num_restarts = 1e3, 0.0, 0

    @property
    def tally(self) -> Ints:
        """Counters of the search: see `tabu_memory.CLOCK`."""
        return self._memory.tally

    def run(self) -> None:
        """Search until the watch is spent."""
        if self._is_fewest:
            self._empty_robots(self._params.emptying_share)
        while self._watch.spent() < 1:
            if self._iterate():
                self._mend()
                if self._watch.elapsed_s > self._reported_s + REPORT_EVERY_S:
                    self._report()
            if self._memory.tally[CLOCK] >= self._next_reduction:
                self._reduce()
            if self._is_stalled():
                self._restart()
        self._mend(is_thorough=True)
        self._report()

    def _set_weights(self) -> Rule:
        """Scale all weights by what the start costs."""
        packed, chains, memory = self._packed, self._fleet.chains, self._memory
        params, used = self._params, self._fleet.used()
        price = float(chains.price.sum())
        seconds = sum(
            float(packed.travel[place[:-1], place[1:]].sum())
            for place in (chains.place[robot, : chains.length[robot]] for robot in used)
        )
        load = float(packed.load[chains.owner >= 0].sum())
        per_second = price / seconds if price > 0 and seconds > 0 else 1.0
        per_load = price / load if price > 0 and load > 0 else 1.0
        num_served = int((chains.owner >= 0).sum())
        memory.level[PER_SECOND] = params.start_weight * per_second
        memory.level[PER_LOAD] = params.start_weight * per_load
        memory.level[PER_FREQUENCY] = params.diversification * math.sqrt(num_served * len(used))
        memory.tally[TENURE] = math.ceil(params.tenure * math.log10(num_served))
        low, high = params.least_weight, params.most_weight
        return Rule(
            factor=1.0 + params.growth,
            least_per_load=low * per_load,
            most_per_load=high * per_load,
            least_per_second=low * per_second,
            most_per_second=high * per_second,
        )

    def _iterate(self) -> int:
        """Run a batch; returns how often the best plan was improved."""
        memory = self._memory
        count = self._watch.batch(self._iterations_per_s)
        if memory.tally[CLOCK] < self._next_reduction:
            count = min(count, self._next_reduction - int(memory.tally[CLOCK]))
        start = time.perf_counter()
        done, num_gains = search(
            self._packed, self._fleet.chains, self._sums, memory, self._rule, count, self._patience
        )
        elapsed_s = max(time.perf_counter() - start, 1e-6)
        self._iterations_per_s = 0.5 * (self._iterations_per_s + done / elapsed_s)
        self._watch.advance(int(done))
        return int(num_gains)

    def _is_stalled(self) -> bool:
        tally = self._memory.tally
        return bool(tally[CLOCK] - tally[LAST_GAIN] >= self._patience)

    def _best(self) -> Fleet:
        """Best plan, with all prices."""
        memory = self._memory
        rows = enumerate(zip(memory.best_node, memory.best_length, strict=True))
        chains = {robot: row[:length] for robot, (row, length) in rows if length > 2}
        return Fleet.from_chains(self._whole, chains)

    def _adopt(self, plan: Fleet) -> None:
        """Go on from a feasible plan as the best."""
        chains, memory = self._fleet.chains, self._memory
        for mine, theirs in zip(chains, plan.chains, strict=True):
            mine[:] = theirs
        for robot in range(len(chains.length)):
            memory.is_feasible[robot] = refresh(self._packed, chains, robot)
        add_up_all(self._packed, chains, self._sums)
        keep(chains, memory)
        memory.level[BEST] = chains.price.sum()
        memory.tally[LAST_GAIN] = memory.tally[CLOCK]
        memory.tally[IS_DESCENT] = 0
        memory.tabu_until[:], memory.is_dirty[:] = 0, True
        memory.is_closed[:] = self._is_fewest & (chains.length == 2)

    def _restart(self) -> None:
        """Go back to the best plan and disturb it, or try to serve one request more."""
        self._mend(is_thorough=True)
        self._report()
        best = self._best()
        self._adopt(best)
        unserved = best.unserved()
        self._num_restarts += 1
        if unserved and self._num_restarts % 2:
            self._force(int(self._rng.choice(unserved)))
            self._search_feasible(best, until=1.0)
            return
        nodes = np.flatnonzero(self._fleet.chains.owner >= 0)
        times = max(1, round(self._params.shaken_share * len(nodes)))
        for u in self._rng.choice(nodes, times, replace=False):
            self._move_behind(int(u), self._rng.permutation(self._memory.near_before[u]))

    def _force(self, u: int) -> None:
        """Serve a request right behind the nearest one that is served, allowed or not."""
        chains = self._fleet.chains
        for v in self._memory.near_before[u]:
            robot = int(chains.owner[v])
            if robot >= 0:
                row = chains.node[robot, : chains.length[robot]]
                position = int(self._sums.position[v]) + 1
                self._fleet.set_chain(robot, np.insert(row, position, u))
                self._memory.is_feasible[robot] = refresh(self._packed, chains, robot)
                add_up_all(self._packed, chains, self._sums)
                return

    def _search_feasible(self, best: Fleet, until: float) -> bool:
        """Search for a feasible plan from one that is not; go back if it is none better."""
        memory = self._memory
        memory.level[BEST], memory.aspiration[:] = TOO_MUCH, np.inf
        memory.tally[LAST_GAIN] = memory.tally[CLOCK]
        num_gains = 0
        while not num_gains and not self._is_stalled() and self._watch.spent() < until:
            num_gains = self._iterate()
        if num_gains:
            self._mend()
            self._report()
        is_gain = num_gains > 0 and is_better(self._best().score(), best.score())
        if not is_gain:
            self._adopt(best)
        return is_gain

    def _move_behind(self, u: int, candidates: Ints) -> None:
        """Move a request right behind the first served candidate, allowed or not."""
        served = candidates[self._fleet.chains.owner[candidates] >= 0]
        if len(served):
            move_behind(
                self._packed, self._fleet.chains, self._sums, self._memory, u, int(served[0])
            )

    def _mend(self, *, is_thorough: bool = False) -> None:
        """Serve more in the best plan, drop what costs too much, avoid lateness."""
        whole, best = self._whole, self._best()
        if not (best.unserved() or whole.is_money or whole.is_soft):
            return
        plan, weights = best.copy(), plan_weights(whole)
        plan.serve(urgency_order(whole))
        if whole.is_money:
            drop_losses(plan)
            drop_dear(whole, plan.chains)
        elif is_thorough:
            for node in urgency_order(whole):
                if plan.chains.owner[node] == UNSERVED:
                    place(whole, plan.chains, weights, node)
        if whole.is_soft:
            reinsert(whole, plan.chains, weights)
        if is_better(plan.score(), best.score()):
            self._memory.aspiration[:] = np.inf  # plans that serve others do not compare
            self._adopt(plan)

    def _report(self) -> None:
        """Tell the watch of the best plan."""
        self._watch.improve(self._best())
        self._reported_s = self._watch.elapsed_s

    def _reduce(self) -> None:
        """Try to send the robot with fewest stops home, where robots cost something."""
        memory = self._memory
        self._next_reduction = int(memory.tally[CLOCK]) + self._params.reduce_every
        if self._whole.robot_price == 0:
            return
        best = self._best()
        plan = best
        if memory.is_feasible.all():
            rows = enumerate(zip(self._fleet.chains.node, self._fleet.chains.length, strict=True))
            plan = Fleet.from_chains(self._whole, {r: row[:n] for r, (row, n) in rows if n > 2})
        smaller = without_shortest(plan, self._rng)
        if smaller is not None and is_better(smaller.score(), best.score()):
            memory.aspiration[:] = np.inf
            self._adopt(smaller)
            self._watch.improve(smaller)

    def _empty_robots(self, until: float) -> None:
        """Send robots home through infeasible plans until a share of the watch is spent."""
        memory, failures, patience = self._memory, 0, self._patience
        self._patience = self._params.emptying_patience
        while self._watch.spent() < until:
            best = self._best()
            used = sorted(best.used(), key=lambda robot: len(best.stops(robot)))
            if len(used) < 2:
                break
            robot = used[failures % len(used)]
            memory.is_closed[robot] = True
            for u in best.stops(robot):
                near = memory.near_before[u]
                self._move_behind(u, near[self._fleet.chains.owner[near] != robot])
            is_emptied = self._search_feasible(best, until)
            failures = 0 if is_emptied else failures + 1
        self._patience = patience


def new_memory(fleet: Fleet, rng: Generator, params: TabuParams) -> Memory:
    """Empty memory for plans of the size of `fleet`."""
    packed, shape = fleet.packed, fleet.chains.node.shape
    num_robots, num_nodes = shape[0], len(packed.place)
    nodes = np.flatnonzero(is_request(packed))
    cost = proximity(packed, nodes)
    kinds = np.stack([packed.capacity, packed.start, packed.end, packed.max_trips], axis=1)
    gaps = (2, params.num_near + num_nodes + num_robots)
    return Memory(
        near_before=nearest(cost.T, nodes, num_nodes, params.num_near),
        near_after=nearest(cost, nodes, num_nodes, params.num_near),
        tabu_until=np.zeros((num_nodes, num_robots), dtype=np.int64),
        aspiration=np.full((num_nodes, num_robots), np.inf),
        frequency=np.zeros((num_nodes, num_robots)),
        kind=np.unique(kinds, axis=0, return_inverse=True)[1].reshape(num_robots).astype(np.int64),
        is_closed=np.zeros(num_robots, dtype=np.bool_),
        is_dirty=np.ones(num_robots, dtype=np.bool_),
        is_feasible=np.ones(num_robots, dtype=np.bool_),
        penalty=np.zeros(num_robots),
        level=np.zeros(6),
        tally=np.zeros(7, dtype=np.int64),
        trial=np.zeros(7, dtype=np.int64),
        proposal=np.zeros(7, dtype=np.int64),
        effect=np.zeros(4),
        random=np.array([rng.integers(1, 2**62), 0], dtype=np.int64),
        gap=np.zeros((*gaps, 4), dtype=np.int64),
        gap_value=np.zeros((*gaps, 2)),
        front=np.zeros((num_nodes + num_robots, 2), dtype=np.int64),
        row=np.zeros((2, shape[1] + 2), dtype=np.int64),
        run=np.zeros((1, 1, NUM_FIELDS)),
        best_node=np.zeros(shape, dtype=np.int64),
        best_length=np.full(num_robots, 2, dtype=np.int64),
    )
