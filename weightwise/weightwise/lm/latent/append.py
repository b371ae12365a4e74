"""New tokens are encoded straight into a cache on the CPU, in one compiled call.

Where a token or a few come at a time, as in decoding, the work on them is less than what it takes
to call it up: a handful of small operations for codes, scales and minima of latents and rotary
keys. Here one loop encodes every vector where it will stay. Its bits are those of
`weightwise.lm.latent.codes.encode`, whose loop it is. Prompts that are long enough to be shared by
threads are left to that.
"""

# Shapes: B batch, T new tokens, W features of a vector, R new tokens of all rows that count

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as _numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic as _intrinsic

from weightwise.lm.latent import code_kernels
from weightwise.lm.latent.code_kernels import encode_part
from weightwise.lm.latent.codes import num_groups
from weightwise.lm.latent.lanes import bytes_at
from weightwise.lm.paged import PageStore
from weightwise.lm.row_tiles import floats_at, integers_at
from weightwise.lm.store import RowStore
from weightwise.numerics.kernels import team

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from weightwise.lm.cache import Span
    from weightwise.lm.latent.config import CodeConfig
    from weightwise.lm.store import Store

numba: Any = _numba
intrinsic: Any = _intrinsic
compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")
NOWHERE = 0, 0, 0


def append(span: Span, x_BTW: Tensor, stores: Sequence[Store], config: CodeConfig) -> bool:
    """Keep the vectors of new tokens, if the compiled loop can.

    Parameters
    ----------
    span
        Where they stand.
    x_BTW
        The vectors.
    stores
        Memory for codes, scales and, of asymmetric codes, minima.
    config
        How they are coded.

    Returns
    -------
    bool
        Whether they were kept; if not, nothing was done.
    """
    is_here = stores[0].memory.is_cpu and code_kernels.fits(x_BTW)
    if not is_here or team.is_ready(x_BTW.numel()):
        return False
    where = _where(span, stores[0])
    if where is None:
        return False
    x_BTW = x_BTW.float()
    if x_BTW.stride(-1) != 1:
        x_BTW = x_BTW.contiguous()
    places = [_places(store.memory) for store in stores]
    index, count, start, _kept = where
    shape = x_BTW.shape[-1], x_BTW.shape[1], count, start
    minimum = NOWHERE if config.is_symmetric else places[2]
    coding = (
        num_groups(shape[0], config), config.bits, config.group_width, config.is_symmetric,
        config.scale_rule == "error",
    )  # fmt: skip
    encode_tokens(_places(x_BTW), places[0], places[1], minimum, index, shape, coding)
    return True


def _where(span: Span, store: Store) -> tuple[tuple[int, int, int, int], int, int, Any] | None:
    """Addresses of the numbers that tell rows and columns, R, first column, what to keep alive.

    The numbers are, for each token that counts, its row and index among the new ones, and the row
    and column of the memory. Without addresses row and column follow from the first column.
    """
    if type(store) is RowStore and span.is_even:
        tokens = max(span.count)
        return (0, 0, 0, 0), len(span.count) * tokens, span.start[0], None
    row_R, new_R, position_R = span.places
    if type(store) is PageStore:
        target_R, place_R = store.table.places(span)
    elif type(store) is RowStore:
        target_R, place_R = row_R, position_R
    else:
        return None
    kept = [one.contiguous() for one in (row_R, new_R, target_R, place_R)]
    row, new, target, place = (one.data_ptr() for one in kept)
    return (row, new, target, place), len(row_R), 0, kept


def _places(x: Tensor) -> tuple[int, int, int]:
    """Address of a tensor of three dimensions and bytes from row to row and from token to token."""
    size, (row, token, _) = x.element_size(), x.stride()
    return x.data_ptr(), size * row, size * token


@intrinsic
def halves_at(_context: Any, _address: types.Type) -> Any:
    """Pointer to the bits of float16 numbers at an address."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.inttoptr(args[0], ir.IntType(16).as_pointer())

    return types.CPointer(types.uint16)(types.int64), codegen


@compiled
def place_of(index: Any, shape: Any, r: Any) -> Any:
    """Row and index of a new token, and row and column of the memory where it belongs."""
    _, tokens, count, start = shape
    if index[0] == 0:
        return r // tokens, r % tokens, r // tokens, start + r % tokens
    row = numba.carray(integers_at(index[0]), (count,))[r]
    new = numba.carray(integers_at(index[1]), (count,))[r]
    target = numba.carray(integers_at(index[2]), (count,))[r]
    return row, new, target, numba.carray(integers_at(index[3]), (count,))[r]


@compiled
def encode_tokens(
    x: Any, code: Any, scale: Any, minimum: Any, index: Any, shape: Any, coding: Any
) -> None:
    """Encode tokens into memory; `append` tells what the numbers are."""
    width, (groups, bits, group, is_symmetric, is_tried) = shape[0], coding
    for r in range(shape[2]):
        b, t, row, column = place_of(index, shape, r)
        values = numba.carray(floats_at(x[0] + b * x[1] + t * x[2]), (1, width))
        at = code[0] + row * code[1] + column * code[2]
        codes = numba.carray(bytes_at(at), (1, groups * group * bits // 8))
        at = scale[0] + row * scale[1] + column * scale[2]
        scales = numba.carray(halves_at(at), (1, groups))
        at = minimum[0] + row * minimum[1] + column * minimum[2]
        minima = numba.carray(halves_at(at), (1, groups))
        encode_part(
            values, codes, scales, minima, bits, group, is_symmetric, is_tried, 0, 1
        )  # minima of symmetric codes are not touched
