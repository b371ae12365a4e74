"""The smallest run that uses every part: for tests and for a first look.

Command   weightwise train tiny
Cost      a few seconds on one CPU core
Expect    validation loss 4.83 nats per token after 60 steps, from 5.95 at the start
"""

from __future__ import annotations

from weightwise.lm import GQAConfig, ModelConfig, SwiGLUConfig
from weightwise.optim import ScheduleConfig
from weightwise.train import BuiltinSource, DataConfig, Recipe, TrainConfig


def tiny() -> Recipe:
    """Two narrow layers on 300 kB of the built-in corpus."""
    return Recipe(
        name="tiny",
        seed=1,
        model=ModelConfig(
            vocab_size=384,
            width=32,
            num_layers=2,
            max_length=64,
            attention=GQAConfig(num_heads=4, num_kv_heads=2),
            ffn=SwiGLUConfig(hidden=64),
        ),
        data=DataConfig(source=BuiltinSource(max_bytes=300_000), valid_fraction=0.1),
        schedule=ScheduleConfig(peak_lr=1e-2, warmup_steps=5, min_lr_ratio=0.1),
        train=TrainConfig(
            steps=60,
            batch_size=8,
            micro_batch_size=4,
            seq_length=32,
            eval_every=20,
            eval_batches=4,
            save_every=10,
            log_every=1,
        ),
    )
