"""Sizing a fleet: how long 10,000 simulated days of 100 requests take on two cores.

Days of RC101 with half of the requests dynamic: each is drawn, what is known is
planned, and every fleet of the default grid (0 to 5 spares with all protection levels
up to two) lives through it. Start of the processes and the statistics are included,
compilation is not. One process alone gives the days per second and core, and the
time of one replay.

    WARDWISE_DATA=... python wardwise/benchmarks/sizing.py [--days 10000] [--jobs 2]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wardwise.fleet.sizing import Day, days_of, size
from wardwise.io import read_instance

if TYPE_CHECKING:
    from wardwise.fleet.sizing import DaySource

BASE, DEGREE, SEED = "RC101", 0.5, 1
ALONE, REPLAYS = 500, 200
GOAL_S, GOAL_DAYS = 60.0, 10_000


def main() -> int:
    data = os.environ.get("WARDWISE_DATA")
    if not data:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=GOAL_DAYS)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    source = days_of(read_instance(Path(data) / "solomon" / f"{BASE}.txt"), degree=DEGREE)
    size(source, days=2, seed=SEED, jobs=1)  # compiles, or loads what is compiled
    seconds, num_fleets = timed(source, options.days, options.jobs)
    alone, begun_s = min(ALONE, options.days), time.process_time()
    alone_s, _ = timed(source, alone, 1)
    cpu_s = time.process_time() - begun_s
    print_row(
        f"sizing_{options.days}_days", seconds, "s",
        ["<=", GOAL_S] if options.days == GOAL_DAYS else None,
        {
            "processes": options.jobs,
            "fleets": num_fleets,
            "replays": num_fleets * options.days,
            "days_per_s": round(options.days / seconds, 1),
        },
    )  # fmt: skip
    of_core = {"fleets": num_fleets, "days_per_cpu_s": round(alone / cpu_s, 1)}
    print_row("sizing_days_per_core", alone / alone_s, "1/s", None, of_core)
    print_row("sizing_replay", replay_us(source), "us", None, {"requests": 100})
    return 0


def timed(source: DaySource, days: int, jobs: int) -> tuple[float, int]:
    """Seconds to size a fleet, and how many fleets were compared."""

    def show(done: int, total: int) -> None:
        if done % 1000 == 0:
            print(f"{done} of {total} days, {jobs} processes", file=sys.stderr)

    start = time.perf_counter()
    sizing = size(source, days=days, seed=SEED, jobs=jobs, on_progress=show)
    return time.perf_counter() - start, len(sizing.outcomes)


def replay_us(source: DaySource) -> float:
    """Microseconds that one fleet takes to live through a day that is made ready."""
    day = Day(source.day(SEED), most_robots=20, iterations=300, seed=SEED)
    found = []
    for _ in range(REPLAYS):
        start = time.perf_counter()
        day.run(14, (0, 1, 1))
        found.append(time.perf_counter() - start)
    return 1e6 * statistics.median(found)


def print_row(
    name: str, value: float, unit: str, goal: list[str | float] | None, detail: dict[str, float]
) -> None:
    row = {
        "system": "dispatch",
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "goal": goal,
        "seed": SEED,
        "detail": {"base": BASE, "degree": DEGREE, **detail},
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
