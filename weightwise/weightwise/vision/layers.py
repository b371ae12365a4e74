"""Convolutions and linear layers of TinyViT, each with the activation that may follow it.

Layer and activation are one module because an inference copy computes them in one pass, see
`weightwise.vision.fuse`. Names of parameters are those of timm's ``tiny_vit``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalization, and GELU if asked for.

    Parameters
    ----------
    inputs, outputs
        Channels.
    kernel
        Side of the kernel, odd; the border is padded so that stride 1 keeps the map's size.
    stride
        Step of the convolution.
    groups
        Groups of channels that see only each other.
    gelu
        Whether the exact (erf) GELU follows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        gelu: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs)
        self.gelu = gelu

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a map of shape (B, outputs, ceil(H / stride), ceil(W / stride))."""
        x_BCHW = self.bn(self.conv(x_BCHW))
        return F.gelu(x_BCHW) if self.gelu else x_BCHW


class Dense(nn.Linear):
    """Linear layer with bias, and GELU if asked for.

    Parameters
    ----------
    inputs, outputs
        Channels.
    gelu
        Whether the exact (erf) GELU follows.
    """

    def __init__(self, inputs: int, outputs: int, *, gelu: bool = False) -> None:
        super().__init__(inputs, outputs)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis."""
        x = super().forward(x)
        return F.gelu(x) if self.gelu else x


class DropPath(nn.Module):
    """Leave a branch out for a random share of the images (Huang et al., arXiv 1603.09382).

    What is kept is divided by the share kept, so that the mean stays. The draws come from torch's
    own generator of the device, like those of `torch.nn.Dropout`: it is the one that a backward
    pass which computes activations again puts back.

    Parameters
    ----------
    rate
        Share left out in training, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with images, along the first axis, set to 0 or scaled up."""
        if not self.training or self.rate == 0.0:
            return x
        kept = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return x * (x.new_empty(shape).bernoulli_(kept) / kept)

    def extra_repr(self) -> str:
        """Say the rate in the printed model."""
        return f"rate={self.rate:g}"


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them.

    Parameters
    ----------
    width, hidden
        Outer and inner channels.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Dense(width, hidden, gelu=True)
        self.fc2 = Dense(hidden, width)

    def forward(self, x_XC: Tensor) -> Tensor:
        """Map tokens, of any number of axes before their channels; the shape is kept."""
        return cast("Tensor", self.fc2(self.fc1(x_XC)))
