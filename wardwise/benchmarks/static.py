"""Our static planners against PyVRP, OR-Tools and VROOM at equal CPU time of one thread.

Twelve Solomon instances, shortest distance (arcs cut to one decimal, the DIMACS
convention) and fewest vehicles first (doubles), after 1, 10 and 60 CPU seconds;
gaps to the best known values. Then six Gehring-Homberger files, distance in
doubles, ours over PyVRP's. How each peer is set up stands in `peers/by_*.py`.
Every plan goes through our checker; one that it refuses counts as missing.

Single results go to `results/static.csv`, the figure to `docs/results`. With
`--cache FILE` an interrupted run goes on where it stopped; our own results are
kept there under a digest of the search's source.

    WARDWISE_DATA=... python wardwise/benchmarks/static.py --jobs 2 --cache /tmp/static.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from peers import draw, results, rows, study
from peers.found import DISTANCE, HIERARCHICAL
from peers.ours import is_ours
from peers.results import GEHRING_HOMBERGER, SOLOMON
from peers.study import PEERS, WITHOUT_CHANCE, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
FIGURES = HERE.parent.parent / "docs" / "results"
FOLDERS = {SOLOMON: "solomon", GEHRING_HOMBERGER: "gehring_homberger"}
OBJECTIVES = (DISTANCE, HIERARCHICAL)
BUDGETS = (1.0, 10.0, 60.0)
# The large files: PyVRP beside our default method, distance only, longest budget only.
LARGE_PEER = "pyvrp"
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main() -> int:
    data = os.environ.get("WARDWISE_DATA")
    if not data:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    options = parse()
    unknown = [name for name in options.solvers if not (name in PEERS or is_ours(name))]
    if unknown:
        print(f"--solvers: there is no {', '.join(unknown)}", file=sys.stderr)
        return 2
    for name in THREADS:
        os.environ[name] = "1"
    found = list(study.run_all(tasks(options, Path(data)), options.jobs, options.cache).values())
    best = results.read_best(Path(data) / "best_known.csv")
    measured = list(rows.rows(found, best, options.engine))
    write(options.out, found, best, measured)
    for row in measured:
        print(json.dumps(row), flush=True)
    return 0


def parse() -> argparse.Namespace:
    """Options; without any, the whole comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def words(text: str) -> list[str]:
        return text.split(",")

    def numbers(text: str) -> list[float]:
        return [float(word) for word in text.split(",")]

    add = parser.add_argument
    add("--jobs", type=int, default=2, help="processes, each on other instances")
    add("--cache", type=Path, help="JSON lines of single results, read and appended to")
    add("--sets", type=words, default=list(FOLDERS), help="solomon,gh")
    add("--instances", type=words, help="names of files, all by default")
    add("--objectives", type=words, default=list(OBJECTIVES), help="distance,hierarchical")
    add("--budgets", type=numbers, default=list(BUDGETS), help="CPU seconds")
    add("--engine", default="ruin", help="our method that the goals are for")
    add("--solvers", type=words, help="the engine, tabu, pyvrp, ortools and vroom by default")
    add("--seeds", type=lambda text: [int(word) for word in text.split(",")], default=[1])
    add("--out", type=Path, help="folder for CSV and figure; in the repository by default")
    options = parser.parse_args()
    options.solvers = options.solvers or [options.engine, "tabu", *PEERS]
    return options


def tasks(options: argparse.Namespace, data: Path) -> list[Task]:
    """What has to run, solvers of one instance and objective side by side."""
    solvers = options.solvers
    large = [solver for solver in solvers if solver in (options.engine, LARGE_PEER)]
    wanted = []
    for name in options.sets:
        is_large = name == GEHRING_HOMBERGER
        budgets = options.budgets[-1:] if is_large else options.budgets
        for path in sorted((data / FOLDERS[name]).glob("*.txt")):
            if options.instances and path.stem not in options.instances:
                continue
            wanted += [
                Task(name, path, objective, solver, tuple(budgets), seed)
                for objective in options.objectives
                if not (is_large and objective != DISTANCE)
                for seed in options.seeds
                for solver in (large if is_large else solvers)
                if solver not in WITHOUT_CHANCE or seed == options.seeds[0]
            ]
    return wanted


def write(
    out: Path | None,
    found: Sequence[results.Result],
    best: dict[tuple[str, str], results.Best],
    measured: Sequence[rows.Row],
) -> None:
    """Write the table of single results and the figure."""
    table, figure = out or HERE / "results", out or FIGURES
    table.mkdir(parents=True, exist_ok=True)
    results.write_csv(table / "static.csv", found, best)
    gaps, vehicles = lines(measured, DISTANCE, "gap"), lines(measured, HIERARCHICAL, "vehicles")
    panels = [
        draw.Panel("Distance: mean gap to the best known", " %", gaps, is_log=True),
        draw.Panel("Fewest vehicles: above best known, in sum", "", vehicles, is_log=False),
    ]
    drawn = [panel for panel in panels if panel.lines]
    if drawn:
        draw.write_figure(figure / "static.svg", drawn)


def lines(measured: Sequence[rows.Row], objective: str, what: str) -> draw.Lines:
    """Values by solver and budget, out of the names of the measurements."""
    found: draw.Lines = {}
    for row in measured:
        words = row["name"].split("_")
        if words[:2] == ["static", objective] and len(words) == 5 and words[4] == what:
            found.setdefault(words[3], {})[float(words[2].removesuffix("s"))] = row["value"]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
