"""Attention of many queries over latents on CPUs in float32: expanded, one head after the other.

Keys and values of a head are made of all latents, used, and forgotten, so that memory does not grow
with the number of heads. A block of queries meets a block of keys in one product and the values in
another, by the fast products of `weightwise.lm.products`; torch's own fused attention takes others,
and not at all where keys and values are of different widths, as here. Blocks of keys that no
query of a block sees are left out.

Rows longer than a block of keys are put together from the blocks' own softmax. With s the scores,
p = softmax(s) over a block and l its log of the sum of exp(s), the highest of both tell l:

    l = max s - log max p        out = sum of exp(l - log(sum of exp l)) out_block
"""

# Shapes: B batch, H heads, T queries, S tokens, K key features without rotation, V value features,
# R rotary features, C latent width, Q queries of a block, Y tokens up to the last that they see,
# X tokens of a block of keys

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

QUERIES, KEYS = 256, 4096  # of a block: its scores stay in a cache, and products are large enough
LEAST_WORK = 1 << 21  # multiplications from which oneDNN is faster than torch's own products


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some neighbouring queries and what they see.

    Parameters
    ----------
    queries
        Which.
    num_seen
        Tokens Y up to the last that any of them sees, at least 1.
    first_hidden
        Tokens before the first that any of them does not see.
    hidden
        Minus infinity for what a query does not see from there on and 0 elsewhere, shape
        (Q, Y - first_hidden).
    """

    queries: slice
    num_seen: int
    first_hidden: int
    hidden: Tensor

    @classmethod
    def causal(cls, first: int, end: int) -> Block:
        """Queries that see the tokens up to their own."""
        size = end - first
        hidden = torch.full((size, size), -inf).triu(1)
        return cls(queries=slice(first, end), num_seen=end, first_hidden=first, hidden=hidden)

    @classmethod
    def of_mask(cls, first: int, end: int, mask_TS: Tensor) -> Block:
        """Queries that see what a mask says."""
        mask_QS = mask_TS[first:end]
        seen = mask_QS.any(dim=0).nonzero()
        num_seen = int(seen[-1]) + 1 if len(seen) else 1
        is_open = [*mask_QS[:, :num_seen].all(dim=0).tolist(), False]
        first_hidden = is_open.index(False)
        is_seen = mask_QS[:, first_hidden:num_seen]
        hidden = torch.zeros(is_seen.shape).masked_fill_(~is_seen, -inf)
        return cls(
            queries=slice(first, end), num_seen=num_seen, first_hidden=first_hidden, hidden=hidden
        )

    def may_see_nothing(self, part: slice) -> bool:
        """Whether all of a part of the tokens can be hidden from a query."""
        start: int = part.start
        return self.first_hidden <= start


def is_possible(query: Tensor, latent: Tensor) -> bool:
    """Whether these are numbers that `attend` is written for."""
    kinds = query.dtype, latent.dtype, query.device.type
    return kinds == (torch.float32, torch.float32, "cpu")


def attend(
    query_BHTK: Tensor,
    query_rope_BHTR: Tensor,
    latent_BSC: Tensor,
    rope_BSR: Tensor,
    up_key_HKC: Tensor,
    up_value_HVC: Tensor,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Let queries attend to latents; without a gradient.

    Parameters
    ----------
    query_BHTK, query_rope_BHTR, up_key_HKC, up_value_HVC, mask, scale
        As for `weightwise.lm.latent.attend.attend_latent`.
    latent_BSC, rope_BSR
        Latents and rotary keys of S tokens.

    Returns
    -------
    Tensor
        Shape (B, H, T, V); zero for a query that sees nothing.
    """
    batch, num_heads, num_queries = query_BHTK.shape[:3]
    query_BHTF = torch.cat((query_BHTK, query_rope_BHTR), dim=-1).mul_(scale)
    out_BTHV = query_BHTK.new_empty(batch, num_queries, num_heads, up_value_HVC.shape[1])
    shared = None if mask is None or mask.ndim == 4 else mask
    blocks = [] if mask is not None and shared is None else list(_blocks(num_queries, shared))
    for row in range(batch):
        if mask is not None and shared is None:
            blocks = list(_blocks(num_queries, mask[row, 0]))
        latent_SC = latent_BSC[row].contiguous()
        for head in range(num_heads):
            key_SK = _product(latent_SC, up_key_HKC[head])
            key_SF = torch.cat((key_SK, rope_BSR[row]), dim=-1)
            value_SV = _product(latent_SC, up_value_HVC[head])
            for block in blocks:
                query_QF = query_BHTF[row, head, block.queries]
                out_BTHV[row, block.queries, head] = _mixed(query_QF, key_SF, value_SV, block)
    return out_BTHV.transpose(1, 2)


def _blocks(num_queries: int, mask_TS: Tensor | None) -> Iterator[Block]:
    for first in range(0, num_queries, QUERIES):
        end = min(first + QUERIES, num_queries)
        if mask_TS is None:
            yield Block.causal(first, end)
        else:
            yield Block.of_mask(first, end, mask_TS)


def _mixed(query_QF: Tensor, key_SF: Tensor, value_SV: Tensor, block: Block) -> Tensor:
    """Values mixed by the attention of a block of queries."""
    starts = range(0, block.num_seen, KEYS)
    parts = [slice(start, min(start + KEYS, block.num_seen)) for start in starts]
    mixed, logs = [], []
    for part in parts:
        score_QX = _scores(query_QF, key_SF, block, part)
        weight_QX = score_QX.softmax(dim=-1)
        if len(parts) > 1:
            top_Q = score_QX.amax(dim=-1)
            logs.append((top_Q - weight_QX.amax(dim=-1).log()).nan_to_num(nan=-inf))
        if block.may_see_nothing(part):
            weight_QX.nan_to_num_(nan=0.0)
        mixed.append(_product(weight_QX, value_SV[part].T))
    if len(parts) == 1:
        return mixed[0]
    share_NQ = torch.stack(logs).softmax(dim=0).nan_to_num_(nan=0.0)
    return (torch.stack(mixed) * share_NQ.unsqueeze(-1)).sum(dim=0)


def _scores(query_QF: Tensor, key_SF: Tensor, block: Block, part: slice) -> Tensor:
    """Scores of a block of queries with a block of keys."""
    score_QX = _product(query_QF, key_SF[part])
    first = max(part.start, block.first_hidden)
    if first < part.stop:
        start = block.first_hidden
        score_QX[:, first - part.start :] += block.hidden[:, first - start : part.stop - start]
    return score_QX


def _product(x_RK: Tensor, weight_NK: Tensor) -> Tensor:
    """Product of a matrix with the transpose of another, see `weightwise.lm.products`.

    There the weights decide, which are few here; what counts is the work.
    """
    if len(x_RK) * weight_NK.numel() < LEAST_WORK or not torch.backends.mkldnn.is_available():
        return x_RK @ weight_NK.T
    out_RN: Tensor = torch.ops.mkldnn._linear_pointwise(x_RK, weight_NK, None, "none", [], "")
    return out_RN
