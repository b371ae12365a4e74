"""Which layout: throughput, waits and utilisations of a dispensing machine in milliseconds.

Over all pairs of cells, weighted by demand, the cycle c of the arm is enumerated exactly. A bin
takes E[c] + E[P] with one I/O point, E[max(c, P)] with two and one pharmacist, and goes towards
max(E[c], E[P]) with more. Orders come at random, and an order is served like one customer whose
service is the sum of its bins' cycles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.queueing import Flow, Moments, Pmf, places_cycle_s, poisson_flow
from wardwise.pharmacy.timing import simulate

if TYPE_CHECKING:
    from wardwise.pharmacy.problem import PharmacyDay
    from wardwise.pharmacy.rack import Floats, Machine
    from wardwise.pharmacy.service_time import ServiceTime

LEVELS = (0.5, 0.9, 0.95, 0.99)
GRID = 1 << 14
DEFAULT_ORDERS_PER_HOUR = 30.0
# More load than this has no steady state within a day.
FULL = 0.999
DAY_BINS = 50_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """What is asked of the machine.

    Parameters
    ----------
    orders_per_hour
        Orders with lines for the machine, coming at random; above 0.
    sizes
        Lines for the machine of orders that are as likely as each other, at least 1 each.
    weights
        How often each cell is wanted, shape (cells,), at least two of them above 0; None: all
        alike.
    """

    orders_per_hour: float = DEFAULT_ORDERS_PER_HOUR
    sizes: tuple[int, ...] = (1, 2, 3, 4, 5)
    weights: Floats | None = None

    def __post_init__(self) -> None:
        if not 0 < self.orders_per_hour < 1e6:
            raise ValueError(
                f"demand: orders_per_hour: expected a number above 0, got {self.orders_per_hour}"
            )
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"demand: sizes: expected numbers of at least 1, got {self.sizes}")
        weights = self.weights
        if weights is not None and not (
            np.isfinite(weights).all() and (weights >= 0).all() and (weights > 0).sum() >= 2
        ):
            raise ValueError("demand: weights: expected numbers of at least 0, two of them above 0")

    @classmethod
    def of_day(cls, day: PharmacyDay, orders_per_hour: float | None = None) -> Demand:
        """From the orders of a day: how large, how often, and what for.

        Without a rate, the day's own is taken, or 30 an hour if all orders are there at the start.

        Raises
        ------
        ValueError
            If the orders want fewer than two bins of the machine.
        """
        cells = [day.cells_of(order) for order in day.orders]
        sizes = tuple(len(lines) for lines in cells if len(lines))
        releases = [order.release_s for order in day.orders]
        weights = np.zeros(day.machine.rack.num_cells)
        if sizes:
            weights = np.bincount(np.concatenate(cells), minlength=len(weights)).astype(float)
        if orders_per_hour is None:
            span_s = max(releases, default=0.0) - min(releases, default=0.0)
            share = len(sizes) / max(1, len(releases))
            rate = 3600 * share * (len(releases) - 1) / span_s if span_s else 0.0
            orders_per_hour = rate or DEFAULT_ORDERS_PER_HOUR
        return cls(orders_per_hour=orders_per_hour, sizes=sizes or (1,), weights=weights)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A machine to be judged.

    Parameters
    ----------
    name
        In words.
    machine
        Rack, arm, points and people.
    dwell_m
        Where the arm waits when there is nothing to do, (x, y) in metres, after it has stored what
        stands at the points; None: at a point, and bins stay where they are.
    """

    name: str
    machine: Machine
    dwell_m: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class LayoutFigures:
    """What a layout does.

    Parameters
    ----------
    layout
        The layout.
    arm_s, service_s
        Mean cycle of the arm with its moves from point to point, and mean time of the pharmacist.
    cycle_s
        Seconds a bin when there is always work.
    bins_per_hour, orders_per_hour
        The same as rates: the capacity.
    load
        Demand over capacity.
    arm_busy, people_busy
        Shares of the time at the demanded rate, at most at capacity.
    flow
        Waits and flow times; None if the load is 1 or more.
    """

    layout: Layout
    arm_s: float
    service_s: float
    cycle_s: float
    bins_per_hour: float
    orders_per_hour: float
    load: float
    arm_busy: float
    people_busy: float
    flow: Flow | None


