"""The inner loop of products with few rows: a tile of sums that stay in registers.

Sums run over whole vectors of the two factors. At the end those of a tile are added up together:
two vectors become one that holds the halves of both, added, until one vector holds all sums. So a
sum comes out the same to the last bit in whatever tile it stands.

The next weights are asked for while the present ones are used: the processor itself looks ahead
only within a page of memory.
"""

# Shapes: R rows, K columns that are summed over, N rows of the matrix

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

intrinsic: Any = _intrinsic
LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
AHEAD = 1 << 14  # bytes from a weight to the one that is asked for
F32, I8, I32, I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
VECTOR, MASK = ir.VectorType(F32, LANES), ir.VectorType(ir.IntType(1), LANES)
ZERO = ir.Constant(VECTOR, [0.0] * LANES)


@intrinsic
def floats_at(_context: Any, _address: types.Type) -> Any:
    """Pointer to the float32 numbers at an address."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.inttoptr(args[0], F32.as_pointer())

    return types.CPointer(types.float32)(types.int64), codegen


@intrinsic
def integers_at(_context: Any, _address: types.Type) -> Any:
    """Pointer to the int64 numbers at an address."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.inttoptr(args[0], I64.as_pointer())

    return types.CPointer(types.int64)(types.int64), codegen


@intrinsic(prefer_literal=True)
def tile(
    _context: Any, x: Any, _r: types.Type, w: Any, _n: types.Type, y: Any, rows: Any, outs: Any
) -> Any:
    """Products of ``rows`` rows of x from r on with ``outs`` rows of w from n on, into y[r, n].

    The arrays are contiguous, of shapes (R, K), (N, K) and (R, N); the numbers are literals with a
    product of at most `LANES`.
    """
    num_rows, num_outs = rows.literal_value, outs.literal_value

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        kinds = signature.args
        x_KR, w_KN, y_NR = (
            context.make_array(kinds[place])(context, b, args[place]) for place in (0, 2, 4)
        )
        width = cgutils.unpack_tuple(b, x_KR.shape, 2)[1]
        stride = cgutils.unpack_tuple(b, y_NR.shape, 2)[1]
        left = _row_addresses(b, x_KR.data, args[1], width, num_rows)
        right = _row_addresses(b, w_KN.data, args[3], width, num_outs)
        sums = _sums(b, left, right, width)
        target = _row_addresses(b, y_NR.data, args[1], stride, num_rows)
        for place, total in enumerate(_totals(b, sums)):
            row, out = divmod(place, num_outs)
            b.store(total, b.gep(target[row], [b.add(args[3], I64(out))]), align=4)
        return context.get_dummy_value()

    signature = types.void(x, types.intp, w, types.intp, y, rows, outs)
    return signature, codegen


def _row_addresses(
    b: ir.IRBuilder, data: ir.Value, first: ir.Value, width: ir.Value, count: int
) -> list[ir.Value]:
    """Where rows of a matrix begin."""
    return [b.gep(data, [b.mul(b.add(first, I64(row)), width)]) for row in range(count)]


