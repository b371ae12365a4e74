"""The rows behind `soft_cross_entropy`: an obvious reference, and compiled loops for CPUs.

The loops read a row of logits three times while it is in the cache, for the largest, the sums and
the gradient, and write the gradient; nothing else of C classes goes through memory.
"""

# Shapes: B batch, C classes, M entries of a target

from __future__ import annotations

from math import ceil, log
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from torch import Tensor

from weightwise.numerics.kernels.cpu import shared
from weightwise.numerics.kernels.team import LEAST_SHARED
from weightwise.numerics.kernels.vectors import float_of, larger, magnitude_bits

if TYPE_CHECKING:
    from collections.abc import Callable

F32, I32 = np.float32, np.int32
BLOCK = 1024  # elements summed in float32; sums of blocks are in float64
CONVERTED = 1 << 16  # elements of 16-bit logits that are widened at a time: they fit a cache
LOG2_E = F32(1 / log(2))
# log(2) in two parts: the upper one has few bits, so that its product with a whole number is exact.
LOG_2_UPPER, LOG_2_LOWER = F32(0.693359375), F32(log(2) - 0.693359375)
ROUNDER = F32(1.5 * 2**23)  # adding it rounds to whole numbers, which then are the lowest bits
LEAST = F32(-87)  # exp of less is below the smallest normal number
SIXTH, ONE_24TH, ONE_120TH = F32(1 / 6), F32(1 / 24), F32(1 / 120)
ONE_720TH, ONE_5040TH = F32(1 / 720), F32(1 / 5040)

# Sums may be split over lanes; elsewhere only products and sums may be one instruction.
summing: Any = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"}
)
compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


def loss_of(
    logits_BC: Tensor, index_BM: Tensor, excess_BM: Tensor, floor_B: Tensor, sharpness: float
) -> tuple[Tensor, Tensor]:
    """Loss of each row, and what its gradient needs: largest logits, sums of exponentials."""
    way = _compiled_loss if can_compile(logits_BC) else reference_loss
    return way(logits_BC, index_BM, excess_BM, floor_B, sharpness)


def excess_of(value_BK: Tensor, others: int, *, is_uniform: bool) -> tuple[Tensor, Tensor]:
    """Excesses and floors in one call, of float32 probabilities on a CPU: a batch has few."""
    excess_BK, floor_B = torch.empty_like(value_BK), value_BK.new_empty(len(value_BK))
    arrays = (value_BK.detach().numpy(), excess_BK.numpy(), floor_B.numpy())
    excess_rows(arrays[0], others, is_uniform, *arrays[1:])
    return excess_BK, floor_B


def gradient_of(
    logits_BC: Tensor,
    index_BM: Tensor,
    excess_BM: Tensor,
    floor_B: Tensor,
    known_2B: Tensor,
    grad_B: Tensor,
    sharpness: float,
) -> Tensor:
    """Gradient of the logits, shape (B, C), from what `loss_of` found."""
    way = _compiled_gradient if can_compile(logits_BC) else reference_gradient
    return way(logits_BC, index_BM, excess_BM, floor_B, known_2B, grad_B, sharpness)


def reference_loss(
    logits_BC: Tensor, index_BM: Tensor, excess_BM: Tensor, floor_B: Tensor, sharpness: float
) -> tuple[Tensor, Tensor]:
    """See `loss_of`; its formulas as they stand in `losses`."""
    z_BC = logits_BC.to(floor_B.dtype)
    peak_B = z_BC.amax(1)
    z_BC = (z_BC - peak_B[:, None]) * sharpness
    sum_B = z_BC.exp().sum(1)
    matched_B = (excess_BM * z_BC.gather(1, index_BM)).sum(1)
    loss_B = sum_B.log() - matched_B - floor_B * z_BC.sum(1)
    return loss_B, torch.stack((peak_B, sum_B))


