"""Token files on disk: flat, memory-mapped, cut into shards.

A split such as ``train`` is one long sequence of token ids, stored in files
``train-00000.bin``, ``train-00001.bin`` … of unsigned 16-bit integers (32-bit where the
vocabulary needs it), little-endian, without any header. What they hold is said by the index.
Documents follow each other with an end-of-text token after each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# 128 MB of 16-bit ids: large enough to be few, small enough to copy around.
TOKENS_PER_SHARD = 2**26


@dataclass(frozen=True, kw_only=True)
class SplitIndex:
    """What the shards of a split hold.

    Parameters
    ----------
    dtype
        ``uint16`` or ``uint32``.
    shard_tokens
        Tokens in each shard, in order.
    max_id
        Largest token id.
    """

    dtype: str
    shard_tokens: tuple[int, ...]
    max_id: int


class ShardWriter:
    """Writes one split.

    Parameters
    ----------
    folder
        Existing folder.
    split
        Name of the split, the first part of the file names.
    vocab_size
        Decides between 16 and 32 bits.
    tokens_per_shard
        Tokens of a full shard.
    """

    def __init__(
        self, folder: Path, split: str, vocab_size: int, tokens_per_shard: int = TOKENS_PER_SHARD
    ) -> None:
        self._folder = folder
        self._split = split
        self._dtype = np.dtype("<u2" if vocab_size <= 2**16 else "<u4")
        self._tokens_per_shard = tokens_per_shard
        self._shard_tokens: list[int] = []
        self._max_id = 0

    def append(self, ids: Sequence[int]) -> None:
        """Add tokens at the end of the split."""
        rest = np.asarray(ids, dtype=self._dtype)
        self._max_id = max(self._max_id, int(rest.max(initial=0)))
        while len(rest):
            if not self._shard_tokens or self._shard_tokens[-1] == self._tokens_per_shard:
                self._shard_tokens.append(0)
            room = self._tokens_per_shard - self._shard_tokens[-1]
            name = shard_name(self._split, len(self._shard_tokens) - 1)
            with (self._folder / name).open("ab") as file:
                rest[:room].tofile(file)
            self._shard_tokens[-1] += len(rest[:room])
            rest = rest[room:]

    def index(self) -> SplitIndex:
        """Describe what has been written."""
        return SplitIndex(
            dtype=self._dtype.name, shard_tokens=tuple(self._shard_tokens), max_id=self._max_id
        )


class TokenStore:
    """Reads one split.

    Parameters
    ----------
    folder, split
        As given to `ShardWriter`.
    index
        As it returned.

    Raises
    ------
    ValueError
        If a shard is missing or has not the size that the index says.
    """

    def __init__(self, folder: Path, split: str, index: SplitIndex) -> None:
        self._starts = np.cumsum((0, *index.shard_tokens))
        self._shards: list[NDArray[np.unsignedinteger]] = []
        dtype = np.dtype(index.dtype).newbyteorder("<")
        for number, count in enumerate(index.shard_tokens):
            path = folder / shard_name(split, number)
            size = path.stat().st_size if path.exists() else 0
            if size != count * dtype.itemsize:
                raise ValueError(
                    f"{path}: expected {count * dtype.itemsize} bytes, got {size}; "
                    f"remove {folder} to prepare the data again"
                )
            self._shards.append(np.memmap(path, dtype=dtype, mode="r"))

    @property
    def num_tokens(self) -> int:
        """Tokens of the split."""
        return int(self._starts[-1])

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """Copy tokens ``start`` to ``start + count`` out, across shards where needed.

        Parameters
        ----------
        start, count
            Range within the split.

        Returns
        -------
        ndarray
            Token ids, int64, shape (count,).
        """
        out = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            shard = int(np.searchsorted(self._starts, start + done, side="right")) - 1
            offset = start + done - int(self._starts[shard])
            piece = self._shards[shard][offset : offset + count - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
        return out

    def positions(self, token: int) -> NDArray[np.int64]:
        """Places of a token in the split, rising; reads all of it."""
        found = [
            np.flatnonzero(shard == token) + start
            for shard, start in zip(self._shards, self._starts, strict=False)
        ]
        return np.concatenate([np.empty(0, dtype=np.int64), *found])


def shard_name(split: str, number: int) -> str:
    """File name of a shard."""
    return f"{split}-{number:05d}.bin"
