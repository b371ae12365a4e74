"""Attention's passes over logits in one: term, map over heads, mask, softmax, map over heads.

Each query of an image is taken through all of them while its rows of logits, one for every head,
are in the first cache; memory sees them once. The loops take `WIDTH` keys at a time, as one value
of the type `Lanes`: LLVM makes registers of it, whose loads and sums overlap, and a loop over 49
keys spends little time on starting. Rows are filled up to whole lanes. A map over heads does three
heads at a time, as the published models have 3 times a power of two.

Exponentials are powers of two, as the first map comes with a factor log2(e). Their polynomial is
Taylor's at the nearest whole number, whose next term is at most (log(2) / 2)^7 / 7! = 1.2e-7.
"""

# Shapes: B images, n images of a turn, M heads, K heads filled up, N queries, T keys, P keys filled
# up, L buckets

from __future__ import annotations

from math import factorial, log
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from weightwise.numerics.kernels import team
from weightwise.numerics.kernels.vectors import intrinsic, splat

WIDTH = 32  # measured: 64 are slower for 196 keys, and 16 for 49
F32 = np.float32
FLOAT, INTEGER = ir.FloatType(), ir.IntType(32)
FLOATS, INTEGERS = ir.VectorType(FLOAT, WIDTH), ir.VectorType(INTEGER, WIDTH)
LOG2_E = F32(1 / log(2))
UNSEEN = F32(-np.inf)
DEGREE = 6
ROUNDER = 1.5 * 2.0**23  # adding it rounds to whole numbers, which then are the lowest bits
LEAST = -127.0  # its exponent bits, and so its power, are 0
ONE_BITS, EXPONENT_SHIFT = 0x3F800000, 23
FUSED = ("contract",)

compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


class Lanes(types.Type):
    """So many float32 numbers."""


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    """They are held as one vector."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS)  # type: ignore[no-untyped-call]


lanes = Lanes("Lanes")


def _all(value: float) -> ir.Constant:
    return ir.Constant(FLOATS, [float(F32(value))] * WIDTH)


def _all_integers(value: int) -> ir.Constant:
    return ir.Constant(INTEGERS, [value] * WIDTH)


def _pointer(context: Any, b: ir.IRBuilder, kind: Any, row: Any, start: Any) -> Any:
    data = context.make_array(kind)(context, b, row).data
    return b.bitcast(b.gep(data, [start]), FLOATS.as_pointer())


def _larger(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def _across(b: ir.IRBuilder, x: ir.Value, combine: Any) -> ir.Value:
    """Combine all lanes with each other."""
    width = WIDTH
    while width > 1:
        width //= 2
        half = ir.VectorType(INTEGER, width)
        parts = [ir.Constant(half, [*range(first, first + width)]) for first in (0, width)]
        x = combine(*(b.shuffle_vector(x, x, part) for part in parts))
    return b.extract_element(x, INTEGER(0))


@intrinsic
def load(_context: Any, row: types.Type, start: types.Type) -> Any:
    """Numbers of a row from a place on."""

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        return b.load(_pointer(context, b, signature.args[0], *args), align=4)

    return lanes(row, start), codegen


@intrinsic
def store(_context: Any, row: types.Type, start: types.Type, _x: types.Type) -> Any:
    """Write numbers to a row from a place on."""

    def codegen(context: Any, b: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        pointer = _pointer(context, b, signature.args[0], *args[:2])
        b.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(row, start, lanes), codegen


@intrinsic
def everywhere(_context: Any, _x: types.Type) -> Any:
    """A number in all lanes."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return splat(b, WIDTH, args[0])

    return lanes(types.float32), codegen


@intrinsic
def times_plus(_context: Any, _x: types.Type, _y: types.Type, _z: types.Type) -> Any:
    """A product plus a third number, as one instruction where there is one."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.fadd(b.fmul(args[0], args[1], flags=FUSED), args[2], flags=FUSED)

    return lanes(lanes, lanes, lanes), codegen


@intrinsic
def plus(_context: Any, _x: types.Type, _y: types.Type) -> Any:
    """A sum."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.fadd(*args)

    return lanes(lanes, lanes), codegen


