"""Attention of a few queries over kept latents on CPUs: hands tensors to the compiled loops.

`weightwise.lm.latent.decode_kernels` has the method. Addresses are handed over, not arrays: views
of any strides are read where they lie.
"""

# Shapes: B batch, H heads, T queries, S tokens so far, K key features without rotation, V value
# features, C latent width, R rope width

from __future__ import annotations

from math import e, log2
from typing import TYPE_CHECKING

import torch

from weightwise.lm.latent.codes import Codes, num_groups
from weightwise.lm.latent.decode_kernels import alone, together
from weightwise.lm.latent.lanes import BFLOAT16, FLOAT16, FLOAT32, LANES
from weightwise.numerics.kernels import team

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.lm.latent.cache import LatentView, Vectors

KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}


def is_possible(query_BHTK: Tensor, view: LatentView) -> bool:
    """Whether the kernel can take these queries.

    Codes that decode to 16-bit numbers are left to torch, which rounds them as training does.
    """
    parts = view.latent, view.rope
    return query_BHTK.device.type == "cpu" and all(
        part.dtype == torch.float32 if isinstance(part.content, Codes) else part.dtype in KINDS
        for part in parts
    )


def attend(
    query_BHTK: Tensor,
    query_rope_BHTR: Tensor,
    view: LatentView,
    up_key_HKC: Tensor,
    up_value_HVC: Tensor,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Let queries attend to latents; without a gradient.

    Parameters
    ----------
    query_BHTK, query_rope_BHTR, view, up_key_HKC, up_value_HVC, scale
        As for `weightwise.lm.latent.attend.attend_latent`.
    mask
        Which keys a query sees, shape (T, S) or (B, 1, T, S); all without one.

    Returns
    -------
    Tensor
        Shape (B, H, T, V), in the type of the queries; zero for a query that sees nothing.
    """
    batch, heads, num_queries, key_width = query_BHTK.shape
    value_width, latent_width = up_value_HVC.shape[1:]
    out_BTHV = torch.empty(batch, num_queries, heads, value_width)
    queries = [_dense(x) for x in (query_BHTK, query_rope_BHTR)]
    ups = [_dense(x) for x in (up_key_HKC, up_value_HVC)]
    sources = [_source(part) for part in (view.latent, view.rope)]
    seen = _bytes(mask, batch, num_queries)
    num_tokens = view.num_tokens
    sizes = (
        batch, heads, num_queries, num_tokens, key_width, value_width, latent_width,
        query_rope_BHTR.shape[-1],
    )  # fmt: skip
    arguments = (
        *(_places(x) for x in (*queries, *ups)), *(source[0] for source in sources),
        _places(seen), out_BTHV.data_ptr(), sizes, scale * log2(e),
    )  # fmt: skip
    if team.is_ready(batch * num_queries * num_tokens * latent_width):
        with team.threads_of_torch():
            together(*arguments, torch.get_num_threads())
    else:
        alone(*arguments)
    return out_BTHV.transpose(1, 2).to(query_BHTK.dtype)


def _dense(x: Tensor) -> Tensor:
    """Float32 numbers whose last features lie side by side; rows of a matrix, too."""
    x = x.float()
    is_dense = x.stride(-1) == 1 and (x.ndim == 4 or x.stride(-2) == x.shape[-1])
    return x if is_dense else x.contiguous()


def _places(x: Tensor | None) -> tuple[int, int, int, int]:
    """Address of a tensor, 0 for none, and bytes between its neighbours in three dimensions."""
    if x is None:
        return 0, 0, 0, 0
    size, (first, second, third, *_) = x.element_size(), x.stride()
    return x.data_ptr(), size * first, size * second, size * third


def _bytes(mask: Tensor | None, batch: int, num_queries: int) -> Tensor | None:
    """Mask of shape (B, T, S)."""
    if mask is None:
        return None
    seen = mask.squeeze(1) if mask.ndim == 4 else mask.unsqueeze(0)
    seen = seen.expand(batch, num_queries, -1)
    return seen if seen.stride(-1) == 1 else seen.contiguous()


def _source(part: Vectors) -> tuple[tuple[int, ...], list[Tensor]]:
    """Where vectors lie and how: bits or `KINDS`, shape of a row, addresses, steps in bytes."""
    content, config = part.content, part.config
    if isinstance(content, Codes):
        assert config is not None
        kept = [_dense_rows(content.code), _dense_rows(content.scale)]
        shape = config.bits, part.width, num_groups(part.width, config), config.group_width // LANES
        code, scale = (_places(x)[:3] for x in kept)
        if content.minimum is None:
            return (*shape, *code, *scale, 0, 0, 0), kept
        kept.append(_dense_rows(content.minimum))
        return (*shape, *code, *scale, *_places(kept[2])[:3]), kept
    kept = [_dense_rows(content)]
    return (-1 - KINDS[content.dtype], part.width, 0, 0, *_places(kept[0])[:3], *[0] * 6), kept


def _dense_rows(x: Tensor) -> Tensor:
    """The same where neighbours in the last dimension lie side by side, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()
