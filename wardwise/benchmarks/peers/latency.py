"""How long an answer takes: the whole call, the compiled loop in it, and full re-solves.

The whole call is `Dispatcher.submit` with a journal that is written but not forced to
the disk, and the explanation in words. The loop is the search for the best place on
every robot. All sizes, and all solvers, take turns in one run. CPU time stands beside wall time:
where other work shares the machine, the difference is its.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from wardwise.fleet.dispatch import Dispatcher, Journal, Policy, Submit, order_events
from wardwise.fleet.dispatch.day import Day
from wardwise.fleet.replay import known_part
from wardwise.fleet.search.insertion import best_per_robot
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital

from . import resolve
from .open_day import FOREVER_S, PLAN_ITERATIONS, committed_state
from .rows import row
from .study import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from wardwise.fleet.problem import Request

    from .committed import Answer, State
    from .open_day import OpenDay
    from .rows import Row

# Submits that one dispatcher takes before the day is set back.
BATCH = 20
SUBMIT_GOAL_MS, KERNEL_GOAL_US, KERNEL_GOAL_SIZE, RESOLVE_GOAL = 1.0, 20.0, 1000, 100.0
KERNEL_ROUNDS = 50

RESOLVERS: dict[str, tuple[str, Callable[[State], Answer]]] = {
    "pyvrp_0.05s": ("pyvrp", lambda state: resolve.resolve_pyvrp(state, budget_s=0.05)),
    "pyvrp_0.3s": ("pyvrp", lambda state: resolve.resolve_pyvrp(state, budget_s=0.3)),
    "ortools_0.2s": ("ortools", lambda state: resolve.resolve_ortools(state, budget_s=0.2)),
    "vroom": ("vroom", lambda state: resolve.resolve_vroom(state, exploration=0)),
}


class Taken(NamedTuple):
    """Seconds of one call, on the wall and of its thread."""

    wall_s: float
    cpu_s: float


def submit_rows(sizes: Mapping[int, Sequence[OpenDay]], repetitions: int) -> Iterator[Row]:
    """Latency of the whole call, by number of open stops."""
    times: dict[int, list[list[Taken]]] = {size: [] for size in sizes}
    answers: dict[int, Counter[str]] = {size: Counter() for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repetitions):
            for size in sizes:
                times[size].append([])
            for turn in itertools.zip_longest(*map(_batches, sizes.values())):
                for size, batch in zip(sizes, turn, strict=True):
                    if batch is not None:
                        taken = _submit_all(*batch, Path(folder), answers[size])
                        times[size][-1] += taken
    for size, days in sizes.items():
        detail = {
            "submits": sum(map(len, times[size])),
            "states": len(days),
            "open_stops": [day.num_open for day in days],
            "robots": [len(day.instance.robots) for day in days],
            "answers": dict(answers[size]),
        }
        yield from _quantile_rows(f"insertion_{size}", times[size], detail)


def hospital_rows(seeds: Sequence[int], *, num_wards: int = 24) -> Iterator[Row]:
    """Latency over whole days of a hospital: lateness, transfers, deliveries, reloads."""
    times: list[list[Taken]] = []
    num_open: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            instance = generate_hospital(
                num_wards=num_wards, dynamic=True, transfers=True, seed=seed
            )
            plan = solve(
                known_part(instance),
                objective="cost",
                time_limit=FOREVER_S,
                max_iterations=PLAN_ITERATIONS,
                seed=seed,
            )
            with Journal(Path(folder) / f"{seed}.jsonl") as journal:
                dispatcher = Dispatcher(instance, plan, None, journal)
                times.append([])
                for event in order_events(
                    Submit(now_s=r.release_s, request=r)
                    for r in instance.requests
                    if r.release_s > 0
                ):
                    times[-1].append(_submit(dispatcher, event.request, event.now_s)[0])
                    num_open.append(dispatcher.outcome().num_open)
    detail = {"submits": sum(map(len, times)), "days": len(times), "open_stops": mean(num_open)}
    yield from _quantile_rows("insertion_hospital", times, detail)


def kernel_rows(sizes: Mapping[int, Sequence[OpenDay]], repetitions: int) -> Iterator[Row]:
    """Microseconds of the compiled search for the best place on every robot."""
    ready = {size: [_in_arrays(day) for day in days] for size, days in sizes.items()}
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(repetitions + 1):
        for size, states in ready.items():
            start = time.perf_counter()
            for state, nodes in states:
                scan_often(
                    state.packed, state.chains, state.weights, nodes, KERNEL_ROUNDS, *state.offers
                )
            scans = KERNEL_ROUNDS * sum(len(nodes) for _, nodes in states)
            times[size].append(1e6 * (time.perf_counter() - start) / scans)
    for size, found in times.items():
        goal = ("<=", KERNEL_GOAL_US) if size == KERNEL_GOAL_SIZE else None
        detail = {"by_repetition": [round(one, 3) for one in found[1:]]}  # the first compiles
        yield row(f"insertion_{size}_kernel", median(found[1:]), "us", goal=goal, detail=detail)


def resolve_rows(days: Sequence[OpenDay], per_day: int) -> Iterator[Row]:
    """How many times faster the whole call is than full re-solves of the same state."""
    times: dict[str, list[float]] = {name: [] for name in RESOLVERS}
    ours = []
    with tempfile.TemporaryDirectory() as folder:
        for number, day in enumerate(days):
            for k, request in enumerate(day.new[:per_day]):
                request = _released(request, day.now_s)
                with Journal(Path(folder) / f"{number}-{k}.jsonl") as journal:
                    ours.append(_submit(day.dispatcher(journal), request, day.now_s)[0].wall_s)
                state = committed_state(day, request)
                for name, (_, solver) in RESOLVERS.items():
                    answer = solver(state)
                    # A peer that gives up does so early: what counts is the time to an answer.
                    if answer.is_feasible:
                        times[name].append(answer.seconds)
    for name, (peer, _) in RESOLVERS.items():
        detail = {
            "ours_ms": 1e3 * median(ours),
            "peer_ms": 1e3 * median(times[name]),
            "requests": len(ours),
            "peer_feasible": len(times[name]),
            "open_stops": [day.num_open for day in days],
        }
        yield row(
            f"insertion_times_faster_than_{name}",
            median(times[name]) / median(ours),
            "x",
            goal=(">=", RESOLVE_GOAL),
            peer=f"{peer} {version_of(peer)}",
            detail=detail,
        )


@njit(cache=True)
def scan_often(packed, chains, weights, nodes, rounds, prices, positions, drops, opens):
    """Look for the best places of all nodes, again and again."""
    for _ in range(rounds):
        for node in nodes:
            best_per_robot(packed, chains, weights, node, prices, positions, drops, opens)


def _in_arrays(day: OpenDay):
    """Arrays of the day at its moment, and the nodes of its new requests."""
    arrays = Day(day.instance, Policy())
    arrays.begin(day.plan)
    arrays.advance(day.now_s)
    nodes = [arrays.state.add(_released(request, day.now_s)) for request in day.new]
    return arrays.state, np.array(nodes)


def _batches(days: Sequence[OpenDay]) -> Iterator[tuple[OpenDay, Sequence[Request]]]:
    for day in days:
        for start in range(0, len(day.new), BATCH):
            yield day, day.new[start : start + BATCH]


def _submit_all(
    day: OpenDay, requests: Sequence[Request], folder: Path, answers: Counter[str]
) -> list[Taken]:
    """Submit some requests to the day at its moment; returns the seconds of each."""
    path = folder / "journal.jsonl"
    path.unlink(missing_ok=True)
    times = []
    with Journal(path) as journal:
        dispatcher = day.dispatcher(journal)
        for request in requests:
            taken, status = _submit(dispatcher, _released(request, day.now_s), day.now_s)
            times.append(taken)
            answers[status] += 1
    return times


def _submit(dispatcher: Dispatcher, request: Request, now_s: float) -> tuple[Taken, str]:
    cpu, wall = time.thread_time(), time.perf_counter()
    decision = dispatcher.submit(request, now_s)
    decision.explain()
    taken = Taken(time.perf_counter() - wall, time.thread_time() - cpu)
    return taken, str(decision.status)


def _released(request: Request, now_s: float) -> Request:
    return replace(request, release_s=now_s)


def _quantile_rows(name: str, times: Sequence[Sequence[Taken]], detail: Row) -> Iterator[Row]:
    """Median and 99th percentile: the median over repetitions of each."""
    parts = (
        ("p50", 0.5, 0, None),
        ("p99", 0.99, 0, ("<=", SUBMIT_GOAL_MS)),
        ("p99_cpu", 0.99, 1, None),
    )
    for word, share, clock, goal in parts:
        values = [1e3 * float(np.quantile([t[clock] for t in one], share)) for one in times]
        more = {**detail, "by_repetition": [round(value, 4) for value in values]}
        yield row(f"{name}_{word}", median(values), "ms", goal=goal, detail=more)
