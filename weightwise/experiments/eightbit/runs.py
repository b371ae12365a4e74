"""Recipes of the study: one small model, kept in how many bits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from study.runs import BYTES

from weightwise.fp8 import Fp8Training
from weightwise.lm import GQAConfig, ModelConfig, SwiGLUConfig
from weightwise.lm.tokenizer import CHAT_TOKENS
from weightwise.optim import OptimizerConfig, ScheduleConfig
from weightwise.train import DataConfig, Recipe, TrainConfig

if TYPE_CHECKING:
    from weightwise.fp8.config import Level

SEEDS = (1, 2, 3)
# Names as in table 6 of the paper. Products stay in float32: the optimizer alone is looked at.
ARMS: dict[str, Level | Fp8Training | None] = {
    "float32": None,
    "O1": "O1",
    "O2": "O2",
    "O3": "O3",
    "2a": Fp8Training(products=False),
    "2b": Fp8Training(products=False, weight="bfloat16"),
    "3": Fp8Training(products=False, weight="e4m3"),
    "4": Fp8Training(products=False, exp_avg_sq="e4m3"),
    "4-e5m2": Fp8Training(products=False, exp_avg_sq="e5m2"),
    "unscaled": Fp8Training(products=False, exp_avg_sq="float16-unscaled"),
    "bfloat16-v": Fp8Training(products=False, exp_avg_sq="bfloat16"),
}


def small(arm: str, seed: int) -> Recipe:
    """Three layers of width 128 on half a million bytes of the built-in corpus, 400 steps.

    Parameters
    ----------
    arm
        Key of `ARMS`.
    seed
        Of weights and order of the text.
    """
    return Recipe(
        name=f"fp8-{arm}-s{seed}",
        seed=seed,
        model=ModelConfig(
            vocab_size=BYTES,
            width=128,
            num_layers=3,
            max_length=64,
            attention=GQAConfig(num_heads=4, num_kv_heads=4),
            ffn=SwiGLUConfig(hidden=344),
        ),
        data=DataConfig(valid_fraction=0.03),
        optimizer=OptimizerConfig(beta2=0.95, weight_decay=0.1),
        schedule=ScheduleConfig(peak_lr=1e-3, warmup_steps=40, min_lr_ratio=0.1),
        train=TrainConfig(
            steps=400,
            batch_size=12,
            seq_length=64,
            eval_every=10_000,  # the last step only
            eval_batches=60,
            save_every=200,
            keep_checkpoints=1,
            log_every=5,
            fp8=ARMS[arm],
        ),
    )


def all_seeds(arm: str) -> list[Recipe]:
    """Runs of an arm."""
    return [small(arm, seed) for seed in SEEDS]


def with_chat_tokens(recipe: Recipe) -> Recipe:
    """A run whose tokenizer can write chats, from which fine-tuning begins."""
    model = replace(recipe.model, vocab_size=BYTES + len(CHAT_TOKENS))
    data = replace(recipe.data, chat_tokens=True)
    return replace(recipe, name=f"{recipe.name}-chat", model=model, data=data)


def fine_tuned(recipe: Recipe, level: Level | None, seed: int) -> Recipe:
    """A run of fine-tuning at a level."""
    train = replace(recipe.train, fp8=level)
    return replace(recipe, name=f"fp8-sft-{level}-s{seed}", seed=seed, train=train)
