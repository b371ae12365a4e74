"""From tallies of days to a comparison of fleets."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.loss import Demand, emsr_b, erlang_b, protected_denial
from wardwise.fleet.sizing import replay, stats
from wardwise.fleet.sizing.day import NUM_CLASSES
from wardwise.fleet.sizing.result import Calls, Outcome, Sizing

if TYPE_CHECKING:
    from wardwise.fleet.problem import Costs
    from wardwise.fleet.search.packed import Floats
    from wardwise.fleet.sizing.run import Fleet, Results, Task
    from wardwise.fleet.sizing.stats import Interval

RANKS = range(NUM_CLASSES)


def conclude(
    task: Task,
    results: Results,
    costs: Costs,
    num_planned: int,
    days: int,
    max_denial: dict[int, float],
) -> Sizing:
    """Compare the fleets of a task and recommend one.

    Parameters
    ----------
    num_planned
        Robots that known requests take on a median day.
    days
        How many were asked for.
    """
    owned = np.array([fleet.num_robots for fleet in task.fleets])
    idle = owned - results.tally[:, :, replay.ROBOTS]
    money = results.tally[:, :, replay.MONEY] + costs.per_robot * idle
    excess = _excess(results, max_denial)
    is_met = bool(excess.min() <= 0)
    allowed = np.flatnonzero(excess <= max(0.0, float(excess.min())))
    # The first of equals: fewest robots, then least protection.
    recommended = int(allowed[money[:, allowed].mean(axis=0).argmin()])
    extra = money - money[:, [recommended]]
    rivals = [column for column in allowed if extra[:, column].any()]
    calls = _calls(results, task.fleets, costs)
    return Sizing(
        name=task.source.name,
        num_days=len(money),
        seed=task.seed,
        is_complete=len(money) == days,
        num_planned=num_planned,
        num_known=float(results.num_known.mean()),
        num_calls=tuple(results.num_calls.mean(axis=0).tolist()),
        max_denial=max_denial,
        is_met=is_met,
        outcomes=tuple(
            _outcome(fleet, results, column, money, extra, calls, num_planned)
            for column, fleet in enumerate(task.fleets)
        ),
        recommended=recommended,
        runner_up=int(min(rivals, key=lambda column: extra[:, column].mean())) if rivals else None,
        calls=calls,
    )


def _outcome(
    fleet: Fleet,
    results: Results,
    column: int,
    money: Floats,
    extra: Floats,
    calls: Calls,
    num_planned: int,
) -> Outcome:
    tally = results.tally[:, column]
    came = results.num_calls
    num_requests = results.num_known + came.sum(axis=1)
    denied, lost = _by_class(tally, replay.DENIALS), _by_class(tally, replay.LOST)
    wanted = lost + _by_class(tally, replay.CALLS)
    unservable, served = _by_class(tally, replay.UNSERVABLES), tally[:, replay.SERVED]
    one, many = _closed_forms(fleet, results, calls)
    return Outcome(
        num_robots=fleet.num_robots,
        num_spares=fleet.num_robots - num_planned,
        protection=fleet.protection,
        cost_owned=stats.mean(money[:, column]),
        cost_used=stats.mean(tally[:, replay.MONEY]),
        extra_cost=stats.mean(extra[:, column]),
        denied=_shares(denied, came),
        unservable=_shares(unservable, came),
        lost_calls=_shares(lost, wanted),
        served=stats.share(served, num_requests),
        late=stats.share(tally[:, replay.NUM_LATE], served),
        lateness_s=stats.mean(tally[:, replay.LATE_S]),
        distance_m=stats.mean(tally[:, replay.METRES]),
        robots_used=stats.mean(tally[:, replay.ROBOTS]),
        denied_beforehand=stats.mean(tally[:, replay.DENIED_BEFOREHAND]),
        erlang_b=one,
        protected_denial=many,
    )


def _excess(results: Results, max_denial: dict[int, float]) -> Floats:
    """By how much each fleet misses the service level in its worst class; at most 0 if it keeps it.

    The upper end of the confidence interval counts.
    """
    excess = np.zeros(results.tally.shape[1])
    for column in range(len(excess)):
        denied = _by_class(results.tally[:, column], replay.DENIALS)
        misses = [
            stats.share(denied[:, rank - 1], results.num_calls[:, rank - 1]).high - limit
            for rank, limit in max_denial.items()
        ]
        excess[column] = max(misses, default=0.0)
    return excess


def _calls(results: Results, fleets: tuple[Fleet, ...], costs: Costs) -> Calls:
    """Demand for free robots, lost calls included, where the most robots serve all alike."""
    most = max(fleet.num_robots for fleet in fleets)
    column = next(k for k, fleet in enumerate(fleets) if fleet.num_robots == most)
    tally = results.tally[:, column]
    sent = _by_class(tally, replay.CALLS)
    wanted = (sent + _by_class(tally, replay.LOST)).mean(axis=0)
    away_s = float(tally[:, replay.AWAY_S].sum() / max(1.0, float(sent.sum())))
    window_s = float(results.last_call_s.mean())
    loads = wanted * (away_s / window_s if window_s > 0 else 0.0)
    prices = costs.per_denial
    is_falling = prices[0] >= prices[1] >= prices[2] > 0
    return Calls(
        per_day=tuple(wanted.tolist()),
        away_s=away_s,
        window_s=window_s,
        loads=tuple(loads.tolist()),
        protection=emsr_b([Demand(mean=float(x)) for x in loads], prices) if is_falling else None,
    )


def _closed_forms(fleet: Fleet, results: Results, calls: Calls) -> tuple[float, tuple[float, ...]]:
    """Erlang B and the protected loss, over the numbers of spares that the days begin with."""
    one, many = 0.0, np.zeros(NUM_CLASSES)
    for num_planned, count in Counter(results.num_planned.tolist()).items():
        weight = count / len(results.num_planned)
        spares = max(0, fleet.num_robots - num_planned)
        one += weight * erlang_b(spares, sum(calls.loads))
        many += weight * np.array(protected_denial(spares, calls.loads, fleet.protection))
    return one, tuple(many.tolist())


def _by_class(tally: Floats, first: int) -> Floats:
    """Counts of the three classes, shape (days, classes)."""
    return tally[:, first : first + NUM_CLASSES]


def _shares(parts: Floats, wholes: Floats) -> tuple[Interval, ...]:
    return tuple(stats.share(parts[:, rank], wholes[:, rank]) for rank in RANKS)
