"""One pass of AdamW over parameters, gradients and moments as they are stored, on a CPU.

A block of neighbours is loaded, widened to float32, moved, narrowed and stored again; nothing else
goes through memory. The arithmetic is that of `weightwise.optim.low_bit_step.move`, operation by
operation, so that the results have the same bits.

The scales of new moments are known beforehand, from bounds. That of the new parameters is a guess:
where it turns out too large, nothing of the block is stored, what has been stored before in this
part is brought to half the scale, and the pass goes on with that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from weightwise.numerics.kernels.constants import INFINITY_BITS
from weightwise.numerics.kernels.numbers import REFUSED, Numbers
from weightwise.numerics.kernels.storage import (
    F32,
    I32,
    KINDS,
    LANES,
    address,
    cast_block,
    compiled,
    fixed,
    narrow,
    top,
    widen_times,
)
from weightwise.numerics.kernels.vectors import float_of, intrinsic, magnitude_bits, splat

ANY = np.int32(0x7FFFFFFF)  # a limit that no magnitude has more bits than


class _Moved(NamedTuple):
    """A block after the step, as float32 vectors."""

    weight: ir.Value
    first: ir.Value
    second: ir.Value


def _number(b: ir.IRBuilder, numbers: ir.Value, name: str) -> ir.Value:
    return b.extract_value(numbers, Numbers._fields.index(name))


def _moved(
    b: ir.IRBuilder, lanes: int, numbers: ir.Value, stored: list[tuple[ir.Value, int]]
) -> _Moved:
    """The arithmetic: blocks of weight, gradient and moments with their kinds."""

    def wide(place: int, factor: str) -> ir.Value:
        return widen_times(b, lanes, *stored[place], _number(b, numbers, factor))

    def times(name: str, value: ir.Value) -> ir.Value:
        return b.fmul(splat(b, lanes, _number(b, numbers, name)), value)

    gradient = wide(1, "gradient_down")
    pull = _number(b, numbers, "pull")
    without = b.block
    with b.if_then(b.fcmp_unordered("!=", pull, F32(0)), likely=False):
        pulled = b.fadd(gradient, times("pull", wide(0, "weight_down")))
        pulling = b.block
    merged = b.phi(gradient.type)
    merged.add_incoming(gradient, without)
    merged.add_incoming(pulled, pulling)
    gradient = merged
    first = b.fadd(wide(2, "keep_first"), times("take_first", gradient))
    square = b.fmul(gradient, gradient)
    second = b.fadd(wide(3, "keep_second"), times("take_second", square))
    root_type = ir.FunctionType(second.type, [second.type])
    sqrt = cgutils.get_or_insert_function(b.module, root_type, f"llvm.sqrt.v{lanes}f32")
    below = b.fadd(b.call(sqrt, [second]), splat(b, lanes, _number(b, numbers, "eps")))
    change = b.fdiv(times("step", first), below)
    return _Moved(b.fsub(wide(0, "shrink"), change), first, second)


def _magnitudes(b: ir.IRBuilder, lanes: int, moved: _Moved) -> list[ir.Value]:
    """Bits of magnitudes; second moments have no sign."""
    vector, ones = ir.VectorType(I32, lanes), fixed(lanes, I32, 0x7FFFFFFF)
    weight, first = (b.and_(b.bitcast(one, vector), ones) for one in moved[:2])
    return [weight, first, b.bitcast(moved.second, vector)]


def _raise(b: ir.IRBuilder, spot: ir.Value, bits: ir.Value) -> None:
    """Let a place in memory have the larger one of what it has and some bits."""
    old = b.load(spot)
    b.store(b.select(b.icmp_signed(">", bits, old), bits, old), spot)


@intrinsic(prefer_literal=True)
def move_blocks(
    _context: Any, w: Any, g: Any, m: Any, v: Any, _start: types.Type, _stop: types.Type,
    lanes: Any, writes: Any, numbers: Any, _w_up: types.Type, _limit: types.Type, tops: Any,
) -> Any:  # fmt: skip
    """Move blocks from start to stop; returns where it ended.

    It ends early before a block of which a parameter's magnitude has more bits than the limit;
    they stand in ``tops[REFUSED]``. The other places of ``tops`` are raised to the largest bits of
    all blocks before.
    """
    size, is_stored = lanes.literal_value, bool(writes.literal_value)
    kinds = [KINDS[one.dtype] for one in (w, g, m, v)]

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        numbers, w_up, limit = args[8:11]
        zero = ir.Constant(ir.VectorType(I32, size), [0] * size)
        place = cgutils.alloca_once_value(b, args[4])
        largest = [cgutils.alloca_once_value(b, zero) for _ in range(3)]
        head, body, refuse, store, end = (b.append_basic_block() for _ in range(5))
        at_tops = context.make_array(signature.args[11])(context, b, args[11]).data
        b.branch(head)

        b.position_at_end(head)
        start = b.load(place)
        b.cbranch(b.icmp_signed("<", start, args[5]), body, end)

        b.position_at_end(body)
        at = [address(context, b, signature.args[i], args[i], start, size) for i in range(4)]
        stored = [(b.load(one, align=1), kind) for one, kind in zip(at, kinds, strict=True)]
        moved = _moved(b, size, numbers, stored)
        magnitudes = _magnitudes(b, size, moved)
        above = b.icmp_signed(">", magnitudes[0], splat(b, size, limit))
        mask = ir.IntType(size)
        b.cbranch(b.icmp_unsigned("!=", b.bitcast(above, mask), mask(0)), refuse, store)

        b.position_at_end(refuse)
        b.store(top(b, size, moved.weight), b.gep(at_tops, [I32(REFUSED)]))
        b.branch(end)

        b.position_at_end(store)
        for spot, bits in zip(largest, magnitudes, strict=True):
            _raise(b, spot, bits)
        if is_stored:
            _store(b, size, moved, numbers, w_up, [(at[i], kinds[i]) for i in (0, 2, 3)])
        b.store(b.add(start, ir.Constant(start.type, size)), place)
        b.branch(head)

        b.position_at_end(end)
        _report(b, size, largest, at_tops)
        return b.load(place)

    signature = types.intp(
        w, g, m, v, types.intp, types.intp, lanes, writes, numbers, types.float32, types.int32,
        tops,
    )  # fmt: skip
    return signature, codegen


def _report(b: ir.IRBuilder, lanes: int, largest: list[ir.Value], at_tops: ir.Value) -> None:
    """Write the largest bits of all lanes."""
    for index, one in enumerate(largest):
        value = b.bitcast(b.load(one), ir.VectorType(F32, lanes))
        _raise(b, b.gep(at_tops, [I32(index)]), top(b, lanes, value))


def _store(
    b: ir.IRBuilder,
    lanes: int,
    moved: _Moved,
    numbers: ir.Value,
    w_up: ir.Value,
    targets: list[tuple[ir.Value, int]],
) -> None:
    """Scale, narrow and store a block: places of weight and moments with their kinds."""
    ups = (w_up, _number(b, numbers, "first_up"), _number(b, numbers, "second_up"))
    # Parameters of whole blocks are within their limit.
    within = (lanes > 1, False, False)
    for value, up, (target, kind), known in zip(moved, ups, targets, within, strict=True):
        scaled = b.fmul(value, splat(b, lanes, up))
        b.store(narrow(b, lanes, scaled, kind, within=known), target, align=1)


@compiled
def try_part(w: Any, g: Any, m: Any, v: Any, numbers: Any, tops: Any) -> None:
    """Find the largest magnitudes that `move_part` would write; parameters as there."""
    size, up = w.shape[0], np.float32(1)
    whole = size // LANES * LANES
    move_blocks(w, g, m, v, 0, whole, LANES, 0, numbers, up, ANY, tops)
    move_blocks(w, g, m, v, whole, size, 1, 0, numbers, up, ANY, tops)


@compiled
def move_part(
    w: Any, g: Any, m: Any, v: Any, numbers: Any, w_up: Any, largest: Any, tops: Any
) -> Any:
    """Move n neighbours in memory.

    Parameters
    ----------
    w, g, m, v
        Parameters, gradients, first and second moments: arrays of shape (n,) from `memory_of`.
    numbers
        See `Numbers`.
    w_up
        Scale of new parameters to begin with.
    largest
        Largest value of what parameters are stored in; infinite with bfloat16 and float32.
    tops
        Bits of the largest magnitudes of new parameters and moments, int32 of shape (4,); begins
        with zeros.

    Returns
    -------
    Scale that all new parameters of the part have, float32.
    """
    size = w.shape[0]
    whole = size // LANES * LANES
    limit = magnitude_bits(np.float32(largest / w_up))
    start, hopeless = 0, 0
    while start < size:
        if hopeless <= start < whole:
            stop = whole
            done = move_blocks(w, g, m, v, start, stop, LANES, 1, numbers, w_up, limit, tops)
        else:
            stop, most = (hopeless, ANY) if start < hopeless else (size, limit)
            done = move_blocks(w, g, m, v, start, stop, 1, 1, numbers, w_up, most, tops)
        if done < stop:
            refused = tops[REFUSED]
            if refused >= INFINITY_BITS:  # no scale would do: let this block saturate
                hopeless = min(done + LANES, size)
            else:
                factor = np.float32(1)
                while float_of(refused) * (w_up * factor) > largest:
                    factor *= np.float32(0.5)
                for i in range(done):
                    cast_block(w, w, i, 1, factor)
                w_up *= factor
                limit = magnitude_bits(np.float32(largest / w_up))
        start = done
    return w_up
