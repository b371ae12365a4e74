"""Elements as they are stored, in one or two bytes: to float32 and back, in LLVM instructions.

Each instruction takes scalars and vectors alike, as in `vectors`. E4M3 and E5M2 are the OCP's. Both
go through float16 on the way up, which has all their values: E5M2 is its upper byte, E4M3 a number
with one exponent bit less, 2^8 too small. On the way down, magnitudes are rounded to the nearest
value, ties to even, by adding a power of two whose steps are the format's at that magnitude: the
code is then in the last bits of the sum. What is too large becomes the largest value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils

from weightwise.numerics.kernels.vectors import intrinsic, like, splat

if TYPE_CHECKING:
    from torch import Tensor

FLOAT32, HALF, BFLOAT16, E4M3, E5M2 = range(5)
LANES = 16  # elements of a block

I8, I16, I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
F16, F32 = ir.HalfType(), ir.FloatType()
# The type of an array's elements says what they are: signed integers are the wider ranges.
CODES = {
    torch.float32: "<f4",
    torch.float16: "<u2",
    torch.bfloat16: "<i2",
    torch.float8_e4m3fn: "|u1",
    torch.float8_e5m2: "|i1",
}
KINDS = {
    types.float32: FLOAT32,
    types.uint16: HALF,
    types.int16: BFLOAT16,
    types.uint8: E4M3,
    types.int8: E5M2,
}


class Narrow(NamedTuple):
    """An 8-bit format within float32's bits.

    Parameters
    ----------
    limit, least
        Bits of the largest value and of the smallest normal one.
    drop
        Mantissa bits of float32 that the format lacks.
    """

    limit: int
    least: int
    drop: int


NARROW = {
    E4M3: Narrow(limit=0x43E00000, least=121 << 23, drop=20),
    E5M2: Narrow(limit=0x47600000, least=113 << 23, drop=21),
}


class _Memory:
    """What numpy asks for the memory of an array."""

    def __init__(self, **interface: Any) -> None:
        self.__array_interface__ = interface


def memory_of(x: Tensor) -> Any:
    """Array over the memory of a contiguous tensor of a stored type, shape (n,).

    float32 as such, the others as integers of their size, see `CODES`. The caller keeps the tensor
    alive; see `weightwise.numerics.kernels.cpu.memory_of` for why it is not ``x.numpy()``.
    """
    place = (x.data_ptr(), False)
    return np.asarray(_Memory(data=place, shape=(x.numel(),), typestr=CODES[x.dtype], version=3))


def fixed(lanes: int | None, element: ir.Type, value: float) -> ir.Constant:
    """A constant in all lanes."""
    return ir.Constant(like(lanes, element), value if lanes is None else [value] * lanes)


def widen(b: ir.IRBuilder, lanes: int | None, code: ir.Value, kind: int) -> ir.Value:
    """float32 numbers that codes stand for."""
    if kind != E4M3:
        return _raw(b, lanes, code, kind)
    # The one code that is not a number has all ones.
    ones = fixed(lanes, I8, 0x7F)
    is_nan = b.icmp_unsigned("==", b.and_(code, ones), ones)
    value = b.fmul(_raw(b, lanes, code, kind), fixed(lanes, F32, 256.0))
    return b.select(is_nan, fixed(lanes, F32, float("nan")), value)


def widen_times(
    b: ir.IRBuilder, lanes: int | None, code: ir.Value, kind: int, factor: ir.Value
) -> ir.Value:
    """Numbers that codes stand for times a scalar, in one multiplication; no code may be NaN."""
    if kind == E4M3:
        factor = b.fmul(factor, F32(256.0))
    return b.fmul(_raw(b, lanes, code, kind), splat(b, lanes, factor))


def _raw(b: ir.IRBuilder, lanes: int | None, code: ir.Value, kind: int) -> ir.Value:
    """What codes stand for; of E4M3 2^-8 of that, and no NaN."""
    floats, halves = like(lanes, F32), like(lanes, F16)
    if kind == FLOAT32:
        return code
    if kind == HALF:
        return b.fpext(b.bitcast(code, halves), floats)
    if kind == BFLOAT16:
        bits = b.shl(b.zext(code, like(lanes, I32)), fixed(lanes, I32, 16))
        return b.bitcast(bits, floats)
    wide = b.sext(code, like(lanes, I16))
    if kind == E5M2:
        return b.fpext(b.bitcast(b.shl(wide, fixed(lanes, I16, 8)), halves), floats)
    # The sign was spread over all upper bits; it stays in the first one alone.
    placed = b.and_(b.shl(wide, fixed(lanes, I16, 7)), fixed(lanes, I16, 0xBF80))
    return b.fpext(b.bitcast(placed, halves), floats)


def narrow(
    b: ir.IRBuilder, lanes: int | None, x: ir.Value, kind: int, *, within: bool = False
) -> ir.Value:
    """Codes of the nearest values, ties to even; NaN becomes the largest value, as the rest does.

    bfloat16 has float32's range: there NaN stays NaN and nothing needs a limit. float16 needs none
    of what is known to be within its range.
    """
    if kind == FLOAT32:
        return x
    bits = b.bitcast(x, like(lanes, I32))
    if kind == BFLOAT16:
        odd = b.and_(b.lshr(bits, fixed(lanes, I32, 16)), fixed(lanes, I32, 1))
        rounded = b.add(b.add(bits, fixed(lanes, I32, 0x7FFF)), odd)
        is_nan = b.fcmp_unordered("uno", x, x)
        rounded = b.select(is_nan, fixed(lanes, I32, 0x7FC00000), rounded)
        return b.trunc(b.lshr(rounded, fixed(lanes, I32, 16)), like(lanes, I16))
    if kind == HALF:
        value = x if within else _within(b, lanes, x, 65504.0)
        return b.bitcast(b.fptrunc(value, like(lanes, F16)), like(lanes, I16))
    form = NARROW[kind]
    magnitude = b.and_(bits, fixed(lanes, I32, 0x7FFFFFFF))
    limit = fixed(lanes, I32, form.limit)
    magnitude = b.select(b.icmp_unsigned("<", magnitude, limit), magnitude, limit)
    power = b.and_(magnitude, fixed(lanes, I32, 0x7F800000))
    least = fixed(lanes, I32, form.least)
    power = b.select(b.icmp_unsigned(">", power, least), power, least)
    # The addend's own last bits let codes begin at 0: exponents below the least one do not count.
    begin = -(form.least >> form.drop) & 0xFF
    magic = b.add(power, fixed(lanes, I32, (form.drop << 23) + begin))
    raised = b.fadd(b.bitcast(magnitude, like(lanes, F32)), b.bitcast(magic, like(lanes, F32)))
    code = b.add(b.bitcast(raised, like(lanes, I32)), b.lshr(power, fixed(lanes, I32, form.drop)))
    sign = b.and_(b.lshr(bits, fixed(lanes, I32, 24)), fixed(lanes, I32, 0x80))
    return b.trunc(b.or_(code, sign), like(lanes, I8))


def _within(b: ir.IRBuilder, lanes: int | None, x: ir.Value, limit: float) -> ir.Value:
    """The nearest number of at most some magnitude; the largest one for NaN."""
    most, least = fixed(lanes, F32, limit), fixed(lanes, F32, -limit)
    value = b.select(b.fcmp_ordered("<", x, most), x, most)
    return b.select(b.fcmp_ordered(">", value, least), value, least)


def address(
    context: Any, b: ir.IRBuilder, array_type: Any, array: ir.Value, start: ir.Value, lanes: int
) -> ir.Value:
    """Where a block of an array lies."""
    made = context.make_array(array_type)(context, b, array)
    element = made.data.type.pointee
    return b.bitcast(b.gep(made.data, [start]), ir.VectorType(element, lanes).as_pointer())


@intrinsic(prefer_literal=True)
def cast_block(
    _context: Any, x: Any, out: Any, _start: types.Type, lanes: Any, _factor: types.Type
) -> Any:
    """Cast a block from one kind to another, times a factor in between."""
    size, source, target = lanes.literal_value, KINDS[x.dtype], KINDS[out.dtype]

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        at = address(context, b, signature.args[0], args[0], args[2], size)
        value = widen(b, size, b.load(at, align=1), source)
        value = b.fmul(value, splat(b, size, args[4]))
        to = address(context, b, signature.args[1], args[1], args[2], size)
        b.store(narrow(b, size, value, target), to, align=1)
        return context.get_dummy_value()

    return types.void(x, out, types.intp, lanes, types.float32), codegen


@intrinsic(prefer_literal=True)
def block_top(_context: Any, x: Any, _start: types.Type, lanes: Any) -> Any:
    """Bits of the largest magnitude of a block; NaN is larger than all numbers."""
    size = lanes.literal_value

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        at = address(context, b, signature.args[0], args[0], args[1], size)
        value = widen(b, size, b.load(at, align=1), KINDS[x.dtype])
        return top(b, size, value)

    return types.int32(x, types.intp, lanes), codegen


def top(b: ir.IRBuilder, lanes: int, value: ir.Value) -> ir.Value:
    """Bits of the largest magnitude of a vector."""
    vector = ir.VectorType(I32, lanes)
    bits = b.and_(b.bitcast(value, vector), fixed(lanes, I32, 0x7FFFFFFF))
    reduce = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(I32, [vector]), f"llvm.vector.reduce.smax.v{lanes}i32"
    )
    return b.call(reduce, [bits])


compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


@compiled
def cast_line(x: Any, out: Any, factor: Any) -> None:
    """Cast n neighbours in memory, times a factor.

    Parameters
    ----------
    x, out
        Arrays of shape (n,) as `memory_of` gives them.
    factor
        float32.
    """
    whole = x.shape[0] // LANES * LANES
    for start in range(0, whole, LANES):
        cast_block(x, out, start, LANES, factor)
    for i in range(whole, x.shape[0]):
        cast_block(x, out, i, 1, factor)


@compiled
def top_of_line(x: Any) -> Any:
    """Bits of the largest magnitude of n neighbours in memory, shape (n,)."""
    largest = np.int32(0)
    whole = x.shape[0] // LANES * LANES
    for start in range(0, whole, LANES):
        largest = max(largest, block_top(x, start, LANES))
    for i in range(whole, x.shape[0]):
        largest = max(largest, block_top(x, i, 1))
    return largest
