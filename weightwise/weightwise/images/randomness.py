"""All randomness of images: one generator per sample, seeded by one integer.

A sample's seed is a hash of (base seed, epoch, key), so it depends neither on the process nor on
the worker, nor on the epoch a run started with (official stores do: their seeds come from the
workers' states). Everything random about the sample is drawn from PCG64 of that seed, in an order
that is part of the format of a soft-label store: whoever changes it raises `VERSION`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from numpy.random import PCG64, Generator

if TYPE_CHECKING:
    from collections.abc import Sequence

# Part of every fingerprint: raise it when the same seed gives other draws or other pixels.
VERSION = 1


def sample_seed(base: int, epoch: int, key: str) -> int:
    """Seed of a sample in an epoch.

    Parameters
    ----------
    base
        Seed of the run.
    epoch
        Number of the epoch.
    key
        Name of the sample in its source.

    Returns
    -------
    int
        31 bits, as a store keeps them: 0 ... 2^31 - 1.
    """
    text = f"{base}/{epoch}/{key}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") >> 1


def sample_seeds(base: int, epoch: int, keys: Sequence[str]) -> list[int]:
    """Seeds of several samples; see `sample_seed`."""
    return [sample_seed(base, epoch, key) for key in keys]


def generator_of(seed: int) -> Generator:
    """Generator of a sample.

    Parameters
    ----------
    seed
        Seed, at least 0.
    """
    return Generator(PCG64(seed))


def uniform(rng: Generator, low: float, high: float) -> float:
    """Draw from [low, high)."""
    return low + rng.random() * (high - low)


def integer(rng: Generator, low: int, high: int) -> int:
    """Draw from low ... high, both included; the minimum guards against rounding upwards."""
    return min(int(rng.random() * (high - low + 1)) + low, high)


def chance(rng: Generator, probability: float) -> bool:
    """Whether something of this probability happens; always draws a number."""
    return rng.random() < probability