def reference_gradient(
    logits_BC: Tensor,
    index_BM: Tensor,
    excess_BM: Tensor,
    floor_B: Tensor,
    known_2B: Tensor,
    grad_B: Tensor,
    sharpness: float,
) -> Tensor:
    """See `gradient_of`."""
    peak_B, sum_B = known_2B.unbind()
    grad_B = grad_B * sharpness
    z_BC = (logits_BC.to(floor_B.dtype) - peak_B[:, None]).mul_(sharpness)
    grad_BC = z_BC.exp_().mul_((grad_B / sum_B)[:, None]).sub_((grad_B * floor_B)[:, None])
    grad_BC.scatter_add_(1, index_BM, excess_BM * -grad_B[:, None])
    return grad_BC.to(logits_BC.dtype)


def _compiled_loss(
    logits_BC: Tensor, index_BM: Tensor, excess_BM: Tensor, floor_B: Tensor, sharpness: float
) -> tuple[Tensor, Tensor]:
    loss_B, known_2B = torch.empty_like(floor_B), floor_B.new_empty(2, len(floor_B))
    rows = [x.numpy() for x in (index_BM, excess_BM, floor_B, loss_B)] + [*known_2B.numpy()]

    def work(z: Any, *rows: Any) -> bool:
        return bool(loss_rows(_wide(z), *rows, F32(sharpness)))

    if not _by_parts(work, logits_BC.detach(), *rows):
        raise ValueError(f"classes: expected numbers from 0 to {logits_BC.shape[1] - 1}")
    return loss_B, known_2B


def _compiled_gradient(
    logits_BC: Tensor,
    index_BM: Tensor,
    excess_BM: Tensor,
    floor_B: Tensor,
    known_2B: Tensor,
    grad_B: Tensor,
    sharpness: float,
) -> Tensor:
    grad_BC = torch.empty_like(logits_BC, memory_format=torch.contiguous_format)
    rows = [*(x.numpy() for x in (index_BM, excess_BM, floor_B)), *known_2B.numpy()]

    def work(z: Any, into: Tensor, *rows: Any) -> bool:
        wide = into if into.dtype == torch.float32 else torch.empty(into.shape)
        gradient_rows(_wide(z), wide.numpy(), *rows, F32(sharpness))
        if wide is not into:
            into.copy_(wide)
        return True

    _by_parts(work, logits_BC.detach(), grad_BC, *rows, grad_B.numpy())
    return grad_BC


def can_compile(logits_BC: Tensor) -> bool:
    """Whether the compiled loops do it: on CPUs, but for float64."""
    is_here = logits_BC.is_cpu and logits_BC.dtype != torch.float64
    return is_here and logits_BC.numel() > 0 and not torch.compiler.is_compiling()


def _by_parts(work: Callable[..., bool], logits_BC: Tensor, *columns: Any) -> bool:
    """Whether work on all rows succeeds, done by as many threads as torch uses."""
    num_rows, num_classes = logits_BC.shape
    part = ceil(num_rows / torch.get_num_threads())
    if logits_BC.dtype != torch.float32:
        part = min(part, ceil(CONVERTED / num_classes))
    elif logits_BC.numel() < LEAST_SHARED:
        return work(logits_BC, *columns)  # of a small batch, slices alone would take a tenth

    def several(first: int) -> int:
        piece = slice(first, first + part)
        return 0 if work(logits_BC[piece], *(x[piece] for x in columns)) else 1

    return shared(several, range(0, num_rows, part), logits_BC.numel()) == 0


def _wide(x: Tensor) -> Any:
    return x.float().contiguous().numpy()


