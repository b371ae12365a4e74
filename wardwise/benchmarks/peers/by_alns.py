"""ALNS 7.0 on a plain instance, with the usual operators for time windows written for it.

The package brings the loop, the choice of operators and the acceptance; operators are its
user's. Ours take out stops at random, strings of neighbouring stops, or a whole route, and
put each request back where it adds least, hardest first by one of three orders; who finds
no place gets a route of its own. Places are tested in constant time by the earliest and
the latest start at every stop. A route costs as much as a thousand units of distance.

Operators are chosen by roulette, and candidates accepted up to a gap over the best that
falls from two per cent to none over the iterations that the time is good for.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from alns import ALNS
from alns.accept import RecordToRecordTravel
from alns.select import RouletteWheel

from .found import Log
from .numbers import length

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.random import Generator

    from .found import Found
    from .numbers import Numbers

PER_ROUTE = 1000  # units of distance
MOST_REMOVED = 20
LONGEST_STRING = 10
# Scores of a new best, a better, an accepted and a rejected plan, and how fast they fade:
# those of the package's own examples.
SCORES, DECAY = [25, 5, 1, 0], 0.8
START_GAP = 0.02
PROBES = 20  # iterations by which the pace is measured


class Tour:
    """One route with the earliest and the latest start at its stops, depot at both ends."""

    def __init__(self, day: Day, nodes: Sequence[int]) -> None:
        self.nodes = list(nodes)
        way = [0, *nodes, 0]
        travel, service, ready, due = day.travel, day.service, day.ready, day.due
        self.early = [ready[0]]
        for here, there in pairwise(way):
            arrival = self.early[-1] + service[here] + travel[here][there]
            self.early.append(max(ready[there], arrival))
        self.late = [due[0]]
        for here, there in zip(way[-2::-1], way[:0:-1], strict=True):
            self.late.append(min(due[here], self.late[-1] - travel[here][there] - service[here]))
        self.late.reverse()
        self.load = sum(day.load[node] for node in nodes)


class Day:
    """The instance as lists, which Python reads faster than arrays."""

    def __init__(self, numbers: Numbers) -> None:
        self.travel = numbers.travel.tolist()
        self.distance = numbers.distance.tolist()
        self.service, self.ready, self.due = numbers.service, numbers.ready, numbers.due
        self.load, self.capacity = numbers.load, numbers.capacity
        self.per_route = PER_ROUTE * numbers.scale
        self.near = np.argsort(numbers.distance[:, 1:], axis=1) + 1

    def best_place(self, tours: Sequence[Tour], node: int) -> tuple[int, Tour, int] | None:
        """Added distance, route and position of the cheapest feasible place."""
        best = None
        travel, distance, service = self.travel, self.distance, self.service
        ready, due, load = self.ready[node], self.due[node], self.load[node]
        to_node, from_node = travel[node], distance[node]
        for tour in tours:
            if tour.load + load > self.capacity:
                continue
            here = 0
            for at, there in enumerate([*tour.nodes, 0]):
                start = tour.early[at] + service[here] + travel[here][node]
                if start > due:
                    break  # later places are reached later still
                start = max(start, ready)
                if start + service[node] + to_node[there] <= tour.late[at + 1]:
                    more = distance[here][node] + from_node[there] - distance[here][there]
                    if best is None or more < best[0]:
                        best = more, tour, at
                here = there
        return best


class Plan:
    """A state of the search: routes, and requests that are out."""

    def __init__(self, day: Day, tours: list[Tour], out: list[int]) -> None:
        self.day, self.tours, self.out = day, tours, out

    def objective(self) -> float:
        """Routes and distance in one number; called when nobody is out."""
        metres = self.day.distance
        ways = ([0, *tour.nodes, 0] for tour in self.tours)
        driven = sum(metres[a][b] for way in ways for a, b in pairwise(way))
        return float(self.day.per_route * len(self.tours) + driven)

    def without(self, removed: set[int]) -> Plan:
        """The rest after some requests are taken out."""
        tours = []
        for tour in self.tours:
            rest = [node for node in tour.nodes if node not in removed]
            if len(rest) == len(tour.nodes):
                tours.append(tour)
            elif rest:
                tours.append(Tour(self.day, rest))
        return Plan(self.day, tours, [*removed])


def remove_random(plan: Plan, rng: Generator) -> Plan:
    """Take out stops anywhere."""
    nodes = np.array([node for tour in plan.tours for node in tour.nodes])
    count = min(len(nodes), int(rng.integers(1, MOST_REMOVED + 1)))
    return plan.without({*rng.choice(nodes, count, replace=False).tolist()})


def remove_strings(plan: Plan, rng: Generator) -> Plan:
    """Take strings out of the routes that pass a place."""
    route_of = {node: tour for tour in plan.tours for node in tour.nodes}
    centre = int(rng.choice([*route_of]))
    removed: set[int] = set()
    ruined: set[int] = set()
    for node in plan.day.near[centre].tolist():
        tour = route_of[node]
        if id(tour) in ruined:
            continue
        size = int(rng.integers(1, min(LONGEST_STRING, len(tour.nodes)) + 1))
        first = int(
            rng.integers(
                max(0, tour.nodes.index(node) - size + 1),
                min(tour.nodes.index(node), len(tour.nodes) - size) + 1,
            )
        )
        removed.update(tour.nodes[first : first + size])
        ruined.add(id(tour))
        if len(removed) >= MOST_REMOVED:
            break
    return plan.without(removed)


def remove_route(plan: Plan, rng: Generator) -> Plan:
    """Take out a whole route."""
    return plan.without({*plan.tours[int(rng.integers(len(plan.tours)))].nodes})


def repair(plan: Plan, rng: Generator, order: Callable[[Day, int], float] | None) -> Plan:
    """Put every request back where it is cheapest; smaller keys first, or at random."""
    day, tours = plan.day, [*plan.tours]
    waiting = rng.permutation(plan.out).tolist()
    if order is not None:
        waiting.sort(key=lambda node: order(day, node))
    for node in waiting:
        place = day.best_place(tours, node)
        if place is None:
            tours.append(Tour(day, [node]))
            continue
        _, tour, at = place
        longer = Tour(day, [*tour.nodes[:at], node, *tour.nodes[at:]])
        tours[next(k for k, other in enumerate(tours) if other is tour)] = longer
    return Plan(day, tours, [])


ORDERS: dict[str, Callable[[Day, int], float] | None] = {
    "at_random": None,
    "narrow_first": lambda day, node: day.due[node] - day.ready[node],
    "far_first": lambda day, node: -day.distance[0][node],
}


def run(
    numbers: Numbers, objective: str, budgets: Sequence[float], seed: int
) -> dict[float, list[Found]]:
    """Solutions for each budget, with the CPU seconds at which they were found.

    The acceptance follows the longest budget. `objective` must be fewest vehicles first.
    """
    assert objective == "hierarchical"
    log = Log()
    rng = np.random.default_rng(seed)
    search = ALNS(rng)
    for operator in (remove_random, remove_strings, remove_route):
        search.add_destroy_operator(operator)
    for name, order in ORDERS.items():
        search.add_repair_operator(
            lambda state, rng, order=order: repair(state, rng, order), name=name
        )
    day = Day(numbers)
    plan = repair(Plan(day, [], list(range(1, len(numbers.load)))), rng, ORDERS["narrow_first"])
    keep(log, numbers, plan)
    begin_s = log.cpu_s
    for _ in range(PROBES):
        repair(remove_random(plan, rng), rng, None)
    pace_s = (log.cpu_s - begin_s) / PROBES
    num_iterations = max(1, round((max(budgets) - log.cpu_s) / pace_s))
    accept = RecordToRecordTravel.autofit(plan.objective(), START_GAP, 0.0, num_iterations)
    search.on_best(lambda state, _rng: keep(log, numbers, state))
    select = RouletteWheel(SCORES, DECAY, 3, len(ORDERS))
    search.iterate(plan, select, accept, lambda _rng, _best, _current: log.cpu_s >= max(budgets))
    return dict.fromkeys(budgets, log.found)


def keep(log: Log, numbers: Numbers, plan: Plan) -> None:
    """Note a plan as found now."""
    routes = [tour.nodes for tour in plan.tours]
    log.add(routes, length(numbers, routes))
