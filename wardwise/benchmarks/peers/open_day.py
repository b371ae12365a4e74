"""A day at a moment with many open stops, and requests that might appear then.

Known requests are customers of a Gehring-Homberger file and, where these do not
suffice, the same customers once more with windows moved; so are the new requests.
Windows are hard, priorities are 20/30/50 %, and ten spares stand ready.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.dispatch import Dispatcher
from wardwise.fleet.solvers import solve
from wardwise.io import read_instance

from .committed import State, Vehicle

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.random import Generator

    from wardwise.fleet.dispatch import Journal
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Request

PRIORITY_MIX = (0.2, 0.3, 0.5)
NUM_SPARES = 10
# More stops than wanted are planned, so that some robots have left when the rest is open.
PLANNED_SHARE = 1.1
PLAN_ITERATIONS = 2_000
FOREVER_S = 1e9
NUM_MOMENTS = 200


class OpenDay(NamedTuple):
    """A plan, a moment, and requests that are submitted from then on."""

    instance: Instance
    plan: Plan
    now_s: float
    num_open: int
    new: tuple[Request, ...]

    def dispatcher(self, journal: Journal | None = None) -> Dispatcher:
        """The day as it stands at the moment."""
        dispatcher = Dispatcher(self.instance, self.plan, None, journal)
        dispatcher.advance(self.now_s)
        return dispatcher


def open_day(path: Path, *, num_open: int, num_new: int, seed: int) -> OpenDay:
    """Plan a day, and let time pass until `num_open` stops are left."""
    rng = np.random.default_rng(seed)
    base = read_instance(path)
    num_planned = round(PLANNED_SHARE * num_open)
    customers = [base.requests[k] for k in rng.permutation(len(base.requests))[:num_planned]]
    customers += [
        _again(base, customers[k], f"again{k}", 0.0, rng)
        for k in range(num_planned - len(customers))
    ]
    known = replace(base, requests=tuple(_ranked(request, rng) for request in customers))
    plan = solve(
        known, objective="cost", time_limit=FOREVER_S, max_iterations=PLAN_ITERATIONS, seed=seed
    )
    used = {trip.robot for trip in plan.trips}
    spares = [robot for robot in known.robots if robot.id not in used][:NUM_SPARES]
    kept = {*used, *(robot.id for robot in spares)}
    instance = replace(known, robots=tuple(robot for robot in known.robots if robot.id in kept))
    now_s, left = _moment(instance, plan, num_open)
    new = [
        _again(base, base.requests[k], f"new{i}", now_s, rng)
        for i, k in enumerate(rng.integers(len(base.requests), size=num_new))
    ]
    return OpenDay(instance, plan, now_s, left, tuple(_ranked(request, rng) for request in new))


def committed_state(day: OpenDay, request: Request) -> State:
    """What a full re-solve looks at when a request appears."""
    dispatcher = day.dispatcher()
    index, requests = day.instance.place_index, day.instance.request_by_id
    committed = dispatcher.committed()
    trips = {trip.robot: trip for trip in dispatcher.plan().trips}
    ahead: list[Request] = []
    vehicles, plan = [], []
    for robot in day.instance.robots:
        behind = committed.get(robot.id, ())
        place, free_s, load = 0, max(day.now_s, robot.start_s), 0.0
        if behind:
            last = requests[behind[-1].request]
            place = index[last.place]
            free_s = max(day.now_s, behind[-1].start_s + last.service_s)
            load = sum(requests[stop.request].load for stop in behind)
        vehicles.append(
            Vehicle(
                place=place,
                free_s=free_s,
                room=robot.capacity - load,
                end_s=robot.end_s,
                is_used=bool(behind),
            )
        )
        stops = trips[robot.id].stops[len(behind) :] if robot.id in trips else ()
        plan.append(tuple(range(len(ahead), len(ahead) + len(stops))))
        ahead += [requests[stop.request] for stop in stops]
    return State(
        instance=day.instance,
        vehicles=tuple(vehicles),
        requests=(*ahead, request),
        optional=frozenset({request.id}),
        plan=tuple(plan),
    )


def _moment(instance: Instance, plan: Plan, num_open: int) -> tuple[float, int]:
    """First moment with so few open stops, and how many there are."""
    dispatcher = Dispatcher(instance, plan)
    for now_s in np.linspace(0.0, instance.robots[0].end_s, NUM_MOMENTS).tolist():
        dispatcher.advance(now_s)
        left = dispatcher.outcome().num_open
        if left <= num_open:
            break
    return now_s, left


def _again(base: Instance, request: Request, id_: str, now_s: float, rng: Generator) -> Request:
    """A customer once more, with its window moved to where a robot from the depot is in time."""
    width_s = request.due_s - request.ready_s
    place = base.place_index[request.place]
    first_s = now_s + float(base.travel_s[0, place])
    last_s = base.robots[0].end_s - request.service_s - float(base.travel_s[place, 0]) - width_s
    ready_s = float(rng.uniform(first_s, max(first_s, last_s)))
    return replace(request, id=id_, ready_s=ready_s, due_s=ready_s + width_s, release_s=0.0)


def _ranked(request: Request, rng: Generator) -> Request:
    return replace(request, priority=1 + int(rng.choice(3, p=PRIORITY_MIX)))
