"""What a checker answers: violations of named constraints, and the cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardwise.fleet.plan import CostBreakdown


class Timing(StrEnum):
    """What the times of a plan are.

    ``planned``: all requests are known beforehand. ``dispatched``: planned, and no
    robot leaves for a request before it is released. ``executed``: measured facts;
    quick driving and service, late starts and overrun shifts are then outcomes, not
    violations, and times must only follow one another. Lateness is priced in any case.
    """

    PLANNED = "planned"
    DISPATCHED = "dispatched"
    EXECUTED = "executed"


class Constraint(StrEnum):
    """What a plan can violate."""

    INSTANCE = "instance"
    UNKNOWN_ROBOT = "unknown-robot"
    UNKNOWN_REQUEST = "unknown-request"
    UNSERVED = "unserved"
    SERVED_TWICE = "served-twice"
    DENIED_TWICE = "denied-twice"
    SERVED_AND_DENIED = "served-and-denied"
    PAIRING = "pairing"
    NON_FINITE = "non-finite"
    CAPACITY = "capacity"
    EARLY = "early"
    LATE = "late"
    FORESIGHT = "foresight"
    TRAVEL = "travel"
    WAITING = "waiting"
    RETURN = "return"
    SHIFT = "shift"
    RELOAD = "reload"
    MAX_TRIPS = "max-trips"
    GOODS = "goods"
    UNKNOWN_STATION = "unknown-station"
    CHARGING = "charging"
    BATTERY = "battery"
    OVERCHARGE = "overcharge"
    RECHARGE = "recharge"
    SLOTS = "slots"


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One broken rule; `request` and `robot` are ids where the rule concerns one."""

    constraint: Constraint
    message: str
    request: str | None = None
    robot: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdict on a plan."""

    violations: tuple[Violation, ...]
    cost: CostBreakdown

    @property
    def is_feasible(self) -> bool:
        """Whether no rule is broken."""
        return not self.violations


def violation(
    constraint: Constraint, robot: str | None, request: str | None, finding: str
) -> Violation:
    """Make a violation whose message starts with its request, or else with its robot."""
    what = f"robot {robot!r}" if request is None else f"request {request!r}"
    return Violation(
        constraint=constraint, request=request, robot=robot, message=f"{what} {finding}"
    )


def finite(value: float) -> float:
    """Turn an infinite number into not-a-number, which no comparison finds at fault again."""
    return value if math.isfinite(value) else math.nan
