"""Many simulated days, and their means with 95 % confidence intervals.

Day k has the seed ``seed + k``, whatever the policy: two policies meet the same
days, and their differences day by day are less noisy than the days themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from wardwise.fleet.dispatch import Policy
from wardwise.fleet.problem import NUM_PRIORITIES, Instance
from wardwise.fleet.simulate.disturbances import Disturbances
from wardwise.fleet.simulate.run import plan_known, simulate
from wardwise.fleet.sizing.stats import Interval, mean, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wardwise.fleet.facts import DrivenDay
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.replay import Reoptimisation
    from wardwise.fleet.simulate.figures import ClassFigures, Figures
    from wardwise.fleet.sizing.source import DaySource


Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class ElevatorWait:
    """Waits before one elevator on one floor, over the days that had rides there."""

    elevator: str
    floor: int
    rides: Interval
    wait_s: Interval
    queue_s: Interval


@dataclass(frozen=True, kw_only=True)
class Days:
    """Several simulated days.

    Attributes
    ----------
    days
        Figures of each day, in order.
    is_complete
        False when the simulation was interrupted; `days` are then fewer.
    on_time, denied
        By class, as shares of all requests of all days that were not cancelled;
        the unservable count as denied.
    elevators
        Where there were rides on two days at least.
    """

    name: str
    seed: int
    policy: Policy
    disturbances: Disturbances
    days: tuple[Figures, ...]
    is_complete: bool
    on_time: tuple[Interval, ...]
    denied: tuple[Interval, ...]
    num_robots: Interval
    distance_m: Interval
    lateness_s: Interval
    cost: Interval
    num_breakdowns: Interval
    utilisation: Interval
    elevators: tuple[ElevatorWait, ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to simulate; without a plan each day is planned anew."""

    source: DaySource | Instance
    plan: Plan | None
    policy: Policy
    disturbances: Disturbances
    reoptimisation: Reoptimisation | None


def simulate_days(
    source: DaySource | Instance,
    *,
    num_days: int = 20,
    plan: Plan | None = None,
    policy: Policy | None = None,
    disturbances: Disturbances | None = None,
    reoptimisation: Reoptimisation | None = None,
    seed: int = 0,
    jobs: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_day: Callable[[DrivenDay], None] | None = None,
) -> Days:
    """Simulate several days under one policy.

    Parameters
    ----------
    source
        An instance: every day has its requests, and other luck. A source of days as
        for `wardwise.fleet.sizing.size`: every day has requests of its own.
    num_days
        At least 2.
    plan
        Plan of what is known, for days of one instance; `None`: a short search.
    policy, disturbances, reoptimisation, seed
        As for `simulate`.
    jobs
        Processes; `None`: one for each core. The result does not depend on it. A
        script that asks for more than one must be importable, its entry guarded by
        ``if __name__ == "__main__"``.
    on_progress
        Called with the days done and the days in all.
    on_day
        Called with what was measured on each day, in order, to log it.

    Returns
    -------
    Days
        After Ctrl-C of those days that were done.

    Raises
    ------
    ValueError
        If a parameter is out of range, or as `simulate`.
    KeyboardInterrupt
        On Ctrl-C before two days are done.
    """
    _require_arguments(source, num_days, plan, seed, jobs)
    if isinstance(source, Instance) and plan is None:
        plan = plan_known(source, seed)
    task = Task(
        source=source,
        plan=plan,
        policy=policy or Policy(),
        disturbances=disturbances or Disturbances(),
        reoptimisation=reoptimisation,
    )
    one = partial(_simulate_one, task, seed, on_day is not None)
    done = gather_days(one, seed, num_days, jobs, on_progress, on_day)
    return _conclude(task, seed, done, is_complete=len(done) == num_days)


def _require_arguments(
    source: DaySource | Instance, num_days: int, plan: Plan | None, seed: int, jobs: int | None
) -> None:
    require_days(num_days, seed, jobs)
    if plan is not None and not isinstance(source, Instance):
        raise ValueError("plan: expected none, every day of the source has other requests")


def require_days(num_days: int, seed: int, jobs: int | None) -> None:
    """Refuse numbers of days and of processes, and seeds, that are none."""
    if num_days < 2:
        raise ValueError(f"num_days: expected at least 2, got {num_days}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs: expected at least 1, got {jobs}")


