"""The variable neighbourhood search: fewest robots first, then the shortest routes.

One `Search` holds routes and scratch arrays. It serves all requests with as many robots
as it takes, empties one robot after the other with absence counters, and then anneals:
shake, improve, keep or take back (`anneal`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.search.ruin import ABSENCE_PRICE, DENIAL_WEIGHT
from wardwise.fleet.search.undo import forget, keep
from wardwise.fleet.vns.anneal import anneal
from wardwise.fleet.vns.edits import make_edit
from wardwise.fleet.vns.labels import empty_routes, refresh
from wardwise.fleet.vns.model import BLOCKED
from wardwise.fleet.vns.moves import NONE, Move
from wardwise.fleet.vns.punctual import is_row_punctual
from wardwise.fleet.vns.reassign import fewer_robots
from wardwise.fleet.vns.ruin import close_gaps, recreate
from wardwise.fleet.vns.slots import FIRST_PRICE, late_by_queues
from wardwise.fleet.vns.stations import make_placing, tidy
from wardwise.fleet.vns.undo import make_work, restore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wardwise.fleet.search.packed import Floats, Ints
    from wardwise.fleet.vns.labels import Routes
    from wardwise.fleet.vns.model import Model


class Search:
    """One search: routes, scratch arrays, and its luck."""

    def __init__(
        self, model: Model, seed: int, *, moves: Move = NONE, is_cyclic: bool = False
    ) -> None:
        self.model = model
        self.routes = empty_routes(model)
        self.work = make_work(model, self.routes, seed)
        self.placing = make_placing(model, self.routes.node.shape[1])
        self.state: Floats = np.zeros(6)
        self.state[4] = FIRST_PRICE
        self.edit = make_edit(self.routes, len(Move))
        self.moves, self.is_cyclic = int(moves), is_cyclic

    def construct(self, rows: Mapping[int, Sequence[int]]) -> None:
        """Insert all requests, the most urgent first; a robot leaves home where none fits.

        Parameters
        ----------
        rows
            Routes to start with; those that keep no promise are driven anew.
        """
        model, routes, work = self.model, self.routes, self.work
        self.adopt({robot: row for robot, row in rows.items() if self._is_promised(robot, row)})
        work.penalty[:] = model.denial_price
        absent = self.absent()
        order = absent[np.lexsort((model.latest[absent], -model.denial_price[absent]))]
        work.pool[: len(order)] = order
        work.was_absent[: len(order)] = True
        # In the price of money a robot has its own; else only what fits nowhere opens one.
        pricey = model if model.is_money else model._replace(robot_price=self._above_all())
        recreate(pricey, routes, work, self.placing, len(order), 0.0, 0.0)
        forget(work)
        for k in range(len(routes.length)):
            refresh(model, routes, k)
        keep(routes, work)

    def _is_promised(self, robot: int, row: Sequence[int]) -> bool:
        self.routes.row[: len(row)] = row
        return not self.model.has_promise or bool(
            is_row_punctual(self.model, self.routes, robot, len(row))
        )

    def _above_all(self) -> float:
        distance = self.model.distance
        return 1.0 + 4.0 * self.model.num_requests * float(distance[distance < BLOCKED].max())

    def absent(self) -> Ints:
        """Requests that nobody serves now."""
        return np.flatnonzero(self.routes.owner[1 : self.model.num_requests + 1] < 0) + 1

    def queued(self) -> float:
        """Seconds by which queues for slots make robots late now."""
        if not self.model.has_slots:
            return 0.0
        return float(late_by_queues(self.model, self.routes, self.work))

    def is_whole(self) -> bool:
        """Whether every request is served, and queues make nobody late."""
        return len(self.absent()) == 0 and self.queued() == 0.0

    def used(self) -> list[int]:
        """Robots that leave home."""
        return [int(k) for k in np.flatnonzero(self.routes.length > 2)]

    def cost(self) -> float:
        """Money of all routes."""
        return float(self.routes.price.sum())

    def mean_price(self) -> float:
        """Money of all routes, per request."""
        return self.cost() / max(1, self.model.num_requests)

    def close_one(self) -> None:
        """Send home the robot whose requests were easiest to place so far, and all idle ones."""
        robot = min(self.used(), key=self._hardness)
        routes, work = self.routes, self.work
        empty(routes, robot)
        refresh(self.model, routes, robot)
        work.is_closed[:] = routes.length == 2

    def reassign(self) -> None:
        """Give the trips of a plan that serves all to fewer robots where they suffice."""
        routes = self.routes
        if len(self.used()) < 2 or int(self.model.max_trips.max()) == 1:
            return
        rows = {k: [int(v) for v in routes.node[k, : routes.length[k]]] for k in self.used()}
        found = fewer_robots(self.model, rows)
        if found is not None:
            self.adopt(found)
            if not self.is_whole():
                # The trips meet others at stations at other times.
                self.adopt(rows)

    def _hardness(self, robot: int) -> tuple[float, int]:
        served = np.flatnonzero(self.routes.owner == robot)
        return float(self.work.absences[served].sum()), len(served)

    def begin_emptying(self) -> None:
        """Absence counters rule from now on."""
        self.work.penalty[:] = 0.0
        absent = self.absent()
        self.state[:4] = self.cost(), self.cost(), len(absent), len(absent)
        self.state[5] = self.queued()

    def restore(self) -> None:
        """Go back to the best plan."""
        restore(self.model, self.routes, self.work)

    def adopt(self, rows: Mapping[int, Sequence[int]]) -> None:
        """Make the routes of another search the best of this one, and go on from there."""
        self.work.best_length[:] = 2
        self.work.best_node[:, :2] = 0
        for robot, row in rows.items():
            self.work.best_length[robot] = len(row)
            self.work.best_node[robot, : len(row)] = row
        self.restore()

    def release(self, share: float) -> None:
        """Take a share of the requests out at random; idle robots stay at home."""
        routes, work = self.routes, self.work
        work.is_closed[:] = routes.length == 2
        served = np.flatnonzero(routes.owner >= 0)
        luck = np.random.default_rng(int(work.random[0] & (2**62 - 1)))
        for v in luck.choice(served, round(share * len(served)), replace=False):
            routes.owner[v] = -1
        for robot in self.used():
            close_gaps(self.model, routes, robot)
            if not refresh(self.model, routes, robot):
                empty(routes, robot)
                refresh(self.model, routes, robot)
            tidy(self.model, routes, robot)

    def begin_shortening(self) -> None:
        """Shorten the routes of the robots that are in use now, from the best plan."""
        model, work = self.model, self.work
        self.restore()
        absent = self.absent()
        work.is_closed[:] = False
        if model.saves_robots:
            work.is_closed[:] = self.routes.length == 2
        # Any plan in time beats one that queues make late, also one that denies more.
        is_late = self.queued() > 0.0
        if model.is_money:
            work.penalty[:] = model.denial_price
        elif len(absent) and not is_late:
            work.penalty[:] = DENIAL_WEIGHT * (1.0 + self.cost()) * model.denial_price
        else:
            work.penalty[:] = ABSENCE_PRICE * self.mean_price()
        cost = self.cost() + float(work.penalty[absent].sum())
        most = model.num_requests if model.is_money or is_late else len(absent)
        self.state[5] = self.queued()
        best = np.inf if is_late else cost
        self.state[:4] = cost, best, len(absent), most

    def run(self, temperature: float, iterations: int, *, is_emptying: bool) -> tuple[int, int]:
        """Iterations at one temperature; improvements of the best and iterations that ran."""
        improvements, done = anneal(
            self.model, self.routes, self.work, self.edit, self.placing, self.state,
            temperature, is_emptying, self.moves or None, self.is_cyclic or None, iterations,
        )  # fmt: skip
        return int(improvements), int(done)


def empty(routes: Routes, robot: int) -> None:
    """Send a robot home; labels are left as they were."""
    routes.owner[routes.owner == robot] = -1
    routes.length[robot] = 2
    routes.node[robot, 1] = 0
