"""Names of images, kept once for all epochs: only listing and exporting a store need them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from weightwise.distill.keys import KeySet, name_ids

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class NamesFile:
    """The names that one writer has seen, a line each; made when there is the first one.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        If a line of it is no name.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._known = path, KeySet()
        self._size = 0
        if path.exists():
            lines, self._size = _lines(path)
            self._known.add(name_ids(lines))

    def add(self, names: Sequence[str], id_B: NDArray[np.int64]) -> None:
        """Append names that are new; a torn line of a killed writer is overwritten."""
        is_new_B = self._known.add(id_B)
        if not is_new_B.any():
            return
        new = [name for name, is_new in zip(names, is_new_B, strict=True) if is_new]
        raw = "".join(f"{name}\n" for name in new).encode()
        self._path.touch()
        with self._path.open("r+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(raw)
        self._size += len(raw)

    def sync(self) -> None:
        """Wait until all is on disk."""
        if self._size:
            with self._path.open("rb") as file:
                os.fsync(file.fileno())


def read_names(path: Path) -> dict[int, str]:
    """Names of all images of a store by id.

    Raises
    ------
    ValueError
        If a line of a file is no name; with the file.
    """
    names: dict[int, str] = {}
    for file in sorted(path.glob("names-*.txt")):
        lines, _ = _lines(file)
        names.update(zip(name_ids(lines).tolist(), lines, strict=True))
    return names


def _lines(path: Path) -> tuple[list[str], int]:
    """Names, and the size of the file without what follows the last line end."""
    raw = path.read_bytes()
    size = raw.rfind(b"\n") + 1
    try:
        lines = raw[:size].decode().split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: names: expected UTF-8, got {error}") from error
    if not all(lines):
        raise ValueError(
            f"{path}: names: expected one in each line, line {lines.index('')} is empty"
        )
    return lines, size
