"""A single request goes to the cheapest place there is: all places tried with slow tools."""

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest

from wardwise.fleet.check import check
from wardwise.fleet.dispatch import Dispatcher, Rule, Status
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.schedule import schedule
from wardwise.fleet.solvers import solve


def random_morning(rng):
    """Six requests that nobody leaves for before 50, on three robots of two kinds."""
    points = rng.integers(0, 40, (6, 2))
    metres = np.abs(points[:, None] - points[None]).sum(axis=2).astype(float)
    robots = [
        Robot(id=f"R{k}", capacity=2.0 + k % 2, end_s=600.0, max_trips=[None, 1, 2][k])
        for k in range(3)
    ]
    instance = Instance(
        name="morning",
        places=tuple(Place(id=f"P{k}") for k in range(6)),
        requests=(),
        robots=tuple(robots),
        travel_s=metres,
        distance_m=metres,
        reload_s=3.0,
        costs=Costs(per_robot=30.0),
    )
    return replace(instance, requests=tuple(random_request(rng, f"K{k}") for k in range(6)))


def random_request(rng, id_):
    """A request with a hard window from 150 on."""
    kind = rng.choice(list(Kind))
    place, origin = rng.permutation(5)[:2] + 1
    ready_s = float(rng.integers(150, 300))
    way_s = 90.0 if kind == Kind.TRANSFER else 0.0  # longest way between two places, and service
    return Request(
        id=id_,
        kind=str(kind),
        place=f"P{place}",
        origin=f"P{origin}" if kind == Kind.TRANSFER else None,
        load=float(rng.integers(0, 3)),
        ready_s=ready_s,
        due_s=ready_s + way_s + float(rng.integers(0, 100)),
        service_s=float(rng.integers(0, 8)),
        priority=int(rng.integers(1, 4)),
    )


def longer_routes(trips, request):
    """All ways to put the stops of a request into the trips of a robot."""
    stops = [request.id] * (2 if request.kind is Kind.TRANSFER else 1)
    for number in range(len(trips) + 1):
        yield [*trips[:number], stops, *trips[number:]]
    for number, trip in enumerate(trips):
        for places in combinations_with_replacement(range(len(trip) + 1), len(stops)):
            longer = list(trip)
            for place in reversed(places):
                longer.insert(place, request.id)
            yield [*trips[:number], longer, *trips[number + 1 :]]


def cheapest_by_trying(instance, plan, request, robots):
    """Least change of the checker's cost over all feasible places on some robots."""
    routes = {robot.id: [] for robot in instance.robots}
    for trip in plan.trips:
        routes[trip.robot].append([stop.request for stop in trip.stops])
    whole = replace(instance, requests=(*instance.requests, request))
    before, best = check(instance, plan).cost.total, np.inf
    for robot in robots:
        for route in longer_routes(routes[robot], request):
            try:
                trial = schedule(whole, {**routes, robot: route}, plan.denied)
            except ValueError:
                continue
            report = check(whole, trial)
            if report.is_feasible:
                best = min(best, report.cost.total - before)
    return best


@pytest.mark.parametrize("seed", range(60))
def test_a_request_goes_to_the_cheapest_place(seed):
    """D1 on robots in service, D2 on the others; both agree with the plan of all requests."""
    rng = np.random.default_rng(seed)
    instance = random_morning(rng)
    plan = solve(instance, method="insertion", objective="cost")
    request = random_request(rng, "new")
    used = {trip.robot for trip in plan.trips}
    spares = [robot.id for robot in instance.robots if robot.id not in used]
    loss = instance.costs.per_denial[request.priority - 1]
    inserted = cheapest_by_trying(instance, plan, request, sorted(used))
    opened = cheapest_by_trying(instance, plan, request, spares)
    dispatcher = Dispatcher(instance, plan)
    decision = dispatcher.submit(request, 0.0)
    if inserted <= loss:
        assert (decision.rule, decision.cost_delta) == (Rule.INSERT, pytest.approx(inserted))
    elif opened <= loss or (request.priority == 1 and opened < np.inf):
        assert (decision.rule, decision.cost_delta) == (Rule.SPARE, pytest.approx(opened))
    else:
        assert decision.status in (Status.DENIED, Status.UNSERVABLE)
