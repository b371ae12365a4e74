"""An instance as a structure of arrays, for compiled loops.

Node 0 is the depot, node ``i`` the request at position ``i - 1`` of the
instance. A transfer has two nodes: its own, where the load is dropped, and one
behind all requests, where it is picked up. Matrices run over places, so that
they stay small where many requests go to few wards; their transposes stand
beside them, because a scan along a chain reads one row of each.

Times and distances are rounded to multiples of 2^-30 (about a nanosecond).
Below 2^22 s (48 days) all their sums and differences are then exact in double
precision: the order of additions does not matter, and a test in constant time
gives the same verdict as driving through the whole route, bit for bit. The error
after 500 legs and services is at most 5e-7 s, below the checker's tolerance.
Loads are counted in billionths of a slot, so that three loads of 0.1 fill 0.3.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.problem import Costs, Instance, Request, Robot

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

QUANTA_PER_UNIT = 2.0**30
BILLIONTHS = 1e9
NO_TRIP_LIMIT = np.iinfo(np.int64).max
NOBODY = -1


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
    """Arrays over places (P, P), nodes (N) and robots (K), and prices.

    ``travel_to`` and ``distance_to`` are the transposes: row = target.
    ``partner`` is the other node of a transfer, or -1. ``load`` is what a stop
    moves, ``at_depot`` what is on board for it from the depot on, ``delta`` the
    change of the load at the stop. ``twin[k]`` is the last robot before ``k`` of
    the same kind, or -1. ``is_soft`` tells whether any service may start late;
    ``is_money`` whether denials have a price comparable with driving.
    """

    travel: Floats
    distance: Floats
    travel_to: Floats
    distance_to: Floats
    place: Ints
    partner: Ints
    is_pickup: Bools
    service: Floats
    earliest: Floats
    latest: Floats
    due: Floats
    load: Floats
    at_depot: Floats
    delta: Floats
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


_NODE_ARRAYS = {
    "place": np.int64,
    "partner": np.int64,
    "is_pickup": np.bool_,
    "service": np.float64,
    "earliest": np.float64,
    "latest": np.float64,
    "due": np.float64,
    "load": np.float64,
    "at_depot": np.float64,
    "delta": np.float64,
    "late_price": np.float64,
    "denial_price": np.float64,
}


def pack(instance: Instance, objective: Objective) -> Packed:
    """Arrays of `instance`, with the prices that make `objective` a sum."""
    requests, robots, costs = instance.requests, instance.robots, instance.costs
    travel, distance = (quantise(m) for m in (instance.travel_s, instance.distance_m))
    transfers = [i for i, r in enumerate(requests, start=1) if r.kind is Kind.TRANSFER]
    num_nodes = 1 + len(requests) + len(transfers)
    late_price = [costs.lateness_per_s[r.priority - 1] * r.tolerance_s for r in requests]
    is_money = objective is Objective.COST
    robot_price, metre_price = {
        Objective.COST: (costs.per_robot, costs.per_metre),
        Objective.DISTANCE: (0.0, 1.0),
        Objective.HIERARCHICAL: (_above_all_driving(distance, num_nodes, sum(late_price)), 1.0),
    }[objective]
    packed = Packed(
        travel=travel,
        distance=distance,
        travel_to=np.ascontiguousarray(travel.T),
        distance_to=np.ascontiguousarray(distance.T),
        **{name: np.zeros(num_nodes, dtype=kind) for name, kind in _NODE_ARRAYS.items()},
        capacity=in_billionths([r.capacity for r in robots]),
        start=quantise([r.start_s for r in robots]),
        end=quantise([r.end_s for r in robots]),
        max_trips=np.array([r.max_trips or NO_TRIP_LIMIT for r in robots], dtype=np.int64),
        twin=twins(robots),
        reload=float(quantise([instance.reload_s])[0]),
        robot_price=float(robot_price),
        metre_price=float(metre_price),
        is_soft=any(r.tolerance_s > 0 for r in requests),
        is_money=is_money,
    )
    packed.partner[:] = NOBODY
    pickups = dict(zip(transfers, range(1 + len(requests), num_nodes), strict=True))
    for node, request in enumerate(requests, start=1):
        write_request(packed, node, pickups.get(node, NOBODY), request, instance.place_index, costs)
    return packed


def write_request(
    packed: Packed,
    node: int,
    pickup: int,
    request: Request,
    place_index: dict[str, int],
    costs: Costs,
) -> None:
    """Fill the node of a request, and for a transfer that of its pickup (else -1)."""
    rank = request.priority - 1
    # A denial must weigh something even when its price is zero, or nobody would be served.
    floor = 0.0 if packed.is_money else 1.0
    load = float(in_billionths([request.load])[0])
    times = (request.service_s, request.earliest_s, request.latest_s, request.due_s)
    service, earliest, latest, due = (float(value) for value in quantise(list(times)))
    is_transfer = request.kind is Kind.TRANSFER
    packed.place[node] = place_index[request.place]
    packed.partner[node] = pickup if is_transfer else NOBODY
    packed.is_pickup[node] = False
    packed.service[node] = service
    packed.earliest[node] = 0.0 if is_transfer else earliest
    packed.latest[node] = latest
    packed.due[node] = due
    packed.load[node] = load
    packed.at_depot[node] = load if request.kind is Kind.DELIVER else 0.0
    packed.delta[node] = load if request.kind is Kind.COLLECT else -load
    packed.late_price[node] = costs.lateness_per_s[rank]
    packed.denial_price[node] = costs.per_denial[rank] + floor
    if not is_transfer:
        return
    assert request.origin is not None
    packed.place[pickup] = place_index[request.origin]
    packed.partner[pickup] = node
    packed.is_pickup[pickup] = True
    packed.service[pickup] = service
    packed.earliest[pickup] = earliest
    packed.latest[pickup] = latest
    packed.due[pickup] = latest  # a pickup is never late: its drop is
    packed.load[pickup] = load
    packed.at_depot[pickup] = 0.0
    packed.delta[pickup] = load
    packed.late_price[pickup] = 0.0
    packed.denial_price[pickup] = 0.0


def reserve(packed: Packed, num_nodes: int) -> Packed:
    """Copy with room for `num_nodes` nodes, and prices and robots that may be changed."""
    longer: dict[str, Any] = {}
    for name, kind in _NODE_ARRAYS.items():
        longer[name] = np.zeros(num_nodes, dtype=kind)
        longer[name][: len(packed.place)] = getattr(packed, name)
    longer["partner"][len(packed.place) :] = NOBODY
    robots = {name: getattr(packed, name).copy() for name in ("end", "max_trips", "twin")}
    return packed._replace(**longer, **robots)


def is_request(packed: Packed) -> Bools:
    """Nodes that stand for a request: all but the depot and the pickups of transfers."""
    flags = ~packed.is_pickup
    flags[0] = False
    return flags


def quantise(values: NDArray[np.float64] | Sequence[float]) -> Floats:
    """Nearest multiples of 2^-30."""
    return np.ascontiguousarray(np.rint(np.asarray(values) * QUANTA_PER_UNIT) / QUANTA_PER_UNIT)


def in_billionths(loads: Sequence[float]) -> Floats:
    """Loads as whole numbers of billionths."""
    return np.rint(BILLIONTHS * np.asarray(loads, dtype=np.float64))


def _above_all_driving(distance: Floats, num_nodes: int, lateness_price: float) -> float:
    """A power of two above distance and lateness of any plan, so that sums stay exact."""
    longest = distance[np.isfinite(distance)].max()
    # Every stop is at worst reached and left over the longest leg.
    bound = 1 + 2 * num_nodes * longest + lateness_price
    return float(2.0 ** np.ceil(np.log2(bound)))


def twins(robots: Sequence[Robot]) -> Ints:
    """For each robot the last one before it that differs in its id alone, or -1."""
    last_of_kind: dict[Robot, int] = {}
    twin = np.full(len(robots), NOBODY, dtype=np.int64)
    for index, robot in enumerate(robots):
        twin[index] = last_of_kind.get(robot.kind, NOBODY)
        last_of_kind[robot.kind] = index
    return twin
