"""Keys of images and the seeds of their augmentation.

A key is the number of an image in its data set or its name. In files and indexes it is a
non-negative 63-bit integer, the *id*: the number itself, or a hash of the name. Among 14 million
names two share an id with a probability of n^2 / 2^64, 1e-5.

The seed of an augmentation is a hash of base seed, epoch and id alone. Who asks for it, in which
order, on which worker and after which start does not matter, so any part of a store can be written
anywhere, twice or later, and comes out the same.
"""

# Shapes: B keys

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    Keys: TypeAlias = NDArray[np.integer[Any]] | Tensor | Sequence[int] | Sequence[str]

compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")
U64 = np.uint64
# SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
GAMMA, MIX_1, MIX_2 = U64(0x9E3779B97F4A7C15), U64(0xBF58476D1CE4E5B9), U64(0x94D049BB133111EB)
# FNV-1a, 64 bits: Fowler, Noll, Vo.
FNV_OFFSET, FNV_PRIME = U64(0xCBF29CE484222325), U64(0x100000001B3)
LINE_END = np.uint8(10)
FREE = np.int64(-1)
MAX_SEED = 2**63 - 1


@compiled
def mix(x: Any) -> Any:
    """One output of SplitMix64 whose state was x: every bit depends on all bits."""
    x = U64(x) + GAMMA
    x = (x ^ (x >> U64(30))) * MIX_1
    x = (x ^ (x >> U64(27))) * MIX_2
    return x ^ (x >> U64(31))


@compiled
def _fill_seeds(base: Any, epoch: Any, ids: Any, out: Any) -> None:
    start = mix(mix(U64(base)) ^ U64(epoch))
    for i in range(len(ids)):
        out[i] = np.int32(mix(start ^ U64(ids[i])) >> U64(33))


@compiled
def _hash_lines(text: Any, out: Any) -> Any:
    """Hash each line, all of which end; the number of lines, or -1 if one is empty."""
    line, value, size = 0, FNV_OFFSET, 0
    for byte in text:
        if byte != LINE_END:
            value, size = (value ^ U64(byte)) * FNV_PRIME, size + 1
            continue
        if size == 0 or line == len(out):
            return -1
        out[line] = np.int64(mix(value) >> U64(1))
        line, value, size = line + 1, FNV_OFFSET, 0
    return line


@compiled
def _insert(table: Any, ids: Any, is_new: Any) -> Any:
    """Put ids into an open hash table at most half full; how many were not yet in it."""
    mask, count = U64(len(table) - 1), 0
    for i in range(len(ids)):
        place = mix(ids[i]) & mask
        while table[place] != FREE and table[place] != ids[i]:
            place = (place + U64(1)) & mask
        is_new[i] = table[place] == FREE
        if is_new[i]:
            table[place] = ids[i]
            count += 1
    return count


@compiled
def _find(table: Any, ids: Any, is_known: Any) -> None:
    mask = U64(len(table) - 1)
    for i in range(len(ids)):
        place = mix(ids[i]) & mask
        while table[place] != FREE and table[place] != ids[i]:
            place = (place + U64(1)) & mask
        is_known[i] = table[place] != FREE


def key_ids(keys: Keys) -> NDArray[np.int64]:
    """Ids of keys.

    Parameters
    ----------
    keys
        Numbers from 0, as a list, array or tensor of one dimension; or names, which are not empty
        and have no line ends.

    Returns
    -------
    ndarray
        int64, shape (B,), contiguous.

    Raises
    ------
    ValueError
        If keys are neither.
    """
    if isinstance(keys, np.ndarray) and keys.dtype == np.int64 and keys.ndim == 1:
        ids_B: NDArray[np.int64] = keys  # type: ignore[assignment]
        return ids_B if ids_B.flags.c_contiguous else ids_B.copy()
    listed: Any = keys if hasattr(keys, "dtype") or isinstance(keys, list) else list(keys)
    if is_names(listed):
        return name_ids(listed)
    array = np.asarray(listed)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise ValueError(
            f"keys: expected a list of numbers or names, got {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64)


def natural(id_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """Refuse keys below 0, which no store has."""
    if len(id_B) and id_B.min() < 0:
        raise ValueError(f"keys: expected numbers from 0 to 2^63 - 1, got {id_B.min()}")
    return id_B


def is_names(keys: Any) -> bool:
    """Whether keys are names; the first one tells."""
    return len(keys) > 0 and isinstance(keys[0], str)


def name_ids(names: Sequence[str]) -> NDArray[np.int64]:
    """Ids of names, see `key_ids`."""
    out_B = np.empty(len(names), dtype=np.int64)
    if len(names):
        try:
            text = "\n".join((*names, "")).encode()
        except (TypeError, UnicodeEncodeError) as error:
            raise ValueError(f"keys: expected all to be names ({error})") from error
        if _hash_lines(np.frombuffer(text, np.uint8), out_B) != len(names):
            raise ValueError("keys: expected names that are not empty and have no line ends")
    return out_B


def augmentation_seeds(base_seed: int, epoch: int, keys: Keys) -> NDArray[np.int32]:
    """Seeds of augmentations: the same wherever and whenever they are asked for.

    Parameters
    ----------
    base_seed
        Seed of the whole store, 0 to 2^63 - 1.
    epoch
        Number of the epoch, from 0.
    keys
        Images.

    Returns
    -------
    ndarray
        int32 from 0 to 2^31 - 1, shape (B,).
    """
    if not 0 <= base_seed <= MAX_SEED or epoch < 0:
        raise ValueError(
            f"base_seed, epoch: expected 0 to 2^63 - 1 and at least 0, got {base_seed}, {epoch}"
        )
    ids_B = natural(key_ids(keys))
    out_B = np.empty(len(ids_B), dtype=np.int32)
    _fill_seeds(base_seed, epoch, ids_B, out_B)
    return out_B


class KeySet:
    """A set of ids in 16 to 32 bytes each: a tenth of what a set of Python takes."""

    def __init__(self) -> None:
        self._table = np.full(1024, FREE, dtype=np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids_B: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Add ids; which of them were new (of equal ones the first)."""
        if 2 * (self._count + len(ids_B)) > len(self._table):
            self._grow(self._count + len(ids_B))
        is_new_B = np.empty(len(ids_B), dtype=np.bool_)
        self._count += _insert(self._table, ids_B, is_new_B)
        return is_new_B

    def contains(self, ids_B: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these ids are in the set."""
        is_known_B = np.empty(len(ids_B), dtype=np.bool_)
        _find(self._table, ids_B, is_known_B)
        return is_known_B

    def _grow(self, count: int) -> None:
        old = self._table[self._table != FREE]
        # Room for as many again, so that growing costs a constant for each id.
        self._table = np.full(1 << (4 * count - 1).bit_length(), FREE, dtype=np.int64)
        _insert(self._table, old, np.empty(len(old), dtype=np.bool_))
