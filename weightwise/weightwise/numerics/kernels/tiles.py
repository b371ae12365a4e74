# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
"""The compiled kernels of the GPU path: largest magnitudes, and fake-quantization, by tiles.

Triton reads annotations: arguments that it knows at run time only must have none.
"""

from __future__ import annotations

import triton
import triton.language as tl

from weightwise.numerics.kernels import constants
from weightwise.numerics.reference import LEAST_TENSOR_SCALE, MAX_SCALE

# What compiled code may know of other modules are constants of Triton's own.
EVEN, AWAY = tl.constexpr(constants.EVEN), tl.constexpr(constants.AWAY)
BFLOAT16, E8M0 = tl.constexpr(constants.BFLOAT16), tl.constexpr(constants.E8M0)
E4M3, FLOOR = tl.constexpr(constants.E4M3), tl.constexpr(constants.FLOOR)
NEAREST, RCEIL = tl.constexpr(constants.NEAREST), tl.constexpr(constants.RCEIL)
INFINITY_BITS = tl.constexpr(constants.INFINITY_BITS)
LARGEST_FACTOR, LEAST_OUTER = tl.constexpr(MAX_SCALE), tl.constexpr(LEAST_TENSOR_SCALE)


@triton.jit
def find_tops(
    x_ptr, tops_ptr, num_groups, length, inner, size, num_blocks, num_chunks,
    GROUPS: tl.constexpr, CHUNK: tl.constexpr, IS_WIDE: tl.constexpr,
):  # fmt: skip
    """Raise the tops of groups to those of a tile; see `Tiling` for the arguments."""
    groups, offsets, is_inside = tile_of(
        num_groups, length, inner, size, num_blocks, num_chunks, GROUPS, CHUNK, IS_WIDE
    )
    x = tl.load(x_ptr + offsets, mask=is_inside, other=0.0).to(tl.float32)
    tops = tl.max(magnitude_bits(x), axis=1)
    tl.atomic_max(tops_ptr + groups, tops, mask=groups < num_groups, sem="relaxed")


@triton.jit(do_not_specialize=["e_max", "half", "seed"])
def quantize_tiles(
    x_ptr, out_ptr, tops_ptr, worst_ptr, num_groups, length, inner, size, num_blocks, num_chunks,
    limit, e_min_bits, shift, e_max, half, least, seed,
    SCALE: tl.constexpr, RULE: tl.constexpr, ROUNDING: tl.constexpr, IS_DIVIDED: tl.constexpr,
    IS_WHOLE: tl.constexpr, IS_CHECKED: tl.constexpr, IN_FOURS: tl.constexpr,
    GROUPS: tl.constexpr, CHUNK: tl.constexpr, IS_WIDE: tl.constexpr,
):  # fmt: skip
    """Fake-quantize one tile; see `Tiling` and `Constants` for the arguments."""
    groups, offsets, is_inside = tile_of(
        num_groups, length, inner, size, num_blocks, num_chunks, GROUPS, CHUNK, IS_WIDE
    )
    x = tl.load(x_ptr + offsets, mask=is_inside, other=0.0).to(tl.float32)
    if IS_WHOLE:
        tops = tl.max(magnitude_bits(x), axis=1)
    else:
        tops = tl.load(tops_ptr + groups, mask=groups < num_groups, other=0)
    if IS_CHECKED:
        tl.atomic_max(worst_ptr + groups * 0, tops, mask=tops >= INFINITY_BITS, sem="relaxed")
    up, down = factors_of(tops, worst_ptr, limit, e_max, half, least, SCALE, RULE)
    up, down = up[:, None], down[:, None]
    scaled = (magnitude_bits(x * up)).to(tl.float32, bitcast=True)
    scaled = tl.where(scaled < limit, scaled, limit)
    if ROUNDING == EVEN:
        rounded = nearest(scaled, e_min_bits, shift)
    elif ROUNDING == AWAY:
        rounded = by_steps(scaled, 0.5, e_min_bits, shift, True)
    else:
        words = random_words(seed, offsets, IN_FOURS, GROUPS, CHUNK, IS_WIDE)
        chance = (words >> 8).to(tl.float32) * 5.9604644775390625e-08  # 2^-24
        rounded = by_steps(scaled, chance, e_min_bits, shift, False)
    rounded = tl.div_rn(rounded, up) if IS_DIVIDED else rounded * down
    bits = magnitude_bits(rounded) | (x.to(tl.int32, bitcast=True) & -0x80000000)
    result = bits.to(tl.float32, bitcast=True).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + offsets, result, mask=is_inside)


