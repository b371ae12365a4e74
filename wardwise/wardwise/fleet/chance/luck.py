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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Philox makes four numbers for each value of its counter.
NUMBERS_PER_COUNT = 4
# A double holds 52 bits and a half between 0 and 1.
DROPPED_BITS = 12
STEP = 2.0**-52


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
    counter = [first // NUMBERS_PER_COUNT, 0, 0, 0]
    raw = np.random.Philox(key=key, counter=counter).random_raw(count)
    return np.asarray(((raw >> np.uint64(DROPPED_BITS)) + 0.5) * STEP)
