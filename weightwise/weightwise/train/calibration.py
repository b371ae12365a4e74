"""Text that a trained model is looked at with before it is changed, and text that tells the loss.

Calibration text comes from the training documents of the run and the text that measures errors
from its held-out ones, as prepared for the run; other text can be named.
"""

# Shapes: B sequences, T tokens, N = B T

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from weightwise.train.batches import Windows, evaluation_windows, window_order
from weightwise.train.data import DataConfig, PreparedData, default_cache_dir, prepare
from weightwise.train.source import FileSource

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from weightwise.lm import LanguageModel
    from weightwise.train.recipe import Recipe

BATCH_TOKENS = 4096  # that go through the model at a time
TRIAL_TOKENS = 4096
DOCUMENT_BYTES = 4_000  # of other text than the run's


@dataclass(frozen=True, kw_only=True)
class CalibrationText:
    """Documents in tokens of a checkpoint.

    Parameters
    ----------
    data
        Tokens of training and held-out documents.
    length
        Tokens T of a sequence.
    """

    data: PreparedData
    length: int

    def batches(self, num_tokens: int) -> list[Tensor]:
        """Sequences of training documents, shape (B, T) each, as many as make ``num_tokens``."""
        windows = Windows(self.data.train, self.length, "train")
        wanted = min(windows.count, ceil(num_tokens / self.length))
        order = window_order(windows.count, seed=0, epoch=0)[:wanted]
        size = max(1, BATCH_TOKENS // self.length)
        return [windows.read(order[i : i + size])[0] for i in range(0, wanted, size)]

    def held_out(self, num_tokens: int = TRIAL_TOKENS) -> tuple[Tensor, Tensor]:
        """Sequences of held-out documents and their next tokens, shape (B, T) both."""
        windows = Windows(self.data.valid, self.length, "valid")
        return windows.read(evaluation_windows(windows.count, ceil(num_tokens / self.length)))


def calibration_text(
    recipe: Recipe, start: Path, *, text: Path | None = None, cache_dir: Path | None = None
) -> CalibrationText:
    """Documents of the run, or other text, in tokens of its checkpoint.

    Parameters
    ----------
    recipe
        That of the run.
    start
        Its checkpoint.
    text
        UTF-8 file, or folder of such files, instead of the run's documents.
    cache_dir
        Folder of prepared data, see `weightwise.train.default_cache_dir`.
    """
    config = recipe.data if isinstance(recipe.data, DataConfig) else DataConfig()
    if text is not None:
        source = FileSource(paths=(str(text),), document_bytes=DOCUMENT_BYTES)
        config = DataConfig(source=source, valid_fraction=0.1)
    plain = replace(config, tokenizer=str(start / "tokenizer.json"), long_share=None, mix=())
    data = prepare(plain, recipe.model.vocab_size, cache_dir or default_cache_dir())
    return CalibrationText(data=data, length=recipe.train.seq_length)


@torch.no_grad()
def text_loss(model: LanguageModel, token_BT: Tensor, target_BT: Tensor) -> float:
    """Mean loss in nats per token."""
    logits_NV = model(token_BT).flatten(0, 1).float()
    return float(F.cross_entropy(logits_NV, target_BT.flatten()))
