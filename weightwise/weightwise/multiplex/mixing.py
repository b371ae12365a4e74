"""Linear maps over the heads of an attention, before and after the softmax.

Executions that share their weights get small maps of their own, F2 and F1 (MiniViT, Zhang et al.,
arXiv 2204.07154, transformation for attention; released code for their place between the other
terms)::

    logits  A_k = sum_n F2[k, n] (q_n k_n^T / sqrt(d) + term_n) + b2_k + mask
    output  y_k = (sum_n F1[k, n] softmax(A_n) + b1_k) v_k

They start at the identity, where attention is the plain one, so that a trained model keeps what it
computes. `HeadMix.initialize` draws the published start instead.

Maps that are diagonal need no mixing: F2 scales queries, its bias leaves a softmax as it is, F1
scales the output and its bias adds to each head a multiple of the sum of its values. In inference
such attention takes the fused kernel.
"""

# Shapes: B images or texts, M heads, N queries, T keys, d channels of a head

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.multiplex.lookup import LookUp
from weightwise.multiplex.mixing_inference import attend, is_possible

INIT_STD = 0.02  # of the released code


class HeadMix(nn.Module):
    """A linear map over heads, the same for all pairs of tokens; the identity at the start.

    Parameters
    ----------
    num_heads
        Heads M, at least 1.
    bias
        Whether each head has a number of its own added, as in the released Mini-Swin.

    Raises
    ------
    ValueError
        If there is no head.
    """

    def __init__(self, num_heads: int, *, bias: bool) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"num_heads: expected at least 1, got {num_heads}")
        # torch.eye would import the compiler where the device is meta.
        weight = torch.zeros(num_heads, num_heads)
        weight.diagonal().fill_(1.0)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(num_heads)) if bias else None
        self._verdict: tuple[tuple[object, ...], bool] | None = None

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw the published start: N(0, 0.02^2), cut off at 2, and no bias.

        It is far from the identity: attention begins nearly uniform.

        Parameters
        ----------
        generator
            Source of randomness; the same state gives the same map.
        """
        nn.init.trunc_normal_(self.weight, std=INIT_STD, generator=generator)
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, a_BMNT: Tensor) -> Tensor:
        """Map logits or probabilities.

        Parameters
        ----------
        a_BMNT
            Shape (B, M, N, T).

        Returns
        -------
        ``out_k = sum_n weight[k, n] a_n + bias_k``, of the same shape.
        """
        # `weight @ a` would join images and keys, in a copy, where the weight wants a gradient.
        weight_BMM, a_BMX = self.weight.expand(a_BMNT.shape[0], -1, -1), a_BMNT.flatten(2)
        if self.bias is None:
            out_BMX = torch.bmm(weight_BMM, a_BMX)
        else:
            out_BMX = torch.baddbmm(self.bias[:, None], weight_BMM, a_BMX)
        return out_BMX.view(a_BMNT.shape)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what was known of the weight is forgotten.

        Fused optimizers change weights and not their versions, by which changes are told here.
        """
        self._verdict = None
        return super().train(mode)

    def is_diagonal(self) -> bool:
        """Whether no head sees another one; looked up again only after the weight has changed."""
        weight = self.weight.detach()
        if weight.is_inference() or weight.is_meta:
            return False  # such tensors do not tell when they change
        key = (self.weight._version, weight.data_ptr())
        if self._verdict is None or self._verdict[0] != key:
            self._verdict = key, torch.equal(weight, torch.diag(weight.diagonal()))
        return self._verdict[1]


