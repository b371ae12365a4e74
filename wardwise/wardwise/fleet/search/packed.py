"""An instance as a structure of arrays, for compiled loops.

Node 0 is the depot, node ``i`` the request at position ``i - 1`` of the
instance; matrices run over nodes, so a kernel never looks up a place.

Times and distances are rounded to multiples of 2^-30 (about a nanosecond).
Below 2^22 s (48 days) all their sums and differences are then exact in double
precision: the order of additions does not matter, and a test in constant time
gives the same verdict as driving through the whole route, bit for bit. The error
after 500 legs and services is at most 5e-7 s, below the checker's tolerance.
Loads are counted in billionths of a slot, so that three loads of 0.1 fill 0.3.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from wardwise.fleet.problem import Instance

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

QUANTA_PER_UNIT = 2.0**30
BILLIONTHS = 1e9
NO_TRIP_LIMIT = np.iinfo(np.int64).max


class Objective(StrEnum):
    """What a plan is judged by.

    ``hierarchical``: fewest denials, then fewest robots, then distance.
    ``distance``: fewest denials, then distance.
    ``cost``: money of `Costs`, denials included.

    Lateness that a request tolerates counts at its price in all three; where
    nothing is tolerated the first two are those of the literature. Denials are
    weighed by their price, so that a stat request is the last to be denied.
    """

    HIERARCHICAL = "hierarchical"
    DISTANCE = "distance"
    COST = "cost"


class Packed(NamedTuple):
    """Arrays over nodes (N), node pairs (N, N) and robots (K), and prices.

    ``twin[k]`` is the last robot before ``k`` of the same kind, or -1.
    ``is_soft`` tells whether any service may start late; ``is_money`` whether
    denials have a price comparable with driving.
    """

    travel: Floats
    distance: Floats
    service: Floats
    earliest: Floats
    latest: Floats
    due: Floats
    load: Floats
    is_deliver: Bools
    late_price: Floats
    denial_price: Floats
    capacity: Floats
    start: Floats
    end: Floats
    max_trips: Ints
    twin: Ints
    reload: float
    robot_price: float
    metre_price: float
    is_soft: bool
    is_money: bool


def pack(instance: Instance, objective: Objective) -> Packed:
    """Arrays of `instance`, with the prices that make `objective` a sum."""
    requests, robots, costs = instance.requests, instance.robots, instance.costs
    place = np.array([0, *(instance.place_index[r.place] for r in requests)], dtype=np.int64)
    pairs = np.ix_(place, place)
    travel, distance = (_quantise(m[pairs]) for m in (instance.travel_s, instance.distance_m))
    for matrix in (travel, distance):
        np.fill_diagonal(matrix, 0.0)  # an idle robot stays at the depot, and pays nothing
    late_price = np.array([0.0, *(costs.lateness_per_s[r.priority - 1] for r in requests)])
    tolerance = np.array([0.0, *(r.tolerance_s for r in requests)])
    is_money = objective is Objective.COST
    robot_price, metre_price = {
        Objective.COST: (costs.per_robot, costs.per_metre),
        Objective.DISTANCE: (0.0, 1.0),
        Objective.HIERARCHICAL: (_above_all_driving(distance, float(late_price @ tolerance)), 1.0),
    }[objective]
    # A denial must weigh something even when its price is zero, or nobody would be served.
    floor = 0.0 if is_money else 1.0
    return Packed(
        travel=travel,
        distance=distance,
        service=_quantise([0.0, *(r.service_s for r in requests)]),
        earliest=_quantise([0.0, *(r.earliest_s for r in requests)]),
        latest=_quantise([0.0, *(r.latest_s for r in requests)]),
        due=_quantise([0.0, *(r.due_s for r in requests)]),
        load=np.rint(BILLIONTHS * np.array([0.0, *(r.load for r in requests)])),
        is_deliver=np.array([False, *(r.kind is Kind.DELIVER for r in requests)]),
        late_price=late_price,
        denial_price=np.array([0.0, *(costs.per_denial[r.priority - 1] + floor for r in requests)]),
        capacity=np.rint(BILLIONTHS * np.array([r.capacity for r in robots])),
        start=_quantise([r.start_s for r in robots]),
        end=_quantise([r.end_s for r in robots]),
        max_trips=np.array([r.max_trips or NO_TRIP_LIMIT for r in robots], dtype=np.int64),
        twin=_twins(instance),
        reload=float(_quantise([instance.reload_s])[0]),
        robot_price=float(robot_price),
        metre_price=float(metre_price),
        is_soft=bool(tolerance.any()),
        is_money=is_money,
    )


def _quantise(values: NDArray[np.float64] | list[float]) -> Floats:
    """Nearest multiples of 2^-30."""
    return np.ascontiguousarray(np.rint(np.asarray(values) * QUANTA_PER_UNIT) / QUANTA_PER_UNIT)


def _above_all_driving(distance: Floats, lateness_price: float) -> float:
    """A power of two above distance and lateness of any plan, so that sums stay exact."""
    longest = distance[np.isfinite(distance)].max()
    # Every request is at worst reached and left over the longest leg.
    bound = 1 + 2 * len(distance) * longest + lateness_price
    return float(2.0 ** np.ceil(np.log2(bound)))


def _twins(instance: Instance) -> Ints:
    last_of_kind: dict[tuple[float, float, float, int | None], int] = {}
    twin = np.full(len(instance.robots), -1, dtype=np.int64)
    for index, robot in enumerate(instance.robots):
        kind = (robot.capacity, robot.start_s, robot.end_s, robot.max_trips)
        twin[index] = last_of_kind.get(kind, -1)
        last_of_kind[kind] = index
    return twin
