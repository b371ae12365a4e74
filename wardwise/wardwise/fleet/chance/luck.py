"""Luck of random days, kept by request: the same luck meets every plan.

Plans are compared fairly when they meet the same days (common random numbers). So the
uniform numbers behind a time belong to what the time is for: the way to a request, its
service, the way home after it. Whoever serves a request, and after which other one, has
the same luck with it, stretched over the mean and the variance of the leg it drives.

Each stream is a Philox generator (Salmon et al. 2011, SC11), whose state is a counter:
any block of scenarios can be drawn by itself and equals the slice of one long draw.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Philox makes four numbers for each value of its counter.
NUMBERS_PER_COUNT = 4
# A double holds 52 bits and a half between 0 and 1.
DROPPED_BITS = np.uint64(12)
STEP = 2.0**-52
# Multipliers, and steps of the key from round to round (Salmon et al. 2011, table 2).
WORD_BITS = 64
NUM_ROUNDS = 10
FACTOR_A, FACTOR_C = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
WEYL_A, WEYL_C = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)


class Purpose(IntEnum):
    """What the luck is for."""

    DRIVE = 1
    WAIT = 2
    SERVICE = 3
    DAY = 4


class Aim(IntEnum):
    """What a leg leads to: a stop, the pickup of a transfer, or home after a stop."""

    STOP = 0
    PICKUP = 1
    HOME = 2


class Stream(NamedTuple):
    """Name of a stream of uniform numbers, one for each scenario.

    Parameters
    ----------
    detour
        0 for the last leg of a way; k for the leg to the k-th charging station on it.
    """

    purpose: Purpose
    aim: Aim = Aim.STOP
    detour: int = 0
    request: str = ""


def key_of(stream: Stream, seed: int) -> NDArray[np.uint64]:
    """Key of a stream's generator, of shape (2,)."""
    digest = hashlib.blake2b(stream.request.encode(), digest_size=16).digest()
    name = int.from_bytes(digest, "little")
    spawn_key = (int(stream.purpose), int(stream.aim), stream.detour, name)
    state = np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(2, np.uint64)
    return np.asarray(state, dtype=np.uint64)


def uniforms(key: NDArray[np.uint64], first: int, count: int) -> NDArray[np.float64]:
    """Numbers above 0 and below 1 of the scenarios `first` to `first + count - 1`.

    Parameters
    ----------
    first
        A multiple of 4.
    """
    assert first % NUMBERS_PER_COUNT == 0
    out = np.empty(count)
    fill_uniforms(key[0], key[1], first // NUMBERS_PER_COUNT, out)
    return out


@njit(cache=True, nogil=True)
def fill_uniforms(key_0, key_1, counted, out):  # type: ignore[no-untyped-def]
    """Philox 4x64 in ten rounds, as `numpy.random.Philox` but without Python's lock."""
    size = len(out)
    for count in range((size + NUMBERS_PER_COUNT - 1) // NUMBERS_PER_COUNT):
        a, b, c, d = np.uint64(counted + count + 1), np.uint64(0), np.uint64(0), np.uint64(0)
        key_a, key_c = key_0, key_1
        for _ in range(NUM_ROUNDS):
            high_a, low_a = _upper(FACTOR_A, a), FACTOR_A * a
            high_c, low_c = _upper(FACTOR_C, c), FACTOR_C * c
            a, b, c, d = high_c ^ b ^ key_a, low_c, high_a ^ d ^ key_c, low_a
            key_a += WEYL_A
            key_c += WEYL_C
        at = NUMBERS_PER_COUNT * count
        out[at] = _between(a)
        if at + 3 < size:
            out[at + 1], out[at + 2], out[at + 3] = _between(b), _between(c), _between(d)
        elif at + 2 < size:
            out[at + 1], out[at + 2] = _between(b), _between(c)
        elif at + 1 < size:
            out[at + 1] = _between(b)


@njit(cache=True, nogil=True)
def _between(raw):  # type: ignore[no-untyped-def]
    return (np.float64(raw >> DROPPED_BITS) + 0.5) * STEP


@intrinsic
def _high_bits(_context: Any, _a: Any, _b: Any) -> Any:
    """Upper 64 of the 128 bits of a product, for which Python has no operator."""

    def make(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        wide = ir.IntType(2 * WORD_BITS)
        a, b = (builder.zext(arg, wide) for arg in args)
        upper = builder.lshr(builder.mul(a, b), ir.Constant(wide, WORD_BITS))
        return builder.trunc(upper, ir.IntType(WORD_BITS))

    return types.uint64(types.uint64, types.uint64), make


@njit(cache=True, nogil=True)
def _upper(a, b):  # type: ignore[no-untyped-def]
    return _high_bits(a, b)  # type: ignore[call-arg]  # the context is passed by Numba
