"""Linear layers cut over processes, with 8-bit products and activations (arXiv 2310.18313, 2.3).

Between a region whose tokens are spread over processes (norms, dropout) and one whose features are
(a pair of linear layers), activations are cast to 8 bits before they travel:

    `ColumnParallel`   tokens are gathered as E4M3 bytes, with one scale for all processes, and
                       multiplied with this process's output features
    `RowParallel`      products with this process's input features are added up and spread over
                       tokens again, in the type of the activations

In the backward pass the same stands the other way round: the input is gathered again from its
bytes while the gradient's product runs, and gradients of it are summed in 16 bits. The paper's
sentence has them in 8 bits; its table of volumes and its code have 16. ``reduce="e5m2"`` sends
them in 8, which is an experiment.
"""

# Shapes: N processes, T tokens of all, S = T / N of this one, I features in, O features out

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from weightwise.distributed.fp8_sum import layout_of, sum_codes
from weightwise.numerics.fp8_linear import product
from weightwise.numerics.scaled_tensor import ScaledTensor, amax_of
from weightwise.numerics.stored import LARGEST, power_of_two_scale

if TYPE_CHECKING:
    from collections.abc import Callable

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
Reduce = Literal["same", "e5m2"]


def shared_cast(x: Tensor, dtype: torch.dtype, group: dist.ProcessGroup) -> ScaledTensor:
    """8 bits with one scale for the tensors of all processes."""
    amax = amax_of(x)
    dist.all_reduce(amax, dist.ReduceOp.MAX, group=group)
    scale = power_of_two_scale(amax, LARGEST[dtype])
    return ScaledTensor.of(x, dtype, scale=scale, amax=amax)


def gather_rows(x_SI: ScaledTensor, group: dist.ProcessGroup) -> tuple[ScaledTensor, dist.Work]:
    """Rows of all processes one below the other, a byte an element.

    Returns
    -------
    tuple
        The matrix of shape (T, I), and what to wait for before it is read.
    """
    rows, columns = x_SI.shape
    payload = x_SI.payload.contiguous()
    out = torch.empty(rows * group.size(), columns, dtype=torch.uint8, device=x_SI.device)
    work = dist.all_gather_into_tensor(out, payload.view(torch.uint8), group=group, async_op=True)
    assert work is not None
    return ScaledTensor(out.view(payload.dtype), x_SI.scale, x_SI.amax, x_SI.dtype), work


def sum_rows(x_TO: Tensor, group: dist.ProcessGroup, reduce: Reduce) -> Callable[[], Tensor]:
    """Begin to add matrices of all processes up; each gets its stretch of rows of the sum.

    Returns
    -------
    callable
        Waits, and gives the rows of shape (S, O).
    """
    rows = x_TO.shape[0] // group.size()
    if reduce == "e5m2":
        made = shared_cast(x_TO.contiguous(), E5M2, group)
        layout = layout_of([x_TO.numel()], group.size())
        found = sum_codes(made.payload.reshape(-1), made.scale.reshape(1), layout, group, "exact")
        whole = ScaledTensor(found.codes.view(x_TO.shape), found.scales[0], found.amaxes[0])
        first = dist.get_rank(group) * rows
        return lambda: whole.decode(x_TO.dtype)[first : first + rows]
    out = x_TO.new_empty(rows, *x_TO.shape[1:])
    work = dist.reduce_scatter_tensor(out, x_TO.contiguous(), group=group, async_op=True)

    def wait() -> Tensor:
        assert work is not None
        work.wait()
        return out

    return wait


