"""Near-duplicates among texts: MinHash finds the candidates, exact Jaccard similarity decides.

A text is the set of its runs of three words. Two sets A and B are as similar as
|A ∩ B| / |A ∪ B|; under a random order of all runs this is the probability that both have the
same first one (Broder 1997). A signature holds the first run under 256 orders, as its hash. It is
cut into b bands of r rows, and texts that agree in a whole band are compared: with similarity s
that happens with probability 1 - (1 - s^r)^b (Leskovec et al., Mining of Massive Datasets,
chapter 3). Bands are chosen so that a pair at the threshold is seen with probability 0.999 or
more, which errs on the side of work; every hit is then checked on the sets themselves, so that
nothing is called a duplicate which is none.

The shingle is three words since instructions are short: one word changed in thirty still leaves
a similarity of 0.8. A text costs 1.3 kB and 8 bytes a word.
"""

# Shapes: N texts, K hashes of a signature, S shingles of a text, B bands

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from weightwise.lm.post.words import split_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NUM_HASHES = 256
SHINGLE_WORDS = 3
LEAST_RECALL = 0.999
# Standard deviations by which a signature may underrate the similarity of a pair.
SLACK = 4.0

_draw = np.random.default_rng(20241106)
_FACTOR_K, _SHIFT_K = _draw.integers(0, 2**64, size=(2, NUM_HASHES), dtype=np.uint64)
_FACTOR_K |= np.uint64(1)
_WEIGHTS = _draw.integers(0, 2**64, size=SHINGLE_WORDS, dtype=np.uint64) | np.uint64(1)
_BAND_WEIGHTS = _draw.integers(0, 2**64, size=NUM_HASHES, dtype=np.uint64) | np.uint64(1)


def find_near_duplicates(
    texts: Sequence[str], threshold: float, *, num_fixed: int = 0
) -> list[int | None]:
    """Tell for each text which earlier one that is kept it repeats.

    Parameters
    ----------
    texts
        A text is kept if it repeats no kept one before it, so of a group the first stays.
    threshold
        Jaccard similarity, above 0 and at most 1, from which on texts are near-duplicates.
    num_fixed
        So many texts at the front are kept whatever they repeat.

    Returns
    -------
    list
        Index of the repeated text, the first if there are several; ``None`` for kept texts.

    Raises
    ------
    ValueError
        If the threshold is out of range.
    """
    bands, rows = choose_bands(threshold)
    if not texts:
        return []
    sets = [shingles(text) for text in texts]
    signature_NK = np.stack([signature(shingle_S) for shingle_S in sets])
    key_NB, is_shared_NB = _band_keys(signature_NK, bands, rows)
    least = threshold - SLACK * (threshold * (1 - threshold) / NUM_HASHES) ** 0.5
    buckets: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    found: list[int | None] = []
    for index in range(len(texts)):
        # A key that no other text has finds nobody and needs no bucket.
        keys = [(int(band), int(key_NB[index, band])) for band in is_shared_NB[index].nonzero()[0]]
        repeated = None
        if index >= num_fixed:
            near = np.array(sorted({other for key in keys for other in buckets[key]}), np.int64)
            estimate = (signature_NK[near] == signature_NK[index]).mean(axis=1)
            likely = near[estimate >= least].tolist()
            repeated = next((k for k in likely if jaccard(sets[k], sets[index]) >= threshold), None)
        if repeated is None:
            for key in keys:
                buckets[key].append(index)
        found.append(repeated)
    return found


def shingles(text: str) -> NDArray[np.uint64]:
    """Hashes of the runs of three words, sorted, each once; shorter texts have one run."""
    found = split_words(text)
    found += [""] * (SHINGLE_WORDS - len(found))
    hash_T = np.array([_hash_word(word) for word in found], np.uint64)
    # Sums with odd weights modulo 2^64: the order of the words counts.
    return np.unique((sliding_window_view(hash_T, SHINGLE_WORDS) * _WEIGHTS).sum(axis=1))


def jaccard(first_S: NDArray[np.uint64], second_S: NDArray[np.uint64]) -> float:
    """Similarity of two sets of shingles, 0 to 1."""
    common = len(np.intersect1d(first_S, second_S, assume_unique=True))
    return common / (len(first_S) + len(second_S) - common)


def signature(shingle_S: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Smallest hash under each of 256 multiply-shift functions (Dietzfelbinger et al. 1997)."""
    hash_KS = (_FACTOR_K[:, None] * shingle_S + _SHIFT_K[:, None]) >> np.uint64(32)
    least_K: NDArray[np.uint64] = hash_KS.min(axis=1)
    return least_K.astype(np.uint32)


def choose_bands(threshold: float) -> tuple[int, int]:
    """Bands and rows: the longest bands that see a pair at the threshold with 0.999.

    Raises
    ------
    ValueError
        If the threshold is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected above 0 and at most 1, got {threshold}")
    for rows in range(NUM_HASHES, 1, -1):
        bands = NUM_HASHES // rows
        if 1 - (1 - threshold**rows) ** bands >= LEAST_RECALL:
            return bands, rows
    return NUM_HASHES, 1


def _band_keys(
    signature_NK: NDArray[np.uint32], bands: int, rows: int
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """A key of each text for each band, and whether another text has the same."""
    used_NBR = signature_NK[:, : bands * rows].reshape(-1, bands, rows).astype(np.uint64)
    key_NB = (used_NBR * _BAND_WEIGHTS[:rows]).sum(axis=2)
    is_shared_NB = np.empty(key_NB.shape, np.bool_)
    for band in range(bands):
        _, inverse_N, count = np.unique(key_NB[:, band], return_inverse=True, return_counts=True)
        is_shared_NB[:, band] = count[inverse_N] > 1
    return key_NB, is_shared_NB


@lru_cache(maxsize=2**18)
def _hash_word(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
