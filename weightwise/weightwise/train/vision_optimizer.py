"""The optimizer of a vision recipe, and the learning rate of each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from weightwise.optim import AdamW8, ScheduleConfig, learning_rate
from weightwise.optim.averaging import AveragingAdamW
from weightwise.train.vision_recipe import RATE_BATCH
from weightwise.vision import vision_groups

if TYPE_CHECKING:
    from weightwise.train.vision_models import VisionModel
    from weightwise.train.vision_recipe import VisionRecipe


def vision_optimizer(recipe: VisionRecipe, model: VisionModel) -> torch.optim.Optimizer:
    """Make the optimizer of a recipe, with learning rate 0.

    Parameters
    ----------
    recipe
        Its settings.
    model
        What is trained; a weight that several executions share is in it once.
    """
    config = recipe.optimizer
    groups = vision_groups(model, config.weight_decay, config.layer_decay)
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=config.beta1, fused=True)
    kind = AdamW8 if config.kind == "adamw8" else torch.optim.AdamW
    if config.average_decay is not None:
        kind = AveragingAdamW
    optimizer = kind(groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
    if isinstance(optimizer, AveragingAdamW) and config.average_decay is not None:
        optimizer.average_decay = config.average_decay
    return optimizer


def vision_rate(recipe: VisionRecipe, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step.

    Rates of the recipe are multiplied by batch / 512. With s warm-up steps the rate rises along a
    line from ``start_lr`` before the first step to its peak at step s, then falls along a half
    cosine to ``min_lr`` at the last step before the cool-down, and stays there.

    Parameters
    ----------
    recipe
        Its schedule.
    step
        Number of the step, from 1.
    steps_per_epoch
        Steps of an epoch.
    """
    schedule, scale = recipe.schedule, recipe.train.batch_size / RATE_BATCH
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step <= warmup:
        rise = (schedule.base_lr - schedule.start_lr) * step / warmup
        return scale * (schedule.start_lr + rise)
    falling = recipe.train.epochs - schedule.cooldown_epochs
    shape = ScheduleConfig(
        peak_lr=scale * schedule.base_lr,
        warmup_steps=warmup,
        decay_steps=falling * steps_per_epoch,
        min_lr_ratio=schedule.min_lr / schedule.base_lr,
    )
    return learning_rate(shape, step, recipe.train.epochs * steps_per_epoch)