class _Column(torch.autograd.Function):
    """Gather 8-bit rows, multiply with a part of the output features."""

    @staticmethod
    def forward(
        ctx: Any, x_SI: Tensor, weight_OI: Tensor, group: dist.ProcessGroup, reduce: Reduce
    ) -> Tensor:
        x8_SI = shared_cast(x_SI, E4M3, group)
        x8_TI, work = gather_rows(x8_SI, group)
        w8_OI = ScaledTensor.of(weight_OI.detach(), E4M3)
        work.wait()
        ctx.save_for_backward(x8_SI.payload, x8_SI.scale, w8_OI.payload, w8_OI.scale)
        ctx.group, ctx.reduce = group, reduce
        ctx.dtype, ctx.weight_dtype = x_SI.dtype, weight_OI.dtype
        return product(x8_TI, w8_OI, x_SI.dtype, is_fast=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TO: Tensor) -> tuple[Tensor | None, ...]:
        x_payload, x_scale, w_payload, w_scale = ctx.saved_tensors
        nothing = x_scale.new_zeros(())
        x8_TI, gathered = gather_rows(ScaledTensor(x_payload, x_scale, nothing), ctx.group)
        dy8_TO = ScaledTensor.of(dy_TO.contiguous(), E5M2)
        w8_IO = ScaledTensor(w_payload.t(), w_scale, nothing)
        dx_TI = product(dy8_TO, w8_IO, ctx.dtype, is_fast=False)
        gathered.wait()
        wait = sum_rows(dx_TI, ctx.group, ctx.reduce)
        dw_OI = product(dy8_TO.t(), x8_TI.t(), ctx.weight_dtype, is_fast=False)
        return wait(), dw_OI, None, None


class _Row(torch.autograd.Function):
    """Multiply with a part of the input features, add up and spread over tokens."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, weight_OI: Tensor, group: dist.ProcessGroup, reduce: Reduce
    ) -> Tensor:
        del reduce
        x8_TI = ScaledTensor.of(x_TI.contiguous(), E4M3)
        w8_OI = ScaledTensor.of(weight_OI.detach(), E4M3)
        ctx.save_for_backward(x8_TI.payload, x8_TI.scale, w8_OI.payload, w8_OI.scale)
        ctx.group, ctx.dtype, ctx.weight_dtype = group, x_TI.dtype, weight_OI.dtype
        return sum_rows(product(x8_TI, w8_OI, x_TI.dtype, is_fast=True), group, "same")()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_SO: Tensor) -> tuple[Tensor | None, ...]:
        x_payload, x_scale, w_payload, w_scale = ctx.saved_tensors
        nothing = x_scale.new_zeros(())
        dy8_TO, gathered = gather_rows(shared_cast(dy_SO.contiguous(), E5M2, ctx.group), ctx.group)
        gathered.wait()
        dx_TI = product(dy8_TO, ScaledTensor(w_payload.t(), w_scale, nothing), ctx.dtype, False)
        x8_IT = ScaledTensor(x_payload.t(), x_scale, nothing)
        return dx_TI, product(dy8_TO.t(), x8_IT, ctx.weight_dtype, False), None, None


class _Parallel(nn.Module):
    """A part of a linear layer's weight."""

    function: type[torch.autograd.Function]

    def __init__(self, weight: Tensor, group: dist.ProcessGroup, reduce: Reduce = "same") -> None:
        super().__init__()
        if reduce not in ("same", "e5m2"):
            raise ValueError(f"reduce: expected same or e5m2, got {reduce!r}")
        self.weight = nn.Parameter(weight)
        self.group, self.reduce = group, reduce

    def forward(self, x: Tensor) -> Tensor:
        """Output of shape (tokens, features)."""
        found: Tensor = self.function.apply(x, self.weight, self.group, self.reduce)
        return found


class ColumnParallel(_Parallel):
    """Output features over processes: (S, I) of this process to (T, O / N).

    Parameters
    ----------
    weight
        This process's rows of the weight, shape (O / N, I); see `column_part`.
    group
        The processes.
    reduce
        What gradients of the input travel in, ``"same"`` as the activations or ``"e5m2"``.
    """

    function = _Column


class RowParallel(_Parallel):
    """Input features over processes: (T, I / N) to (S, O) of this process.

    Parameters
    ----------
    weight
        This process's columns of the weight, shape (O, I / N); see `row_part`.
    group, reduce
        As in `ColumnParallel`; gradients of the output travel in E5M2 in any case.
    """

    function = _Row


def column_part(weight_OI: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Output features of a weight that this process has.

    Raises
    ------
    ValueError
        If they do not split evenly over the processes.
    """
    return _part(weight_OI, 0, group)


def row_part(weight_OI: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Input features of a weight that this process has; errors as in `column_part`."""
    return _part(weight_OI, 1, group)


def _part(weight: Tensor, axis: int, group: dist.ProcessGroup) -> Tensor:
    size = group.size()
    if weight.shape[axis] % size:
        raise ValueError(
            f"weight: expected axis {axis} to be a multiple of {size} processes, got "
            f"{weight.shape[axis]}"
        )
    return weight.detach().chunk(size, axis)[dist.get_rank(group)].clone()
