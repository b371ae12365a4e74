"""A shrunk vision model goes on with its original as a teacher.

Command   weightwise shrink out/digits-vit --params 50% --kernel 3 --out small
          weightwise uptrain small
Cost      that of so many epochs, and a forward pass of the original for each image
Expect    the accuracy of the original within two percent

The student sees images as in the run of the original, and learns its predictions, without labels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from weightwise.distill import TeacherConfig
from weightwise.train.cache_conversion import original_of
from weightwise.train.checkpoint import find_checkpoint
from weightwise.train.recipe import override
from weightwise.train.vision_config import StartConfig, TeacherTargets
from weightwise.train.vision_recipe import read_vision_recipe, vision_from_dict, vision_to_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.train.vision_recipe import VisionRecipe

LR_RATIO = 0.5
WARMUP = 0.05


def uptrain_vision(
    checkpoint: Path | str,
    *,
    epochs: int | None = None,
    teacher: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> VisionRecipe:
    """Recipe that trains a shrunk vision model beside its original.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
    epochs
        Passes over the images, at least 1; by default as many as the original had.
    teacher
        Checkpoint or run to learn from; by default what ``checkpoint`` was made from.
    overrides
        Changes such as ``"schedule.base_lr=1e-3"`` or ``"targets.relations.beta=1"``.

    Raises
    ------
    ValueError
        If there is no checkpoint or no teacher, or a setting is wrong.
    """
    start = find_checkpoint(Path(checkpoint))
    base = read_vision_recipe(start / "recipe.toml")
    original = original_of(start) if teacher is None else Path(teacher)
    if original is None:
        raise ValueError(
            f"{start}: expected a checkpoint that weightwise shrink has made, or --teacher with "
            "what to learn from"
        )
    num_epochs = base.train.epochs if epochs is None else epochs
    schedule = replace(
        base.schedule,
        base_lr=base.schedule.base_lr * LR_RATIO,
        start_lr=min(base.schedule.start_lr, base.schedule.base_lr * LR_RATIO),
        min_lr=min(base.schedule.min_lr, base.schedule.base_lr * LR_RATIO),
        warmup_epochs=WARMUP * num_epochs,
        cooldown_epochs=0,
    )
    recipe = replace(
        base,
        name=f"{base.name}-uptrained",
        start=StartConfig(path=str(start)),
        images=replace(base.images, corrupt_share=0.0),
        targets=TeacherTargets(teacher=TeacherConfig(name=str(find_checkpoint(original)))),
        schedule=schedule,
    )
    table = vision_to_dict(recipe)
    table["train"] |= {"epochs": num_epochs}
    return vision_from_dict(override(table, overrides), origin=recipe.name)
