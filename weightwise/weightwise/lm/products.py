"""Float32 matrix products on CPUs that are faster than `torch.mm`.

torch hands float32 products to the BLAS that it was built with, which does not use all of every
processor; its other library, oneDNN, which it takes for bfloat16, does (on an AMD EPYC with
AVX-512 it is twice as fast). For a few rows any of them waits for itself: a loop that goes once
over the weights is as fast as they come from memory, see `weightwise.lm.few_rows`.
"""

# Shapes: R rows, K columns that are summed over, N columns of the result

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from weightwise.lm.spread import is_spread
from weightwise.numerics import ScaledTensor

FEW_ROWS = 64  # of one matrix; up to here our own loop is the fastest
LEAST_ELEMENTS = 1 << 17  # of weights, below which no other way than torch's pays


def product(x_RK: Tensor, weight_NK: Tensor) -> Tensor:
    """Product of a matrix with the transpose of another; without a gradient.

    Parameters
    ----------
    x_RK, weight_NK
        Matrices of one type; transposed views are fine.
    """
    return _fast_product(x_RK, weight_NK) if is_fast(x_RK, weight_NK) else x_RK @ weight_NK.T


def _fast_product(x_RK: Tensor, weight_NK: Tensor) -> Tensor:
    if x_RK.shape[0] <= FEW_ROWS and x_RK.is_contiguous() and weight_NK.is_contiguous():
        from weightwise.lm.few_rows import products  # the compiler takes a second to import

        return products(x_RK, weight_NK.unsqueeze(0), [x_RK.shape[0]])
    out_RN: Tensor = torch.ops.mkldnn._linear_pointwise(x_RK, weight_NK, None, "none", [], "")
    return out_RN


def is_fast(x_RK: Tensor, weight: Tensor) -> bool:
    """Whether there is a faster way than torch's for these rows and weights."""
    return (
        x_RK.dtype == weight.dtype == torch.float32
        and x_RK.device.type == "cpu"
        and weight.numel() >= LEAST_ELEMENTS
        and not isinstance(weight, ScaledTensor)
        and x_RK.numel() > 0
        and torch.backends.mkldnn.is_available()
    )


class _Linear(torch.autograd.Function):
    """The product with its gradient."""

    @staticmethod
    def forward(ctx: Any, x_RK: Tensor, weight_NK: Tensor) -> Tensor:
        ctx.save_for_backward(x_RK, weight_NK)
        return product(x_RK, weight_NK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_RN: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_RK, weight_NK = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        dx_RK = product(dy_RN, weight_NK.T) if needs_x else None
        return dx_RK, product(dy_RN.T, x_RK.T) if needs_weight else None


def linear(x: Tensor, weight_NK: Tensor) -> Tensor:
    """`torch.nn.functional.linear` without a bias, faster for large float32 matrices on CPUs.

    Parameters
    ----------
    x
        Shape (..., K).
    weight_NK
        Weights.
    """
    is_either_spread = is_spread(weight_NK) or is_spread(x)
    if is_either_spread or torch.is_autocast_enabled(x.device.type) or not is_fast(x, weight_NK):
        return F.linear(x, weight_NK)
    x_RK = x.reshape(-1, x.shape[-1])
    if not torch.is_grad_enabled():
        return _fast_product(x_RK, weight_NK).view(*x.shape[:-1], -1)
    out_RN: Tensor = _Linear.apply(x_RK, weight_NK)  # type: ignore[no-untyped-call]
    return out_RN.view(*x.shape[:-1], -1)


def project(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer, in a faster way if it is a plain `torch.nn.Linear` without a bias."""
    if is_plain(layer):
        return linear(x, layer.weight)  # type: ignore[arg-type]
    out: Tensor = layer(x)
    return out


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a product with its weights and nothing else."""
    has_bias = getattr(layer, "bias", None) is not None
    return type(layer) is nn.Linear and not has_bias and not layer._forward_hooks


def takes_few_rows(x: Tensor, *layers: nn.Module) -> bool:
    """Whether compiled code can apply plain layers together to the rows of ``x``, if few."""
    return (
        not torch.is_grad_enabled()
        and x.shape[:-1].numel() <= FEW_ROWS
        and not torch.is_autocast_enabled(x.device.type)
        and all(
            is_plain(layer)
            and type(layer.weight) is nn.Parameter
            and is_fast(x, layer.weight)
            and layer.weight.is_contiguous()
            for layer in layers
        )
    )
