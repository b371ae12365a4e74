"""Where images come from: folders, lists, Hugging Face datasets, arrays; all read by number.

A source knows how many samples it has, and of each a key that names it everywhere (in stores,
reports and seeds), a label if there is one, and the bytes of its file. Nothing is decoded here.
Shards of tar files are in `weightwise.images.shards`.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from weightwise.images.decode import Pixels

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")


class Source(Protocol):
    """Samples by number, 0 ... len - 1."""

    def __len__(self) -> int: ...

    def key(self, number: int) -> str:
        """Name of a sample, unlike that of any other."""

    def label(self, number: int) -> int | None:
        """Class of a sample; `None` where it is unknown."""

    def load(self, number: int) -> Pixels:
        """Bytes of the file, an image or an array; raises OSError if it cannot be read."""


class FileImages:
    """Files below a folder.

    Parameters
    ----------
    root
        The folder.
    names
        Paths below it, with ``/``; they are the keys.
    labels
        Class of each file, or none.
    classes
        Names of the classes, where known.

    Raises
    ------
    ValueError
        If there are no files, or names occur twice, or there are not as many labels.
    """

    def __init__(
        self, root: Path, names: Sequence[str], labels: Sequence[int] | None = None,
        classes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        if not names:
            raise ValueError(f"{root}: expected at least one image, got none")
        if labels is not None and len(labels) != len(names):
            raise ValueError(f"labels: expected {len(names)}, one a file, got {len(labels)}")
        require_unique(names, str(root))
        self._root = root
        self._names = tuple(names)
        self._labels = None if labels is None else np.array(labels, dtype=np.int64)
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self._names)

    def key(self, number: int) -> str:
        """Path of the file below the root."""
        return self._names[number]

    def label(self, number: int) -> int | None:
        """Class of the file."""
        return None if self._labels is None else int(self._labels[number])

    def load(self, number: int) -> Pixels:
        """Bytes of the file."""
        return (self._root / self._names[number]).read_bytes()


def folder_images(root: Path, extensions: Sequence[str] = EXTENSIONS) -> FileImages:
    """Images in one folder for each class.

    Parameters
    ----------
    root
        Folder of the class folders; in alphabetical order they are the classes 0, 1, ...
    extensions
        Which files are images, in lower case.

    Returns
    -------
    FileImages
        Files in alphabetical order, those in folders of folders included.

    Raises
    ------
    ValueError
        If there is no such folder, or no image in any class folder.
    """
    try:
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except OSError as error:
        raise ValueError(f"{root}: expected a folder, got {error.strerror}") from error
    names, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(
            Path(folder, file).relative_to(root).as_posix()
            for folder, _, files in os.walk(root / name)
            for file in files
            if file.rpartition(".")[2].lower() in extensions
        )
        names += files
        labels += [label] * len(files)
    return FileImages(root, names, labels, classes)


def listed_images(path: Path, root: Path | None = None) -> FileImages:
    """Images named in a CSV file.

    Parameters
    ----------
    path
        File with a header line: ``path`` and, if there are labels, ``label``. Labels are whole
        numbers or names; names are numbered in alphabetical order.
    root
        Folder that the paths start from; by default that of the file.

    Raises
    ------
    ValueError
        If the file cannot be read, lacks a column or a field, or lists nothing.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a readable CSV file ({error})") from error
    if rows and "path" not in rows[0]:
        raise ValueError(f"{path}: expected a column path, got {', '.join(map(str, rows[0]))}")
    for line, row in enumerate(rows, start=2):
        if not row["path"] or ("label" in row and not row["label"]):
            raise ValueError(
                f"{path}: line {line}: expected a path and its label, got an empty one"
            )
    names = [row["path"] for row in rows]
    root = path.parent if root is None else root
    if not rows or "label" not in rows[0]:
        return FileImages(root, names)
    texts = [row["label"] for row in rows]
    if all(text.isdecimal() for text in texts):
        return FileImages(root, names, [int(text) for text in texts])
    classes = sorted(set(texts))
    number_of = {name: number for number, name in enumerate(classes)}
    return FileImages(root, names, [number_of[text] for text in texts], classes)


