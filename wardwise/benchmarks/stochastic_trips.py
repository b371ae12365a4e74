"""Several trips with release times: our search, PyVRP, and the best known plans.

Every file ``mtvrptwr/*.vrp`` below `WARDWISE_DATA`, or in FOLDER, with its ``.sol`` beside
it is planned for least distance: by `solve(method="vns")` for some seconds of two threads
(one below 40 customers), and by PyVRP for as much time of one thread as those have
together. Both plans go through the checker. Rows: distance over the best known one, whose
published cost may count tenths, and ours over PyVRP's.

    WARDWISE_DATA=... python wardwise/benchmarks/stochastic_trips.py --seconds 60 [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pyvrp

from wardwise.fleet.check import check
from wardwise.fleet.schedule import schedule
from wardwise.fleet.solvers import solve, warm_up
from wardwise.fleet.vns.run import TEAM_FROM, TEAM_SIZE
from wardwise.io import read_solution, read_vrplib

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

SYSTEM = "stochastic"
GOAL_PERCENT = 1.0
PEER = "PyVRP 0.14.1"


def main() -> int:
    options = parse()
    paths = sorted(options.folder.glob("*.vrp"))
    if options.names:
        paths = [path for path in paths if path.stem in options.names]
    if not paths:
        print("set WARDWISE_DATA or --folder to files and names that exist", file=sys.stderr)
        return 2
    warm_up("vns")
    found = [measure(path, options) for path in paths]
    gaps, ratios = ([row[k] for row in found] for k in (0, 1))
    detail = {"files": len(found), "seconds": options.seconds, "largest": max(gaps)}
    detail["not_behind_pyvrp"] = sum(ratio <= 1.0 for ratio in ratios)
    emit("trips_mean_gap", statistics.mean(gaps), "%", ["<=", GOAL_PERCENT], detail)
    emit("trips_mean_over_pyvrp", statistics.mean(ratios), "x", ["<=", 1.0], detail, peer=PEER)
    return 0


def parse() -> argparse.Namespace:
    """Options; without any, all files for 60 s each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("names", nargs="*", help="names of files without .vrp; all by default")
    default = Path(os.environ.get("WARDWISE_DATA") or "absent") / "mtvrptwr"
    add("--folder", type=Path, default=default, help="of .vrp and .sol files")
    add("--seconds", type=float, default=60.0, help="of our search on each file")
    add("--seed", type=int, default=1)
    return parser.parse_args()


def measure(path: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Rows of one file; returns our gap in percent, and our distance over PyVRP's."""
    instance, best = read_vrplib(path), read_solution(path.with_suffix(".sol"))
    known = metres(instance, timed(instance, best.trips()))
    num_threads = TEAM_SIZE if len(instance.requests) >= TEAM_FROM else 1
    begin_s = time.perf_counter()
    plan = solve(
        instance, method="vns", objective="distance", time_limit=options.seconds, seed=options.seed
    )
    wall_s = time.perf_counter() - begin_s
    ours = metres(instance, plan)
    theirs = by_pyvrp(path, instance, num_threads * options.seconds, options.seed)
    detail = {"distance": ours, "pyvrp": theirs, "best": known, "stated": best.cost}
    detail |= {"seconds": wall_s, "threads": num_threads}
    gap, ratio = 100.0 * (ours / known - 1.0), ours / theirs
    emit(f"trips_gap_{path.stem}", gap, "%", ["<=", GOAL_PERCENT], detail)
    emit(f"trips_over_pyvrp_{path.stem}", ratio, "x", ["<=", 1.0], detail, peer=PEER)
    return gap, ratio


def by_pyvrp(path: Path, instance: Instance, seconds: float, seed: int) -> float:
    """Distance of PyVRP's plan, which the checker has driven through."""
    data = pyvrp.read(path, round_func="dimacs")
    stop = pyvrp.stop.MaxRuntime(seconds)
    result = pyvrp.solve(data, stop, seed=seed, display=False, collect_stats=False)
    if not result.is_feasible():
        return math.inf
    return metres(instance, timed(instance, [trips_of(r) for r in result.best.routes()]))


def trips_of(route: pyvrp.Route) -> list[list[str]]:
    """Ids of the requests of each trip."""
    visits = [activity for activity in route.schedule() if activity.is_client()]
    trips = [[str(visits[0].idx + 1)]]
    for before, visit in pairwise(visits):
        if visit.trip != before.trip:
            trips.append([])
        trips[-1].append(str(visit.idx + 1))
    return trips


def timed(instance: Instance, routes: list[list[list[str]]]) -> Plan:
    """Drive the trips with the robots in their order."""
    robots = [robot.id for robot in instance.robots[: len(routes)]]
    return schedule(instance, dict(zip(robots, routes, strict=True)))


def metres(instance: Instance, plan: Plan) -> float:
    """Distance of a plan that the checker accepts and that serves all; else infinite."""
    report = check(instance, plan)
    return report.cost.distance_m if report.is_feasible and not plan.denied else math.inf


def emit(
    name: str, value: float, unit: str, goal: object, detail: dict[str, object], *,
    peer: str | None = None,
) -> None:  # fmt: skip
    row = {"system": SYSTEM, "name": name, "value": value, "unit": unit, "peer": peer}
    print(json.dumps({**row, "goal": goal, "detail": detail}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
