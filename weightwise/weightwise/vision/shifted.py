"""Attention within windows that every second block shifts (Liu et al., arXiv 2103.14030).

A map is cut into windows of w x w tokens. Where windows are shifted, the map first moves by half a
window up and to the left, and what leaves it there comes in again below and at the right; in the
last windows of a row or column a mask keeps apart what only this brought together. The logit of
two tokens gets an entry of its head's table added that depends on their distance in rows and
columns alone.

A side of a map that is no longer than a window has one window as long as the side, without shift.
Other sides are filled up with zeros to multiples of w before the shift.

Moving, cutting and, afterwards, putting together are one copy each: the places of tokens in
windows are worked out once for a size of map, see `Layout`.

Shapes: B images, H W map, C channels, M heads, h v sides of a window, N = h v tokens of a window,
R S windows along height and width, X = B R S, P = R h S v places of the map when filled up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from weightwise.multiplex.mixing import HeadAttention
from weightwise.vision.layers import Dense

if TYPE_CHECKING:
    from torch import Tensor

UNSEEN = -100.0  # published; finite, so that a token that fills up need not see any other one


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the tokens of a map lie in its windows.

    Parameters
    ----------
    fill
        Rows and columns that fill up the map, below and at the right.
    order
        Places of the map when filled up, row by row, in the order of windows; shape (P).
    back
        For each place of the map, row by row, where it lies in that order; shape (H W).
    apart
        Row of the table for each query and key of a window; shape (N N).
    mask
        Logits to add, the same for all images, of shape (R S, 1, N, N), or None where all see each
        other.
    """

    fill: tuple[int, int]
    order: Tensor
    back: Tensor
    apart: Tensor
    mask: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How maps of any size are cut.

    Parameters
    ----------
    side
        Side w of a window.
    is_shifted
        Whether windows are shifted by ``w // 2``.
    mask_unshifted, mask_padding
        See `weightwise.vision.swin_config.SwinConfig`.
    """

    side: int
    is_shifted: bool
    mask_unshifted: bool
    mask_padding: bool

    def layout(self, height: int, width: int, device: torch.device) -> Layout:
        """Work out the layout for a size of map.

        Parameters
        ----------
        height, width
            Sides of the map.
        device
            Where the tensors lie.
        """
        axes = [self._axis(length, device) for length in (height, width)]
        (rows_Rh, seen_Rhh), (columns_Sv, seen_Svv) = axes
        (R, h), (S, v) = rows_Rh.shape, columns_Sv.shape
        order = rows_Rh[:, None, :, None] * (S * v) + columns_Sv[None, :, None, :]
        order_P = order.reshape(-1)
        back_P = torch.empty_like(order_P)
        back_P[order_P] = torch.arange(len(order_P), device=device)
        row_h, column_v = (torch.arange(one, device=device) for one in (h, v))
        apart = [one[:, None] - one + self.side - 1 for one in (row_h, column_v)]
        apart_hvhv = apart[0][:, None, :, None] * (2 * self.side - 1) + apart[1][None, :, None, :]
        mask = None
        if self._masks(height) or self._masks(width):
            seen = seen_Rhh[:, None, :, None, :, None] & seen_Svv[None, :, None, :, None, :]
            mask = torch.where(seen, 0.0, UNSEEN).reshape(R * S, 1, h * v, h * v)
        return Layout(
            fill=(R * h - height, S * v - width),
            order=order_P,
            back=back_P.view(R * h, S * v)[:height, :width].reshape(-1),
            apart=apart_hvhv.reshape(-1),
            mask=mask,
        )

    def _masks(self, length: int) -> bool:
        """Whether some tokens of windows along such a side do not see each other."""
        if length <= self.side:
            return False
        is_cut = self.side > 1 and (self.is_shifted or self.mask_unshifted)
        return is_cut or (self.mask_padding and length % self.side > 0)

    def _axis(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Places of the tokens of each window along one side, and which of them see each other."""
        side = min(length, self.side)
        full = length + -length % side
        shift = side // 2 if length > self.side else 0
        place = torch.arange(full, device=device)
        moved = (place + shift) % full if self.is_shifted else place
        has_come_in = place >= full - shift
        if not (self.is_shifted or self.mask_unshifted):
            has_come_in = torch.zeros_like(has_come_in)
        is_new = has_come_in.view(-1, side)
        seen = is_new[:, :, None] == is_new[:, None, :]
        if self.mask_padding:
            seen = seen & (moved < length).view(-1, 1, side)
        return moved.view(-1, side), seen


class ShiftedAttention(nn.Module):
    """Attention within the windows of a map, with a table of biases by distance, and projection.

    Parameters
    ----------
    width
        Channels C, a multiple of ``num_heads``.
    num_heads
        Heads M.
    windows
        How maps are cut.
    mixes
        Whether there are maps over heads, with biases.
    """

    def __init__(self, width: int, num_heads: int, windows: Windows, *, mixes: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.windows = windows
        self.qkv = Dense(width, 3 * width)
        self.proj = Dense(width, width)
        distances = (2 * windows.side - 1) ** 2
        self.relative_position_bias_table = nn.Parameter(torch.zeros(distances, num_heads))
        self.attend = HeadAttention(num_heads, mixes=mixes, bias=True)
        self._layout: tuple[tuple[int, int, torch.device], Layout] | None = None

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Attend within windows; the shape is kept."""
        B, H, W, C = x_BHWC.shape
        layout = self.layout(H, W, x_BHWC.device)
        bottom, right = layout.fill
        if bottom or right:
            x_BHWC = F.pad(x_BHWC, (0, 0, 0, right, 0, bottom))
        term_1MNN = self.bias(layout)
        N = term_1MNN.shape[-1]
        x_XNC = x_BHWC.flatten(1, 2).index_select(1, layout.order).view(-1, N, C)
        qkv_XN3Md = self.qkv(x_XNC).view(-1, N, 3, self.num_heads, C // self.num_heads)
        q_XMNd, k_XMNd, v_XMNd = qkv_XN3Md.permute(2, 0, 3, 1, 4)
        mask = layout.mask
        if mask is not None:
            mask = mask.to(x_XNC.dtype)
        y_XMNd = self.attend(q_XMNd, k_XMNd, v_XMNd, term_BMNT=term_1MNN, mask=mask)
        y_XNC = self.proj(y_XMNd.transpose(1, 2).reshape(x_XNC.shape))
        y_BPC = y_XNC.view(B, -1, C)
        return cast("Tensor", y_BPC.index_select(1, layout.back).view(B, H, W, C))

    def layout(self, height: int, width: int, device: torch.device) -> Layout:
        """Return the layout for a size of map; that of the last size is kept."""
        # A program for one size holds its layout as constants.
        if torch.compiler.is_compiling():
            return self.windows.layout(height, width, device)
        key = (height, width, device)
        if self._layout is None or self._layout[0] != key:
            # What inference mode makes could not take part in training later.
            with torch.inference_mode(False):
                self._layout = key, self.windows.layout(height, width, device)
        return self._layout[1]

    def bias(self, layout: Layout) -> Tensor:
        """Bias of every pair of tokens of a window; shape (1, M, N, N)."""
        bias_XM = self.relative_position_bias_table.index_select(0, layout.apart)
        N = round(len(layout.apart) ** 0.5)
        return bias_XM.t().reshape(1, self.num_heads, N, N)
