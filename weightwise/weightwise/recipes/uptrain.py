"""A converted model goes on with its original as a teacher, until it does what that did.

Command   weightwise convert out/demo --cache 6% --out small
          weightwise uptrain small --steps 200
Cost      that of so many steps, and a forward pass of the original for each
Expect    the loss of the original within a percent, and its answers

A conversion leaves errors that training takes back quickly, because every weight but those of
attention is where it belongs (GQA's paper calls that uptraining, arXiv 2305.13245, section 2.1).
The cache is quantised as its settings say, so the model learns to live with that. The learning
rate is a third of the peak that the model was trained with, and decays to a tenth of that.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from weightwise.optim import ScheduleConfig
from weightwise.train import DataConfig, from_dict, read_recipe, to_dict
from weightwise.train.cache_conversion import original_of
from weightwise.train.checkpoint import find_checkpoint
from weightwise.train.post_config import DistillationConfig
from weightwise.train.recipe import override

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.train import Recipe

LR_RATIO = 1 / 3
WARMUP = 0.05


def uptrain(
    checkpoint: Path | str,
    *,
    steps: int,
    teacher: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Recipe that trains a converted model beside its original.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
    steps
        Optimizer steps, at least 1.
    teacher
        Checkpoint or run to learn from; by default what ``checkpoint`` was converted from.
    overrides
        Changes such as ``"distillation.weight=1.0"`` or ``"train.batch_size=8"``.

    Raises
    ------
    ValueError
        If there is no checkpoint or no teacher, or a setting is wrong.
    """
    start = find_checkpoint(Path(checkpoint))
    base = read_recipe(start / "recipe.toml")
    original = original_of(start) if teacher is None else Path(teacher)
    if original is None:
        raise ValueError(
            f"{start}: expected a checkpoint that weightwise convert --cache has made, or "
            "--teacher with what to learn from"
        )
    recipe = replace(
        base,
        name=f"{base.name}-uptrained",
        start=str(start),
        data=base.data if isinstance(base.data, DataConfig) else DataConfig(),
        schedule=ScheduleConfig(
            peak_lr=base.schedule.peak_lr * LR_RATIO,
            warmup_steps=max(1, int(WARMUP * steps)),
            min_lr_ratio=0.1,
        ),
        distillation=DistillationConfig(teacher=str(find_checkpoint(original))),
    )
    settings = to_dict(recipe)
    often = max(1, steps // 4)
    settings["train"] |= {
        "steps": steps, "eval_every": often, "save_every": often, "log_every": min(10, often),
    }  # fmt: skip
    return from_dict(override(settings, overrides), origin=recipe.name)
