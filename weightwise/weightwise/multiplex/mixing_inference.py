"""Attention with maps over heads, without gradients, on a CPU: a few images at a time.

The four passes over the logits (products of queries and keys, map, softmax, map) each read and
write N T floats of every head. For one image they fit in the second cache, for a batch they do not;
so a few images go through all passes before the next ones, in two buffers that are used again.
Heads come first in the buffers, which makes a map over heads one product of matrices for all images
of a turn. The result lies as (B, N, M, d) in memory, as a projection wants it.
"""

# Shapes: B images, n images of a turn, M heads, N queries, T keys, d channels of a head

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from weightwise.multiplex.lookup import LookUp

if TYPE_CHECKING:
    from torch import Tensor

TURN = 1 << 18  # logits of a turn: two buffers of 1 MB


def is_possible(*tensors: Tensor | LookUp | None) -> bool:
    """Whether `attend` can run: float32 on the CPU, no gradient asked for, no compiler."""
    floats = [one.table if isinstance(one, LookUp) else one for one in tensors]
    return (
        all(
            one is None or (one.device.type == "cpu" and one.dtype == torch.float32)
            for one in floats
        )
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
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
        What is added to logits before and after the first map; broadcastable.

    Returns
    -------
    Shape (B, M, N, d).
    """
    q_BMNd, k_BMTd, v_BMTd = qkv
    B, M, N, _ = q_BMNd.shape
    T, width = k_BMTd.shape[2], v_BMTd.shape[3]
    images = max(1, min(B, TURN // max(M * N * T, 1)))
    buffers = q_BMNd.new_empty(2, M * images * N * T)
    y_BMNd = q_BMNd.new_empty(B, N, M, width).transpose(1, 2)
    for first in range(0, B, images):
        turn = slice(first, min(first + images, B))
        n = turn.stop - turn.start
        a_MnNT, b_MnNT = buffers[:, : M * n * N * T].view(2, M, n, N, T)
        # Products of matrices: the heads of one image at a time, or the images of one head.
        axis = 0 if n <= M else 1
        has_term = _fill(a_MnNT, q_BMNd, term_BMNT, turn)
        for a_YNT, q_YNd, k_YTd in zip(
            a_MnNT.unbind(1 - axis), q_BMNd[turn].unbind(axis), k_BMTd[turn].unbind(axis),
            strict=True,
        ):  # fmt: skip
            # With beta = 0 what was in the buffer does not count.
            a_YNT.baddbmm_(q_YNd, k_YTd.mT, beta=int(has_term), alpha=scale)
        torch.mm(before_MM, a_MnNT.view(M, -1), out=b_MnNT.view(M, -1))
        if mask_BMNT is not None:
            b_MnNT += mask_BMNT.expand(B, M, N, T)[turn].transpose(0, 1)
        torch.softmax(b_MnNT, -1, out=a_MnNT)
        torch.mm(after_MM, a_MnNT.view(M, -1), out=b_MnNT.view(M, -1))
        if after_bias_M is not None:
            b_MnNT.view(M, -1).add_(after_bias_M[:, None])
        for b_YNT, v_YTd, y_YNd in zip(
            b_MnNT.unbind(1 - axis), v_BMTd[turn].unbind(axis), y_BMNd[turn].unbind(axis),
            strict=True,
        ):  # fmt: skip
            torch.bmm(b_YNT, v_YTd, out=y_YNd)
    return y_BMNd


def _fill(out_MnNT: Tensor, q_BMNd: Tensor, term_BMNT: Tensor | LookUp | None, turn: slice) -> bool:
    """Write the term of a turn and say whether there is one."""
    if isinstance(term_BMNT, LookUp):
        term_BMNT.fill(q_BMNd[turn], out_MnNT)
    elif term_BMNT is not None:
        shape = (len(q_BMNd), *out_MnNT.shape[:1], *out_MnNT.shape[2:])
        out_MnNT.copy_(term_BMNT.expand(shape)[turn].transpose(0, 1))
    return term_BMNT is not None
