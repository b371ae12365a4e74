"""Grouped-query attention with rotary positions.

For a token at position t, query and key features are rotated in pairs (i, i + E/2) by the
angle t * theta^(-2i/E) (Su et al., arXiv 2104.09864). Pairing the two halves of a head rather
than neighbours is what Hugging Face's LLaMA does, so weights move between the two unchanged.
Angles are computed in float32 from whole positions in every precision, because bfloat16 cannot
tell neighbouring positions above 256 apart.

Key and value heads are fewer than query heads by a whole factor and each serves a group of
consecutive query heads (Ainslie et al., arXiv 2305.13245).

Neighbouring layers may share keys and values (cross-layer attention, arXiv 2405.12981): the
first of them, the leader, projects, and the others only ask. With norms on queries and keys,
each layer has gains of its own for the shared keys,

    rms(rope(k)) * w_k        rms(rope(q)) * w_q

and to keep such keys means to keep them once per layer. But a gain on the key is as good as the
same gain on the query: (w_q q) (w_k k) = (w_q w_k q) k. So the keys of a group are kept once,
normed and without gain, which halves the cache exactly.
"""

# Shapes: B batch, T new tokens, S tokens so far, D model width, H heads, E features per head,
# ... either nothing, or B and 1 where positions differ from row to row

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.lm.cache import Cache, KeyValueCache, Span
from weightwise.lm.products import project

if TYPE_CHECKING:
    from weightwise.lm.attention_config import GQAConfig
    from weightwise.lm.config import LayerGroup
    from weightwise.lm.rope_scaling import AnyRopeScaling


@dataclass(kw_only=True)
class Pass:
    """One forward pass through all layers.

    Parameters
    ----------
    span
        Where the new tokens stand.
    cache
        Earlier tokens of all layers, if kept.
    segments
        Segments of the rows, shape (B, T), ascending; tokens see those of their own only, and
        positions start again with each. Only without a cache; ``None`` for one segment a row.
    shared
        What the first layer that needs it computes for those after it, by a key of its own.
    """

    span: Span
    cache: Cache | None
    segments: Tensor | None = None
    shared: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def position(self) -> Tensor:
        """Positions of the new tokens, shape (T,) or (B, 1, T) for any head."""
        if self.segments is None:
            return self.span.position
        index_T = torch.arange(self.segments.shape[1], device=self.segments.device)
        is_first_BT = self.segments.diff(dim=1, prepend=self.segments[:, :1] - 1) != 0
        start_BT = (index_T * is_first_BT).cummax(dim=1).values
        return (index_T - start_BT).unsqueeze(1)

    def rotary(
        self, width: int, base: float, scaling: AnyRopeScaling | None = None
    ) -> tuple[Tensor, Tensor]:
        """The `rotary_table` of the new tokens, for all layers with heads of this width.

        A rule of scaling has its amplitude in it.
        """
        key = ("rotary", width, base, scaling)
        if key not in self.shared:
            cos, sin = rotary_table(self.position(), width=width, theta=base, scaling=scaling)
            if scaling is not None and scaling.amplitude != 1.0:
                cos, sin = cos * scaling.amplitude, sin * scaling.amplitude
            self.shared[key] = cos, sin
        table: tuple[Tensor, Tensor] = self.shared[key]
        return table

    def mask(self, num_keys: int) -> Tensor | None:
        """Keys that each query sees, those of its segment up to its own position.

        Parameters
        ----------
        num_keys
            Number of columns S.

        Returns
        -------
        Tensor or None
            Shape (..., T, S); `None` where the plain rule of `attend` says the same.
        """
        if self.segments is None and self.span.is_even and max(self.span.count) in (1, num_keys):
            return None
        key = ("mask", num_keys)
        if key not in self.shared:
            column_S = torch.arange(num_keys, device=self.span.device)
            mask = column_S <= self.span.position.unsqueeze(-1)
            if self.segments is not None:
                query, key_side = self.segments[:, None, :, None], self.segments[:, None, None]
                mask = mask & (query == key_side)
            self.shared[key] = mask
        kept: Tensor = self.shared[key]
        return kept


