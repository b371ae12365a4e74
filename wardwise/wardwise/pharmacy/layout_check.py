"""The answers of `wardwise.pharmacy.layout`, held against simulated days of arriving orders.

The same recursion as in `wardwise.pharmacy.timing`, with orders that come at random: a bin is not
fetched before its order has come. Orders are served as they came, in the sequence of their lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.pharmacy.layout import LEVELS
from wardwise.pharmacy.stats import Interval, interval
from wardwise.pharmacy.timing import arm_times, compiled, simulate

if TYPE_CHECKING:
    from wardwise.pharmacy.layout import Demand, Layout
    from wardwise.pharmacy.rack import Cells, Floats
    from wardwise.pharmacy.service_time import ServiceTime

WARM_UP = 0.2  # share of each day that is not counted: it starts empty


@dataclass(frozen=True, kw_only=True)
class SimulatedFigures:
    """Figures of simulated days, each with its 95 % interval.

    Parameters
    ----------
    cycle_s
        Seconds a bin when there is always work.
    wait_s, flow_s
        Means of an order's wait and time until complete.
    wait_quantiles_s, flow_quantiles_s
        Quantiles at `wardwise.pharmacy.layout.LEVELS`.
    arm_busy, people_busy
        Shares of the time.
    """

    cycle_s: Interval
    wait_s: Interval
    wait_quantiles_s: tuple[Interval, ...]
    flow_s: Interval
    flow_quantiles_s: tuple[Interval, ...]
    arm_busy: Interval
    people_busy: Interval


def confirm(
    layout: Layout,
    service: ServiceTime,
    demand: Demand,
    *,
    replications: int = 20,
    num_orders: int = 2000,
    seed: int = 0,
) -> SimulatedFigures:
    """Simulate days of a layout; the same seed gives the same orders and times to all layouts.

    Parameters
    ----------
    layout, service, demand
        As for `wardwise.pharmacy.layout.analyse`.
    replications
        Days, at least 2.
    num_orders
        Orders of a day, at least 10.
    seed
        Seed of all randomness.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    if num_orders < 10:
        raise ValueError(f"num_orders: expected at least 10, got {num_orders}")
    days = [
        _Day.draw(layout, service, demand, num_orders, np.random.default_rng([seed, number]))
        for number in range(replications)
    ]
    columns = zip(*(_figures(layout, day) for day in days), strict=True)
    cycle, arm, people, wait, flow, *levels = (interval(column) for column in columns)
    count = len(LEVELS)
    return SimulatedFigures(
        cycle_s=cycle, wait_s=wait, flow_s=flow, arm_busy=arm, people_busy=people,
        wait_quantiles_s=tuple(levels[:count]), flow_quantiles_s=tuple(levels[count:]),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class _Day:
    """Orders of a day: cells, when each line's order comes, its first line, service times."""

    cells: Cells
    release_s: Floats
    starts: Cells
    service_s: Floats

    @classmethod
    def draw(
        cls, layout: Layout, service: ServiceTime, demand: Demand, num: int,
        rng: np.random.Generator,
    ) -> _Day:  # fmt: skip
        """Draw orders of `num` prescriptions."""
        sizes = rng.choice(demand.sizes, num)
        releases_s = np.cumsum(rng.exponential(3600 / demand.orders_per_hour, num))
        weights = demand.weights
        share = None if weights is None else weights / weights.sum()
        lines = int(sizes.sum())
        return cls(
            cells=rng.choice(layout.machine.rack.num_cells, lines, p=share),
            release_s=np.repeat(releases_s, sizes),
            starts=np.concatenate([[0], np.cumsum(sizes)[:-1]]),
            service_s=service.sample((lines,), rng),
        )


def _figures(layout: Layout, day: _Day) -> list[float]:
    """Figures of one day, in the order that `confirm` takes them in."""
    machine, starts = layout.machine, day.starts
    begun_s, sorted_s, busy_s = open_times(layout, day.cells, day.service_s, day.release_s)
    lines = len(day.cells)
    released_s = day.release_s[starts]
    counted = slice(int(WARM_UP * len(starts)), None)
    wait_s = (begun_s[starts] - released_s)[counted]
    flow_s = (np.maximum.reduceat(sorted_s, starts) - released_s)[counted]
    always = simulate(machine, day.cells, day.service_s[None]).makespan_s[0] / lines
    span_s = float(sorted_s.max())
    people_busy = float(day.service_s.sum()) / span_s / machine.num_pharmacists
    quantiles = [np.quantile(values, LEVELS) for values in (wait_s, flow_s)]
    head = [always, busy_s / span_s, people_busy, wait_s.mean(), flow_s.mean()]
    return [*map(float, head), *map(float, np.concatenate(quantiles))]


def open_times(
    layout: Layout, cells: Cells, service_s: Floats, release_s: Floats
) -> tuple[Floats, Floats, float]:
    """Times of bins whose orders come during the day.

    Parameters
    ----------
    layout
        The machine and where its arm waits. With a dwell point the arm stores the standing bins
        when all is done, which is not interrupted, and sets out from the dwell point; moves from
        point to point on that occasion are not counted.
    cells, service_s, release_s
        Of each line in sequence, shape (n,); releases do not fall.

    Returns
    -------
    When the arm begins with each line and when it is sorted, shape (n,), and the arm's seconds of
    work.
    """
    machine, n = layout.machine, len(cells)
    m, handling_s = machine.num_points, machine.arm.handling_s
    cycle_s, shift_s = arm_times(machine, cells)
    point = np.arange(n) % m
    reach_s = machine.reach_s[point, cells]
    # Three more ways: from the dwell point, to an empty place, and a bin back for good.
    first_s, back_s = np.full(n, -1.0), np.concatenate([[0.0], np.cumsum(2 * reach_s)])
    empty_s = machine.reach_s[point - 1, cells] + reach_s + 2 * handling_s
    if layout.dwell_m is not None:
        away_m = machine.rack.centre_m[cells] - np.array(layout.dwell_m)
        first_s = machine.arm.travel_s(*away_m.T) + reach_s + 2 * handling_s
        back_s += 2 * handling_s * np.arange(n + 1)
    begun_s, sorted_s = np.empty(n), np.empty(n)
    busy_s = open_recur(
        (cycle_s, shift_s, first_s, empty_s, back_s), service_s, release_s, m,
        machine.num_pharmacists, begun_s, sorted_s,
    )  # fmt: skip
    return begun_s, sorted_s, float(busy_s)


@compiled
def open_recur(
    arm: Any, service_s: Any, release_s: Any, m: int, q: int, begun_s: Any, sorted_s: Any
) -> float:
    """Run the recursion with releases; returns the arm's work. The last two are overwritten."""
    cycle_s, shift_s, first_s, empty_s, back_s = arm
    at, last, busy = 0.0, 0.0, 0.0
    cleared = 0  # bins before this one are back in their cells
    for k in range(len(cycle_s)):
        place = max(k - m, cleared)
        if first_s[k] >= 0 and release_s[k] >= last:
            clear_s = back_s[k] - back_s[place]
            start, work = max(release_s[k], last + clear_s), first_s[k]
            busy += clear_s
            cleared = k
        else:
            start = max(at + shift_s[k], release_s[k])
            if k >= m:
                start = max(start, sorted_s[k - m])
            work = cycle_s[k] if k < m or k - m >= cleared else empty_s[k]
        busy += work + shift_s[k]
        at = start + work
        begin = at if k < q else max(at, sorted_s[k - q])
        begun_s[k], sorted_s[k] = start, begin + service_s[k]
        last = max(last, sorted_s[k])
    return busy
