"""Electric routes: our search against best known plans and the RoutingBlocks example.

Large files of Schneider, Stenger and Goeke (100 customers, partial recharge): distance
over the best known one after some seconds of two threads, and vehicles more than it. As in
the literature fewer vehicles come first: a plan with fewer than the best known has no gap.
Small files (full recharge): whether vehicles and distance are the proven optimum, and
when. Optima and best known plans stand in `peers/evrptw_best.csv`: the small ones were
proven by labels and set partitioning, the large ones are those of Erdelic and Caric
(2022, Energies 15:285), or better ones of RoutingBlocks, all checked anew.

With the folder of the example `examples/evrptw` of the repository INFORMSJoC/2023.0104
and RoutingBlocks 0.2.1 installed in a folder of its own, the large files are run with
that, too, for as long, after ours on each file; what is compared is the median over the
seeds. Plans of both are judged by us; one that breaks a rule counts as missing.

    pip install --no-deps --target PACKAGE routingblocks==0.2.1
    WARDWISE_DATA=... python wardwise/benchmarks/stochastic_charging.py --time-limit 300
    ... --instances c101 r105 --seeds 1 2 3 --peer EXAMPLES --routingblocks PACKAGE
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from peers.by_routingblocks import NAME, NONE, Folders, Size, run

from wardwise.fleet.check import check
from wardwise.fleet.energy import Recharge
from wardwise.fleet.solvers import solve, warm_up
from wardwise.io.evrptw import read_evrptw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wardwise.fleet.problem import Instance
    from wardwise.fleet.solvers import Progress

    Best = Mapping[tuple[str, str], Size]

SYSTEM = "stochastic"
BEST = Path(__file__).resolve().parent / "peers" / "evrptw_best.csv"
# Distances in the table have two or three decimals.
ROUNDING = 0.006
SMALL_SECONDS = 5.0


def main() -> int:
    options = parse()
    if options.folder is None:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    warm_up("vns")
    best = read_best(BEST)
    large(options.folder / "100", best, options)
    if not options.instances:
        small(options.folder, best)
    return 0


def parse() -> argparse.Namespace:
    """Options; without any, our own rows at 300 s."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    data = os.environ.get("WARDWISE_DATA")
    folder = Path(data) / "evrptw" if data else None
    add("--time-limit", type=float, default=300.0, help="seconds on each large file")
    add("--seeds", type=int, nargs="+", default=[1], help="the median of their plans counts")
    add("--instances", nargs="*", help="names of large files; all, and the small ones, by default")
    add("--folder", type=Path, default=folder, help="with 5, 10, 15 and 100 in it")
    add("--peer", type=Path, default=os.environ.get("EVRPTW_EXAMPLES"), help="its examples folder")
    add(
        "--routingblocks",
        type=Path,
        default=os.environ.get("ROUTINGBLOCKS"),
        help="folder that routingblocks is installed in",
    )
    return parser.parse_args()


def read_best(path: Path) -> dict[tuple[str, str], Size]:
    """Best known plans by name and kind of recharge."""
    with path.open(encoding="utf-8") as file:
        return {
            (row["instance"], row["recharge"]): Size(int(row["vehicles"]), float(row["distance"]))
            for row in csv.DictReader(file)
        }


