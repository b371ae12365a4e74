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

# Shapes: B batch, T new tokens, S tokens so far, D model width, H heads, E features per head

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.lm.cache import Cache, KeyValueCache

if TYPE_CHECKING:
    from weightwise.lm.config import GQAConfig


@dataclass(kw_only=True)
class Pass:
    """One forward pass through all layers.

    Parameters
    ----------
    start
        Position of the first new token.
    cache
        Earlier tokens of all layers, if kept.
    shared
        What the first layer that needs it computes for those after it, by a key of its own.
    """

    start: int
    cache: Cache | None
    shared: dict[tuple[object, ...], tuple[Tensor, ...]] = field(default_factory=dict)


def rotary_table(
    start: int, num_tokens: int, *, width: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles.

    Parameters
    ----------
    start, num_tokens
        First position and number of positions T.
    width
        Features per head E.
    theta
        Base of the wavelengths.
    device
        Where to compute.

    Returns
    -------
    tuple
        Two float32 tensors of shape (T, E): cosines, and sines with the first half negated.
    """
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    position_T = torch.arange(start, start + num_tokens, dtype=torch.float32, device=device)
    angle_TE = torch.outer(position_T, 1.0 / theta**exponent)
    cos, sin = angle_TE.cos(), angle_TE.sin()
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
    """

    def __init__(self, config: GQAConfig, width: int, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.is_leader = config.is_leader(layer)
        self.head_width = config.width_per_head(width)
        self.rope_base = config.rope_base(width)
        inner, kv_inner = config.num_heads * self.head_width, config.kv_heads * self.head_width
        self.query = nn.Linear(width, inner, bias=False)
        if self.is_leader:
            self.key = nn.Linear(width, kv_inner, bias=False)
            self.value = nn.Linear(width, kv_inner, bias=False)
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
        query_BHTE = self._rotated(self.query(x_BTD), current)
        if self.config.qk_norm:
            query_BHTE = query_BHTE * (self.query_gain * self.key_gain).to(query_BHTE.dtype)
        key_BHSE, value_BHSE = self._keys_and_values(x_BTD, current)
        mixed_BHTE = attend(query_BHTE, key_BHSE, value_BHSE)
        out_BTD: Tensor = self.output(mixed_BHTE.transpose(1, 2).flatten(2))
        return out_BTD

    def new_cache(
        self, batch: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> KeyValueCache | None:
        """Allocate the cache of this layer for ``batch`` sequences of ``capacity`` tokens.

        A layer that uses the keys and values of an earlier one needs none.
        """
        if not self.is_leader:
            return None
        return KeyValueCache(
            batch=batch,
            heads=self.config.kv_heads,
            capacity=capacity,
            width=self.head_width,
            dtype=dtype,
            device=device,
        )

    def _keys_and_values(self, x_BTD: Tensor, current: Pass) -> tuple[Tensor, ...]:
        """Keys and values of all tokens so far, from this layer or from its leader."""
        group = ("keys and values", self.layer // self.config.share_factor)
        if self.is_leader:
            key_BHSE = self._rotated(self.key(x_BTD), current)
            value_BHSE = self._heads(self.value(x_BTD))
            if current.cache is not None:
                layer_cache = current.cache.layers[self.layer]
                assert isinstance(layer_cache, KeyValueCache)
                key_BHSE, value_BHSE = layer_cache.write(current.start, key_BHSE, value_BHSE)
            current.shared[group] = key_BHSE, value_BHSE
        return current.shared[group]

    def _rotated(self, x_BTD: Tensor, current: Pass) -> Tensor:
        """Heads, rotated and, where asked for, normed without a gain."""
        cos_TE, sin_TE = self._rotary(current, x_BTD)
        x_BHTE = rotate(self._heads(x_BTD), cos_TE, sin_TE)
        if not self.config.qk_norm:
            return x_BHTE
        return F.rms_norm(x_BHTE, (self.head_width,), eps=self.config.qk_norm_eps)

    def _heads(self, x_BTD: Tensor) -> Tensor:
        x_BHTE: Tensor = x_BTD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        return x_BHTE

    def _rotary(self, current: Pass, x_BTD: Tensor) -> tuple[Tensor, ...]:
        key = ("rotary", self.head_width, self.rope_base)
        if key not in current.shared:
            current.shared[key] = rotary_table(
                current.start,
                x_BTD.shape[1],
                width=self.head_width,
                theta=self.rope_base,
                device=x_BTD.device,
            )
        return current.shared[key]


def attend(query_BHTE: Tensor, key_BHSE: Tensor, value_BHSE: Tensor) -> Tensor:
    """Causal softmax attention whose last query is the last key.

    Parameters
    ----------
    query_BHTE
        Queries of the T newest of S tokens.
    key_BHSE, value_BHSE
        Keys and values of all S tokens; their head count divides that of the queries.

    Returns
    -------
    Tensor
        Weighted values, shape (B, H, T, E).
    """
    num_new, num_all = query_BHTE.shape[2], key_BHSE.shape[2]
    mask_TS = None
    if 1 < num_new < num_all:
        ones = torch.ones(num_new, num_all, dtype=torch.bool, device=query_BHTE.device)
        mask_TS = ones.tril(num_all - num_new)
    mixed_BHTE: Tensor = F.scaled_dot_product_attention(
        query_BHTE,
        key_BHSE,
        value_BHSE,
        attn_mask=mask_TS,
        is_causal=num_new == num_all,
        enable_gqa=key_BHSE.shape[1] != query_BHTE.shape[1],
    )
    return mixed_BHTE
