"""PyVRP as a method: the referee for plain instances (extra ``pyvrp``).

PyVRP computes with integers. Times are counted in milliseconds, travel, service
and opening times rounded up, closing times rounded down: what is feasible in
integers is feasible in doubles. Loads are divided by their greatest common
divisor. Costs are counted in thousandths.

===================  ====================================================
here                 in PyVRP
===================  ====================================================
collect / deliver    pickup / delivery of a client
several trips        reload depot with ``reload_s`` as its service duration
robots of one kind   one vehicle type
price of a robot     fixed cost; for fewest robots, see `run_pyvrp`
denial               optional client with a prize
===================  ====================================================

PyVRP knows no soft windows, so ``due_s`` is hard here. If the constructions
serve every request in time, all clients are required; else, and always for the
objective ``cost``, they are optional. The plan is then the better of PyVRP's
and the best construction, which may use the tolerance.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wardwise.fleet.search.construct import best_start
from wardwise.fleet.search.fleet import Fleet, Trips

if TYPE_CHECKING:
    from numpy.random import Generator

    from wardwise.fleet.search.packed import Floats, Packed
    from wardwise.fleet.search.watch import Watch

MILLISECONDS = 1000
LONGEST_LEG = 1e5
MEAN_LOAD = 10
# Share of the time in which the fleet is sought; the rest is for the distance.
FLEET_SHARE = 0.5
# A robot fewer is worth this many times all driving of a mere construction.
ROBOT_PER_DRIVING = 6.0
# Integers that come out of decimal input, like 0.1 * 1000, must not be rounded one up.
_FUZZ = 1e-7


class Model(NamedTuple):
    """PyVRP's problem data, the robots behind each vehicle type, the node of each client."""

    data: Any
    kinds: list[list[int]]
    nodes: list[int]


def run_pyvrp(packed: Packed, rng: Generator, watch: Watch) -> None:
    """Run PyVRP's iterated local search on one thread until the watch says stop.

    For fewest robots it first looks for a small fleet, then for short routes of that fleet: a
    fixed cost large enough to save robots makes its penalties coarse and its distances longer.

    Raises
    ------
    ValueError
        When the package is not installed, or a load goes from ward to ward.
    """
    if importlib.util.find_spec("pyvrp") is None:
        raise ValueError("method: 'pyvrp' needs: pip install 'wardwise[pyvrp]'")
    if packed.is_pickup.any():
        raise ValueError("method: 'pyvrp' plans no transfers; take 'ruin'")
    best = best_start(packed, watch)
    if watch.is_late() or len(packed.service) == 1:
        return
    is_optional = packed.is_money or bool(best.unserved()) or _is_late(best)
    model = build_model(packed, _robot_price(best), is_optional=is_optional)
    seed = int(rng.integers(2**31))
    if packed.is_money or packed.robot_price == 0:
        _search(model, packed, watch, seed)
        return
    found = _search(model, packed, watch, seed, until=FLEET_SHARE)
    if watch.spent() < 1 and found.is_feasible():
        model, start = _with_fleet_of(found, model)
        _search(model, packed, watch, seed, start=start)
    elif watch.spent() < 1:
        _search(model, packed, watch, seed)


def _search(
    model: Model, packed: Packed, watch: Watch, seed: int, *, until: float = 1.0, start: Any = None
) -> Any:
    """Let PyVRP improve `start` until a share of the watch is spent; returns its best solution."""
    import pyvrp

    class Report(pyvrp.IteratedLocalSearchCallbacks):
        """Hands every feasible improvement to the watch."""

        def on_start(self, ils: Any) -> None:
            self.on_best(ils.initial_solution)

        def on_best(self, best: Any) -> None:
            fleet = Fleet.from_trips(packed, _trips(best, model))
            if fleet.is_feasible():
                watch.improve(fleet)

    params = pyvrp.SolveParams(ils=pyvrp.IteratedLocalSearchParams(callbacks=Report()))
    with warnings.catch_warnings():
        # Penalties at their bound say that the model is tight; there is a plan in any case.
        warnings.simplefilter("ignore", pyvrp.exceptions.PenaltyBoundWarning)
        result = pyvrp.solve(
            model.data,
            lambda _cost: not watch.advance() or watch.spent() >= until,
            seed=seed,
            collect_stats=False,
            display=False,
            params=params,
            initial_solution=start,
        )
    return result.best


def _with_fleet_of(solution: Any, model: Model) -> tuple[Model, Any]:
    """The model with only the robots that a solution uses, free of charge; the solution in it."""
    import pyvrp

    num_used = Counter(route.vehicle_type() for route in solution.routes())
    used = sorted(num_used)
    vehicle_types = [
        model.data.vehicle_type(index).replace(num_available=num_used[index], fixed_cost=0)
        for index in used
    ]
    data = model.data.replace(vehicle_types=vehicle_types)
    routes = [
        # Without the depots at both ends; those between are reloads.
        pyvrp.Route(data, list(route)[1:-1], used.index(route.vehicle_type()))
        for route in solution.routes()
    ]
    kinds = [model.kinds[index] for index in used]
    return Model(data, kinds, model.nodes), pyvrp.Solution(data, routes)


def robot_kinds(packed: Packed) -> list[list[int]]:
    """Robots grouped into those that can stand in for each other."""
    kinds: dict[int, list[int]] = {}
    first = np.arange(len(packed.twin))
    for robot, twin in enumerate(packed.twin):
        if twin >= 0:
            first[robot] = first[twin]
        kinds.setdefault(int(first[robot]), []).append(robot)
    return list(kinds.values())


