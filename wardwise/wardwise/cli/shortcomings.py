"""Why a plan serves less than was asked: which requests, and what stands in the way.

A request that is left out is tried alone, with a whole robot for itself. If even that
fails, the constraint that fails is named; else the fleet is too small, or the search was
too short, for all of them together. On the terminal requests are named by constraint, in
JSON each has a sentence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.chance import certify, evaluate
from wardwise.fleet.chance.certify import CONFIDENCE, least_scenarios, upper_bounds
from wardwise.fleet.charging import Obstacle, charge_trips
from wardwise.fleet.problem import Kind
from wardwise.fleet.randomness import Scope
from wardwise.fleet.schedule import schedule
from wardwise.report.service import broken_promises

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wardwise.fleet.plan import Certificate, Plan
    from wardwise.fleet.problem import Instance, Robot

MOST_NAMES = 10
SCENARIOS = 2000
PROMISE, TRIP, RETURN, FLEET = "promise", "promise by trip", "promised return", "fleet"
# What a robot with nothing else to do meets, in the order in which it is looked at.
SENTENCES = {
    "capacity": "too large for every robot",
    "window": "out of reach of its window, even for a robot with nothing else to do",
    "shift": "no robot is back in its shift, even with nothing else to do",
    "battery": "unreachable on a full battery",
    PROMISE: "punctual too seldom, even with a robot that has nothing else to do",
    FLEET: "a robot alone could serve it, but not beside all others",
}


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a request is denied: the constraint in a word, and in a sentence what was found."""

    request: str
    constraint: str
    sentence: str


def reasons_of(instance: Instance, plan: Plan) -> tuple[Reason, ...]:
    """Why each request that is denied is, in the order of the plan."""
    names = (name for name in dict.fromkeys(plan.denied) if name in instance.request_by_id)
    return tuple(reason_of(instance, name) for name in names)


def shortcomings(instance: Instance, plan: Plan, denials: Sequence[Reason]) -> str | None:
    """One line that names requests and constraints, if any is denied or any promise broken."""
    found: dict[str, list[str]] = {}
    for denial in denials:
        found.setdefault(denial.constraint, []).append(denial.request)
    parts = [
        f"{constraint}: {_named('request', names)} not served"
        for constraint, names in found.items()
    ]
    parts += _broken(instance, plan)
    return "; ".join(parts) or None


def reason_of(instance: Instance, request: str) -> Reason:
    """What keeps a request from being served by any robot alone, else the fleet."""
    met: dict[str, str] = {}
    is_transfer = instance.request_by_id[request].kind is Kind.TRANSFER
    trip = [request, request] if is_transfer else [request]
    for robot in _kinds(instance.robots):
        found = charge_trips(instance, robot.id, [trip])
        if isinstance(found, Obstacle):
            met.setdefault(found.constraint, found.finding)
            continue
        if instance.promise is not None:
            alone = schedule(instance, {robot.id: found.trips})
            days = max(SCENARIOS, least_scenarios(instance.promise, CONFIDENCE))
            certificate = certify(instance, alone, num_scenarios=days).certificate
            assert certificate is not None
            if not certificate.holds:
                met.setdefault(PROMISE, _late(certificate))
                continue
        num = len(instance.robots)
        has_slots = any(s.charge and s.num_slots is not None for s in instance.stations)
        more = f"more than {num} robot{'' if num == 1 else 's'}{', more slots' * has_slots}"
        met = {FLEET: f"expected {more}, or more time"}
        break
    # Of several kinds of robots, the one that came furthest says what is missing.
    constraint = max(met, key=list(SENTENCES).index)
    sentence = f"{SENTENCES[constraint]}: {met[constraint]}"
    return Reason(request=request, constraint=constraint, sentence=sentence)


def _late(certificate: Certificate) -> str:
    """Bounds of the shares of days on which the request and its robot are late."""
    (risk,), (back,) = certificate.requests, certificate.returns
    return (
        f"late on up to {100 * risk.upper:.2g} % of the days, back late on up to "
        f"{100 * back.upper:.2g} %"
    )


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
