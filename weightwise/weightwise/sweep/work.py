"""One run of a sweep, from its recipe to its record."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from rich.console import Console

from weightwise import __version__
from weightwise.lm import num_parameters
from weightwise.lm.flops import training_flop
from weightwise.sweep.grid import block_of, num_tokens
from weightwise.sweep.journal import locked
from weightwise.train import DivergedError, read_metrics, to_dict, train
from weightwise.train.checkpoint import read_state

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.sweep.journal import Record
    from weightwise.train import Recipe


class Task(NamedTuple):
    """A run to be made.

    Parameters
    ----------
    recipe
        The run.
    run_dir
        Its folder.
    cache_dir
        Folder of prepared data, see `weightwise.train.train`.
    """

    recipe: Recipe
    run_dir: Path
    cache_dir: Path | None


def work(task: Task) -> Record:
    """Make a run, or go on with it; never raises an error of the run itself.

    Parameters
    ----------
    task
        The run.

    Returns
    -------
    Record
        With the status ``done``, ``diverged``, ``failed`` or ``stopped``.
    """
    recipe = task.recipe
    # One thread for each run: small products gain nothing from more, and sums keep their order.
    torch.set_num_threads(1)
    try:
        with locked(task.run_dir):
            return {**_describe(recipe), **_outcome(task)}
    except Exception as error:  # one run must not take the others along
        return failure(recipe, f"{type(error).__name__}: {error}")


def failure(recipe: Recipe, message: str) -> Record:
    """Record of a run that could not be made."""
    line = " ".join(message.split())
    return {**_describe(recipe), "status": "failed", "loss": None, "message": line}


def seconds_of(run_dir: Path) -> float:
    """Time that the steps of a run took, without evaluation and saving, over all its calls."""
    seconds, before = 0.0, 0.0
    for row in read_metrics(run_dir / "metrics.jsonl"):
        if "tokens_per_s" in row:
            seconds += (row["tokens"] - before) / row["tokens_per_s"]
            before = row["tokens"]
    return seconds


def _outcome(task: Task) -> Record:
    """What came of the run."""
    recipe, run_dir, cache_dir = task
    try:
        result = train(recipe, run_dir, cache_dir=cache_dir, console=Console(quiet=True))
    except DivergedError as error:
        return {
            "status": "diverged",
            "loss": None,
            "step": error.step,
            "seconds": round(seconds_of(run_dir), 3),
            "message": " ".join(str(error).split()),
        }
    return {
        "status": "done" if result.is_complete else "stopped",
        "loss": result.valid_loss,
        "step": result.step,
        "train_loss": result.train_loss,
        "seconds": round(seconds_of(run_dir), 3),
        "data": read_state(result.checkpoint).data,
    }


def _describe(recipe: Recipe) -> Record:
    """What is known of a run beforehand: the columns of `weightwise.laws.read_runs`, and more."""
    precision = recipe.precision
    is_plain = precision.format is None
    return {
        "name": recipe.name,
        "num_params": num_parameters(recipe.model),
        "num_tokens": num_tokens(recipe),
        "cost": training_flop(recipe.model, recipe.train.seq_length) * num_tokens(recipe),
        "batch_tokens": recipe.train.batch_size * recipe.train.seq_length,
        "format": precision.format,
        "block_size": block_of(precision),
        "targets": [] if is_plain else [str(target) for target in precision.targets],
        "seed": recipe.seed,
        "steps": recipe.train.steps,
        "version": __version__,
        "recipe": to_dict(recipe),
    }
