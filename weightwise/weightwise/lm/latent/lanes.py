"""Vector code of attention over latents on CPUs: tiles of eight tokens by eight heads.

Each tile is written as LLVM instructions, so that its sums stay in registers whatever a compiler
makes of loops: on a processor with AVX-512 sixteen numbers at a time, elsewhere as many as fit.

Scores are dot products, whose sums would have to be added across a register at the end. Instead a
register holds eight heads times two neighbouring features; two features of a token are broadcast
to all of it, and one addition at the end joins both halves. Mixed latents are sums over tokens;
there a register holds sixteen features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

intrinsic: Any = _intrinsic  # its decorated functions have other arguments when they are called
HEADS = 8  # of a tile, each next to itself in a register: lane 2 h + i has feature 2 k + i
TOKENS = 8  # of a tile
LANES = 16
FEATURES = 2 * LANES  # that are mixed at a time
I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
F16, F32 = ir.HalfType(), ir.FloatType()
FLOATS, INTEGERS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
FUSED = ("contract",)
ADDRESS = types.int64
FLOAT32, BFLOAT16, FLOAT16 = range(3)  # kinds of numbers
# Terms ln(2)^n / n! of 2^x, which the eighth continues by less than 1e-8 for |x| <= 1/2.
POWERS = (
    1.0, 0.6931471805599453, 0.24022650695910072, 0.05550410866482158, 0.009618129107628477,
    0.0013333558146428443, 0.00015403530393381608, 1.5252733804059841e-05,
)  # fmt: skip


def multiply_add(b: ir.IRBuilder, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
    """Total + x y."""
    return b.fadd(b.fmul(x, y, flags=FUSED), total, flags=FUSED)


def address(b: ir.IRBuilder, base: ir.Value, *offsets: ir.Value) -> ir.Value:
    """An address plus offsets in bytes."""
    for offset in offsets:
        base = b.add(base, offset)
    return base


def load(b: ir.IRBuilder, at: ir.Value, kind: ir.Type = FLOATS) -> ir.Value:
    """What lies at an address, which need not be aligned."""
    return b.load(b.inttoptr(at, kind.as_pointer()), align=1)


def store(b: ir.IRBuilder, value: ir.Value, at: ir.Value) -> None:
    """Put a value at an address, which need not be aligned."""
    b.store(value, b.inttoptr(at, value.type.as_pointer()), align=1)


def shuffle(b: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes: Sequence[int]) -> ir.Value:
    """Lanes of two vectors, counted through both."""
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def splat(b: ir.IRBuilder, x: ir.Value, lanes: int = LANES) -> ir.Value:
    """A number in all lanes."""
    one = b.insert_element(ir.Constant(ir.VectorType(x.type, lanes), ir.Undefined), x, I32(0))
    return shuffle(b, one, one, [0] * lanes)


def floats(value: float) -> ir.Constant:
    """A constant in all lanes."""
    return ir.Constant(FLOATS, [value] * LANES)


def times(b: ir.IRBuilder, count: ir.Value, size: int) -> ir.Value:
    """Bytes of so many elements."""
    return b.mul(count, I64(size))


def accumulate(
    b: ir.IRBuilder,
    totals: Sequence[ir.Value],
    count: ir.Value,
    step: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """Values after so many steps, each of which gets its index and the values before it."""
    places = [cgutils.alloca_once(b, total.type) for total in totals]
    for total, place in zip(totals, places, strict=True):
        b.store(total, place)
    with cgutils.for_range(b, count) as loop:
        for value, place in zip(
            step(loop.index, [b.load(place) for place in places]), places, strict=True
        ):
            b.store(value, place)
    return [b.load(place) for place in places]


def larger(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The larger of two vectors, lane by lane."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def power_of_two(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """2^x of lanes that are at most 0; exactly 0 below -126.5."""
    x = larger(b, x, floats(-127.0))
    # Adding this rounds to whole numbers, and leaves them in the lowest bits.
    magic = floats(1.5 * 2.0**23)
    shifted = b.fadd(x, magic)
    rest = b.fsub(x, b.fsub(shifted, magic))
    total = floats(POWERS[-1])
    for term in reversed(POWERS[:-1]):
        total = multiply_add(b, total, rest, floats(term))
    exponent = b.add(b.bitcast(shifted, INTEGERS), ir.Constant(INTEGERS, [127] * LANES))
    scale = b.bitcast(b.shl(exponent, ir.Constant(INTEGERS, [23] * LANES)), FLOATS)
    return b.fmul(total, scale)


@intrinsic
def bytes_at(_context: Any, _address: types.Type) -> Any:
    """Pointer to the bytes at an address."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(ADDRESS), codegen


