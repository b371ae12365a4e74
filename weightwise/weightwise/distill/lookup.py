"""Where the record of a key is, and copying records out: the compiled part of reading.

The index of an epoch has 8 bytes for each record, in the order of hashed keys. It is made from the
epoch's files and can be made again at any time. After its head (`weightwise.distill.header`) come,
for n records in 2^b buckets of about four,

* 2^b + 1 numbers (uint32, then zeros up to a multiple of 8 bytes): where each bucket starts;
* n entries (uint64), bucket by bucket: from the lowest bit, 16 bits of the key's hash, 16 bits
  for the file, 32 bits for the place in the file in units of 8 bytes after its head.

The upper b bits of the hash are the bucket. A key is found with two accesses to memory and a third
one to the record itself, which has the whole key. Nothing is loaded beforehand: opening takes as
long for a thousand images as for ten million.
"""

# Shapes: N records, T bucket starts, B keys of a batch, S files, H halves (16 bits) of a row

from __future__ import annotations

from typing import Any

import numpy as np

from weightwise.distill.keys import U64, compiled, mix
from weightwise.distill.records import (
    BODY,
    CLASSES,
    DECODED,
    FACTORS,
    I64,
    IS_COMPACT,
    MOST,
    PER_INDEX,
    PER_VALUE,
    U16,
    UNIT,
    UNITS,
    VARIES,
    bytes_at,
    checksum,
    count_at,
    doubles_at,
    halves_at,
    longs_at,
    pointer_to,
    prefetch,
    shift_of,
    units_of,
    unsigned_at,
    words_at,
)
from weightwise.numerics.kernels.vectors import magnitude_bits

PER_BUCKET, WINDOW, MAX_FILES = 2, 4, 2**16
# Numbers about an epoch, behind those of a `Layout`.
STARTS, SHIFT, ENTRIES, NUM_ENTRIES, BASES, SIZES, NUM_FILES = range(10, 17)
SMALLEST_NORMAL = 113 << 23  # 2^-14 in bits of float32
F32 = np.float32
HALF, LOW = U64(32), U64(0xFFFFFFFF)
TAG, FILE_AT, PLACE_AT = U64(0xFFFF), U64(16), U64(32)
MISSING, DAMAGED = -1, -2