def gather_days(
    one: Callable[[int], tuple[Found, DrivenDay | None]],
    seed: int,
    num_days: int,
    jobs: int | None,
    on_progress: Callable[[int, int], None] | None,
    on_day: Callable[[DrivenDay], None] | None,
) -> list[Found]:
    """Results of a function for the seed of each day, in order.

    Parameters
    ----------
    one
        Gives figures, which are kept, and what was measured, which is passed on.
    jobs
        Processes; `None`: one for each core.
    on_progress
        Called with the days done and the days in all.
    on_day
        Called with what was measured, where `one` gives it.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C before two days are done; later it ends the list.
    """
    done: list[Found] = []
    try:
        for found, driven in _each_day(one, seed, num_days, jobs or os.cpu_count() or 1):
            if on_day is not None and driven is not None:
                on_day(driven)
            done.append(found)
            if on_progress is not None:
                on_progress(len(done), num_days)
    except KeyboardInterrupt:
        if len(done) < 2:
            raise
    return done


def _each_day(
    one: Callable[[int], tuple[Found, DrivenDay | None]], seed: int, num_days: int, jobs: int
) -> Iterator[tuple[Found, DrivenDay | None]]:
    seeds = range(seed, seed + num_days)
    jobs = min(jobs, num_days)
    if jobs == 1:
        yield from map(one, seeds)
        return
    # Started afresh: a fork would copy locks that threads of this process may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_ignore_interrupt) as pool:
        yield from pool.map(one, seeds)


def _ignore_interrupt() -> None:
    # Ctrl-C is for the process that waits for the results.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _simulate_one(
    task: Task, first_seed: int, is_logged: bool, seed: int
) -> tuple[Figures, DrivenDay | None]:
    source = task.source
    day = simulate(
        source if isinstance(source, Instance) else source.day(seed),
        plan=task.plan,
        policy=task.policy,
        disturbances=task.disturbances,
        reoptimisation=task.reoptimisation,
        seed=seed,
    )
    if not day.is_complete:
        raise KeyboardInterrupt
    return day.figures, day.driven(seed - first_seed) if is_logged else None


def _conclude(task: Task, seed: int, days: list[Figures], *, is_complete: bool) -> Days:
    def of(name: str) -> Interval:
        return mean(np.array([getattr(day, name) for day in days], dtype=np.float64))

    return Days(
        name=task.source.name,
        seed=seed,
        policy=task.policy,
        disturbances=task.disturbances,
        days=tuple(days),
        is_complete=is_complete,
        on_time=_shares(days, lambda each: each.num_on_time),
        denied=_shares(days, lambda each: each.num_denied + each.num_unservable),
        num_robots=of("num_robots"),
        distance_m=of("distance_m"),
        lateness_s=of("lateness_s"),
        cost=of("cost"),
        num_breakdowns=of("num_breakdowns"),
        utilisation=of("utilisation"),
        elevators=_elevators(days),
    )


def _shares(days: list[Figures], count: Callable[[ClassFigures], int]) -> tuple[Interval, ...]:
    """Share of the requests of each class that were not cancelled."""
    found = []
    for priority in range(NUM_PRIORITIES):
        figures = [day.classes[priority] for day in days]
        parts = np.array([count(each) for each in figures], dtype=np.float64)
        wholes = [each.num_requests - each.num_cancelled for each in figures]
        found.append(share(parts, np.array(wholes, dtype=np.float64)))
    return tuple(found)


def _elevators(days: list[Figures]) -> tuple[ElevatorWait, ...]:
    """Waits at every door, over days."""
    doors = sorted({(each.elevator, each.floor) for day in days for each in day.elevators})
    found = []
    for elevator, floor in doors:
        those = [
            each
            for day in days
            for each in day.elevators
            if (each.elevator, each.floor) == (elevator, floor)
        ]
        if len(those) > 1:
            found.append(
                ElevatorWait(
                    elevator=elevator,
                    floor=floor,
                    rides=mean(np.array([float(each.num_rides) for each in those])),
                    wait_s=mean(np.array([each.wait_s for each in those])),
                    queue_s=mean(np.array([each.queue_s for each in those])),
                )
            )
    return tuple(found)
