"""Service levels of a day: what a plan's certificate says beside what is promised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.fleet.chance import service_levels
from wardwise.fleet.randomness import Promise

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

PRIORITIES = {1: "stat", 2: "urgent", 3: "routine"}


@dataclass(frozen=True, kw_only=True)
class PromisedClass:
    """Late shares of the requests of one priority that the plan serves.

    Parameters
    ----------
    promised
        Largest late share that is promised.
    mean, largest, upper
        Mean and largest share of the random days, and the largest upper bound.
    """

    priority: str
    num_requests: int
    promised: float
    mean: float
    largest: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class ServiceKpis:
    """Certified service level of a day.

    Parameters
    ----------
    confidence
        With which each upper bound holds.
    scope
        Whether the promise holds for each request or for all of a trip at once.
    holds
        Whether the promise is kept; by a whole trip, this is more than the classes say.
    largest, upper
        Largest late share of any request, and the largest upper bound.
    return_promised, return_largest, return_upper
        The same for robots that are back after their shift.
    """

    num_scenarios: int
    confidence: float
    scope: str
    holds: bool
    largest: float
    upper: float
    classes: tuple[PromisedClass, ...]
    return_promised: float
    return_largest: float
    return_upper: float
    expected_lateness_s: float


def service_kpis(instance: Instance, plan: Plan) -> ServiceKpis | None:
    """Figures of the certificate, if the plan has one; classes without requests are left out."""
    certificate = plan.certificate
    if certificate is None:
        return None
    # As `certify` judges an instance that states no promise.
    promise = instance.promise or Promise()
    levels = [level for level in service_levels(instance, certificate) if level.num_requests]
    return ServiceKpis(
        num_scenarios=certificate.num_scenarios,
        confidence=certificate.confidence,
        scope=str(promise.scope),
        holds=certificate.holds,
        largest=max((risk.late_share for risk in certificate.requests), default=0.0),
        upper=max((risk.upper for risk in certificate.requests), default=0.0),
        classes=tuple(
            PromisedClass(
                priority=PRIORITIES[level.priority],
                num_requests=level.num_requests,
                promised=promise.late_share[level.priority - 1],
                mean=level.mean_late_share,
                largest=level.largest_late_share,
                upper=level.largest_upper,
            )
            for level in levels
        ),
        return_promised=promise.return_share,
        return_largest=max((risk.late_share for risk in certificate.returns), default=0.0),
        return_upper=max((risk.upper for risk in certificate.returns), default=0.0),
        expected_lateness_s=certificate.expected_lateness_s,
    )


def service_line(service: ServiceKpis) -> str:
    """One sentence for those who answer for the service: the most urgent class of the plan."""
    if not service.classes:
        return "Nothing is served, so nothing can be late."
    first = service.classes[0]
    is_kept = first.upper <= first.promised if service.scope == "request" else service.holds
    return (
        f"On {service.num_scenarios:,} random days, {first.priority} requests are late on at most "
        f"{100 * first.upper:.2f} % of the days (promise {100 * first.promised:g} %) – "
        f"{'kept' if is_kept else 'not kept'}."
    )


def broken_promises(instance: Instance, plan: Plan) -> tuple[str, ...]:
    """Requests whose bound exceeds what is promised, the worst first; of trips, too."""
    if plan.certificate is None:
        return ()
    promise = instance.promise or Promise()
    allowed = {
        request.id: promise.late_share[request.priority - 1] for request in instance.requests
    }
    over = {
        risk.request: risk.upper - allowed[risk.request]
        for risk in plan.certificate.requests
        if risk.upper > allowed[risk.request]
    }
    return tuple(sorted(over, key=lambda request: -over[request]))
