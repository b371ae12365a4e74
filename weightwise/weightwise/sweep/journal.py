"""The records of a sweep: one JSON object a line, one line a run, written by one process.

A record is appended in one piece after its run has ended and reaches the disk before the sweep
goes on. Whatever a kill left of a last line is removed by the next call: the run's own folder
still has all that the record says.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from weightwise.train.files import sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Record = dict[str, Any]


class Journal:
    """Records of finished runs.

    Parameters
    ----------
    path
        The file; made if missing. A torn last line is removed.

    Attributes
    ----------
    records
        What the file holds, by the name of the run.

    Raises
    ------
    ValueError
        If a line is no record, with file and line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        _repair(path)
        self.records = {record["name"]: record for record in read_records(path)}

    def append(self, record: Record) -> None:
        """Add a record; it is on disk when this returns."""
        with self.path.open("ab", buffering=0) as file:
            file.write(json.dumps(record).encode() + b"\n")
            os.fsync(file.fileno())
        self.records[record["name"]] = record


def read_records(path: Path) -> list[Record]:
    """Read records in the order in which the runs ended.

    Raises
    ------
    ValueError
        If a line is no record, with file and line.
    """
    records = []
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(text)
        except ValueError:
            record = None
        if not _is_record(record):
            raise ValueError(
                f"{path}, line {line}: expected the record of a run, got {text[:40]!r}"
            )
        records.append(record)
    return records


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder; made if missing.

    The operating system lets go of the lock when its process ends, however that happens.

    Raises
    ------
    ValueError
        If another sweep is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    # Opened for appending: the name of the holder must stay until the lock is ours.
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ValueError(
                f"{folder}: expected no other process at work there, {holder} is; wait for it, or "
                "choose another --out"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _is_record(value: Any) -> bool:
    fields = {"name": str, "status": str, "recipe": dict}
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) for name, kind in fields.items()
    )


def _repair(path: Path) -> None:
    """Cut off what follows the last line end, unless only that is missing."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return
    try:
        json.loads(content[end:])
    except ValueError:
        os.truncate(path, end)
    else:
        with path.open("ab") as file:
            file.write(b"\n")
    sync(path)
