"""Time axes in percent, and stretches of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stretch of a time axis; `label` is read out and shown on hover."""

    kind: str
    left: float
    width: float
    label: str = ""


class Axis:
    """Time from 0 to the last window or return within the shifts, in percent."""

    def __init__(self, instance: Instance, plan: Plan) -> None:
        last_s = max(
            [0.0, *(t.return_s for t in plan.trips), *(r.due_s for r in instance.requests)]
        )
        self.end_s = max(1.0, min(last_s, max(robot.end_s for robot in instance.robots)))

    def at(self, time_s: float) -> float:
        """Where a moment stands, in percent."""
        # Infeasible plans may hold any time, even none: the axis keeps them in sight.
        inside_s = min(max(time_s, 0.0), self.end_s) if not math.isnan(time_s) else 0.0
        return round(100 * inside_s / self.end_s, 3)

    def bar(self, kind: str, start_s: float, end_s: float, label: str = "") -> Bar:
        """A stretch from one moment to another."""
        left = self.at(start_s)
        return Bar(kind=kind, left=left, width=round(self.at(end_s) - left, 3), label=label)
