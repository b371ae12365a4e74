"""What promises cost, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wardwise.fleet.chance import ServiceLevel
    from wardwise.fleet.plan import Certificate, Plan
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.randomness import Promise

MEAN_TIMES = "mean times"


@dataclass(frozen=True, kw_only=True)
class Level:
    """A promise, and the best plan found that keeps it.

    Attributes
    ----------
    promise
        `None`: planned for mean times.
    num_robots, distance_m
        That the plan takes.
    classes
        Late shares of stat, urgent and routine requests.
    plan
        With its certificate.
    """

    promise: Promise | None
    num_robots: int
    distance_m: float
    classes: tuple[ServiceLevel, ...]
    plan: Plan = field(repr=False)

    @property
    def name(self) -> str:
        """Percent on time, of stat, urgent and routine requests where they differ."""
        return MEAN_TIMES if self.promise is None else f"{on_time(self.promise)} %"

    @property
    def certificate(self) -> Certificate:
        """What random days made of the plan."""
        assert self.plan.certificate is not None
        return self.plan.certificate

    @property
    def is_kept(self) -> bool | None:
        """Whether all requests are served and the promise is kept; `None` without one."""
        if self.promise is None:
            return None
        return self.certificate.holds and not self.plan.denied

    @property
    def largest_late_share(self) -> float:
        """Of any request."""
        return max((risk.late_share for risk in self.certificate.requests), default=0.0)

    @property
    def largest_upper(self) -> float:
        """Largest upper bound of the late share of any request."""
        return max((risk.upper for risk in self.certificate.requests), default=0.0)

    @property
    def mean_late_share(self) -> float:
        """Over the requests that are served."""
        shares = [risk.late_share for risk in self.certificate.requests]
        return math.fsum(shares) / max(1, len(shares))

    @property
    def largest_return_upper(self) -> float:
        """Largest upper bound of the share of days on which any robot is back late."""
        return max((risk.upper for risk in self.certificate.returns), default=0.0)

    def document(self) -> dict[str, Any]:
        """All but the plan, ready for JSON."""
        return {
            "name": self.name,
            "promise": None if self.promise is None else asdict(self.promise),
            "is_kept": self.is_kept,
            "num_robots": self.num_robots,
            "distance_m": self.distance_m,
            "largest_late_share": self.largest_late_share,
            "largest_upper": self.largest_upper,
            "mean_late_share": self.mean_late_share,
            "largest_return_upper": self.largest_return_upper,
            "expected_lateness_s": self.certificate.expected_lateness_s,
            "classes": [asdict(one) for one in self.classes],
            "denied": list(self.plan.denied),
        }


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """A day planned for mean times and for promises, the laxest first.

    Attributes
    ----------
    instance
        The requests that are known beforehand, with as many robots as a plan may take.
    seed
        Of searches and random days.
    num_scenarios, bound_confidence
        Random days, and with what confidence each bound on a late share holds.
    num_left_out
        Requests that only come in during the day.
    is_complete
        False when Ctrl-C ended a search or left promises out.
    levels
        Mean times first. Never fewer requests turned down, robots and metres (in this
        order) than in a level before whose promises are all laxer, where both are kept.
    """

    instance: Instance
    seed: int
    num_scenarios: int
    bound_confidence: float
    num_left_out: int
    is_complete: bool
    levels: tuple[Level, ...]

    @property
    def mean(self) -> Level:
        """The plan for mean times."""
        return self.levels[0]

    @property
    def promised(self) -> tuple[Level, ...]:
        """The plans for promises."""
        return self.levels[1:]

    @property
    def is_met(self) -> bool:
        """Whether every promise is kept."""
        return all(level.is_kept for level in self.promised)

    def advice(self) -> tuple[str, ...]:
        """What each promise costs, in sentences."""
        return tuple(self._sentence(level) for level in self.promised)

    def document(self) -> dict[str, Any]:
        """All but the plans, ready for JSON."""
        return {
            "instance": self.instance.name,
            "seed": self.seed,
            "num_scenarios": self.num_scenarios,
            "bound_confidence": self.bound_confidence,
            "max_robots": len(self.instance.robots),
            "num_requests": len(self.instance.requests),
            "num_left_out": self.num_left_out,
            "is_complete": self.is_complete,
            "is_met": self.is_met,
            "levels": [level.document() for level in self.levels],
            "advice": list(self.advice()),
        }

    def _sentence(self, level: Level) -> str:
        mean, most = self.mean, len(self.instance.robots)
        if not level.is_kept:
            num_denied, of = len(level.plan.denied), len(self.instance.requests)
            denied = f"{num_denied} of {of} requests not served"
            why = denied if num_denied else "requests or robots are late too often"
            return f"{level.name} on time was not reached with up to {_robots(most)}: {why}."
        if level.plan.trips == mean.plan.trips:
            return f"{level.name} on time costs nothing more: the plan for mean times keeps it."
        robots = level.num_robots - mean.num_robots
        metres = round(level.distance_m - mean.distance_m)
        parts = [f"{robots} more robot{'' if robots == 1 else 's'}"] if robots else []
        if metres:
            unit = " m" if self.instance.site else " units of distance"
            parts.append(f"{abs(metres):,}{unit} {'less' if metres < 0 else 'more'}")
        cost = " and ".join(parts) or "no more"
        than = f"than planning for mean times{self._keeps(level)}"
        return f"{level.name} on time costs {cost} {than}."

    def _keeps(self, level: Level) -> str:
        """What planning for mean times keeps instead, if its requests are what is late."""
        assert level.promise is not None
        share = self.mean.largest_late_share
        if share <= min(level.promise.late_share):
            return ""
        # Rounded down: nothing is kept that the days do not show.
        return f" (which keeps only {math.floor(100 * (1 - share) + 1e-9)} %)"


def on_time(promise: Promise) -> str:
    """Percent on time: one number, or three where classes differ, as in 99/95/90."""
    words = [f"{round(100 * (1 - share), 10):g}" for share in promise.late_share]
    return words[0] if len(set(words)) == 1 else "/".join(words)


def _robots(number: int) -> str:
    return f"{number} robot{'' if number == 1 else 's'}"