@dataclass(frozen=True, kw_only=True)
class ArrayImages:
    """Images in memory.

    Parameters
    ----------
    pixels
        Array of shape (N, H, W) or (N, H, W, 3), uint8.
    labels
        Class of each.
    keys
        Name of each.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim not in (3, 4):
            raise ValueError(
                "pixels: expected uint8 of shape (N, H, W) or (N, H, W, 3), got "
                f"{self.pixels.dtype} of shape {self.pixels.shape}"
            )
        if not len(self.pixels) == len(self.labels) == len(self.keys):
            raise ValueError(
                f"keys: expected as many images, labels and keys, got {len(self.pixels)}, "
                f"{len(self.labels)}, {len(self.keys)}"
            )
        require_unique(self.keys, "keys")

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, number: int) -> str:
        """Name of an image."""
        return self.keys[number]

    def label(self, number: int) -> int | None:
        """Class of an image."""
        return int(self.labels[number])

    def load(self, number: int) -> Pixels:
        """Pixels of an image."""
        found: NDArray[np.uint8] = self.pixels[number]
        return found


class HuggingFaceImages:
    """Rows of a Hugging Face dataset; their files stay encoded until they are needed.

    Parameters
    ----------
    dataset
        A `datasets.Dataset`.
    image, label
        Names of the columns; ``label`` may be `None`.

    Raises
    ------
    ValueError
        If a column is missing, or if the extra is not installed.
    """

    def __init__(self, dataset: Any, image: str = "image", label: str | None = "label") -> None:
        datasets = _datasets()
        for name in (image, label):
            if name is not None and name not in dataset.column_names:
                have = ", ".join(dataset.column_names)
                raise ValueError(f"column: expected one of {have}, got {name!r}")
        self._rows = dataset.cast_column(image, datasets.Image(decode=False))
        self._image, self._label = image, label
        self._labels = None if label is None else dataset.with_format(None)[label]

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, number: int) -> str:
        """Number of the row, in decimals."""
        return str(number)

    def label(self, number: int) -> int | None:
        """Class of the row."""
        found = None if self._labels is None else self._labels[number]
        return None if found is None else int(found)

    def load(self, number: int) -> Pixels:
        """Bytes of the file."""
        cell = self._rows[number][self._image]
        data: bytes = cell["bytes"] or Path(cell["path"]).read_bytes()
        return data


def hugging_face_images(
    name: str, split: str = "train", image: str = "image", label: str | None = "label"
) -> HuggingFaceImages:
    """Open a dataset.

    Parameters
    ----------
    name
        Folder written by ``save_to_disk``, another folder that the library reads, or a name on
        the hub.
    split
        Which part.
    image, label
        Names of the columns.

    Raises
    ------
    ValueError
        If there is no such dataset, part or column, or the extra is not installed.
    """
    return HuggingFaceImages(_load_dataset(name, split), image, label)


def _load_dataset(name: str, split: str) -> Any:
    datasets, folder = _datasets(), Path(name)
    try:
        if not any((folder / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            return datasets.load_dataset(name, split=split)
        loaded = datasets.load_from_disk(name)
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"name: expected a dataset, got {name!r}: {reason}") from error
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    if split not in loaded:
        raise ValueError(f"split: expected one of {', '.join(loaded)}, got {split!r}")
    return loaded[split]


def require_unique(keys: Sequence[str], where: str) -> None:
    """Refuse names that occur twice."""
    if len(set(keys)) < len(keys):
        seen: set[str] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{where}: expected every name once, got {twice!r} again")


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            "Hugging Face datasets: expected the extra hf: pip install 'weightwise[hf]'"
        ) from error
    return datasets
