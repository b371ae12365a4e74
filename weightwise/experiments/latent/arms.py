"""Arms of the study: kinds of attention in one small model, at equal shape or equal parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from study.runs import BYTES

from weightwise.lm import (
    CodeConfig,
    GQAConfig,
    LatentConfig,
    ModelConfig,
    SwiGLUConfig,
    num_stored_parameters,
)
from weightwise.lm.latent.budget import allocated_bytes_per_token
from weightwise.optim import ScheduleConfig
from weightwise.train import DataConfig, Recipe, TrainConfig

if TYPE_CHECKING:
    from weightwise.lm.config import AttentionConfig

SEEDS = (1, 2, 3)
TUNING_SEED = 0
RATE = 3e-3
WIDTH, HIDDEN, LENGTH = 96, 256, 96
# With 0.02 some seeds find out late what attention is for, and arms cannot be compared.
INIT_STD = 0.06
# Codes from the smallest value of a group on, in groups of twice the width that symmetric ones
# would have. A rotary key of 12 features is a group of its own, which 16 suffice for.
INT4 = CodeConfig(bits=4, group_width=32, is_symmetric=False)
INT4_ROPE = replace(INT4, group_width=16)
# Seen from the start, codes send a run on another way, whose luck is larger than what they cost.
CODES_FROM = 0.9
MLA = LatentConfig(num_heads=4, latent_width=32, rope_width=12)
CLLA = replace(MLA, share_factor=2)
MHA = GQAConfig(num_heads=4)
ARMS: dict[str, AttentionConfig] = {
    "MHA": MHA,
    "GQA": replace(MHA, num_kv_heads=2),
    "MQA": replace(MHA, num_kv_heads=1),
    "CLA": replace(MHA, num_kv_heads=1, share_factor=2),
    "MLA": MLA,
    "CLLA": CLLA,
    "CLLA-quant": replace(CLLA, codes=INT4, rope_codes=INT4_ROPE, quantize_from=CODES_FROM),
    "CLLA4": replace(MLA, share_factor=4),
    "CLLA-one-up": replace(CLLA, share_up=True),
    "CLLA-wide": replace(CLLA, latent_width=64),
}


def small(name: str, attention: AttentionConfig, seed: int, *, hidden: int = HIDDEN) -> Recipe:
    """Four layers of width 96 on half a million bytes of the built-in corpus.

    Parameters
    ----------
    name
        Of the arm; the run is called after it and the seed.
    attention
        Its attention.
    seed
        Of weights and order of the text.
    hidden
        Inner width of the feed-forward layers.
    """
    return Recipe(
        name=f"{name}-s{seed}",
        seed=seed,
        model=ModelConfig(
            vocab_size=BYTES, width=WIDTH, num_layers=4, max_length=LENGTH,
            attention=attention, ffn=SwiGLUConfig(hidden=hidden), init_std=INIT_STD,
        ),
        data=DataConfig(valid_fraction=0.03),
        schedule=ScheduleConfig(peak_lr=RATE, warmup_steps=40, min_lr_ratio=0.1),
        train=TrainConfig(
            steps=300,
            batch_size=12,
            seq_length=LENGTH,
            eval_every=10_000,  # the last step only
            eval_batches=40,
            save_every=300,
            keep_checkpoints=1,
            log_every=20,
        ),
    )  # fmt: skip


def at_rate(name: str, rate: float) -> Recipe:
    """An arm with another peak learning rate and the seed that has no part in the results."""
    base = small(f"{name}-lr{rate:g}", ARMS[name], TUNING_SEED)
    return replace(base, schedule=replace(base.schedule, peak_lr=rate))


def equal_shape(name: str) -> list[Recipe]:
    """Runs of an arm with the feed-forward layers that all arms have, one a seed."""
    return [small(name, ARMS[name], seed) for seed in SEEDS]


def equal_parameters(name: str) -> list[Recipe]:
    """Runs of an arm with feed-forward layers so wide that the model is as large as with MHA."""
    hidden = hidden_of_equal_size(ARMS[name])
    return [small(f"{name}-equal", ARMS[name], seed, hidden=hidden) for seed in SEEDS]


def hidden_of_equal_size(attention: AttentionConfig) -> int:
    """Inner width at which all parameters are as many as those of MHA, to the nearest."""
    goal = num_stored_parameters(small("MHA", MHA, 0).model)
    start = small("x", attention, 0).model
    per_feature = 3 * WIDTH * start.num_layers
    return HIDDEN + round((goal - num_stored_parameters(start)) / per_feature)


def cache_bytes(attention: AttentionConfig) -> float:
    """Bytes of a token over all layers, from live buffers; unquantised elements are bfloat16."""
    return allocated_bytes_per_token(small("x", attention, 0).model)


def bytes_share(attention: AttentionConfig) -> float:
    """Bytes of a token over those of MHA."""
    return cache_bytes(attention) / cache_bytes(MHA)
