"""Recipes for what comes after pre-training, made from the recipe of a checkpoint.

Command   weightwise sft CHECKPOINT CHATS.jsonl
          weightwise dpo CHECKPOINT PREFERENCES.jsonl
Cost      depends on model and data; of the same order as so many steps of pre-training
Expect    held-out loss of the answers, or held-out preference accuracy, above that of the start

Numbers of arXiv 2411.02265, section 3, where it has them: three epochs of chats, learning rate 2e-5
down to 2e-6, dropout of attention 0.1 and of both branches 0.2; a negative log-likelihood beside
the preference loss and a moving average of the weights as its outcome. Ours: warm-up over 1 % of
the steps; beta 0.1 and a weight of 0.2 (arXiv 2407.21783); the average keeps 0.999; one epoch of
preferences, learning rate 1e-6 down to 1e-7. Preferences compare with a reference that drops
nothing, so there is no dropout then and experts know no capacity.

All these are for models of billions of weights; small ones take higher rates, and in short runs
the average should keep less.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from weightwise.lm import MoEConfig
from weightwise.optim import ScheduleConfig
from weightwise.train import default_cache_dir, from_dict, read_recipe, to_dict
from weightwise.train.checkpoint import find_checkpoint
from weightwise.train.post import count_examples
from weightwise.train.post_config import ChatConfig, OnlineConfig, PreferenceConfig
from weightwise.train.recipe import override
from weightwise.train.samples import PreparedSamples
from weightwise.train.start import prepare_data

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from weightwise.train import Recipe

EVALUATION_BATCHES = 32
WARMUP = 0.01


def sft(
    checkpoint: Path,
    chats: Path,
    *,
    valid: Path | None = None,
    epochs: float = 3.0,
    overrides: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> Recipe:
    """Fine-tune a checkpoint on chats.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
    chats
        JSON lines, see `weightwise.train.post_config.ChatConfig`.
    valid
        Held-out chats; by default a share of ``chats``.
    epochs
        How often each chat is seen, above 0; decides on ``train.steps``.
    overrides
        Changes such as ``"train.batch_size=8"``. With ``train.steps`` among them ``epochs`` is
        not looked at.
    cache_dir
        Folder of prepared data, see `weightwise.train.default_cache_dir`.

    Raises
    ------
    ValueError
        If checkpoint, chats or settings are not as they should be.
    """
    base, start = _open(checkpoint)
    model = base.model.with_attention(lambda attention: replace(attention, dropout=0.1))
    recipe = replace(
        base,
        name=f"{base.name}-sft",
        start=str(start),
        model=replace(model, residual_dropout=0.2),
        data=ChatConfig(path=str(chats), valid_path=None if valid is None else str(valid)),
        schedule=ScheduleConfig(peak_lr=2e-5, min_lr_ratio=0.1),
        optimizer=replace(base.optimizer, average_decay=None),
    )
    return _finish(recipe, epochs, overrides, cache_dir)


def dpo(
    checkpoint: Path,
    preferences: Path,
    *,
    valid: Path | None = None,
    online: bool = False,
    epochs: float = 1.0,
    overrides: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> Recipe:
    """Train a checkpoint on preferences.

    Parameters
    ----------
    checkpoint, epochs, overrides, cache_dir
        As for `sft`; a pair is two sequences, so half as many go through the model at a time.
    preferences
        JSON lines, see `weightwise.train.post_config.PreferenceConfig`.
    valid
        Held-out preferences; by default a share of ``preferences``.
    online
        Also learn from the policy's own answers, see `weightwise.train.post_config.OnlineConfig`.

    Raises
    ------
    ValueError
        If checkpoint, preferences or settings are not as they should be.
    """
    base, start = _open(checkpoint)
    ffn, micro = base.model.ffn, base.train.micro_batch_size
    if isinstance(ffn, MoEConfig):
        ffn = replace(ffn, overflow="keep")
    if micro is not None:
        micro = micro // 2 if micro % 2 == 0 else 1
    train = replace(base.train, micro_batch_size=micro)
    model = base.model.with_attention(lambda attention: replace(attention, dropout=0.0))
    if online:  # whole weights write the answers
        train = replace(train, strategy="ddp", expert_parallel=1)
    recipe = replace(
        base,
        name=f"{base.name}-dpo",
        start=str(start),
        model=replace(model, ffn=ffn, residual_dropout=0.0),
        data=PreferenceConfig(
            path=str(preferences),
            valid_path=None if valid is None else str(valid),
            online=OnlineConfig() if online else None,
        ),
        schedule=ScheduleConfig(peak_lr=1e-6, min_lr_ratio=0.1),
        optimizer=replace(base.optimizer, average_decay=0.999),
        train=train,
    )
    return _finish(recipe, epochs, overrides, cache_dir)


def _open(checkpoint: Path) -> tuple[Recipe, Path]:
    start = find_checkpoint(checkpoint)
    return read_recipe(start / "recipe.toml"), start


def _finish(
    recipe: Recipe, epochs: float, overrides: Sequence[str], cache_dir: Path | None
) -> Recipe:
    """Make the changes, then set what depends on the number of examples and was not set."""
    if not 0 < epochs < float("inf"):
        raise ValueError(f"epochs: expected a finite number above 0, got {epochs}")
    settings = to_dict(recipe)
    settings["train"] |= {"steps": 1, "eval_batches": EVALUATION_BATCHES}
    first = from_dict(override(settings, overrides), origin=recipe.name)
    data = prepare_data(first, default_cache_dir() if cache_dir is None else cache_dir)
    assert isinstance(data, PreparedSamples)
    per_epoch = count_examples(first, data) / first.train.batch_size
    steps = max(1, ceil(epochs * per_epoch))
    often = max(1, ceil(min(steps, per_epoch) / 2))
    settings["schedule"]["warmup_steps"] = ceil(WARMUP * steps)
    settings["train"] |= {
        "steps": steps,
        "eval_every": often,
        "save_every": often,
        "log_every": min(10, often),
    }
    return from_dict(override(settings, overrides), origin=recipe.name)
