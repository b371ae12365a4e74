"""Swin and Mini-Swin: images to logits, or to a pyramid of maps.

Swin (Liu et al., arXiv 2103.14030) embeds patches of 4 x 4 pixels and has four stages, before each
of which but the first the map halves and the channels double; then layer normalization, the mean
over tokens and a linear head. A block attends within windows, shifted in every second block.

In Mini-Swin (MiniViT, Zhang et al., arXiv 2204.07154) consecutive blocks of a stage hold the same
weights and tables of biases. There is one module for each execution, with layer normalizations,
maps over heads and a depthwise convolution of its own, and the shared parameters are the same
objects in all of them: their gradient is the sum over executions, and an optimizer sees them once.

There is no position embedding, so a model takes images of any size.
"""

# Shapes: B images, H W map, C channels

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from weightwise.multiplex.local import LocalMix
from weightwise.multiplex.mixing import HeadMix
from weightwise.vision.layers import DropPath, Mlp
from weightwise.vision.shifted import ShiftedAttention, Windows
from weightwise.vision.swin_config import NUM_STAGES, PATCH, SwinConfig

if TYPE_CHECKING:
    from torch import Tensor

INIT_STD = 0.02  # published
EPS = 1e-5
NORMS = ("norm1", "norm2")
SHARED = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # and the table of biases


class PatchEmbed(nn.Module):
    """Patches of 4 x 4 pixels to tokens, and layer normalization.

    Parameters
    ----------
    width
        Channels of the first stage.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return a map (B, H, W, C) of a fourth of the sides, rounded up."""
        height, width = x_B3HW.shape[2:]
        x_B3HW = F.pad(x_B3HW, (0, -width % PATCH, 0, -height % PATCH))
        return cast("Tensor", self.norm(self.proj(x_B3HW).permute(0, 2, 3, 1)))


class PatchMerge(nn.Module):
    """Four neighbours to one token with twice the channels.

    Parameters
    ----------
    width
        Channels of the stage before.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=EPS)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return a map of half the height and width, rounded up."""
        B, H, W, C = x_BHWC.shape
        x_BHWC = F.pad(x_BHWC, (0, 0, 0, W % 2, 0, H % 2))
        x_BR2S2C = x_BHWC.reshape(B, (H + 1) // 2, 2, (W + 1) // 2, 2, C)
        # Published order of neighbours: down the first column, then down the second.
        x_BRSC = x_BR2S2C.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return cast("Tensor", self.reduction(self.norm(x_BRSC)))


class SwinBlock(nn.Module):
    """One execution: attention within windows, a convolution if asked for, and an MLP.

    Parameters
    ----------
    config
        Settings of the model.
    stage
        Stage 0 to 3.
    number
        Place in the stage; windows of odd ones are shifted.
    """

    def __init__(self, config: SwinConfig, stage: int, number: int) -> None:
        super().__init__()
        width = config.widths[stage]
        windows = Windows(
            side=config.window,
            is_shifted=number % 2 == 1,
            mask_unshifted=config.mask_unshifted,
            mask_padding=config.mask_padding,
        )
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = ShiftedAttention(width, config.num_heads[stage], windows, mixes=config.mixes)
        self.local: LocalMix | None = None
        if config.local != "none":
            self.local = LocalMix(width, config.local_kernel, residual=config.local, eps=EPS)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, config.hidden(stage))
        self.drop_path = DropPath(config.drop_paths[stage][number])

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Keep the shape."""
        x_BHWC = x_BHWC + self.drop_path(self.attn(self.norm1(x_BHWC)))
        if self.local is not None:
            x_BHWC = self.local(x_BHWC)
        return x_BHWC + cast("Tensor", self.drop_path(self.mlp(self.norm2(x_BHWC))))

    def share(self, first: SwinBlock, *, norms: bool) -> None:
        """Hold the weights of another execution from now on.

        Parameters
        ----------
        first
            Execution of the same shapes.
        norms
            Whether to hold its layer normalizations too.
        """
        for name in SHARED + NORMS * norms:
            own, other = self.get_submodule(name), first.get_submodule(name)
            own.weight, own.bias = other.weight, other.bias
        self.attn.relative_position_bias_table = first.attn.relative_position_bias_table


class SwinStage(nn.Module):
    """A merge, but in the first stage, and the blocks after it.

    Parameters
    ----------
    config
        Settings of the model.
    stage
        Stage 0 to 3.
    """

    def __init__(self, config: SwinConfig, stage: int) -> None:
        super().__init__()
        self.downsample = PatchMerge(config.widths[stage - 1]) if stage else nn.Identity()
        self.blocks = nn.Sequential(
            *(SwinBlock(config, stage, number) for number in range(config.depths[stage]))
        )
        first = 0
        for length in config.groups[stage]:
            for number in range(first + 1, first + length):
                one, other = self.blocks[number], self.blocks[first]
                cast("SwinBlock", one).share(cast("SwinBlock", other), norms=not config.own_norms)
            first += length

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return a map of half the sides, rounded up, or of the same in the first stage."""
        return cast("Tensor", self.blocks(self.downsample(x_BHWC)))


