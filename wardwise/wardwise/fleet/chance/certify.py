"""Certificates: with what confidence a plan keeps its promise.

The share of scenarios in which something is late is binomial. Its upper bound is that
of Clopper and Pearson (1934, Biometrika 26(4)): the largest share that would show so few
late days with probability 1 - `confidence`, a quantile of a beta distribution. Each bound
holds with that confidence by itself. A plan keeps its promise if no bound exceeds it,
without any tolerance: chance works against the plan, never for it.

A promise is out of reach of too few scenarios: with none late in n, the bound is still
``1 - (1 - confidence) ** (1 / n)``. So n is raised to where this is half of the promise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv

from wardwise.fleet.chance.scenarios import MOST_SCENARIOS, evaluate
from wardwise.fleet.check import Timing
from wardwise.fleet.plan import Certificate, RequestRisk, ReturnRisk
from wardwise.fleet.problem import NUM_PRIORITIES
from wardwise.fleet.randomness import Promise, Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wardwise.fleet.chance.scenarios import Outcome
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

# Of each bound.
CONFIDENCE = 0.99


def certify(
    instance: Instance,
    plan: Plan,
    *,
    num_scenarios: int = 20_000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    jobs: int | None = 1,
    timing: Timing = Timing.PLANNED,
) -> Plan:
    """Drive a plan on random days and write into it how often what was late.

    Parameters
    ----------
    instance
        Without `randomness` or `promise` it gets the defaults of `Randomness` and
        `Promise`.
    num_scenarios
        At least so many; more where no fewer can show that the promise is kept.
    seed
        The same seed gives the same days, to all plans.
    confidence
        Of each bound, above 0 and below 1.
    jobs
        Threads; `None`: one for each core. The certificate does not depend on it.
    timing
        `Timing.DISPATCHED`: no robot leaves for a request before its release, and up to
        the last call on the way to a request the day has gone as planned.

    Returns
    -------
    Plan
        The same, with a certificate.

    Raises
    ------
    ValueError
        If a parameter is out of range, if the promise takes more than 100,000,000
        scenarios, or as `evaluate`.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected above 0 and below 1, got {confidence}")
    promise = instance.promise or Promise()
    num_scenarios = max(num_scenarios, least_scenarios(promise, confidence))
    outcome = evaluate(
        instance, plan, num_scenarios=num_scenarios, seed=seed, jobs=jobs, timing=timing
    )
    return replace(
        plan,
        certificate=Certificate(
            num_scenarios=num_scenarios,
            seed=seed,
            confidence=confidence,
            requests=tuple(
                RequestRisk(request=name, late_share=share, upper=upper)
                for name, share, upper in _risks(outcome.late, num_scenarios, confidence)
            ),
            returns=tuple(
                ReturnRisk(robot=name, late_share=share, upper=upper)
                for name, share, upper in _risks(outcome.late_returns, num_scenarios, confidence)
            ),
            expected_lateness_s=outcome.lateness_s,
            holds=keeps(instance, plan, outcome, confidence=confidence),
        ),
    )


def keeps(
    instance: Instance, plan: Plan, outcome: Outcome, *, confidence: float = CONFIDENCE
) -> bool:
    """Whether every bound keeps the promise of the instance, for its requests or its trips."""
    promise = instance.promise or Promise()

    def are_kept(num_late: Sequence[int], shares: Sequence[float]) -> bool:
        upper = upper_bounds(np.array(num_late), outcome.num_scenarios, confidence)
        return bool((upper <= np.array(shares)).all())

    share_of = {
        request.id: promise.late_share[request.priority - 1] for request in instance.requests
    }
    if promise.scope is Scope.TRIP:
        strictest = [min(share_of[stop.request] for stop in trip.stops) for trip in plan.trips]
        is_punctual = are_kept(outcome.late_trips, strictest)
    else:
        is_punctual = are_kept([*outcome.late.values()], [share_of[id_] for id_ in outcome.late])
    returns = [*outcome.late_returns.values()]
    return is_punctual and are_kept(returns, [promise.return_share] * len(returns))


def upper_bounds(
    num_late: NDArray[np.int64], num_scenarios: int, confidence: float
) -> NDArray[np.float64]:
    """One-sided bounds of Clopper and Pearson on shares, shape as `num_late`."""
    on_time = np.maximum(num_scenarios - num_late, 1)
    bounds = betaincinv(num_late + 1, on_time, confidence)
    return np.asarray(np.where(num_late < num_scenarios, bounds, 1.0))


def least_scenarios(promise: Promise, confidence: float) -> int:
    """So many scenarios, none of them late, bound a share by half of the strictest promise.

    Raises
    ------
    ValueError
        If these are more than 100,000,000.
    """
    share = min(*promise.late_share, promise.return_share)
    least = math.ceil(math.log1p(-confidence) / math.log1p(-share / 2))
    if least > MOST_SCENARIOS:
        raise ValueError(
            f"promise: late_share: {share:g} takes {least:,} scenarios, expected at most "
            f"{MOST_SCENARIOS:,}"
        )
    return least


@dataclass(frozen=True, kw_only=True)
class ServiceLevel:
    """Late shares over the requests of one priority; the shares are 0 where there are none."""

    priority: int
    num_requests: int
    mean_late_share: float
    largest_late_share: float
    largest_upper: float


def service_levels(instance: Instance, certificate: Certificate) -> tuple[ServiceLevel, ...]:
    """Service levels of the priorities stat, urgent and routine."""
    levels = []
    for priority in range(1, NUM_PRIORITIES + 1):
        risks = [
            risk
            for risk in certificate.requests
            if instance.request_by_id[risk.request].priority == priority
        ]
        shares = [risk.late_share for risk in risks]
        levels.append(
            ServiceLevel(
                priority=priority,
                num_requests=len(risks),
                mean_late_share=math.fsum(shares) / max(len(shares), 1),
                largest_late_share=max(shares, default=0.0),
                largest_upper=max((risk.upper for risk in risks), default=0.0),
            )
        )
    return tuple(levels)


def _risks(
    num_late: dict[str, int], num_scenarios: int, confidence: float
) -> list[tuple[str, float, float]]:
    """Name, share of the scenarios and upper bound."""
    counts = np.array([*num_late.values()], dtype=np.int64)
    upper = upper_bounds(counts, num_scenarios, confidence)
    return [
        (name, count / num_scenarios, float(bound))
        for (name, count), bound in zip(num_late.items(), upper, strict=True)
    ]
