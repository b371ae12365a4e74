"""Feed-forward half of a block: y = W_down (silu(W_gate x) * (W_up x)) (arXiv 2002.05202)."""

# Shapes: B batch, T tokens, D model width, F inner width

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.lm.products import project, takes_few_rows

if TYPE_CHECKING:
    from weightwise.lm.config import SwiGLUConfig


class SwiGLU(nn.Module):
    """Gated feed-forward layer without biases.

    Parameters
    ----------
    config
        Settings of this layer.
    width
        Model width D.
    """

    def __init__(self, config: SwiGLUConfig, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, config.hidden, bias=False)
        self.up = nn.Linear(width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform every token on its own; shape (B, T, D) is kept."""
        if takes_few_rows(x_BTD, self.gate, self.up, self.down):
            return self._of_few(x_BTD)
        gated_BTF: Tensor = F.silu(project(self.gate, x_BTD)) * project(self.up, x_BTD)
        return project(self.down, gated_BTF)

    def _of_few(self, x_BTD: Tensor) -> Tensor:
        from weightwise.lm.few_gated import answers  # the compiler takes a second to import

        x_RD = x_BTD.reshape(-1, x_BTD.shape[-1]).contiguous()
        weights = self.gate.weight, self.up.weight, self.down.weight
        return answers(x_RD, *weights).view_as(x_BTD)
