"""Whether more is late than was promised, and since when.

Requests of one priority are late on some share of the days; a promise bounds it. Two
questions are asked of each priority and of the robots' returns:

- Is the share above the promise, with a stated confidence? The lower bound of Clopper
  and Pearson (1934) on it exceeds what is promised only then. Requests of one day are late
  together, so they are worth fewer independent ones: counts are divided by the design
  effect, the variance between days over the binomial one (at least 1), and by the square
  of Student's over the normal quantile, which few days make large (Korn and Graubard,
  1998, Survey Methodology 24(2)). Single requests and robots have one chance a day and need
  no such correction; of many, each has its share of the error (Bonferroni).
- Has it changed? A one-sided CUSUM of log-likelihood ratios (Page, 1954, Biometrika 41)
  of twice the promised share against the promised one, day by day, divided by the design
  effect, which here is taken from differences of successive days, so that the change that
  is looked for does not count for noise. It gives an alarm above ``log(ALARM_DAYS)``,
  which days that keep the promise reach less than once in so many days in the mean
  (Lorden, 1971): a bound for independent requests, and with the design effect about so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtrit

from wardwise.fleet.chance.certify import upper_bounds
from wardwise.fleet.sizing.result import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from wardwise.fleet.learn.outcome import Outcomes
    from wardwise.fleet.randomness import Promise

    Floats = NDArray[np.float64]

ALARM_DAYS = 10_000
NUM_WORST = 3
GROUPS = (*CLASSES, "returns")


@dataclass(frozen=True, kw_only=True)
class Worst:
    """A request, trip or robot: days on which it was late, of how many, and a lower bound."""

    name: str
    num_late: int
    count: int
    lower: float


@dataclass(frozen=True, kw_only=True)
class Lateness:
    """Lateness of one priority, or of the robots' returns.

    Attributes
    ----------
    name
        ``stat``, ``urgent``, ``routine`` or ``returns``.
    promised
        Largest share that is promised; `None` without a promise.
    count, num_late
        Over all complete days.
    share, lower
        Share that is late, and its lower bound.
    design_effect
        How many requests of a day are worth one by itself.
    worst
        Those with the largest lower bounds.
    alarm_day
        Day on which the CUSUM gave its first alarm; `None`: never.
    alarms
        What speaks against the promise, in words.
    """

    name: str
    promised: float | None
    count: int
    num_late: int
    share: float
    lower: float
    design_effect: float
    worst: tuple[Worst, ...]
    alarm_day: int | None
    alarms: tuple[str, ...]


def lateness(
    outcomes: Outcomes, promise: Promise | None, confidence: float = 0.99
) -> tuple[Lateness, ...]:
    """Lateness of stat, urgent and routine requests (or trips), and of returns.

    Parameters
    ----------
    promise
        Without one nothing is tested.
    confidence
        Of each test, above 0 and below 1.

    Raises
    ------
    ValueError
        If `confidence` is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected above 0 and below 1, got {confidence}")
    shares: tuple[float | None, ...] = (None,) * len(GROUPS)
    if promise is not None:
        shares = (*promise.late_share, promise.return_share)
    return tuple(
        _lateness(outcomes, group, promised, confidence) for group, promised in enumerate(shares)
    )


def _lateness(
    outcomes: Outcomes, group: int, promised: float | None, confidence: float
) -> Lateness:
    by_day = np.array(outcomes.by_day[group], dtype=np.float64).reshape(-1, 2)
    late, count = by_day[:, 0], by_day[:, 1]
    num_late, total = int(late.sum()), int(count.sum())
    effect = design_effect(late, count)
    position = None if promised is None or not total else cusum_alarm(late, count, promised)
    found = Lateness(
        name=GROUPS[group],
        promised=promised,
        count=total,
        num_late=num_late,
        share=num_late / total if total else 0.0,
        lower=_pooled_lower(num_late, total, effect, len(late), confidence),
        design_effect=effect,
        worst=_worst(outcomes, group, confidence),
        alarm_day=None if position is None else outcomes.days[position],
        alarms=(),
    )
    return replace(found, alarms=tuple(_alarms(found)))


def _alarms(found: Lateness) -> Iterator[str]:
    """What speaks against the promise, in words."""
    if found.promised is None:
        return
    limit = f"promised at most {100 * found.promised:g} %"
    if found.lower > found.promised:
        least = f"at least {100 * found.lower:.1f} %"
        yield f"{found.name}: late {100 * found.share:.1f} %, {least}, {limit}"
    for each in found.worst[:1]:
        if each.lower > found.promised:
            late = f"late on {each.num_late} of {each.count} days"
            least = f"at least {100 * each.lower:.1f} %"
            yield f"{found.name}: {each.name!r} {late}, {least}, {limit}"
    if found.alarm_day is not None:
        yield f"{found.name}: late more often than promised, noticed on day {found.alarm_day}"


def lower_bound(num_late: int, count: int, confidence: float) -> float:
    """One-sided lower bound of Clopper and Pearson on a share: the mirror of `upper_bounds`."""
    if num_late == 0:
        return 0.0
    return 1 - float(upper_bounds(np.array([count - num_late]), count, confidence)[0])


def design_effect(late: Floats, count: Floats, *, successive: bool = False) -> float:
    """Variance of a share between days over the binomial one, at least 1.

    Parameters
    ----------
    late, count
        By day.
    successive
        Take the variance from differences of successive days, which a lasting change
        hardly moves.
    """
    is_used = count > 0
    late, count = late[is_used], count[is_used]
    num_days, total = len(late), float(count.sum())
    share = float(late.sum()) / max(total, 1.0)
    if num_days < 2 or not 0 < share < 1:
        return 1.0
    residuals = late - share * count
    if successive:
        squares = float((np.diff(residuals) ** 2).sum()) / 2 * num_days / (num_days - 1)
    else:
        squares = float((residuals**2).sum()) * num_days / (num_days - 1)
    return max(1.0, squares / (total * share * (1 - share)))


def cusum_alarm(late: Floats, count: Floats, promised: float) -> int | None:
    """Position of the first day of alarm, if any."""
    worse = min(2 * promised, (1 + promised) / 2)
    effect = design_effect(late, count, successive=True)
    gains = late * math.log(worse / promised)
    gains += (count - late) * math.log((1 - worse) / (1 - promised))
    level = 0.0
    for position, gain in enumerate(gains):
        level = max(0.0, level + float(gain) / effect)
        if level >= math.log(ALARM_DAYS):
            return position
    return None


def _pooled_lower(
    num_late: int, total: int, effect: float, num_days: int, confidence: float
) -> float:
    """Lower bound with the worth of dependent requests; rounded to the safe side."""
    if num_days < 2 or num_late == 0:
        return 0.0
    quantile = float(ndtri(confidence)) / float(stdtrit(num_days - 1, confidence))
    worth = min(1.0, quantile**2 / effect)
    return lower_bound(math.floor(num_late * worth), math.ceil(total * worth), confidence)


def _worst(outcomes: Outcomes, group: int, confidence: float) -> tuple[Worst, ...]:
    """Of all units of a group, those with the largest bounds, late at least once."""
    units = [
        (unit.name, *counts) for unit, counts in outcomes.by_name.items() if unit.group == group
    ]
    each = 1 - (1 - confidence) / max(len(units), 1)
    found = [
        Worst(name=name, num_late=late, count=count, lower=lower_bound(late, count, each))
        for name, late, count in units
        if late
    ]
    found.sort(key=lambda worst: (-worst.lower, -worst.num_late, worst.name))
    return tuple(found[:NUM_WORST])
