"""What it costs to be on time: a promise for every stop against longer legs for all.

Claims (scheduling of hospital robots in a stochastic environment; none of the paper's tables
could be had, so the values to reach are those of a reference study, made with PyVRP on
inflated times): a variable neighbourhood search under chance constraints is better than
existing methods. Plans that ignore chance are late at many stops; longer legs and services
for all (1 + z cv) help but take more robots than a promise for each stop.

Here: six Solomon instances, gamma legs and services with cv 0.2, z = 0, 0.5, 1 and 1.645
for PyVRP, ALNS, tabu search and insertion, fewest robots first; ours under the promise of
5 % for every stop and return. All have the same CPU time, ours that of its two threads
together. Every plan is judged by the referee and by the same 20,000 days, which no
search has seen. Where a request is out of reach of a robot of its own (four of R101), nobody
is asked to be on time there, and inflation stretches its window. More robots are there than
in the files, so that plans with margins exist.

Then what it is worth to reckon with luck, and to know it: the first 25 customers of RC101,
mean costs of 20 days in money with late service at three prices.

The files R112, R201 and RC108 are not in every collection: --solomon, or SOLOMON, names a folder
with all six.

Command   WARDWISE_DATA=... python wardwise/experiments/amr_stochastic.py [--solomon FOLDER]
Cost      about 15 minutes on two CPU cores with the default 20 seconds a plan
Expect    ours with no more robots than PyVRP's least inflated punctual plan everywhere, and
          fewer on most
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from robust import drawing, information, study
from robust.plans import OUR_METHODS, OURS, PEERS, Task
from robust.rows import Row, row, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
FIGURES = HERE.parent.parent / "docs" / "results"
INSTANCES = ("R101", "R112", "R201", "RC108", "C101", "C201")
INFLATIONS = (0.0, 0.5, 1.0, 1.645)
SMALL = "RC101"


def main() -> int:
    options = parse()
    folder = options.solomon or Path(os.environ.get("WARDWISE_DATA", "")) / "solomon"
    paths = [folder / f"{name}.txt" for name in options.instances]
    missing = [path.stem for path in paths if not path.is_file()]
    if missing:
        print(f"{folder}: there is no {', '.join(missing)}; left out", file=sys.stderr)
    tasks = [
        task for path in paths if path.is_file() for seed in options.seeds
        for task in tasks_of(path, options.methods, options.inflations, options.seconds, seed)
    ]  # fmt: skip
    if not tasks:
        print("set WARDWISE_DATA, or --solomon, to the folder of instances", file=sys.stderr)
        return 2
    verdicts = study.run_all(tasks, options.jobs, options.cache)
    study.write_table((options.out or HERE / "results") / "amr_stochastic.csv", verdicts)
    drawing.write_figure((options.out or FIGURES) / "robust.svg", verdicts)
    for measured in rows(verdicts):
        emit(measured, options.seeds[0])
    small = folder / f"{SMALL}.txt"
    if options.days and not small.is_file() and os.environ.get("WARDWISE_DATA"):
        small = Path(os.environ["WARDWISE_DATA"]) / "solomon" / small.name
    if options.days and small.is_file():
        for measured in information_rows(small, options):
            emit(measured, options.seeds[0])
    return 0


def parse() -> argparse.Namespace:
    """Options; without any, the whole study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def words(text: str) -> list[str]:
        return text.split(",")

    def numbers(text: str) -> list[float]:
        return [float(word) for word in text.split(",")]

    add = parser.add_argument
    add("--jobs", type=int, default=2, help="processes for the plans that take one thread")
    add("--seconds", type=float, default=20.0, help="CPU seconds for each plan")
    add("--instances", type=words, default=list(INSTANCES))
    solomon = os.environ.get("SOLOMON")
    add("--solomon", type=Path, default=solomon, help="folder of the files; else WARDWISE_DATA's")
    add("--methods", type=words, default=[OURS, *PEERS, *OUR_METHODS])
    add("--inflations", type=numbers, default=list(INFLATIONS), help="values of z")
    add("--seeds", type=lambda text: [int(word) for word in text.split(",")], default=[1])
    add("--days", type=int, default=information.NUM_DAYS, help="0: no value of information")
    add("--day-seconds", type=float, default=2.0, help="search for each plan of a known day")
    add("--cache", type=Path, help="JSON lines of verdicts, read and appended to")
    add("--out", type=Path, help="folder for CSV and figure; in the repository by default")
    options = parser.parse_args()
    unknown = set(options.methods) - {OURS, *PEERS, *OUR_METHODS}
    if unknown:
        parser.error(f"--methods: there is no {', '.join(sorted(unknown))}")
    return options


def tasks_of(
    path: Path, methods: list[str], inflations: list[float], seconds: float, seed: int
) -> list[Task]:
    """All plans of one file."""
    tasks = []
    for method in methods:
        margins: list[float | None] = [None] if method == OURS else [*inflations]
        tasks += [Task(path, method, z, seconds, seed) for z in margins]
    return tasks


def information_rows(path: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Costs of the three plans and their differences, at each price of delay."""
    for price in information.PRICES:
        found = information.costs(path, price, options.day_seconds, options.seeds[0], options.days)
        columns = {"price of a second late": price} | {
            name.replace("_", " "): round(getattr(found, name), 1)
            for name in ("mean_value", "promise", "wait_and_see")
        }
        name = f"information_price{price:g}"
        detail = {"instance": path.stem, "days": options.days, **found._asdict()}
        more = {**detail, "columns": columns}
        yield row(f"{name}_saved_by_promise", found.mean_value - found.promise, "money", None, more)
        least = min(found.mean_value, found.promise) - found.wait_and_see
        yield row(f"{name}_worth_of_knowing", least, "money", (">=", 0.0), detail)


def emit(measured: Row, seed: int) -> None:
    print(json.dumps({"system": "stochastic", "seed": seed, **measured}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
