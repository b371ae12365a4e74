"""Which layout to buy, in words: the figures of all candidates and whether a second point pays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wardwise.pharmacy.layout import LEVELS, LayoutFigures, analyse, candidates
from wardwise.pharmacy.layout_check import SimulatedFigures, confirm

if TYPE_CHECKING:
    from collections.abc import Callable

    from wardwise.pharmacy.layout import Demand, Layout
    from wardwise.pharmacy.rack import Machine
    from wardwise.pharmacy.service_time import ServiceTime

SHARES = (0.04, 0.15, 0.28, 0.4, 0.5, 0.6, 0.7, 0.78, 0.85, 0.9, 0.93, 0.955)


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What patients are told: so many of 100 orders are complete within so many seconds.

    Parameters
    ----------
    within_s
        From coming in until complete, above 0.
    level
        Share of orders, one of `wardwise.pharmacy.layout.LEVELS`.
    """

    within_s: float
    level: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.within_s < math.inf:
            raise ValueError(
                f"promise: within_s: expected a finite number above 0, got {self.within_s}"
            )
        if self.level not in LEVELS:
            expected = ", ".join(map(str, LEVELS))
            raise ValueError(f"promise: level: expected one of {expected}, got {self.level}")

    def reached_s(self, figures: LayoutFigures) -> float:
        """What a layout keeps at that level; infinite if more orders come than it manages."""
        flow = figures.flow
        return flow.flow_quantiles_s[LEVELS.index(self.level)] if flow else math.inf

    def is_kept(self, figures: LayoutFigures) -> bool:
        """Whether a layout keeps it."""
        return self.reached_s(figures) <= self.within_s


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Figures of all layouts and what follows from them.

    Parameters
    ----------
    orders_per_hour, bins_per_hour
        The demand.
    figures
        By formula, the layout with one point first.
    simulated
        The same from simulations, empty if none was asked for.
    sentences
        What to do, in plain words.
    best
        Number of the cheapest layout that keeps the promise; None if none does or none was given.
    """

    orders_per_hour: float
    bins_per_hour: float
    figures: tuple[LayoutFigures, ...]
    simulated: tuple[SimulatedFigures, ...]
    sentences: tuple[str, ...]
    best: int | None = None


def advise(
    machine: Machine,
    service: ServiceTime,
    demand: Demand,
    *,
    speeds: tuple[float, ...] = (1.0,),
    dwells_m: tuple[tuple[float, float] | None, ...] = (None,),
    cost_per_hour: float | None = None,
    wage_per_hour: float | None = None,
    promise: Promise | None = None,
    replications: int = 0,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Advice:
    """Judge layouts for a machine and say whether a second point pays.

    Parameters
    ----------
    machine
        Rack and arm; its first point stays.
    service, demand
        The pharmacist's time, and the orders.
    speeds
        Factors on the speeds of the arm that are tried, above 0; the first is the machine as it is.
    dwells_m
        Where the arm may wait, see `Layout`.
    cost_per_hour, wage_per_hour
        What a second point costs for an hour of work, and a pharmacist; at least 0.
    promise
        What is to be kept; the cheapest layout that keeps it is named.
    replications
        Simulated days for each layout; 0 for none, else at least 2.
    seed
        Seed of the simulations.
    on_progress
        Called with layouts done and their number.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    for name, cost in (("cost_per_hour", cost_per_hour), ("wage_per_hour", wage_per_hour)):
        if cost is not None and not 0 <= cost < math.inf:
            raise ValueError(f"{name}: expected a finite number of at least 0, got {cost}")
    layouts = _layouts(machine, speeds, dwells_m)
    figures = tuple(analyse(layout, service, demand) for layout in layouts)
    simulated = []
    if replications:
        for number, layout in enumerate(layouts, start=1):
            found = confirm(layout, service, demand, replications=replications, seed=seed)
            simulated.append(found)
            if on_progress:
                on_progress(number, len(layouts))
    lines = sum(demand.sizes) / len(demand.sizes)
    bins_per_hour = demand.orders_per_hour * lines
    one, same_end, people, opposite = figures[:4]
    best = _cheapest(figures, promise, cost_per_hour or 0.0, wage_per_hour or 0.0)
    return Advice(
        orders_per_hour=demand.orders_per_hour,
        bins_per_hour=bins_per_hour,
        figures=figures,
        simulated=tuple(simulated),
        sentences=(
            _gain(one, same_end, opposite),
            _verdict(one, same_end, bins_per_hour, cost_per_hour, wage_per_hour),
            *_waits(one, same_end),
            _second_person(same_end, people, wage_per_hour),
            *([_kept(figures, best, promise)] if promise else []),
        ),
        best=best,
    )


def flow_curve(
    figures: LayoutFigures, service: ServiceTime, demand: Demand, level: float = 0.95
) -> tuple[tuple[float, float], ...]:
    """Flow time of a layout against the orders that come.

    Parameters
    ----------
    figures
        Of the layout.
    service, demand
        As they were for `advise`; the rate does not matter.
    level
        Quantile of the flow time, one of `wardwise.pharmacy.layout.LEVELS`.

    Returns
    -------
    Orders an hour, at `SHARES` of the layout's capacity, with seconds.
    """
    found = []
    for share in SHARES:
        rate = share * figures.orders_per_hour
        flow = analyse(figures.layout, service, replace(demand, orders_per_hour=rate)).flow
        if flow:
            found.append((rate, flow.flow_quantiles_s[LEVELS.index(level)]))
    return tuple(found)


