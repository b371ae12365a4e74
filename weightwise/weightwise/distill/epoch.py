"""All labels of one epoch: the files of its writers as one, found by key."""

# Shapes: N records, T bucket starts, B keys of a batch, K classes of an image, U units of a record

from __future__ import annotations

import hashlib
import json
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weightwise.distill.header import HEADER_BYTES, INDEX, pack_head, read_head
from weightwise.distill.keys import KeySet
from weightwise.distill.lookup import (
    DAMAGED,
    MAX_FILES,
    WINDOW,
    bucket_bits,
    build,
    contains,
    gather,
    take,
)
from weightwise.distill.records import Layout
from weightwise.distill.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from weightwise.distill.header import StoreConfig

TAKEN = 2**16  # records that are copied out at a time


class SoftBatch(NamedTuple):
    """Labels of some images.

    Parameters
    ----------
    seeds
        Seeds of the augmentations that the teacher has seen, int32; shape (B,).
    indices
        Classes, most probable first (by rising class from a compact store); integers of 16 or 32
        bits, shape (B, K). Zeros from ``counts`` on.
    values
        Their probabilities or logits, float16 or float32; shape (B, K). Zeros from ``counts`` on.
    counts
        Number of classes, int64; shape (B,).
    """

    seeds: NDArray[np.int32]
    indices: NDArray[Any]
    values: NDArray[Any]
    counts: NDArray[np.int64]