@intrinsic
def score_tile(
    _context: Any, _latent_query: types.Type, _latent: types.Type, _latent_row: types.Type,
    _latent_pairs: types.Type, _rope_query: types.Type, _rope: types.Type, _rope_row: types.Type,
    _rope_pairs: types.Type, _out: types.Type,
) -> Any:  # fmt: skip
    """Scores of a tile: queries times latents plus rope queries times rope keys.

    Twice an address of queries, shape (pairs, 8 heads, 2), one of 8 rows, the bytes from row to
    row, and pairs of features; then the address of the scores, shape (8 tokens, 8 heads).
    """

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        totals = [floats(0.0)] * TOKENS
        for query, rows, row, pairs in (args[:4], args[4:8]):
            starts = [address(b, rows, times(b, row, token)) for token in range(TOKENS)]

            def step(
                pair: ir.Value, now: list[ir.Value], query: ir.Value = query,
                starts: list[ir.Value] = starts,
            ) -> list[ir.Value]:  # fmt: skip
                query_lanes = load(b, address(b, query, times(b, pair, 4 * LANES)))
                offset = times(b, pair, 8)
                results = []
                for start, total in zip(starts, now, strict=True):
                    two = load(b, address(b, start, offset), ir.VectorType(F32, 2))
                    both = shuffle(b, two, two, [0, 1] * HEADS)
                    results.append(multiply_add(b, both, query_lanes, total))
                return results

            totals = accumulate(b, totals, pairs, step)
        for token in range(0, TOKENS, 2):
            x, y = totals[token], totals[token + 1]
            even = shuffle(b, x, y, range(0, 2 * LANES, 2))
            odd = shuffle(b, x, y, range(1, 2 * LANES, 2))
            store(b, b.fadd(even, odd), address(b, args[8], I64(4 * HEADS * token)))
        return ir.Constant(I64, 0)

    return ADDRESS(*[ADDRESS] * 9), codegen


@intrinsic
def mix_tile(
    _context: Any, _weight: types.Type, _rows: types.Type, _row: types.Type, _tokens: types.Type,
    _out: types.Type, _out_row: types.Type,
) -> Any:  # fmt: skip
    """Add the weighted sums of 32 features over tokens for 8 heads.

    Addresses of weights, shape (tokens, 8 heads), of the first row and the bytes from row to row;
    tokens; the address of the sums of the first head and the bytes from head to head.
    """

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        weight, rows, row, tokens, out, out_row = args
        places = [
            address(b, out, times(b, out_row, head), I64(half * 4 * LANES))
            for head in range(HEADS)
            for half in range(2)
        ]

        def step(token: ir.Value, now: list[ir.Value]) -> list[ir.Value]:
            start = address(b, rows, b.mul(token, row))
            halves = [load(b, address(b, start, I64(half * 4 * LANES))) for half in range(2)]
            at = address(b, weight, times(b, token, 4 * HEADS))
            results = []
            for head in range(HEADS):
                one = splat(b, load(b, address(b, at, I64(4 * head)), F32))
                results += [
                    multiply_add(b, one, x, now[2 * head + i]) for i, x in enumerate(halves)
                ]
            return results

        totals = accumulate(b, [load(b, place) for place in places], tokens, step)
        for total, place in zip(totals, places, strict=True):
            store(b, total, place)
        return ir.Constant(I64, 0)

    return ADDRESS(*[ADDRESS] * 6), codegen