class Head(nn.Module):
    """Classification of the mean over tokens.

    Parameters
    ----------
    width
        Channels of the last stage.
    num_classes
        Classes K.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x_BC: Tensor) -> Tensor:
        """Return logits of shape (B, K)."""
        return cast("Tensor", self.fc(x_BC))


class Swin(nn.Module):
    """Hierarchical vision transformer with shifted windows, whose executions may share weights.

    Parameters are named as in timm's ``swin_transformer``. They start with torch's own values, and
    maps over heads at the identity; `initialize` draws the published ones.

    Parameters
    ----------
    config
        Settings, for example one of `SWIN_VARIANTS`.

    Examples
    --------
    >>> model = Swin(SWIN_VARIANTS["mini-t"]).eval()
    >>> [tuple(x.shape) for x in model.pyramid(torch.zeros(1, 3, 224, 224))]
    [(1, 96, 56, 56), (1, 192, 28, 28), (1, 384, 14, 14), (1, 768, 7, 7)]
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        last = config.widths[-1]
        self.patch_embed = PatchEmbed(config.width)
        self.layers = nn.Sequential(*(SwinStage(config, stage) for stage in range(NUM_STAGES)))
        self.norm = nn.LayerNorm(last, eps=EPS)
        self.head = Head(last, config.num_classes)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Classify images.

        Parameters
        ----------
        x_B3HW
            Normalized images of any height and width.

        Returns
        -------
        Logits of shape (B, num_classes).

        Raises
        ------
        ValueError
            If the input has not the shape of images.
        """
        return cast("Tensor", self.head(self.features(x_B3HW)))

    def features(self, x_B3HW: Tensor) -> Tensor:
        """Return the mean over normalized tokens, of shape (B, last width)."""
        return cast("Tensor", self.norm(self._maps(x_B3HW)[-1]).mean((1, 2)))

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
        return [x_BHWC.permute(0, 3, 1, 2) for x_BHWC in self._maps(x_B3HW)]

    def _maps(self, x_B3HW: Tensor) -> list[Tensor]:
        if x_B3HW.dim() != 4 or x_B3HW.shape[1] != 3 or 0 in x_B3HW.shape[2:]:
            raise ValueError(
                f"x_B3HW: expected shape (images, 3, height, width), got {tuple(x_B3HW.shape)}"
            )
        x_BHWC = self.patch_embed(x_B3HW)
        maps = []
        for stage in self.layers:
            x_BHWC = stage(x_BHWC)
            maps.append(x_BHWC)
        return maps

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw new weights as the published code does.

        Linear weights and tables come from N(0, 0.02^2), cut off at two units; filters and shifts
        of patches from the uniform distribution within 1 / sqrt(inputs of an output), torch's usual
        one. Gains are 1 and all else 0. Maps over heads start as ``mix_start`` says, convolutions
        before an MLP as `LocalMix` does.

        Parameters
        ----------
        generator
            Source of randomness; the same state gives the same weights.
        """
        patches = self.patch_embed.proj
        bound = patches.weight[0].numel() ** -0.5
        for weight in patches.parameters():
            weight.uniform_(-bound, bound, generator=generator)
        for name, weight in self.named_parameters():
            if weight.dim() == 2 and ".attend." not in name:
                nn.init.trunc_normal_(weight, std=INIT_STD, generator=generator)
            elif weight.dim() == 1 and name != "patch_embed.proj.bias":
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for module in self.modules():
            if isinstance(module, HeadMix) and self.config.mix_start == "identity":
                nn.init.eye_(module.weight)
            elif isinstance(module, HeadMix | LocalMix):
                module.initialize(generator)
