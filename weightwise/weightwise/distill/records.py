"""Records of soft labels as bytes: how they are written, checked, found and read.

A record is a multiple of 8 bytes:

=========  ==========  ================================================================
bytes      type        content
=========  ==========  ================================================================
4          uint32      checksum of all that follows
4          int32       seed of the augmentation
8          int64       id of the key
4          uint32      number of classes n; only where it varies (``mass`` is set), else n = K
2n or 4n   integer     *plain*: classes, most probable first
2n or 4n   float       *plain*: values
2          uint16      *compact*: mass of all other classes times 65,535, rounded up
n          uint8       *compact*: round(254 / 24 * -log2 p), 255 for p = 0, by rising class
ceil(b/8)  bits        *compact*: for each class the difference d to the one before, minus one (of
                       the first the class itself): d >> s ones, a zero, the lower s bits of d;
                       each byte is filled from its lowest bit
0 to 7     zeros       up to a multiple of 8 bytes
=========  ==========  ================================================================

with s = floor(log2(C / n)) and b = n (1 + s) + floor(C / 2^s), which is enough for any n classes,
so that a record's size follows from n alone (Golomb-Rice codes with the bound of Elias-Fano codes).
Decoded probabilities are scaled to the mass that the others leave: rounding could otherwise give
away all of it, and the other classes would be impossible.

The checksum is multilinear hashing: the upper 32 bits of a_0 + sum_i a_i w_i modulo 2^64 over the
32-bit words w_i (Lemire, Kaser, "Strongly universal string hashing is fast", 2014), with a_i =
SplitMix64(i). It misses a damage with a probability of 2^-32. Each record has one, so every read is
checked at the price of a few nanoseconds, and what a kill has left of the last records is known.
"""

# Shapes: B records of a batch, K classes of a record, S files, E records of an index,
#         W words of a record, H halves (16 bits) of a record's classes or values

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

from weightwise.distill.keys import U64, compiled, mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weightwise.distill.header import StoreConfig

intrinsic: Any = _intrinsic
UNIT = 8
OCTAVES, LAST_CODE = 24.0, 254  # 2^-24 is the smallest float16
VARIES, MOST, BODY, PER_INDEX, PER_VALUE, IS_COMPACT, CLASSES, UNITS, FACTORS, DECODED = range(10)
I64, U32, U16, U8 = np.int64, np.uint32, np.uint16, np.uint8
MISSING = -1


def _pointer(bits: int, element: types.Type) -> Any:
    """Make the function that turns an address into a pointer to such elements."""

    def typing(_context: Any, _address: types.Type) -> Any:
        def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
            return b.inttoptr(args[0], ir.IntType(bits).as_pointer())

        return types.CPointer(element)(types.int64), codegen

    return intrinsic(typing)


longs_at = _pointer(64, types.int64)
unsigned_at = _pointer(64, types.uint64)
words_at = _pointer(32, types.uint32)
halves_at = _pointer(16, types.uint16)
bytes_at = _pointer(8, types.uint8)


@intrinsic
def doubles_at(_context: Any, _address: types.Type) -> Any:
    """Pointer to the float64 numbers at an address."""

    def codegen(_: Any, b: ir.IRBuilder, __: Any, args: list[ir.Value]) -> ir.Value:
        return b.inttoptr(args[0], ir.DoubleType().as_pointer())

    return types.CPointer(types.float64)(types.int64), codegen


