"""Full re-solves of a committed state by PyVRP, OR-Tools and VROOM.

Each vehicle starts at its last committed stop. A vehicle in use goes home in
any case: OR-Tools can be told so, in PyVRP and VROOM a stop without service at
its place, which only this vehicle can make, stands for it. Windows are hard at
the last acceptable start; lateness within them costs nothing in the search, but
does in the price of the answer. Times count in milliseconds, rounded so that
plans stay feasible; money in thousandths.

Locations, in every model: 0 the depot, then each vehicle's place, then each
request's.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pyvrp
import vroom
from ortools.constraint_solver import pywrapcp
from pyvrp.constants import MAX_VALUE
from pyvrp.stop import MaxRuntime

from .by_ortools import parameters
from .by_vroom import PROFILE, routes_of
from .committed import price
from .numbers import THOUSANDTHS as SCALE
from .numbers import down, up

if TYPE_CHECKING:
    from wardwise.fleet.problem import Request

    from .committed import Answer, State, Vehicle
    from .numbers import Integers

# VROOM serves as many as it can, the higher priorities first; it knows no price of a denial.
PROMISED, OPTIONAL = 100, 1


def resolve_pyvrp(state: State, *, budget_s: float, seed: int = 0) -> Answer:
    """Iterated local search for `budget_s` seconds, from the present plan of the state."""
    start = time.perf_counter()
    data = _pyvrp_data(state)
    num_pins = sum(vehicle.is_used for vehicle in state.vehicles)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyvrp.exceptions.PenaltyBoundWarning)
        best = pyvrp.solve(
            data,
            MaxRuntime(budget_s),
            seed=seed,
            collect_stats=False,
            initial_solution=_pyvrp_start(state, data),
        ).best
    routes: list[list[int]] = [[] for _ in state.vehicles]
    free = [list(kind) for kind in _kinds(state)]
    for route in best.routes():
        clients = [visit.idx - num_pins for visit in route if visit.is_client()]
        vehicle = free[route.vehicle_type()].pop(0)
        routes[vehicle] = [client for client in clients if client >= 0]
    return price(state, routes, time.perf_counter() - start)


def resolve_ortools(state: State, *, budget_s: float) -> Answer:
    """Parallel cheapest insertion and guided local search for `budget_s` seconds."""
    start = time.perf_counter()
    num_vehicles = len(state.vehicles)
    starts = list(range(1, num_vehicles + 1))
    size = 1 + num_vehicles + len(state.requests)
    manager = pywrapcp.RoutingIndexManager(size, num_vehicles, starts, [0] * num_vehicles)
    routing = pywrapcp.RoutingModel(manager)
    _state_ortools(state, routing, manager)
    found = routing.SolveWithParameters(parameters(budget_s))
    routes: list[list[int]] = [[] for _ in state.vehicles]
    for vehicle in range(num_vehicles) if found else ():
        index = found.Value(routing.NextVar(routing.Start(vehicle)))
        while not routing.IsEnd(index):
            routes[vehicle].append(manager.IndexToNode(index) - 1 - num_vehicles)
            index = found.Value(routing.NextVar(index))
    return price(state, routes, time.perf_counter() - start)


def resolve_vroom(state: State, *, exploration: int = 0) -> Answer:
    """One run of VROOM on one thread; `exploration` is its level, 0 to 5."""
    start = time.perf_counter()
    solution = _vroom_input(state).solve(exploration, nb_threads=1)
    first = 1 + len(state.vehicles)
    by_vehicle = routes_of(solution)
    routes = [
        [job - first for job in by_vehicle.get(vehicle, []) if job >= first]
        for vehicle in range(len(state.vehicles))
    ]
    return price(state, routes, time.perf_counter() - start)


def _money(state: State) -> Integers:
    """Scaled price of every leg."""
    price_m = state.instance.distance_m * state.instance.costs.per_metre
    return np.rint(state.between(price_m) * SCALE).astype(np.int64)


def _travel(state: State) -> Integers:
    return up(state.between(state.instance.travel_s), SCALE)


def _start_price(state: State, vehicle: Vehicle) -> int:
    return 0 if vehicle.is_used else round(state.instance.costs.per_robot * SCALE)


def _denial_price(state: State, request: Request) -> int:
    return round(state.instance.costs.per_denial[request.priority - 1] * SCALE)


def _whole(load: float) -> int:
    """Loads in thousandths of a slot."""
    return int(up(load, SCALE))


def _window(request: Request) -> tuple[int, int]:
    return int(up(request.earliest_s, SCALE)), int(down(request.latest_s, SCALE))


def _shift(vehicle: Vehicle) -> tuple[int, int]:
    return int(up(vehicle.free_s, SCALE)), int(down(vehicle.end_s, SCALE))


def _kinds(state: State) -> list[list[int]]:
    """Vehicles of each type: one in use stands alone, equal spares together."""
    kinds: dict[object, list[int]] = {}
    for k, vehicle in enumerate(state.vehicles):
        kinds.setdefault(k if vehicle.is_used else vehicle, []).append(k)
    return list(kinds.values())


def _pyvrp_data(state: State) -> pyvrp.ProblemData:
    """Clients are the stops of vehicles in use, then the requests."""
    used = [k for k, vehicle in enumerate(state.vehicles, start=1) if vehicle.is_used]
    first = 1 + len(state.vehicles)
    clients = [
        *(pyvrp.Client(location=k, pickup=[0]) for k in used),
        *(
            pyvrp.Client(
                location=first + k,
                pickup=[_whole(request.load)],
                service_duration=int(up(request.service_s, SCALE)),
                tw_early=_window(request)[0],
                tw_late=_window(request)[1],
                prize=_denial_price(state, request) if request.id in state.optional else 0,
                required=request.id not in state.optional,
            )
            for k, request in enumerate(state.requests)
        ),
    ]
    vehicle_types = []
    for kind in _kinds(state):
        vehicle = state.vehicles[kind[0]]
        leaves, returns = _shift(vehicle)
        vehicle_types.append(
            pyvrp.VehicleType(
                num_available=len(kind),
                capacity=[int(down(vehicle.room, SCALE))],
                start_depot=1 + kind[0],
                end_depot=0,
                fixed_cost=_start_price(state, vehicle),
                tw_early=leaves,
                tw_late=returns,
            )
        )
    distance, travel = _money(state), _travel(state)
    for k in used:  # nobody else gets to the place where this vehicle stands
        others = np.arange(len(travel)) != k
        distance[others, k] = travel[others, k] = MAX_VALUE
    locations = [pyvrp.Location(0, 0) for _ in range(len(travel))]
    depots = [pyvrp.Depot(location) for location in range(first)]
    return pyvrp.ProblemData(locations, clients, depots, vehicle_types, [distance], [travel])


def _pyvrp_start(state: State, data: pyvrp.ProblemData) -> pyvrp.Solution:
    """The present plan; what it lacks is inserted by the search."""
    num_pins = sum(vehicle.is_used for vehicle in state.vehicles)
    plan = state.plan or tuple(() for _ in state.vehicles)
    kind_of = {k: index for index, kind in enumerate(_kinds(state)) for k in kind}
    routes, pin = [], 0
    for k, (vehicle, planned) in enumerate(zip(state.vehicles, plan, strict=True)):
        visits = [num_pins + position for position in planned]
        if vehicle.is_used:
            visits.insert(0, pin)
            pin += 1
        if visits:
            routes.append(pyvrp.Route(data, visits, kind_of[k]))
    return pyvrp.Solution(data, routes)


def _state_ortools(
    state: State, routing: pywrapcp.RoutingModel, manager: pywrapcp.RoutingIndexManager
) -> None:
    """Prices of legs, vehicles and denials; a dimension for time and one for load."""
    first = 1 + len(state.vehicles)
    requests = state.requests
    routing.SetArcCostEvaluatorOfAllVehicles(routing.RegisterTransitMatrix(_money(state).tolist()))
    service = [0] * first + [int(up(request.service_s, SCALE)) for request in requests]
    busy = (_travel(state) + np.array(service)[:, None]).tolist()
    day = max(_shift(vehicle)[1] for vehicle in state.vehicles)
    routing.AddDimension(routing.RegisterTransitMatrix(busy), day, day, False, "time")
    load = [0] * first + [_whole(request.load) for request in requests]
    room = [int(down(vehicle.room, SCALE)) for vehicle in state.vehicles]
    loads = routing.RegisterUnaryTransitVector(load)
    routing.AddDimensionWithVehicleCapacity(loads, 0, room, True, "load")
    clock = routing.GetDimensionOrDie("time")
    for k, request in enumerate(requests):
        index = manager.NodeToIndex(first + k)
        clock.CumulVar(index).SetRange(*_window(request))
        if request.id in state.optional:
            routing.AddDisjunction([index], _denial_price(state, request))
    for k, vehicle in enumerate(state.vehicles):
        routing.SetFixedCostOfVehicle(_start_price(state, vehicle), k)
        routing.SetVehicleUsedWhenEmpty(vehicle.is_used, k)
        for end in (routing.Start(k), routing.End(k)):
            clock.CumulVar(end).SetRange(*_shift(vehicle))


def _vroom_input(state: State) -> vroom.Input:
    """Jobs are numbered like locations; the skill k belongs to vehicle k alone."""
    first = 1 + len(state.vehicles)
    problem = vroom.Input()
    problem.set_durations_matrix(PROFILE, _travel(state))
    problem.set_costs_matrix(PROFILE, _money(state))
    problem.add_vehicle(
        [
            vroom.Vehicle(
                k,
                start=k + 1,
                end=0,
                profile=PROFILE,
                capacity=[int(down(vehicle.room, SCALE))],
                time_window=vroom.TimeWindow(*_shift(vehicle)),
                skills={k},
                costs=vroom.VehicleCosts(fixed=_start_price(state, vehicle)),
            )
            for k, vehicle in enumerate(state.vehicles)
        ]
    )
    problem.add_job(
        [
            vroom.Job(k + 1, location=k + 1, pickup=[0], skills={k}, priority=PROMISED)
            for k, vehicle in enumerate(state.vehicles)
            if vehicle.is_used
        ]
    )
    problem.add_job(
        [
            vroom.Job(
                first + k,
                location=first + k,
                pickup=[_whole(request.load)],
                default_service=int(up(request.service_s, SCALE)),
                time_windows=[vroom.TimeWindow(*_window(request))],
                priority=OPTIONAL if request.id in state.optional else PROMISED,
            )
            for k, request in enumerate(state.requests)
        ]
    )
    return problem
