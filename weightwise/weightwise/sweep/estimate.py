"""What a sweep will cost, from a few measured steps of each kind of run."""

from __future__ import annotations

import json
import math
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from weightwise.lm import num_parameters
from weightwise.sweep.grid import num_flop, num_tokens
from weightwise.sweep.journal import read_records
from weightwise.train import default_cache_dir, to_dict
from weightwise.train.parallel import open_world
from weightwise.train.start import prepare_data
from weightwise.train.trainer import Trainer, micro_batch_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightwise.sweep.grid import Sweep
    from weightwise.train import Recipe


NUM_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A run of a sweep and what it will cost.

    Parameters
    ----------
    name
        Name of the run.
    num_params, num_tokens
        N and D.
    flop
        6 N D.
    seconds
        Time of its steps and evaluations in one process with one thread.
    status
        Of its record: ``done``, ``diverged``, or empty if it has none.
    """

    name: str
    num_params: int
    num_tokens: int
    flop: float
    seconds: float
    status: str


def estimate(
    sweep: Sweep,
    out: Path | str,
    *,
    cache_dir: Path | str | None = None,
    on_measured: Callable[[], None] | None = None,
) -> list[Estimate]:
    """List the runs of a sweep with their cost; writes nothing but prepared data.

    Three steps of a micro-batch and its evaluation are measured for each combination of size and
    precision; the middle step counts. Runs that share a machine with others take longer.

    Parameters
    ----------
    sweep
        What would be run.
    out
        Folder of the sweep, for the runs that are made already; it need not exist.
    cache_dir
        Folder of prepared data, see `weightwise.train.default_cache_dir`.
    on_measured
        Called after each measurement.

    Raises
    ------
    ValueError
        If the data cannot be prepared.
    """
    cache = default_cache_dir() if cache_dir is None else Path(cache_dir)
    path = Path(out) / "runs.jsonl"
    records = read_records(path) if path.exists() else []
    status = {record["name"]: record["status"] for record in records}
    measured: dict[str, tuple[float, float]] = {}
    rows = []
    with _one_thread():
        for recipe in sweep.runs:
            kind = _kind(recipe)
            if kind not in measured:
                measured[kind] = _measure(recipe, cache)
                if on_measured is not None:
                    on_measured()
            rows.append(
                Estimate(
                    name=recipe.name,
                    num_params=num_parameters(recipe.model),
                    num_tokens=num_tokens(recipe),
                    flop=num_flop(recipe),
                    seconds=_seconds(recipe, *measured[kind]),
                    status=status.get(recipe.name, ""),
                )
            )
    return rows


def time_left(rows: list[Estimate], jobs: int) -> float:
    """Seconds until all runs without a record are made, some at a time."""
    left = [row.seconds for row in rows if not row.status]
    return max(sum(left) / jobs, max(left, default=0.0))


def _kind(recipe: Recipe) -> str:
    """The settings that the time of a step depends on."""
    table = to_dict(recipe)
    train = {key: table["train"].get(key) for key in ("dtype", "micro_batch_size", "seq_length")}
    return json.dumps([table["model"], table["precision"], table["data"], train])


def _measure(recipe: Recipe, cache_dir: Path) -> tuple[float, float]:
    """Seconds of a training step and of an evaluation of one micro-batch."""
    micro = micro_batch_size(recipe.train, 1)
    settings = replace(recipe.train, batch_size=micro, micro_batch_size=micro, eval_batches=1)
    small = replace(recipe, train=settings)
    data = prepare_data(recipe, cache_dir)
    with open_world() as world:
        trainer = Trainer(small, data, world, None)
        times = [time.perf_counter()]
        for step in range(1, NUM_STEPS + 2):
            trainer.gradient(step)
            trainer.move(step)
            times.append(time.perf_counter())
        trainer.evaluate()
        evaluation_s = time.perf_counter() - times[-1]
        # Without the first step, which allocates and may compile.
        return statistics.median(b - a for a, b in pairwise(times[1:])), evaluation_s


def _seconds(recipe: Recipe, step_s: float, evaluation_s: float) -> float:
    config = recipe.train
    num_micro = config.batch_size // micro_batch_size(config, 1)
    num_evaluations = math.ceil(config.steps / config.eval_every)
    return num_micro * (
        config.steps * step_s + num_evaluations * config.eval_batches * evaluation_s
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
