"""Days lived several times with other luck: how long each class of orders takes, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.online import Kind
from wardwise.pharmacy.problem import Priority
from wardwise.pharmacy.stats import Interval, interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wardwise.pharmacy.running_day import RunningDay

LEVELS = (0.5, 0.9, 0.95)
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """Orders of one class on a day, means over days with their 95 % intervals.

    Parameters
    ----------
    name
        Class, or ``all``.
    num_orders
        Orders of a day.
    wait_s
        From coming in until somebody begins.
    flow_s, flow_quantiles_s
        From coming in until complete: mean, and quantiles at `LEVELS`.
    late
        Share of the orders with a due time that miss it; None if none has one.
    incomplete
        Share of orders for which the machine could not give all that it should have.
    """

    name: str
    num_orders: int
    wait_s: Interval
    flow_s: Interval
    flow_quantiles_s: tuple[Interval, ...]
    late: Interval | None
    incomplete: Interval


@dataclass(frozen=True, kw_only=True)
class ManyDays:
    """What became of several days; the bounds of a single day's intervals are the value itself.

    Parameters
    ----------
    num_days
        Days that were lived.
    classes
        All orders, then those of each class that there are.
    arm_busy, people_busy, down
        Shares of the time until the last order was complete.
    refills, repairs
        On a day.
    end_s
        When the last order was complete.
    """

    num_days: int
    classes: tuple[ClassFigures, ...]
    arm_busy: Interval
    people_busy: Interval
    down: Interval
    refills: Interval
    repairs: Interval
    end_s: Interval


def live_many(
    live: Callable[[int, int], RunningDay],
    num_days: int,
    *,
    seed: int = 0,
    on_day: Callable[[int], None] = lambda _done: None,
) -> tuple[ManyDays, RunningDay]:
    """Live days one after the other.

    Parameters
    ----------
    live
        Lives one day, given its number from 0 and its seed, as does
        `wardwise.pharmacy.running_day.live_day`.
    num_days
        At least 1. After Ctrl-C the figures are of the days that were done, if there are any.
    seed
        Day number k is the same for every `live`.
    on_day
        Told how many days are done.

    Returns
    -------
    Figures, and the first day.
    """
    if num_days < 1:
        raise ValueError(f"num_days: expected at least 1, got {num_days}")
    days: list[RunningDay] = []
    try:
        for number in range(num_days):
            luck = np.random.SeedSequence([seed, number]).generate_state(1)
            days.append(live(number, int(luck[0])))
            on_day(len(days))
    except KeyboardInterrupt:
        if not days:
            raise
    return _figures(days), days[0]


def _figures(days: Sequence[RunningDay]) -> ManyDays:
    priorities = [order.priority for order in days[0].orders]
    classes = [_class(days, ALL, np.ones(len(priorities), dtype=bool))] if priorities else []
    for priority in Priority:
        chosen = np.array([own is priority for own in priorities], dtype=bool)
        if chosen.any():
            classes.append(_class(days, priority.value, chosen))
    repairs = [sum(done.what == "repair" for done in day.log) for day in days]
    return ManyDays(
        num_days=len(days), classes=tuple(classes),
        arm_busy=_interval([day.arm_busy for day in days]),
        people_busy=_interval([day.people_busy for day in days]),
        down=_interval([day.down for day in days]),
        refills=_interval([float(day.count(Kind.REFILL)) for day in days]),
        repairs=_interval([float(count) for count in repairs]),
        end_s=_interval([day.end_s for day in days]),
    )  # fmt: skip


def _class(days: Sequence[RunningDay], name: str, chosen: np.ndarray) -> ClassFigures:
    rows = [[order for order, own in zip(day.orders, chosen, strict=True) if own] for day in days]
    flows = [
        np.array([day.done_s[order.id] - order.release_s for order in orders])
        for day, orders in zip(days, rows, strict=True)
    ]
    waits = [
        float(np.mean([day.begun_s[order.id] - order.release_s for order in orders]))
        for day, orders in zip(days, rows, strict=True)
    ]
    late = [
        [day.done_s[order.id] > order.due_s for order in orders if order.due_s is not None]
        for day, orders in zip(days, rows, strict=True)
    ]
    incomplete = [
        float(np.mean([order.id in day.incomplete for order in orders]))
        for day, orders in zip(days, rows, strict=True)
    ]
    return ClassFigures(
        name=name, num_orders=int(chosen.sum()),
        wait_s=_interval(waits), flow_s=_interval([float(flow.mean()) for flow in flows]),
        flow_quantiles_s=tuple(
            _interval([float(np.quantile(flow, level)) for flow in flows]) for level in LEVELS
        ),
        late=_interval([float(np.mean(share)) for share in late]) if late[0] else None,
        incomplete=_interval(incomplete),
    )  # fmt: skip


def _interval(values: Sequence[float]) -> Interval:
    """Mean of one value a day; a single day has no spread."""
    if len(values) == 1:
        return Interval(mean=float(values[0]), low=float(values[0]), high=float(values[0]))
    return interval(values)
