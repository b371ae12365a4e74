"""Random bits by counter: the same seed and position give the same bits on any device.

Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), the
generator behind Triton's ``tl.rand``. Position i takes word ``i % 4`` of counter ``i // 4``.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF


def random_words(seed: int, positions: Tensor) -> Tensor:
    """Return 32 random bits for each position.

    Parameters
    ----------
    seed
        Key, 0 to 2^64 - 1.
    positions
        int64 tensor of any shape, elements at least 0.

    Returns
    -------
    int64 tensor of the same shape, elements from 0 to 2^32 - 1.
    """
    counter = positions // 4
    words = philox4x32((counter & WORD, counter >> 32), seed)
    return torch.stack(words, dim=-1).gather(-1, (positions % 4)[..., None])[..., 0]


def philox4x32(counter: tuple[Tensor, Tensor], seed: int) -> tuple[Tensor, ...]:
    """Four words for each counter, whose upper two words are zero."""
    c0, c1 = counter
    c2, c3 = torch.zeros_like(c0), torch.zeros_like(c0)
    k0, k1 = seed & WORD, seed >> 32
    for _ in range(ROUNDS):
        high0, low0 = _product(MULTIPLIERS[0], c0)
        high1, low1 = _product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def _product(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower word of a product, which wraps around in int64 without harm."""
    product = word * factor
    return product >> 32 & WORD, product & WORD
