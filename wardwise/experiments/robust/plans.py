"""Plans by every method: ours under a promise, the others on inflated times.

A deterministic planner gets a margin by the usual recipe: every leg and every service
takes 1 + z cv of its mean. Where that puts a request out of everyone's reach, its window
and the shifts are stretched to what a robot of its own needs, so that there is a plan at
all; punctual or not is judged with the true windows.

A request that a robot of its own misses too often cannot be promised by anyone. Ours
promises it what the worst of them can have, and all others the share asked for.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

import numpy as np
from scipy.special import gammaincc

from benchmarks.peers import by_alns, by_pyvrp, ours
from benchmarks.peers.found import HIERARCHICAL, best_within
from benchmarks.peers.numbers import THOUSANDTHS, numbers, to_plan
from wardwise.fleet.randomness import Promise, Randomness
from wardwise.fleet.schedule import schedule
from wardwise.fleet.solvers import solve, warm_up
from wardwise.fleet.vns import solve as search
from wardwise.fleet.vns.clock import Clock
from wardwise.io import read_instance

if TYPE_CHECKING:
    from pathlib import Path

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance


@dataclass
class CpuClock(Clock):
    """Counts the CPU time of all threads of our team together, as the peers' is counted."""

    _start: float = field(default_factory=time.process_time)

    @property
    def elapsed_s(self) -> float:
        """CPU seconds since the start."""
        return time.process_time() - self._start


OURS = "ours"
PEERS = {"pyvrp": by_pyvrp.run, "alns": by_alns.run}
OUR_METHODS = ("tabu", "insertion")  # on inflated times, as the peers
LATE_SHARE = 0.05
# A class promise leaves room for the bound of its certificate.
ROOM = 0.02
# Peers round times up to a thousandth: what is stretched has room for it.
ROUNDING_S = 0.01
# Fleets of the files may be too small for plans with margins.
NUM_ROBOTS = 50


class Task(NamedTuple):
    """One plan: a file, a method, z (none of ours), CPU seconds and a seed."""

    path: Path
    method: str
    inflation: float | None
    seconds: float
    seed: int


def stochastic(path: Path) -> Instance:
    """A file of the literature with gamma legs and services, cv 0.2, and robots enough."""
    instance = read_instance(path)
    robot = instance.robots[0]
    robots = tuple(replace(robot, id=str(k + 1)) for k in range(NUM_ROBOTS))
    return replace(instance, robots=robots, randomness=Randomness())


def inflated(instance: Instance, z: float) -> Instance:
    """The same with longer legs and services, and windows stretched where nobody is in time."""
    law = instance.randomness or Randomness()
    travel_s = instance.travel_s * (1 + z * law.travel.cv)
    requests, end_s = [], instance.robots[0].end_s
    for request in instance.requests:
        place = instance.place_index[request.place]
        service_s = request.service_s * (1 + z * law.service.cv)
        arrival_s = instance.robots[0].start_s + travel_s[0, place] + ROUNDING_S
        requests.append(replace(request, due_s=max(request.due_s, arrival_s), service_s=service_s))
        start_s = max(arrival_s, request.ready_s)
        end_s = max(end_s, start_s + service_s + travel_s[place, 0] + ROUNDING_S)
    robots = tuple(replace(robot, end_s=end_s) for robot in instance.robots)
    return replace(instance, requests=tuple(requests), robots=robots, travel_s=travel_s)


def late_alone(instance: Instance) -> dict[str, float]:
    """Probability that a robot of its own is late at each request; legs are gamma."""
    cv = (instance.randomness or Randomness()).travel.cv
    robot = instance.robots[0]
    places = [instance.place_index[request.place] for request in instance.requests]
    due_s = np.array([request.latest_s for request in instance.requests]) - robot.start_s
    shape = cv**-2
    late = gammaincc(shape, shape * due_s / instance.travel_s[0, places])
    return dict(zip((request.id for request in instance.requests), map(float, late), strict=True))


def promised(instance: Instance, late_share: float = LATE_SHARE) -> Instance:
    """The same with a promise; requests out of its reach form a class of their own."""
    alone = late_alone(instance)
    out_of_reach = {name for name, share in alone.items() if share > late_share}
    worst = max((alone[name] for name in out_of_reach), default=late_share - ROOM)
    first = min(0.5, math.ceil(100 * (worst + ROOM)) / 100)
    requests = tuple(
        replace(request, priority=1 if request.id in out_of_reach else 3)
        for request in instance.requests
    )
    promise = Promise(late_share=(first, late_share, late_share), return_share=late_share)
    return replace(instance, requests=requests, promise=promise)


def make(task: Task) -> Plan | None:
    """The plan of a task with the times of the mean day; none where none was found."""
    instance = stochastic(task.path)
    if task.method == OURS:
        return punctual(instance, "hierarchical", task.seconds, task.seed)
    assert task.inflation is not None
    longer = inflated(instance, task.inflation)
    if task.method in OUR_METHODS:
        plan, _ = ours.run(longer, task.method, HIERARCHICAL, task.seconds, task.seed)
        return None if plan.denied else timed(instance, plan)
    run = PEERS[task.method]
    found = run(numbers(longer, THOUSANDTHS), HIERARCHICAL, [task.seconds], task.seed)
    best = best_within(found[task.seconds], task.seconds, HIERARCHICAL)
    return None if best is None else to_plan(instance, best.routes)


def punctual(instance: Instance, objective: str, seconds: float, seed: int) -> Plan:
    """Our plan under the promise, after so many CPU seconds of all threads."""
    warm_up("vns")
    kept = promised(instance)
    with patch.object(search, "Clock", CpuClock):
        return solve(kept, method="vns", objective=objective, time_limit=seconds, seed=seed)


def timed(instance: Instance, plan: Plan) -> Plan:
    """The routes of a plan with the times of another day.

    Raises
    ------
    ScheduleError
        If they cannot be driven on that day.
    """
    return schedule(instance, routes_of(plan))


def routes_of(plan: Plan) -> dict[str, list[list[str]]]:
    """Requests of each trip of each robot."""
    return {
        robot: [[stop.request for stop in trip.stops] for trip in trips]
        for robot, trips in plan.trips_by_robot().items()
    }