def bucket_bits(count: int) -> int:
    """Bits of the number of a bucket."""
    return max(1, (count // PER_BUCKET).bit_length())


@compiled
def build(
    id_N: Any, file_N: Any, place_N: Any, seed_N: Any, start_T: Any, entry_N: Any, shift: Any
) -> Any:
    """Fill an index, whose starts are zeros; the number of records whose key an earlier one has.

    Equal keys stand in the order of their files. If they are in one file, or their seeds differ,
    the number of the later record is returned as ``-1 - number``.
    """
    for i in range(len(id_N)):
        start_T[I64(mix(id_N[i]) >> shift) + 1] += 1
    for b in range(1, len(start_T)):
        start_T[b] += start_T[b - 1]
    end_T, owner_N, repeated = start_T[:-1].copy(), np.empty_like(place_N), 0
    for i in range(len(id_N)):
        key_hash = mix(id_N[i])
        bucket = I64(key_hash >> shift)
        end = I64(end_T[bucket])
        for e in range(I64(start_T[bucket]), end):
            j = owner_N[e]
            if id_N[j] == id_N[i]:
                if seed_N[j] != seed_N[i] or file_N[j] == file_N[i]:
                    return -1 - i
                repeated += 1
                break
        owner_N[end] = i
        entry_N[end] = (
            (key_hash & TAG) | (U64(file_N[i]) << FILE_AT) | (U64(place_N[i]) << PLACE_AT)
        )
        end_T[bucket] += 1
    return repeated


@compiled
def find(key: Any, p: Any) -> Any:
    """Address of the record of a key, `MISSING` or `DAMAGED`; never looks outside the files."""
    key_hash = mix(key)
    bucket = I64(key_hash >> U64(p[SHIFT]))
    start_T, entry_N = words_at(p[STARTS]), unsigned_at(p[ENTRIES])
    for e in range(I64(start_T[bucket]), min(I64(start_T[bucket + 1]), p[NUM_ENTRIES])):
        entry = entry_N[e]
        if entry & TAG != key_hash & TAG:
            continue
        number, place = I64((entry >> FILE_AT) & TAG), I64(entry >> PLACE_AT)
        if number >= p[NUM_FILES] or place + 3 > longs_at(p[SIZES])[number]:
            return DAMAGED
        address = longs_at(p[BASES])[number] + UNIT * place
        if longs_at(address)[1] != key:
            continue
        n = count_at(p, address)
        if n < 1 or n > p[MOST] or place + units_of(p, n) > longs_at(p[SIZES])[number]:
            return DAMAGED
        return address
    return MISSING


@compiled
def guess(key: Any, first: Any, p: Any) -> Any:
    """Address of the record of a key, most probably, or 0: takes no branch that depends on it."""
    entry_N, tag = unsigned_at(p[ENTRIES]), mix(key) & TAG
    first = min(first, p[NUM_ENTRIES])
    found = entry_N[first + WINDOW - 1]
    for i in range(WINDOW - 2, -1, -1):
        entry = entry_N[first + i]
        found = entry if entry & TAG == tag else found
    number, place = I64((found >> FILE_AT) & TAG), I64(found >> PLACE_AT)
    # Where sizes vary, `find` looks at them.
    if number >= p[NUM_FILES] or p[VARIES] or place + p[UNITS] > longs_at(p[SIZES])[number]:
        return 0
    return longs_at(p[BASES])[number] + UNIT * place


@compiled
def gather(id_B: Any, view: Any, state_B: Any, row_BU: Any) -> Any:
    """Copy the records of keys into plain ones of the largest size; how many that did not work for.

    States are numbers of classes, `MISSING` or `DAMAGED`. The three loops are one in effect; apart
    they wait for memory on behalf of many keys at a time instead of one.
    """
    p = pointer_to(view)
    start_T, shift, last = words_at(p[STARTS]), U64(p[SHIFT]), UNIT * (p[UNITS] - 1)
    for row in range(len(id_B)):
        state_B[row] = start_T[I64(mix(id_B[row]) >> shift)]
    for row in range(len(id_B)):
        address = guess(id_B[row], state_B[row], p)
        state_B[row] = address
        for ahead in range(0, last, 64):
            prefetch(address + ahead)
        prefetch(address + last)  # most records reach into one line more
    wrong, out, step = 0, row_BU.ctypes.data, UNIT * row_BU.shape[1]
    for row in range(len(id_B)):
        address = state_B[row]
        if address == 0 or longs_at(address)[1] != id_B[row]:
            address = find(id_B[row], p)
        if address > 0:
            address = copy(address, out + step * row, p)
        state_B[row] = address
        wrong += address < 0
    return wrong


@compiled
def copy(address: Any, out: Any, p: Any) -> Any:
    """Copy a record into a plain one of the largest size; its classes, or `DAMAGED`."""
    n = count_at(p, address)
    units = units_of(p, n)
    if p[VARIES] or p[IS_COMPACT]:
        if words_at(address)[0] != checksum(address, units, p):
            return DAMAGED
        longs_at(out)[0], longs_at(out)[1] = longs_at(address)[0], longs_at(address)[1]
        unpack(address, n, p, out)
        return n
    # Checked and copied in one pass.
    source, target, factors = unsigned_at(address), unsigned_at(out), unsigned_at(p[FACTORS])
    target[0] = source[0]
    total = factors[0] + factors[1] * (source[0] >> HALF)
    for i in range(1, units):
        word = source[i]
        target[i] = word
        total += factors[2 * i] * (word & LOW) + factors[2 * i + 1] * (word >> HALF)
    return n if total >> HALF == source[0] & LOW else DAMAGED


@compiled
def unpack(address: Any, n: Any, p: Any, out: Any) -> None:
    """Write classes and values of a record to where a plain one with K has them; else zeros."""
    num_index, all_index = n * p[PER_INDEX], p[MOST] * p[PER_INDEX]
    num_value, all_value = n * p[PER_VALUE], p[MOST] * p[PER_VALUE]
    index_H, value_H = halves_at(out + p[BODY]), halves_at(out + p[BODY] + 2 * all_index)
    if p[IS_COMPACT]:
        decode(address + p[BODY], n, p, index_H, value_H)
    else:
        index = halves_at(address + p[BODY])
        for i in range(num_index):
            index_H[i] = index[i]
        for i in range(num_value):
            value_H[i] = index[num_index + i]
    for i in range(num_index, all_index):
        index_H[i] = 0
    for i in range(num_value, all_value):
        value_H[i] = 0


@compiled
def decode(address: Any, n: Any, p: Any, index_H: Any, value_H: Any) -> None:
    """Classes and values of a compact record."""
    bits, decoded, width = bytes_at(address + 2), doubles_at(p[DECODED]), p[PER_VALUE]
    total = 0.0
    for i in range(n):
        total += decoded[bits[i]]
    scale = (1 - halves_at(address)[0] / 65535) / total if total > 0 else 1.0
    shift, bit, before = shift_of(p[CLASSES], n), 8 * n, I64(-1)
    most = p[CLASSES] >> shift
    for i in range(n):
        gap = I64(0)
        while gap < most and (bits[bit >> 3] >> (bit & 7)) & 1:
            gap, bit = gap + 1, bit + 1
        bit, gap = bit + 1, gap << shift
        for j in range(shift):
            gap |= I64((bits[bit >> 3] >> (bit & 7)) & 1) << j
            bit += 1
        before += gap + 1
        index_H[i * p[PER_INDEX]] = U16(before & 0xFFFF)
        if p[PER_INDEX] == 2:
            index_H[2 * i + 1] = U16(before >> 16)
        word = magnitude_bits(F32(scale * decoded[bits[i]]))
        if width == 2:
            value_H[2 * i], value_H[2 * i + 1] = U16(word & 0xFFFF), U16(word >> 16)
        else:
            value_H[i] = half_below(word)


@compiled
def half_below(word: Any) -> Any:
    """The largest float16 not above a float32 from 0 to 1, but not 0 for others than 0; as bits."""
    if word >= SMALLEST_NORMAL:
        # The exponent's bias is 127 for one and 15 for the other.
        return U16((word - (112 << 23)) >> 13)
    exponent = word >> 23
    # Below 2^-14: multiples of 2^-24.
    return U16(max((word & 0x7FFFFF | 0x800000) >> min(126 - exponent, 24), word > 0))


@compiled
def take(place_N: Any, base: Any, layout: Any, state_N: Any, row_NU: Any) -> None:
    """Copy records at known places of a file out, see `gather`."""
    p, out, step = pointer_to(layout), row_NU.ctypes.data, UNIT * row_NU.shape[1]
    for row in range(len(place_N)):
        state_N[row] = copy(base + UNIT * place_N[row], out + step * row, p)


@compiled
def contains(id_B: Any, view: Any, is_stored_B: Any) -> None:
    """Which keys have a record."""
    p = pointer_to(view)
    for row in range(len(id_B)):
        is_stored_B[row] = find(id_B[row], p) != MISSING