def build_model(packed: Packed, robot_price: float, *, is_optional: bool) -> Model:
    """Translate the instance.

    Requests that become known too late to start in time are left out.
    """
    import pyvrp

    kinds = robot_kinds(packed)
    nodes = [int(n) for n in np.flatnonzero(packed.earliest <= packed.due) if n > 0]
    loads, capacities = _whole_loads(packed)
    price_scale = _price_scale(packed)
    prizes = _prizes(packed)
    clients = [
        pyvrp.Client(
            location=index,
            delivery=[loads[n] if packed.at_depot[n] else 0],
            pickup=[0 if packed.at_depot[n] else loads[n]],
            service_duration=_up(packed.service[n]),
            tw_early=_up(packed.earliest[n]),
            tw_late=_down(packed.due[n]),
            prize=_up(prizes[n], price_scale) if is_optional else 0,
            required=not is_optional,
        )
        for index, n in enumerate(nodes, start=1)
    ]
    # PyVRP charges a depot's service at the start of a route, too: two depots, one place.
    depots = [pyvrp.Depot(0), pyvrp.Depot(0, service_duration=_up(packed.reload))]
    vehicle_types = [
        pyvrp.VehicleType(
            num_available=len(kind),
            capacity=[capacities[kind[0]]],
            fixed_cost=_up(robot_price, price_scale),
            tw_early=_up(packed.start[kind[0]]),
            tw_late=_down(packed.end[kind[0]]),
            reload_depots=[1] if packed.max_trips[kind[0]] > 1 else [],
            max_reloads=int(min(packed.max_trips[kind[0]] - 1, len(nodes))),
        )
        for kind in kinds
    ]
    places = packed.place[[0, *nodes]]
    pairs = np.ix_(places, places)
    locations = [pyvrp.Location(0, 0) for _ in range(len(nodes) + 1)]
    data = pyvrp.ProblemData(
        locations,
        clients,
        depots,
        vehicle_types,
        distance_matrices=[_matrix(packed.distance[pairs], packed.metre_price * price_scale)],
        duration_matrices=[_matrix(packed.travel[pairs], MILLISECONDS)],
    )
    return Model(data, kinds, nodes)


def _robot_price(start: Fleet) -> float:
    """Fixed cost of a vehicle: the price in money, or a multiple of the driving in `start`.

    A price above every conceivable plan, as our own search has it, makes PyVRP's penalties coarse
    and its distances longer. `Watch` keeps the best plan by the exact objective in any case.
    """
    packed = start.packed
    if packed.is_money or packed.robot_price == 0:
        return packed.robot_price
    return ROBOT_PER_DRIVING * (start.score()[1] - packed.robot_price * len(start.used()))


def _prizes(packed: Packed) -> Floats:
    """Denial prices; where no money is meant, so high that any driving is preferred."""
    if packed.is_money:
        return packed.denial_price
    longest = packed.distance[np.isfinite(packed.distance)].max()
    above_driving = float(packed.robot_price + 2 * len(packed.distance) * longest + 1)
    prizes: Floats = above_driving * packed.denial_price / packed.denial_price[1:].min()
    return prizes


def _price_scale(packed: Packed) -> float:
    """Power of ten with which the longest leg costs at most `LONGEST_LEG`."""
    longest = packed.metre_price * packed.distance[np.isfinite(packed.distance)].max()
    return float(10.0 ** math.floor(math.log10(LONGEST_LEG / longest))) if longest > 0 else 1.0


def _whole_loads(packed: Packed) -> tuple[list[int], list[int]]:
    """Loads and capacities in units of their greatest common divisor, or in parts of it."""
    unit = max(1, np.gcd.reduce([*packed.load.astype(int), *packed.capacity.astype(int)]))
    carried = packed.load[packed.load > 0] / unit
    parts = max(1, round(MEAN_LOAD / carried.mean())) if carried.size else 1
    loads, capacities = (
        [parts * (int(load) // int(unit)) for load in values]
        for values in (packed.load, packed.capacity)
    )
    return loads, capacities


def _matrix(values: Floats, scale: float) -> Any:
    """Scaled matrix, rounded up; legs that cannot be driven get PyVRP's largest value."""
    from pyvrp.constants import MAX_VALUE

    whole = np.full(values.shape, MAX_VALUE, dtype=np.int64)
    has_way = np.isfinite(values)
    whole[has_way] = np.ceil(values[has_way] * scale - _FUZZ).astype(np.int64)
    np.fill_diagonal(whole, 0)
    return whole


def _up(value: float, scale: float = MILLISECONDS) -> int:
    return math.ceil(value * scale - _FUZZ)


def _down(value: float) -> int:
    return math.floor(value * MILLISECONDS + _FUZZ)


def _is_late(fleet: Fleet) -> bool:
    """Whether any service starts after it is due."""
    packed, chains = fleet.packed, fleet.chains
    return any(
        chains.node[robot, k] != 0 and chains.begin[robot, k] > packed.due[chains.node[robot, k]]
        for robot in fleet.used()
        for k in range(chains.length[robot])
    )


def _trips(solution: Any, model: Model) -> Trips:
    """Trips by robot; routes of one kind are handed to its robots in order."""
    free = [list(kind) for kind in model.kinds]
    trips: Trips = {}
    for route in solution.routes():
        by_trip: dict[int, list[int]] = {}
        for activity in route.schedule():
            if activity.is_client():
                by_trip.setdefault(activity.trip, []).append(model.nodes[activity.idx])
        if by_trip:
            trips[free[route.vehicle_type()].pop(0)] = list(by_trip.values())
    return trips
