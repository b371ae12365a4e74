"""Codes on CPUs: measure, round and pack a group while it lies in the cache, and back.

The bits are those of the plain operations in `weightwise.lm.latent.codes`, which holds the method
and the layout. Divisions stay divisions and no sums are rearranged. Compiled code is kept on disk.
"""

# Shapes: R rows, W features, N groups of G features, Q bytes

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as _numba
import numpy as np
import torch

from weightwise.numerics.kernels import team
from weightwise.numerics.kernels.vectors import (
    float_of,
    larger,
    larger_float,
    magnitude_bits,
    smaller,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from weightwise.lm.latent.config import CodeConfig

numba: Any = _numba
compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")
shared: Any = numba.njit(nogil=True, cache=True, error_model="numpy", parallel=True)
F32, I32, U16 = np.float32, np.int32, np.uint16
LEAST_SCALE, LARGEST_HALF, RESOLUTION = F32(2.0**-14), F32(65504), F32(2.0**-10)
TO_WHOLE = F32(3 << 22)  # added and taken away again, it leaves a whole number
INFINITY, HALF_BITS, LOWEST_KEY = I32(0x7F800000), I32(0x3F000000), I32(-0x7FFFFFFF)  # of float32
NAN = U16(0x7E00)
REBIAS = 127 - 15  # float32's exponents are stored so much larger than float16's


def fits(x: Tensor) -> bool:
    """Whether compiled code can take a tensor: data on the CPU that no compiler traces."""
    return x.device.type == "cpu" and type(x) is torch.Tensor and not torch.compiler.is_compiling()


def encode_into(
    x: Tensor, code: Tensor, scale: Tensor, minimum: Tensor | None, config: CodeConfig
) -> None:
    """Write codes, scales and minima of float32 rows of shape (..., W) to contiguous memory."""
    rows_RW = _rows(x)
    places = _rows(code), _rows(scale.view(torch.uint16)), _minima(minimum)
    _over_rows(encode_part, encode_parts, rows_RW, (rows_RW, *places), config)


def decode_into(
    code: Tensor, scale: Tensor, minimum: Tensor | None, out: Tensor, config: CodeConfig
) -> None:
    """Write the numbers of codes to contiguous float32 rows of shape (..., W)."""
    rows_RW = _rows(out)
    places = _rows(code), _rows(scale.view(torch.uint16)), _minima(minimum)
    _over_rows(decode_part, decode_parts, rows_RW, (*places, rows_RW), config)


def fake_into(x: Tensor, out: Tensor, config: CodeConfig) -> None:
    """Write what the codes of float32 rows stand for to contiguous rows."""
    rows_RW = _rows(out)
    _over_rows(fake_part, fake_parts, rows_RW, (_rows(x), rows_RW), config)


def _rows(x: Tensor) -> Any:
    """Array of shape (R, width); the same memory where it is contiguous."""
    return x.reshape(x.shape[:-1].numel(), x.shape[-1]).numpy()


def _minima(minimum: Tensor | None) -> Any:
    return np.empty((0, 0), U16) if minimum is None else _rows(minimum.view(torch.uint16))


def _over_rows(
    alone: Callable[..., None],
    together: Callable[..., None],
    rows_RW: Any,
    arrays: tuple[Any, ...],
    config: CodeConfig,
) -> None:
    """Call compiled code for all rows, on threads where that pays."""
    settings = config.bits, config.group_width, config.is_symmetric
    if team.is_ready(rows_RW.size):
        with team.threads_of_torch():
            together(*arrays, *settings, torch.get_num_threads())
    else:
        alone(*arrays, *settings, 0, len(rows_RW))


@compiled
def code_range(bits: Any, is_symmetric: Any) -> Any:
    """Smallest and largest code, and what is added to store one."""
    if is_symmetric:
        top = F32((1 << (bits - 1)) - 1)
        return -top, top, I32(1 << (bits - 1))
    return F32(0), F32((1 << bits) - 1), I32(0)


@compiled
def grid_of(x: Any, most: Any, is_symmetric: Any) -> Any:
    """Float16 bits of the value of code 0, and of the scale, for a group of shape (n,)."""
    high, minus_low = range_of(x)
    top = larger(high, minus_low)
    if top > INFINITY:
        return NAN, NAN
    if is_symmetric:
        return U16(0), half_of_scale(float_of(top) / most)
    start_bits = half_of(value_of(I32(-minus_low)))
    start = float_of_half(start_bits)
    step = (value_of(high) - start) / most
    return start_bits, half_of_scale(larger_float(step, abs(start) * RESOLUTION))


@compiled
def range_of(x: Any) -> Any:
    """Keys of the largest element and, with the other sign, of the smallest; NaN is largest.

    The key of a number are the bits of its magnitude with its sign, which as whole numbers are
    ordered like the numbers.
    """
    high = minus_low = LOWEST_KEY
    for i in range(x.shape[0]):
        bits = magnitude_bits(x[i])
        key = I32(-bits) if x[i] < F32(0) else bits
        high, minus_low = larger(high, key), larger(minus_low, I32(-key))
    return high, minus_low


@compiled
def value_of(key: Any) -> Any:
    """The number of a key."""
    return float_of(key) if key >= 0 else -float_of(I32(-key))


@compiled
def half_of_scale(step: Any) -> Any:
    """Float16 bits of a scale."""
    return half_of(larger_float(step, LEAST_SCALE))


@compiled
def half_of(x: Any) -> Any:
    """Bits of the float16 number nearest to a float32 one, ties to even, or of the largest."""
    magnitude = smaller(abs(x), LARGEST_HALF)
    bits = magnitude_bits(magnitude)
    if magnitude < LEAST_SCALE:
        # Beside 1/2, float32 has the resolution that float16 has down there.
        bits = magnitude_bits(magnitude + F32(0.5)) - HALF_BITS
    else:
        bits = ((bits + 0xFFF + (bits >> 13 & 1)) >> 13) - (REBIAS << 10)
    return U16(bits | 0x8000) if x < F32(0) else U16(bits)


@compiled
def float_of_half(half: Any) -> Any:
    """The float32 number of float16 bits; none is infinite."""
    bits = I32(half & 0x7FFF)
    if bits > 0x7C00:
        return F32(np.nan)
    if bits < 0x400:
        magnitude = F32(bits) * F32(2.0**-24)
    else:
        magnitude = float_of(I32((bits << 13) + (REBIAS << 23)))
    return -magnitude if half > 0x8000 else magnitude


@compiled
def steps_of(x: Any, start: Any, step: Any, least: Any, most: Any) -> Any:
    """Code of a number, as float32; ties to even."""
    steps = larger_float(smaller((x - start) / step, most), least)
    return steps + TO_WHOLE - TO_WHOLE


@compiled
def pack(stored: Any, code: Any, bits: Any) -> None:
    """Bytes of the stored numbers of a group."""
    size = 3 if bits == 3 else 1
    count = 8 * size // bits
    for j in range(code.shape[0] // size):
        word = 0
        for k in range(count):
            word |= stored[count * j + k] << (bits * k)
        for k in range(size):
            code[size * j + k] = word >> (8 * k) & 255


@compiled
def unpack(code: Any, out: Any, step: Any, start: Any, bits: Any) -> None:
    """Values of a group, ``stored * step + start``."""
    if bits == 8:
        for j in range(code.shape[0]):
            out[j] = F32(code[j]) * step + start
    elif bits == 4:
        for j in range(code.shape[0]):
            out[2 * j] = F32(code[j] & 15) * step + start
            out[2 * j + 1] = F32(code[j] >> 4) * step + start
    elif bits == 2:
        for j in range(code.shape[0]):
            byte = code[j]
            out[4 * j] = F32(byte & 3) * step + start
            out[4 * j + 1] = F32(byte >> 2 & 3) * step + start
            out[4 * j + 2] = F32(byte >> 4 & 3) * step + start
            out[4 * j + 3] = F32(byte >> 6) * step + start
    else:
        for j in range(code.shape[0] // 3):
            word = I32(code[3 * j]) | I32(code[3 * j + 1]) << 8 | I32(code[3 * j + 2]) << 16
            for k in range(8):
                out[8 * j + k] = F32(word >> (3 * k) & 7) * step + start


@compiled
def encode_part(
    x: Any, code: Any, scale: Any, minimum: Any,
    bits: Any, group: Any, is_symmetric: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Encode rows from first to last - 1."""
    least, most, offset = code_range(bits, is_symmetric)
    stored = np.empty(group, I32)
    num_bytes = group * bits // 8
    for row in range(first, last):
        for n in range(scale.shape[1]):
            values = x[row, n * group : (n + 1) * group]
            start_bits, step_bits = grid_of(values, most, is_symmetric)
            scale[row, n] = step_bits
            if not is_symmetric:
                minimum[row, n] = start_bits
            start, step = float_of_half(start_bits), float_of_half(step_bits)
            for i in range(values.shape[0]):
                stored[i] = I32(steps_of(values[i], start, step, least, most)) + offset
            for i in range(values.shape[0], group):
                stored[i] = offset
            pack(stored, code[row, n * num_bytes : (n + 1) * num_bytes], bits)


@compiled
def decode_part(
    code: Any, scale: Any, minimum: Any, out: Any,
    bits: Any, group: Any, is_symmetric: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Decode rows from first to last - 1."""
    num_bytes = group * bits // 8
    offset = F32(1 << (bits - 1))
    whole = np.empty(group, F32)
    for row in range(first, last):
        for n in range(scale.shape[1]):
            packed = code[row, n * num_bytes : (n + 1) * num_bytes]
            step = float_of_half(scale[row, n])
            start = -offset * step if is_symmetric else float_of_half(minimum[row, n])
            into = out[row, n * group : (n + 1) * group]
            if into.shape[0] == group:
                unpack(packed, into, step, start, bits)
            else:
                unpack(packed, whole, step, start, bits)
                into[:] = whole[: into.shape[0]]


@compiled
def fake_part(
    x: Any, out: Any, bits: Any, group: Any, is_symmetric: Any, first: Any, last: Any
) -> None:
    """Fake-quantize rows from first to last - 1."""
    least, most, _ = code_range(bits, is_symmetric)
    for row in range(first, last):
        for left in range(0, x.shape[1], group):
            values, into = x[row, left : left + group], out[row, left : left + group]
            start_bits, step_bits = grid_of(values, most, is_symmetric)
            start, step = float_of_half(start_bits), float_of_half(step_bits)
            for i in range(values.shape[0]):
                into[i] = steps_of(values[i], start, step, least, most) * step + start


@shared
def encode_parts(
    x: Any, code: Any, scale: Any, minimum: Any,
    bits: Any, group: Any, is_symmetric: Any, parts: Any,
) -> None:  # fmt: skip
    """Encode all rows on so many threads."""
    rows = x.shape[0]
    for part in numba.prange(parts):
        first, last = rows * part // parts, rows * (part + 1) // parts
        encode_part(x, code, scale, minimum, bits, group, is_symmetric, first, last)


@shared
def decode_parts(
    code: Any, scale: Any, minimum: Any, out: Any,
    bits: Any, group: Any, is_symmetric: Any, parts: Any,
) -> None:  # fmt: skip
    """Decode all rows on so many threads."""
    rows = out.shape[0]
    for part in numba.prange(parts):
        first, last = rows * part // parts, rows * (part + 1) // parts
        decode_part(code, scale, minimum, out, bits, group, is_symmetric, first, last)


@shared
def fake_parts(x: Any, out: Any, bits: Any, group: Any, is_symmetric: Any, parts: Any) -> None:
    """Fake-quantize all rows on so many threads."""
    rows = x.shape[0]
    for part in numba.prange(parts):
        first, last = rows * part // parts, rows * (part + 1) // parts
        fake_part(x, out, bits, group, is_symmetric, first, last)
