"""Building blocks of the CPU kernels: bits of float32 numbers, one or a whole block at a time.

Each is written once as LLVM instructions, which take scalars and vectors alike. Scalars stand in
loops that the compiler vectorizes. Blocks of 16 to 128 elements are one vector each: loops of such
lengths would spend their time on setting up.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

intrinsic: Any = _intrinsic  # its decorated functions have other arguments when they are called
I32, F32 = ir.IntType(32), ir.FloatType()
MAGNITUDE, EXPONENT, SIGN, QUIET = 0x7FFFFFFF, 0x7F800000, -0x80000000, 0x400000


def like(lanes: int | None, element: ir.Type) -> ir.Type:
    """An element, or a vector of so many."""
    return element if lanes is None else ir.VectorType(element, lanes)


def _constant(lanes: int | None, value: int) -> ir.Constant:
    return ir.Constant(like(lanes, I32), value if lanes is None else [value] * lanes)


def splat(b: ir.IRBuilder, lanes: int | None, value: ir.Value) -> ir.Value:
    """A scalar in all lanes."""
    if lanes is None:
        return value
    one = b.insert_element(
        ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, I32(0)
    )
    zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return b.shuffle_vector(one, one, zeros)


def _bits(b: ir.IRBuilder, lanes: int | None, x: ir.Value, mask: int) -> ir.Value:
    return b.and_(b.bitcast(x, like(lanes, I32)), _constant(lanes, mask))


def _larger(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed(">", x, y), x, y)


def _round(b: ir.IRBuilder, lanes: int | None, x: ir.Value, args: list[ir.Value]) -> ir.Value:
    """Value of the format nearest to |x * up|, ties to even (see the reference)."""
    up, limit, e_min_bits, shift = (splat(b, lanes, value) for value in args)
    floats, integers = like(lanes, F32), like(lanes, I32)
    magnitude = b.bitcast(_bits(b, lanes, b.fmul(x, up), MAGNITUDE), floats)
    magnitude = b.select(b.fcmp_ordered("<", magnitude, limit), magnitude, limit)
    power = _larger(b, _bits(b, lanes, magnitude, EXPONENT), e_min_bits)
    magic = b.or_(b.add(power, shift), _constant(lanes, QUIET))
    magic = b.bitcast(magic, floats)
    rounded = b.fsub(b.fadd(magnitude, magic), magic)
    assert rounded.type == floats
    assert power.type == integers
    return rounded


def _signed(b: ir.IRBuilder, lanes: int | None, magnitude: ir.Value, x: ir.Value) -> ir.Value:
    """The magnitude with the sign of x."""
    bits = b.or_(_bits(b, lanes, magnitude, MAGNITUDE), _bits(b, lanes, x, SIGN))
    return b.bitcast(bits, like(lanes, F32))


@intrinsic
def magnitude_bits(_context: Any, _x: types.Type) -> Any:
    """Bits of |x|; as integers they are ordered like the magnitudes, NaN on top."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return _bits(b, None, args[0], MAGNITUDE)

    return types.int32(types.float32), codegen


@intrinsic
def float_of(_context: Any, _bits_type: types.Type) -> Any:
    """The float32 number of given bits."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.bitcast(args[0], F32)

    return types.float32(types.int32), codegen


@intrinsic
def larger(_context: Any, _x: types.Type, _y: types.Type) -> Any:
    """The larger of two int32 numbers, as one: numba's own max widens them."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return _larger(b, *args)

    return types.int32(types.int32, types.int32), codegen


@intrinsic
def smaller(_context: Any, _x: types.Type, _y: types.Type) -> Any:
    """The smaller of two float32 numbers, the second where one is NaN."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.select(b.fcmp_ordered("<", *args), *args)

    return types.float32(types.float32, types.float32), codegen


@intrinsic
def larger_float(_context: Any, _x: types.Type, _y: types.Type) -> Any:
    """The larger of two float32 numbers, the second where one is NaN."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.select(b.fcmp_ordered(">", *args), *args)

    return types.float32(types.float32, types.float32), codegen


@intrinsic
def power_of(_context: Any, _magnitude: types.Type, _e_min_bits: types.Type) -> Any:
    """Power of two at or below a magnitude, at least that of the exponent bits given."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.bitcast(_larger(b, _bits(b, None, args[0], EXPONENT), args[1]), F32)

    return types.float32(types.float32, types.int32), codegen


@intrinsic
def nearest(
    _context: Any, _x: types.Type, _up: types.Type, _limit: types.Type,
    _e_min_bits: types.Type, _shift: types.Type,
) -> Any:  # fmt: skip
    """Value of the format nearest to |x * up|, ties to even."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return _round(b, None, args[0], args[1:])

    signature = types.float32(types.float32, types.float32, types.float32, types.int32, types.int32)
    return signature, codegen


@intrinsic
def signed(_context: Any, _magnitude: types.Type, _x: types.Type) -> Any:
    """A magnitude with the sign of x."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return _signed(b, None, *args)

    return types.float32(types.float32, types.float32), codegen


def _address(
    context: Any, b: ir.IRBuilder, array_type: Any, args: list[ir.Value], lanes: int
) -> Any:
    """Address of a block: args are an array and where the block starts."""
    data = context.make_array(array_type)(context, b, args[0]).data
    return b.bitcast(b.gep(data, [args[1]]), ir.VectorType(F32, lanes).as_pointer())


def _load(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return b.load(address, align=4)


@intrinsic(prefer_literal=True)
def block_magnitude_bits(_context: Any, x: Any, _start: types.Type, lanes: Any) -> Any:
    """Bits of the largest magnitude of a block of as many elements as the literal says."""
    size = lanes.literal_value

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        block = _load(b, _address(context, b, signature.args[0], args, size))
        bits = _bits(b, size, block, MAGNITUDE)
        reduce_type = ir.FunctionType(I32, [bits.type])
        name = f"llvm.vector.reduce.smax.v{size}i32"
        reduce = cgutils.get_or_insert_function(b.module, reduce_type, name)
        return b.call(reduce, [bits])

    return types.int32(x, types.intp, lanes), codegen


@intrinsic(prefer_literal=True)
def round_block(
    _context: Any, x: Any, out: Any, _start: types.Type, lanes: Any, _up: types.Type,
    _down: types.Type, is_divided: Any, streams: Any, _limit: types.Type,
    _e_min_bits: types.Type, _shift: types.Type,
) -> Any:  # fmt: skip
    """Fake-quantize a block: scale up, round, and scale down by dividing or multiplying.

    A block that streams goes past the caches to memory; it must start at a multiple of 64 bytes.
    """
    size, divides = lanes.literal_value, bool(is_divided.literal_value)
    is_streamed = bool(streams.literal_value)

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        x_type, out_type = signature.args[0], signature.args[1]
        block = _load(b, _address(context, b, x_type, [args[0], args[2]], size))
        rounded = _round(b, size, block, [args[4], *args[8:]])
        if divides:
            rounded = b.fdiv(rounded, splat(b, size, args[4]))
        else:
            rounded = b.fmul(rounded, splat(b, size, args[5]))
        address = _address(context, b, out_type, [args[1], args[2]], size)
        store = b.store(_signed(b, size, rounded, block), address, align=64 if is_streamed else 4)
        if is_streamed:
            store.set_metadata("nontemporal", b.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    signature = types.void(
        x, out, types.intp, lanes, types.float32, types.float32, is_divided, streams,
        types.float32, types.int32, types.int32,
    )  # fmt: skip
    return signature, codegen
