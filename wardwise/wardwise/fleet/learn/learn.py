"""Learn from a hospital's own days: laws of its times, and whether promises are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.learn.drift import lateness
from wardwise.fleet.learn.fit import LEAST_VALUES, day_factor, fit_spread, mean_over_days
from wardwise.fleet.learn.measure import measure
from wardwise.fleet.randomness import Randomness

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wardwise.fleet.facts import DrivenDay
    from wardwise.fleet.learn.drift import Lateness
    from wardwise.fleet.learn.fit import DayFactor, Fit, Floats, Ints
    from wardwise.fleet.learn.measure import Samples
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.sizing.stats import Interval


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Times over their means in one place or hour.

    `what` is ``travel`` or ``service``, `where` a floor or an hour of the horizon; `mean`
    is `None` with fewer than two days.
    """

    what: str
    where: str
    count: int
    mean: Interval | None


@dataclass(frozen=True, kw_only=True)
class Door:
    """Waits for one elevator in seconds; `stated_s` is the mean that the instance has."""

    elevator: str
    count: int
    mean_s: float
    interval: Interval | None
    stated_s: float | None


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What a log says about the days of an instance.

    Attributes
    ----------
    num_days, num_cut_off
        Days in the log, and of these those without an end.
    travel
        Of driving legs, without what their days have in common.
    service
        Of services.
    elevator
        Of waits over the mean wait of their elevator.
    day
        Of the factor that all legs of a day share.
    cells
        Travel and service by floor and by hour.
    doors
        Waits by elevator.
    lateness
        Of stat, urgent and routine requests, and of returns.
    left_out
        What could not be measured: reason and count.
    randomness
        For the instance: what was learnt, and what it had where too little was.
    """

    num_days: int
    num_cut_off: int
    travel: Fit
    service: Fit
    elevator: Fit
    day: DayFactor
    cells: tuple[Cell, ...]
    doors: tuple[Door, ...]
    lateness: tuple[Lateness, ...]
    left_out: dict[str, int]
    randomness: Randomness

    @property
    def alarms(self) -> tuple[str, ...]:
        """All that speaks against the promise, in words."""
        return tuple(alarm for each in self.lateness for alarm in each.alarms)


def learn(instance: Instance, days: Iterable[DrivenDay], *, confidence: float = 0.99) -> Learnt:
    """Fit laws to driven days, and compare lateness with the instance's promise.

    Parameters
    ----------
    instance
        The one that was driven, with its means and, if any, its promise.
    days
        In the order of time, as from `wardwise.io.read_log`; only one is held at a time.
    confidence
        Of each test of the promise, above 0 and below 1.

    Returns
    -------
    Learnt

    Raises
    ------
    ValueError
        If `confidence` is out of range.
    """
    found = measure(instance, days)
    common, driving = day_factor(found.legs.value, found.legs.day)
    travel = fit_spread(driving, found.legs.day)
    if travel.spread is not None:
        mean = mean_over_days(found.legs.value, found.legs.day)
        travel = replace(travel, mean=mean)
    service = fit_spread(found.services.value, found.services.day)
    doors, waits, wait_days = _doors(instance, found.waits)
    elevator = fit_spread(waits, wait_days)
    return Learnt(
        num_days=len(found.days),
        num_cut_off=found.num_cut_off,
        travel=travel,
        service=service,
        elevator=elevator,
        day=common,
        cells=(*_cells("travel", found.legs), *_cells("service", found.services)),
        doors=doors,
        lateness=lateness(found.outcomes, instance.promise, confidence),
        left_out=found.left_out,
        randomness=_randomness(instance, travel, service, elevator, common),
    )


def _randomness(
    instance: Instance, travel: Fit, service: Fit, elevator: Fit, common: DayFactor
) -> Randomness:
    """Of the instance, as far as something better is known."""
    law = instance.randomness or Randomness()
    if travel.spread is not None:
        # The law was fitted to legs whatever their variance in the matrix.
        law = replace(law, travel=travel.spread, uses_matrix=False)
        if common.cv is not None:
            law = replace(law, day=common.cv)
    if service.spread is not None:
        law = replace(law, service=service.spread)
    if elevator.spread is not None:
        law = replace(law, elevator=elevator.spread)
    return law


def _cells(what: str, samples: Samples) -> list[Cell]:
    """By floor, then by hour."""
    groups = np.array(samples.group, dtype=object)
    places = {name: groups == name for name in sorted(set(samples.group))}
    hours = {f"hour {h}": samples.hour == h for h in sorted(set(samples.hour.tolist()))}
    return [_cell(what, where, samples, chosen) for where, chosen in (places | hours).items()]


def _cell(what: str, where: str, samples: Samples, chosen: Ints) -> Cell:
    values, day = samples.value[chosen], samples.day[chosen]
    return Cell(what=what, where=where, count=len(values), mean=mean_over_days(values, day))


def _doors(instance: Instance, samples: Samples) -> tuple[tuple[Door, ...], Floats, Ints]:
    """Elevators; waits over the mean of theirs, where that is known well enough; their days."""
    stated = {e.id: e.wait_mean_s for e in instance.site.elevators} if instance.site else {}
    groups = np.array(samples.group, dtype=object)
    doors, parts, days = [], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    for name in sorted(set(samples.group)):
        values, day = samples.value[groups == name], samples.day[groups == name]
        mean_s = float(values.mean())
        doors.append(
            Door(
                elevator=name,
                count=len(values),
                mean_s=mean_s,
                interval=mean_over_days(values, day),
                stated_s=stated.get(name),
            )
        )
        if len(values) >= LEAST_VALUES and mean_s > 0:
            parts.append(values / mean_s)
            days.append(day)
    return tuple(doors), np.concatenate(parts), np.concatenate(days)
