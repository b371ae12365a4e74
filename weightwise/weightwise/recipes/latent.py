"""Language models with a small cache: cross-layer latent attention, alone and with experts.

Command   weightwise train clla
          weightwise train clla-moe

Pairs of layers share one latent and one rotary key for each token, which are kept in codes of four
bits ("Lossless KV Cache Compression to 2%", arXiv 2410.15252). Codes are asymmetric: those of
latents take the bytes of symmetric ones in groups of half the width, and lose less. The last tenth
of the training sees what the cache will give back, so the trained model needs no further step. The
paper's sizes are not known; these are shapes for a CPU.
"""

from __future__ import annotations

from dataclasses import replace

from weightwise.lm import CodeConfig, LatentConfig, ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.optim import ScheduleConfig
from weightwise.train import BuiltinSource, DataConfig, Recipe, TrainConfig

CODES = CodeConfig(bits=4, group_width=32, is_symmetric=False)


def clla() -> Recipe:
    """Four layers of width 96, whose cache takes 6.8 % of the bytes of multi-head attention."""
    return Recipe(
        name="clla",
        seed=1,
        model=ModelConfig(
            vocab_size=1024,
            width=96,
            num_layers=4,
            max_length=512,
            attention=LatentConfig(
                num_heads=4,
                latent_width=64,
                rope_width=16,
                share_factor=2,
                codes=CODES,
                rope_codes=replace(CODES, group_width=16),  # 16 features are one group
                quantize_from=0.9,
            ),
            ffn=SwiGLUConfig(hidden=256),
        ),
        data=DataConfig(source=BuiltinSource(), chat_tokens=True),
        schedule=ScheduleConfig(peak_lr=4e-3, warmup_steps=40, min_lr_ratio=0.1),
        train=TrainConfig(
            steps=600,
            batch_size=16,
            micro_batch_size=16,
            seq_length=128,
            eval_every=200,
            eval_batches=8,
            save_every=200,
            log_every=10,
        ),
    )


def clla_moe() -> Recipe:
    """The same with eight experts and a shared one in the place of the feed-forward layers."""
    base = clla()
    ffn = MoEConfig(hidden=128, num_experts=8, overflow="recycle")
    return replace(base, name="clla-moe", model=replace(base.model, ffn=ffn))