def _layouts(
    machine: Machine,
    speeds: tuple[float, ...],
    dwells_m: tuple[tuple[float, float] | None, ...],
) -> list[Layout]:
    """Every candidate at every speed with every dwell point."""
    found = []
    for factor in speeds:
        if not 0 < factor < math.inf:
            raise ValueError(f"speeds: expected factors above 0, got {factor}")
        arm = replace(
            machine.arm, speed_x_mps=factor * machine.arm.speed_x_mps,
            speed_y_mps=factor * machine.arm.speed_y_mps,
        )  # fmt: skip
        for dwell_m in dwells_m:
            for layout in candidates(replace(machine, arm=arm)):
                name = layout.name
                if factor != 1:
                    name += f", {factor:g} x speed"
                if dwell_m is not None:
                    name += f", arm waits at {dwell_m[0]:g}, {dwell_m[1]:g} m"
                found.append(replace(layout, name=name, dwell_m=dwell_m))
    return found


def _saving(one: LayoutFigures, other: LayoutFigures) -> float:
    return 100 * (1 - other.cycle_s / one.cycle_s)


def _gain(one: LayoutFigures, same_end: LayoutFigures, opposite: LayoutFigures) -> str:
    return (
        f"A second point beside the first takes {_saving(one, same_end):.1f} % off each bin "
        f"({one.cycle_s:.1f} to {same_end.cycle_s:.1f} s), at the opposite end "
        f"{_saving(one, opposite):.1f} %."
    )


def _verdict(
    one: LayoutFigures,
    two: LayoutFigures,
    bins_per_hour: float,
    cost_per_hour: float | None,
    wage_per_hour: float | None,
) -> str:
    """Whether the second point pays."""
    if one.load >= 1:
        capacity = f"one point manages {one.orders_per_hour:.0f} orders an hour, fewer than come"
        if two.load < 1:
            return f"It is needed: {capacity}; two manage {two.orders_per_hour:.0f}."
        return f"It is not enough: {capacity}; two manage {two.orders_per_hour:.0f}."
    # With one point the pharmacist stands by while the arm moves.
    hours = bins_per_hour * (one.cycle_s - two.cycle_s) / 3600
    saved = f"It saves {60 * hours:.0f} minutes of a pharmacist's time in an hour"
    if cost_per_hour is None or wage_per_hour is None:
        return (
            f"{saved}; it pays if an hour of it costs less than {hours:.2f} of their hourly wage."
        )
    worth = hours * wage_per_hour
    verdict = "it pays" if worth > cost_per_hour else "it does not pay"
    return f"{saved}, worth {worth:.2f}, and costs {cost_per_hour:.2f}: {verdict}."


def _waits(one: LayoutFigures, two: LayoutFigures) -> list[str]:
    """What patients notice."""
    if one.flow is None or two.flow is None:
        return []
    before, after = (f.flow.flow_quantiles_s[2] / 60 for f in (one, two) if f.flow)
    means = f"{one.flow.flow_s / 60:.1f} minutes on average with one point and "
    means += f"{two.flow.flow_s / 60:.1f} with two"
    return [f"Orders take {means}; 95 of 100 take at most {before:.1f} and {after:.1f}."]


def _second_person(one: LayoutFigures, two: LayoutFigures, wage_per_hour: float | None) -> str:
    """Whether a second pharmacist at two points is needed, and what else one brings."""
    manages = f"one with two points manages {one.orders_per_hour:.0f} orders an hour"
    if one.load >= 1:
        if two.load < 1:
            return (
                f"A second pharmacist is needed: {manages}; two manage {two.orders_per_hour:.0f}."
            )
        return f"A second pharmacist is not enough: two manage {two.orders_per_hour:.0f}."
    text = f"A second pharmacist is not needed: {manages}"
    if one.flow and two.flow:
        before, after = (f"{f.flow.flow_quantiles_s[2] / 60:.1f}" for f in (one, two) if f.flow)
        text += "; with two of them "
        if before == after:
            text += "orders take as long"
        else:
            text += f"95 of 100 orders take at most {after} instead of {before} minutes"
        if wage_per_hour is not None:
            text += f", for {wage_per_hour:.2f} more an hour"
    return f"{text}."


def _cheapest(
    figures: tuple[LayoutFigures, ...], promise: Promise | None, cost: float, wage: float
) -> int | None:
    """The layout that keeps the promise for least money, then fewest people, points, speed."""

    def price(number: int) -> tuple[float, ...]:
        machine = figures[number].layout.machine
        m, q = machine.num_points, machine.num_pharmacists
        reached_s = promise.reached_s(figures[number]) if promise else 0.0
        return cost * (m - 1) + wage * (q - 1), q, m, machine.arm.speed_x_mps, reached_s

    kept = [k for k, found in enumerate(figures) if promise and promise.is_kept(found)]
    return min(kept, key=price, default=None)


def _kept(figures: tuple[LayoutFigures, ...], best: int | None, promise: Promise) -> str:
    """Which layout keeps a promise."""
    what = f"{100 * promise.level:.0f} of 100 orders complete within {promise.within_s / 60:g} min"
    if best is None:
        quickest = min(figures, key=promise.reached_s)
        reached_s = promise.reached_s(quickest)
        if math.isinf(reached_s):
            return f"No layout keeps {what}: more orders come than any of them manages."
        return (
            f"No layout keeps {what}; the quickest, {quickest.layout.name}, needs "
            f"{reached_s / 60:.1f} min."
        )
    name, reached_s = figures[best].layout.name, promise.reached_s(figures[best])
    return f"For {what} the cheapest is: {name} ({reached_s / 60:.1f} min)."
