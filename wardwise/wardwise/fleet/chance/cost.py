"""What a plan costs on average when late service is paid for instead of ruled out.

The recourse view of random times: robots, metres and denials cost what the plan says,
delays past `due_s` their price by priority, and, where it is given, waiting for windows
to open its own (penalties of early and late service, as in soft time windows).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.fleet.chance.scenarios import evaluate
from wardwise.fleet.check import check

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance


@dataclass(frozen=True, kw_only=True)
class ExpectedCost:
    """Mean cost of a day in money, by its parts."""

    robot_cost: float
    distance_cost: float
    denial_cost: float
    lateness_cost: float
    waiting_cost: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return (
            self.robot_cost
            + self.distance_cost
            + self.denial_cost
            + self.lateness_cost
            + self.waiting_cost
        )


def expected_cost(
    instance: Instance,
    plan: Plan,
    *,
    waiting_per_s: float = 0.0,
    num_scenarios: int = 20_000,
    seed: int = 0,
    jobs: int | None = 1,
) -> ExpectedCost:
    """Mean cost of a plan over random days.

    Parameters
    ----------
    waiting_per_s
        Price of a robot's waiting at a stop; at least 0.
    num_scenarios, seed, jobs
        As of `evaluate`: plans that are compared with one seed meet the same days.

    Raises
    ------
    ValueError
        If a parameter is out of range, or as `evaluate`.
    """
    if not 0 <= waiting_per_s < float("inf"):
        raise ValueError(
            f"waiting_per_s: expected a finite number of at least 0, got {waiting_per_s}"
        )
    outcome = evaluate(instance, plan, num_scenarios=num_scenarios, seed=seed, jobs=jobs)
    cost = check(instance, plan).cost
    return ExpectedCost(
        robot_cost=cost.robot_cost,
        distance_cost=cost.distance_cost,
        denial_cost=cost.denial_cost,
        lateness_cost=outcome.lateness_cost,
        waiting_cost=waiting_per_s * outcome.waiting_s,
    )
