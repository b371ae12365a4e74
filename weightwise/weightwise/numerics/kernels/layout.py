"""How a pair of tensors lies in memory, seen from the groups that share a scale."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from weightwise.numerics.scaling import ScaledFormat


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A pair of dense tensors as arrays of shape (outer, length, inner) in the order of memory.

    Parameters
    ----------
    x, out
        The tensors with their dimensions merged.
    size
        Elements of a block along ``length``.
    is_tensor
        One group over everything.
    """

    x: Tensor
    out: Tensor
    size: int
    is_tensor: bool


def arrange(x: Tensor, out: Tensor, fmt: ScaledFormat, axis: int, *, keep_order: bool) -> Layout:
    """Merge the dimensions before and behind the axis, in the order in which they lie in memory."""
    strides = x.stride()
    order = sorted(range(x.dim()), key=lambda dim: (-strides[dim], dim))
    x_ordered, out_ordered = x.permute(order), out.permute(order)
    is_dense = x_ordered.is_contiguous() and out_ordered.is_contiguous()
    if not is_dense or (keep_order and order != sorted(order)):
        x_ordered = x.contiguous()
        out_ordered = out if out.is_contiguous() else torch.empty_like(x_ordered)
        order = list(range(x.dim()))
    is_tensor = fmt.scaling.granularity == "tensor" or x.dim() == 0
    at = 0 if is_tensor else order.index(axis % x.dim())
    shape = x_ordered.shape
    merged = (
        (1, x.numel(), 1) if is_tensor else (prod(shape[:at]), shape[at], prod(shape[at + 1 :]))
    )
    size = min(fmt.scaling.block_size or merged[1], merged[1])
    if merged[2] == 1 and merged[1] % size == 0:
        merged = (x.numel() // size, size, 1)
    return Layout(
        x=x_ordered.reshape(merged), out=out_ordered.reshape(merged), size=size,
        is_tensor=is_tensor,
    )  # fmt: skip
