"""Recipes of the study: one small model with its variants."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from study.runs import BYTES

from weightwise.lm import GQAConfig, ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.optim import OptimizerConfig, ScheduleConfig
from weightwise.recipes import load_recipe
from weightwise.train import DataConfig, Recipe, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from study.runs import Runs

# Settings are chosen with one seed and compared with others: the choice has no part in the result.
TUNING_SEED = 0
SEEDS = (1, 2, 3)
MORE_SEEDS = (*SEEDS, 4, 5, 6)  # where the effect is as small as the spread
RATES = (2e-3, 4e-3, 8e-3)
MOST_EXTRA_RATES = 3
HIDDEN = 96
EXPERTS = MoEConfig(hidden=HIDDEN, num_experts=8)
FFN = {
    "keep": EXPERTS,
    "recycle": replace(EXPERTS, overflow="recycle"),
    "drop": replace(EXPERTS, overflow="drop"),
    "unbalanced": replace(EXPERTS, balance_coef=0.0),
    # As many weights for a token as the shared expert and one other.
    "dense": SwiGLUConfig(hidden=2 * HIDDEN),
}


def small(arm: str, rate: float, seed: int, *, expert_lr: float = 1.0) -> Recipe:
    """Four layers of width 64 on half a million bytes of the built-in corpus.

    Parameters
    ----------
    arm
        Key of `FFN`.
    rate
        Peak learning rate.
    seed
        Of weights, order of the text, and recycling.
    expert_lr
        Learning rate of the specialised experts relative to it.
    """
    ratio = "" if expert_lr == 1.0 else f"-x{expert_lr:g}"
    return Recipe(
        name=f"{arm}{ratio}-lr{rate:g}-s{seed}",
        seed=seed,
        model=ModelConfig(
            vocab_size=BYTES,
            width=64,
            num_layers=4,
            max_length=96,
            attention=GQAConfig(num_heads=4, num_kv_heads=2, qk_norm=True, share_factor=2),
            ffn=FFN[arm],
        ),
        data=DataConfig(valid_fraction=0.03),
        optimizer=OptimizerConfig(expert_lr=expert_lr),
        schedule=ScheduleConfig(peak_lr=rate, warmup_steps=40, min_lr_ratio=0.1),
        train=TrainConfig(
            steps=500,
            batch_size=12,
            seq_length=96,
            eval_every=10_000,  # the last step only
            eval_batches=40,
            save_every=150,
            keep_checkpoints=1,
            log_every=5,
        ),
    )


def grown_grid(losses: Callable[[Sequence[float]], Sequence[float]]) -> dict[float, float]:
    """Losses by learning rate, on a grid that grows by factors of 2 until its best lies inside.

    Parameters
    ----------
    losses
        Gives the loss for each of some rates.
    """
    found = dict(zip(RATES, losses(RATES), strict=True))
    for _ in range(MOST_EXTRA_RATES):
        best = least(found)
        if min(found) < best < max(found):
            break
        rate = best / 2 if best == min(found) else best * 2
        found[rate] = losses([rate])[0]
    return dict(sorted(found.items()))


def tuned(runs: Runs, arm: str, expert_lr: float = 1.0) -> dict[float, float]:
    """Losses of an arm by learning rate, see `grown_grid`."""
    return grown_grid(
        lambda rates: runs.losses(
            small(arm, rate, TUNING_SEED, expert_lr=expert_lr) for rate in rates
        )
    )


def least(losses: dict[float, float]) -> float:
    """Key of the smallest loss, the first of equals."""
    return min(losses, key=lambda key: losses[key])


def plain_rate(runs: Runs) -> float:
    """The rate that is best for the model without capacity, which the other arms use, too."""
    return least(tuned(runs, "keep"))


def moe_recipe() -> Recipe:
    """The recipe `moe` as it comes with the library, with more rows of metrics."""
    return load_recipe("moe", ["train.log_every=5", "train.keep_checkpoints=1"])
