"""Overlap with evaluation sets: a run of 13 words that a training text shares with one of them.

Thirteen words are the measure of GPT-3 (arXiv 2005.14165, appendix C). An evaluation item that is
shorter has no such run; it counts if a training text is the same word for word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightwise.lm.post.records import read_records
from weightwise.lm.post.words import split_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

RUN_WORDS = 13


class EvaluationSets:
    """The word runs of evaluation sets.

    Parameters
    ----------
    paths
        Files of UTF-8 text. In ``.jsonl`` files every text in each object is an item, in other
        files every line.

    Raises
    ------
    ValueError
        If a file cannot be read or has no words, with file and line.
    """

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        self._file_of: dict[str, str] = {}
        for path in paths:
            runs = [run for item in _read_items(path) for run in _runs(item)]
            if not runs:
                raise ValueError(f"{path}: expected evaluation texts, found none")
            for run in runs:
                self._file_of.setdefault(run, path.name)

    def overlap(self, text: str) -> str | None:
        """Name of a file that shares words with the text; ``None`` if none does."""
        return next((self._file_of[run] for run in _runs(text) if run in self._file_of), None)


def _runs(text: str) -> Iterator[str]:
    """Runs of 13 words, or all words of a shorter text; the mark keeps the kinds apart."""
    found = split_words(text)
    if 0 < len(found) < RUN_WORDS:
        yield "whole: " + " ".join(found)
    for start in range(len(found) - RUN_WORDS + 1):
        yield " ".join(found[start : start + RUN_WORDS])


def _read_items(path: Path) -> Iterator[str]:
    if path.suffix == ".jsonl":
        for _, record in read_records(path):
            yield from _strings(record)
        return
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got {error}") from error
    yield from text.splitlines()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
