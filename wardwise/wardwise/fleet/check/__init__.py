"""The referee: says whether a plan is feasible, and what it costs.

Whoever plans may use any shortcut; what counts is the verdict given here. It
therefore shares no code with any solver, takes nothing from the plan but the
stated times, and recomputes the rest stop by stop in double precision.

Each stated time is compared with the earliest time possible after the *stated*
times before it. One wrong time is so reported where it stands, not at every stop
after it. All violations are reported, not the first alone.

Times are a plan's, or facts that were measured while it was driven; see `Timing`.

Legs to and from an unknown request, or where there is no way, count no metres:
the plan is infeasible anyhow, and its cost stays finite.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from wardwise.fleet.check.cost import cost_of
from wardwise.fleet.check.coverage import coverage_violations
from wardwise.fleet.check.energy import energy_violations, slot_violations
from wardwise.fleet.check.loads import load_violations
from wardwise.fleet.check.times import robot_violations, time_violations
from wardwise.fleet.check.verdict import Constraint, Report, Timing, Violation

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

__all__ = ["Constraint", "Report", "Timing", "Violation", "check"]


def check(
    instance: Instance,
    plan: Plan,
    *,
    tolerance_s: float = 1e-6,
    timing: Timing = Timing.PLANNED,
) -> Report:
    """Recompute feasibility and cost of a plan.

    Parameters
    ----------
    tolerance_s
        Seconds by which a stated time may miss a bound through rounding. Lateness
        up to it is no lateness.
    timing
        What the stated times are, and with it which of them can be at fault.

    Returns
    -------
    Report
        Every violation, in the order: plan, requests, each robot's trips in driving
        order and then its battery, slots of stations; and the cost, which for an
        infeasible plan is that of the part that can be driven.

    Raises
    ------
    ValueError
        If `tolerance_s` is negative or not finite.
    """
    if not (math.isfinite(tolerance_s) and tolerance_s >= 0):
        raise ValueError(f"tolerance_s: expected a finite number of at least 0, got {tolerance_s}")
    violations = [*coverage_violations(instance, plan)]
    for robot_id, trips in plan.trips_by_robot().items():
        violations += robot_violations(instance, robot_id, trips, tolerance_s, timing)
        for trip in trips:
            violations += time_violations(instance, trip, tolerance_s, timing)
            violations += load_violations(instance, trip)
        violations += energy_violations(instance, robot_id, trips, tolerance_s)
    violations += slot_violations(instance, plan, tolerance_s)
    return Report(violations=tuple(violations), cost=cost_of(instance, plan, tolerance_s))
