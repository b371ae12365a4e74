"""Electric routes: our search against best known plans and the RoutingBlocks example.

Large files of Schneider, Stenger and Goeke (100 customers, partial recharge): distance
over the best known one after some seconds of two threads, and vehicles more than it.
Small files (full recharge): whether vehicles and distance are the proven optimum, and
when. With the folder of the example `examples/evrptw` of the repository
INFORMSJoC/2023.0104 and RoutingBlocks 0.2.1 installed in a folder of its own, the large
files are run with that, too, for as long; its plans are priced by the same rows. Plans
of ours go through the checker; one that it refuses counts as missing.

    WARDWISE_DATA=... python wardwise/benchmarks/stochastic_charging.py --seconds 300
    ... --peer FOLDER_OF_EXAMPLES --routingblocks FOLDER_OF_THE_PACKAGE
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wardwise.fleet.check import check
from wardwise.fleet.energy import Recharge
from wardwise.fleet.solvers import solve, warm_up
from wardwise.io.evrptw import read_evrptw

if TYPE_CHECKING:
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.solvers import Progress

SYSTEM = "stochastic"
PEER = "RoutingBlocks 0.2.1, examples/evrptw"
# Distances in the tables have two or three decimals.
ROUNDING = 0.006
SMALL_SECONDS = 5.0


class Found(NamedTuple):
    """Vehicles and distance of a plan."""

    vehicles: float
    distance: float

    def gap_percent(self, best: Found) -> float:
        """Distance over the best one; a plan with more vehicles counts all the same."""
        return 100.0 * (self.distance / best.distance - 1.0)


NONE = Found(math.inf, math.inf)


def main() -> int:
    data = os.environ.get("WARDWISE_DATA")
    if not data:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    options = parse()
    warm_up("vns")
    folder = Path(data)
    best = read_best(folder / "best_known.csv")
    large(folder, best, options)
    if not options.instances:
        small(folder, best)
    return 0


def parse() -> argparse.Namespace:
    """Options; without any, our own rows at 300 s."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seconds", type=float, default=300.0, help="search on each large file")
    add("--seed", type=int, default=1)
    add("--instances", nargs="*", help="names of large files; all, and the small ones, by default")
    add("--peer", type=Path, default=os.environ.get("EVRPTW_EXAMPLES"), help="its examples folder")
    add(
        "--routingblocks",
        type=Path,
        default=os.environ.get("ROUTINGBLOCKS"),
        help="folder that routingblocks is installed in",
    )
    return parser.parse_args()


def read_best(path: Path) -> dict[tuple[str, str], Found]:
    """Best known plans by name and objective."""
    with path.open(encoding="utf-8") as file:
        return {
            (row["instance"].lower(), row["objective"]): Found(
                int(row["vehicles"]), float(row["value"])
            )
            for row in csv.DictReader(file)
            if row["set"] == "evrptw"
        }


def large(folder: Path, best: dict[tuple[str, str], Found], options: argparse.Namespace) -> None:
    """Rows of the large files, ours and the peer's."""
    gaps: list[float] = []
    extra: list[float] = []
    ratios: list[float] = []
    not_behind: list[bool] = []
    for path in sorted((folder / "evrptw" / "100").glob("*.txt")):
        name = path.stem.removesuffix("_21")
        if options.instances and name not in options.instances:
            continue
        known = best[path.stem, "hier_partial"]
        found = ours(read_evrptw(path), options.seconds, options.seed)
        gaps.append(found.gap_percent(known))
        extra.append(found.vehicles - known.vehicles)
        detail = {"vehicles": found.vehicles, "distance": found.distance, "best": known}
        detail["seconds"] = options.seconds
        if options.peer and options.routingblocks:
            other = peers(path, options)
            detail["peer"] = other
            # Fewer vehicles win whatever the distance.
            not_behind.append(is_reached(found, other))
            if other.vehicles == found.vehicles:
                ratios.append(found.distance / other.distance)
            detail["vehicles_less_than_peer"] = other.vehicles - found.vehicles
        row(f"evrptw_gap_{name}", gaps[-1], "%", detail=detail, seed=options.seed)
    row("evrptw_mean_gap", statistics.mean(gaps), "%", goal=["<=", 1.0], seed=options.seed)
    row("evrptw_extra_vehicles", max(extra), "vehicles", goal=["<=", 1], seed=options.seed)
    if not_behind:
        goal = [">=", len(not_behind)]
        row(
            "evrptw_not_behind_peer",
            sum(not_behind),
            "instances",
            goal=goal,
            peer=PEER,
            seed=options.seed,
        )
    if ratios:
        detail = {"instances_with_equal_fleet": len(ratios), "instances": len(gaps)}
        row(
            "evrptw_distance_over_peer",
            statistics.mean(ratios),
            "x",
            goal=["<", 1.0],
            detail=detail,
            peer=PEER,
            seed=options.seed,
        )


