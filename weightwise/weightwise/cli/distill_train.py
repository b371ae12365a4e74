"""The command ``weightwise distill train``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (the parser reads annotations)
from typing import TYPE_CHECKING

import tyro  # noqa: TC002 (the parser reads annotations)

from weightwise.cli.law_options import Json  # noqa: TC001 (the parser reads annotations)
from weightwise.cli.train import Overrides, flat, report, run_folder
from weightwise.recipes.vision import load_vision_recipe
from weightwise.train import read_metrics
from weightwise.train.vision import train_vision

if TYPE_CHECKING:
    from weightwise.train import TrainResult
    from weightwise.train.vision_recipe import VisionRecipe


def train_command(
    recipe: tyro.conf.Positional[str],
    /,
    out: Path | None = None,
    overrides: Overrides = (),
    resume: bool = True,
    as_json: Json = False,
) -> int:
    """Train a vision model from labels, a store of soft labels or a teacher, or go on with a run.

    The same command again goes on from the newest checkpoint. Under torchrun the work is shared
    over its processes.

    Args:
        recipe: Built-in recipe (composites-student, tinyvit-21m-distill, ...) or path of a TOML
            file.
        out: Folder of the run. Default: out/NAME, after the recipe's name.
        overrides: Change settings of the recipe, such as train.epochs=5 or
            targets.store=out/labels.
        resume: Go on with the run in that folder; --no-resume refuses a folder that has one.
        as_json: Print the result as one JSON object.
    """
    wanted = load_vision_recipe(recipe, flat(overrides))
    return train_and_tell(wanted, out, resume=resume, as_json=as_json)


def train_and_tell(wanted: VisionRecipe, out: Path | None, *, resume: bool, as_json: bool) -> int:
    """Train, and tell how well the model does; returns the exit code."""
    result = train_vision(wanted, run_folder(out, wanted.name), resume=resume)
    shares = _shares(result) if result.is_complete else {}
    summary = (
        f"training loss {result.train_loss:.4f}, validation loss {result.valid_loss:.4f}, "
        f"top-1 {shares['top1']:.4f}, top-5 {shares['top5']:.4f}"
        if shares
        else ""
    )
    return report(wanted.name, result, summary, dict(shares), as_json=as_json)


def _shares(result: TrainResult) -> dict[str, float]:
    """Shares of the last evaluation."""
    rows = read_metrics(result.run_dir / "metrics.jsonl")
    last = [row for row in rows if "valid_top1" in row][-1]
    return {name: last[f"valid_{name}"] for name in ("top1", "top5")}
