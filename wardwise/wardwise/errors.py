"""The one error that reading a file raises, and how it quotes what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

MAX_QUOTE = 40
MAX_FIELD = 80
MAX_PROBLEM = 240


class InputError(ValueError):
    """A file that cannot be read, in one line: ``path:line: field: problem``.

    Attributes
    ----------
    path
        The file.
    line
        Line in the file, from 1; `None` where the whole file is meant.
    field
        Column, keyword, section or JSON field; `None` where there is none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        problem: str,
        *,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.line = line
        self.field = field
        where = f"{path}" if line is None else f"{path}:{line}"
        parts = [where, _cut(problem, MAX_PROBLEM)]
        if field is not None:
            parts.insert(1, _cut(field, MAX_FIELD))
        super().__init__(_one_line(": ".join(parts)))


def quote(value: object) -> str:
    """Python notation of a value, cut so that it fits into a message."""
    return _cut(repr(value), MAX_QUOTE)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _one_line(text: str) -> str:
    """Escape line ends and all else that does not print, as in a hostile file name."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
