"""Products of a few float32 rows with stacked matrices: every weight is read once, in order.

Four rows of a matrix pass by four rows of the input, so that a weight that was loaded serves four
sums and an input too; all sums stay in registers, and nothing is rearranged before. Compiled code
is kept on disk.
"""

# Shapes: R rows, E matrices, K columns that are summed over, N columns of the result

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as _numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic as _intrinsic

from weightwise.numerics.kernels import team

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

numba: Any = _numba
intrinsic: Any = _intrinsic
F32 = np.float32
FLAGS = {"reassoc", "contract", "nsz"}  # sums in any order; infinities and NaN count
fast: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
shared: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS, parallel=True)


def products(x_RK: Tensor, weight_ENK: Tensor, counts: Sequence[int]) -> Tensor:
    """Product of every row with the transpose of its matrix; without a gradient.

    Parameters
    ----------
    x_RK
        Rows, those of the first matrix first; contiguous, float32, on the CPU.
    weight_ENK
        Matrices, as well.
    counts
        Rows of each matrix.

    Returns
    -------
    Tensor
        Shape (R, N).
    """
    num_outs = weight_ENK.shape[1]
    out_RN = x_RK.new_empty(len(x_RK), num_outs)
    # Addresses: `numpy()` would forbid to resize the storage, which FSDP does.
    places = x_RK.data_ptr(), weight_ENK.data_ptr(), out_RN.data_ptr()
    sizes = np.array(counts), *x_RK.shape, num_outs
    if team.is_ready(weight_ENK[0].numel()):
        with team.threads_of_torch():
            together(*places, *sizes, torch.get_num_threads())
    else:
        alone(*places, *sizes)
    return out_RN


@intrinsic
def floats_at(_context: Any, _address: types.Type) -> Any:
    """Pointer to the float32 numbers at an address."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.inttoptr(args[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), codegen


@fast
def four_by_four(x: Any, w: Any, y: Any, r: Any, n: Any) -> None:
    """Sums of rows r to r + 3 with rows n to n + 3 of the matrix."""
    x0, x1, x2, x3 = x[r], x[r + 1], x[r + 2], x[r + 3]
    w0, w1, w2, w3 = w[n], w[n + 1], w[n + 2], w[n + 3]
    a00 = a01 = a02 = a03 = F32(0)
    a10 = a11 = a12 = a13 = F32(0)
    a20 = a21 = a22 = a23 = F32(0)
    a30 = a31 = a32 = a33 = F32(0)
    for k in range(x.shape[1]):
        a00 += x0[k] * w0[k]
        a01 += x0[k] * w1[k]
        a02 += x0[k] * w2[k]
        a03 += x0[k] * w3[k]
        a10 += x1[k] * w0[k]
        a11 += x1[k] * w1[k]
        a12 += x1[k] * w2[k]
        a13 += x1[k] * w3[k]
        a20 += x2[k] * w0[k]
        a21 += x2[k] * w1[k]
        a22 += x2[k] * w2[k]
        a23 += x2[k] * w3[k]
        a30 += x3[k] * w0[k]
        a31 += x3[k] * w1[k]
        a32 += x3[k] * w2[k]
        a33 += x3[k] * w3[k]
    y[r, n], y[r, n + 1], y[r, n + 2], y[r, n + 3] = a00, a01, a02, a03
    y[r + 1, n], y[r + 1, n + 1], y[r + 1, n + 2], y[r + 1, n + 3] = a10, a11, a12, a13
    y[r + 2, n], y[r + 2, n + 1], y[r + 2, n + 2], y[r + 2, n + 3] = a20, a21, a22, a23
    y[r + 3, n], y[r + 3, n + 1], y[r + 3, n + 2], y[r + 3, n + 3] = a30, a31, a32, a33


@fast
def one_by_four(x: Any, w: Any, y: Any, r: Any, n: Any) -> None:
    """Sums of row r with rows n to n + 3 of the matrix."""
    x0 = x[r]
    w0, w1, w2, w3 = w[n], w[n + 1], w[n + 2], w[n + 3]
    a0 = a1 = a2 = a3 = F32(0)
    for k in range(x.shape[1]):
        a0 += x0[k] * w0[k]
        a1 += x0[k] * w1[k]
        a2 += x0[k] * w2[k]
        a3 += x0[k] * w3[k]
    y[r, n], y[r, n + 1], y[r, n + 2], y[r, n + 3] = a0, a1, a2, a3


@fast
def one_by_one(x: Any, w: Any, y: Any, r: Any, n: Any) -> None:
    """Sum of row r with row n of the matrix."""
    total = F32(0)
    for k in range(x.shape[1]):
        total += x[r, k] * w[n, k]
    y[r, n] = total


@fast
def columns(x: Any, w: Any, y: Any, first: Any, last: Any) -> None:
    """Columns ``first`` to ``last - 1`` of the product of all rows with one matrix."""
    rows = x.shape[0]
    whole = first + (last - first) // 4 * 4
    for n in range(first, whole, 4):
        for r in range(0, rows - 3, 4):
            four_by_four(x, w, y, r, n)
        for r in range(rows // 4 * 4, rows):
            one_by_four(x, w, y, r, n)
    for n in range(whole, last):
        for r in range(rows):
            one_by_one(x, w, y, r, n)


@fast
def share(
    x_at: Any, w_at: Any, y_at: Any, counts: Any, rows: Any, width: Any, outs: Any, part: Any,
    parts: Any,
) -> None:  # fmt: skip
    """One of several equal shares of every matrix's columns."""
    x = numba.carray(floats_at(x_at), (rows, width))
    w = numba.carray(floats_at(w_at), (counts.shape[0], outs, width))
    y = numba.carray(floats_at(y_at), (rows, outs))
    first, last = outs * part // parts, outs * (part + 1) // parts
    start = 0
    for matrix in range(counts.shape[0]):
        end = start + counts[matrix]
        if end > start:
            columns(x[start:end], w[matrix], y[start:end], first, last)
        start = end


@fast
def alone(x_at: Any, w_at: Any, y_at: Any, counts: Any, rows: Any, width: Any, outs: Any) -> None:
    """All columns, by one thread."""
    share(x_at, w_at, y_at, counts, rows, width, outs, 0, 1)


@shared
def together(
    x_at: Any, w_at: Any, y_at: Any, counts: Any, rows: Any, width: Any, outs: Any, parts: Any
) -> None:
    """All columns, by so many threads."""
    for part in numba.prange(parts):
        share(x_at, w_at, y_at, counts, rows, width, outs, part, parts)
