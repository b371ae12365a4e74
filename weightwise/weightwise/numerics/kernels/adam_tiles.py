# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
"""The compiled kernels of the optimizer's step on GPUs: a tile of neighbours for each program.

Triton reads annotations: arguments that it knows at run time only must have none. 8-bit and
bfloat16 numbers are handled as integers, so that every GPU takes them; the rules are those of
`weightwise.numerics.kernels.storage`.
"""

from __future__ import annotations

import triton
import triton.language as tl

FLOAT32, HALF, BFLOAT16 = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
E4M3, E5M2 = tl.constexpr(3), tl.constexpr(4)
INFINITY_BITS = tl.constexpr(0x7F800000)
# Places of the workspace of a tensor: largest magnitudes of the new weight and moments, that of
# finite weights, and the weight's scale.
NUM_PLACES = 5


@triton.jit(do_not_specialize=["step", "eps", "shrink", "pull"])
def move_tiles(
    w_ptr, g_ptr, m_ptr, v_ptr, w_scale, g_scale, m_scale, v_scale, ups_ptr, found_ptr, refused_ptr,
    size, sign, beta1, beta2, take1, take2, step, eps, shrink, pull, largest,
    W: tl.constexpr, G: tl.constexpr, M: tl.constexpr, V: tl.constexpr,
    HAS_PULL: tl.constexpr, IS_SECOND: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Move a tile, unless a new weight is beyond the largest value under the scale in ``ups``.

    The second time tiles that were refused are moved under the scale that all weights have, and
    the other ones are brought to it.
    """
    tile = tl.program_id(0)
    at = tile.to(tl.int64) * TILE + tl.arange(0, TILE)
    is_inside = at < size
    w_up = tl.load(ups_ptr)
    new_up = w_up
    if IS_SECOND:
        top = tl.load(found_ptr + 3).to(tl.float32, bitcast=True)
        while top * new_up > largest:
            new_up = new_up * 0.5
        if tile == 0:
            tl.store(found_ptr + 4, new_up.to(tl.int32, bitcast=True))
    is_moved = True
    if IS_SECOND:
        is_moved = tl.load(refused_ptr + tile) != 0
    if is_moved:
        g_down = tl.div_rn(sign, tl.load(g_scale))
        w = widen(w_ptr, at, is_inside, W)
        g = widen(g_ptr, at, is_inside, G) * g_down
        w_down = tl.div_rn(1.0, tl.load(w_scale))
        if HAS_PULL:
            g = g + pull * (w * w_down)
        m = widen(m_ptr, at, is_inside, M) * (beta1 * tl.div_rn(1.0, tl.load(m_scale)))
        m = m + take1 * g
        v = widen(v_ptr, at, is_inside, V) * (beta2 * tl.div_rn(1.0, tl.load(v_scale)))
        v = v + take2 * (g * g)
        change = tl.div_rn(step * m, tl.sqrt_rn(v) + eps)
        w = w * (shrink * w_down) - change
        is_kept = True
        if not IS_SECOND:
            tops = magnitude_bits(tl.where(is_inside, w, 0.0))
            tl.atomic_max(found_ptr, tl.max(tops, 0), sem="relaxed")
            raise_top(found_ptr + 1, m, is_inside)
            raise_top(found_ptr + 2, v, is_inside)
            # What is not finite saturates: no scale would hold it.
            finite_top = tl.max(tl.where(tops < INFINITY_BITS, tops, 0), 0)
            tl.atomic_max(found_ptr + 3, finite_top, sem="relaxed")
            is_kept = finite_top.to(tl.float32, bitcast=True) * w_up <= largest
            tl.store(refused_ptr + tile, (is_kept == 0).to(tl.int8))
        if is_kept:
            narrow(w_ptr, at, is_inside, w * new_up, W)
            narrow(m_ptr, at, is_inside, m * tl.load(ups_ptr + 1), M)
            narrow(v_ptr, at, is_inside, v * tl.load(ups_ptr + 2), V)
    elif new_up != w_up:
        narrow(w_ptr, at, is_inside, widen(w_ptr, at, is_inside, W) * tl.div_rn(new_up, w_up), W)


@triton.jit
def magnitude_bits(x):
    """Bits of |x|, ordered like the magnitudes."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def raise_top(top_ptr, x, is_inside):
    """Raise the bits of a largest magnitude to those of a tile."""
    top = tl.max(magnitude_bits(tl.where(is_inside, x, 0.0)), 0)
    tl.atomic_max(top_ptr, top, sem="relaxed")


@triton.jit
def widen(x_ptr, at, is_inside, KIND: tl.constexpr):
    """float32 numbers that a tile of codes stands for."""
    code = tl.load(x_ptr + at, mask=is_inside, other=0)
    if KIND == FLOAT32:
        value = code
    elif KIND == HALF:
        value = code.to(tl.float32)
    elif KIND == BFLOAT16:
        value = (code.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    elif KIND == E5M2:
        value = (code.to(tl.int16) << 8).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        wide = code.to(tl.int16)
        half = ((wide & 0x7F) << 7) | ((wide & 0x80) << 8)
        value = half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return value


@triton.jit
def narrow(x_ptr, at, is_inside, value, KIND: tl.constexpr):
    """Store a tile: the nearest codes, ties to even; the largest value for what is beyond it."""
    if KIND == FLOAT32:
        code = value
    elif KIND == HALF:
        value = tl.where(value < 65504.0, value, 65504.0)
        code = tl.where(value > -65504.0, value, -65504.0).to(tl.float16)
    elif KIND == BFLOAT16:
        bits = value.to(tl.int32, bitcast=True)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        rounded = tl.where(value != value, 0x7FC00000, rounded)
        code = (rounded >> 16).to(tl.int16)
    else:
        DROP: tl.constexpr = 20 if KIND == E4M3 else 21
        LIMIT: tl.constexpr = 0x43E00000 if KIND == E4M3 else 0x47600000
        LEAST: tl.constexpr = (121 << 23) if KIND == E4M3 else (113 << 23)
        magnitude = magnitude_bits(value)
        magnitude = tl.where(magnitude < LIMIT, magnitude, LIMIT)
        power = magnitude & 0x7F800000
        power = tl.where(power > LEAST, power, LEAST)
        magic = (power + (DROP << 23)).to(tl.float32, bitcast=True)
        raised = magnitude.to(tl.float32, bitcast=True) + magic
        code = (raised.to(tl.int32, bitcast=True) & 0xFF) + ((power - LEAST) >> DROP)
        code = (code | ((value.to(tl.int32, bitcast=True) >> 24) & 0x80)).to(tl.uint8)
    tl.store(x_ptr + at, code, mask=is_inside)