@intrinsic
def weigh(
    _context: Any, _score: types.Type, _tokens: types.Type, _top: types.Type, _total: types.Type
) -> Any:
    """Turn scores of 8 heads, in powers of two, into weights 2^(score - top), as more tokens come.

    Address of scores, shape (tokens, 8 heads), and an even number of tokens; addresses of the
    highest score and of the sum of weights so far, each twice side by side: even tokens and odd
    ones. The decay of what was summed up before is left at twice the distance behind the total.
    """

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        score, tokens, top_at, total_at = args
        steps = b.lshr(tokens, I64(1))
        swapped = [*range(HEADS, LANES), *range(HEADS)]

        def place(index: ir.Value) -> ir.Value:
            return address(b, score, times(b, index, 4 * LANES))

        old = load(b, top_at)
        [top] = accumulate(
            b, [old], steps, lambda index, now: [larger(b, load(b, place(index)), now[0])]
        )
        top = larger(b, top, shuffle(b, top, top, swapped))
        # Where nothing was seen yet, minus infinity less itself would be no number.
        is_seen = b.fcmp_ordered(">", top, floats(float("-inf")))
        base = b.select(is_seen, top, floats(0.0))
        decay = power_of_two(b, b.fsub(old, base))

        def step(index: ir.Value, now: list[ir.Value]) -> list[ir.Value]:
            weight = power_of_two(b, b.fsub(load(b, place(index)), base))
            store(b, weight, place(index))
            return [b.fadd(now[0], weight)]

        [total] = accumulate(b, [b.fmul(load(b, total_at), decay)], steps, step)
        store(b, top, top_at)
        store(b, total, total_at)
        store(b, decay, address(b, total_at, I64(4 * LANES)))
        return ir.Constant(I64, 0)

    return ADDRESS(*[ADDRESS] * 4), codegen


@intrinsic(prefer_literal=True)
def unpack(
    _context: Any, bits: Any, _rows: types.Type, _code: types.Type, _code_row: types.Type,
    _scale: types.Type, _minimum: types.Type, _scale_row: types.Type, _groups: types.Type,
    _vectors: types.Type, _out: types.Type, _out_row: types.Type,
) -> Any:  # fmt: skip
    """Numbers of rows of codes, bit for bit those of `weightwise.lm.latent.codes.decode`.

    Bits, a literal; rows; addresses of codes, scales and minima, 0 for symmetric codes, and the
    bytes from row to row; groups of a row, and sixteenths of a group; where the numbers go.
    """
    width = bits.literal_value
    offset = ir.Constant(F32, -(2.0 ** (width - 1)))

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        _, rows, code, code_row, scale, minimum, scale_row, groups, vectors, out, out_row = args
        has_minimum = b.icmp_signed("!=", minimum, I64(0))
        low_at = b.select(has_minimum, minimum, scale)
        with cgutils.for_range(b, rows) as row, cgutils.for_range(b, groups) as group:
            half = b.add(b.mul(row.index, scale_row), times(b, group.index, 2))
            step = b.fpext(load(b, address(b, scale, half), F16), F32)
            low = b.fpext(load(b, address(b, low_at, half), F16), F32)
            low = b.select(has_minimum, low, b.fmul(step, offset))
            first = b.mul(group.index, vectors)
            codes = address(b, code, b.mul(row.index, code_row), times(b, first, 2 * width))
            place = address(b, out, b.mul(row.index, out_row), times(b, first, 4 * LANES))
            _unpack_group(b, codes, width, vectors, splat(b, step), splat(b, low), place)
        return ir.Constant(I64, 0)

    return ADDRESS(bits, *[ADDRESS] * 10), codegen


