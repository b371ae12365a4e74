"""OR-Tools routing on a plain instance: guided local search, which runs on one thread.

The search has no schedule that depends on the time limit, so one run is read at
every budget. It is stopped by CPU time from its own solution callback; the
limit in wall time only guards against a search that finds nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ortools.constraint_solver import pywrapcp
from ortools.constraint_solver.routing_enums_pb2 import FirstSolutionStrategy as First
from ortools.constraint_solver.routing_enums_pb2 import LocalSearchMetaheuristic as Meta

from .found import DISTANCE, HIERARCHICAL, Log
from .numbers import length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .found import Found
    from .numbers import Numbers

# Distance units that a vehicle costs when the fewest are sought.
FIXED_COST = 10_000
# Of parallel cheapest insertion, savings and path cheapest arc the best on average over R110,
# R211, RC106 and R202 after 1 to 10 s; fixed costs of 100 to 10,000 gave the same vehicles.
FIRST = {
    DISTANCE: First.PATH_CHEAPEST_ARC,
    HIERARCHICAL: First.PARALLEL_CHEAPEST_INSERTION,
}
WALL_FACTOR = 4.0


def run(
    numbers: Numbers, objective: str, budgets: Sequence[float], seed: int
) -> dict[float, list[Found]]:
    """Feasible solutions for each budget; the search has no random choice, `seed` is unused."""
    del seed
    manager = pywrapcp.RoutingIndexManager(len(numbers.load), numbers.num_robots, 0)
    routing = pywrapcp.RoutingModel(manager)
    _state(routing, manager, numbers)
    if objective == HIERARCHICAL:
        routing.SetFixedCostOfAllVehicles(FIXED_COST * numbers.scale)
    log = _watch(routing, manager, numbers, max(budgets))
    first = FIRST[objective]
    routing.SolveWithParameters(parameters(max(budgets) * WALL_FACTOR, first))
    return dict.fromkeys(budgets, log.found)


def parameters(
    wall_s: float, first: First = First.PARALLEL_CHEAPEST_INSERTION
) -> pywrapcp.DefaultRoutingSearchParameters:
    """A construction, then guided local search."""
    chosen = pywrapcp.DefaultRoutingSearchParameters()
    chosen.first_solution_strategy = first
    chosen.local_search_metaheuristic = Meta.GUIDED_LOCAL_SEARCH
    chosen.time_limit.FromMilliseconds(max(1, int(1000 * wall_s)))
    return chosen


def _state(
    routing: pywrapcp.RoutingModel, manager: pywrapcp.RoutingIndexManager, numbers: Numbers
) -> None:
    """Distances as costs, a dimension for time and one for load."""
    cost = routing.RegisterTransitMatrix(numbers.distance.tolist())
    routing.SetArcCostEvaluatorOfAllVehicles(cost)
    busy = numbers.travel + np.array(numbers.service)[:, None]
    day = numbers.due[0]
    routing.AddDimension(routing.RegisterTransitMatrix(busy.tolist()), day, day, False, "time")
    load = routing.RegisterUnaryTransitVector(numbers.load)
    routing.AddDimension(load, 0, numbers.capacity, True, "load")
    time = routing.GetDimensionOrDie("time")
    for node in range(1, len(numbers.load)):
        index = manager.NodeToIndex(node)
        time.CumulVar(index).SetRange(numbers.ready[node], numbers.due[node])
    for vehicle in range(numbers.num_robots):
        for end in (routing.Start(vehicle), routing.End(vehicle)):
            time.CumulVar(end).SetRange(numbers.ready[0], day)


def _watch(
    routing: pywrapcp.RoutingModel,
    manager: pywrapcp.RoutingIndexManager,
    numbers: Numbers,
    until_s: float,
) -> Log:
    """Log improvements and end the search when the CPU time is used up."""
    log = Log()
    lowest = float("inf")
    vehicles = range(numbers.num_robots)

    def note() -> None:
        nonlocal lowest
        cost = routing.CostVar().Max()
        if cost < lowest:
            lowest = cost
            routes = [route for k in vehicles if (route := [*walk(routing, manager, k)])]
            log.add(routes, length(numbers, routes))
        if log.cpu_s >= until_s:
            routing.solver().FinishCurrentSearch()

    routing.AddAtSolutionCallback(note)
    return log


def walk(
    routing: pywrapcp.RoutingModel, manager: pywrapcp.RoutingIndexManager, vehicle: int
) -> Iterator[int]:
    """Nodes of one vehicle's route, inside a solution callback."""
    index = routing.NextVar(routing.Start(vehicle)).Value()
    while not routing.IsEnd(index):
        yield manager.IndexToNode(index)
        index = routing.NextVar(index).Value()
