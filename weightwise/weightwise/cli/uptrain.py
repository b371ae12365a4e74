"""The command ``weightwise uptrain``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (the parser reads annotations)

import tyro  # noqa: TC002 (the parser reads annotations)

from weightwise.cli.distill_train import train_and_tell
from weightwise.cli.law_options import Json  # noqa: TC001 (the parser reads annotations)
from weightwise.cli.post import run_and_compare
from weightwise.cli.train import Overrides, flat
from weightwise.recipes.uptrain import uptrain
from weightwise.recipes.uptrain_vision import uptrain_vision
from weightwise.train.vision_start import is_vision_checkpoint

STEPS = 200


def uptrain_command(
    checkpoint: tyro.conf.Positional[Path],
    /,
    steps: int | None = None,
    epochs: int | None = None,
    teacher: Path | None = None,
    out: Path | None = None,
    overrides: Overrides = (),
    resume: bool = True,
    as_json: Json = False,
) -> int:
    """Train a converted or shrunk model beside its original until it does what that did.

    The same command again goes on from the newest checkpoint. Under torchrun the work is shared
    over its processes.

    Args:
        checkpoint: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
        steps: Language models: optimizer steps. Default: 200.
        epochs: Vision models: passes over the images. Default: as many as the original had.
        teacher: Checkpoint or run to learn from. Default: what CHECKPOINT was made from.
        out: Folder of the run. Default: out/NAME-uptrained, after the name of the checkpoint.
        overrides: Change settings of the recipe, such as distillation.weight=1.0.
        resume: Go on with the run in that folder; --no-resume refuses a folder that has one.
        as_json: Print the result as one JSON object.
    """
    changes = flat(overrides)
    if is_vision_checkpoint(checkpoint):
        if steps is not None:
            raise ValueError(f"steps: expected --epochs for a vision model, got {steps} steps")
        wanted = uptrain_vision(checkpoint, epochs=epochs, teacher=teacher, overrides=changes)
        return train_and_tell(wanted, out, resume=resume, as_json=as_json)
    if epochs is not None:
        raise ValueError(f"epochs: expected --steps for a language model, got {epochs} epochs")
    recipe = uptrain(
        checkpoint, steps=STEPS if steps is None else steps, teacher=teacher, overrides=changes
    )
    return run_and_compare(recipe, out, resume=resume, as_json=as_json)
