"""Mixture of experts: y = shared(x) + sum of weight * expert(x) (arXiv 2411.02265).

`weightwise.lm.scoring` says how the router's logits become choices and weights.
"""

# Shapes: B batch, T tokens, D model width, E experts

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.distributed import over_processes
from weightwise.lm.config import SwiGLUConfig
from weightwise.lm.experts import Experts
from weightwise.lm.ffn import SwiGLU
from weightwise.lm.products import is_fast
from weightwise.lm.routing import Routing, route

if TYPE_CHECKING:
    from weightwise.lm.config import MoEConfig

FEW_TOKENS = 64  # up to here the whole layer is one call


class Router(nn.Module):
    """Scores of the experts, in float32 whatever the model computes in.

    It is no `torch.nn.Linear`, so that `weightwise.numerics.quantize_model` leaves it alone.

    Parameters
    ----------
    num_experts, width
        Experts E and model width D.
    is_corrected
        Experts have corrections that are added to their scores for the choice.

    Attributes
    ----------
    bias
        Corrections, shape (E,), which have no gradient; ``None`` for none.
    """

    def __init__(self, num_experts: int, width: int, *, is_corrected: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, width))
        nn.init.normal_(self.weight, std=0.02)
        zeros = torch.zeros(num_experts) if is_corrected else None
        self.bias = None if zeros is None else nn.Parameter(zeros, requires_grad=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Logits of shape (T, E), float32."""
        kind = x_TD.device.type
        # Entering a context takes longer than the product of one token.
        is_autocast = torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if is_autocast else nullcontext():
            return F.linear(x_TD.float(), self.weight.float())


class MixtureOfExperts(nn.Module):
    """Shared and specialised experts.

    Parameters
    ----------
    config
        Settings of this layer.
    width
        Model width D.

    Attributes
    ----------
    routing
        What the last pass decided; its losses have a gradient until that pass's backward.
    """

    def __init__(self, config: MoEConfig, width: int) -> None:
        super().__init__()
        self.config = config
        is_corrected = config.scoring.is_corrected
        self.router = Router(config.num_experts, width, is_corrected=is_corrected)
        self.shared = (
            SwiGLU(SwiGLUConfig(hidden=config.num_shared * config.hidden), width)
            if config.num_shared
            else None
        )
        self.experts = Experts(config, width)
        self.routing: Routing | None = None
        self._chosen_E: Tensor | int = 0  # of the batch up to now

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform every token; shape (B, T, D) is kept. All tokens are routed together."""
        x_TD = x_BTD.flatten(0, -2)
        if self._is_for_few(x_TD):
            return self._of_few(x_TD).view(x_BTD.shape)
        routing = route(
            self.router(x_TD),
            self.config,
            has_capacity=self.training,
            correction_E=self.router.bias,
        )
        self.routing = routing
        out_TD: Tensor = self.experts(x_TD, routing.experts, routing.weights)
        if self.shared is not None:
            out_TD = self.shared(x_TD) + out_TD
        return out_TD.view(x_BTD.shape)

    def _is_for_few(self, x_TD: Tensor) -> bool:
        """Whether there is a faster way than one part after the other."""
        if torch.is_grad_enabled() or len(x_TD) > FEW_TOKENS or self.experts.group is not None:
            return False
        is_limited = self.training and self.config.overflow != "keep"
        if is_limited or not self.config.scoring.is_plain:
            return False
        modules: list[nn.Module] = [self.router, self.experts]
        if self.shared is not None:
            modules += (self.shared, self.shared.gate, self.shared.up, self.shared.down)
        is_plain = self.experts.products is None and all(
            type(module) in (Router, Experts, SwiGLU, nn.Linear)
            and not (module._forward_hooks or module._forward_pre_hooks)
            for module in modules
        )
        return (
            is_plain
            and x_TD.is_contiguous()
            and is_fast(x_TD, self.experts.down)
            and not torch.is_autocast_enabled(x_TD.device.type)
            and all(
                weight.dtype == torch.float32
                and weight.is_contiguous()
                and type(weight) is nn.Parameter
                for weight in self._weights()
            )
        )

    def _weights(self) -> tuple[Tensor, ...]:
        """Matrices of all experts, the shared ones last."""
        own = (self.router.weight, self.experts.gate_up, self.experts.down)
        if self.shared is None:
            return own
        return (*own, self.shared.gate.weight, self.shared.up.weight, self.shared.down.weight)

    def _of_few(self, x_TD: Tensor) -> Tensor:
        from weightwise.lm.few_tokens import mixture  # the compiler takes a second to import

        config = self.config
        out_TD, self.routing = mixture(x_TD, config.top_k, config.is_renormalized, *self._weights())
        return out_TD

    def auxiliary_loss(self, *, is_first: bool = True) -> Tensor:
        """Weighted balance and z-loss of the last pass.

        Where the balance is that of a batch, all processes must call this together.

        Parameters
        ----------
        is_first
            Whether the pass was the first one of its batch.

        Raises
        ------
        RuntimeError
            If there was no pass yet.
        """
        if self.routing is None:
            raise RuntimeError("auxiliary_loss: expected a forward pass before it")
        config, routing = self.config, self.routing
        chosen_E = routing.chosen
        if config.balance_over == "batch":
            before_E = 0 if is_first else self._chosen_E
            chosen_E = self._chosen_E = before_E + over_processes(chosen_E)
        balance_loss = routing.balance_loss_of(chosen_E)
        return config.balance_coef * balance_loss + config.z_coef * routing.z_loss
