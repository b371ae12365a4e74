"""What it is worth to reckon with luck, and to know it beforehand.

Three costs on the same days, with late service allowed at its price: of the plan for mean
times, of the plan with a promise, and of a new plan for each day made when its times are
known (wait and see), which no plan made beforehand can beat on average.

Luck belongs to a request: the way to it, its service and the way home after it. So a day
whose luck is known is an instance without randomness.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.chance.luck import Aim, Purpose, Stream, key_of, uniforms
from wardwise.fleet.check import check
from wardwise.fleet.problem import Costs
from wardwise.fleet.randomness import Randomness
from wardwise.fleet.solvers import solve, warm_up

from .judge import JUDGE_SEED
from .plans import punctual, stochastic, timed

if TYPE_CHECKING:
    from pathlib import Path

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

DEPOT = 0
NUM_DAYS = 20
PRICES = (1.0, 10.0, 100.0)  # of a second late; a robot costs 100, a metre 1
NUM_REQUESTS = 25  # the usual smaller part of a Solomon file
# A day lasts as long as it takes; what is late is paid for.
MOST_S = 1e5
ANY_PRICE = (1e6, 1e6, 1e6)


class Found(NamedTuple):
    """Mean costs of a day in money, robots included.

    `wait_and_see` takes the cheapest plan known for each day, `searched` the one that was
    found when its times were known.
    """

    mean_value: float
    promise: float
    wait_and_see: float
    searched: float


def costs(path: Path, price: float, seconds: float, seed: int, num_days: int) -> Found:
    """Costs of the three on the first customers of a file at a price of delay.

    Each plan has so many CPU seconds.
    """
    warm_up()
    instance = part(stochastic(path), NUM_REQUESTS, price)
    soft = softened(instance)
    for_means = solve(soft, objective="cost", time_limit=seconds, seed=seed)
    kept = punctual(instance, "cost", seconds, seed)
    by_day = []
    for number in range(num_days):
        day = day_of(soft, number, JUDGE_SEED)
        plans = (for_means, kept, solve(day, objective="cost", time_limit=seconds, seed=seed))
        by_day.append([cost_of(day, plan) for plan in plans])
    first, second, found = np.array(by_day).mean(axis=0)
    # A search that misses the best plan of a day does not move the bound above what is known.
    bound = mean(min(costs) for costs in by_day)
    return Found(float(first), float(second), bound, float(found))


def part(instance: Instance, count: int, price: float) -> Instance:
    """The first requests of an instance, a second late at a price; nobody is turned down."""
    costs = Costs(per_denial=ANY_PRICE, lateness_per_s=(price, price, price))
    return replace(instance, requests=instance.requests[:count], costs=costs)


def softened(instance: Instance) -> Instance:
    """The same where any lateness is allowed at its price."""
    requests = tuple(replace(request, tolerance_s=MOST_S) for request in instance.requests)
    robots = tuple(replace(robot, end_s=MOST_S) for robot in instance.robots)
    return replace(instance, requests=requests, robots=robots)


def day_of(instance: Instance, number: int, seed: int) -> Instance:
    """The instance as it is on one random day; every request has a place of its own."""
    law = instance.randomness or Randomness()

    def factor(purpose: Purpose, aim: Aim, request: str) -> float:
        spread = law.travel if purpose is Purpose.DRIVE else law.service
        first = number - number % 4
        key = key_of(Stream(purpose, aim, 0, request), seed)
        return float(spread.quantile(uniforms(key, first, 4)[number - first]))

    travel_s = instance.travel_s.copy()
    requests = []
    for request in instance.requests:
        place = instance.place_index[request.place]
        travel_s[:, place] *= factor(Purpose.DRIVE, Aim.STOP, request.id)
        travel_s[place, DEPOT] *= factor(Purpose.DRIVE, Aim.HOME, request.id)
        service_s = request.service_s * factor(Purpose.SERVICE, Aim.STOP, request.id)
        requests.append(replace(request, service_s=service_s))
    return replace(instance, requests=tuple(requests), travel_s=travel_s, randomness=None)


def cost_of(day: Instance, plan: Plan) -> float:
    """Money that the routes of a plan cost on a day, judged by the referee."""
    report = check(day, timed(day, plan))
    if not report.is_feasible:
        raise ValueError(f"{day.name}: {report.violations[0].message}; give each plan more time")
    return report.cost.total