class Epoch:
    """The labels of an epoch.

    Parameters
    ----------
    folder
        Folder of the epoch.
    config
        What its files have to say of themselves.
    number
        The epoch.
    is_lenient
        Whether damaged records are left out instead of refused.

    Attributes
    ----------
    shards
        Files in the order of their names.
    num_repeated
        Records whose key an earlier file has with the same seed, as padding samplers cause; the
        first one counts.

    Raises
    ------
    ValueError
        If a file is not as it should be, or has a key twice or with two seeds; with file and field.
    """

    def __init__(
        self, folder: Path, config: StoreConfig, number: int, *, is_lenient: bool = False
    ) -> None:
        self.folder, self.config, self.number = folder, config, number
        self._layout, self._dtype = Layout(config), config.record_dtype
        paths = sorted(folder.glob("*.soft"))
        if len(paths) > MAX_FILES:
            raise ValueError(f"{folder}: files: expected at most {MAX_FILES}, got {len(paths)}")
        self.shards = [
            Shard(path, config, number, self._layout, is_lenient=is_lenient) for path in paths
        ]
        self._base_S = np.array([one.base for one in self.shards], dtype=np.int64)
        self._units_S = np.array([one.num_units for one in self.shards], dtype=np.int64)
        self._start_T, self._entry_N, self.num_repeated = self._index(is_kept=not is_lenient)
        addresses = [
            self._start_T.ctypes.data, 64 - (len(self._start_T) - 1).bit_length() + 1,
            self._entry_N.ctypes.data, len(self._entry_N) - WINDOW,
            self._base_S.ctypes.data, self._units_S.ctypes.data, len(self.shards),
        ]  # fmt: skip
        self._view = np.concatenate([self._layout.numbers, addresses])

    @property
    def num_images(self) -> int:
        """Number of stored keys."""
        return len(self._entry_N) - WINDOW - self.num_repeated

    def gather(self, id_B: NDArray[np.int64]) -> tuple[SoftBatch, int]:
        """Copy labels out; every record is checked.

        Parameters
        ----------
        id_B
            Ids of keys, contiguous.

        Returns
        -------
        tuple
            Labels, with ``counts`` -1 where a key is not stored; and how many are not.

        Raises
        ------
        ValueError
            If a record is damaged.
        """
        state_B = np.empty(len(id_B), dtype=np.int64)
        row_BU = np.empty((len(id_B), self._layout.row_units), dtype=np.uint64)
        num_missing = int(gather(id_B, self._view, state_B, row_BU))
        if num_missing and (state_B == DAMAGED).any():
            key = id_B[state_B == DAMAGED][0]
            raise ValueError(f"{self.folder}: checksum: the record of key {key} is damaged")
        return self._batch(row_BU, state_B), num_missing

    def contains(self, id_B: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which keys are stored."""
        is_stored_B = np.empty(len(id_B), dtype=np.bool_)
        contains(id_B, self._view, is_stored_B)
        return is_stored_B

    def ids(self) -> NDArray[np.int64]:
        """Ids of all keys, in the order of files and records; int64, shape (N,)."""
        listed = [one.records.ids for one in self.shards]
        all_N = np.concatenate([*listed, np.empty(0, dtype=np.int64)])
        return all_N[KeySet().add(all_N)] if self.num_repeated else all_N

    def batches(self) -> Iterator[tuple[NDArray[np.int64], SoftBatch]]:
        """All labels in the order of files and records, some thousands at a time, with their ids.

        Repeated keys come as often as they are stored.
        """
        for shard in self.shards:
            for start in range(0, len(shard.records.ids), TAKEN):
                place_N = shard.records.places[start : start + TAKEN]
                state_N = np.empty(len(place_N), dtype=np.int64)
                row_NU = np.empty((len(place_N), self._layout.row_units), dtype=np.uint64)
                take(place_N, shard.base, self._layout.numbers, state_N, row_NU)
                yield shard.records.ids[start : start + TAKEN], self._batch(row_NU, state_N)

    def _batch(self, row_BU: NDArray[np.uint64], state_B: NDArray[np.int64]) -> SoftBatch:
        # As a view of the rows, but without the checks that take a microsecond.
        rows: NDArray[Any] = np.ndarray(len(row_BU), self._dtype, row_BU)
        return SoftBatch(rows["seed"], rows["index"], rows["value"], state_B)

    def _index(self, *, is_kept: bool) -> tuple[NDArray[np.uint32], NDArray[np.uint64], int]:
        """Read the index; if it is missing or that of other files, make it and try to keep it."""
        seals = [one.seal for one in self.shards]
        listed = [(one.path.name, str(seal)) for one, seal in zip(self.shards, seals, strict=True)]
        digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        # What is still being written has no seal: its index would be out of date at once.
        is_kept = is_kept and None not in seals
        path = self.folder / "index"
        if is_kept and path.exists() and (found := _load(path, digest)):
            return found
        start_T, entry_N, repeated = self._make_index()
        if is_kept:
            with suppress(OSError):  # a folder that may only be read
                _save(path, {"files": digest, "repeated": repeated}, start_T, entry_N)
        return start_T, entry_N, repeated

    def _make_index(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64], int]:
        records = [one.records for one in self.shards]
        sizes = [len(one.ids) for one in records]
        file_N = np.repeat(np.arange(len(sizes)), sizes)
        columns = [
            np.concatenate([getattr(one, name) for one in records] or [np.empty(0, np.int64)])
            for name in ("ids", "places", "seeds")
        ]
        id_N, place_N, seed_N = columns
        bits = bucket_bits(len(id_N))
        start_T = np.zeros(2**bits + 1, dtype=np.uint32)
        entry_N = np.zeros(len(id_N) + WINDOW, dtype=np.uint64)
        shift = np.uint64(64 - bits)
        repeated = int(build(id_N, file_N, place_N, seed_N, start_T, entry_N, shift))
        if repeated < 0:
            second = -1 - repeated
            first = int(np.flatnonzero(id_N == id_N[second])[0])
            raise ValueError(
                f"{self.shards[file_N[second]].path}: key: {id_N[second]} with seed "
                f"{seed_N[second]} is already in {self.shards[file_N[first]].path.name} with seed "
                f"{seed_N[first]}"
            )
        return start_T, entry_N, repeated


def _load(path: Path, digest: str) -> tuple[NDArray[np.uint32], NDArray[np.uint64], int] | None:
    """Map an index; `None` if it is damaged or that of other files."""
    try:
        found = read_head(path, INDEX).description
        bits, count, repeated = (int(found[name]) for name in ("bits", "records", "repeated"))
    except (ValueError, KeyError, TypeError):
        return None
    num_starts = 2**bits + 1
    starts_bytes = 4 * (num_starts + num_starts % 2)
    size = HEADER_BYTES + starts_bytes + 8 * (count + WINDOW)
    if found["files"] != digest or path.stat().st_size != size:
        return None
    raw = np.asarray(np.memmap(path, np.uint8, "r", HEADER_BYTES))
    start_T = raw[: 4 * num_starts].view("<u4")
    return start_T, raw[starts_bytes:].view("<u8"), repeated


def _save(
    path: Path, facts: dict[str, Any], start_T: NDArray[np.uint32], entry_N: NDArray[np.uint64]
) -> None:
    """Write an index in one go."""
    bits, count = (len(start_T) - 1).bit_length() - 1, len(entry_N) - WINDOW
    partial = path.with_name(f".index-{socket.gethostname()}-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(pack_head(INDEX, facts | {"bits": bits, "records": count}))
            start_T.tofile(file)
            file.write(bytes(4 * (len(start_T) % 2)))
            entry_N.tofile(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
