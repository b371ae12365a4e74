"""Where the codes of a group stand: the scale of their steps, and the value of code 0.

The bits are those of the plain operations in `weightwise.lm.latent.codes`, which holds the method.
No sums of floating numbers are rearranged. Compiled code is kept on disk.
"""

from __future__ import annotations

from typing import Any

import numba as _numba
import numpy as np

from weightwise.numerics.kernels.vectors import (
    float_of,
    larger,
    larger_float,
    magnitude_bits,
    smaller,
)

numba: Any = _numba
compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")
F32, I32, U16 = np.float32, np.int32, np.uint16
LEAST_SCALE, LARGEST_HALF, RESOLUTION = F32(2.0**-14), F32(65504), F32(2.0**-10)
TO_WHOLE = F32(3 << 22)  # added and taken away again, it leaves a whole number
ERROR_STEPS, LARGEST_ERROR = F32(1 << 16), F32(1 << 20)
SIGN = U16(0x8000)
INFINITY, HALF_BITS, LOWEST_KEY = I32(0x7F800000), I32(0x3F000000), I32(-0x7FFFFFFF)  # of float32
NAN = U16(0x7E00)
# Grids to try for the rule "error", the one of the rule "range" first: the range is so much more
# than the largest code (at least 1: with one negative code more, whose sign the largest element
# gets), and from where code 0 is shifted, both in steps.
SYMMETRIC_GRIDS = np.array([0, 7 / 16, 1, 5 / 4, 23 / 16], F32)
ASYMMETRIC_GRIDS = np.array(
    [[0, 0], [0, 1 / 4], [0, -1 / 4], [5 / 16, 0], [5 / 16, 5 / 16], [5 / 8, 3 / 16],
     [5 / 8, 3 / 8], [7 / 8, 7 / 16]], F32,
)  # fmt: skip
REBIAS = 127 - 15  # float32's exponents are stored so much larger than float16's


@compiled
def grid_of(x: Any, bits: Any, is_symmetric: Any, is_tried: Any) -> Any:
    """Where the codes of a group of shape (n,) stand.

    Returns
    -------
    tuple
        Float16 bits of the value of code 0 and of the scale; smallest and largest code.
    """
    high_key, minus_low_key = range_of(x)
    if larger(high_key, minus_low_key) > INFINITY:
        return NAN, NAN, F32(0), F32(0)
    high, low = value_of(high_key), -value_of(minus_low_key)
    if is_symmetric:
        return symmetric_grid(x, high, low, F32((1 << (bits - 1)) - 1), is_tried)
    return asymmetric_grid(x, high, low, F32((1 << bits) - 1), is_tried)


@compiled
def symmetric_grid(x: Any, high: Any, low: Any, most: Any, is_tried: Any) -> Any:
    """The best grid around 0."""
    half, one = F32(0.5), F32(1)
    top, other = larger_float(high, -low), smaller(high, -low)
    best_bits, best_least = half_of_scale(top / most), -most
    if not is_tried:
        return U16(0), best_bits, best_least, most
    unit = unit_of(float_of_half(best_bits))
    best = error_of(x, F32(0), float_of_half(best_bits), best_least, most, unit)
    for excess in SYMMETRIC_GRIDS[1:]:
        step_bits = half_of_scale(top / (most + excess))
        inverse = one / float_of_half(step_bits)
        is_wide = excess >= one
        least = -most - one if is_wide else -most
        is_fit = -least - half < top * inverse <= -least + half
        if not is_fit or (is_wide and other * inverse > most + half):
            continue
        if is_wide and high > -low:
            step_bits |= SIGN
        error = error_of(x, F32(0), float_of_half(step_bits), least, most, unit)
        if error < best:
            best, best_bits, best_least = error, step_bits, least
    return U16(0), best_bits, best_least, most


@compiled
def asymmetric_grid(x: Any, high: Any, low: Any, most: Any, is_tried: Any) -> Any:
    """The best grid from the smallest element on."""
    half, zero = F32(0.5), F32(0)
    low_bits = half_of(low)
    start = float_of_half(low_bits)
    coarsest = abs(start) * RESOLUTION
    best_start, best_bits = low_bits, half_of_scale(larger_float((high - start) / most, coarsest))
    if not is_tried:
        return best_start, best_bits, zero, most
    unit = unit_of(float_of_half(best_bits))
    best = error_of(x, start, float_of_half(best_bits), zero, most, unit)
    for i in range(1, ASYMMETRIC_GRIDS.shape[0]):
        steps, shift = most + ASYMMETRIC_GRIDS[i, 0], ASYMMETRIC_GRIDS[i, 1]
        step_bits = half_of_scale(larger_float((high - start) / steps, coarsest))
        step = float_of_half(step_bits)
        inverse = F32(1) / step
        start_bits = half_of(start + shift * step)
        shifted = float_of_half(start_bits)
        first, last = (low - shifted) * inverse, (high - shifted) * inverse
        is_fit = -half <= first <= half and most - half < last <= most + half
        if not is_fit or step < abs(shifted) * RESOLUTION:
            continue
        error = error_of(x, shifted, step, zero, most, unit)
        if error < best:
            best, best_start, best_bits = error, start_bits, step_bits
    return best_start, best_bits, zero, most


@compiled
def unit_of(step: Any) -> Any:
    """What squared errors are multiplied by to become whole numbers."""
    return ERROR_STEPS / (step * step)


@compiled
def error_of(x: Any, start: Any, step: Any, least: Any, most: Any, unit: Any) -> Any:
    """Sum of squared errors in whole units, rounded up: the same in any order, 0 only for none."""
    inverse = F32(1) / step
    total = I32(0)
    for i in range(x.shape[0]):
        error = steps_of(x[i], start, inverse, least, most) * step + start - x[i]
        units = I32(smaller(error * error * unit, LARGEST_ERROR))
        total = I32(total + units + (error != F32(0)))
    return total


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
    """Bits of the float16 number nearest to a float32 one, ties to even, or of the largest.

    There is one zero.
    """
    magnitude = smaller(abs(x), LARGEST_HALF)
    bits = magnitude_bits(magnitude)
    if magnitude < LEAST_SCALE:
        # Beside 1/2, float32 has the resolution that float16 has down there.
        bits = magnitude_bits(magnitude + F32(0.5)) - HALF_BITS
    else:
        bits = ((bits + 0xFFF + (bits >> 13 & 1)) >> 13) - (REBIAS << 10)
    return U16(bits | 0x8000) if x < F32(0) and bits > 0 else U16(bits)


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
def steps_of(x: Any, start: Any, inverse: Any, least: Any, most: Any) -> Any:
    """Code of a number, as float32; ties to even."""
    steps = larger_float(smaller((x - start) * inverse, most), least)
    return steps + TO_WHOLE - TO_WHOLE
