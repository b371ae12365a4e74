"""The commands ``weightwise sft`` and ``weightwise dpo``, and how they tell what has changed."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (the parser reads annotations)
from typing import TYPE_CHECKING

import tyro  # noqa: TC002 (the parser reads annotations)

from weightwise.cli.law_options import Json  # noqa: TC001 (the parser reads annotations)
from weightwise.cli.train import Overrides, flat, report, run_folder
from weightwise.recipes.post import dpo, sft
from weightwise.train import read_metrics, train

if TYPE_CHECKING:
    from weightwise.train import Recipe

SHOWN = {
    "loss": "loss {:.4f}",
    "divergence": "divergence {:.4f}",
    "accuracy": "accuracy {:.3f}",
    "margin": "margin {:.4f}",
}


def sft_command(
    checkpoint: tyro.conf.Positional[Path],
    chats: tyro.conf.Positional[Path],
    /,
    out: Path | None = None,
    valid: Path | None = None,
    epochs: float = 3.0,
    overrides: Overrides = (),
    resume: bool = True,
    as_json: Json = False,
) -> int:
    """Fine-tune a model on chats: it learns to write the assistant's answers.

    The same command again goes on from the newest checkpoint. Under torchrun the work is shared
    over its processes.

    Args:
        checkpoint: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
        chats: JSON lines of messages, see the page on post-training.
        out: Folder of the run. Default: out/NAME-sft, after the name of the checkpoint's recipe.
        valid: File of held-out chats. Default: a share of CHATS.
        epochs: How often each chat is seen.
        overrides: Change settings of the recipe, such as schedule.peak_lr=1e-3.
        resume: Go on with the run in that folder; --no-resume refuses a folder that has one.
        as_json: Print the result as one JSON object.
    """
    recipe = sft(checkpoint, chats, valid=valid, epochs=epochs, overrides=flat(overrides))
    return run_and_compare(recipe, out, resume=resume, as_json=as_json)


def dpo_command(
    checkpoint: tyro.conf.Positional[Path],
    preferences: tyro.conf.Positional[Path],
    /,
    out: Path | None = None,
    valid: Path | None = None,
    online: bool = False,
    epochs: float = 1.0,
    overrides: Overrides = (),
    resume: bool = True,
    as_json: Json = False,
) -> int:
    """Train a fine-tuned model on preferences: of two answers it learns which one is better.

    The same command again goes on from the newest checkpoint. Under torchrun the work is shared
    over its processes.

    Args:
        checkpoint: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
        preferences: JSON lines of prompts with two answers, see the page on post-training.
        out: Folder of the run. Default: out/NAME-dpo, after the name of the checkpoint's recipe.
        valid: File of held-out preferences. Default: a share of PREFERENCES.
        online: Learn from as many pairs of the model's own answers, see data.online.
        epochs: How often each pair is seen.
        overrides: Change settings of the recipe, such as data.beta=0.05.
        resume: Go on with the run in that folder; --no-resume refuses a folder that has one.
        as_json: Print the result as one JSON object.
    """
    recipe = dpo(
        checkpoint,
        preferences,
        valid=valid,
        online=online,
        epochs=epochs,
        overrides=flat(overrides),
    )
    return run_and_compare(recipe, out, resume=resume, as_json=as_json)


def run_and_compare(recipe: Recipe, out: Path | None, *, resume: bool, as_json: bool) -> int:
    """Train, and tell what that has changed on held-out examples; returns the exit code."""
    result = train(recipe, run_folder(out, recipe.name), resume=resume)
    rows = [row for row in read_metrics(result.run_dir / "metrics.jsonl") if "valid_loss" in row]
    before, after = (
        {name.removeprefix("valid_"): value for name, value in row.items() if "valid_" in name}
        for row in (rows[0], rows[-1])
    )
    words = [
        f"{form.format(before[name])} -> {form.format(after[name]).rpartition(' ')[2]}"
        for name, form in SHOWN.items()
        if name in after
    ]
    more = {"held_out": {"before": before, "after": after}}
    return report(recipe.name, result, "held-out " + ", ".join(words), more, as_json=as_json)
