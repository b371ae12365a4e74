"""The journal: one JSON object a line, appended and never changed.

A line carries its number and a checksum of all that stands before it in the line.
The first line, number 0, tells what the journal is of; each further line is an event,
with the answer it got if there is one. Only a line that ends is valid: what a crash
leaves behind the last line end is dropped when the file is opened for writing, and
ignored when it is read. Anything else that does not fit is an error with the number
of its line.

One process writes: a journal that is open for writing is locked until it is closed.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wardwise.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

_CHECKSUM = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_BLOCK = 65536
_START = b'{"n":'
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_INTERVALS_S = {"never": math.inf, "always": 0.0}


class Journal:
    """A journal file that is open for appending.

    Parameters
    ----------
    path
        The file; a new one is made if there is none. An unfinished last line is cut off.
    fsync
        When written lines are forced to the disk: ``never`` (the operating system
        decides; a crash of the program alone loses nothing), ``always``, or when a
        line is written and the last time is at least so many seconds ago.

    Raises
    ------
    ValueError
        If `fsync` is none of these.
    InputError
        If what would be cut off is not the beginning of a line: the file is no journal; or
        if it is open for writing elsewhere.
    OSError
        If the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: str | float = "never") -> None:
        interval_s = _INTERVALS_S.get(fsync, fsync) if isinstance(fsync, str) else fsync
        if isinstance(interval_s, str) or not interval_s >= 0:
            raise ValueError(
                f"fsync: expected never, always or seconds of at least 0, got {fsync!r}"
            )
        self.path = Path(path)
        self._interval_s = interval_s
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._size = self._cut_unfinished_line()
        except BaseException:
            os.close(self._file)
            raise
        self._synced_s = time.monotonic()

    @property
    def is_empty(self) -> bool:
        """Whether no line is written yet."""
        return self._size == 0

    def append(self, document: dict[str, Any]) -> None:
        """Write one line; when this returns, the line is with the operating system.

        Raises
        ------
        OSError
            If it cannot be written; the file is then as before.
        """
        line = format_line(document)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)
        if time.monotonic() - self._synced_s >= self._interval_s:
            self._sync()

    def close(self) -> None:
        """Force all lines to the disk, unless that is never done, and close the file."""
        if self._interval_s < math.inf:
            self._sync()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _cut_unfinished_line(self) -> int:
        """Lock the file and leave whole lines in it; returns its size."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = "expected a journal that nobody writes, it is in use; close the other first"
            raise InputError(self.path, problem) from None
        size = _end_of_last_line(self._file)
        rest = os.pread(self._file, len(_START), size)
        if rest != _START[: len(rest)]:
            raise InputError(self.path, "expected a journal, got a last line that is not of one")
        os.ftruncate(self._file, size)
        return size

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced_s = time.monotonic()


def format_line(document: dict[str, Any]) -> bytes:
    """Text of one line, with its checksum and line end."""
    body = _ENCODER.encode(document).encode()
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Complete lines of a journal: number in the file from 1, text, and content.

    Raises
    ------
    InputError
        If the file cannot be read, or naming the first line whose checksum or
        number is wrong.
    """
    try:
        with Path(path).open("rb") as file:
            for index, line in enumerate(file):
                if not line.endswith(b"\n"):
                    return
                yield index + 1, line, _parse_line(path, index, line)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise InputError(path, f"expected a readable file, got: {reason}") from error


def replay(path: str | os.PathLike[str], take: Callable[[dict[str, Any]], object]) -> int:
    """Live through a journal again.

    Parameters
    ----------
    path
        The journal.
    take
        Gets the content of one complete line after the other; a KeyError, TypeError or
        ValueError says that it does not fit what came before.

    Returns
    -------
    int
        Number of lines, and of the next one.

    Raises
    ------
    InputError
        As `read_lines`, or naming the first line that does not fit.
    """
    count = 0
    for line, _, document in read_lines(path):
        count = line
        try:
            take(document)
        except (KeyError, TypeError, ValueError) as error:
            problem = f"expected an event that fits what came before, got: {error!r}"
            raise InputError(path, problem, line=line) from error
    return count


def _parse_line(path: str | os.PathLike[str], index: int, line: bytes) -> dict[str, Any]:
    """Content of one line, without its checksum."""
    text = line.rstrip(b"\n")
    start = text.rfind(b',"crc":"')
    checksum = _CHECKSUM.fullmatch(text, max(start, 0))
    body = text[:start] + b"}"
    if checksum is None or int(checksum[1], 16) != zlib.crc32(body):
        raise InputError(path, "expected a line with a valid checksum", line=index + 1)
    document: dict[str, Any] = json.loads(body)
    if document.get("n") != index:
        problem = f"expected number {index}, got {document.get('n')!r}: lines are missing"
        raise InputError(path, problem, line=index + 1)
    return document


def _end_of_last_line(file: int) -> int:
    """Size of a file without its unfinished last line."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
