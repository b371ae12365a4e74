"""Attention within the windows of a map, with a learned bias for every distance.

A map is cut into windows of w x w tokens, without shift or overlap. The logit of two tokens that
lie ``i`` rows and ``j`` columns apart gets entry ``i w + j`` of the head's table added. A map whose
sides are no multiples of w is filled up with zeros below and at the right; like the published
models, queries see what is filled in unless `TinyViTConfig.mask_padding` says otherwise.

Shapes: B images, H W map, C channels, G heads, w side of a window, N = w^2 tokens of a window,
R S windows along height and width.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.vision.layers import Dense


class WindowAttention(nn.Module):
    """Layer normalization, attention within windows, and projection.

    Parameters
    ----------
    width
        Channels C, a multiple of ``num_heads``.
    num_heads
        Heads G.
    window
        Side w of a window.
    mask_padding
        Whether tokens that fill up a window stay unseen.
    """

    def __init__(self, width: int, num_heads: int, window: int, *, mask_padding: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.mask_padding = mask_padding
        self.norm = nn.LayerNorm(width)
        # Output head by head: query, key and value of the first head, then those of the second.
        self.qkv = Dense(width, 3 * width)
        self.proj = Dense(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window**2))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Attend within windows; the shape is kept."""
        B, H, W, C = x_BHWC.shape
        w = self.window
        if H == W == w:
            return self._attend(x_BHWC.reshape(B, w * w, C), self.bias()).view(B, H, W, C)
        bottom, right = -H % w, -W % w
        if bottom or right:
            x_BHWC = F.pad(x_BHWC, (0, 0, 0, right, 0, bottom))
        R, S = (H + bottom) // w, (W + right) // w
        x_BRSwwC = x_BHWC.reshape(B, R, w, S, w, C).transpose(2, 3)
        bias = self.bias()
        if self.mask_padding and (bottom or right):
            bias = bias + self._mask(H, W, R, S, bias).repeat(B, 1, 1, 1)
        y_XNC = self._attend(x_BRSwwC.reshape(B * R * S, w * w, C), bias)
        y_BHWC = y_XNC.view(B, R, S, w, w, C).transpose(2, 3).reshape(B, R * w, S * w, C)
        return y_BHWC[:, :H, :W]

    def bias(self) -> Tensor:
        """Bias of every pair of tokens of a window; shape (1, G, N, N)."""
        w = self.window
        place = torch.arange(w, device=self.attention_biases.device)
        apart_ww = (place[:, None] - place).abs()
        table_Gww = self.attention_biases.view(-1, w, w)
        bias_Gwwww = table_Gww[:, apart_ww[:, None, :, None], apart_ww[None, :, None, :]]
        return bias_Gwwww.reshape(1, -1, w * w, w * w)

    def _attend(self, x_XNC: Tensor, bias_1GNN: Tensor) -> Tensor:
        X, N, C = x_XNC.shape
        qkv_XNG3 = self.qkv(self.norm(x_XNC)).view(X, N, self.num_heads, -1)
        q_XGNd, k_XGNd, v_XGNd = qkv_XNG3.transpose(1, 2).chunk(3, dim=-1)
        y_XGNd = F.scaled_dot_product_attention(q_XGNd, k_XGNd, v_XGNd, attn_mask=bias_1GNN)
        return cast("Tensor", self.proj(y_XGNd.transpose(1, 2).reshape(X, N, C)))

    def _mask(self, H: int, W: int, R: int, S: int, like: Tensor) -> Tensor:
        """Minus infinity for keys that lie beyond the map; shape (R S, 1, 1, N)."""
        w = self.window
        is_row = torch.arange(R * w, device=like.device) < H
        is_column = torch.arange(S * w, device=like.device) < W
        is_token_RwSw = (is_row[:, None] & is_column).view(R, w, S, w)
        # A window begins inside of the map, so none is masked as a whole.
        mask = like.new_zeros(R * S, 1, 1, w * w)
        return mask.masked_fill(~is_token_RwSw.transpose(1, 2).reshape(mask.shape), -torch.inf)
