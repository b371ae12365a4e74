"""TinyViT: images to logits, or to a pyramid of maps (Wu et al., arXiv 2207.10666, section 3.2).

Stem, a stage of convolutional blocks and three stages of attention blocks, between which the map
halves; then the mean over tokens, layer normalization and a linear head. There is no class token
and no position embedding, so a model takes images of any size: the windows stay, their number
changes. Where a much larger image wants larger windows, see `weightwise.vision.adapt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from weightwise.vision.blocks import AttentionStage, ConvStage, MBConv, Stem

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.vision.config import TinyViTConfig

INIT_STD = 0.02


class Head(nn.Module):
    """Mean over tokens, layer normalization and classification.

    Parameters
    ----------
    width
        Channels of the last stage.
    num_classes
        Classes K.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, num_classes)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Return what the classifier sees, of shape (B, C)."""
        return cast("Tensor", self.norm(x_BCHW.mean((2, 3))))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits of shape (B, K)."""
        return cast("Tensor", self.fc(self.features(x_BCHW)))


class TinyViT(nn.Module):
    """Hierarchical vision transformer with convolutions in its first stage.

    Parameters are named as in timm's ``tiny_vit``. They start with torch's own values; `initialize`
    draws the published ones.

    Parameters
    ----------
    config
        Settings, for example one of `VARIANTS`.

    Examples
    --------
    >>> model = TinyViT(VARIANTS["5m"]).eval()
    >>> [tuple(x.shape) for x in model.pyramid(torch.zeros(1, 3, 224, 224))]
    [(1, 64, 56, 56), (1, 128, 28, 28), (1, 160, 14, 14), (1, 320, 7, 7)]
    """

    def __init__(self, config: TinyViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = Stem(config.widths[0])
        self.stages = nn.ModuleList(
            [ConvStage(config), *(AttentionStage(config, stage) for stage in (1, 2, 3))]
        )
        self.head = Head(config.widths[3], config.num_classes)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Classify images.

        Parameters
        ----------
        x_B3HW
            Normalized images of any height and width.

        Returns
        -------
        Logits of shape (B, num_classes).
        """
        return cast("Tensor", self.head(self.pyramid(x_B3HW)[-1]))

    def features(self, x_B3HW: Tensor) -> Tensor:
        """Return the normalized mean over tokens, of shape (B, last width)."""
        return self.head.features(self.pyramid(x_B3HW)[-1])

    def pyramid(self, x_B3HW: Tensor) -> list[Tensor]:
        """Compute the maps that a detector works on.

        Parameters
        ----------
        x_B3HW
            Normalized images of any height and width.

        Returns
        -------
        The outputs of the four stages, each (B, C, H, W) in channels-last memory format, with
        strides 4, 8, 16 and 32; sides are rounded up.

        Raises
        ------
        ValueError
            If the input has not the shape of images.
        """
        if x_B3HW.dim() != 4 or x_B3HW.shape[1] != 3:
            raise ValueError(
                f"x_B3HW: expected shape (images, 3, height, width), got {tuple(x_B3HW.shape)}"
            )
        x_BCHW = self.patch_embed(x_B3HW.contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            maps.append(x_BCHW)
        return maps

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw new weights (section 3.2 leaves them to the published code).

        Linear weights come from N(0, 0.02^2), cut off at two units; convolutions from the uniform
        distribution within 1 / sqrt(inputs of an output), torch's usual one. Gains are 1, those
        that end an `MBConv` branch 0, and all else 0. Running statistics start anew.

        Parameters
        ----------
        generator
            Source of randomness; the same state gives the same weights.
        """
        for name, weight in self.named_parameters():
            if weight.dim() == 4:
                bound = weight[0].numel() ** -0.5
                weight.uniform_(-bound, bound, generator=generator)
            elif name.endswith("attention_biases") or weight.dim() == 1:
                weight.fill_(0.0 if name.endswith(("biases", "bias")) else 1.0)
            else:
                nn.init.trunc_normal_(weight, std=INIT_STD, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
            elif isinstance(module, MBConv):
                # The branch starts at nothing, so that a new block is nearly the identity.
                module.conv3.bn.weight.zero_()
