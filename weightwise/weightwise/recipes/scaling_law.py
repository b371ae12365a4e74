"""The models of the scaling law for floating-point quantization training.

Command   weightwise train fp-41m --set "data.source={kind='files', paths=['TEXT']}"
          under torchrun, with any of fp-41m, fp-85m, fp-154m, fp-679m, fp-1.2b
Cost      not for a CPU: 5 000 steps of 2 097 152 tokens, 2.6e18 FLOP for 41M to 7.8e19 for 1.2B
Expect    the law's own figure for N, D and format (arXiv 2501.02423, equation 18)

Shapes and hyper-parameters are those of Tables 1 and 3 of arXiv 2501.02423. The paper trains on a
subset of Dolma v1.7, with a tokenizer that it does not name. Ours: any text files, and a new
tokenizer of 50 304 ids. Formats are chosen with ``--set precision.format=e4m3`` and the like.
"""

from __future__ import annotations

from typing import Literal

from weightwise.lm import GQAConfig, ModelConfig, SwiGLUConfig
from weightwise.optim import OptimizerConfig, ScheduleConfig
from weightwise.train import DataConfig, FileSource, Recipe, TrainConfig

Size = Literal["41m", "85m", "154m", "679m", "1.2b"]
# Layers, width d, feed-forward width, heads (arXiv 2501.02423, Table 1).
SHAPES: dict[Size, tuple[int, int, int, int]] = {
    "41m": (12, 512, 1536, 8),
    "85m": (12, 768, 2048, 12),
    "154m": (12, 1024, 2816, 16),
    "679m": (24, 1536, 4096, 24),
    "1.2b": (24, 2048, 5632, 32),
}


def scaling_law(size: Size) -> Recipe:
    """Recipe of one model size, with D = 10 485 760 000 tokens.

    Parameters
    ----------
    size
        Model size as the paper names it, in lower case.
    """
    num_layers, width, hidden, num_heads = SHAPES[size]
    return Recipe(
        name=f"fp-{size}",
        seed=1,
        model=ModelConfig(
            vocab_size=50_304,
            width=width,
            num_layers=num_layers,
            max_length=2048,
            attention=GQAConfig(num_heads=num_heads),
            ffn=SwiGLUConfig(hidden=hidden),
            tie_embeddings=False,
        ),
        data=DataConfig(source=FileSource(paths=("text",)), valid_fraction=0.001),
        optimizer=OptimizerConfig(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1),
        schedule=ScheduleConfig(kind="cosine", peak_lr=3e-4, warmup_steps=500, min_lr_ratio=0.0),
        train=TrainConfig(
            steps=5_000,
            batch_size=1024,
            micro_batch_size=8,
            seq_length=2048,
            dtype="bfloat16",
            grad_clip=1.0,
            eval_every=500,
            eval_batches=1,
            save_every=500,
            log_every=10,
            strategy="fsdp",
        ),
    )
