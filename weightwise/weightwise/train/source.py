"""Where the documents come from: the built-in corpus, text files, or a Hugging Face dataset.

A source is opened once; it can then be read any number of times and knows a fingerprint of its
content, from which the cache of prepared tokens gets its key.
"""

from __future__ import annotations

import glob
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from weightwise.train.corpus import builtin_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BuiltinSource:
    """The corpus that comes with Python: language reference and standard library.

    Parameters
    ----------
    kind
        Tells this class from other sources.
    max_bytes
        Keep a fixed sample of so many bytes, at least 1; ``None`` keeps all.
    """

    kind: Literal["builtin"] = "builtin"
    max_bytes: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FileSource:
    """UTF-8 text files, one document each.

    Parameters
    ----------
    kind
        Tells this class from other sources.
    paths
        Files, folders (searched to the bottom) and glob patterns, relative to the working
        directory. Files are taken in the order of ``paths``, sorted within each.
    suffixes
        Which files of a folder count.
    document_bytes
        Cut longer files at line ends into documents of about so many bytes, at least 1; a corpus
        in one file needs that to have documents to hold out. ``None`` never cuts.
    """

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1)
    suffixes: tuple[str, ...] = Field(default=(".txt", ".md", ".py"), min_length=1)
    document_bytes: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HuggingFaceSource:
    """A dataset for the `datasets` library (extra ``hf``), one document a row.

    Parameters
    ----------
    kind
        Tells this class from other sources.
    name
        Folder written by ``save_to_disk``, or name of a dataset to load.
    subset
        Configuration of a named dataset.
    split
        Which split to read.
    column
        Column that holds the text.
    """

    kind: Literal["hf"] = "hf"
    name: str = Field(min_length=1)
    subset: str | None = None
    split: str = "train"
    column: str = "text"


Source: TypeAlias = Annotated[
    BuiltinSource | FileSource | HuggingFaceSource, Field(discriminator="kind")
]


class Documents(Protocol):
    """Texts that can be read more than once.

    Attributes
    ----------
    fingerprint
        Changes when any text changes.
    """

    fingerprint: str

    def __iter__(self) -> Iterator[str]:
        """Read all texts from the first."""


def open_documents(source: BuiltinSource | FileSource | HuggingFaceSource) -> Documents:
    """Open a source.

    Parameters
    ----------
    source
        What to read.

    Raises
    ------
    ValueError
        If files, dataset or column are missing, or a file is not UTF-8 text.
    """
    if isinstance(source, BuiltinSource):
        return _TextList(builtin_texts(source.max_bytes))
    if isinstance(source, FileSource):
        return _TextFiles(find_files(source), source.document_bytes)
    return _DatasetColumn(source)


def find_files(source: FileSource) -> list[Path]:
    """List the files of a source, in order.

    Raises
    ------
    ValueError
        If one of its paths leads to no file.
    """
    found: list[Path] = []
    for pattern in source.paths:
        path = Path(pattern)
        if path.is_dir():
            files = [p for p in path.rglob("*") if p.suffix in source.suffixes]
        elif path.exists():
            files = [path]
        else:
            files = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207
        files = sorted(file for file in files if file.is_file())
        if not files:
            raise ValueError(
                f"data.source.paths: expected text files ({' '.join(source.suffixes)} in a "
                f"folder), found none at {pattern!r}"
            )
        found += files
    return found


class _TextList:
    """Texts held in memory."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self.fingerprint = _hash_all(text.encode() for text in texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)


class _TextFiles:
    """Texts read from files when they are asked for."""

    def __init__(self, paths: list[Path], document_bytes: int | None) -> None:
        self._paths = paths
        self._document_bytes = document_bytes
        contents = _hash_all(_read_bytes(path) for path in paths)
        self.fingerprint = f"{contents}/{document_bytes}"

    def __iter__(self) -> Iterator[str]:
        for path in self._paths:
            try:
                text = _read_bytes(path).decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#04x} "
                    f"at offset {error.start}"
                ) from error
            yield from [text] if self._document_bytes is None else _cut(text, self._document_bytes)


class _DatasetColumn:
    """One column of a Hugging Face dataset."""

    def __init__(self, source: HuggingFaceSource) -> None:
        self._dataset = _load_dataset(source)
        self._column = source.column
        if source.column not in self._dataset.column_names:
            raise ValueError(
                f"data.source.column: expected one of {', '.join(self._dataset.column_names)}, "
                f"got {source.column!r}"
            )
        # The library's own hash of content and of everything done to it.
        self.fingerprint = f"{self._dataset._fingerprint}/{source.column}"

    def __iter__(self) -> Iterator[str]:
        for number, row in enumerate(self._dataset):
            text = row[self._column]
            if not isinstance(text, str):
                raise ValueError(  # noqa: TRY004, what a user can cause is a ValueError
                    f"data.source.column: expected text in {self._column!r}, "
                    f"got {type(text).__name__} in row {number}"
                )
            yield text


def _load_dataset(source: HuggingFaceSource) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            "data.source.kind: 'hf' needs the extra: pip install 'weightwise[hf]'"
        ) from error
    try:
        if not Path(source.name).is_dir():
            return datasets.load_dataset(source.name, source.subset, split=source.split)
        loaded = datasets.load_from_disk(source.name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"data.source.name: expected a dataset, got {source.name!r}: {reason}"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        if source.split not in loaded:
            raise ValueError(
                f"data.source.split: expected one of {', '.join(loaded)}, got {source.split!r}"
            )
        return loaded[source.split]
    return loaded


def _cut(text: str, document_bytes: int) -> Iterator[str]:
    """Whole lines, until they reach the size asked for."""
    lines: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line.encode())
        if size >= document_bytes:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error.strerror}") from error


def _hash_all(contents: Iterator[bytes]) -> str:
    total = hashlib.sha256()
    for content in contents:
        # The length first, so that moving text between neighbours changes the hash.
        total.update(len(content).to_bytes(8, "little"))
        total.update(content)
    return total.hexdigest()
