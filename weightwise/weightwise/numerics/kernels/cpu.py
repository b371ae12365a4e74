"""Fake-quantization on CPUs: cuts a tensor into parts and hands them to the compiled loops.

Dense tensors are taken as they lie in memory, whatever the order of their dimensions; no part is
transposed. 16-bit types are converted part by part. Parts run on as many threads as torch uses.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from weightwise.numerics.kernels import loops, team
from weightwise.numerics.kernels.constants import E4M3, EVEN, INFINITY_BITS, constants_of
from weightwise.numerics.kernels.layout import arrange
from weightwise.numerics.reference import E4M3 as E4M3_FORMAT
from weightwise.numerics.reference import LEAST_TENSOR_SCALE, NOT_FINITE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weightwise.numerics.kernels.constants import Constants
    from weightwise.numerics.kernels.layout import Layout
    from weightwise.numerics.reference import NonFinite, Rounding
    from weightwise.numerics.scaling import ScaledFormat

CONVERTED_PART = 1 << 16  # elements of 16-bit types: the copy in float32 fits the second cache
PARTS_PER_THREAD = 1
SMALLEST_PART, LARGEST_PART = 1 << 15, 1 << 22
LEAST_STREAMED = 1 << 23  # elements of 32 MB


def quantize_into(
    x: Tensor,
    out: Tensor,
    fmt: ScaledFormat,
    axis: int,
    rounding: Rounding,
    seed: int,
    non_finite: NonFinite,
) -> None:
    """Fake-quantize ``x`` into ``out``, see `weightwise.numerics.fake_quantize`."""
    layout = arrange(x, out, fmt, axis, keep_order=rounding == "stochastic")
    constants = constants_of(fmt, rounding)
    keys = (seed & 0xFFFFFFFF, seed >> 32)
    is_in_place = layout.x.data_ptr() == layout.out.data_ptr()
    worst, is_checked = 0, non_finite == "raise"
    if layout.is_tensor or fmt.scaling.scale == "e4m3" or (is_checked and is_in_place):
        worst = top_of(layout.x)
        if is_checked and worst >= INFINITY_BITS:
            raise ValueError(NOT_FINITE)
    if layout.is_tensor or layout.x.shape[2] == 1:
        worst = max(worst, _rows(layout, constants, worst, keys))
    else:
        worst = max(worst, _columns(layout, constants, worst, keys))
    if is_checked and worst >= INFINITY_BITS:
        raise ValueError(NOT_FINITE)
    if layout.out.data_ptr() != out.data_ptr():
        out.copy_(layout.out.view(out.shape))


def top_of(x: Tensor) -> int:
    """Bits of the largest magnitude of a dense tensor."""
    flat, part = x.reshape(-1), part_size(x)
    if x.dtype == torch.float32 and team.is_ready(x.numel()):
        with team.threads_of_torch():
            return int(team.tops_of(memory_of(flat), part))
    values = memory_of(flat) if x.dtype == torch.float32 else None

    def work(start: int) -> int:
        piece = slice(start, start + part)
        return int(loops.top_of(flat[piece].float().numpy() if values is None else values[piece]))

    return shared(work, range(0, flat.numel(), part), flat.numel())


def part_size(x: Tensor) -> int:
    """Elements of one part: whole lines of the cache."""
    if x.dtype != torch.float32:
        return CONVERTED_PART
    share = ceil(x.numel() / torch.get_num_threads() / PARTS_PER_THREAD / 16) * 16
    return min(LARGEST_PART, max(SMALLEST_PART, share))


def can_stream(out: Tensor) -> bool:
    """Whether a result is too large to stay in a cache, and starts where a line of it does."""
    return out.numel() >= LEAST_STREAMED and out.data_ptr() % 64 == 0


def _rows(layout: Layout, c: Constants, worst: int, keys: tuple[int, int]) -> int:
    """Fake-quantize groups that lie in one piece; bits of the largest magnitude."""
    x, out = layout.x.reshape(-1), layout.out.reshape(-1)
    outer = _outer_scale(worst, c)
    part, length = part_size(x), layout.x.shape[1]
    if not layout.is_tensor:
        part = max(1, part // length) * length
    ups, downs = np.empty(1, np.float32), np.empty(1, np.float32)
    loops.find_factors(np.full(1, worst, np.int32), ups, downs, c, outer)

    is_converted = x.dtype != torch.float32
    values: Any = None if is_converted else memory_of(x)
    results: Any = None if is_converted else memory_of(out)
    is_plain = c.rounding == EVEN and c.scale != E4M3 and not is_converted
    is_aligned = layout.is_tensor or (length % 16 == 0 and layout.size % 16 == 0)
    streams = is_plain and is_aligned and can_stream(out)
    if not is_converted and team.is_ready(x.numel()):
        with team.threads_of_torch():
            if layout.is_tensor:
                team.lines(values, results, part, ups, downs, c, keys, streams)
                return worst
            size = layout.size
            return int(team.rows(values, results, part, length, size, c, outer, keys, streams))

    def work(start: int) -> int:
        piece = slice(start, start + part)
        source = x[piece].float().numpy() if is_converted else values[piece]
        into = source if is_converted else results[piece]
        if layout.is_tensor and streams:
            loops.stream_line(source, into, ups[0], c)
            top = worst
        elif layout.is_tensor:
            loops.round_line(source, into, ups, downs, c, start, keys)
            top = worst
        else:
            top = loops.along_rows(
                source, into, length, layout.size, c, outer, start, keys, streams
            )
        if is_converted:
            out[piece].copy_(torch.from_numpy(into))
        return int(top)

    return shared(work, range(0, x.numel(), part), x.numel())


def _columns(layout: Layout, c: Constants, worst: int, keys: tuple[int, int]) -> int:
    """Fake-quantize groups that run across the order of memory; bits of the largest magnitude."""
    x, (planes, length, inner) = layout.x, layout.x.shape
    outer = _outer_scale(worst, c)
    part = part_size(x)
    rows = max(1, ceil(part / inner) // layout.size) * layout.size
    width = max(1, ceil(part / min(rows, length) / loops.TILE)) * loops.TILE
    if x.dtype == torch.float32 and team.is_ready(x.numel()):
        source, into, size = memory_of(x), memory_of(layout.out), layout.size
        with team.threads_of_torch():
            return int(team.columns(source, into, rows, width, size, c, outer, keys))
    parts = [
        (plane, top, left)
        for plane in range(planes)
        for top in range(0, length, rows)
        for left in range(0, inner, width)
    ]

    is_converted = x.dtype != torch.float32
    values: Any = None if is_converted else memory_of(x)
    results: Any = None if is_converted else memory_of(layout.out)

    def work(place: tuple[int, int, int]) -> int:
        plane, top, left = place
        right = min(left + width, inner)
        lines = (plane, slice(top, top + rows))
        first = (plane * length + top) * inner
        if is_converted:
            source = into = x[lines][:, left:right].float().numpy()
            start, stop, first = 0, right - left, first + left
        else:
            source, into, start, stop = values[lines], results[lines], left, right
        found = loops.along_columns(
            source, into, start, stop, layout.size, c, outer, (first, inner), keys
        )
        if is_converted:
            layout.out[lines][:, left:right].copy_(torch.from_numpy(into))
        return int(found)

    return shared(work, parts, x.numel())


def _outer_scale(top: int, c: Constants) -> np.float32:
    """The float32 scale of a tensor with two levels; 1 for all others."""
    amax = np.int32(top).view(np.float32)
    if c.scale != E4M3 or top == 0:
        return np.float32(1)
    return np.float32(max(float(amax / np.float32(E4M3_FORMAT.max * c.limit)), LEAST_TENSOR_SCALE))


def memory_of(x: Tensor) -> Any:
    """Array over the memory of a float32 tensor.

    ``x.numpy()`` would forbid that the storage ever be resized, as FSDP does with parameters. The
    caller keeps the tensor alive.
    """
    span = 1 + sum(stride * (size - 1) for size, stride in zip(x.shape, x.stride(), strict=True))
    flat = np.ctypeslib.as_array((ctypes.c_float * span).from_address(x.data_ptr()))
    strides = [4 * stride for stride in x.stride()]
    return np.lib.stride_tricks.as_strided(flat, x.shape, strides)


def shared(work: Callable[[Any], int], places: Sequence[Any], num_elements: int) -> int:
    """Largest result of all places, computed on as many threads as torch uses."""
    num_threads = min(torch.get_num_threads(), len(places))
    if num_threads == 1 or num_elements < team.LEAST_SHARED:
        return max(map(work, places))

    def several(first: int) -> int:
        return max(map(work, places[first::num_threads]))

    # This thread takes a share: waking another one costs more than a part of a small tensor.
    others = [_pool(num_threads).submit(several, first) for first in range(1, num_threads)]
    return max(several(0), *(other.result() for other in others))


_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def _pool(num_threads: int) -> ThreadPoolExecutor:
    if num_threads not in _pools:
        _pools[num_threads] = ThreadPoolExecutor(num_threads, "weightwise-quantize")
    return _pools[num_threads]
