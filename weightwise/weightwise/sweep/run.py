"""A sweep: many runs, each made once, whatever comes in between.

::

    OUT/runs.jsonl     one record for each run that is done or has diverged: a table of runs
    OUT/failed.jsonl   what failed in the newest call; it is tried again by the next one
    OUT/runs/NAME/     the run itself, see `weightwise.train`
    OUT/lock           held while a sweep is at work here

The same call again goes on: recorded runs are left alone, runs under way go on from their
checkpoints, and a run that ended just before it could be recorded is recorded now. Runs that the
sweep no longer asks for keep their records. Folders of recorded runs may be removed.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from weightwise.sweep.grid import num_flop
from weightwise.sweep.journal import Journal, locked
from weightwise.sweep.pools import open_pool
from weightwise.sweep.progress import SweepProgress
from weightwise.sweep.work import Task
from weightwise.train import default_cache_dir, from_dict, to_dict
from weightwise.train.checkpoint import list_checkpoints
from weightwise.train.interrupt import StopRequest
from weightwise.train.recipe import read_recipe
from weightwise.train.recipe_conflicts import FREE_ON_RESUME, difference
from weightwise.train.start import prepare_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.sweep.grid import Sweep
    from weightwise.sweep.journal import Record
    from weightwise.train import Recipe

# Settings that change nothing in a record. How much is evaluated and how long the run is do.
FREE = FREE_ON_RESUME - {"train.steps", "train.eval_batches"}


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """How far a sweep is.

    Parameters
    ----------
    records
        File with one record a line, which `weightwise.laws.read_runs` reads.
    num_runs
        Runs of the sweep.
    num_done, num_diverged, num_failed
        Runs that reached their last step, that ended in numbers that are not finite, and that
        failed in this call for another reason.
    num_others
        Records of runs that the sweep does not ask for.
    seconds
        Time that this call took.
    """

    records: Path
    num_runs: int
    num_done: int
    num_diverged: int
    num_failed: int
    num_others: int
    seconds: float

    @property
    def is_complete(self) -> bool:
        """Whether every run has a record."""
        return self.num_done + self.num_diverged == self.num_runs


def run_sweep(
    sweep: Sweep,
    out: Path | str,
    *,
    jobs: int | None = None,
    ray_address: str | None = None,
    cache_dir: Path | str | None = None,
    console: Console | None = None,
) -> SweepResult:
    """Make the runs of a sweep that are not made yet, the longest first.

    Parameters
    ----------
    sweep
        What to run.
    out
        Folder of records and runs; made if missing.
    jobs
        Runs at a time, each in a process of its own with one thread; None: one for each core. A
        script that calls this must be importable, its entry guarded by ``if __name__ ==
        "__main__"``.
    ray_address
        Ray cluster that makes the runs instead (extra ``ray``); ``local`` starts one. All its
        machines must see ``out`` under the same path.
    cache_dir
        Folder of prepared data, see `weightwise.train.default_cache_dir`.
    console
        Where to show progress; standard error by default.

    Returns
    -------
    SweepResult
        Counts over all calls. After Ctrl-C or SIGTERM the runs under way finish their step and
        save first, and ``is_complete`` is false.

    Raises
    ------
    ValueError
        If data or settings are wrong, another sweep is at work in the folder, or a run of the
        same name was made with other settings.
    """
    start = time.monotonic()
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs: expected at least 1, got {jobs}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("expected a sweep to be started by itself, not under torchrun")
    # Absolute, since workers of a cluster start elsewhere.
    out = Path(out).resolve()
    cache = None if cache_dir is None else Path(cache_dir).resolve()
    with locked(out):
        journal = Journal(out / "runs.jsonl")
        tasks = [
            Task(recipe=recipe, run_dir=out / "runs" / recipe.name, cache_dir=cache)
            for recipe in sorted(sweep.runs, key=num_flop, reverse=True)
        ]
        _check_settings(tasks, journal)
        waiting = [task for task in tasks if task.recipe.name not in journal.records]
        _check_data(tasks, waiting, journal, cache)
        failures = Journal(_emptied(out / "failed.jsonl"))
        if waiting:
            console = Console(stderr=True) if console is None else console
            with (
                open_pool(jobs, ray_address) as pool,
                StopRequest() as stop,
                SweepProgress(waiting, len(tasks) - len(waiting), console) as progress,
            ):
                for record in pool(waiting, stop):
                    _take(record, journal, failures, progress)
        return _result(sweep, journal, failures, time.monotonic() - start)


def _take(
    record: Record | None, journal: Journal, failures: Journal, progress: SweepProgress
) -> None:
    """Write down what a pool has yielded."""
    if record is None:
        progress.refresh()
    elif record["status"] != "stopped":
        (failures if record["status"] == "failed" else journal).append(record)
        progress.end(record)


def _emptied(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path


def _check_settings(tasks: Sequence[Task], journal: Journal) -> None:
    """Refuse runs whose names stand for other settings already."""
    for task in tasks:
        name, wanted = task.recipe.name, to_dict(task.recipe)
        record = journal.records.get(name)
        saved = list_checkpoints(task.run_dir / "checkpoints")
        if record is not None:
            where, free = journal.path, FREE
            before = from_dict(record["recipe"], origin=f"{where}: {name}")
        elif saved:
            where, free = saved[-1] / "recipe.toml", FREE | {"train.eval_batches"}
            before = read_recipe(where)
        else:
            continue
        conflict = difference(to_dict(before), wanted, free)
        if conflict:
            raise ValueError(f"{where}: {name}: {conflict}; choose another --out")


def _check_data(
    tasks: Sequence[Task], waiting: Sequence[Task], journal: Journal, cache: Path | None
) -> None:
    """Prepare what the waiting runs train on, once, and refuse to mix it with other documents."""
    wanted = {_data_key(task.recipe): task.recipe for task in waiting}
    cache = default_cache_dir() if cache is None else cache
    fingerprints = {key: prepare_data(recipe, cache).fingerprint for key, recipe in wanted.items()}
    for task in tasks:
        found = fingerprints.get(_data_key(task.recipe))
        before = journal.records.get(task.recipe.name, {}).get("data", found)
        if found != before and found is not None:
            raise ValueError(
                f"{journal.path}: {task.recipe.name}: data: expected documents {before} as in the "
                f"run so far, got {found}; restore them or choose another --out"
            )


def _data_key(recipe: Recipe) -> str:
    return repr((recipe.data, recipe.start, recipe.model.vocab_size, recipe.train.seq_length))


def _result(sweep: Sweep, journal: Journal, failures: Journal, seconds: float) -> SweepResult:
    names = {recipe.name for recipe in sweep.runs}
    ours = [record for name, record in journal.records.items() if name in names]
    counts = Counter(record["status"] for record in ours)
    return SweepResult(
        records=journal.path,
        num_runs=len(names),
        num_done=counts["done"],
        num_diverged=counts["diverged"],
        num_failed=len(failures.records),
        num_others=len(journal.records) - len(ours),
        seconds=seconds,
    )
