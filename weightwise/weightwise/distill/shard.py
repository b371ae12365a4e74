"""One file of records, mapped into memory and checked."""

# Shapes: N records

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from weightwise.distill.header import (
    HEADER_BYTES,
    SOFT,
    Seal,
    StoreConfig,
    check_field,
    check_same,
    read_config,
    read_head,
)
from weightwise.distill.records import UNIT, UNITS, VARIES, Layout, next_whole, scan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SMALLEST = 3  # units of the smallest record


@dataclass(frozen=True, kw_only=True)
class Records:
    """What stands in a file, in its order.

    Parameters
    ----------
    places
        Where each record is, in units of 8 bytes after the head; int64.
    ids, seeds
        Keys and seeds; int64 and int32.
    seal
        The seal that the file has or would have.
    """

    places: NDArray[np.int64]
    ids: NDArray[np.int64]
    seeds: NDArray[np.int32]
    seal: Seal


class Shard:
    """A file of records, opened for reading.

    Parameters
    ----------
    path
        The file.
    config, epoch
        What it has to say of itself.
    layout
        Layout of the records of this store.
    is_lenient
        Whether damaged records, and an end that is missing, are left out instead of refused.

    Attributes
    ----------
    seal
        Of a closed file; `None` while it is written or if its writer was killed.
    base
        Address of the first record.
    num_units
        Size of what follows the head in 8 bytes. A torn end does not count.
    num_lost
        Damaged stretches that were left out.

    Raises
    ------
    ValueError
        If the file is truncated, damaged, or another store's; with file and field.
    """

    def __init__(
        self,
        path: Path,
        config: StoreConfig,
        epoch: int,
        layout: Layout,
        *,
        is_lenient: bool = False,
    ) -> None:
        head = read_head(path, SOFT)
        found, found_epoch = read_config(path, head)
        check_same(path, found, config)
        if found_epoch != epoch:
            raise ValueError(f"{path}: epoch: expected {epoch}, got {found_epoch}")
        self.path, self.layout, self.seal = path, layout, head.seal
        self.num_lost, self._is_lenient = 0, is_lenient
        with path.open("rb") as file:
            self.num_bytes = os.fstat(file.fileno()).st_size
            self._map = mmap.mmap(file.fileno(), self.num_bytes, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self.base = self._bytes.ctypes.data + HEADER_BYTES
        self.num_units = (self.num_bytes - HEADER_BYTES) // UNIT
        if self.seal and self.seal.num_bytes != self.num_bytes:
            if not is_lenient:
                raise ValueError(
                    f"{path}: records: expected {self.seal.num_records} in {self.seal.num_bytes} "
                    f"bytes, got a file of {self.num_bytes} bytes"
                )
            self.seal = None
        if self.seal is None:
            self.num_units = self.records.seal.num_bytes // UNIT - HEADER_BYTES // UNIT

    @cached_property
    def records(self) -> Records:
        """All records, read and checked from the first to the last one.

        Raises
        ------
        ValueError
            If one is damaged. What a killed writer has left unfinished at the end is not.
        """
        numbers, parts, start, digest = self.layout.numbers, [], 0, 0
        while True:
            room = (self.num_units - start) // self._least + 1
            place_N = np.empty(room, dtype=np.int64)
            id_N, seed_N = np.empty_like(place_N), np.empty(room, dtype=np.int32)
            at, count, part = scan(self.base, start, self.num_units, numbers, place_N, id_N, seed_N)
            digest = (digest + int(part)) % 2**64
            parts.append((place_N[:count], id_N[:count], seed_N[:count]))
            start = int(next_whole(self.base, at, self.num_units, self._step, numbers))
            if start < 0:
                break
            self._lose(at)
        place_N, id_N, seed_N = (np.concatenate(one) for one in zip(*parts, strict=True))
        seal = Seal(num_records=len(id_N), num_bytes=HEADER_BYTES + UNIT * int(at), digest=digest)
        if self.seal and self.seal != seal and not self._is_lenient:
            raise ValueError(f"{self.path}: seal: expected {self.seal}, got {seal}")
        return Records(places=place_N, ids=id_N, seeds=seed_N, seal=seal)

    @property
    def _least(self) -> int:
        return SMALLEST if self.layout.numbers[VARIES] else int(self.layout.numbers[UNITS])

    @property
    def _step(self) -> int:
        """Records of one size can only start at multiples of it."""
        return 1 if self.layout.numbers[VARIES] else int(self.layout.numbers[UNITS])

    def _lose(self, place: int) -> None:
        self.num_lost += 1
        if not self._is_lenient:
            raise ValueError(
                f"{self.path}: checksum: the record at byte {HEADER_BYTES + UNIT * place} is "
                "damaged; `salvage` copies the others"
            )


def peek(path: Path, *, expected: Mapping[str, object] | None = None) -> tuple[StoreConfig, int]:
    """Settings and epoch of a file of records.

    Parameters
    ----------
    path
        The file.
    expected
        Values that fields of its settings need to have.

    Raises
    ------
    ValueError
        If it is no such file, or a field has another value; with file and field.
    """
    config, epoch = read_config(path, read_head(path, SOFT))
    for name, value in (expected or {}).items():
        check_field(path, config, name, value)
    return config, epoch
