"""Products of a stack of matrices with rows in blocks, in 8 bits: what experts do.

The arithmetic is that of `weightwise.numerics.fp8_linear`, with one scale for all rows and one for
all matrices of the stack. Matrices whose block is empty are not read, and their gradient is zero.
"""

# Shapes: R rows, those of the first matrix first; S matrices, I features in, O features out

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from weightwise.numerics.fp8_linear import (
    E4M3,
    E5M2,
    Fp8Config,
    Scaler,
    product,
    weight_in_8_bits,
)
from weightwise.numerics.scaled_tensor import ScaledTensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Fp8Stack(nn.Module):
    """Multiplies blocks of rows with one matrix each, in 8 bits; the matrices are the caller's.

    Parameters
    ----------
    config
        How; of delayed scales their history is kept here.
    """

    def __init__(self, config: Fp8Config | None = None) -> None:
        super().__init__()
        self.config = config or Fp8Config()
        self.input_scaler = Scaler(self.config, E4M3)
        self.gradient_scaler = Scaler(self.config, E5M2)

    def forward(self, x_RI: Tensor, stack_SOI: Tensor, counts: Sequence[int]) -> Tensor:
        """Products.

        Parameters
        ----------
        x_RI
            Rows, those of the first matrix first.
        stack_SOI
            Matrices: float32, bfloat16, float16 or a `ScaledTensor`.
        counts
            Rows of each matrix.

        Returns
        -------
        Tensor
            Shape (R, O), in the type of the rows.
        """
        y_RO: Tensor = _StackProduct.apply(  # type: ignore[no-untyped-call]
            x_RI, stack_SOI, counts, self.input_scaler, self.gradient_scaler
        )
        return y_RO


class _StackProduct(torch.autograd.Function):
    """The three products of every block."""

    @staticmethod
    def forward(
        ctx: Any, x_RI: Tensor, stack_SOI: Tensor, counts: Sequence[int], x_scaler: Scaler,
        dy_scaler: Scaler,
    ) -> Tensor:  # fmt: skip
        x8_RI = x_scaler.cast(x_RI)
        w8_SOI = weight_in_8_bits(stack_SOI, x_scaler)
        ctx.save_for_backward(x8_RI.payload, x8_RI.scale, w8_SOI.payload, w8_SOI.scale)
        ctx.dy_scaler, ctx.counts = dy_scaler, counts
        ctx.dtype, ctx.weight_dtype = x_RI.dtype, stack_SOI.dtype
        y_RO = x_RI.new_empty(len(x_RI), stack_SOI.shape[1])
        for place, rows in _blocks(counts):
            y_RO[rows] = product(_part(x8_RI, rows), _part(w8_SOI, place), x_RI.dtype, is_fast=True)
        return y_RO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_RO: Tensor) -> tuple[Tensor | None, ...]:
        x_payload, x_scale, w_payload, w_scale = ctx.saved_tensors
        nothing = x_scale.new_zeros(())
        dy8_RO = ctx.dy_scaler.cast(dy_RO)
        x8_RI = ScaledTensor(x_payload, x_scale, nothing)
        w8_SOI = ScaledTensor(w_payload, w_scale, nothing)
        dx_RI = dw_SOI = None
        if ctx.needs_input_grad[0]:
            dx_RI = dy_RO.new_empty(x_payload.shape, dtype=ctx.dtype)
        if ctx.needs_input_grad[1]:
            dw_SOI = dy_RO.new_zeros(w_payload.shape, dtype=ctx.weight_dtype)
        for place, rows in _blocks(ctx.counts):
            dy8_BO = _part(dy8_RO, rows)
            if dx_RI is not None:
                w8_IO = _part(w8_SOI, place).t()
                dx_RI[rows] = product(dy8_BO, w8_IO, ctx.dtype, is_fast=False)
            if dw_SOI is not None:
                x8_IB = _part(x8_RI, rows).t()
                dw_SOI[place] = product(dy8_BO.t(), x8_IB, ctx.weight_dtype, is_fast=False)
        return dx_RI, dw_SOI, None, None, None


def _blocks(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Number of every matrix that has rows, and the rows."""
    end = 0
    for place, count in enumerate(counts):
        if count:
            yield place, slice(end, end + count)
            end += count


def _part(x: ScaledTensor, index: int | slice) -> ScaledTensor:
    """A part under the scale of the whole."""
    return ScaledTensor(x.payload[index], x.scale, x.amax)