def _sums(
    b: ir.IRBuilder, left: Sequence[ir.Value], right: Sequence[ir.Value], width: ir.Value
) -> list[ir.Value]:
    """A vector of sums for each pair of rows; the rest of a vector is filled up with zeros."""
    whole = b.and_(width, I64(-LANES))

    def step(start: ir.Value, sums: Sequence[ir.Value]) -> list[ir.Value]:
        for address in right:
            _prefetch(b, b.gep(address, [b.add(start, I64(AHEAD // 4))]))
        return _add_products(b, left, right, sums, lambda row: _load(b, row, start))

    def rest(start: ir.Value, sums: Sequence[ir.Value]) -> list[ir.Value]:
        mask = _first_lanes(b, b.sub(width, start))
        return _add_products(b, left, right, sums, lambda row: _load_some(b, row, start, mask))

    zeros = [ZERO] * (len(left) * len(right))
    sums = _repeat(b, I64(0), whole, zeros, step)
    return _repeat(b, whole, width, sums, rest)


def _add_products(
    b: ir.IRBuilder, left: Sequence[ir.Value], right: Sequence[ir.Value],
    sums: Sequence[ir.Value], load: Callable[[ir.Value], ir.Value],
) -> list[ir.Value]:  # fmt: skip
    """Sums with the products of the vectors at one place of all rows."""
    fma = _declared(b, f"llvm.fma.v{LANES}f32", VECTOR, [VECTOR] * 3)
    weights = [load(row) for row in right]
    added = iter(sums)
    return [
        b.call(fma, [x, weight, next(added)])
        for x in (load(row) for row in left)
        for weight in weights
    ]


def _repeat(
    b: ir.IRBuilder, first: ir.Value, last: ir.Value, values: Sequence[ir.Value],
    step: Callable[[ir.Value, Sequence[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:  # fmt: skip
    """What values become by steps over whole vectors, or one step over less, if there is one."""
    before = b.block
    body, after = b.append_basic_block(), b.append_basic_block()
    b.cbranch(b.icmp_signed("<", first, last), body, after)
    b.position_at_end(body)
    place = b.phi(I64)
    olds = [b.phi(VECTOR) for _ in values]
    news = step(place, olds)
    following = b.add(place, I64(LANES))
    for old, start, new in zip((place, *olds), (first, *values), (following, *news), strict=True):
        old.add_incoming(start, before)
        old.add_incoming(new, body)
    b.cbranch(b.icmp_signed("<", following, last), body, after)
    b.position_at_end(after)
    results = [b.phi(VECTOR) for _ in values]
    for result, value, new in zip(results, values, news, strict=True):
        result.add_incoming(value, before)
        result.add_incoming(new, body)
    return results


def _totals(b: ir.IRBuilder, sums: Sequence[ir.Value]) -> list[ir.Value]:
    """What the lanes of every vector add up to."""
    vectors, width = list(sums), LANES
    while width > 1:
        half = width // 2
        starts = [place + start for place in (0, LANES) for start in range(0, LANES, width)]
        low, high = (
            _lanes([start + shift + lane for start in starts for lane in range(half)])
            for shift in (0, half)
        )
        pairs = zip(vectors[::2], [*vectors[1::2], vectors[-1]], strict=False)
        vectors = [
            b.fadd(b.shuffle_vector(one, other, low), b.shuffle_vector(one, other, high))
            for one, other in pairs
        ]
        width = half
    return [b.extract_element(vectors[0], I32(lane)) for lane in range(len(sums))]


def _load(b: ir.IRBuilder, row: ir.Value, start: ir.Value) -> ir.Value:
    return b.load(b.bitcast(b.gep(row, [start]), VECTOR.as_pointer()), align=4)


def _load_some(b: ir.IRBuilder, row: ir.Value, start: ir.Value, mask: ir.Value) -> ir.Value:
    address = b.bitcast(b.gep(row, [start]), VECTOR.as_pointer())
    name = f"llvm.masked.load.v{LANES}f32.p0"
    load = _declared(b, name, VECTOR, [address.type, I32, MASK, VECTOR])
    return b.call(load, [address, I32(4), mask, ZERO])


def _first_lanes(b: ir.IRBuilder, count: ir.Value) -> ir.Value:
    """A mask of so many lanes."""
    wide = ir.VectorType(I32, LANES)
    one = b.insert_element(ir.Constant(wide, ir.Undefined), b.trunc(count, I32), I32(0))
    counts = b.shuffle_vector(one, one, _lanes([0] * LANES))
    return b.icmp_signed("<", _lanes(range(LANES)), counts)


def _prefetch(b: ir.IRBuilder, address: ir.Value) -> None:
    pointer = b.bitcast(address, I8.as_pointer())
    prefetch = _declared(b, "llvm.prefetch.p0", ir.VoidType(), [pointer.type, I32, I32, I32])
    b.call(prefetch, [pointer, I32(0), I32(3), I32(1)])  # to read, into the nearest cache, data


def _lanes(numbers: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, LANES), list(numbers))


def _declared(b: ir.IRBuilder, name: str, result: ir.Type, args: list[ir.Type]) -> Any:
    return cgutils.get_or_insert_function(b.module, ir.FunctionType(result, args), name)