@triton.jit
def tile_of(
    num_groups, length, inner, size, num_blocks, num_chunks,
    GROUPS: tl.constexpr, CHUNK: tl.constexpr, IS_WIDE: tl.constexpr,
):  # fmt: skip
    """Groups of this program's tile, positions of its elements, and which of them exist."""
    program = tl.program_id(0)
    if IS_WIDE:
        program = program.to(tl.int64)
    groups = program // num_chunks * GROUPS + tl.arange(0, GROUPS)
    within = program % num_chunks * CHUNK + tl.arange(0, CHUNK)
    block = groups // inner
    first = (block % num_blocks * size)[:, None]
    row = first + within[None, :]
    is_inside = (within < size)[None, :] & (row < length) & (groups < num_groups)[:, None]
    offsets = ((block // num_blocks * length)[:, None] + row) * inner + (groups % inner)[:, None]
    return groups, offsets, is_inside


@triton.jit
def magnitude_bits(x):
    """Bits of |x|; as integers they are ordered like the magnitudes, NaN on top."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def factors_of(
    tops, worst_ptr, limit, e_max, half, least, SCALE: tl.constexpr, RULE: tl.constexpr
):  # fmt: skip
    """Factors before and after rounding of groups; NaN where a group is not finite.

    The second one holds only where it is exact to multiply, or what tools do; elsewhere the first
    one divides.
    """
    amax = tops.to(tl.float32, bitcast=True)
    if SCALE == E8M0:
        exponent = shared_exponent(tops, amax, limit, e_max, half, RULE)
        up, down = power_of_two(-exponent), power_of_two(exponent)
    elif SCALE == E4M3:
        top = tl.load(worst_ptr)
        outer = tl.div_rn(top.to(tl.float32, bitcast=True), 448.0 * limit)
        outer = tl.where(outer < LEAST_OUTER, LEAST_OUTER, outer)
        outer = tl.where(top == 0, 1.0, outer)
        inner = tl.div_rn(tl.div_rn(amax, limit), outer)
        inner = tl.where(inner < 448.0, inner, 448.0)
        inner = tl.where(inner > least, inner, least)
        # E4M3 begins at 2^-6 and has three mantissa bits.
        inner = nearest(inner, 121 << 23, 20 << 23)
        up, down = tl.div_rn(tl.div_rn(1.0, outer), inner), inner * outer
    else:
        up = tl.div_rn(limit, tl.where(tops == 0, limit, amax))
        up = tl.where(up < LARGEST_FACTOR, up, LARGEST_FACTOR)
        if SCALE == BFLOAT16:
            bits = magnitude_bits(up)
            bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0x7FFF0000
            up = bits.to(tl.float32, bitcast=True)
        down = up
    not_finite = tops >= INFINITY_BITS
    return tl.where(not_finite, float("nan"), up), tl.where(not_finite, float("nan"), down)


@triton.jit
def shared_exponent(tops, amax, limit, e_max, half, RULE: tl.constexpr):
    """Exponent of the power of two of each group, -127 to 127; see the reference."""
    bits = tops
    if RULE == RCEIL:
        bits = magnitude_bits(tl.div_rn(amax, limit))
    elif RULE == NEAREST:
        bits = bits + half
    exponent = (bits >> 23) - 127
    if RULE != RCEIL:
        exponent = exponent - e_max
    if RULE != FLOOR and RULE != NEAREST:
        exponent = exponent + (bits & 0x7FFFFF != 0).to(tl.int32)
    return tl.minimum(tl.maximum(exponent, -127), 127)


@triton.jit
def power_of_two(exponent):
    """2^exponent, from 2^-127, which is subnormal, to 2^127."""
    bits = tl.where(exponent > -127, exponent + 127 << 23, 1 << 22)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def nearest(magnitude, e_min_bits, shift):
    """Value of the format nearest to a magnitude, ties to even; see the reference."""
    magic = (power_bits(magnitude, e_min_bits) + shift | 0x400000).to(tl.float32, bitcast=True)
    return (magnitude + magic) - magic


@triton.jit
def by_steps(magnitude, chance, e_min_bits, shift, TIES_UP: tl.constexpr):
    """Value above or below a magnitude, up where the rest of a step exceeds a chance."""
    step_bits = power_bits(magnitude, e_min_bits) - (23 << 23) + shift
    step = step_bits.to(tl.float32, bitcast=True)
    # The inverse of a power of two is exact: a product for a quotient.
    steps = magnitude * ((254 << 23) - step_bits).to(tl.float32, bitcast=True)
    whole = steps.to(tl.int32).to(tl.float32)
    rest = steps - whole
    is_up = rest >= chance if TIES_UP else rest > chance
    return (whole + is_up.to(tl.float32)) * step


@triton.jit
def power_bits(magnitude, e_min_bits):
    """Bits of the power of two at or below a magnitude, at least those given."""
    return tl.maximum(magnitude.to(tl.int32, bitcast=True) & INFINITY_BITS, e_min_bits)


@triton.jit
def random_words(
    seed, positions,
    IN_FOURS: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr, IS_WIDE: tl.constexpr,
):  # fmt: skip
    """Random word of each position, see `weightwise.numerics.philox`.

    A counter gives four words: where positions come in fours that begin at a multiple of four,
    each is used.
    """
    if IN_FOURS:
        fours = tl.reshape(positions, (GROUPS, CHUNK // 4, 4))
        counter = tl.min(fours, axis=2) // 4
    else:
        counter = positions // 4
    low = counter.to(tl.uint32)
    none = low * 0
    high = (counter >> 32).to(tl.uint32) if IS_WIDE else none
    w0, w1, w2, w3 = tl.philox(seed, low, high, none, none)
    if IN_FOURS:
        words = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), (GROUPS, CHUNK))
    else:
        lane = positions % 4
        even, odd = tl.where(lane == 0, w0, w2), tl.where(lane == 1, w1, w3)
        words = tl.where(lane % 2 == 0, even, odd)
    return words
