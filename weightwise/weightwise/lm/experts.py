"""The specialised experts: many small feed-forward layers, each for its own tokens.

Choices are sorted by expert, so that each expert's tokens are one block of rows and its work is
one matrix product (`weightwise.lm.expert_products`). Experts that nobody chose are not read. Where
the experts are spread over processes, rows travel to them and answers back
(`weightwise.distributed.experts`).
"""

# Shapes: T tokens, K experts per token, E experts, D model width, F inner width, R rows

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightwise.distributed import answers_of_group
from weightwise.lm.expert_products import answers
from weightwise.numerics.fp8_stack import Fp8Stack

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.tensor import DTensor

    from weightwise.lm.config import MoEConfig
    from weightwise.numerics.fp8_linear import Fp8Config


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
    products
        Their products in 8 bits, after `multiply_in_8_bits`; ``None`` otherwise.
    """

    low_bit_weights = ("gate_up", "down")  # for `weightwise.fp8.prepare`

    def __init__(self, config: MoEConfig, width: int) -> None:
        super().__init__()
        num_experts, hidden = config.num_experts, config.hidden
        self.gate_up = nn.Parameter(torch.empty(num_experts, 2 * hidden, width))
        self.down = nn.Parameter(torch.empty(num_experts, width, hidden))
        self.group: ProcessGroup | None = None
        self.products: nn.ModuleList | None = None
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
        # A single row is in order as it is: nothing is moved while a text is generated.
        is_one = len(expert_A) == len(order_R) == 1
        x_RD = x_TD if is_one else x_TD.index_select(0, token_R)
        if self.group is None:
            answer_RD = self._answers(x_RD, count_E)
        else:
            answer_RD = answers_of_group(self._answers, x_RD, count_E, self.group)
        weight_R1 = weight_TK.flatten().index_select(0, order_R).unsqueeze(1)
        answer_RD = answer_RD * weight_R1.to(answer_RD.dtype)
        if is_one:
            return answer_RD
        return torch.zeros_like(x_TD, dtype=answer_RD.dtype).index_add(0, token_R, answer_RD)

    def _answers(self, x_RD: Tensor, count_E: Tensor) -> Tensor:
        """Answers of this process's experts to rows that are sorted by expert."""
        if self.products is not None:
            return self._answers_in_8_bits(x_RD, count_E.tolist())
        return answers(x_RD, self._own(self.gate_up), self._own(self.down), count_E)

    def _answers_in_8_bits(self, x_RD: Tensor, counts: list[int]) -> Tensor:
        assert self.products is not None
        kind = x_RD.device.type
        if torch.is_autocast_enabled(kind):
            x_RD = x_RD.to(torch.get_autocast_dtype(kind))
        first, second = self.products
        gate_RF, up_RF = first(x_RD, self._own(self.gate_up), counts).chunk(2, dim=-1)
        answer_RD: Tensor = second(F.silu(gate_RF) * up_RF, self._own(self.down), counts)
        return answer_RD

    def multiply_in_8_bits(self, config: Fp8Config) -> None:
        """Let both products be of 8-bit numbers."""
        self.products = nn.ModuleList([Fp8Stack(config), Fp8Stack(config)])
        self.products.to(self.down.device).train(self.training)

    def _own(self, weight: Tensor) -> Tensor:
        """Weights of the experts that this process holds."""
        return weight if self.group is None else cast("DTensor", weight).to_local()
