"""Mixture-of-experts language models: a small one for a CPU, and the shape of Hunyuan-Large.

Command   weightwise train moe
Cost      about a minute and a half on one CPU core
Expect    validation loss 3.63 nats per token

The large one is a shape to build and to load weights into (arXiv 2411.02265, Table 1; the inner
width and the vocabulary are those of the released model): 389 billion parameters, 52 billion of
them for a token.
"""

from __future__ import annotations

from weightwise.lm import GQAConfig, ModelConfig, MoEConfig
from weightwise.optim import ScheduleConfig
from weightwise.train import BuiltinSource, DataConfig, Recipe, TrainConfig


def moe() -> Recipe:
    """Eight experts and a shared one; pairs of layers share keys; overflow is recycled."""
    return Recipe(
        name="moe",
        seed=1,
        model=ModelConfig(
            vocab_size=1024,
            width=64,
            num_layers=4,
            max_length=256,
            attention=GQAConfig(num_heads=4, num_kv_heads=2, qk_norm=True, share_factor=2),
            ffn=MoEConfig(hidden=96, num_experts=8, overflow="recycle"),
        ),
        data=DataConfig(source=BuiltinSource(), chat_tokens=True),
        schedule=ScheduleConfig(peak_lr=5e-3, warmup_steps=40, min_lr_ratio=0.1),
        train=TrainConfig(
            steps=800,
            batch_size=16,
            micro_batch_size=16,
            seq_length=128,
            eval_every=200,
            eval_batches=8,
            save_every=200,
            log_every=10,
        ),
    )


def hunyuan_large() -> ModelConfig:
    """The model of the paper: 64 layers, 16 experts and a shared one, keys shared by two layers."""
    return ModelConfig(
        vocab_size=129_024,
        width=6400,
        num_layers=64,
        max_length=131_072,
        attention=GQAConfig(
            num_heads=80, num_kv_heads=8, rope_alpha=1000.0, qk_norm=True, share_factor=2
        ),
        ffn=MoEConfig(hidden=18_304, num_experts=16),
    )
