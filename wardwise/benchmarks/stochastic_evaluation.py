"""Random days of a plan: speed of the compiled steps, of drawing, and of the normal chain.

A hospital's day of 250 requests, planned once. A stop-scenario is one stop on one random
day, the legs home and departures included in the time. `evaluation` drives a plan over
factors that are drawn; `certify` draws them, too. Both run on as many threads as cores,
timed by the clock; on a loaded machine the threads' own time (the least) stands in the detail. The
floor of an evaluation is to read the factors once, measured as a copy of the same table.
The peer is the same recurrence in NumPy over all scenarios at once, on one thread.

    python wardwise/benchmarks/stochastic_evaluation.py
"""

from __future__ import annotations

import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from wardwise.fleet.chance import certify
from wardwise.fleet.chance.scenarios import BLOCK, Tally, drive
from wardwise.fleet.chance.slack import arrivals
from wardwise.fleet.chance.steps import itinerary_of
from wardwise.fleet.chance.tables import Tables
from wardwise.fleet.randomness import Promise, Randomness
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from wardwise.fleet.chance.steps import Itinerary

    Factors = list[NDArray[np.float32]]

SYSTEM = "stochastic"
REPEATS = 7
SEED = 1
NUM_SCENARIOS = 20_000
ROUTE = 20
FEW_US = 10.0


def main() -> int:
    instance = generate_hospital(seed=SEED)
    instance = replace(instance, randomness=Randomness(), promise=Promise())
    plan = solve(instance, time_limit=5.0, seed=SEED)
    itinerary = itinerary_of(instance, plan)
    draws = Tables(itinerary, 0.0, SEED)
    tables = [draws.table(number, 0, BLOCK) for number in range(len(itinerary.rows))]
    num_stops = len(itinerary.requests)
    measure_evaluation(itinerary, tables, num_stops)
    jobs = os.cpu_count() or 1
    certify(instance, plan, num_scenarios=BLOCK)
    wall_s = median_s(lambda: certify(instance, plan, num_scenarios=NUM_SCENARIOS, jobs=jobs))
    emit(
        "certify_stop_scenarios_per_s",
        num_stops * NUM_SCENARIOS / wall_s,
        "1/s",
        None,
        {"seconds": wall_s, "stops": num_stops, "scenarios": NUM_SCENARIOS, "threads": jobs},
    )
    measure_chain()
    return 0


def measure_evaluation(itinerary: Itinerary, tables: Factors, num_stops: int) -> None:
    """Rows of the compiled steps over ready factors, beside NumPy and a copy of the factors."""
    num_threads = os.cpu_count() or 1
    rounds = 20
    own_s: list[float] = []

    def work(_: int) -> None:
        tally = Tally.empty(BLOCK, len(itinerary.steps.trip), len(itinerary.trips))
        day = np.ones(BLOCK, dtype=np.float32)
        begin_s = time.thread_time()
        for _ in range(rounds):
            drive_all(itinerary, tables, day, tally)
        own_s.append((time.thread_time() - begin_s) / rounds)

    work(0)  # compiles
    own_s.clear()
    with ThreadPoolExecutor(num_threads) as pool:
        wall_s = median_s(lambda: list(pool.map(work, range(num_threads))))
    per_s = num_stops * BLOCK * rounds * num_threads / wall_s
    one_s = min(own_s)
    num_steps = len(itinerary.steps.trip)
    moved = sum(table.nbytes for table in tables)
    detail = {
        "threads": num_threads,
        "stops": num_stops,
        "steps": num_steps,
        "per_s_of_a_thread_by_its_own_time": num_stops * BLOCK / one_s,
        "steps_per_s_of_a_thread": num_steps * BLOCK / one_s,
        "bytes_of_factors": moved,
    }
    emit("evaluation_stop_scenarios_per_s", per_s, "1/s", [">=", 1e8], detail)
    copies = [np.empty_like(table) for table in tables]
    floor_s = median_s(lambda: copy_all(copies, tables))
    emit("evaluation_over_copy_of_factors", one_s / floor_s, "x", None, {"copy_s": floor_s})
    plain_s = median_s(lambda: walk(itinerary, tables), repeats=3)
    peer = "the same recurrence in NumPy"
    emit("evaluation_over_numpy", plain_s / one_s, "x", [">=", 1.0], {"numpy_s": plain_s}, peer)


def drive_all(
    itinerary: Itinerary, tables: Factors, day: NDArray[np.float32], tally: Tally
) -> None:
    """All robots of the plan on one block of scenarios."""
    for row, table in zip(itinerary.rows, tables, strict=True):
        drive(itinerary.steps, row.first, row.last, row.start_s, table, day, tally)


def copy_all(copies: Factors, tables: Factors) -> None:
    """Read and write every factor once."""
    for copy, table in zip(copies, tables, strict=True):
        np.copyto(copy, table)


def walk(itinerary: Itinerary, tables: Factors) -> tuple[list[int], float]:
    """Late days of every step and sum of delays, in NumPy; what is certain is left out."""
    steps = itinerary.steps
    late, delay = [], np.zeros(BLOCK)
    for row, table in zip(itinerary.rows, tables, strict=True):
        now = np.full(BLOCK, row.start_s)
        for k in range(row.first, row.last):
            now += steps.fixed_s[k]
            for mean_s, factor in (
                (steps.serve_s[k], steps.serve_row[k]),
                (steps.drive_s[k], steps.drive_row[k]),
                (steps.wait_s[k], steps.wait_row[k]),
            ):
                if mean_s > 0:
                    now += mean_s * table[factor] if factor else mean_s
            if steps.earliest_s[k] > 0:
                np.maximum(now, steps.earliest_s[k], out=now)
            if steps.latest_s[k] < np.inf:
                late.append(int(np.count_nonzero(now > steps.latest_s[k])))
            if steps.due_s[k] < np.inf:
                delay += np.maximum(now - steps.due_s[k], 0.0)
    return late, float(delay.sum())


def measure_chain() -> None:
    """Time of the normal chain of one route, with waits at all of its stops."""
    rounds = 20_000
    more, var = np.full(ROUTE, 100.0), np.full(ROUTE, 400.0)
    earliest = np.arange(1, ROUTE + 1) * 105.0
    out = np.empty(ROUTE), np.empty(ROUTE)
    chain(2, more, var, earliest, *out)
    spent_s = median_s(lambda: chain(rounds, more, var, earliest, *out)) / rounds
    emit(f"chain_us_per_route_of_{ROUTE}", spent_s * 1e6, "us", ["<=", FEW_US], {})


@njit
def chain(rounds, more, var, earliest, out_mean, out_var):  # type: ignore[no-untyped-def]
    """Chains in a row, each from another start, so that none is left out."""
    total = 0.0
    for i in range(rounds):
        last, _ = arrivals(i * 1e-6, 0.0, more, var, earliest, out_mean, out_var)
        total += last
    return total


def median_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median over the repeats, in seconds of the clock."""
    times = []
    for _ in range(repeats):
        begin_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin_s)
    return statistics.median(times)


def emit(
    name: str,
    value: float,
    unit: str,
    goal: object,
    detail: Mapping[str, object],
    peer: str | None = None,
) -> None:
    row = {"system": SYSTEM, "name": name, "value": value, "unit": unit, "peer": peer}
    print(json.dumps({**row, "goal": goal, "detail": detail}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
