"""Learning from another model: a converted one goes on as close to its original as it can.

Beside the text, each prediction has a teacher, and the loss is

    (1 - w) cross-entropy + w KL(teacher | student)

per token (Hinton et al., arXiv 1503.02531, at temperature 1). The teacher says how likely all
tokens are and not only which one came, so a few hundred steps take back what a conversion lost.
Its scores are computed when they are needed: for a vocabulary of some size they are more bytes
than all that they are computed from.
"""

# Shapes: M examples of a micro-batch, T tokens, V vocabulary

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from weightwise.train.checkpoint import load_model
from weightwise.train.examples import score_with

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.lm import Tokenizer
    from weightwise.train.examples import Score, TextExamples
    from weightwise.train.post_config import DistillationConfig
    from weightwise.train.recipe import Recipe


class DistilledExamples:
    """Windows of text with a teacher's opinion of every token.

    Parameters
    ----------
    examples
        The windows.
    teacher
        Scores by the teacher.
    weight
        Its share in the loss, see
        `weightwise.train.post_config.DistillationConfig`; 0 only measures.
    """

    def __init__(self, examples: TextExamples, teacher: Score, weight: float) -> None:
        self.windows = examples.windows
        self.count = examples.count
        self._teacher = teacher
        self._weight = weight

    def weight(self, index_M: NDArray[np.int64]) -> float:
        """Number of windows: all have as many targets."""
        return len(index_M)

    def measure(self, score: Score, index_M: NDArray[np.int64]) -> dict[str, Tensor]:
        """``loss``; and ``text_loss`` and ``divergence``, its two parts, in nats per token."""
        token_MT, target_MT = self.windows.read(index_M)
        with torch.no_grad():
            wanted_NV = self._teacher(token_MT).flatten(0, 1).log_softmax(-1)
        logits_MTV = score(token_MT)
        log_NV = logits_MTV.flatten(0, 1).log_softmax(-1)
        text_loss = F.nll_loss(log_NV, target_MT.flatten().to(log_NV.device))
        divergence = F.kl_div(log_NV, wanted_NV, reduction="batchmean", log_target=True)
        loss = text_loss + self._weight * (divergence - text_loss)
        return {"loss": loss, "text_loss": text_loss.detach(), "divergence": divergence.detach()}


def with_teacher(
    recipe: Recipe,
    config: DistillationConfig,
    tokenizer: Tokenizer,
    train: TextExamples,
    valid: TextExamples,
    device: torch.device,
) -> tuple[DistilledExamples, DistilledExamples]:
    """Let a teacher look at examples of text; held-out ones keep the plain loss of text.

    Parameters
    ----------
    recipe
        Says in which type the matrix products are.
    config
        Who the teacher is.
    tokenizer
        That of the examples.
    train, valid
        Examples without a teacher.
    device
        Where the teacher computes.

    Raises
    ------
    ValueError
        If there is no such teacher, or it has another tokenizer or a shorter context.
    """
    model, words, _ = load_model(Path(config.teacher))
    if not words.is_same(tokenizer):
        raise ValueError(
            f"distillation.teacher: expected the tokenizer of the data, got another in "
            f"{config.teacher}"
        )
    if model.config.max_length < recipe.train.seq_length:
        raise ValueError(
            f"distillation.teacher: expected max_length of at least train.seq_length "
            f"{recipe.train.seq_length}, got {model.config.max_length} in {config.teacher}"
        )
    if model.config.vocab_size != recipe.model.vocab_size:
        raise ValueError(
            f"distillation.teacher: expected vocab_size {recipe.model.vocab_size}, got "
            f"{model.config.vocab_size} in {config.teacher}"
        )
    teacher = score_with(model.to(device).requires_grad_(False), recipe.train.dtype)
    return (
        DistilledExamples(train, teacher, config.weight),
        DistilledExamples(valid, teacher, 0.0),
    )
