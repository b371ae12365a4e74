"""An instance in whole numbers, and routes of nodes as plans.

The peers compute with integers. Travel, service and opening times are rounded
up and closing times down, so that what is feasible in integers is feasible in
doubles; distances are rounded to the nearest.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wardwise.fleet.schedule import schedule
from wardwise.io.geometry import cut_to_tenths

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

Integers = NDArray[np.int64]
Routes = list[list[int]]  # nodes of each vehicle; node i is the request at position i - 1

# With truncated arcs all numbers of the Solomon files are whole tenths: nothing is lost, and it
# is the scale on which PyVRP is tuned. Doubles lose 0.001 a leg at most.
TENTHS = 10
THOUSANDTHS = 1000
# Integers that come out of decimal input, like 0.1 * 1000, must not be rounded one up.
_FUZZ = 1e-6


class Numbers(NamedTuple):
    """A plain instance (one depot, one kind of robot, one trip each, collections) in integers.

    Arrays run over nodes, 0 the depot.
    """

    scale: int
    travel: Integers
    distance: Integers
    service: list[int]
    ready: list[int]
    due: list[int]
    load: list[int]
    capacity: int
    num_robots: int


def numbers(instance: Instance, scale: int) -> Numbers:
    """Scale and round an instance of the literature."""
    robot = instance.robots[0]
    nodes = [0, *(instance.place_index[request.place] for request in instance.requests)]
    pairs = np.ix_(nodes, nodes)
    requests = instance.requests
    return Numbers(
        scale=scale,
        travel=up(instance.travel_s[pairs], scale),
        distance=np.rint(instance.distance_m[pairs] * scale).astype(np.int64),
        service=[0, *(int(up(r.service_s, scale)) for r in requests)],
        ready=[int(up(t, scale)) for t in (robot.start_s, *(r.ready_s for r in requests))],
        due=[int(down(t, scale)) for t in (robot.end_s, *(r.due_s for r in requests))],
        load=[0, *(int(r.load) for r in requests)],
        capacity=int(robot.capacity),
        num_robots=len(instance.robots),
    )


def up(values: object, scale: int) -> Integers:
    """Scaled and rounded up."""
    return np.ceil(np.asarray(values) * scale - _FUZZ).astype(np.int64)


def down(values: object, scale: int) -> Integers:
    """Scaled and rounded down."""
    return np.floor(np.asarray(values) * scale + _FUZZ).astype(np.int64)


def length(numbers: Numbers, routes: Routes) -> int:
    """Scaled distance of the routes, each from the depot and back."""
    legs = (leg for route in routes for leg in pairwise([0, *route, 0]))
    return sum(int(numbers.distance[leg]) for leg in legs)


def cut_tenths(instance: Instance) -> NDArray[np.float64]:
    """Distances cut, not rounded, to one decimal: the convention of the DIMACS challenge."""
    return cut_to_tenths(instance.distance_m)


def to_plan(instance: Instance, routes: Routes) -> Plan:
    """Time the routes; the robots are all alike, so they are taken in order.

    Raises
    ------
    ValueError
        If a route cannot be driven in time.
    """
    ids = [[instance.requests[node - 1].id for node in route] for route in routes if route]
    robots = [robot.id for robot in instance.robots]
    return schedule(instance, {robots[k]: [route] for k, route in enumerate(ids)})
