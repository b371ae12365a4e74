"""The matrix products of experts whose rows are sorted: one block of rows for each expert.

On GPUs all blocks go through one grouped product. On CPUs they come one after the other, so that
the rows of a block are still in the cache for its second product; experts without rows are not
read. The gradient is written out for CPUs: automatic differentiation would make a tensor as large
as all experts for each that is used. Here every product goes right to its place in one gradient
of the stack, and what came out of the first products is all that is kept for it.

Weights of another type than the rows are converted expert by expert, those that are used.
"""

# Shapes: E experts, D model width, F inner width (2 F for gate and up together), R rows

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from weightwise.lm.products import FEW_ROWS, is_fast, product
from weightwise.numerics import ScaledTensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def answers(x_RD: Tensor, gate_up: Tensor, down: Tensor, count_E: Tensor) -> Tensor:
    """Let each expert answer its rows: down (silu(gate x) * (up x)).

    Parameters
    ----------
    x_RD
        Rows, those of the first expert first.
    gate_up, down
        Stacked weights, shapes (E, 2 F, D) and (E, D, F).
    count_E
        Rows of each expert.

    Returns
    -------
    Tensor
        Shape (R, D), in the type of the products: that of the rows, or autocast's.
    """
    kind = x_RD.device.type
    if torch.is_autocast_enabled(kind) and x_RD.dtype != torch.float64:
        x_RD = x_RD.to(torch.get_autocast_dtype(kind))
    if kind == "cuda":
        return grouped_answers(x_RD, gate_up, down, count_E)
    counts = count_E.tolist()
    if torch.is_grad_enabled():
        answer_RD: Tensor = BlockAnswers.apply(  # type: ignore[no-untyped-call]
            x_RD, gate_up, down, counts
        )
        return answer_RD
    busy = sum(count > 0 for count in counts)
    is_dense = all(a.is_contiguous() for a in (x_RD, gate_up, down))
    if len(x_RD) <= FEW_ROWS * busy and is_dense and is_fast(x_RD, gate_up) and is_fast(x_RD, down):
        return _few_answers(x_RD, gate_up, down, counts)
    return _forward(x_RD, _matrices(x_RD, gate_up, down, counts), counts)


def grouped_answers(x_RD: Tensor, gate_up: Tensor, down: Tensor, count_E: Tensor) -> Tensor:
    """The same by two grouped products, in the type of the rows; parameters as of `answers`."""
    end_E = count_E.cumsum(0).to(torch.int32)
    first, second = gate_up.to(x_RD.dtype), down.to(x_RD.dtype)
    gate_RF, up_RF = F.grouped_mm(x_RD, first.transpose(1, 2), offs=end_E).chunk(2, dim=-1)
    return F.grouped_mm(F.silu(gate_RF) * up_RF, second.transpose(1, 2), offs=end_E)


class BlockAnswers(torch.autograd.Function):
    """The same block by block, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x_RD: Tensor, gate_up: Tensor, down: Tensor, counts: Sequence[int]
    ) -> Tensor:
        """Answers, shape (R, D)."""
        matrices = _matrices(x_RD, gate_up, down, counts)
        kept: list[Tensor] = []
        answer_RD = _forward(x_RD, matrices, counts, kept)
        ctx.save_for_backward(x_RD, *kept, *chain.from_iterable(matrices))
        ctx.counts = counts
        ctx.stacks = tuple((stack.shape, stack.dtype) for stack in (gate_up, down))
        return answer_RD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_RD: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of rows and stacks, as far as they are needed."""
        x_RD, *rest = ctx.saved_tensors
        blocks = list(_blocks(ctx.counts))
        kept, matrices = rest[: len(blocks)], rest[len(blocks) :]
        dx_RD = torch.empty_like(x_RD) if ctx.needs_input_grad[0] else None
        d_gate_up, d_down = (
            _gradient(shape, dtype, ctx.counts) if is_needed else None
            for (shape, dtype), is_needed in zip(ctx.stacks, ctx.needs_input_grad[1:3], strict=True)
        )
        for (expert, rows), both_RF, gate_up_FD, down_DF in zip(
            blocks, kept, matrices[::2], matrices[1::2], strict=True
        ):
            gate_RF, up_RF = both_RF.chunk(2, dim=-1)
            silu_RF = F.silu(gate_RF)
            if d_down is not None:
                _multiply(dy_RD[rows].T, (silu_RF * up_RF).T, d_down[expert])
            d_gated_RF = product(dy_RD[rows], down_DF.T)
            d_both_RF = torch.empty_like(both_RF)
            d_gate_RF, d_up_RF = d_both_RF.chunk(2, dim=-1)
            torch.mul(d_gated_RF, silu_RF, out=d_up_RF)
            torch.ops.aten.silu_backward.grad_input(
                d_gated_RF.mul_(up_RF), gate_RF, grad_input=d_gate_RF
            )
            if d_gate_up is not None:
                _multiply(d_both_RF.T, x_RD[rows].T, d_gate_up[expert])
            if dx_RD is not None:
                _multiply(d_both_RF, gate_up_FD.T, dx_RD[rows])
        return dx_RD, d_gate_up, d_down, None


def _forward(
    x_RD: Tensor,
    matrices: Sequence[tuple[Tensor, Tensor]],
    counts: Sequence[int],
    kept: list[Tensor] | None = None,
) -> Tensor:
    """Answers; ``kept`` takes what came out of the first products."""
    answer_RD = torch.empty_like(x_RD)
    for (_, rows), (gate_up_FD, down_DF) in zip(_blocks(counts), matrices, strict=True):
        both_RF = product(x_RD[rows], gate_up_FD)
        gate_RF, up_RF = both_RF.chunk(2, dim=-1)
        if kept is not None:
            kept.append(both_RF)
        gated_RF = F.silu(gate_RF, inplace=kept is None).mul_(up_RF)
        _multiply(gated_RF, down_DF, answer_RD[rows])
    return answer_RD


def _few_answers(x_RD: Tensor, gate_up: Tensor, down: Tensor, counts: Sequence[int]) -> Tensor:
    """Answers as fast as the weights come from memory."""
    from weightwise.lm.few_rows import products  # the compiler takes a second to import

    gate_RF, up_RF = products(x_RD, gate_up, counts).chunk(2, dim=-1)
    return products(F.silu(gate_RF).mul_(up_RF), down, counts)


def _blocks(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Number and rows of every expert that has any."""
    end = 0
    for expert, count in enumerate(counts):
        if count:
            yield expert, slice(end, end + count)
            end += count


def _matrices(
    x_RD: Tensor, gate_up: Tensor, down: Tensor, counts: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """Weights of every expert that has rows, in their type."""
    return [
        (_plain(gate_up[expert], x_RD.dtype), _plain(down[expert], x_RD.dtype))
        for expert, _ in _blocks(counts)
    ]


def _plain(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.decode(dtype) if isinstance(weight, ScaledTensor) else weight.to(dtype)


def _gradient(shape: torch.Size, dtype: torch.dtype, counts: Sequence[int]) -> Tensor:
    """Room for the gradient of a stack, zero for experts without rows."""
    gradient = torch.empty(shape, dtype=dtype)
    for expert, count in enumerate(counts):
        if not count:
            gradient[expert].zero_()
    return gradient


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Product of one matrix with the transpose of another, into its place."""
    if out.dtype == left.dtype and not is_fast(left, right):
        torch.mm(left, right.T, out=out)
    else:
        out.copy_(product(left, right))
