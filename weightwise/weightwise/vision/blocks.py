"""Parts of TinyViT (Wu et al., arXiv 2207.10666, section 3.2): stem, blocks and merges.

Maps are (B, C, H, W) for convolutions and (B, H, W, C) for attention. With torch's channels-last
memory format, which the model works in, one is a view of the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch.nn.functional as F
from torch import nn

from weightwise.vision.attention import WindowAttention
from weightwise.vision.layers import ConvNorm, Dense, DropPath

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.vision.config import TinyViTConfig


class Stem(nn.Module):
    """Two convolutions of stride 2, with an activation between them only.

    Parameters
    ----------
    width
        Channels of the first stage.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, width // 2, 3, stride=2, gelu=True)
        self.conv2 = ConvNorm(width // 2, width, 3, stride=2)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return a map of a fourth of the height and width, rounded up."""
        return cast("Tensor", self.conv2(self.conv1(x_B3HW)))


class MBConv(nn.Module):
    """Inverted residual block whose last activation comes after the addition.

    Parameters
    ----------
    width, hidden
        Outer and inner channels.
    drop_path
        See `DropPath`.
    """

    def __init__(self, width: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, hidden, gelu=True)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden, gelu=True)
        self.conv3 = ConvNorm(hidden, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Keep the shape."""
        branch_BCHW = self.conv3(self.conv2(self.conv1(x_BCHW)))
        return F.gelu(x_BCHW + self.drop_path(branch_BCHW))


class Merge(nn.Module):
    """Three convolutions that halve the map and change its channels.

    Parameters
    ----------
    inputs, outputs
        Channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, gelu=True)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride=2, groups=outputs, gelu=True)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a map of half the height and width, rounded up."""
        return cast("Tensor", self.conv3(self.conv2(self.conv1(x_BCHW))))


class MLP(nn.Module):
    """Layer normalization and two linear layers with an activation between them.

    Parameters
    ----------
    width, hidden
        Outer and inner channels.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = Dense(width, hidden, gelu=True)
        self.fc2 = Dense(hidden, width)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Keep the shape."""
        return cast("Tensor", self.fc2(self.fc1(self.norm(x_BHWC))))


class AttentionBlock(nn.Module):
    """Attention, a depthwise convolution over the whole map, and an MLP.

    The convolution connects the windows; it has neither residual nor activation.

    Parameters
    ----------
    config
        Settings of the model.
    stage
        Stage 1 to 3, counted from 0.
    drop_path
        See `DropPath`; the two branches draw apart.
    """

    def __init__(self, config: TinyViTConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        width = config.widths[stage]
        self.attn = WindowAttention(
            width,
            config.num_heads[stage - 1],
            config.windows[stage - 1],
            mask_padding=config.mask_padding,
        )
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = MLP(width, config.hidden(stage))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Keep the shape."""
        x_BHWC = x_BHWC + self.drop_path(self.attn(x_BHWC))
        x_BHWC = self.local_conv(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x_BHWC + cast("Tensor", self.drop_path(self.mlp(x_BHWC)))


class ConvStage(nn.Module):
    """The first stage: `MBConv` blocks.

    Parameters
    ----------
    config
        Settings of the model.
    """

    def __init__(self, config: TinyViTConfig) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(MBConv(config.widths[0], config.hidden(0), rate) for rate in config.drop_paths[0])
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Keep the shape."""
        return cast("Tensor", self.blocks(x_BCHW))


class AttentionStage(nn.Module):
    """A merge and the `AttentionBlock` blocks after it.

    Parameters
    ----------
    config
        Settings of the model.
    stage
        Stage 1 to 3, counted from 0.
    """

    def __init__(self, config: TinyViTConfig, stage: int) -> None:
        super().__init__()
        self.downsample = Merge(*config.widths[stage - 1 : stage + 1])
        self.blocks = nn.Sequential(
            *(AttentionBlock(config, stage, rate) for rate in config.drop_paths[stage])
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a map of half the height and width, rounded up."""
        x_BHWC = self.downsample(x_BCHW).permute(0, 2, 3, 1)
        return cast("Tensor", self.blocks(x_BHWC)).permute(0, 3, 1, 2)