class HeadAttention(nn.Module):
    """Softmax attention, with or without maps over heads; the only parameters are the maps.

    Queries, keys and values come in before any mixing, so a hook before this module sees them.

    Parameters
    ----------
    num_heads
        Heads M.
    mixes
        Whether there are maps ``before`` (F2, on logits) and ``after`` (F1, on probabilities).
    bias
        Whether the maps have biases.
    scale
        Factor on the products of queries and keys; ``None`` means ``1 / sqrt(d)``.
    """

    def __init__(
        self, num_heads: int, *, mixes: bool, bias: bool, scale: float | None = None
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = scale
        self.before = HeadMix(num_heads, bias=bias) if mixes else None
        self.after = HeadMix(num_heads, bias=bias) if mixes else None

    def forward(
        self,
        q_BMNd: Tensor,
        k_BMTd: Tensor,
        v_BMTd: Tensor,
        *,
        term_BMNT: Tensor | LookUp | None = None,
        mask: Tensor | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        """Attend.

        Parameters
        ----------
        q_BMNd, k_BMTd, v_BMTd
            Queries, unscaled, keys and values, all with M heads.
        term_BMNT
            What is added to the logits before they are mixed, such as terms of position;
            broadcastable to (B, M, N, T), or what to look up.
        mask
            What is added after that, such as minus infinity for unseen keys; broadcastable too. If
            there are several masks but fewer than images, images take them in turn, as windows do.
        dropout
            Share of the mixed probabilities set to 0, in [0, 1).

        Returns
        -------
        Shape (B, M, N, d).
        """
        scale = q_BMNd.shape[-1] ** -0.5 if self.scale is None else self.scale
        is_fused = self.is_fused()
        if not is_fused and dropout == 0 and is_possible(q_BMNd, k_BMTd, v_BMTd, term_BMNT, mask):
            assert self.before is not None
            assert self.after is not None
            return attend(
                (q_BMNd, k_BMTd, v_BMTd), self.before.weight, self.after.weight, self.after.bias,
                scale=scale, term_BMNT=term_BMNT, mask_BMNT=mask,
            )  # fmt: skip
        if isinstance(term_BMNT, LookUp):
            term_BMNT = term_BMNT.of(q_BMNd)
        if mask is not None and mask.dim() == 4 and mask.shape[0] > 1:
            # No copy where it fits; a program for any number of images could not ask for that.
            times = q_BMNd.shape[0] // mask.shape[0]
            mask = mask[None].expand(times, -1, -1, -1, -1).flatten(0, 1)
        if self.before is None or self.after is None:
            added = term_BMNT if mask is None else mask
            if term_BMNT is not None and mask is not None:
                added = term_BMNT + mask
            return F.scaled_dot_product_attention(
                q_BMNd, k_BMTd, v_BMTd, attn_mask=added, dropout_p=dropout, scale=scale
            )
        if dropout == 0 and is_fused:
            return self._diagonal(q_BMNd, k_BMTd, v_BMTd, scale, term_BMNT, mask)
        logits_BMNT = (q_BMNd * scale) @ k_BMTd.transpose(-2, -1)
        if term_BMNT is not None:
            logits_BMNT = logits_BMNT + term_BMNT
        logits_BMNT = self.before(logits_BMNT)
        if mask is not None:
            logits_BMNT = logits_BMNT + mask
        p_BMNT = self.after(logits_BMNT.softmax(-1).to(v_BMTd.dtype))
        if dropout > 0:
            p_BMNT = F.dropout(p_BMNT, dropout)
        out_BMNd: Tensor = p_BMNT @ v_BMTd
        return out_BMNd

    def is_fused(self) -> bool:
        """Whether the fused kernel computes it: no maps, or diagonal ones in inference."""
        if self.before is None or self.after is None:
            return True
        # A compiler would make the answer of this moment a part of the program.
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        return self.before.is_diagonal() and self.after.is_diagonal()

    def _diagonal(
        self,
        q_BMNd: Tensor,
        k_BMTd: Tensor,
        v_BMTd: Tensor,
        scale: float,
        term_BMNT: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        assert self.before is not None
        assert self.after is not None
        before_M11 = self.before.weight.diagonal().to(q_BMNd.dtype)[:, None, None]
        after_M11 = self.after.weight.diagonal().to(q_BMNd.dtype)[:, None, None]
        added = mask
        if term_BMNT is not None:
            added = before_M11 * term_BMNT
            added = added if mask is None else added + mask
        y_BMNd = F.scaled_dot_product_attention(
            q_BMNd * (scale * before_M11), k_BMTd, v_BMTd, attn_mask=added, scale=1.0
        )
        y_BMNd = after_M11 * y_BMNd
        if self.after.bias is None:
            return y_BMNd
        bias_M11 = self.after.bias.to(q_BMNd.dtype)[:, None, None]
        out_BMNd: Tensor = y_BMNd + bias_M11 * v_BMTd.sum(-2, keepdim=True)
        return out_BMNd


def split_mask(mask: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Part an additive mask in what belongs before a mix over heads and what belongs after it.

    Parameters
    ----------
    mask
        What is added to logits: terms of position, unseen keys, or the sum of both.
    floor
        Entries of at most this are taken for unseen keys.

    Returns
    -------
    Term and mask, whose sum is what came in.
    """
    if not math.isfinite(floor) or floor >= 0:
        raise ValueError(f"floor: expected a finite number below 0, got {floor}")
    is_unseen = mask <= floor
    return mask.masked_fill(is_unseen, 0.0), mask.masked_fill(~is_unseen, 0.0)
