"""Training in 8 bits with two changed lines: `prepare` a model and its optimizer."""

from weightwise.fp8.config import Fp8Training
from weightwise.fp8.estimate import Layout
from weightwise.fp8.monitor import gradient_statistics
from weightwise.fp8.prepare import clip_grad_norm_, prepare
from weightwise.fp8.zero import ZeroAdamW8

__all__ = [
    "Fp8Training",
    "Layout",
    "ZeroAdamW8",
    "clip_grad_norm_",
    "gradient_statistics",
    "prepare",
]
