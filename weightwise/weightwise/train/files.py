"""Files that are either whole or absent, and a checksum to tell when they are not."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 2**24
PARTIAL = ".partial-"
# Leftovers of a killed process; younger ones may belong to one that is still at work.
STALE_S = 24 * 3600


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one go."""
    partial = path.with_name(f"{PARTIAL}{path.name}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def publish(partial: Path, final: Path) -> None:
    """Give a finished folder its name, after all that it holds has reached the disk."""
    for path in (*sorted(partial.rglob("*")), partial):
        sync(path)
    partial.rename(final)
    sync(final.parent)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name; it gets its own when all has gone well.

    Where another process is faster its folder stays: the same name means the same content.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(final.parent)
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=final.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes it private, but a cache may be shared
        try:
            partial.rename(final)
        except OSError:
            if not final.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    for partial in folder.glob(f"{PARTIAL}*"):
        with suppress(FileNotFoundError):  # its process has just renamed it
            if partial.is_dir() and time.time() - partial.stat().st_mtime > STALE_S:
                shutil.rmtree(partial, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> str:
    """CRC-32 of a file in hexadecimal: finds damage, not tampering."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"