@intrinsic
def larger(_context: Any, _x: types.Type, _y: types.Type) -> Any:
    """The larger number, the second where one is NaN."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return _larger(b, *args)

    return lanes(lanes, lanes), codegen


@intrinsic
def largest(_context: Any, _x: types.Type) -> Any:
    """The largest number of all lanes."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return _across(b, args[0], lambda x, y: _larger(b, x, y))

    return types.float32(lanes), codegen


@intrinsic
def total(_context: Any, _x: types.Type) -> Any:
    """The sum of all lanes."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return _across(b, args[0], b.fadd)

    return types.float32(lanes), codegen


@intrinsic
def first_lanes(_context: Any, _x: types.Type, _count: types.Type) -> Any:
    """The first lanes; minus infinity in the others."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        count = splat(b, WIDTH, b.trunc(args[1], INTEGER))
        number = ir.Constant(INTEGERS, [*range(WIDTH)])
        return b.select(b.icmp_signed("<", number, count), args[0], _all(-np.inf))

    return lanes(lanes, types.intp), codegen


@intrinsic
def power_of_two(_context: Any, _x: types.Type) -> Any:
    """Powers of two of numbers of at most 0, 0 below -127; NaN stays."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        x = b.select(b.fcmp_ordered("<", args[0], _all(LEAST)), _all(LEAST), args[0])
        rounded = b.fadd(x, _all(ROUNDER))
        rest = b.fsub(x, b.fsub(rounded, _all(ROUNDER)))
        value = _all(log(2) ** DEGREE / factorial(DEGREE))
        for k in reversed(range(DEGREE)):
            product = b.fmul(value, rest, flags=FUSED)
            value = b.fadd(product, _all(log(2) ** k / factorial(k)), flags=FUSED)
        whole = b.shl(b.bitcast(rounded, INTEGERS), _all_integers(EXPONENT_SHIFT))
        power = b.bitcast(b.add(whole, _all_integers(ONE_BITS)), FLOATS)
        return b.fmul(value, power)

    return lanes(lanes), codegen


@compiled
def add_term(logits: Any, scale: Any, term: Any, out: Any) -> None:
    """Logits of a query and a head, with their factor, and a term; all of shape (P,)."""
    for p in range(0, logits.shape[0], WIDTH):
        store(out, p, times_plus(load(logits, p), everywhere(scale), load(term, p)))


@compiled
def add_looked_up(logits: Any, scale: Any, products: Any, places: Any, out: Any) -> None:
    """Logits of a query and a head, with their factor, and products (N L,) at places (T,)."""
    for t in range(places.shape[0]):
        # A number without a sign cannot count from the end, which would have to be checked.
        out[t] = logits[t] * scale + products[np.uint64(places[t])]


@compiled
def three_heads(x: Any, weight: Any, k: Any, p: Any, a: Any, b: Any, c: Any) -> Any:
    """Three heads of a map over heads, of x (M, P) from key p on, added to what is given."""
    for m in range(x.shape[0]):
        value = load(x[m], p)
        a = times_plus(value, everywhere(weight[k, m]), a)
        b = times_plus(value, everywhere(weight[k + 1, m]), b)
        c = times_plus(value, everywhere(weight[k + 2, m]), c)
    return a, b, c


@compiled
def map_logits(x: Any, weight: Any, mask: Any, i: Any, keys: Any, out: Any, tops: Any) -> None:
    """First map of x (M, P) to masked logits of base 2 (K, P), and the largest ones (K,)."""
    zero, factor = everywhere(F32(0)), everywhere(LOG2_E)
    for k in range(0, weight.shape[0], 3):
        first, second, third = row_of(mask, k, i), row_of(mask, k + 1, i), row_of(mask, k + 2, i)
        t = u = v = everywhere(UNSEEN)
        for p in range(0, x.shape[1], WIDTH):
            a = times_plus(load(first, p), factor, zero)
            b = times_plus(load(second, p), factor, zero)
            c = times_plus(load(third, p), factor, zero)
            a, b, c = three_heads(x, weight, k, p, a, b, c)
            a, b, c = first_lanes(a, keys - p), first_lanes(b, keys - p), first_lanes(c, keys - p)
            store(out[k], p, a)
            store(out[k + 1], p, b)
            store(out[k + 2], p, c)
            t, u, v = larger(a, t), larger(b, u), larger(c, v)
        tops[k], tops[k + 1], tops[k + 2] = largest(t), largest(u), largest(v)


@compiled
def exponentials(x: Any, top: Any) -> Any:
    """Overwrite logits of base 2, shape (P,), by powers, 1 for the largest; return their sum."""
    down, sums = everywhere(-top), everywhere(F32(0))
    for p in range(0, x.shape[0], WIDTH):
        value = power_of_two(plus(load(x, p), down))
        store(x, p, value)
        sums = plus(sums, value)
    return total(sums)


@compiled
def map_powers(x: Any, weight: Any, bias: Any, out: Any) -> None:
    """Second map of x (M, P) to ``out`` (M, P)."""
    for k in range(0, weight.shape[0], 3):
        d, e, f = everywhere(bias[k]), everywhere(bias[k + 1]), everywhere(bias[k + 2])
        for p in range(0, x.shape[1], WIDTH):
            a, b, c = three_heads(x, weight, k, p, d, e, f)
            store(out[k], p, a)
            if k + 1 < out.shape[0]:
                store(out[k + 1], p, b)
            if k + 2 < out.shape[0]:
                store(out[k + 2], p, c)


@compiled
def row_of(x: Any, m: Any, i: Any) -> Any:
    """Row (P,) of a head and a query in x (M, N, P), where there may be one for all."""
    return x[m if m < x.shape[0] else 0, i if x.shape[1] > 1 else 0]


@compiled
def mix_image(
    logits: Any, b: Any, first: Any, keys: Any, scale: Any, terms: Any, mask: Any, maps: Any
) -> None:
    """Do image ``b`` of a turn, see `mix`."""
    M, _, N, P = logits.shape
    (term, products, places), (before, after, bias) = terms, maps
    K = before.shape[0]
    x, y = np.empty((M, P), F32), np.empty((K, P), F32)
    tops, weight = np.empty(K, F32), np.empty((K, M), F32)
    own_term = term[:, (first + b) % term.shape[1]]
    own_mask = mask[:, (first + b) % mask.shape[1]]
    for i in range(N):
        for m in range(M):
            if places.shape[0] > 0:
                add_looked_up(logits[m, b, i], scale, products[m, first + b], places[i], x[m])
            else:
                add_term(logits[m, b, i], scale, row_of(own_term, m, i), x[m])
        map_logits(x, before, own_mask, i, keys, y, tops)
        for m in range(M):
            inverse = F32(1) / exponentials(y[m], tops[m])
            for k in range(K):
                weight[k, m] = after[k, m] * inverse
        map_powers(y[:M], weight, bias, logits[:, b, i])


@compiled
def mix(logits: Any, first: Any, keys: Any, scale: Any, terms: Any, mask: Any, maps: Any) -> None:
    """Overwrite the logits of some images by what values are weighed with.

    Parameters
    ----------
    logits
        Products of queries and keys, shape (M, n, N, P).
    first
        Number of the first of these images.
    keys
        Keys T; of the P columns, the others may hold anything and do so afterwards.
    scale
        Factor on the products, float32.
    terms
        What is added then: a term, shape (M, B, N, P); or products of queries with a table, shape
        (M, B, N L), and their places for each query and key, int64 of shape (N, T). The term
        counts where there are no places. Its axes of heads and queries may have length 1, and that
        of images any: it repeats.
    mask
        What is added after the first map, shaped like the term.
    maps
        The first map, times log2(e), the second map, both of shape (K, M), and its bias (K,).
        Beyond the M heads, K is filled up to a multiple of three.
    """
    for b in range(logits.shape[1]):
        mix_image(logits, b, first, keys, scale, terms, mask, maps)


@team.shared
def mix_together(
    logits: Any, first: Any, keys: Any, scale: Any, terms: Any, mask: Any, maps: Any
) -> None:
    """`mix` by a team of threads."""
    for b in numba.prange(logits.shape[1]):
        mix_image(logits, b, first, keys, scale, terms, mask, maps)
