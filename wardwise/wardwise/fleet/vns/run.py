"""The search from start to end: phases, threads, and what is reported.

First every search of the team tries to empty robots; the one with the fewest hands its
plan to the others. Then each anneals the routes of that small fleet, several times with
less heat each, every time from the best plan of all.

Each search has arrays and luck of its own and they meet only at fixed shares of the
work, so that with a limit on iterations the same seed gives the same plan.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.search.ruin import EMPTYING_TEMPERATURE, WORKING_OUT, Cooling
from wardwise.fleet.search.undo import keep
from wardwise.fleet.vns.model import BLOCKED
from wardwise.fleet.vns.moves import NONE, Move
from wardwise.fleet.vns.search import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wardwise.fleet.vns.clock import Clock
    from wardwise.fleet.vns.model import Model

# Below so many requests one search suffices.
TEAM_FROM = 40
TEAM_SIZE = 2
# Share of the work that goes into fewer robots, and the shares at which searches meet.
EMPTYING_SHARE, EMPTYING_MEETINGS = 0.35, 7
# Plans that are then tried, the share of the work by which the last one must be ready, and
# the share of requests that are taken out of the best and placed anew for the next.
NUM_PLANS, PLANS_UNTIL, RELEASED_SHARE = 3, 0.8, 0.3
# Routes over chargers are shortened from more heat on; found by experiment.
SHORTENING = Cooling(start=8.0)
REPORT_EVERY_S = 0.25
# Where plans are judged: meetings while routes of one plan are shortened, and how often a
# plan is mended in a meeting, and in the first one.
JUDGED_MEETINGS, MOST_MENDS, FIRST_MENDS = 5, 4, 40


@dataclass(frozen=True)
class Found:
    """Routes of the robots that leave home, requests nobody serves, and their price."""

    rows: dict[int, list[int]]
    denied: list[int]
    loss: float
    price: float

    def is_better(self, other: Found | None) -> bool:
        """Fewer denials by their price, then robots and metres, or all in money."""
        if other is None:
            return True
        return (self.loss, self.price + 1e-6) < (other.loss, other.price)


class Run:
    """One call of the search.

    Parameters
    ----------
    accept
        Called with every plan that beats all accepted before it, elapsed seconds and
        iteration; returns whether it may count.
    is_judged
        Whether `accept` changes the model when it refuses, so that the plan can be mended.
        It is then called between phases only, when no search is at work.
    rows
        Routes of robots to start with.
    least_robots
        No plan that serves all takes fewer.
    moves, is_cyclic
        Moves of the descent after every shake, and whether shakes are cyclic exchanges.
    """

    def __init__(
        self,
        model: Model,
        clock: Clock,
        seed: int,
        accept: Callable[[Found, float, int], bool],
        *,
        is_judged: bool = False,
        rows: Mapping[int, Sequence[int]] | None = None,
        least_robots: int = 1,
        moves: Move = NONE,
        is_cyclic: bool = False,
    ) -> None:
        self.model, self.clock = model, clock
        self._accept, self._is_judged = accept, is_judged
        size = TEAM_SIZE if model.num_requests >= TEAM_FROM else 1
        seeds = np.random.default_rng(seed).integers(1, 2**62, size)
        self.searches = [Search(model, int(s), moves=moves, is_cyclic=is_cyclic) for s in seeds]
        self.best: Found | None = None
        self._rows, self._least_robots = rows or {}, least_robots
        self.iteration = [0] * size
        self._pace = [1e3] * size
        self._reported_s = 0.0
        self._robot_price = 1.0 + 4.0 * (model.num_requests + 1) * _longest(model)

    def solve(self) -> None:
        """Construct, empty robots, shorten routes, until the clock says stop."""
        first = self.searches[0]
        first.construct(self._rows)
        self._settle(first, FIRST_MENDS)
        for other in self.searches[1:]:
            other.adopt(self.found(first).rows)
        if self.model.num_requests == 0:
            return
        with ThreadPoolExecutor(len(self.searches)) as pool:
            try:
                self._phases(pool)
            except BaseException:
                self.clock.is_stopped = True
                raise

    def _phases(self, pool: ThreadPoolExecutor) -> None:
        if self.model.saves_robots:
            for meeting in range(1, EMPTYING_MEETINGS + 1):
                until = EMPTYING_SHARE * meeting / EMPTYING_MEETINGS
                are_done = self._all(pool, partial(self._empty, until))
                self._meet()
                if any(are_done):
                    break
        begun = max(self.clock.spent(iteration) for iteration in self.iteration)
        turn = max(PLANS_UNTIL - begun, 0.0) / NUM_PLANS
        for number in range(NUM_PLANS):
            if number:
                self._all(pool, partial(self._vary, begun + (number + 0.5) * turn))
            self._shorten_all(pool, begun + (number + 1) * turn, SHORTENING)
            self._meet()
        self._shorten_all(pool, 1.0, WORKING_OUT)
        self._meet()

    def _vary(self, until: float, i: int) -> bool:
        """Go on from another plan that has much in common with the best one."""
        search = self.searches[i]
        search.release(RELEASED_SHARE)
        search.begin_emptying()
        while not search.is_whole() and self.clock.spent(self.iteration[i]) < until:
            self._batch(i, EMPTYING_TEMPERATURE * search.mean_price(), is_emptying=True)
        if search.is_whole():
            keep(search.routes, search.work)
        return True

    def _shorten_all(self, pool: ThreadPoolExecutor, end: float, cooling: Cooling) -> None:
        """Shorten routes in all searches; plans are judged now and then, and mended."""
        begun = [self.clock.spent(iteration) for iteration in self.iteration]
        meetings = JUDGED_MEETINGS if self._is_judged else 1
        for meeting in range(meetings):
            if meeting:
                for search in self.searches:
                    self._settle(search)
            work = partial(self._shorten, begun, end, (meeting + 1) / meetings, cooling)
            self._all(pool, work)

    def _all(self, pool: ThreadPoolExecutor, work: Callable[[int], bool]) -> list[bool]:
        """Let every search work; in a pause between batches the first one reports."""
        futures = [pool.submit(work, i) for i in range(1, len(self.searches))]
        done = [work(0)]
        return done + [future.result() for future in futures]

    def _meet(self) -> None:
        """Everybody goes on from the best plan of all."""
        for search in self.searches:
            self._settle(search)
        best = self.best or self.found(self.searches[0])
        for search in self.searches:
            search.adopt(best.rows)

    def _settle(self, search: Search, most_mends: int = MOST_MENDS) -> None:
        """Have the best plan of a search judged; what is refused is mended."""
        for _ in range(most_mends):
            if self.report(search) or not self._is_judged or self.clock.is_stopped:
                return
            search.work.is_closed[:] = False
            search.construct(self.found(search).rows)

    def _empty(self, until: float, i: int) -> bool:
        """Send robots home one by one; returns whether no more can go."""
        search = self.searches[i]
        search.restore()
        search.work.is_closed[:] = False
        if not search.is_whole():
            # Nobody goes home while somebody waits: all may leave again.
            search.begin_emptying()
        while self.clock.spent(self.iteration[i]) < until:
            if search.is_whole():
                search.reassign()
                keep(search.routes, search.work)
                if i == 0 and not self._is_judged:
                    self.report(search)
                if len(search.used()) <= self._least_robots:
                    return True
                search.close_one()
                search.begin_emptying()
            self._batch(i, EMPTYING_TEMPERATURE * search.mean_price(), is_emptying=True)
        return False

    def _shorten(
        self, begun: Sequence[float], end: float, part: float, cooling: Cooling, i: int
    ) -> bool:
        """Anneal up to a part of the work between `begun` and `end`."""
        search = self.searches[i]
        search.begin_shortening()
        scale = search.mean_price()
        improvements = 0
        while (spent := self.clock.spent(self.iteration[i])) < end:
            share = (spent - begun[i]) / (end - begun[i])
            if share >= part:
                break
            heat = scale * cooling.start * (cooling.end / cooling.start) ** share
            improvements += self._batch(i, heat, is_emptying=False)
            is_due = self.clock.elapsed_s > self._reported_s + REPORT_EVERY_S
            if i == 0 and improvements and is_due and not self._is_judged:
                self.report(search)
                improvements = 0
        return True

    def _batch(self, i: int, temperature: float, *, is_emptying: bool) -> int:
        count = self.clock.batch(self.iteration[i], self._pace[i])
        start = time.perf_counter()
        improvements, done = self.searches[i].run(temperature, count, is_emptying=is_emptying)
        self._pace[i] = 0.5 * (self._pace[i] + done / max(time.perf_counter() - start, 1e-6))
        self.iteration[i] += done
        return improvements

    def found(self, search: Search) -> Found:
        """The best plan of a search."""
        work, model = search.work, self.model
        rows = {
            int(k): [int(v) for v in work.best_node[k, : work.best_length[k]]]
            for k in np.flatnonzero(work.best_length > 2)
        }
        served = {v for row in rows.values() for v in row}
        denied = [v for v in range(1, model.num_requests + 1) if v not in served]
        metres = sum(float(model.distance[row[:-1], row[1:]].sum()) for row in rows.values())
        price = model.metre_price * metres
        price += len(rows) * (self._robot_price if model.saves_robots else model.robot_price)
        loss = float(model.denial_price[denied].sum())
        if model.is_money:
            price, loss = price + loss, 0.0
        return Found(rows, denied, loss, price)

    def report(self, search: Search) -> bool:
        """Keep the best plan of a search if it beats all before it; false if it is refused."""
        found = self.found(search)
        self._reported_s = self.clock.elapsed_s
        if not found.is_better(self.best):
            return True
        if not self._accept(found, self._reported_s, sum(self.iteration)):
            return False
        self.best = found
        return True


def _longest(model: Model) -> float:
    return float(model.distance[model.distance < BLOCKED].max())
