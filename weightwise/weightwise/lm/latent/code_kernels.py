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

from weightwise.lm.latent.code_grids import float_of_half, grid_of, steps_of
from weightwise.numerics.kernels import team

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from weightwise.lm.latent.config import CodeConfig

numba: Any = _numba
compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")
shared: Any = numba.njit(nogil=True, cache=True, error_model="numpy", parallel=True)
F32, I32, U16 = np.float32, np.int32, np.uint16


def fits(x: Tensor) -> bool:
    """Whether compiled code can take a tensor: data on the CPU that no compiler traces."""
    return x.device.type == "cpu" and type(x) is torch.Tensor and not torch.compiler.is_compiling()


def encode_into(
    x: Tensor, code: Tensor, scale: Tensor, minimum: Tensor | None, config: CodeConfig
) -> None:
    """Write codes, scales and minima of float32 rows of shape (..., W) to contiguous memory."""
    rows_RW = _rows(x)
    places = _rows(code), _rows(scale.view(torch.uint16)), _minima(minimum)
    settings = *_layout(config), config.scale_rule == "error"
    _over_rows(encode_part, encode_parts, rows_RW, (rows_RW, *places, *settings))


def decode_into(
    code: Tensor, scale: Tensor, minimum: Tensor | None, out: Tensor, config: CodeConfig
) -> None:
    """Write the numbers of codes to contiguous float32 rows of shape (..., W)."""
    rows_RW = _rows(out)
    places = _rows(code), _rows(scale.view(torch.uint16)), _minima(minimum)
    _over_rows(decode_part, decode_parts, rows_RW, (*places, rows_RW, *_layout(config)))


def fake_into(x: Tensor, out: Tensor, config: CodeConfig) -> None:
    """Write what the codes of float32 rows stand for to contiguous rows."""
    rows_RW = _rows(out)
    settings = *_layout(config), config.scale_rule == "error"
    _over_rows(fake_part, fake_parts, rows_RW, (_rows(x), rows_RW, *settings))


def _rows(x: Tensor) -> Any:
    """Array of shape (R, width); the same memory where it is contiguous."""
    return x.reshape(x.shape[:-1].numel(), x.shape[-1]).numpy()


def _minima(minimum: Tensor | None) -> Any:
    return np.empty((0, 0), U16) if minimum is None else _rows(minimum.view(torch.uint16))


def _layout(config: CodeConfig) -> tuple[int, int, bool]:
    return config.bits, config.group_width, config.is_symmetric


def _over_rows(
    alone: Callable[..., None], together: Callable[..., None], rows_RW: Any, given: tuple[Any, ...]
) -> None:
    """Call compiled code for all rows, on threads where that pays."""
    if team.is_ready(rows_RW.size):
        with team.threads_of_torch():
            together(*given, torch.get_num_threads())
    else:
        alone(*given, 0, len(rows_RW))


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
    bits: Any, group: Any, is_symmetric: Any, is_tried: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Encode rows from first to last - 1."""
    offset = I32(1 << (bits - 1)) if is_symmetric else I32(0)
    stored = np.empty(group, I32)
    num_bytes = group * bits // 8
    for row in range(first, last):
        for n in range(scale.shape[1]):
            values = x[row, n * group : (n + 1) * group]
            start_bits, step_bits, least, most = grid_of(values, bits, is_symmetric, is_tried)
            scale[row, n] = step_bits
            if not is_symmetric:
                minimum[row, n] = start_bits
            start, step = float_of_half(start_bits), float_of_half(step_bits)
            inverse = F32(1) / step
            for i in range(values.shape[0]):
                stored[i] = I32(steps_of(values[i], start, inverse, least, most)) + offset
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
    x: Any, out: Any,
    bits: Any, group: Any, is_symmetric: Any, is_tried: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Fake-quantize rows from first to last - 1."""
    for row in range(first, last):
        for left in range(0, x.shape[1], group):
            values, into = x[row, left : left + group], out[row, left : left + group]
            start_bits, step_bits, least, most = grid_of(values, bits, is_symmetric, is_tried)
            start, step = float_of_half(start_bits), float_of_half(step_bits)
            inverse = F32(1) / step
            for i in range(values.shape[0]):
                into[i] = steps_of(values[i], start, inverse, least, most) * step + start


@shared
def encode_parts(
    x: Any, code: Any, scale: Any, minimum: Any,
    bits: Any, group: Any, is_symmetric: Any, is_tried: Any, parts: Any,
) -> None:  # fmt: skip
    """Encode all rows on so many threads."""
    rows = x.shape[0]
    for part in numba.prange(parts):
        first, last = rows * part // parts, rows * (part + 1) // parts
        encode_part(x, code, scale, minimum, bits, group, is_symmetric, is_tried, first, last)


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
def fake_parts(
    x: Any, out: Any, bits: Any, group: Any, is_symmetric: Any, is_tried: Any, parts: Any
) -> None:
    """Fake-quantize all rows on so many threads."""
    rows = x.shape[0]
    for part in numba.prange(parts):
        first, last = rows * part // parts, rows * (part + 1) // parts
        fake_part(x, out, bits, group, is_symmetric, is_tried, first, last)
