"""Whole files in and out: UTF-8 text, and no half-written file ever."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wardwise.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

# A day with 4000 places and two matrices takes about 0.5 GB of JSON.
MAX_BYTES = 512 * 1024 * 1024


def read_text(path: str | os.PathLike[str]) -> str:
    """Text of a UTF-8 file, with or without byte order mark.

    Raises
    ------
    InputError
        If the file is missing, unreadable, empty, too large, or not UTF-8.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise InputError(path, f"expected a readable file, got: {reason}") from error
    except ValueError as error:  # a null character in the name
        raise InputError(path, f"expected a file name, got: {error}") from error
    if len(data) > MAX_BYTES:
        raise InputError(path, f"expected at most {MAX_BYTES} bytes, got more")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"expected UTF-8 text, got byte 0x{data[error.start]:02x}"
        raise InputError(path, problem, line=line) from error
    if not text.strip():
        raise InputError(path, "expected some text, got an empty file")
    return text


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file at once: the old file stays until the new one is on disk.

    Raises
    ------
    OSError
        If the folder or the file cannot be written; names `path`.
    """
    with written_at_once(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def written_at_once(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a draft that takes the place of `path` at the end, unless something is raised.

    Raises
    ------
    OSError
        If the folder or the file cannot be written; names `path`.
    """
    target = Path(path).resolve()
    draft = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with draft.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
