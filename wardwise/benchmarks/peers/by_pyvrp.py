"""PyVRP on a plain instance, on one thread, called without our adapter.

Its search has no schedule that depends on the time limit (late acceptance over
a fixed history, restart after a fixed number of iterations), so for the
distance one run is read at every budget.

Fewest vehicles: of the ways tried on R110, R211, RC106, RC207 and R202 (a fixed
cost of 10^3, 10^4 or 10^5 a vehicle; a fixed cost first, then the distance of
that fleet; PyVRP's own `minimise_fleet`), reducing the number of available
vehicles in steps, as `minimise_fleet` does, for half the time and then the
distance of that fleet was best everywhere. We also hand the solution found on as
a start, which `minimise_fleet` throws away. This needs a run for each budget.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pyvrp
from pyvrp.stop import FirstFeasible, MultipleCriteria

from .found import DISTANCE, Log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .found import Found
    from .numbers import Numbers, Routes

FLEET_SHARE = 0.5


def run(
    numbers: Numbers, objective: str, budgets: Sequence[float], seed: int
) -> dict[float, list[Found]]:
    """Feasible solutions for each budget, with the CPU seconds at which they were found."""
    with warnings.catch_warnings():
        # Penalties at their bound say that the model is tight; the plan is judged in any case.
        warnings.simplefilter("ignore", pyvrp.exceptions.PenaltyBoundWarning)
        if objective == DISTANCE:
            log = Log()
            search(model(numbers, numbers.num_robots), log, max(budgets), seed)
            return dict.fromkeys(budgets, log.found)
        return {budget: _fewest(numbers, budget, seed) for budget in budgets}


def model(numbers: Numbers, num_vehicles: int) -> pyvrp.ProblemData:
    """Translate the instance."""
    nodes = range(1, len(numbers.load))
    clients = [
        pyvrp.Client(
            location=node,
            pickup=[numbers.load[node]],
            service_duration=numbers.service[node],
            tw_early=numbers.ready[node],
            tw_late=numbers.due[node],
        )
        for node in nodes
    ]
    vehicles = pyvrp.VehicleType(
        num_available=num_vehicles,
        capacity=[numbers.capacity],
        tw_early=numbers.ready[0],
        tw_late=numbers.due[0],
    )
    locations = [pyvrp.Location(0, 0) for _ in numbers.load]
    return pyvrp.ProblemData(
        locations, clients, [pyvrp.Depot(0)], [vehicles], [numbers.distance], [numbers.travel]
    )


def search(
    data: pyvrp.ProblemData,
    log: Log,
    until_s: float,
    seed: int,
    *,
    start: pyvrp.Solution | None = None,
    stop: Callable[[float], bool] = lambda _cost: False,
) -> pyvrp.Solution:
    """Search until that many CPU seconds of the log are over; returns the best solution."""

    class Note(pyvrp.IteratedLocalSearchCallbacks):
        """Logs every feasible improvement."""

        def on_start(self, ils: Any) -> None:
            self.on_best(ils.initial_solution)

        def on_best(self, best: pyvrp.Solution) -> None:
            if best.is_feasible():
                log.add(routes_of(best), best.distance())

    params = pyvrp.SolveParams(ils=pyvrp.IteratedLocalSearchParams(callbacks=Note()))
    either = MultipleCriteria([lambda _cost: log.cpu_s >= until_s, stop])
    return pyvrp.solve(
        data, either, seed=seed, collect_stats=False, params=params, initial_solution=start
    ).best


def routes_of(solution: pyvrp.Solution) -> Routes:
    """Nodes of each route; client i stands for node i + 1."""
    return [[visit.idx + 1 for visit in route if visit.is_client()] for route in solution.routes()]


def _fewest(numbers: Numbers, budget_s: float, seed: int) -> list[Found]:
    """Take vehicles away for half the time, then shorten the routes of the smallest fleet."""
    log = Log()
    best = None
    num_vehicles = numbers.num_robots
    lower_bound = -(-sum(numbers.load) // numbers.capacity)
    while num_vehicles >= lower_bound and log.cpu_s < FLEET_SHARE * budget_s:
        data = model(numbers, num_vehicles)
        tried = search(data, log, FLEET_SHARE * budget_s, seed, stop=FirstFeasible())
        if not tried.is_feasible():
            break
        best, num_vehicles = tried, tried.num_routes() - 1
    if best is None:
        search(model(numbers, numbers.num_robots), log, budget_s, seed)
        return log.found
    data = model(numbers, best.num_routes())
    routes = [[node - 1 for node in route] for route in routes_of(best)]
    search(data, log, budget_s, seed, start=pyvrp.Solution(data, routes))
    return log.found