def analyse(layout: Layout, service: ServiceTime, demand: Demand) -> LayoutFigures:
    """Throughput, waits and utilisations of a layout, by formulas.

    Exact for the seconds a bin with one point, and with two at one place and one pharmacist; at
    most about 1 % too high with two points apart; for more points see `places_cycle_s`; for two
    pharmacists and more from a simulated day of 50,000 bins. Waits take the cycles of an order as
    independent of each other; with three points at two ends they come out up to 5 % too low. The
    arm's ways to and from a dwell point are not in its busy share.
    """
    machine = layout.machine
    cycles, weights = arm_cycles(machine, demand)
    arm = _moments(cycles, weights)
    person = Moments(mean_s=service.mean_s, variance_s2=service.sd_s**2)
    people = min(machine.num_pharmacists, machine.num_points)
    if people == 1:
        two_s = float(np.average(service.expected_max_s(cycles), weights=weights))
        cycle_s = places_cycle_s(arm, person, two_s, machine.num_points)
    else:
        cycle_s = _several_people(machine, service, demand)
    lines = float(np.mean(demand.sizes))
    bins_per_s = min(demand.orders_per_hour * lines / 3600, 1 / cycle_s)
    load = demand.orders_per_hour * lines * cycle_s / 3600
    flow = None
    if load < FULL:
        flow = _flow(layout, service, demand, (cycles, weights), (arm, person, cycle_s))
    return LayoutFigures(
        layout=layout, arm_s=arm.mean_s, service_s=person.mean_s, cycle_s=cycle_s,
        bins_per_hour=3600 / cycle_s, orders_per_hour=3600 / cycle_s / lines, load=load,
        arm_busy=bins_per_s * arm.mean_s,
        people_busy=bins_per_s * person.mean_s / machine.num_pharmacists, flow=flow,
    )  # fmt: skip


def arm_cycles(machine: Machine, demand: Demand) -> tuple[Floats, Floats | None]:
    """Cycles of all pairs of different cells at all points, with their weights.

    Returns
    -------
    Seconds, shape (points * pairs,), with the move from the point before; and weights of the same
    shape, None if all are alike.
    """
    weights = demand.weights
    cells = np.arange(machine.rack.num_cells) if weights is None else np.flatnonzero(weights)
    # A cycle takes as long the other way round, so that half of the pairs will do.
    row, column = np.triu_indices(len(cells), 1)
    stored, fetched = cells[row], cells[column]
    pairs = None if weights is None else weights[stored] * weights[fetched]
    known: dict[tuple[float, float, float], Floats] = {}
    found = []
    for point, at_m in enumerate(machine.points_m):
        move_s = float(machine.shift_s[point - 1, point])
        key = (*at_m, move_s)
        if key not in known:
            known[key] = machine.cycle_s(point, stored, fetched) + move_s
        found.append(known[key])
    if len(known) == 1:
        return found[0], pairs
    return np.concatenate(found), None if pairs is None else np.tile(pairs, len(found))


def _moments(values: Floats, weights: Floats | None) -> Moments:
    mean = float(np.average(values, weights=weights))
    variance = float(np.average((values - mean) ** 2, weights=weights))
    return Moments(mean_s=mean, variance_s2=variance)


def _several_people(machine: Machine, service: ServiceTime, demand: Demand) -> float:
    """Seconds per bin of a long simulated day: for two pharmacists and more there is no formula."""
    rng = np.random.default_rng(0)
    weights = demand.weights
    share = None if weights is None else weights / weights.sum()
    cells = rng.choice(machine.rack.num_cells, DAY_BINS, p=share)
    times_s = service.sample((1, DAY_BINS), rng)
    return float(simulate(machine, cells, times_s).makespan_s[0]) / DAY_BINS