def _unpack_group(
    b: ir.IRBuilder, codes: ir.Value, width: int, vectors: ir.Value, steps: ir.Value,
    lows: ir.Value, out: ir.Value,
) -> None:  # fmt: skip
    """Numbers of a group, two vectors at a time unless there is only one."""

    def put(index: ir.Value) -> None:
        stored = _codes(b, address(b, codes, times(b, index, 2 * width)), width)
        value = multiply_add(b, b.uitofp(stored, FLOATS), steps, lows)
        store(b, value, address(b, out, times(b, index, 4 * LANES)))

    put(I64(0))
    with b.if_then(b.icmp_signed(">", vectors, I64(1)), likely=True):
        put(I64(1))
        with cgutils.for_range(b, b.sub(b.lshr(vectors, I64(1)), I64(1))) as loop:
            pair = b.add(b.shl(loop.index, I64(1)), I64(2))
            put(pair)
            put(b.add(pair, I64(1)))


def _codes(b: ir.IRBuilder, at: ir.Value, width: int) -> ir.Value:
    """Sixteen codes of so many bits, which are a stream, lowest bits first."""
    size = 2 * width
    packed = load(b, at, ir.VectorType(ir.IntType(8), size))
    starts = [lane * width for lane in range(LANES)]

    def lanes_of(places: list[int]) -> ir.Value:
        return b.zext(shuffle(b, packed, packed, places), INTEGERS)

    word = lanes_of([start // 8 for start in starts])
    if 8 % width:
        after = lanes_of([min(start // 8 + 1, size - 1) for start in starts])
        word = b.or_(word, b.shl(after, ir.Constant(INTEGERS, [8] * LANES)))
    shifted = b.lshr(word, ir.Constant(INTEGERS, [start % 8 for start in starts]))
    return b.and_(shifted, ir.Constant(INTEGERS, [2**width - 1] * LANES))


@intrinsic(prefer_literal=True)
def widen(
    _context: Any, kind: Any, _rows: types.Type, _from: types.Type, _from_row: types.Type,
    _count: types.Type, _out: types.Type, _out_row: types.Type,
) -> Any:  # fmt: skip
    """Copy rows of numbers of a kind, a literal (`FLOAT32` and so on), as float32.

    Rows; address of the first and bytes from row to row; numbers of a row; the same of the copies.
    """
    element = {FLOAT32: F32, BFLOAT16: I16, FLOAT16: F16}[kind.literal_value]
    size = 4 if element is F32 else 2

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        _, rows, source, source_row, count, out, out_row = args
        whole = b.lshr(count, I64(4))
        with cgutils.for_range(b, rows) as row:
            start = address(b, source, b.mul(row.index, source_row))
            place = address(b, out, b.mul(row.index, out_row))
            with cgutils.for_range(b, whole) as loop:
                first = b.shl(loop.index, I64(4))
                x = load(b, address(b, start, times(b, first, size)), ir.VectorType(element, LANES))
                store(b, _as_float32(b, x, FLOATS), address(b, place, times(b, first, 4)))
            with cgutils.for_range(b, count, start=b.shl(whole, I64(4))) as loop:
                x = load(b, address(b, start, times(b, loop.index, size)), element)
                store(b, _as_float32(b, x, F32), address(b, place, times(b, loop.index, 4)))
        return ir.Constant(I64, 0)

    return ADDRESS(kind, *[ADDRESS] * 6), codegen


def _as_float32(b: ir.IRBuilder, x: ir.Value, kind: ir.Type) -> ir.Value:
    """Float32 numbers of float32 or float16 ones, or of the bits of bfloat16 ones."""
    if x.type == kind:
        return x
    if x.type in (F16, ir.VectorType(F16, LANES)):
        return b.fpext(x, kind)
    shift = ir.Constant(INTEGERS, [16] * LANES) if kind == FLOATS else I32(16)
    return b.bitcast(b.shl(b.zext(x, shift.type), shift), kind)
