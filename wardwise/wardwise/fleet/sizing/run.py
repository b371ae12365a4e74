"""Many days, each lived through with every fleet: in this process, in several, or on Ray.

Days are cut into chunks of a fixed size, and their results are put together in order:
the same bits however many processes there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.dispatch.policy import Slacks
from wardwise.fleet.sizing.day import NUM_CLASSES, Day
from wardwise.fleet.sizing.replay import SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.fleet.problem import Instance
    from wardwise.fleet.search.packed import Floats, Ints
    from wardwise.fleet.sizing.source import DaySource

CHUNK = 25


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Robots owned, and spares that each class may not use."""

    num_robots: int
    protection: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to simulate: days from a source and a seed, each with all fleets."""

    source: DaySource
    seed: int
    iterations: int
    fleets: tuple[Fleet, ...]
    slacks: Slacks = Slacks.QUANTILE


class Results(NamedTuple):
    """What the days came to.

    ``tally`` (days, fleets, SIZE) as `replay` numbers it; ``num_planned``,
    ``num_known`` and ``last_call_s`` (days); ``num_calls`` (days, classes).
    """

    tally: Floats
    num_planned: Ints
    num_known: Ints
    num_calls: Floats
    last_call_s: Floats


def day_seed(seed: int, number: int) -> int:
    """Seed of one of many days, independent of the others."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def simulate(task: Task, days: range) -> Results:
    """Live through some days with every fleet of a task."""
    tally = np.empty((len(days), len(task.fleets), SIZE))
    counts = np.empty((len(days), 2), dtype=np.int64)
    num_calls = np.empty((len(days), NUM_CLASSES))
    last_call_s = np.empty(len(days))
    most_robots = max(fleet.num_robots for fleet in task.fleets)
    for row, number in enumerate(days):
        seed = day_seed(task.seed, number)
        instance = task.source.day(seed)
        _require_alike(instance)
        day = Day(
            instance, most_robots=most_robots, iterations=task.iterations, seed=seed,
            slacks=task.slacks,
        )  # fmt: skip
        for column, fleet in enumerate(task.fleets):
            tally[row, column] = day.run(fleet.num_robots, fleet.protection)
        counts[row] = day.num_planned, day.num_known
        num_calls[row], last_call_s[row] = day.num_calls, day.last_call_s
    return Results(tally, counts[:, 0], counts[:, 1], num_calls, last_call_s)


def simulate_all(
    task: Task, num_days: int, *, jobs: int | None, ray_address: str | None
) -> Iterator[Results]:
    """Live through days 0 to `num_days`; yields chunks in order.

    Parameters
    ----------
    jobs
        Processes; `None`: one for each core. What fits in one chunk never leaves
        this process.
    ray_address
        Ray cluster to use instead, ``local`` for one on this machine.

    Raises
    ------
    ValueError
        If Ray is wanted and not installed.
    """
    chunks = [range(k, min(k + CHUNK, num_days)) for k in range(0, num_days, CHUNK)]
    if ray_address is not None:
        return _on_ray(task, chunks, ray_address)
    jobs = min((os.cpu_count() or 1) if jobs is None else jobs, len(chunks))
    if jobs == 1:
        return (simulate(task, chunk) for chunk in chunks)
    return _in_processes(task, chunks, jobs)


def _in_processes(task: Task, chunks: list[range], jobs: int) -> Iterator[Results]:
    # Started afresh: a fork would copy locks that threads of this process may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin_worker, initargs=(task,)) as pool:
        yield from pool.map(_simulate_in_worker, chunks)


_tasks: list[Task] = []


def _begin_worker(task: Task) -> None:
    # Ctrl-C is for the process that waits for the results.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _tasks[:] = [task]


def _simulate_in_worker(days: range) -> Results:
    return simulate(_tasks[0], days)


def _on_ray(task: Task, chunks: list[range], address: str) -> Iterator[Results]:
    try:
        import ray
    except ImportError:
        raise ValueError("ray_address: Ray is not installed; pip install 'wardwise[ray]'") from None
    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(address=address, log_to_driver=False)
    try:
        remote, shared = ray.remote(simulate), ray.put(task)
        for future in [remote.remote(shared, chunk) for chunk in chunks]:
            yield ray.get(future)
    finally:
        if is_ours:
            ray.shutdown()


def _require_alike(instance: Instance) -> None:
    kinds = {robot.kind for robot in instance.robots}
    if len(kinds) > 1:
        raise ValueError(
            f"robots: expected all alike in capacity, shift and trips, got {len(kinds)} kinds"
        )
