"""The normal chain of a plan: arrivals, risks and delays without drawing a single day.

Arrivals are taken as normal all along a robot's day, through reloads, charges and the
trips that follow; waits change their moments as in `wardwise.fleet.chance.normal`. It is
quick, and what the search believes in. It errs where times are skewed and windows narrow,
and it knows the factor of the day only as more variance of every leg by itself: what is
promised is certified on scenarios (`wardwise.fleet.chance.certify`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.chance.normal import expected_lateness, late_probability
from wardwise.fleet.chance.slack import arrivals
from wardwise.fleet.chance.steps import itinerary_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wardwise.fleet.chance.steps import Itinerary
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the chain says of a request, or of a robot's last return.

    Attributes
    ----------
    arrival_s, deviation_s
        Mean and standard deviation of the arrival.
    late_share
        Probability that service starts, or the robot is back, too late.
    lateness_s
        Mean delay past `due_s`; of a return 0.
    """

    arrival_s: float
    deviation_s: float
    late_share: float
    lateness_s: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the normal chain says of a plan, by request and by robot."""

    requests: dict[str, Expected]
    returns: dict[str, Expected]
    lateness_s: float


def forecast(instance: Instance, plan: Plan) -> Forecast:
    """Arrivals, risks and mean delays of a plan by the normal chain.

    Raises
    ------
    ValueError
        As `wardwise.fleet.chance.steps.itinerary_of`.
    """
    itinerary = itinerary_of(instance, plan)
    mean_s, var_s2 = chain_moments(itinerary)
    steps = itinerary.steps

    def expected(k: int) -> Expected:
        mean, var = float(mean_s[k]), float(var_s2[k])
        due_s = float(steps.due_s[k])
        return Expected(
            arrival_s=mean,
            deviation_s=math.sqrt(var),
            late_share=float(late_probability(mean, var, float(steps.latest_s[k]))),
            lateness_s=float(expected_lateness(mean, var, due_s)) if due_s < math.inf else 0.0,
        )

    requests = {name: expected(step) for name, step in itinerary.requests.items()}
    return Forecast(
        requests=requests,
        returns={name: expected(step) for name, step in itinerary.returns.items()},
        lateness_s=math.fsum(each.lateness_s for each in requests.values()),
    )


def chain_moments(itinerary: Itinerary) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean in s and variance in s2 of the arrival at each step, before any wait."""
    steps = itinerary.steps
    more_s = steps.serve_s + steps.drive_s + steps.wait_s + steps.fixed_s
    mean_s, var_s2 = np.empty_like(more_s), np.empty_like(more_s)
    for row in itinerary.rows:
        part = slice(row.first, row.last)
        arrivals(
            row.start_s,
            0.0,
            more_s[part],
            steps.var_s2[part],
            steps.earliest_s[part],
            mean_s[part],
            var_s2[part],
        )
    return mean_s, var_s2
