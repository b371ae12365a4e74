"""A depthwise convolution over the map of tokens, before the MLP of an execution.

MiniViT's transformation for the MLP (Zhang et al., arXiv 2204.07154) is a linear map over the
tokens of each channel, made affordable as a depthwise convolution. Two forms, with u = LN(x):

    kept        x + DWConv(u)    ours: starts at the identity, as the convolution starts at zero
    published   u + DWConv(u)    released Mini-Swin: the stream goes on from the normalized tokens
"""

# Shapes: B images, H W map, C channels

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

Residual = Literal["kept", "published"]


class LocalMix(nn.Module):
    """Layer normalization and a depthwise convolution, added to what it came from.

    Parameters
    ----------
    width
        Channels C.
    kernel
        Side of the kernel, odd; the map is padded with zeros and keeps its size.
    residual
        What the convolution is added to: ``kept`` or ``published``, see the module.
    eps
        Of the normalization.

    Raises
    ------
    ValueError
        If the kernel is even or below 1, or the residual unknown.
    """

    def __init__(self, width: int, kernel: int, *, residual: Residual, eps: float) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd number of at least 1, got {kernel}")
        if residual not in get_args(Residual):
            raise ValueError(f"residual: expected kept or published, got {residual!r}")
        self.residual = residual
        self.norm = nn.LayerNorm(width, eps=eps)
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        if residual == "kept":
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(cast("nn.Parameter", self.conv.bias))

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Start anew: the identity where the residual is kept, else torch's usual draws.

        Parameters
        ----------
        generator
            Source of randomness; the same state gives the same weights.
        """
        self.norm.reset_parameters()
        # Uniform within 1 / sqrt(inputs of an output): the published code leaves it to torch.
        bound = 0.0 if self.residual == "kept" else self.conv.weight[0].numel() ** -0.5
        for one in self.conv.parameters():
            one.uniform_(-bound, bound, generator=generator)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Mix neighbours.

        Parameters
        ----------
        x_BHWC
            Shape (B, H, W, C).

        Returns
        -------
        The same shape.
        """
        u_BHWC = self.norm(x_BHWC)
        mixed_BHWC = self.conv(u_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        start_BHWC = x_BHWC if self.residual == "kept" else u_BHWC
        return cast("Tensor", start_BHWC + mixed_BHWC)
