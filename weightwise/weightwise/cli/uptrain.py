"""The command ``weightwise uptrain``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (the parser reads annotations)

import tyro  # noqa: TC002 (the parser reads annotations)

from weightwise.cli.law_options import Json  # noqa: TC001 (the parser reads annotations)
from weightwise.cli.post import run_and_compare
from weightwise.cli.train import Overrides, flat
from weightwise.recipes.uptrain import uptrain


def uptrain_command(
    checkpoint: tyro.conf.Positional[Path],
    /,
    steps: int = 200,
    teacher: Path | None = None,
    out: Path | None = None,
    overrides: Overrides = (),
    resume: bool = True,
    as_json: Json = False,
) -> int:
    """Train a converted model beside its original until it does what that did.

    The same command again goes on from the newest checkpoint. Under torchrun the work is shared
    over its processes.

    Args:
        checkpoint: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
        steps: Optimizer steps.
        teacher: Checkpoint or run to learn from. Default: what CHECKPOINT was converted from.
        out: Folder of the run. Default: out/NAME-uptrained, after the name of the checkpoint.
        overrides: Change settings of the recipe, such as distillation.weight=1.0.
        resume: Go on with the run in that folder; --no-resume refuses a folder that has one.
        as_json: Print the result as one JSON object.
    """
    recipe = uptrain(checkpoint, steps=steps, teacher=teacher, overrides=flat(overrides))
    return run_and_compare(recipe, out, resume=resume, as_json=as_json)