def large(folder: Path, best: Best, options: argparse.Namespace) -> None:
    """Rows of the large files, ours and the peer's."""
    gaps: list[float] = []
    extra: list[float] = []
    pairs: list[tuple[Size, Size]] = []
    peer = None
    if options.peer and options.routingblocks:
        peer = Folders(options.peer, options.routingblocks)
    seed, paths = options.seeds[0], sorted(folder.glob("*.txt"))
    for path in paths:
        name = path.stem.removesuffix("_21")
        if options.instances and name not in options.instances:
            continue
        known, instance = best[path.stem, "partial"], read_evrptw(path)
        mine, theirs = [], []
        for each in options.seeds:
            mine.append(ours(instance, options.time_limit, each))
            if peer:
                theirs.append(run(peer, path, instance, options.time_limit, each))
        found = statistics.median_low(mine)
        if found == NONE:
            row(f"evrptw_missing_{name}", 1, "plans", goal=["==", 0], seed=seed)
            continue
        gaps.append(gap_percent(found, known))
        extra.append(found.vehicles - known.vehicles)
        columns = {"instance": name, "best known": as_text(known), "ours": as_text(found)}
        columns |= {"gap %": round(gaps[-1], 2), "vehicles more": int(extra[-1])}
        if peer:
            pairs.append((found, statistics.median_low(theirs)))
            columns["RoutingBlocks"] = as_text(pairs[-1][1])
        detail = {"columns": columns, "seconds": options.time_limit, "seeds": options.seeds}
        row(f"evrptw_gap_{name}", gaps[-1], "%", detail=detail, seed=seed)
    if gaps:
        row("evrptw_mean_gap", statistics.mean(gaps), "%", goal=["<=", 1.0], seed=seed)
        row("evrptw_extra_vehicles", max(extra), "vehicles", goal=["<=", 1], seed=seed)
    if pairs:
        compare(pairs, seed)


def gap_percent(found: Size, known: Size) -> float:
    """Distance over the best known one; nothing with fewer vehicles, which win at any distance."""
    if found.vehicles < known.vehicles:
        return 0.0
    return 100.0 * (found.distance / known.distance - 1.0)


def as_text(size: Size) -> str:
    """Vehicles and distance, for tables."""
    return "none" if size.vehicles == NONE.vehicles else f"{size.vehicles}, {size.distance:.2f}"


def compare(pairs: list[tuple[Size, Size]], seed: int) -> None:
    """Rows of ours against the peer's; fewer vehicles win whatever the distance."""
    not_behind = sum(is_reached(mine, theirs) for mine, theirs in pairs)
    goal = [">=", len(pairs)]
    row("evrptw_not_behind_peer", not_behind, "instances", goal=goal, peer=NAME, seed=seed)
    ratios = [a.distance / b.distance for a, b in pairs if a.vehicles == b.vehicles]
    if ratios:
        detail = {"instances_with_equal_fleet": len(ratios), "instances": len(pairs)}
        value, goal = statistics.mean(ratios), ["<", 1.0]
        name = "evrptw_distance_over_peer"
        row(name, value, "x", goal=goal, detail=detail, peer=NAME, seed=seed)


def ours(instance: Instance, seconds: float, seed: int) -> Size:
    """Our plan, judged by the checker."""
    report = check(instance, solve(instance, method="vns", time_limit=seconds, seed=seed))
    if not report.is_feasible or report.cost.num_denied:
        return NONE
    return Size(report.cost.num_robots, report.cost.distance_m)


def small(folder: Path, best: Best) -> None:
    """Rows of the small files with full recharge, those whose optimum is known."""
    hits, slowest, missed = 0, 0.0, []
    found = (p for size in (5, 10, 15) for p in sorted((folder / str(size)).glob("*.txt")))
    paths = [path for path in found if (path.stem.lower(), "full") in best]
    for path in paths:
        known = best[path.stem.lower(), "full"]
        reached: list[float] = []

        def watch(progress: Progress, known: Size = known, reached: list[float] = reached) -> None:
            if is_reached(Size(progress.num_robots, progress.distance_m), known):
                reached.append(progress.elapsed_s)

        instance = replace(read_evrptw(path), recharge=Recharge.FULL)
        plan = solve(instance, method="vns", time_limit=SMALL_SECONDS, seed=1, on_progress=watch)
        cost = check(instance, plan).cost
        if reached and is_reached(Size(cost.num_robots, cost.distance_m), known):
            hits, slowest = hits + 1, max(slowest, reached[0])
        else:
            missed.append(path.stem)
    detail = {"instances": len(paths), "missed": missed}
    row("evrptw_small_optima", hits, "instances", goal=[">=", len(paths)], detail=detail)
    row("evrptw_small_slowest", slowest, "s", goal=["<", SMALL_SECONDS], detail=detail)


def is_reached(found: Size, known: Size) -> bool:
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
