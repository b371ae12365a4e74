"""Why a plan serves less than was asked: which requests, and what stands in the way.

A request that is left out is tried alone, with a whole robot for itself. If even that
fails, the constraint that fails is named; else the fleet is too small, or the search was
too short, for all of them together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.chance import certify, evaluate
from wardwise.fleet.chance.certify import upper_bounds
from wardwise.fleet.charging import Obstacle, charge_trips
from wardwise.fleet.randomness import Scope
from wardwise.fleet.schedule import schedule
from wardwise.report.service import broken_promises

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Robot

MOST_NAMES = 10
SCENARIOS = 2000
PROMISE, TRIP, RETURN, FLEET = "promise", "promise by trip", "promised return", "fleet"


def shortcomings(instance: Instance, plan: Plan, *, is_denial_a_choice: bool) -> str | None:
    """One line that names requests and constraints, if any is denied or any promise broken."""
    found: dict[str, list[str]] = {}
    for request in () if is_denial_a_choice else plan.denied:
        found.setdefault(obstacle(instance, request), []).append(request)
    parts = [
        f"{constraint}: {_named('request', names)} not served"
        for constraint, names in found.items()
    ]
    parts += _broken(instance, plan)
    return "; ".join(parts) or None


def obstacle(instance: Instance, request: str) -> str:
    """Constraint that keeps a request from being served by any robot alone, else the fleet."""
    constraints: list[str] = []
    for robot in _kinds(instance.robots):
        found = charge_trips(instance, robot.id, [[request]])
        if isinstance(found, Obstacle):
            constraints.append(found.constraint)
            continue
        if instance.promise is None:
            return FLEET
        alone = schedule(instance, {robot.id: found.trips})
        certificate = certify(instance, alone, num_scenarios=SCENARIOS).certificate
        assert certificate is not None
        if certificate.holds:
            return FLEET
        constraints.append(PROMISE)
    # Of several kinds of robots, the one that came furthest says what is missing.
    return PROMISE if PROMISE in constraints else constraints[0]


def _kinds(robots: Iterable[Robot]) -> list[Robot]:
    """One robot of each kind."""
    return list({robot.kind: robot for robot in robots}.values())


def _broken(instance: Instance, plan: Plan) -> list[str]:
    """Promises that the certificate does not keep."""
    if plan.certificate is None or instance.promise is None or plan.certificate.holds:
        return []
    parts = []
    if instance.promise.scope is Scope.TRIP:
        late = _late_trips(instance, plan)
        if late:
            parts.append(f"{TRIP}: {_named('request', late)} late too often")
    elif late := list(broken_promises(instance, plan)):
        parts.append(f"{PROMISE}: {_named('request', late)} late too often")
    share = instance.promise.return_share
    robots = [risk.robot for risk in plan.certificate.returns if risk.upper > share]
    if robots:
        parts.append(f"{RETURN}: {_named('robot', robots)} late too often")
    return parts


def _late_trips(instance: Instance, plan: Plan) -> list[str]:
    """Requests of the trips on which something is late too often."""
    certificate, promise = plan.certificate, instance.promise
    assert certificate is not None
    assert promise is not None
    outcome = evaluate(
        instance, plan, num_scenarios=certificate.num_scenarios, seed=certificate.seed, jobs=None
    )
    uppers = upper_bounds(
        np.array(outcome.late_trips), outcome.num_scenarios, certificate.confidence
    )
    names: list[str] = []
    for trip, upper in zip(plan.trips, uppers, strict=True):
        requests = [stop.request for stop in trip.stops if not stop.is_pickup]
        allowed = min(
            (promise.late_share[instance.request_by_id[r].priority - 1] for r in requests),
            default=math.inf,
        )
        if upper > allowed:
            names += requests
    return names


def _named(what: str, names: list[str]) -> str:
    """Names in a row, the first of many."""
    shown = ", ".join(repr(name) for name in names[:MOST_NAMES])
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{what}{'' if len(names) == 1 else 's'} {shown}{more}"
