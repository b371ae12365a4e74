"""What random days make of a plan: the same 20,000 for all plans, and the referee."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.chance import evaluate, forecast
from wardwise.fleet.check import check

from .plans import LATE_SHARE, late_alone

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

    from .plans import Task

NUM_SCENARIOS = 20_000
# Other days than those by which a search may have certified its plan.
JUDGE_SEED = 2023


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One plan on random days; shares run over requests.

    `max_late` and `num_above` (stops late on more than 5 % of the days) are over the
    requests for which a robot of its own would do better; `worst_late` and `num_all_above`
    are over all. `chain_error` is the largest difference between a late share and what the
    normal chain says of it. Without a feasible plan that serves all, `robots` is 0.
    """

    instance: str
    method: str
    inflation: float | None
    seconds: float
    seed: int
    robots: int = 0
    distance: float = 0.0
    mean_late: float = 1.0
    max_late: float = 1.0
    num_above: int = 0
    worst_late: float = 1.0
    num_all_above: int = 0
    late_return: float = 1.0
    lateness: float = 0.0
    chain_lateness: float = 0.0
    chain_error: float = 0.0

    @property
    def is_punctual(self) -> bool:
        """Whether there is a plan that is late nowhere on more than 5 % of the days."""
        return self.robots > 0 and self.max_late <= LATE_SHARE


def judge(task: Task, instance: Instance, plan: Plan | None) -> Judged:
    """Verdict on a plan; one that the referee refuses counts as none."""
    z = task.inflation
    names = {
        "instance": task.path.stem, "method": task.method, "inflation": z,
        "seconds": task.seconds, "seed": task.seed,
    }  # fmt: skip
    if plan is None:
        return Judged(**names)
    report = check(instance, plan)
    if not report.is_feasible or report.cost.num_denied:
        return Judged(**names)
    outcome = evaluate(instance, plan, num_scenarios=NUM_SCENARIOS, seed=JUDGE_SEED)
    chain = forecast(instance, plan)
    alone = late_alone(instance)
    late = {name: count / NUM_SCENARIOS for name, count in outcome.late.items()}
    shares = np.array([*late.values()])
    off = [abs(share - chain.requests[name].late_share) for name, share in late.items()]
    kept = np.array([share for name, share in late.items() if alone[name] <= LATE_SHARE])
    return Judged(
        **names,
        robots=report.cost.num_robots,
        distance=round(report.cost.distance_m, 3),
        mean_late=float(shares.mean()),
        max_late=float(kept.max()),
        num_above=int((kept > LATE_SHARE).sum()),
        worst_late=float(shares.max()),
        num_all_above=int((shares > LATE_SHARE).sum()),
        late_return=max(outcome.late_returns.values()) / NUM_SCENARIOS,
        lateness=outcome.lateness_s,
        chain_lateness=chain.lateness_s,
        chain_error=max(off),
    )
