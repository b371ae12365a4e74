"""A copy of a model for inference: batch normalization folded, activations in the same pass.

Folding multiplies a convolution's filters by ``gain / sqrt(variance + eps)`` and gives it the bias
``shift - mean gain / sqrt(variance + eps)``, so that it computes what both did.

On CPUs a large part of what is left is memory traffic: an activation reads and writes a map that
the product before it has just written. oneDNN, which torch multiplies with, can apply the
activation to a tile while it is in the cache; torch's compiler reaches it through operators that
work without the compiler too. They have no gradients and no counterpart in exported programs:
then, and on other devices and types, the plain layers below are what runs.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.vision.layers import ConvNorm, Dense

if TYPE_CHECKING:
    from weightwise.vision.tiny_vit import TinyViT

HAS_ONEDNN = torch.backends.mkldnn.is_available()


class FoldedConv(nn.Conv2d):
    """Convolution with a folded normalization, for inference.

    Parameters
    ----------
    layer
        What it replaces, with the running statistics to fold.
    """

    def __init__(self, layer: ConvNorm) -> None:
        conv, norm = layer.conv, layer.bn
        side, stride = conv.kernel_size[0], conv.stride[0]
        super().__init__(
            conv.in_channels, conv.out_channels, side, stride, side // 2,
            groups=conv.groups, device="meta",
        )  # fmt: skip
        assert norm.running_var is not None and norm.running_mean is not None
        # In float64, so that the product is rounded once.
        gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = conv.weight.double() * gain[:, None, None, None]
        bias = norm.bias.double() - norm.running_mean.double() * gain
        self.weight = nn.Parameter(weight.to(conv.weight.dtype))
        self.bias = nn.Parameter(bias.to(conv.weight.dtype))
        self.gelu = layer.gelu

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a map of shape (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if _has_one_pass(x_BCHW, self.weight):
            one_pass = torch.ops.mkldnn._convolution_pointwise(
                x_BCHW, self.weight, self.bias, self.padding, self.stride, self.dilation,
                self.groups, *_attribute(self.gelu),
            )  # fmt: skip
            return cast("Tensor", one_pass)
        x_BCHW = super().forward(x_BCHW)
        return F.gelu(x_BCHW) if self.gelu else x_BCHW


class FoldedDense(Dense):
    """Linear layer with its activation in the same pass, for inference.

    Parameters
    ----------
    layer
        What it replaces.
    """

    def __init__(self, layer: Dense) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias, self.gelu = layer.weight, layer.bias, layer.gelu

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis."""
        if _has_one_pass(x, self.weight):
            one_pass = torch.ops.mkldnn._linear_pointwise(
                x, self.weight, self.bias, *_attribute(self.gelu)
            )
            return cast("Tensor", one_pass)
        return super().forward(x)


def fuse(model: TinyViT) -> TinyViT:
    """Copy a model for inference.

    Parameters
    ----------
    model
        Any model; it stays as it is.

    Returns
    -------
    A model in evaluation mode whose parameters ask for no gradients. It has other parameters than
    the one given, so it cannot be saved as a checkpoint.
    """
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    for name, module in list(fused.named_modules()):
        parent, _, child = name.rpartition(".")
        if isinstance(module, ConvNorm):
            setattr(fused.get_submodule(parent), child, FoldedConv(module).requires_grad_(False))
        elif isinstance(module, Dense):
            setattr(fused.get_submodule(parent), child, FoldedDense(module))
    return fused.eval()


def _attribute(gelu: bool) -> tuple[str, list[float], str]:
    """Names of the activation and of its formula, as oneDNN's operators want them."""
    return ("gelu", [], "none") if gelu else ("none", [], "")


def _has_one_pass(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and HAS_ONEDNN
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