def ours(instance: Instance, seconds: float, seed: int) -> Found:
    """Our plan, judged by the checker."""
    report = check(instance, solve(instance, method="vns", time_limit=seconds, seed=seed))
    if not report.is_feasible or report.cost.num_denied:
        return NONE
    return Found(report.cost.num_robots, report.cost.distance_m)


def peers(path: Path, options: argparse.Namespace) -> Found:
    """The example's plan for as long; it runs one thread, so that ours has two."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "evrptw",
            str(path.resolve()),
            "--config-path",
            "evrptw/config.json",
            "--output-path",
            folder,
            "--seed",
            str(options.seed),
            "--time-limit",
            str(round(options.seconds)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(options.routingblocks.resolve())}
        subprocess.run(
            command, cwd=options.peer, env=environment, check=True, stdout=subprocess.DEVNULL
        )
        text = (Path(folder) / f"solution-{path.stem}.json").read_text(encoding="utf-8")
    solution = json.loads(text)["solution"]
    if not solution["feasible"]:
        return NONE
    distance = sum(route["cost_components"][0] for route in solution["routes"])
    return Found(solution["number_of_vehicles"], distance)


def small(folder: Path, best: dict[tuple[str, str], Found]) -> None:
    """Rows of the small files with full recharge."""
    hits, slowest, missed = 0, 0.0, []
    paths = [p for size in (5, 10, 15) for p in sorted((folder / "evrptw" / str(size)).glob("*"))]
    for path in paths:
        known = best[path.stem.lower(), "hier_full"]
        reached: list[float] = []

        def watch(progress: Progress, known: Found = known, reached: list[float] = reached) -> None:
            if is_reached(Found(progress.num_robots, progress.distance_m), known):
                reached.append(progress.elapsed_s)

        instance = replace(read_evrptw(path), recharge=Recharge.FULL)
        plan = solve(instance, method="vns", time_limit=SMALL_SECONDS, seed=1, on_progress=watch)
        cost = check(instance, plan).cost
        if reached and is_reached(Found(cost.num_robots, cost.distance_m), known):
            hits, slowest = hits + 1, max(slowest, reached[0])
        else:
            missed.append(path.stem)
    detail = {"instances": len(paths), "missed": missed}
    row("evrptw_small_optima", hits, "instances", goal=[">=", len(paths)], detail=detail)
    row("evrptw_small_slowest", slowest, "s", goal=["<", SMALL_SECONDS], detail=detail)


def is_reached(found: Found, known: Found) -> bool:
    """Whether a plan is as good as the one of the table, or better."""
    return found.vehicles < known.vehicles or (
        found.vehicles == known.vehicles and found.distance <= known.distance + ROUNDING
    )


def row(name: str, value: float, unit: str, **more: object) -> None:
    """Print one measurement."""
    measured = {"system": SYSTEM, "name": name, "value": value, "unit": unit, **more}
    print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    sys.exit(main())
