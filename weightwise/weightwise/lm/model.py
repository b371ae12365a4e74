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

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weightwise.lm.attention import GroupedQueryAttention, Pass
from weightwise.lm.attention_config import GQAConfig
from weightwise.lm.cache import Cache, Span
from weightwise.lm.config import MoEConfig, SwiGLUConfig, layer_groups
from weightwise.lm.ffn import SwiGLU
from weightwise.lm.latent.attention import LatentAttention
from weightwise.lm.latent.config import LatentConfig
from weightwise.lm.moe import MixtureOfExperts
from weightwise.lm.products import linear, project

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weightwise.lm.config import LayerGroup, ModelConfig

# The module that each kind of setting builds: attention from (config, width, layer, group),
# feed-forward from (config, width).
ATTENTION_MODULES: dict[type, Callable[..., nn.Module]] = {
    GQAConfig: GroupedQueryAttention,
    LatentConfig: LatentAttention,
}
FFN_MODULES = {MoEConfig: MixtureOfExperts, SwiGLUConfig: SwiGLU}


class Block(nn.Module):
    """One layer: attention and feed-forward, each normed first and added to its input.

    Parameters
    ----------
    config
        Settings of the model.
    layer
        Index of this layer.
    group
        Layers that share with it what is kept of the tokens.

    Attributes
    ----------
    is_recomputed
        Keep only the input for the backward pass, see `LanguageModel.recompute_activations`.
    """

    def __init__(self, config: ModelConfig, layer: int, group: LayerGroup) -> None:
        super().__init__()
        self.is_recomputed = False
        self.dropout = config.residual_dropout
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = ATTENTION_MODULES[type(group.attention)](
            group.attention, config.width, layer, group
        )
        self.ffn_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        ffn = config.ffns[layer]
        self.ffn = FFN_MODULES[type(ffn)](ffn, config.width)

    def forward(self, x_BTD: Tensor, current: Pass) -> Tensor:
        """Add both branches to the residual stream; shape (B, T, D) is kept."""
        if not (self.is_recomputed and torch.is_grad_enabled()):
            return self._branches(x_BTD, current)
        out_BTD: Tensor = checkpoint(
            self._branches,
            x_BTD,
            current,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _Traceless(self, current)),
        )
        return out_BTD

    def _branches(self, x_BTD: Tensor, current: Pass) -> Tensor:
        x_BTD = x_BTD + self._dropped(self.attention(self.attention_norm(x_BTD), current))
        out_BTD: Tensor = x_BTD + self._dropped(self.ffn(self.ffn_norm(x_BTD)))
        return out_BTD

    def _dropped(self, x_BTD: Tensor) -> Tensor:
        return F.dropout(x_BTD, self.dropout, training=self.training and self.dropout > 0)


