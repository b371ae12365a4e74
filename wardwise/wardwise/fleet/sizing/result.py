"""What sizing a fleet found, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardwise.fleet.sizing.stats import Interval

CLASSES = ("stat", "urgent", "routine")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A usual day of one fleet. Tuples run over the classes stat, urgent, routine.

    Attributes
    ----------
    num_robots, num_spares
        Robots owned; of them those that known requests do not take on a median day.
    protection
        Spares that each class may not use.
    cost_owned, cost_used
        Cost of a day with the price of every robot owned, or of those used.
    extra_cost
        `cost_owned` less that of the recommended fleet on the same day.
    denied, unservable
        Shares of the requests that came in: turned down, and come too late for any
        robot at the depot.
    lost_calls
        Of the requests that took a robot with nothing else to do, or were worth one,
        the share that got none.
    served, late
        Share of all requests that were served, and of these the share started late.
    lateness_s, distance_m, robots_used, denied_beforehand
        Of a day; the last are known requests that the plan turned down.
    erlang_b, protected_denial
        What the closed forms say of `lost_calls`.
    """

    num_robots: int
    num_spares: int
    protection: tuple[int, int, int]
    cost_owned: Interval
    cost_used: Interval
    extra_cost: Interval
    denied: tuple[Interval, ...]
    unservable: tuple[Interval, ...]
    lost_calls: tuple[Interval, ...]
    served: Interval
    late: Interval
    lateness_s: Interval
    distance_m: Interval
    robots_used: Interval
    denied_beforehand: Interval
    erlang_b: float
    protected_denial: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Demand for robots that have nothing else to do, as the closed forms take it.

    Attributes
    ----------
    per_day
        Calls of each class.
    away_s
        Mean time from a call until the robot is back and reloaded; for a robot that
        may make no further trip until its shift ends.
    window_s
        Time in which calls come in: until the last request of a day, on average.
    loads
        Erlangs of each class: `per_day` times `away_s` by `window_s`.
    protection
        Levels by EMSR-b for the calls during one absence (that of the urgent class is
        Littlewood's); `None` where a lower class is dearer to deny.
    """

    per_day: tuple[float, ...]
    away_s: float
    window_s: float
    loads: tuple[float, ...]
    protection: tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """Fleets compared on the same days, and the one to own.

    Attributes
    ----------
    name
        Of the source of days.
    num_days, seed
        How many days were simulated, and from which seed.
    is_complete
        False when the simulation was interrupted.
    num_planned
        Robots that known requests take on a median day.
    num_known, num_calls
        Requests of a mean day: known beforehand, and coming in by class.
    max_denial
        Largest share of each class (1, 2, 3) that may be denied.
    is_met
        Whether the recommended fleet keeps to it, at the upper end of the interval.
    outcomes
        By robots owned, then by protection.
    recommended, runner_up
        Places in `outcomes`; `None` where no other fleet ever costs anything else.
    """

    name: str
    num_days: int
    seed: int
    is_complete: bool
    num_planned: int
    num_known: float
    num_calls: tuple[float, ...]
    max_denial: dict[int, float]
    is_met: bool
    outcomes: tuple[Outcome, ...]
    recommended: int
    runner_up: int | None
    calls: Calls

    @property
    def best(self) -> Outcome:
        """The recommended fleet."""
        return self.outcomes[self.recommended]

    @property
    def second(self) -> Outcome | None:
        """The next best fleet."""
        return None if self.runner_up is None else self.outcomes[self.runner_up]

    def advice(self) -> tuple[str, ...]:
        """The recommendation in sentences."""
        best, second = self.best, self.second
        spares = f"{self.num_planned} for what is known on a median day, {best.num_spares} spare"
        cost = f"{_range(best.cost_owned)}, the robots owned included"
        lines = [
            f"Own {_fleet(best)}: {spares}.",
            f"A day then costs {cost}, and {_denials(best)} are denied.",
        ]
        if not self.is_met:
            lines.append("No fleet tried keeps to the service level; this one comes closest.")
        if second is not None:
            lines.append(f"Next best is {_fleet(second)}, {_compared(second.extra_cost)}")
        most = max(outcome.num_robots for outcome in self.outcomes)
        if best.num_robots == most:
            lines.append("It is the largest fleet tried; a larger one may be better still.")
        return tuple(lines)


def _fleet(outcome: Outcome) -> str:
    _, urgent, routine = outcome.protection
    count = f"{outcome.num_robots} robot{'' if outcome.num_robots == 1 else 's'}"
    if routine == 0:
        return f"{count} without protection"
    if urgent == 0:
        return f"{count}, {routine} kept back from routine requests"
    return f"{count}, {urgent} kept back from urgent and {routine} from routine requests"


def _denials(outcome: Outcome) -> str:
    shares = zip(outcome.denied, CLASSES, strict=True)
    return ", ".join(f"{100 * share.mean:.1f} % of {name}" for share, name in shares)


def _compared(extra: Interval) -> str:
    if extra.excludes_zero:
        return f"dearer by {_range(extra)} a day: a difference that more days will not undo."
    return f"dearer by {_range(extra)} a day: within chance, more days would tell."


def _range(interval: Interval) -> str:
    return f"{interval.mean:,.1f} (95 % interval {interval.low:,.1f} to {interval.high:,.1f})"
