"""The specialised experts: many small feed-forward layers, each for its own tokens.

Choices are sorted by expert, so that each expert's tokens are one block of rows and its work is
one matrix product. On GPUs all blocks go through one grouped product; on CPUs, block after
block. Experts that nobody chose are not read. Where the experts are spread over processes, rows
travel to them and answers back (`weightwise.distributed.experts`).
"""

# Shapes: T tokens, K experts per token, E experts, D model width, F inner width, R rows

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.distributed import answers_of_group

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.tensor import DTensor

    from weightwise.lm.config import MoEConfig


class Experts(nn.Module):
    """SwiGLU experts whose weights are stacked.

    Parameters
    ----------
    config
        Settings of the layer.
    width
        Model width D.

    Attributes
    ----------
    gate_up
        Shape (E, 2 F, D), gate first.
    down
        Shape (E, D, F).
    group
        Processes over which the experts are spread; the weights are then DTensors, of which each
        process holds those of its own experts. ``None`` if they are all here.
    """

    def __init__(self, config: MoEConfig, width: int) -> None:
        super().__init__()
        num_experts, hidden = config.num_experts, config.hidden
        self.gate_up = nn.Parameter(torch.empty(num_experts, 2 * hidden, width))
        self.down = nn.Parameter(torch.empty(num_experts, width, hidden))
        self.group: ProcessGroup | None = None
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.02)

    def forward(self, x_TD: Tensor, expert_TK: Tensor, weight_TK: Tensor) -> Tensor:
        """Add up the weighted answers of every token's experts.

        Parameters
        ----------
        x_TD
            Tokens.
        expert_TK, weight_TK
            From `weightwise.lm.routing.route`; expert E gives no answer.

        Returns
        -------
        Tensor
            Shape (T, D).
        """
        num_experts, top_k = len(self.gate_up), expert_TK.shape[1]
        expert_A = expert_TK.flatten()
        order_A = expert_A.argsort(stable=True)
        count_E = torch.bincount(expert_A, minlength=num_experts + 1)[:num_experts]
        order_R = order_A[: int(count_E.sum())]
        token_R = order_R // top_k
        if self.group is None:
            answer_RD = self._answers(x_TD[token_R], count_E)
        else:
            answer_RD = answers_of_group(self._answers, x_TD[token_R], count_E, self.group)
        weight_R1 = weight_TK.flatten()[order_R].to(answer_RD.dtype).unsqueeze(1)
        return torch.zeros_like(x_TD, dtype=answer_RD.dtype).index_add(
            0, token_R, answer_RD * weight_R1
        )

    def _answers(self, x_RD: Tensor, count_E: Tensor) -> Tensor:
        """Answers of this process's experts to rows that are sorted by expert."""
        gate_up_EFD, down_EDF = self._own(self.gate_up), self._own(self.down)
        if x_RD.is_cuda:
            end_E = count_E.cumsum(0).to(torch.int32)
            both_RF = F.grouped_mm(x_RD, gate_up_EFD.transpose(1, 2), offs=end_E)
            return F.grouped_mm(_gated(both_RF), down_EDF.transpose(1, 2), offs=end_E)
        counts = count_E.tolist()
        # Unbound once: the gradient of a single index would be as large as all experts.
        gate_up, down = gate_up_EFD.unbind(), down_EDF.unbind()
        pieces = [
            F.linear(_gated(F.linear(x, gate_up[expert])), down[expert])
            for expert, x in enumerate(x_RD.split(counts))
            if len(x)
        ]
        return torch.cat(pieces) if pieces else x_RD

    def _own(self, weight: Tensor) -> Tensor:
        """Weights of the experts that this process holds."""
        return weight if self.group is None else cast("DTensor", weight).to_local()


def _gated(both_RF: Tensor) -> Tensor:
    gate_RF, up_RF = both_RF.chunk(2, dim=-1)
    return F.silu(gate_RF) * up_RF
