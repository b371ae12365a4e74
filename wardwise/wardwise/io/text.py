"""Lines of words and strictly read numbers, for the plain-text formats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.errors import InputError, quote

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

# Above this, sums and squares of doubles are no longer worth the name.
LARGEST = 1e12
# Matrices are dense: 10 000 places already take 0.8 GB each.
MAX_COUNT = 10_000

# float() also takes "nan", "inf", "1_000" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a file, split at white space."""

    path: str | os.PathLike[str]
    line: int
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words with single blanks."""
        return " ".join(self.words)

    def error(self, field: str, problem: str) -> InputError:
        """Build the error that says what is wrong in this line."""
        return InputError(self.path, problem, line=self.line, field=field)

    def require_words(self, field: str, num_words: int) -> None:
        """Refuse a line with too few or too many words."""
        if len(self.words) != num_words:
            problem = f"expected {num_words} values, got {len(self.words)}"
            raise self.error(field, problem)

    def number(
        self, word: int, field: str, *, minimum: float = 0.0, maximum: float = LARGEST
    ) -> float:
        """Read a decimal number within [`minimum`, `maximum`] from a word of the line."""
        text = self.words[word]
        value = float(text) if _NUMBER.fullmatch(text) else None
        if value is None or not minimum <= value <= maximum:
            problem = f"expected a number from {minimum:g} to {maximum:g}, got {quote(text)}"
            raise self.error(field, problem)
        return value

    def integer(self, word: int, field: str, *, minimum: int = 0, maximum: int = MAX_COUNT) -> int:
        """Read a whole number within [`minimum`, `maximum`] from a word of the line."""
        text = self.words[word]
        value = int(text) if _INTEGER.fullmatch(text) else None
        if value is None or not minimum <= value <= maximum:
            problem = f"expected a whole number from {minimum} to {maximum}, got {quote(text)}"
            raise self.error(field, problem)
        return value


def rows(path: str | os.PathLike[str], text: str) -> Iterator[Row]:
    """Lines that hold anything, numbered as in the file."""
    for line, content in enumerate(text.split("\n"), start=1):
        words = tuple(content.split())
        if words:
            yield Row(path=path, line=line, words=words)


def decimal(value: float) -> str:
    """Shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