@intrinsic
def prefetch(_context: Any, _address: types.Type) -> Any:
    """Ask for the 64 bytes around an address that will be read soon; any address will do."""

    def codegen(context: Any, b: ir.IRBuilder, _: Any, args: list[ir.Value]) -> ir.Value:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8")
        for_reading, keep, data = number(0), number(3), number(1)
        b.call(function, [b.inttoptr(args[0], byte), for_reading, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


class Layout:
    """How the records of a store are laid out, as numbers that the compiled loops take.

    These get addresses instead of arrays: passing arrays on from function to function would cost
    more than the work. The layout keeps what the addresses point to.

    Parameters
    ----------
    config
        The store.

    Attributes
    ----------
    numbers
        int64, at the places `VARIES` to `DECODED`.
    max_units
        Size of the largest record in 8 bytes.
    row_units
        Size of a plain record with K classes, which the others are read into.
    """

    def __init__(self, config: StoreConfig) -> None:
        varies, is_compact = config.mass is not None, config.packing == "compact"
        per_index, per_value = config.index_dtype.itemsize, config.number_dtype.itemsize
        body = 20 if varies else 16
        self.config = config
        self.numbers = np.array(
            [varies, config.k, body, per_index // 2, per_value // 2, is_compact, config.classes,
             0, 0, 0]
        )  # fmt: skip
        self.row_units = config.record_dtype.itemsize // UNIT
        counts = range(1, config.k + 1) if varies and is_compact else (config.k,)
        self.max_units = max(int(size_of(self.numbers, n)) for n in counts)
        self._factors_W = np.empty(2 * self.max_units, dtype=np.uint64)
        fill_factors(self._factors_W)
        codes = np.arange(256)
        self._decoded = np.where(codes > LAST_CODE, 0, 2.0 ** (-OCTAVES / LAST_CODE * codes))
        self.numbers[UNITS] = size_of(self.numbers, config.k)
        self.numbers[FACTORS] = self._factors_W.ctypes.data
        self.numbers[DECODED] = self._decoded.ctypes.data


def codes_of(value_BK: NDArray[Any]) -> NDArray[np.uint8]:
    """Probabilities in 8 bits on a logarithmic scale of 24 octaves."""
    p_BK = value_BK.astype(np.float32)
    with np.errstate(divide="ignore"):
        code_BK = np.rint(-LAST_CODE / OCTAVES * np.log2(p_BK))
    return np.where(p_BK > 0, code_BK.clip(0, LAST_CODE), 255).astype(np.uint8)


@compiled
def pointer_to(numbers: Any) -> Any:
    """Pointer to the elements of an int64 array."""
    return longs_at(numbers.ctypes.data)


@compiled
def size_of(numbers: Any, n: Any) -> Any:
    """Size of a record with n classes in 8 bytes."""
    return size_in_units(pointer_to(numbers), n)


@compiled
def fill_factors(out: Any) -> None:
    """Factors of the checksum."""
    for i in range(len(out)):
        out[i] = mix(i)


@compiled
def shift_of(classes: Any, n: Any) -> Any:
    """Number of bits of a difference that are stored as they are."""
    shift = 0
    while n << (shift + 1) <= classes:
        shift += 1
    return shift


@compiled
def units_of(p: Any, n: Any) -> Any:
    """Size of a record with n classes in 8 bytes."""
    return p[UNITS] if n == p[MOST] else size_in_units(p, n)


@compiled
def size_in_units(p: Any, n: Any) -> Any:
    """The same, worked out."""
    size = p[BODY] + 2 * n * (p[PER_INDEX] + p[PER_VALUE])
    if p[IS_COMPACT]:
        shift = shift_of(p[CLASSES], n)
        bits = n * (1 + shift) + (p[CLASSES] >> shift)
        size = p[BODY] + 2 + n + (bits + 7) // 8
    return (size + 7) // 8


@compiled
def checksum(address: Any, units: Any, p: Any) -> Any:
    """Checksum of a record, without the first word."""
    words, factors = words_at(address), unsigned_at(p[FACTORS])
    total = factors[0]
    for i in range(1, 2 * units):
        total += factors[i] * U64(words[i])
    return U32(total >> U64(32))


@compiled
def digest_of(place: Any, address: Any) -> Any:
    """What a record adds to the digest of its file, modulo 2^64: place and checksum, mixed."""
    return mix((U64(place) << U64(32)) | U64(words_at(address)[0]))


@compiled
def count_at(p: Any, address: Any) -> Any:
    """Number of classes that a record states; not checked."""
    return I64(words_at(address)[4]) if p[VARIES] else p[MOST]


@compiled
def whole_units(address: Any, units_left: Any, p: Any) -> Any:
    """Size of the record here in 8 bytes; 0 if there is none that is whole."""
    if units_left < 3:
        return 0
    n = count_at(p, address)
    if n < 1 or n > p[MOST]:
        return 0
    units = units_of(p, n)
    if units > units_left or words_at(address)[0] != checksum(address, units, p):
        return 0
    return units


@compiled
def scan(
    base: Any, start: Any, units_all: Any, layout: Any, place_N: Any, id_N: Any, seed_N: Any
) -> Any:
    """Read places, ids and seeds of whole records; where they end, how many, and their digest."""
    at, count, digest, p = start, 0, U64(0), pointer_to(layout)
    while at < units_all:
        address = base + UNIT * at
        units = whole_units(address, units_all - at, p)
        if units == 0:
            break
        place_N[count] = at
        id_N[count] = longs_at(address)[1]
        seed_N[count] = np.int32(words_at(address)[1])
        digest += digest_of(at, address)
        at += units
        count += 1
    return at, count, digest


@compiled
def next_whole(base: Any, start: Any, units_all: Any, step: Any, layout: Any) -> Any:
    """Place of the first whole record at or after a place; `MISSING` if there is none."""
    at, p = start, pointer_to(layout)
    while at < units_all:
        if whole_units(base + UNIT * at, units_all - at, p) > 0:
            return at
        at += step
    return MISSING


@compiled
def encode(
    layout: Any, start: Any, ids: Any, seeds: Any, counts: Any,
    index_BH: Any, value_BH: Any, out: Any,
) -> Any:  # fmt: skip
    """Write plain records into zeroed units, the first at this place of the file; size, digest."""
    base, at, digest, p = out.ctypes.data, 0, U64(0), pointer_to(layout)
    for row in range(len(ids)):
        address, n = base + UNIT * at, counts[row]
        longs_at(address)[1] = ids[row]
        words_at(address)[1] = U32(seeds[row])
        if p[VARIES]:
            words_at(address)[4] = U32(n)
        index = halves_at(address + p[BODY])
        for i in range(n * p[PER_INDEX]):
            index[i] = index_BH[row, i]
        value = halves_at(address + p[BODY] + 2 * n * p[PER_INDEX])
        for i in range(n * p[PER_VALUE]):
            value[i] = value_BH[row, i]
        units = units_of(p, n)
        words_at(address)[0] = checksum(address, units, p)
        digest += digest_of(start + at, address)
        at += units
    return at, digest


@compiled
def encode_compact(
    layout: Any, start: Any, ids: Any, seeds: Any, counts: Any,
    index_BK: Any, code_BK: Any, rest_B: Any, out: Any,
) -> Any:  # fmt: skip
    """Write compact records: classes rise within a row."""
    base, at, digest, p = out.ctypes.data, 0, U64(0), pointer_to(layout)
    for row in range(len(ids)):
        address, n = base + UNIT * at, counts[row]
        longs_at(address)[1] = ids[row]
        words_at(address)[1] = U32(seeds[row])
        if p[VARIES]:
            words_at(address)[4] = U32(n)
        halves_at(address + p[BODY])[0] = rest_B[row]
        bits = bytes_at(address + p[BODY] + 2)
        shift, bit, before = shift_of(p[CLASSES], n), 8 * n, I64(-1)
        for i in range(n):
            bits[i] = code_BK[row, i]
            gap = I64(index_BK[row, i]) - before - 1
            before = I64(index_BK[row, i])
            for _ in range(gap >> shift):
                bits[bit >> 3] |= U8(1 << (bit & 7))
                bit += 1
            bit += 1
            for j in range(shift):
                bits[bit >> 3] |= U8(((gap >> j) & 1) << (bit & 7))
                bit += 1
        units = units_of(p, n)
        words_at(address)[0] = checksum(address, units, p)
        digest += digest_of(start + at, address)
        at += units
    return at, digest
