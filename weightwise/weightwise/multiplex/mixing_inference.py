"""Attention with maps over heads, without gradients, on a CPU: a few images at a time.

A few images go through the products of queries and keys, the passes over logits, all in one (see
`weightwise.multiplex.mixing_kernels`), and the products with values before the next ones, in a
buffer that fits the second cache and is used again. Heads come first in it. The result lies as
(B, N, M, d) in memory, as a projection wants it.
"""

# Shapes: B images, n images of a turn, M heads, N queries, T keys, P keys filled up,
# d channels of a head

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from weightwise.multiplex.lookup import LookUp
from weightwise.multiplex.mixing_kernels import LOG2_E, WIDTH, mix, mix_together
from weightwise.numerics.kernels import team

TURN = 1 << 18  # logits of a turn: a buffer of 1 MB


def is_possible(*tensors: Tensor | LookUp | None) -> bool:
    """Whether `attend` can run: float32 in this memory, no gradient asked for, no tracing."""
    floats = [one.table if isinstance(one, LookUp) else one for one in tensors]
    return (
        all(
            one is None
            or (one.is_cpu and one.dtype == torch.float32 and type(one) in (Tensor, Parameter))
            for one in floats
        )
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


def attend(
    qkv: tuple[Tensor, Tensor, Tensor],
    before_MM: Tensor,
    after_MM: Tensor,
    after_bias_M: Tensor | None,
    *,
    scale: float,
    term_BMNT: Tensor | LookUp | None,
    mask_BMNT: Tensor | None,
) -> Tensor:
    """Attend as `weightwise.multiplex.HeadAttention` does.

    Parameters
    ----------
    qkv
        Queries (B, M, N, d), unscaled, keys and values (B, M, T, d).
    before_MM, after_MM
        Maps on logits and on probabilities. A bias on logits would leave the softmax as it is.
    after_bias_M
        What is added to the mapped probabilities.
    scale
        Factor on the products of queries and keys.
    term_BMNT, mask_BMNT
        What is added to logits before and after the first map; broadcastable, and may repeat
        along images.

    Returns
    -------
    Shape (B, M, N, d).
    """
    q_BMNd, k_BMTd, v_BMTd = qkv
    B, M, N, _ = q_BMNd.shape
    T, width = k_BMTd.shape[2], v_BMTd.shape[3]
    P = T + -T % WIDTH
    images = max(1, min(B, TURN // max(M * N * P, 1)))
    buffer = q_BMNd.new_empty(M * images * N * P)
    y_BMNd = q_BMNd.new_empty(B, N, M, width).transpose(1, 2)
    maps = tuple(
        F.pad(one, (0,) * (2 * one.dim() - 1) + (-M % 3,)).numpy()
        for one in (
            before_MM * float(LOG2_E),
            after_MM,
            q_BMNd.new_zeros(M) if after_bias_M is None else after_bias_M,
        )
    )
    terms, mask = _terms(q_BMNd, term_BMNT, (B, M, N, T), P), _rows(mask_BMNT, (B, M, N, T), P)
    for first in range(0, B, images):
        turn = slice(first, min(first + images, B))
        n = turn.stop - first
        a_MnNP = buffer[: M * n * N * P].view(M, n, N, P)
        # Products of matrices: the heads of one image at a time, or the images of one head.
        axis = 0 if n <= M else 1
        for a_YNP, q_YNd, k_YTd in zip(
            a_MnNP.unbind(1 - axis), q_BMNd[turn].unbind(axis), k_BMTd[turn].unbind(axis),
            strict=True,
        ):  # fmt: skip
            torch.bmm(q_YNd, k_YTd.mT, out=a_YNP[..., :T])
        rest = (first, T, np.float32(scale), terms, mask, maps)
        if team.is_ready(a_MnNP.numel()):
            with team.threads_of_torch():
                mix_together(a_MnNP.numpy(), *rest)
        else:
            mix(a_MnNP.numpy(), *rest)
        for a_YNP, v_YTd, y_YNd in zip(
            a_MnNP.unbind(1 - axis), v_BMTd[turn].unbind(axis), y_BMNd[turn].unbind(axis),
            strict=True,
        ):  # fmt: skip
            torch.bmm(a_YNP[..., :T], v_YTd, out=y_YNd)
    return y_BMNd


def _terms(
    q_BMNd: Tensor, term_BMNT: Tensor | LookUp | None, shape_BMNT: tuple[int, ...], length: int
) -> tuple[Any, ...]:
    """Term, products and places, see `mix`."""
    N, T = shape_BMNT[2:]
    if isinstance(term_BMNT, LookUp):
        products, places = term_BMNT.products(q_BMNd), term_BMNT.place.view(N, T)
        return _rows(None, shape_BMNT, length), products.numpy(), places.numpy()
    nothing = np.empty((1, 1, 0), np.float32), np.empty((0, T), np.int64)
    return _rows(term_BMNT, shape_BMNT, length), *nothing


def _rows(x_BMNT: Tensor | None, shape_BMNT: tuple[int, ...], length: int) -> Any:
    """What is added to logits, heads first, with rows of a length; zeros where there is nothing."""
    B, *shape_MNT = shape_BMNT
    if x_BMNT is None:
        return torch.zeros(1, 1, 1, length).numpy()
    x_BMNT = x_BMNT[(None,) * (4 - x_BMNT.dim())]
    if torch.broadcast_shapes(x_BMNT.shape[1:], shape_MNT) != tuple(shape_MNT) or B % len(x_BMNT):
        raise ValueError(
            f"term_BMNT, mask: expected a shape that fits {shape_BMNT}, got {tuple(x_BMNT.shape)}"
        )
    x_MBNT = x_BMNT.expand(-1, -1, -1, shape_BMNT[3]).transpose(0, 1)
    return F.pad(x_MBNT, (0, length - shape_BMNT[3])).contiguous().numpy()
