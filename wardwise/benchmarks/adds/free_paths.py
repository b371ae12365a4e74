"""Paths through bins whose sequence is free: ours, nearest neighbour, OR-Tools and PyVRP.

All get the same travel times in whole ten-thousandths of a second, which loses nothing on the
default rack, and a node at no distance from all that closes the path. Every path is measured by
the same function. OR-Tools' guided local search, PyVRP and ours have two seconds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.pharmacy.paths import nearest_neighbour, shortest_path
from wardwise.pharmacy.rack import Machine

from .common import peer_of, row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wardwise.pharmacy.rack import Cells, Floats

    from .common import Row

SIZES = (10, 20, 50, 100, 200, 500)
PROVEN = (10, 20)
# Reference study: LKH-3 by elkai, one run; proven best up to 50 bins. The licence of elkai allows
# no commercial use, so that it does not run here.
LKH = {10: 13.46, 20: 15.56, 50: 31.35, 100: 41.83, 200: 64.04, 500: 113.49}
GOAL_500, LIMIT_S = 115.0, 2.0
STEPS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
SCALE = 10_000

Path = list[int]


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Costs by size and solver, and the time that ours takes to come near LKH."""
    shortest_path(_instance(20)[1], max_kicks=10)  # loads what is compiled
    for n in SIZES[:4] if is_quick else SIZES:
        yield from _size_rows(n)


def _size_rows(n: int) -> Iterator[Row]:
    cells, distance = _instance(n)
    cost: dict[str, float] = {}
    taken: dict[str, float] = {}
    for solver, solve in SOLVERS.items():
        begun = time.perf_counter()
        path = solve(distance)
        taken[solver] = round(time.perf_counter() - begun, 2)
        cost[solver] = travel_s(cells, path)
    detail = {"cost_s": {k: round(v, 4) for k, v in cost.items()}, "taken_s": taken}
    goal = ("<=", GOAL_500) if n == 500 else None
    yield row(f"path_{n}_ours", cost["ours"], "s", goal, detail=detail)
    for solver, peer in PEERS.items():
        yield row(f"path_{n}_{solver}", cost[solver], "s", peer=peer())
    best = min((value, solver) for solver, value in cost.items() if solver != "ours")
    name, ours = f"path_{n}_ours_over", cost["ours"]
    yield row(f"{name}_best_peer", ours / best[0], "x", ("<=", 1.0), peer=PEERS[best[1]]())
    peer = f"elkai 2.0.1 in the reference study: {LKH[n]:g} s"
    yield row(f"{name}_lkh", ours / LKH[n], "x", ("<=", 1.01), peer=peer)
    if n in PROVEN:
        least = _proven(distance)
        yield row(f"{name}_proven", ours - least, "s", ("<=", 1e-6), peer=peer_of("ortools"))
    near = _time_to(distance, cells, 1.01 * LKH[n])
    if near is not None:
        yield row(f"path_{n}_time_to_1_percent_of_lkh", near, "s", ("<=", LIMIT_S))


def travel_s(cells: Cells, path: Path) -> float:
    """Travel along a path through all cells, from the cells' coordinates."""
    assert sorted(path) == list(range(len(cells)))
    x_m, y_m = np.diff(Machine().rack.centre_m[cells[np.asarray(path)]], axis=0).T
    return float(Machine().arm.travel_s(x_m, y_m).sum())


def _instance(n: int) -> tuple[Cells, Floats]:
    """Cells and travel times of the reference study."""
    cells = np.random.default_rng(1000 + n).permutation(600)[:n]
    return cells, Machine().between_s[np.ix_(cells, cells)]


def _time_to(distance: Floats, cells: Cells, goal_s: float) -> float | None:
    """CPU seconds of the first time limit that suffices."""
    for limit_s in STEPS_S:
        begun = time.process_time()
        path = shortest_path(distance, time_limit=limit_s)
        taken_s = time.process_time() - begun
        if travel_s(cells, path.tolist()) <= goal_s:
            return taken_s
    return None


def _closed(distance: Floats) -> Any:
    """Travel in whole numbers with the closing node first."""
    closed = np.zeros((len(distance) + 1,) * 2, dtype=np.int64)
    closed[1:, 1:] = np.rint(distance * SCALE)
    return closed


def _by_ortools(distance: Floats, *, is_guided: bool) -> Path:
    """Path cheapest arc and the default local search, or guided local search for two seconds."""
    from ortools.constraint_solver import pywrapcp
    from ortools.constraint_solver.routing_enums_pb2 import FirstSolutionStrategy as First
    from ortools.constraint_solver.routing_enums_pb2 import LocalSearchMetaheuristic as Meta

    closed = _closed(distance)
    manager = pywrapcp.RoutingIndexManager(len(closed), 1, 0)
    routing = pywrapcp.RoutingModel(manager)
    routing.SetArcCostEvaluatorOfAllVehicles(routing.RegisterTransitMatrix(closed.tolist()))
    parameters = pywrapcp.DefaultRoutingSearchParameters()
    parameters.first_solution_strategy = First.PATH_CHEAPEST_ARC
    if is_guided:
        parameters.local_search_metaheuristic = Meta.GUIDED_LOCAL_SEARCH
        parameters.time_limit.FromMilliseconds(int(1000 * LIMIT_S))
    found = routing.SolveWithParameters(parameters)
    path, index = [], found.Value(routing.NextVar(routing.Start(0)))
    while not routing.IsEnd(index):
        path.append(manager.IndexToNode(index) - 1)
        index = found.Value(routing.NextVar(index))
    return path


def _by_pyvrp(distance: Floats) -> Path:
    """One vehicle without a load."""
    import pyvrp
    from pyvrp.stop import MaxRuntime

    closed = _closed(distance)
    data = pyvrp.ProblemData(
        [pyvrp.Location(0, 0) for _ in closed],
        [pyvrp.Client(location=k) for k in range(1, len(closed))],
        [pyvrp.Depot(0)],
        [pyvrp.VehicleType(num_available=1)],
        distance_matrices=[closed],
        duration_matrices=[np.zeros_like(closed)],
    )
    best = pyvrp.solve(data, MaxRuntime(LIMIT_S), seed=0, display=False).best
    return [visit.idx for route in best.routes() for visit in route if visit.is_client()]


def _proven(distance: Floats) -> float:
    """Length of the shortest path, proven by CP-SAT on one thread."""
    from ortools.sat.python import cp_model

    closed, model = _closed(distance), cp_model.CpModel()
    arcs = [
        (i, j, model.new_bool_var(""))
        for i in range(len(closed)) for j in range(len(closed)) if i != j
    ]  # fmt: skip
    model.add_circuit(arcs)
    model.minimize(sum(int(closed[i, j]) * arc for i, j, arc in arcs))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(model) == cp_model.OPTIMAL
    return float(solver.objective_value) / SCALE


SOLVERS: dict[str, Callable[[Floats], Path]] = {
    "ours": lambda distance: shortest_path(distance, time_limit=LIMIT_S).tolist(),
    "nearest": lambda distance: nearest_neighbour(distance).tolist(),
    "ortools_default": lambda distance: _by_ortools(distance, is_guided=False),
    "ortools_guided_2s": lambda distance: _by_ortools(distance, is_guided=True),
    "pyvrp_2s": _by_pyvrp,
}
PEERS: dict[str, Callable[[], str]] = {
    "nearest": lambda: "nearest neighbour",
    "ortools_default": lambda: peer_of("ortools"),
    "ortools_guided_2s": lambda: peer_of("ortools"),
    "pyvrp_2s": lambda: peer_of("pyvrp"),
}