class _Traceless:
    """Undoes what computing a block again leaves behind.

    The routing and the keys that the block gives to others are there from the first time. Those of
    the second time would keep all that they were computed from until the next pass.
    """

    def __init__(self, block: Block, current: Pass) -> None:
        self._ffn = block.ffn
        self._current = current

    def __enter__(self) -> None:
        self._shared = dict(self._current.shared)
        self._routing = getattr(self._ffn, "routing", None)

    def __exit__(self, *_: object) -> None:
        self._current.shared = self._shared
        if isinstance(self._ffn, MixtureOfExperts):
            self._ffn.routing = self._routing


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
        self.blocks = nn.ModuleList(
            Block(config, layer, group)
            for group in layer_groups(config)
            for layer in range(group.first, group.end)
        )
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        # Tied, there is one tensor under one name: nothing to keep equal, nothing saved twice.
        self.head = (
            None
            if config.tie_embeddings
            else nn.Linear(config.width, config.vocab_size, bias=False)
        )

    def forward(
        self,
        token_BT: Tensor,
        cache: Cache | None = None,
        count: Sequence[int] | None = None,
        *,
        segment_BT: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Score every next token.

        Parameters
        ----------
        token_BT
            Token ids, int64. With a cache these are the tokens after those it holds.
        cache
            From `new_cache`; the new tokens are added to it.
        count
            Tokens of each row, 1 to T and T in the longest, if others end in padding.
        segment_BT
            Numbers of the segments that share a row, ascending; tokens see those of their own, and
            positions start again with each. Not with a cache.
        last_only
            Score what comes after the last token of each row and nothing else.

        Returns
        -------
        Tensor
            Logits, shape (B, T, V), or (B, 1, V) of the last tokens.

        Raises
        ------
        ValueError
            If a sequence exceeds ``max_length`` or the room in the cache, or segments do not fit.
        """
        if segment_BT is not None and (cache is not None or segment_BT.shape != token_BT.shape):
            raise ValueError(
                f"segment_BT: expected shape {tuple(token_BT.shape)} and no cache, "
                f"got {tuple(segment_BT.shape)}"
            )
        span = self._span(token_BT, cache, count)
        current = Pass(span=span, cache=cache, segments=segment_BT)
        x_BTD = self.embed(token_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, current)
        if last_only:
            last_B = torch.tensor(span.count, device=span.device) - 1
            x_BTD = x_BTD[torch.arange(len(last_B), device=span.device), last_B].unsqueeze(1)
        x_BTD = self.norm(x_BTD)
        logits_BTV: Tensor = (
            linear(x_BTD, self.embed.weight) if self.head is None else project(self.head, x_BTD)
        )
        if cache is not None:
            cache.advance(span)
        return logits_BTV

    def recompute_activations(self, is_wanted: bool = True) -> None:
        """Keep only what enters a block for the backward pass, and compute the block again there.

        Takes less memory and a third more operations (Chen et al., arXiv 1604.06174). Gradients
        and routing are the same bit for bit, random draws included.

        Parameters
        ----------
        is_wanted
            False keeps everything again.
        """
        for block in self.blocks:
            cast("Block", block).is_recomputed = is_wanted

    def set_progress(self, share: float) -> None:
        """Say how much of the training is over, for parts that change on the way.

        Parameters
        ----------
        share
            Steps made over all steps, 0 to below 1; see
            `weightwise.lm.LatentConfig.quantize_from`.
        """
        for block in self.blocks:
            attention = cast("Block", block).attention
            if isinstance(attention, LatentAttention):
                attention.set_progress(share)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw new weights: matrices from N(0, init_std^2), experts and routers too.

        Gains are 1, constants 0. Projections back into the residual stream are drawn like all
        others, unless ``scaled_output_init`` asks for narrower ones.

        Parameters
        ----------
        generator
            Source of randomness; the same state gives the same weights.
        """
        config = self.config
        narrow = (2 * config.num_layers) ** -0.5 if config.scaled_output_init else 1.0
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weight.fill_(0.0 if name.endswith(".bias") else 1.0)
                continue
            is_output = ".output." in name or ".down" in name
            std = config.init_std * (narrow if is_output else 1.0)
            weight.normal_(0.0, std, generator=generator)

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
            cast("Any", block).attention.new_cache(batch, capacity, dtype=dtype, device=device)
            for block in self.blocks
        ]
        return Cache(layers, batch=batch, capacity=capacity)

    def auxiliary_loss(self, *, is_first: bool = True) -> Tensor:
        """Mean over the layers of what the routers of the last pass add to the loss.

        Parameters
        ----------
        is_first
            Whether the pass was the first one of its batch, see `MoEConfig`'s ``balance_over``.
        """
        layers = self._mixtures()
        if not layers:
            return torch.zeros((), device=self.embed.weight.device)
        return torch.stack([layer.auxiliary_loss(is_first=is_first) for layer in layers]).mean()

    def routing_statistics(self) -> dict[str, float]:
        """How the last pass was routed, over all layers; nothing without experts.

        Returns
        -------
        dict
            ``busiest_expert``: most tokens that chose an expert, over the mean of its layer, the
            highest of all layers, and ``load_LAYER_EXPERT``: the same for each, counted from 0;
            ``balance_loss``: mean over layers; ``overflow``, ``dropped``: shares of all choices
            that were beyond a capacity, and that no expert answered.
        """
        routings = [layer.routing for layer in self._mixtures() if layer.routing is not None]
        if not routings:
            return {}
        num_choices = sum(routing.experts.numel() for routing in routings)
        loads = [(one.chosen / one.chosen.float().mean()).tolist() for one in routings]
        return {
            "busiest_expert": max(map(max, loads)),
            "balance_loss": sum(one.balance_loss.item() for one in routings) / len(routings),
            "overflow": sum(one.num_overflow for one in routings) / num_choices,
            "dropped": sum(one.num_dropped for one in routings) / num_choices,
            **{
                f"load_{layer}_{expert}": round(value, 4)
                for layer, load in enumerate(loads)
                for expert, value in enumerate(load)
            },
        }

    def _span(self, token_BT: Tensor, cache: Cache | None, count: Sequence[int] | None) -> Span:
        """Where the new tokens stand, once they are known to fit."""
        batch, num_tokens = token_BT.shape
        count = (num_tokens,) * batch if count is None else tuple(count)
        if len(count) != batch or min(count) < min(1, num_tokens) or max(count) != num_tokens:
            raise ValueError(
                f"count: expected 1 to {num_tokens} for each of {batch} rows, and {num_tokens} "
                f"in the longest, got {list(count)}"
            )
        if cache is not None:
            cache.check_room(count)
        start = (0,) * batch if cache is None else tuple(cache.length_B.tolist())
        span = Span(start=start, count=count, device=token_BT.device)
        before, longest = max(start), self.config.max_length
        if num_tokens < 1 or span.end > longest:
            raise ValueError(
                f"token_BT: expected 1 to {longest - before} tokens "
                f"(max_length {longest}, {before} before), got {num_tokens}"
            )
        return span

    def _mixtures(self) -> list[MixtureOfExperts]:
        return [module for module in self.modules() if isinstance(module, MixtureOfExperts)]
