"""The language model: embedding, blocks, norm, head.

Each block is pre-norm with two residual branches,

    x <- x + attention(norm(x))
    x <- x + ffn(norm(x))

and every projection is a plain `torch.nn.Linear` without bias, which is what
`weightwise.numerics.quantize_model` looks for. The residual stream stays in the type of the
embedding; under autocast only the matrix products run in bfloat16.
"""

# Shapes: B batch, T tokens, D model width, V vocabulary

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.lm.attention import GroupedQueryAttention, Pass
from weightwise.lm.cache import Cache
from weightwise.lm.config import GQAConfig, MoEConfig, SwiGLUConfig
from weightwise.lm.ffn import SwiGLU
from weightwise.lm.moe import MixtureOfExperts

if TYPE_CHECKING:
    from weightwise.lm.config import ModelConfig

# The module that each kind of setting builds: attention from (config, width, layer),
# feed-forward from (config, width).
ATTENTION_MODULES = {GQAConfig: GroupedQueryAttention}
FFN_MODULES = {MoEConfig: MixtureOfExperts, SwiGLUConfig: SwiGLU}


class Block(nn.Module):
    """One layer: attention and feed-forward, each normed first and added to its input.

    Parameters
    ----------
    config
        Settings of the model.
    layer
        Index of this layer.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = ATTENTION_MODULES[type(config.attention)](
            config.attention, config.width, layer
        )
        self.ffn_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.ffn = FFN_MODULES[type(config.ffn)](config.ffn, config.width)

    def forward(self, x_BTD: Tensor, current: Pass) -> Tensor:
        """Add both branches to the residual stream; shape (B, T, D) is kept."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), current)
        out_BTD: Tensor = x_BTD + self.ffn(self.ffn_norm(x_BTD))
        return out_BTD


class LanguageModel(nn.Module):
    """Decoder-only transformer with LLaMA's layout.

    Parameters
    ----------
    config
        Settings of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        # Tied, there is one tensor under one name: nothing to keep equal, nothing saved twice.
        self.head = (
            None
            if config.tie_embeddings
            else nn.Linear(config.width, config.vocab_size, bias=False)
        )

    def forward(self, token_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """Score every next token.

        Parameters
        ----------
        token_BT
            Token ids, int64. With a cache these are the tokens after those it holds.
        cache
            From `new_cache`; the new tokens are added to it.

        Returns
        -------
        Tensor
            Logits, shape (B, T, V).

        Raises
        ------
        ValueError
            If the sequence exceeds ``max_length`` or the room in the cache.
        """
        batch, num_tokens = token_BT.shape
        start = 0 if cache is None else cache.length
        if cache is not None:
            cache.check_room(batch, num_tokens)
        if not 1 <= num_tokens <= self.config.max_length - start:
            raise ValueError(
                f"token_BT: expected 1 to {self.config.max_length - start} tokens "
                f"(max_length {self.config.max_length}, {start} before), got {num_tokens}"
            )
        current = Pass(start=start, cache=cache)
        x_BTD = self.embed(token_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, current)
        x_BTD = self.norm(x_BTD)
        logits_BTV: Tensor = (
            F.linear(x_BTD, self.embed.weight) if self.head is None else self.head(x_BTD)
        )
        if cache is not None:
            cache.length = start + num_tokens
        return logits_BTV

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw new weights: matrices from N(0, init_std^2), experts and routers too; gains 1.

        Projections back into the residual stream are drawn like all others, not scaled down
        with depth.

        Parameters
        ----------
        generator
            Source of randomness; the same state gives the same weights.
        """
        for weight in self.parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                weight.normal_(0.0, self.config.init_std, generator=generator)

    def new_cache(
        self, batch: int, capacity: int | None = None, *, dtype: torch.dtype | None = None
    ) -> Cache:
        """Allocate room for keys and values.

        Parameters
        ----------
        batch
            Number of sequences, at least 1.
        capacity
            Most tokens per sequence, 1 to ``max_length``, which is the default.
        dtype
            Type of the stored elements; by default the one that the projections produce,
            autocast included.

        Raises
        ------
        ValueError
            If batch or capacity is out of range.
        """
        longest = self.config.max_length
        capacity = longest if capacity is None else capacity
        if batch < 1:
            raise ValueError(f"batch: expected at least 1, got {batch}")
        if not 1 <= capacity <= longest:
            raise ValueError(f"capacity: expected 1 to max_length {longest}, got {capacity}")
        device = self.embed.weight.device
        if dtype is None:
            is_autocast = torch.is_autocast_enabled(device.type)
            dtype = (
                torch.get_autocast_dtype(device.type) if is_autocast else self.embed.weight.dtype
            )
        layers = [
            cast("Block", block).attention.new_cache(batch, capacity, dtype=dtype, device=device)
            for block in self.blocks
        ]
        return Cache(layers, batch=batch, capacity=capacity)

    def auxiliary_loss(self) -> Tensor:
        """Mean over the layers of what the routers of the last pass add to the loss."""
        layers = self._mixtures()
        if not layers:
            return torch.zeros((), device=self.embed.weight.device)
        return torch.stack([layer.auxiliary_loss() for layer in layers]).mean()

    def routing_statistics(self) -> dict[str, float]:
        """How the last pass was routed, over all layers; nothing without experts.

        Returns
        -------
        dict
            ``busiest_expert``: most tokens that chose an expert, over the mean of its layer, the
            highest of all layers; ``balance_loss``: mean over layers; ``overflow``, ``dropped``:
            shares of all choices that were beyond a capacity, and that no expert answered.
        """
        routings = [layer.routing for layer in self._mixtures() if layer.routing is not None]
        if not routings:
            return {}
        num_choices = sum(routing.experts.numel() for routing in routings)
        busiest = [float(one.chosen.max() / one.chosen.float().mean()) for one in routings]
        return {
            "busiest_expert": max(busiest),
            "balance_loss": sum(one.balance_loss.item() for one in routings) / len(routings),
            "overflow": sum(one.num_overflow for one in routings) / num_choices,
            "dropped": sum(one.num_dropped for one in routings) / num_choices,
        }

    def _mixtures(self) -> list[MixtureOfExperts]:
        return [module for module in self.modules() if isinstance(module, MixtureOfExperts)]
