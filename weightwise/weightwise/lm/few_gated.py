"""A gated feed-forward layer for a few rows: one call of compiled code, two rounds over weights.

For one token, what torch does around three products takes a fifth as long as the weights take to
come from memory. The gates are taken together with the rows beside them, then the way back, each
round shared between the threads by columns.
"""

# Shapes: R rows, D model width, F inner width

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as _numba
import numpy as np
import torch

from weightwise.lm.few_rows import columns, fast, shared
from weightwise.lm.few_tokens import gated
from weightwise.lm.row_tiles import floats_at
from weightwise.numerics.kernels import team

if TYPE_CHECKING:
    from torch import Tensor

numba: Any = _numba


def answers(x_RD: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
    """Rows of down (silu(gate x) * (up x)); without a gradient.

    Parameters
    ----------
    x_RD
        Rows; like the weights contiguous, float32 and on the CPU.
    gate_FD, up_FD, down_DF
        Weights.

    Returns
    -------
    Tensor
        Shape (R, D).
    """
    out_RD = torch.empty_like(x_RD)
    sizes = (*x_RD.shape, gate_FD.shape[0])
    # Addresses: `numpy()` would forbid to resize the storage, which FSDP does.
    tensors = (x_RD, gate_FD, up_FD, down_DF, out_RD)
    places = tuple(tensor.data_ptr() for tensor in tensors)
    if team.is_ready(gate_FD.numel()):
        with team.threads_of_torch():
            together(sizes, places, torch.get_num_threads())
    else:
        alone(sizes, places)
    return out_RD


@fast
def inner(sizes: Any, places: Any, h_RF: Any, other_RF: Any, part: Any, parts: Any) -> None:
    """One of several shares of what is inside."""
    rows, width, hidden = sizes
    x = numba.carray(floats_at(places[0]), (rows, width))
    gate = numba.carray(floats_at(places[1]), (hidden, width))
    up = numba.carray(floats_at(places[2]), (hidden, width))
    gated(x, gate, up, h_RF, other_RF, hidden * part // parts, hidden * (part + 1) // parts)


@fast
def outer(sizes: Any, places: Any, h_RF: Any, part: Any, parts: Any) -> None:
    """One of several shares of the columns of the result."""
    rows, width, hidden = sizes
    down = numba.carray(floats_at(places[3]), (width, hidden))
    out = numba.carray(floats_at(places[4]), (rows, width))
    columns(h_RF, down, out, width * part // parts, width * (part + 1) // parts)


@fast
def alone(sizes: Any, places: Any) -> None:
    """The whole layer, by one thread."""
    both = np.empty((2, sizes[0], sizes[2]), np.float32)
    h_RF, other_RF = both[0], both[1]
    inner(sizes, places, h_RF, other_RF, 0, 1)
    outer(sizes, places, h_RF, 0, 1)


@shared
def together(sizes: Any, places: Any, parts: Any) -> None:
    """The whole layer, by so many threads."""
    both = np.empty((2, sizes[0], sizes[2]), np.float32)
    h_RF, other_RF = both[0], both[1]
    for part in numba.prange(parts):
        inner(sizes, places, h_RF, other_RF, part, parts)
    for part in numba.prange(parts):
        outer(sizes, places, h_RF, part, parts)
