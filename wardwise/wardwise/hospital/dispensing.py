"""The machine's day in rounds: what is written until a cut-off is dispensed in one sequence.

Cut-offs stand at every multiple of `round_s`, and at every stat or urgent prescription. A round
serves the orders written since the last cut-off, the most urgent first, in the exact sequence of
`wardwise.pharmacy.sequence`. It starts at its cut-off, or when the round before is done and its
last bins are back, and the machine is then empty. Lines taken by hand are begun by somebody else
at the cut-off; an order is complete when both parts are.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.problem import Priority
from wardwise.pharmacy.sequence import sequence
from wardwise.pharmacy.timing import Timeline, simulate

if TYPE_CHECKING:
    from wardwise.pharmacy.problem import Order, PharmacyDay
    from wardwise.pharmacy.rack import Floats
    from wardwise.pharmacy.sequence import Plan

URGENCY = list(Priority)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One sequence of the machine.

    Parameters
    ----------
    opens_s
        Cut-off: its orders were written until then, and it does not start before.
    orders
        Ids in the sequence in which they are served; those that need no machine stand last.
    plan
        The retrievals.
    """

    opens_s: float
    orders: tuple[str, ...]
    plan: Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Rounds lived through, in R replications with drawn service times.

    Parameters
    ----------
    starts_s
        When each round starts, shape (R, rounds).
    timelines
        Of each round, counted from its start.
    completed_s
        When each order of the day is complete, in the sequence of the day, shape (R, orders).
    """

    starts_s: Floats
    timelines: tuple[Timeline, ...]
    completed_s: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Dispensing:
    """A day of the machine as planned.

    Parameters
    ----------
    day
        Machine and orders.
    rounds
        In time.
    expected
        Replications by which completions are predicted.
    """

    day: PharmacyDay
    rounds: tuple[Round, ...]
    expected: Run

    def opens_s(self) -> dict[str, float]:
        """Cut-off of each order's round: from then on its completion can be predicted."""
        return {order: one.opens_s for one in self.rounds for order in one.orders}

    def ready_s(self, quantile: float) -> dict[str, float]:
        """When each order will be complete with a certain probability.

        Raises
        ------
        ValueError
            If `quantile` is not between 0 and 1.
        """
        if not 0 < quantile < 1:
            raise ValueError(f"quantile: expected a number between 0 and 1, got {quantile}")
        # An order statistic, no mean of two: at least this share of the replications is in time.
        times_s = np.quantile(self.expected.completed_s, quantile, axis=0, method="inverted_cdf")
        ids = (order.id for order in self.day.orders)
        return dict(zip(ids, times_s.tolist(), strict=True))


def dispense(
    day: PharmacyDay,
    *,
    round_s: float = 900.0,
    replications: int = 400,
    method: str = "chain",
    seed: int = 0,
) -> Dispensing:
    """Plan the machine's rounds, and predict when every order is complete.

    Parameters
    ----------
    day
        Orders with the times at which they are written (`release_s`).
    round_s
        Seconds between two cut-offs, above 0.
    replications
        Days of drawn service times, at least 1.
    method
        Of `wardwise.pharmacy.sequence.sequence`, other than ``single-command``.
    seed
        Of the service times.

    Raises
    ------
    ValueError
        Naming the parameter and its range; or as `sequence`.
    """
    if not (math.isfinite(round_s) and round_s > 0):
        raise ValueError(f"round_s: expected a finite number above 0, got {round_s}")
    if replications < 1:
        raise ValueError(f"replications: expected at least 1, got {replications}")
    if method == "single-command":
        raise ValueError("method: expected one with dual commands, got 'single-command'")
    rounds = []
    for opens_s, orders in _cut(day, round_s):
        plan = sequence(replace(day, orders=orders), method=method, replications=1, seed=seed)
        served = [done.order for done in plan.orders]
        by_hand = [order.id for order in orders if order.id not in served]
        rounds.append(Round(opens_s=opens_s, orders=(*served, *by_hand), plan=plan))
    luck = np.random.default_rng([seed, 0])
    expected = live_rounds(day, tuple(rounds), replications, luck)
    return Dispensing(day=day, rounds=tuple(rounds), expected=expected)


def live_rounds(
    day: PharmacyDay, rounds: tuple[Round, ...], replications: int, rng: np.random.Generator
) -> Run:
    """Live through all rounds with drawn service times."""
    column = {order.id: k for k, order in enumerate(day.orders)}
    manual_s = {order.id: sum(line.manual_s for line in order.lines) for order in day.orders}
    completed_s = np.zeros((replications, len(day.orders)))
    starts_s, timelines = np.zeros((replications, len(rounds))), []
    free_s = np.zeros(replications)
    for k, one in enumerate(rounds):
        starts_s[:, k] = np.maximum(one.opens_s, free_s)
        for order in one.orders:
            completed_s[:, column[order]] = one.opens_s + manual_s[order]
        cells = one.plan.cells
        service_s = day.service.sample((replications, len(cells)), rng)
        timelines.append(simulate(day.machine, cells, service_s))
        if not cells:
            continue
        size = Counter(step.order for step in one.plan.steps)
        done_s = timelines[-1].completed_s([size[done.order] for done in one.plan.orders])
        served = [column[done.order] for done in one.plan.orders]
        completed_s[:, served] = np.maximum(completed_s[:, served], starts_s[:, k, None] + done_s)
        free_s = starts_s[:, k] + timelines[-1].makespan_s + _return_s(day, cells)
    return Run(starts_s=starts_s, timelines=tuple(timelines), completed_s=completed_s)


def _cut(day: PharmacyDay, round_s: float) -> list[tuple[float, tuple[Order, ...]]]:
    """Cut-offs with their orders, the most urgent first and then as written."""
    cut_s = {
        order.id: math.ceil(order.release_s / round_s) * round_s
        if order.priority is Priority.ROUTINE
        else order.release_s
        for order in day.orders
    }
    moments_s = sorted(set(cut_s.values()))
    found: dict[float, list[Order]] = {}
    for order in day.orders:
        # An urgent prescription takes along what was written before it.
        opens_s = min(moment_s for moment_s in moments_s if moment_s >= order.release_s)
        found.setdefault(opens_s, []).append(order)
    return [
        (opens_s, tuple(sorted(orders, key=lambda o: (URGENCY.index(o.priority), o.release_s))))
        for opens_s, orders in sorted(found.items())
    ]


def _return_s(day: PharmacyDay, cells: tuple[int, ...]) -> float:
    """Seconds until the bins that stand at the points are back and the arm is home."""
    machine, m = day.machine, day.machine.num_points
    standing = range(max(0, len(cells) - m), len(cells))
    return sum(float(machine.fetch_s(k % m, cells[k])) for k in standing)
