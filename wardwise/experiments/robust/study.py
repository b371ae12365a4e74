"""Make and judge all plans of the study, and keep what is done.

Plans of one thread are made in several processes at once; ours search on two threads and
take turns afterwards, so that nobody is short of a core.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, fields
from typing import TYPE_CHECKING

from .judge import Judged, judge
from .plans import OURS, make, stochastic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .plans import Task


def run_all(tasks: Sequence[Task], jobs: int, cache: Path | None) -> list[Judged]:
    """Verdicts on all tasks; those in the cache are not run again."""
    known = {key_of(one): one for one in read(cache)} if cache else {}
    left = [task for task in tasks if key_of(task) not in known]
    side_by_side = [task for task in left if task.method != OURS]
    print(f"{len(tasks) - len(left)} plans known, {len(left)} to make", file=sys.stderr)
    for group, num_jobs in ((side_by_side, jobs), ([t for t in left if t.method == OURS], 1)):
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_jobs, mp_context=spawn) as pool:
            for judged in pool.map(run, group):
                known[key_of(judged)] = judged
                if cache:
                    append(cache, judged)
    return [known[key_of(task)] for task in tasks]


def run(task: Task) -> Judged:
    """Make and judge one plan."""
    instance = stochastic(task.path)
    try:
        plan = make(task)
    except ValueError as error:  # no plan, or none that can be driven on the mean day
        print(f"{task.path.stem}, {task.method}: {error}", file=sys.stderr)
        plan = None
    judged = judge(task, instance, plan)
    print(
        f"{judged.instance} {judged.method} {judged.inflation}: {judged.robots} robots, "
        f"{judged.distance:.1f}, late {judged.max_late:.3f}",
        file=sys.stderr,
        flush=True,
    )
    return judged


def key_of(one: Task | Judged) -> tuple[object, ...]:
    """What tells results apart."""
    name = one.instance if isinstance(one, Judged) else one.path.stem
    return name, one.method, one.inflation, one.seconds, one.seed


def append(path: Path, judged: Judged) -> None:
    """Write one verdict at the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(judged)) + "\n")


def read(path: Path) -> list[Judged]:
    """Verdicts of a file; none where there is no file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Judged(**json.loads(line)) for line in lines]


def write_table(path: Path, verdicts: Iterable[Judged]) -> None:
    """Write a line for each plan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Judged)])
        for judged in verdicts:
            cells = astuple(judged)
            writer.writerow([f"{x:.5g}" if isinstance(x, float) else x for x in cells])
