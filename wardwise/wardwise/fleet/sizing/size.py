"""How many robots to own, and how many spares to keep back for urgent requests.

Every fleet, that is a number of robots and protection levels for the lower classes,
lives through the same days (common random numbers), answered by the dispatcher's rules
D1, D2 and D6. The fleet with the least mean cost is recommended, the price of every
robot owned included: otherwise one more could never be worse. If a service level is
asked for, only fleets that keep it are compared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.dispatch.policy import Slacks
from wardwise.fleet.problem import Instance
from wardwise.fleet.sizing.compare import conclude
from wardwise.fleet.sizing.day import NUM_CLASSES, Day
from wardwise.fleet.sizing.run import CHUNK, Fleet, Results, Task, day_seed, simulate_all
from wardwise.fleet.sizing.source import days_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wardwise.fleet.sizing.result import Sizing
    from wardwise.fleet.sizing.source import DaySource

SPARES = (0, 1, 2, 3, 4, 5)
PROTECTION = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
PLAN_ITERATIONS = 300
MOST_SPARES = 500


def size(
    source: DaySource | Instance,
    *,
    days: int = 200,
    seed: int = 0,
    spares: Sequence[int] = SPARES,
    protection: Sequence[tuple[int, int]] = PROTECTION,
    max_denial: Mapping[int, float] | None = None,
    plan_iterations: int = PLAN_ITERATIONS,
    slacks: Slacks = Slacks.QUANTILE,
    jobs: int | None = None,
    ray_address: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sizing:
    """Compare fleets on simulated days and recommend one.

    Parameters
    ----------
    source
        Where days come from; an instance stands for `days_of` it. All its robots are
        alike; how many there are does not matter.
    days
        How many to simulate, at least 2.
    seed
        Of all days.
    spares
        Robots to own beyond those that known requests take on a median day.
    protection
        Spares that urgent and routine requests may not use, the latter no fewer. Each
        fleet is tried without protection and with those levels it has spares for.
    max_denial
        Service level: for a class (1, 2, 3) the largest share of its requests that may
        be denied, kept by the upper end of the confidence interval.
    plan_iterations
        Effort for the plan of what is known, see `Day`.
    slacks
        As in `Policy`: what an insertion must leave to later stops.
    jobs
        Processes; `None`: one for each core. The result does not depend on it. A
        script that asks for more than one must be importable, its entry guarded by
        ``if __name__ == "__main__"``.
    ray_address
        Ray cluster that runs the days instead (extra ``ray``); ``local`` starts one.
    on_progress
        Called with the days done and the days in all.

    Returns
    -------
    Sizing
        Of all days, after Ctrl-C of those done by then.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    KeyboardInterrupt
        On Ctrl-C before there is anything to compare.
    """
    _require_counts(days, seed, plan_iterations, jobs)
    _require_grid(spares, protection, max_denial or {})
    if isinstance(source, Instance):
        source = days_of(source, seed=seed)
    num_planned = _median_robots(source, min(days, CHUNK), seed, plan_iterations)
    fleets = tuple(_fleets(num_planned, spares, protection))
    task = Task(source=source, seed=seed, iterations=plan_iterations, fleets=fleets, slacks=slacks)
    parts: list[Results] = []
    num_done = 0
    try:
        for part in simulate_all(task, days, jobs=jobs, ray_address=ray_address):
            parts.append(part)
            num_done += len(part.tally)
            if on_progress is not None:
                on_progress(num_done, days)
    except KeyboardInterrupt:
        if not parts:
            raise
    results = Results._make(np.concatenate(column) for column in zip(*parts, strict=True))
    costs = source.day(day_seed(seed, 0)).costs
    return conclude(task, results, costs, num_planned, days, dict(max_denial or {}))


def _require_counts(days: int, seed: int, plan_iterations: int, jobs: int | None) -> None:
    for name, value, least in (
        ("days", days, 2),
        ("seed", seed, 0),
        ("plan_iterations", plan_iterations, 0),
        ("jobs", 1 if jobs is None else jobs, 1),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")


def _require_grid(
    spares: Sequence[int], protection: Sequence[tuple[int, int]], max_denial: Mapping[int, float]
) -> None:
    if not spares:
        raise ValueError("spares: expected at least one number, got none")
    for count in spares:
        if not 0 <= count <= MOST_SPARES:
            raise ValueError(f"spares: expected 0 to {MOST_SPARES}, got {count}")
    for urgent, routine in protection:
        if not 0 <= urgent <= routine:
            raise ValueError(
                "protection: expected 0 or more for urgent and no fewer for routine requests, "
                f"got {urgent}, {routine}"
            )
    for rank, limit in max_denial.items():
        if rank not in range(1, NUM_CLASSES + 1) or not 0 < limit <= 1:
            raise ValueError(
                "max_denial: expected a share above 0, at most 1, for a class 1, 2 or 3, "
                f"got {limit} for {rank}"
            )


def _median_robots(source: DaySource, days: int, seed: int, iterations: int) -> int:
    """Robots that known requests take on the median of some days."""
    seeds = [day_seed(seed, number) for number in range(days)]
    planned = [
        Day(source.day(each), most_robots=1, iterations=iterations, seed=each).num_planned
        for each in seeds
    ]
    return math.ceil(np.median(planned))


def _fleets(
    num_planned: int, spares: Sequence[int], protection: Sequence[tuple[int, int]]
) -> list[Fleet]:
    """Fleets to compare, by robots and then by protection."""
    fleets = []
    for count in sorted(set(spares)):
        levels = {(0, 0), *(pair for pair in protection if pair[1] <= count)}
        fleets += [
            Fleet(num_robots=num_planned + count, protection=(0, urgent, routine))
            for urgent, routine in sorted(levels)
        ]
    return fleets