def _flow(
    layout: Layout,
    service: ServiceTime,
    demand: Demand,
    cycles: tuple[Floats, Floats | None],
    known: tuple[Moments, Moments, float],
) -> Flow:
    """Waits and flow times, with a grid as fine as their range allows."""
    arm, person, cycle_s = known
    rate = demand.orders_per_hour / 3600
    lines = np.asarray(demand.sizes, dtype=float)
    spread = float(lines.mean() * (arm.variance_s2 + person.variance_s2))
    order = Moments(
        mean_s=float(lines.mean()) * cycle_s,
        variance_s2=spread + float(lines.var()) * cycle_s**2,
    )
    load = rate * order.mean_s
    tail_s = order.second_s2 / order.mean_s / 2 / (1 - load)  # of waits, which fall off like this
    longest_s = float(lines.max()) * cycle_s + 10 * order.variance_s2**0.5
    step_s = (2 * longest_s + 25 * tail_s) / GRID
    arm_pmf = Pmf.of_values(*cycles, step_s, GRID)
    person_pmf = Pmf.of_service(service, step_s, GRID)
    person_f = np.fft.rfft(person_pmf.mass)
    begin, second = _beginning(layout, demand, arm_pmf)
    if layout.machine.num_points == 1:
        line_f = np.fft.rfft(arm_pmf.mass) * person_f
        begin_f, second_f = np.fft.rfft(begin.mass) * person_f, line_f
        after_f = np.ones_like(line_f)
    else:
        line_f = np.fft.rfft(_lockstep(arm_pmf, person_pmf, cycle_s).mass)
        begin_f, after_f = np.fft.rfft(begin.mass), person_f
        second_f = line_f if second is None else np.fft.rfft(second.larger(person_pmf).mass)
    usual_f, first_f = np.zeros_like(line_f), np.zeros_like(line_f)
    for size, count in zip(*np.unique(lines, return_counts=True), strict=True):
        share, at_empty = count / len(lines), min(size, layout.machine.num_points) - 1
        usual_f += share * line_f**size
        first_f += share * begin_f * second_f**at_empty * line_f ** (size - 1 - at_empty)
    return poisson_flow(rate, (usual_f, first_f, after_f), step_s, LEVELS)


def _lockstep(arm: Pmf, person: Pmf, cycle_s: float) -> Pmf:
    """Time from bin to bin with two points and more.

    Its mean is known; its shape is that of max(c, P), shared with that of c if less is needed.
    """
    both = arm.larger(person)
    mean_s, least_s = both.moments.mean_s, arm.moments.mean_s
    # A simulated day may come out below the arm's own mean, by chance.
    share = min(max((cycle_s - least_s) / max(mean_s - least_s, 1e-9), 0.0), 1.0)
    return both.mixed(arm, share)


def _beginning(layout: Layout, demand: Demand, arm: Pmf) -> tuple[Pmf, Pmf | None]:
    """Arm's time for the first bin of an order that finds nobody, and for one to an empty place.

    Without a dwell point there is no empty place: bins of the order before stand at the points,
    and must be stored; the arm has made its move to the next point beforehand.
    """
    machine, weights, step_s = layout.machine, demand.weights, arm.step_s
    if layout.dwell_m is None:
        if len(set(machine.points_m)) == 1:
            return arm, None
        still = replace(machine, points_m=machine.points_m[:1])
        return Pmf.of_values(*arm_cycles(still, demand), step_s, GRID), None
    away_m = machine.rack.centre_m - np.array(layout.dwell_m)
    reach_s = machine.reach_s.mean(axis=0)
    handling_s = 2 * machine.arm.handling_s
    first_s = machine.arm.travel_s(*away_m.T) + reach_s + handling_s
    return (
        Pmf.of_values(first_s, weights, step_s, GRID),
        Pmf.of_values(2 * reach_s + handling_s, weights, step_s, GRID),
    )


def candidates(machine: Machine, *, num_points: tuple[int, ...] = (1, 2, 3)) -> tuple[Layout, ...]:
    """Layouts worth a look: one to three points, at one end or at both, one or two pharmacists.

    The first point stays where the machine has it; the other end is across the rack at the same
    height. A second pharmacist is offered from two points on.
    """
    x_m, y_m = machine.points_m[0]
    here, there = (x_m, y_m), (machine.rack.width_m - x_m, y_m)
    found = []
    for m in num_points:
        ends = {"": (here,)} if m == 1 else {
            ", same end": (here,) * m,
            ", opposite ends": tuple((here, there)[k % 2] for k in range(m)),
        }  # fmt: skip
        for end, points_m in ends.items():
            for people in (1, 2) if m > 1 else (1,):
                who = "1 pharmacist" if people == 1 else f"{people} pharmacists"
                name = f"{m} point{'s' if m > 1 else ''}{end}, {who}"
                changed = replace(machine, points_m=points_m, num_pharmacists=people)
                found.append(Layout(name=name, machine=changed))
    return tuple(found)
