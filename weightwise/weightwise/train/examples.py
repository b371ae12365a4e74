"""What a step is made of: examples, and the loss of the model on some of them.

The trainer knows nothing about text. It asks for means over some examples and for how much they
weigh, so that a step counts every target once, however its examples are cut into micro-batches
and shared out over processes.
"""

# Shapes: M examples of a micro-batch, T tokens, V vocabulary

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from weightwise.train.batches import Windows
    from weightwise.train.mix import MixedWindows


class Score(Protocol):
    """The model as examples see it, on its device and in the run's type of matrix products."""

    def __call__(self, token_MT: Tensor, segment_MT: Tensor | None = None) -> Tensor:
        """Logits of shape (M, T, V), float32, for token ids on any device.

        Tokens of a sequence that differ in their segment do not see each other.
        """


def score_with(module: nn.Module, dtype: Literal["float32", "bfloat16"]) -> Score:
    """Let a model score tokens.

    Parameters
    ----------
    module
        A language model, or what data parallelism wraps around it.
    dtype
        Type of the matrix products.
    """
    device = next(module.parameters()).device

    def score(token_MT: Tensor, segment_MT: Tensor | None = None) -> Tensor:
        inputs = {"token_BT": token_MT.to(device)}
        if segment_MT is not None:
            inputs["segment_BT"] = segment_MT.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            logits_MTV: Tensor = module(**inputs)
        return logits_MTV.float()

    return score


class Examples(Protocol):
    """Examples of one split that the model learns from or is judged by."""

    @property
    def count(self) -> int:
        """Number of examples."""

    def weight(self, index_M: NDArray[np.int64]) -> float:
        """Targets in these examples, in any unit that is the same for all."""

    def measure(self, score: Score, index_M: NDArray[np.int64]) -> dict[str, Tensor]:
        """Means over the targets of these examples; zero-dimensional.

        ``loss`` has a gradient; others, which tell how it goes, have not.
        """


class TextExamples:
    """Windows of text, every token of which is predicted from those before it.

    Parameters
    ----------
    windows
        The windows, all of one length.
    """

    def __init__(self, windows: Windows | MixedWindows) -> None:
        self.windows = windows
        self.count = windows.count

    def weight(self, index_M: NDArray[np.int64]) -> float:
        """Number of windows: all have as many targets."""
        return len(index_M)

    def measure(self, score: Score, index_M: NDArray[np.int64]) -> dict[str, Tensor]:
        """``loss``: mean cross-entropy in nats per token."""
        token_MT, target_MT = self.windows.read(index_M)
        logits_MTV = score(token_MT)
        target_MT = target_MT.to(logits_MTV.device)
        return {"loss": F.cross_entropy(logits_MTV.flatten(0, 1), target_MT.flatten())}
