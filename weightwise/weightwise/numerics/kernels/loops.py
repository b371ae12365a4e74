"""The compiled loops of the CPU path: largest magnitude, scale, round and scale back in one pass.

A group is read twice while it lies in the cache. Compiled code is kept on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from weightwise.numerics.kernels.constants import (
    AWAY,
    BFLOAT16,
    CEIL,
    E4M3,
    E8M0,
    EVEN,
    FLOAT32,
    INFINITY_BITS,
    NEAREST,
    RCEIL,
)
from weightwise.numerics.kernels.vectors import (
    block_magnitude_bits,
    float_of,
    larger,
    larger_float,
    magnitude_bits,
    nearest,
    power_of,
    round_block,
    signed,
    smaller,
)

F32, I32, U32, U64 = np.float32, np.int32, np.uint32, np.uint64
TILE = 2048
STREAM_LANES = 64
LINE = 4096  # elements that the first cache holds beside their result

compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


@compiled
def top_of(x: Any) -> Any:
    """Bits of the largest magnitude of an array, shape (n,)."""
    top = I32(0)
    for i in range(x.shape[0]):
        top = larger(top, magnitude_bits(x[i]))
    return top


@compiled
def find_factors(tops: Any, ups: Any, downs: Any, c: Any, outer: Any) -> Any:
    """Factors before and after rounding of groups; NaN where a group is not finite.

    Parameters
    ----------
    tops
        Bits of the largest magnitude of each group, shape (n,).
    ups, downs
        Overwritten, shape (n,). Where blocks have one scale only, `ups` divide afterwards.
    """
    if c.scale == E8M0:
        for i in range(tops.shape[0]):
            ups[i] = downs[i] = power_of_two_factor(tops[i], c)
    elif c.scale == E4M3:
        for i in range(tops.shape[0]):
            inner = smaller(float_of(tops[i]) / c.limit / outer, F32(448))
            inner = larger_float(inner, c.least)
            inner = nearest(inner, F32(1), F32(448), I32(121 << 23), I32(20 << 23))
            ups[i], downs[i] = F32(1) / outer / inner, inner * outer
    else:
        for i in range(tops.shape[0]):
            up = smaller(c.limit / float_of(tops[i]), F32(2.0**127))
            ups[i] = downs[i] = up if tops[i] > 0 else F32(1)
        if c.scale == BFLOAT16:
            for i in range(tops.shape[0]):
                bits = magnitude_bits(ups[i])
                ups[i] = downs[i] = float_of(I32((bits + 0x7FFF + (bits >> 16 & 1)) & 0x7FFF0000))
    for i in range(tops.shape[0]):
        if tops[i] >= INFINITY_BITS:
            ups[i] = downs[i] = F32(np.nan)


@compiled
def power_of_two_factor(top: Any, c: Any) -> Any:
    """Inverse of the power of two that a group with this largest magnitude has."""
    bits, exponent = top, c.e_max
    if c.rule == RCEIL:
        bits, exponent = magnitude_bits(float_of(top) / c.limit), 0
    elif c.rule == NEAREST:
        bits = I32(bits + c.half)
    exponent = (bits >> 23) - 127 - exponent
    if (c.rule == CEIL or c.rule == RCEIL) and bits & 0x7FFFFF > 0:
        exponent += 1
    exponent = min(max(exponent, -127), 127)
    return float_of(I32((127 - exponent) << 23) if exponent < 127 else I32(1 << 22))


@compiled
def philox_word(position: Any, key0: Any, key1: Any) -> Any:
    """Random word of a position, see `weightwise.numerics.philox`."""
    counter = U64(position) >> U64(2)
    c0, c1, c2, c3 = U32(counter), U32(counter >> U64(32)), U32(0), U32(0)
    k0, k1 = U32(key0), U32(key1)
    for _ in range(10):
        product0, product1 = U64(0xD2511F53) * U64(c0), U64(0xCD9E8D57) * U64(c2)
        c0 = U32(U32(product1 >> U64(32)) ^ c1 ^ k0)
        c2 = U32(U32(product0 >> U64(32)) ^ c3 ^ k1)
        c1, c3 = U32(product1), U32(product0)
        k0, k1 = U32(k0 + U32(0x9E3779B9)), U32(k1 + U32(0xBB67AE85))
    lane = position & 3
    return c0 if lane == 0 else c1 if lane == 1 else c2 if lane == 2 else c3


@compiled
def by_steps(x: Any, up: Any, c: Any, position: Any, key0: Any, key1: Any) -> Any:
    """Magnitude of x times up, ties away from zero or stochastic."""
    magnitude = smaller(float_of(magnitude_bits(x * up)), c.limit)
    step = power_of(magnitude, c.e_min_bits) * c.fraction
    steps = magnitude / step
    whole = F32(np.floor(steps))
    rest = steps - whole
    if c.rounding == AWAY:
        is_up = rest >= F32(0.5)
    else:
        word = philox_word(position, key0, key1)
        is_up = F32(word >> U32(8)) * F32(2.0**-24) < rest
    return (whole + F32(is_up)) * step


@compiled
def round_line(x: Any, out: Any, ups: Any, downs: Any, c: Any, position: Any, keys: Any) -> Any:
    """Fake-quantize n neighbours in memory, each with factors of its own.

    Parameters
    ----------
    x, out, ups, downs
        Arrays of shape (n,); both factors may also have shape (1,): one for all.
    position, keys
        Position of the first element in the tensor, and the seed's two words.
    """
    n, up, down = x.shape[0], ups[0], downs[0]
    is_shared, divides = ups.shape[0] == 1, c.scale != E4M3
    if c.rounding != EVEN:
        for i in range(n):
            k = 0 if is_shared else i
            value = by_steps(x[i], ups[k], c, position + i, keys[0], keys[1])
            value = value / ups[k] if divides else value * downs[k]
            out[i] = signed(value, x[i])
    elif is_shared and divides:
        for i in range(n):
            out[i] = signed(nearest(x[i], up, c.limit, c.e_min_bits, c.shift) / up, x[i])
    elif is_shared:
        for i in range(n):
            out[i] = signed(nearest(x[i], up, c.limit, c.e_min_bits, c.shift) * down, x[i])
    elif divides:
        for i in range(n):
            out[i] = signed(nearest(x[i], ups[i], c.limit, c.e_min_bits, c.shift) / ups[i], x[i])
    else:
        for i in range(n):
            out[i] = signed(nearest(x[i], ups[i], c.limit, c.e_min_bits, c.shift) * downs[i], x[i])


@compiled
def stream_line(x: Any, out: Any, up: Any, c: Any) -> None:
    """Fake-quantize a large array with one factor, ties to even, past the caches.

    Parameters
    ----------
    x, out
        Arrays of shape (n,); `out` starts at a multiple of 64 bytes.
    up
        Factor that divides afterwards.
    """
    whole = x.shape[0] // STREAM_LANES * STREAM_LANES
    for start in range(0, whole, STREAM_LANES):
        round_block(x, out, start, STREAM_LANES, up, up, 1, 1, c.limit, c.e_min_bits, c.shift)
    for i in range(whole, x.shape[0]):
        out[i] = signed(nearest(x[i], up, c.limit, c.e_min_bits, c.shift) / up, x[i])


@compiled
def whole_blocks(
    x: Any, out: Any, lanes: Any, tops: Any, ups: Any, downs: Any, c: Any, outer: Any, streams: Any
) -> Any:
    """Blocks of as many elements as the literal says, round to even; see `along_rows`.

    Returns
    -------
    Bits of the largest magnitude of all.
    """
    numba.literally(lanes)  # type: ignore[attr-defined]
    if c.scale == FLOAT32 and streams:
        return plain_blocks(x, out, lanes, 1, c)
    if c.scale == FLOAT32:
        return plain_blocks(x, out, lanes, 0, c)
    worst = I32(0)
    for left in range(0, x.shape[0], TILE * lanes):
        count = min(TILE, (x.shape[0] - left) // lanes)
        for k in range(count):
            tops[k] = block_magnitude_bits(x, left + k * lanes, lanes)
            worst = larger(worst, tops[k])
        find_factors(tops[:count], ups[:count], downs[:count], c, outer)
        if c.scale == E4M3:
            for k in range(count):
                start = left + k * lanes
                round_block(
                    x, out, start, lanes, ups[k], downs[k], 0, 0, c.limit, c.e_min_bits, c.shift
                )
        elif streams:
            for k in range(count):
                start = left + k * lanes
                round_block(
                    x, out, start, lanes, ups[k], downs[k], 1, 1, c.limit, c.e_min_bits, c.shift
                )
        else:
            for k in range(count):
                start = left + k * lanes
                round_block(
                    x, out, start, lanes, ups[k], downs[k], 1, 0, c.limit, c.e_min_bits, c.shift
                )
    return worst


@compiled
def plain_blocks(x: Any, out: Any, lanes: Any, streams: Any, c: Any) -> Any:
    """The same for float32 scales: simple enough that a block never leaves the registers."""
    numba.literally(lanes)  # type: ignore[attr-defined]
    numba.literally(streams)  # type: ignore[attr-defined]
    worst = I32(0)
    for start in range(0, x.shape[0], lanes):
        top = block_magnitude_bits(x, start, lanes)
        worst = larger(worst, top)
        up = smaller(c.limit / float_of(top), F32(2.0**127))
        up = up if top > 0 else F32(1)
        up = up if top < INFINITY_BITS else F32(np.nan)
        round_block(x, out, start, lanes, up, up, 1, streams, c.limit, c.e_min_bits, c.shift)
    return worst


@compiled
def along_rows(
    x: Any, out: Any, row_length: Any, size: Any, c: Any, outer: Any, position: Any, keys: Any,
    streams: Any,
) -> Any:  # fmt: skip
    """Fake-quantize blocks along rows that follow one another in memory.

    Parameters
    ----------
    x, out
        Arrays of shape (rows * row_length,).
    row_length, size
        Elements of a row and of a block; the last block of a row may be shorter.
    c
        Constants of the format.
    outer
        Scale of the whole tensor with two levels.
    position, keys
        Position of the first element in the tensor, and the seed's two words.
    streams
        Results go past the caches to memory; only where every block starts at a multiple of 64
        bytes, blocks have one scale and ties go to even.

    Returns
    -------
    Bits of the largest magnitude of all.
    """
    worst = I32(0)
    tops, ups, downs = np.empty(TILE, I32), np.empty(TILE, F32), np.empty(TILE, F32)
    if row_length % size == 0:
        row_length = x.shape[0]
    for row in range(0, x.shape[0], row_length):
        start, stop = row, row + row_length
        if c.rounding == EVEN and size in (16, 32, 64, 128):
            start = stop - row_length % size
            a, b = x[row:start], out[row:start]
            if size == 16:
                worst = larger(worst, whole_blocks(a, b, 16, tops, ups, downs, c, outer, streams))
            elif size == 32:
                worst = larger(worst, whole_blocks(a, b, 32, tops, ups, downs, c, outer, streams))
            elif size == 64:
                worst = larger(worst, whole_blocks(a, b, 64, tops, ups, downs, c, outer, streams))
            else:
                worst = larger(worst, whole_blocks(a, b, 128, tops, ups, downs, c, outer, streams))
        while start < stop:
            # As many groups as lie in the cache together: their factors are found at once.
            count = min(TILE, max(1, LINE // size), (stop - start + size - 1) // size)
            for k in range(count):
                tops[k] = top_of(x[start + k * size : min(start + k * size + size, stop)])
                worst = larger(worst, tops[k])
            find_factors(tops[:count], ups[:count], downs[:count], c, outer)
            for k in range(count):
                end = min(start + size, stop)
                a, b = x[start:end], out[start:end]
                if streams:
                    stream_line(a, b, ups[k], c)
                else:
                    place = position + start
                    round_line(a, b, ups[k : k + 1], downs[k : k + 1], c, place, keys)
                start = end
    return worst


@compiled
def along_columns(
    x: Any, out: Any, first: Any, last: Any, size: Any, c: Any, outer: Any, position: Any, keys: Any
) -> Any:
    """Fake-quantize blocks of `size` rows in each column; see `along_rows`.

    Parameters
    ----------
    x, out
        Arrays of shape (rows, columns), one row behind the other in memory.
    first, last
        Columns to work on, the last not included.
    position
        Positions of the first element and from row to row, shape (2,).
    """
    # A slice of a row of x would lose the fact that neighbours are neighbours: rows come first.
    rows = x.shape[0]
    worst = I32(0)
    tops, ups, downs = np.empty(TILE, I32), np.empty(TILE, F32), np.empty(TILE, F32)
    for left in range(first, last, TILE):
        right = min(left + TILE, last)
        width = right - left
        for start in range(0, rows, size):
            stop = min(start + size, rows)
            tops[:width] = 0
            for i in range(start, stop):
                line = x[i]
                gather_tops(line[left:right], tops)
            for k in range(width):
                worst = larger(worst, tops[k])
            find_factors(tops[:width], ups[:width], downs[:width], c, outer)
            for i in range(start, stop):
                line, into = x[i], out[i]
                round_line(
                    line[left:right], into[left:right], ups[:width], downs[:width], c,
                    position[0] + i * position[1] + left, keys,
                )  # fmt: skip
    return worst


@compiled
def gather_tops(x: Any, tops: Any) -> Any:
    """Raise running tops by the magnitudes of one row."""
    for k in range(x.shape[0]):
        tops[k] = larger(tops[k], magnitude_bits(x[k]))