@compiled
def exponential(x: Any) -> Any:
    """Exponential of a number of at most 0, within 2 units of the last place; NaN stays."""
    x = LEAST if x < LEAST else x  # noqa: FURB136, NaN must stay, and loops be vectorized
    rounded = x * LOG2_E + ROUNDER
    whole = rounded - ROUNDER
    rest = x - whole * LOG_2_UPPER
    rest = rest - whole * LOG_2_LOWER
    # Taylor's series: |rest| <= log(2) / 2, and the next term is below 6e-9
    value = ONE_5040TH * rest + ONE_720TH
    value = value * rest + ONE_120TH
    value = value * rest + ONE_24TH
    value = value * rest + SIXTH
    value = value * rest + F32(0.5)
    value = value * rest + F32(1)
    value = value * rest + F32(1)
    # Times 2^whole: its exponent bits, over those of 1
    return value * float_of(I32((magnitude_bits(rounded) << I32(23)) + I32(0x3F800000)))


@compiled
def largest(bits: Any) -> Any:
    """The largest of some numbers, given by their bits, shape (n,); NaN is the largest."""
    top = I32(-0x80000000)
    for c in range(bits.shape[0]):
        # The order of magnitudes, turned around for numbers below 0
        top = larger(top, I32(bits[c] ^ I32(bits[c] >> I32(31)) & I32(0x7FFFFFFF)))
    return float_of(I32(top ^ I32(top >> I32(31)) & I32(0x7FFFFFFF)))


@summing
def sums(z: Any, peak: Any, sharpness: Any) -> Any:
    """Sums of exp s and of s = (z - peak) * sharpness over an array of shape (n,)."""
    exp_sum, sum_ = F32(0), F32(0)
    for c in range(z.shape[0]):
        s = (z[c] - peak) * sharpness
        exp_sum += exponential(s)
        sum_ += s
    return exp_sum, sum_


@compiled
def excess_rows(value: Any, others: Any, is_uniform: Any, excess: Any, floor: Any) -> None:
    """Overwrite excesses and floors of stored probabilities, see `SparseTarget.recover`."""
    for b in range(value.shape[0]):
        sum_ = 0.0
        for m in range(value.shape[1]):
            sum_ += value[b, m]
        total = sum_
        if others > 0 and is_uniform:
            total = max(sum_, 1.0)
        elif others > 0 and sum_ <= 0:
            total = 1.0
        low = (total - sum_) / (total * max(others, 1))
        floor[b] = low
        for m in range(value.shape[1]):
            excess[b, m] = value[b, m] / total - low


@compiled
def loss_rows(
    z: Any, index: Any, excess: Any, floor: Any, losses: Any, peaks: Any, totals: Any,
    sharpness: Any,
) -> Any:  # fmt: skip
    """Overwrite losses, largest logits and sums of exponentials of rows, see `reference_loss`.

    Returns whether all classes are some; it ends at the first that is none.
    """
    for b in range(z.shape[0]):
        row = z[b]
        peak = largest(row.view(np.int32))
        exp_sum, sum_, matched = 0.0, 0.0, 0.0
        for first in range(0, row.shape[0], BLOCK):
            part = sums(row[first : first + BLOCK], peak, sharpness)
            exp_sum, sum_ = exp_sum + part[0], sum_ + part[1]
        for m in range(index.shape[1]):
            if index[b, m] < 0 or index[b, m] >= row.shape[0]:
                return False
            matched += excess[b, m] * ((row[index[b, m]] - peak) * sharpness)
        losses[b] = np.log(exp_sum) - matched - floor[b] * sum_
        peaks[b], totals[b] = peak, exp_sum
    return True


@compiled
def gradient_rows(
    z: Any, out: Any, index: Any, excess: Any, floor: Any, peaks: Any, totals: Any, grads: Any,
    sharpness: Any,
) -> None:  # fmt: skip
    """Overwrite gradients of rows, see `reference_gradient`."""
    for b in range(z.shape[0]):
        row, into, peak = z[b], out[b], peaks[b]
        grad = grads[b] * sharpness
        up, down = grad / totals[b], grad * floor[b]
        for c in range(row.shape[0]):
            into[c] = exponential((row[c] - peak) * sharpness) * up - down
        for m in range(index.shape[1]):
            into[index[b, m]] -= grad * excess[b, m]
