"""Writing soft labels: any number of processes at once, killed and resumed at will.

    config = StoreConfig(classes=1000, k=10, teacher="...", fingerprint="...", base_seed=1)
    with StoreWriter("labels", config, epoch=0, shard="host0-0") as writer:
        todo = writer.missing(keys)
        ...
        writer.append(keys, seeds, indices, values)

Every writer has a file of its own in each epoch; they need not know of each other. What `append`
has returned for survives the death of the process, and that of the machine after `flush`.
"""

# Shapes: B images of a batch, K classes of an image, N keys

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from contextlib import suppress
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weightwise.distill.header import HEADER_BYTES, SEAL, SEAL_AT, SOFT, Seal, describe, pack_head
from weightwise.distill.keys import KeySet, natural
from weightwise.distill.names import NamesFile
from weightwise.distill.records import UNIT, Layout
from weightwise.distill.rows import Checker, Rows, encoded
from weightwise.distill.shard import Shard
from weightwise.distill.store import ids_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from weightwise.distill.header import StoreConfig
    from weightwise.distill.keys import Keys

SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_UNITS = 2**32
SYNC_S = 30.0


class StoreWriter:
    """Appends the labels of an epoch to a file of its own.

    Parameters
    ----------
    path
        Folder of the store; made if missing.
    config
        What the store holds. All files say the same.
    epoch
        Number of the epoch, from 0.
    shard
        Name of the file: letters, digits, points and dashes. Processes that write at the same time
        need different ones; who resumes may take any.

    Attributes
    ----------
    num_records
        Records in this file.
    num_dropped
        Records that were not written because their keys already were.

    Raises
    ------
    ValueError
        If the file belongs to another store, is damaged, or another process writes it; with file
        and field.
    """

    def __init__(
        self, path: Path | str, config: StoreConfig, *, epoch: int, shard: str = "0"
    ) -> None:
        if not SHARD.fullmatch(shard):
            raise ValueError(f"shard: expected letters, digits, points and dashes, got {shard!r}")
        if not 0 <= epoch < (config.epochs or 100_000):
            raise ValueError(f"epoch: expected 0 to {(config.epochs or 100_000) - 1}, got {epoch}")
        self.config, self.epoch, self.num_records, self.num_dropped = config, epoch, 0, 0
        self.path = Path(path) / f"epoch-{epoch:05d}" / f"{shard}.soft"
        self._layout, self._checker = Layout(config), Checker(config, epoch)
        self._known, self._place, self._digest, self._is_sealed = KeySet(), 0, 0, False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._names = NamesFile(Path(path) / f"names-{shard}.txt")
        if not self.path.exists():
            _create(self.path, pack_head(SOFT, describe(config, epoch)))
        self._file = os.open(self.path, os.O_RDWR)
        self._is_open = True
        try:
            self._lock()
            self._resume()
        except BaseException:
            os.close(self._file)
            raise
        self._synced_s = time.monotonic()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def missing(self, keys: Keys) -> NDArray[np.intp]:
        """Places of the keys that are not stored: in this file now, in others when it was opened.

        Raises
        ------
        ValueError
            If keys are not of the kind that the store has.
        """
        return np.flatnonzero(~self._known.contains(natural(ids_for(self.config, keys))))

    def append(self, keys: Keys, seeds: Any, indices: Any, values: Any, counts: Any = None) -> int:
        """Write labels of a batch; repeated keys, as padding samplers cause, are dropped.

        Parameters
        ----------
        keys
            Images, shape (B,): numbers or names, as the store has them.
        seeds
            Seeds of their augmentations, shape (B,), 0 to 2^31 - 1; `augmentation_seeds` if the
            store has a base seed.
        indices
            Classes, most probable first, shape (B, K).
        values
            Their probabilities or logits, shape (B, K); see `top_k`.
        counts
            How many of them to store, shape (B,); only if the store has ``mass``, which decides
            where this is not given.

        Returns
        -------
        int
            Number of records written.

        Raises
        ------
        ValueError
            If something is out of range; nothing has been written then.
        OSError
            If the disk is full; what was written before is safe.
        """
        if not self._is_open:
            raise ValueError(f"{self.path}: expected an open writer, it is closed")
        id_B = natural(ids_for(self.config, keys))
        rows = self._checker.rows(id_B, seeds, indices, values, counts)
        names = list(keys) if self.config.keys == "name" else None
        return self.append_rows(rows, names)

    def append_rows(self, rows: Rows, names: Sequence[str] | None) -> int:
        """Write what has been checked; names where keys are names. See `append`."""
        if self._place + len(rows.ids) * self._layout.max_units > MAX_UNITS:
            raise ValueError(f"{self.path}: size: expected at most 32 GiB; go on in another shard")
        is_new_B = self._known.add(rows.ids)
        if not is_new_B.all():
            self.num_dropped += int(len(is_new_B) - is_new_B.sum())
            rows = rows.select(is_new_B)
            names = names and list(compress(names, is_new_B))
        raw, digest = encoded(rows, self._layout, self._place)
        try:
            # Names first: one too many does no harm, but a record without one cannot be listed.
            if names:
                self._names.add(names, rows.ids)
            self._write(raw)
        except OSError:
            self.close()
            raise
        self._place += len(raw)
        self._digest = (self._digest + digest) % 2**64
        self.num_records += len(rows.ids)
        if time.monotonic() - self._synced_s > SYNC_S:
            self.flush()
        return len(rows.ids)

    def flush(self) -> None:
        """Wait until all is on disk."""
        os.fsync(self._file)
        self._names.sync()
        self._synced_s = time.monotonic()

    def close(self) -> None:
        """Put the seal on the file; more can be appended by another writer later."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            if not self._is_sealed:
                seal = self._seal()
                os.ftruncate(self._file, seal.num_bytes)  # what an interrupt has left
                self.flush()
                os.pwrite(self._file, seal.pack(), SEAL_AT)
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def _seal(self) -> Seal:
        num_bytes = HEADER_BYTES + UNIT * self._place
        return Seal(num_records=self.num_records, num_bytes=num_bytes, digest=self._digest)

    def _write(self, raw: NDArray[np.uint64]) -> None:
        if self._is_sealed:
            os.pwrite(self._file, bytes(SEAL.size), SEAL_AT)
            self._is_sealed = False
        left, at = memoryview(raw.data).cast("B"), HEADER_BYTES + UNIT * self._place
        while left:
            done = os.pwrite(self._file, left, at)
            left, at = left[done:], at + done

    def _lock(self) -> None:
        """Keep other writers out; the operating system lets go when this process ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{self.path}: shard: expected one that no other process writes; choose another"
            ) from None
        except OSError:  # a file system without locks, where different names have to do
            return

    def _resume(self) -> None:
        """Find out what is there; cut off what a killed writer has left unfinished."""
        for path in sorted(self.path.parent.glob("*.soft")):
            shard = Shard(path, self.config, self.epoch, self._layout)
            self._known.add(shard.records.ids)
            if path == self.path:
                found = shard.records.seal
                self._is_sealed = shard.seal is not None
        self.num_records, self._digest = found.num_records, found.digest
        self._place = (found.num_bytes - HEADER_BYTES) // UNIT


def _create(path: Path, head: bytes) -> None:
    """Make a file that has a head from the first moment that others see it."""
    partial = path.with_name(f".{path.name}-{socket.gethostname()}-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(head)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster; the lock decides
            os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
