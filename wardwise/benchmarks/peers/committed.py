"""What is left to decide at a moment of the day, and the price of an answer in doubles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wardwise.fleet.problem import Instance, Request

# Travel times are sums of doubles; a robot never notices a microsecond.
TOLERANCE_S = 1e-6
LOAD_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Vehicle:
    """A robot at its last committed stop: `free_s` is when it may leave `place` (its index).

    `room` is the capacity that is left on this trip. A robot in use goes home in any
    case; one that is not costs `Costs.per_robot` once it leaves.
    """

    place: int
    free_s: float
    room: float
    end_s: float
    is_used: bool


@dataclass(frozen=True, kw_only=True)
class State:
    """Vehicles, the requests that none of them is committed to, and the present plan for these.

    Requests are collections. Those in `optional` may be turned down for
    `Costs.per_denial`; all others are promised. `plan` holds positions in `requests`
    for each vehicle, as a start for solvers that take one.
    """

    instance: Instance
    vehicles: tuple[Vehicle, ...]
    requests: tuple[Request, ...]
    optional: frozenset[str] = frozenset()
    plan: tuple[tuple[int, ...], ...] = ()

    @property
    def places(self) -> list[int]:
        """Indices of the depot, of every vehicle's place, and of every request's place."""
        index = self.instance.place_index
        return [0, *(v.place for v in self.vehicles), *(index[r.place] for r in self.requests)]

    def between(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Part of a matrix over places that belongs to `places`."""
        return matrix[np.ix_(self.places, self.places)]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Routes as positions in `State.requests`, one for each vehicle, and what they cost.

    `seconds` is the wall time of the call, building the model included.
    """

    routes: tuple[tuple[int, ...], ...]
    denied: tuple[str, ...]
    distance_m: float
    num_started: int
    cost: float
    is_feasible: bool
    seconds: float


def price(state: State, routes: list[list[int]], seconds: float) -> Answer:
    """Drive the routes in double precision."""
    costs = state.instance.costs
    served = [position for route in routes for position in route]
    denied = [r for k, r in enumerate(state.requests) if k not in set(served)]
    metres = late_cost = 0.0
    is_feasible = len(served) == len(set(served)) and {r.id for r in denied} <= state.optional
    for vehicle, route in zip(state.vehicles, routes, strict=True):
        if not (route or vehicle.is_used):
            continue
        is_in_time, late = _drive(state, vehicle, route)
        is_feasible &= is_in_time
        late_cost += late
        metres += _metres(state, vehicle, route)
    num_started = sum(
        bool(route) and not v.is_used for v, route in zip(state.vehicles, routes, strict=True)
    )
    cost = (
        metres * costs.per_metre
        + num_started * costs.per_robot
        + late_cost
        + sum(costs.per_denial[request.priority - 1] for request in denied)
    )
    return Answer(
        routes=tuple(map(tuple, routes)),
        denied=tuple(request.id for request in denied),
        distance_m=metres,
        num_started=num_started,
        cost=cost,
        is_feasible=is_feasible,
        seconds=seconds,
    )


def _metres(state: State, vehicle: Vehicle, route: list[int]) -> float:
    """From the vehicle's place through the route home."""
    index = state.instance.place_index
    places = [vehicle.place, *(index[state.requests[k].place] for k in route), 0]
    return sum(float(state.instance.distance_m[leg]) for leg in pairwise(places))


def _drive(state: State, vehicle: Vehicle, route: list[int]) -> tuple[bool, float]:
    """Whether all windows, the load and the shift are kept, and the cost of lateness."""
    instance = state.instance
    here, clock, load, late_cost = vehicle.place, vehicle.free_s, 0.0, 0.0
    is_in_time = True
    for position in route:
        request = state.requests[position]
        there = instance.place_index[request.place]
        start = max(request.earliest_s, clock + float(instance.travel_s[here, there]))
        is_in_time &= start <= request.latest_s + TOLERANCE_S
        delay = max(0.0, start - request.due_s)
        late_cost += delay * instance.costs.lateness_per_s[request.priority - 1]
        here, clock, load = there, start + request.service_s, load + request.load
    is_in_time &= clock + float(instance.travel_s[here, 0]) <= vehicle.end_s + TOLERANCE_S
    return is_in_time and load <= vehicle.room * (1 + LOAD_TOLERANCE), late_cost
