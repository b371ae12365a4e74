"""Casts between stored types and largest magnitudes on CPUs, on as many threads as torch uses."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch

from weightwise.numerics.kernels.cpu import shared
from weightwise.numerics.kernels.storage import LANES, cast_line, memory_of, top_of_line

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_PART = 1 << 15


def cast_into(x: Tensor, out: Tensor, factor: float) -> None:
    """Write ``x`` times a factor into ``out``, which has another type and the same shape."""
    source, target = memory_of(x), memory_of(out)
    up, part = np.float32(factor), part_size(x.numel())

    def work(start: int) -> int:
        piece = slice(start, start + part)
        cast_line(source[piece], target[piece], up)
        return 0

    shared(work, range(0, x.numel(), part), x.numel())


def top_of(x: Tensor) -> int:
    """Bits of the largest magnitude of a tensor as float32; those of NaN are larger than all."""
    values, part = memory_of(x), part_size(x.numel())

    def work(start: int) -> int:
        return int(top_of_line(values[start : start + part]))

    return shared(work, range(0, x.numel(), part), x.numel())


def part_size(num_elements: int) -> int:
    """Elements of a thread's part: whole blocks, and whole lines of the cache."""
    share = ceil(num_elements / torch.get_num_threads() / (2 * LANES)) * 2 * LANES
    return max(SMALLEST_PART, share)
