"""Products of a few float32 rows with stacked matrices: every weight is read once, in order.

Up to four rows of the input go by one row of a matrix after the other, as fast as it comes from
memory; more go by four of its rows at once, so that a weight that was loaded serves four sums and
an input too (`weightwise.lm.row_tiles`). Nothing is rearranged before. What a row gives does not
depend on the rows beside it, to the last bit. Compiled code is kept on disk.
"""

# Shapes: R rows, E matrices, K columns that are summed over, N columns of the result

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as _numba
import numpy as np
import torch

from weightwise.lm.row_tiles import floats_at, tile
from weightwise.numerics.kernels import team

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

numba: Any = _numba
fast: Any = numba.njit(nogil=True, cache=True, error_model="numpy")
shared: Any = numba.njit(nogil=True, cache=True, error_model="numpy", parallel=True)


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


@fast
def by_one(x: Any, w: Any, y: Any, n: Any) -> None:
    """Sums of all rows with row n of the matrix."""
    rows = x.shape[0]
    whole = rows // 4 * 4
    for r in range(0, whole, 4):
        tile(x, r, w, n, y, 4, 1)
    if rows - whole == 3:
        tile(x, whole, w, n, y, 3, 1)
    elif rows - whole == 2:
        tile(x, whole, w, n, y, 2, 1)
    elif rows > whole:
        tile(x, whole, w, n, y, 1, 1)


@fast
def by_four(x: Any, w: Any, y: Any, n: Any) -> None:
    """Sums of all rows with rows n to n + 3 of the matrix."""
    rows = x.shape[0]
    whole = rows // 4 * 4
    for r in range(0, whole, 4):
        tile(x, r, w, n, y, 4, 4)
    if rows - whole == 3:
        tile(x, whole, w, n, y, 3, 4)
    elif rows - whole == 2:
        tile(x, whole, w, n, y, 2, 4)
    elif rows > whole:
        tile(x, whole, w, n, y, 1, 4)


@fast
def columns(x: Any, w: Any, y: Any, first: Any, last: Any) -> None:
    """Columns ``first`` to ``last - 1`` of the product of all rows with one matrix."""
    if x.shape[0] == 1:  # the loop of every token that is decoded is as short as can be
        for n in range(first, last):
            tile(x, 0, w, n, y, 1, 1)
        return
    whole = first
    if x.shape[0] > 4:
        whole += (last - first) // 4 * 4
        for n in range(first, whole, 4):
            by_four(x, w, y, n)
    for n in range(whole, last):
        by_one(x, w, y, n)


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