def rotary_table(
    position: Tensor, *, width: int, theta: float, scaling: AnyRopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles.

    Parameters
    ----------
    position
        Whole positions, shape (..., T).
    width
        Features per head E.
    theta
        Base of the wavelengths.
    scaling
        Which of them are longer than that; its amplitude is left out.

    Returns
    -------
    tuple
        Two float32 tensors of shape (..., T, E): cosines, and sines with the first half negated.
    """
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device=position.device) / width
    turn = 1.0 / theta**exponent
    if scaling is not None:
        turn = scaling.scaled(turn, theta)
    angle = position.to(torch.float32).unsqueeze(-1) * turn
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x_BHTE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    """Rotate the pairs (i, i + E/2) of every head by the angles of `rotary_table`."""
    # Rolling by half a head swaps the halves; the sign sits in the sine table.
    swapped = x_BHTE.roll(x_BHTE.shape[-1] // 2, dims=-1)
    return (x_BHTE * cos_TE + swapped * sin_TE).to(x_BHTE.dtype)


class GroupedQueryAttention(nn.Module):
    """Causal attention in which groups of query heads share a key-value head.

    Parameters
    ----------
    config
        Settings of this layer.
    width
        Model width D.
    layer
        Index of the layer, which finds its cache.
    group
        Layers that share keys and values with this one.
    """

    def __init__(self, config: GQAConfig, width: int, layer: int, group: LayerGroup) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.group = group
        self.is_leader = layer == group.first
        self.head_width = config.width_per_head(width)
        self.rope_base = config.rope_base(width)
        inner, kv_inner = config.num_heads * self.head_width, config.kv_heads * self.head_width
        self.query = nn.Linear(width, inner, bias=config.qkv_bias)
        if self.is_leader:
            self.key = nn.Linear(width, kv_inner, bias=config.qkv_bias)
            self.value = nn.Linear(width, kv_inner, bias=config.qkv_bias)
        self.output = nn.Linear(inner, width, bias=False)
        if config.qk_norm:
            self.query_gain = nn.Parameter(torch.ones(self.head_width))
            self.key_gain = nn.Parameter(torch.ones(self.head_width))

    def forward(self, x_BTD: Tensor, current: Pass) -> Tensor:
        """Let every new token attend to itself and all tokens before it.

        Parameters
        ----------
        x_BTD
            Normed input of the layer.
        current
            Positions and cache of this pass.

        Returns
        -------
        Tensor
            Shape (B, T, D).
        """
        query_BHTE = self._rotated(project(self.query, x_BTD), current, "query_gain")
        if self.config.qk_norm and self.config.qk_gain == "after":
            query_BHTE = query_BHTE * (self.query_gain * self.key_gain).to(query_BHTE.dtype)
        key_BHSE, value_BHSE = self._keys_and_values(x_BTD, current)
        mixed_BHTE = attend(
            query_BHTE,
            key_BHSE,
            value_BHSE,
            current.mask(key_BHSE.shape[2]),
            dropout=self.config.dropout if self.training else 0.0,
        )
        return project(self.output, mixed_BHTE.transpose(1, 2).flatten(2))

    def new_cache(
        self, batch: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> KeyValueCache | None:
        """Allocate the cache of this layer for ``batch`` sequences of ``capacity`` tokens.

        A layer that uses the keys and values of an earlier one needs none.
        """
        if not self.is_leader:
            return None
        return KeyValueCache.new(
            batch=batch,
            heads=self.config.kv_heads,
            capacity=capacity,
            width=self.head_width,
            dtype=dtype,
            device=device,
        )

    def _keys_and_values(self, x_BTD: Tensor, current: Pass) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens so far, from this layer or from its leader."""
        group = ("keys and values", self.group.index)
        if self.is_leader:
            key_BHSE = self._rotated(project(self.key, x_BTD), current, "key_gain")
            value_BHSE = self._heads(project(self.value, x_BTD))
            if current.cache is not None:
                layer_cache = current.cache.layers[self.layer]
                assert isinstance(layer_cache, KeyValueCache)
                key_BHSE, value_BHSE = layer_cache.write(current.span, key_BHSE, value_BHSE)
            current.shared[group] = key_BHSE, value_BHSE
        both: tuple[Tensor, Tensor] = current.shared[group]
        return both

    def _rotated(self, x_BTD: Tensor, current: Pass, gain: str) -> Tensor:
        """Heads, rotated and, where asked for, normed; without gain if that acts afterwards."""
        x_BHTE, config = self._heads(x_BTD), self.config
        shape, eps = (self.head_width,), config.qk_norm_eps
        if config.qk_norm and config.qk_gain == "before":
            x_BHTE = F.rms_norm(x_BHTE, shape, getattr(self, gain).to(x_BHTE.dtype), eps=eps)
        x_BHTE = rotate(
            x_BHTE, *current.rotary(self.head_width, self.rope_base, config.rope_scaling)
        )
        is_after = config.qk_norm and config.qk_gain == "after"
        return F.rms_norm(x_BHTE, shape, eps=eps) if is_after else x_BHTE

    def _heads(self, x_BTD: Tensor) -> Tensor:
        x_BHTE: Tensor = x_BTD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        return x_BHTE


def attend(
    query_BHTE: Tensor,
    key_BHSE: Tensor,
    value_BHSE: Tensor,
    mask: Tensor | None = None,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax attention.

    Parameters
    ----------
    query_BHTE
        Queries of T tokens.
    key_BHSE, value_BHSE
        Keys and values of S tokens; their head count divides that of the queries.
    mask
        Which keys a query sees, shape (T, S) or (B, 1, T, S). Without one, T = S queries see
        the keys up to their own, and fewer queries see all.
    dropout
        Share of the weights that is set to 0; the others grow to make up for it.

    Returns
    -------
    Tensor
        Weighted values, shape (B, H, T, E).
    """
    if query_BHTE.shape[2] == 1:
        # The heads of a group ask as if they were tokens, so that each key is read once.
        grouped = query_BHTE.unflatten(1, (key_BHSE.shape[1], -1)).squeeze(3)
        return F.scaled_dot_product_attention(
            grouped, key_BHSE, value_BHSE, attn_mask=mask, dropout_p=dropout
        ).view_as(query_BHTE)
    mixed_BHTE: Tensor = F.scaled_dot_product_attention(
        query_BHTE,
        key_BHSE,
        value_BHSE,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None and query_BHTE.shape[2] == key_BHSE.shape[2],
        enable_gqa=key_BHSE.shape[1] != query_BHTE.shape[1],
    )
    return mixed_BHTE
