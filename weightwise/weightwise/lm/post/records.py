"""Records of a JSON-lines file, and who is to blame when one is wrong."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read one JSON object a line; lines without text are skipped.

    Parameters
    ----------
    path
        The file, UTF-8.

    Yields
    ------
    tuple
        Place of the record, such as ``chats.jsonl:12``, and the object.

    Raises
    ------
    ValueError
        If the file cannot be read or a line is no JSON object; the message names the line.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error.strerror}") from error
    with file:
        # By bytes: text would be split at the separators that JSON allows within a string.
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"{path}:{number}"
                yield place, _parse(line, place)


@contextmanager
def blame(place: str) -> Iterator[None]:
    """Put the place of a record in front of what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig")
        record = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair is JSON, but no text
            json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: expected a JSON object, got {error}") from error
    if not isinstance(record, dict):
        raise ValueError(  # noqa: TRY004, what a user can cause is a ValueError
            f"{place}: expected a JSON object, got {type(record).__name__}"
        )
    return record
