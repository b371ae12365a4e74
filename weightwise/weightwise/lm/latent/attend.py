"""Softmax attention over latents, in the two orders that its products can be taken in.

Expanded, every latent becomes keys and values of all heads first, as in the definition:

    score = (q . (U_K c) + q_R . k_R) * scale        out = sum of a (U_V c)

Absorbed, the up-projections move to the side of the queries (DeepSeek-V2, arXiv 2405.04434,
section 2.1.2), and all heads ask one shared key of width C + R:

    score = ((U_K^T q) . c + q_R . k_R) * scale      out = U_V (sum of a c)

Both are the same in real arithmetic. Many queries share the cost of expanding; a few do not.
"""

# Shapes: B batch, H heads, T queries, S tokens, K key features without rotation, V value features,
# R rotary features, C latent width

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from weightwise.lm.latent import prefill
from weightwise.numerics.kernels import has_triton

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.lm.latent.cache import LatentView

ABSORBING = 1.0  # time of a multiplication when absorbed over that when expanded


def attend_latent(
    query_BHTK: Tensor,
    query_rope_BHTR: Tensor,
    view: LatentView,
    up_key_HKC: Tensor,
    up_value_HVC: Tensor,
    mask: Tensor | None,
    scale: float,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Let queries attend to latents.

    Parameters
    ----------
    query_BHTK, query_rope_BHTR
        The two parts of the queries; the second is rotated.
    view
        Latents and rotary keys of S tokens.
    up_key_HKC, up_value_HVC
        Up-projections of the layer.
    mask
        Which keys a query sees, shape (T, S) or (B, 1, T, S). Without one, T = S queries see
        the keys up to their own, and a single query sees all.
    scale
        Factor of the scores.
    dropout
        Share of the weights that is set to 0; the others grow to make up for it.

    Returns
    -------
    Tensor
        Weighted values, shape (B, H, T, V).
    """
    key_width, latent_width = up_key_HKC.shape[1:]
    widths = key_width, up_value_HVC.shape[1], latent_width, query_rope_BHTR.shape[-1]
    num_queries, num_tokens = query_BHTK.shape[2], view.num_tokens
    is_plain = not (dropout > 0 or torch.is_grad_enabled())
    if is_plain and is_absorbed(num_queries, num_tokens, widths):
        if mask is None and num_queries > 1:
            mask = query_BHTK.new_ones(num_queries, num_tokens, dtype=torch.bool).tril()
        return absorbed(query_BHTK, query_rope_BHTR, view, up_key_HKC, up_value_HVC, mask, scale)
    # A cache may keep another type than the model computes in.
    latent_BSC, rope_BSR = (x.to(query_BHTK.dtype) for x in view.latent_and_rope())
    return expanded(
        query_BHTK, query_rope_BHTR, latent_BSC, rope_BSR, up_key_HKC, up_value_HVC, mask, scale,
        dropout,
    )  # fmt: skip


def is_absorbed(num_queries: int, num_tokens: int, widths: tuple[int, int, int, int]) -> bool:
    """Whether the absorbed order takes fewer products (sheet CLLA, 3.5).

    Parameters
    ----------
    num_queries, num_tokens
        T and S.
    widths
        K, V, C and R.
    """
    key, value, latent, rope = widths
    ups = latent * (key + value)
    absorbing = num_queries * (ups + num_tokens * (2 * latent + rope))
    expanding = num_tokens * (ups + num_queries * (key + rope + value))
    return ABSORBING * absorbing < expanding


def expanded(
    query_BHTK: Tensor,
    query_rope_BHTR: Tensor,
    latent_BSC: Tensor,
    rope_BSR: Tensor,
    up_key_HKC: Tensor,
    up_value_HVC: Tensor,
    mask: Tensor | None,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Keys and values of all heads first; parameters as for `attend_latent`."""
    is_plain = not (dropout > 0 or torch.is_grad_enabled())
    is_causal = mask is None and query_BHTK.shape[2] == latent_BSC.shape[1]
    if is_plain and (is_causal or mask is not None) and prefill.is_possible(query_BHTK, latent_BSC):
        return prefill.attend(
            query_BHTK, query_rope_BHTR, latent_BSC, rope_BSR, up_key_HKC, up_value_HVC, mask, scale
        )
    key_BHSK = latent_BSC.unsqueeze(1) @ up_key_HKC.transpose(1, 2)
    value_BHSV = latent_BSC.unsqueeze(1) @ up_value_HVC.transpose(1, 2)
    rope_BHSR = rope_BSR.unsqueeze(1).expand(-1, key_BHSK.shape[1], -1, -1)
    mixed_BHTV: Tensor = F.scaled_dot_product_attention(
        torch.cat((query_BHTK, query_rope_BHTR), dim=-1),
        torch.cat((key_BHSK, rope_BHSR), dim=-1),
        value_BHSV,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal,
        scale=scale,
    )
    return mixed_BHTV


def absorbed(
    query_BHTK: Tensor,
    query_rope_BHTR: Tensor,
    view: LatentView,
    up_key_HKC: Tensor,
    up_value_HVC: Tensor,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Queries and results go through the up-projections; parameters as for `attend_latent`.

    Without a mask, queries see all tokens.
    """
    if query_BHTK.device.type == "cpu":
        from weightwise.lm.latent import decode  # the compiler takes a second to import

        if decode.is_possible(query_BHTK, view):
            return decode.attend(
                query_BHTK, query_rope_BHTR, view, up_key_HKC, up_value_HVC, mask, scale
            )
    if query_BHTK.device.type == "cuda" and has_triton():
        from weightwise.lm.latent import triton_decode

        if triton_decode.is_possible(query_BHTK, view):
            return triton_decode.attend(
                query_BHTK, query_rope_BHTR, view, up_key_HKC, up_value_HVC, mask, scale
            )
    # All heads have the same keys, so they may stand beside the queries.
    asked_BHTC = query_BHTK @ up_key_HKC
    latent_BSC, rope_BSR = (x.to(query_BHTK.dtype) for x in view.latent_and_rope())
    mixed_BHTC = F.scaled_dot_product_attention(
        torch.cat((asked_BHTC, query_rope_BHTR), dim=-1),
        torch.cat((latent_BSC, rope_BSR), dim=-1).unsqueeze(1),
        latent_BSC.unsqueeze(1),
        attn_mask=mask,
        scale=scale,
        enable_gqa=True,
    )
    return mixed_BHTC @ up_value_HVC.transpose(1, 2)
