"""The command ``weightwise train``, and what commands that train share."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from weightwise.cli.law_options import Json  # noqa: TC001 (the parser reads annotations)
from weightwise.recipes import load_recipe
from weightwise.train import train

if TYPE_CHECKING:
    from weightwise.train import TrainResult

DONE, STOPPED = 0, 1

Overrides = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.arg(name="set", metavar="KEY=VALUE [KEY=VALUE ...]"),
    tyro.conf.UseAppendAction,
]


def train_command(
    recipe: tyro.conf.Positional[str],
    /,
    out: Path | None = None,
    overrides: Overrides = (),
    resume: bool = True,
    as_json: Json = False,
) -> int:
    """Train a language model from a recipe, or go on with a stopped run.

    The same command again goes on from the newest checkpoint. Under torchrun the work is shared
    over its processes.

    Args:
        recipe: Built-in recipe (demo, tiny, fp-41m, ...) or path of a TOML file.
        out: Folder of the run. Default: out/NAME, after the recipe's name.
        overrides: Change settings of the recipe, such as train.steps=100.
        resume: Go on with the run in that folder; --no-resume refuses a folder that has one.
        as_json: Print the result as one JSON object.
    """
    wanted = load_recipe(recipe, flat(overrides))
    result = train(wanted, run_folder(out, wanted.name), resume=resume)
    summary = (
        f"training loss {result.train_loss:.4f}, validation loss {result.valid_loss:.4f}"
        if result.is_complete
        else ""
    )
    return report(wanted.name, result, summary, {}, as_json=as_json)


def flat(overrides: tuple[tuple[str, ...], ...]) -> list[str]:
    """Changes of all ``--set`` in their order."""
    return [change for group in overrides for change in group]


def run_folder(out: Path | None, name: str) -> Path:
    """The folder that was asked for, or one after the recipe's name."""
    return Path("out") / name if out is None else out


def report(
    name: str, result: TrainResult, summary: str, more: dict[str, Any], *, as_json: bool
) -> int:
    """Tell how a run ended, from one process only; returns the exit code.

    Parameters
    ----------
    name, result
        Of the recipe, and what came of it.
    summary
        Words about a complete run.
    more
        Further entries of the JSON object.
    as_json
        Print that instead of the words.
    """
    if not is_main_process():
        return DONE if result.is_complete else STOPPED
    if as_json:
        row: dict[str, Any] = {
            "run_dir": str(result.run_dir),
            "checkpoint": str(result.checkpoint),
            "step": result.step,
            "train_loss": result.train_loss,
            "valid_loss": result.valid_loss,
            "is_complete": result.is_complete,
        }
        print(json.dumps(row | more))
    elif result.is_complete:
        print(f"{name}: {result.step} steps, {summary}, saved in {result.checkpoint}")
    if not result.is_complete:
        say(
            f"stopped after step {result.step} of {result.num_steps}, saved in "
            f"{result.checkpoint}; the same command goes on from there"
        )
        return STOPPED
    return DONE


def is_main_process() -> bool:
    """Whether this process talks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Tell one line on standard error, from one process only."""
    if is_main_process():
        print("weightwise: " + " ".join(text.split()), file=sys.stderr)
