"""Average picking time by layout and method of sequencing, and what a wrong objective costs."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.problem import Bin, Line, Order, PharmacyDay
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.sequence import sequence
from wardwise.pharmacy.service_time import Fixed, Lognormal
from wardwise.pharmacy.timing import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wardwise.pharmacy.service_time import ServiceTime

NUM_ORDERS, REPLICATIONS = 200, 200
RANDOM, CHAIN = "random", "chain"
METHODS = (RANDOM, "nearest", "isolated", "conditioned", "disjoint", "rolling", CHAIN)
CORNER, FAR_END = (0.0, 0.0), (12.0, 0.0)
MACHINES = {
    "one_point": Machine(),
    "same_end": Machine(points_m=(CORNER, CORNER)),
    "opposite_ends": Machine(points_m=(CORNER, FAR_END)),
    "same_end_2_people": Machine(points_m=(CORNER, CORNER), num_pharmacists=2),
    "opposite_ends_2_people": Machine(points_m=(CORNER, FAR_END), num_pharmacists=2),
}
BINS = tuple(Bin(id=f"B{cell}", drug=f"D{cell}", cell=cell) for cell in range(600))
WEIGHED, TRAVEL, PLUG_IN = "weighed", "travel", "plug_in"


@dataclass(frozen=True, kw_only=True)
class Run:
    """Seconds an order of one day, mean over the replications."""

    layout: str
    seed: int
    method: str
    seconds_per_order: float


def day_of(
    seed: int, machine: Machine, service: ServiceTime | None = None, num_orders: int = NUM_ORDERS
) -> PharmacyDay:
    """Day of the reference study: the sizes of its orders are the first numbers of the seed."""
    rng = np.random.default_rng(seed)
    orders = [
        Order(id=f"RX{k}", lines=tuple(Line(drug=f"D{c}") for c in rng.choice(600, size, False)))
        for k, size in enumerate(rng.integers(1, 6, num_orders).tolist())
    ]
    return PharmacyDay(
        machine=machine, bins=BINS, orders=tuple(orders), service=service or Lognormal()
    )


def live_all(seeds: Sequence[int]) -> list[Run]:
    """Every layout, day and method; the same service times for all methods of a day."""
    return [
        Run(
            layout=layout, seed=seed, method=method,
            seconds_per_order=sequence(
                day, method=method, replications=REPLICATIONS, seed=seed
            ).seconds_per_order,
        )
        for layout, machine in MACHINES.items()
        for seed in seeds
        for day in [day_of(seed, machine)]
        for method in METHODS
    ]  # fmt: skip


def seconds(runs: Sequence[Run], layout: str, method: str) -> list[float]:
    """Seconds an order, day by day."""
    return [r.seconds_per_order for r in runs if (r.layout, r.method) == (layout, method)]


def changes_pct(runs: Sequence[Run], layout: str, method: str) -> list[float]:
    """Change against random sequences, day by day."""
    pairs = zip(seconds(runs, layout, method), seconds(runs, layout, RANDOM), strict=True)
    return [100 * (own / at_random - 1) for own, at_random in pairs]


def objective_gains_pct(mean_s: float, seeds: Sequence[int]) -> dict[str, float]:
    """What three objectives save against random sequences, two points at one end.

    The whole chain for E[max(c, P)], for the arm's cycles alone, and for max(c, E[P]), which ties
    wherever the mean is longer than the cycle.
    """
    truth = Lognormal(mean_s)
    objectives: dict[str, ServiceTime] = {
        WEIGHED: truth, TRAVEL: Fixed(0.0), PLUG_IN: Fixed(mean_s)
    }  # fmt: skip
    gains: dict[str, list[float]] = {name: [] for name in objectives}
    for seed in seeds:
        day = day_of(seed, MACHINES["same_end"], truth)
        lines = sum(len(order.lines) for order in day.orders)
        service_s = truth.sample((REPLICATIONS, lines), np.random.default_rng([seed, 1]))

        def makespan_s(day: PharmacyDay, method: str, service_s: np.ndarray = service_s) -> float:
            cells = sequence(day, method=method, replications=1).cells
            return float(simulate(day.machine, cells, service_s).makespan_s.mean())

        at_random_s = makespan_s(day, RANDOM)
        for name, service in objectives.items():
            found_s = makespan_s(replace(day, service=service), CHAIN)
            gains[name].append(100 * (1 - found_s / at_random_s))
    return {name: mean(values) for name, values in gains.items()}


def write_table(path: Path, runs: Sequence[Run]) -> None:
    """Write a line for each day and method."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Run.__dataclass_fields__)
        for run in runs:
            row = (run.layout, run.seed, run.method, f"{run.seconds_per_order:.4f}")
            writer.writerow(row)
