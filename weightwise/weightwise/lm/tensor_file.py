"""Files of tensors that are written part by part, so that no tensor need be in memory whole.

The format is safetensors': eight bytes with the length of a header, the header as JSON with type,
shape and place of every tensor, and their elements one after the other. All sizes are known
before the first element is, which is what lets a converter copy tensor by tensor, or a slice of
a stack of experts at a time.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Self

import torch
from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, kw_only=True)
class TensorLayout:
    """Type and shape of a tensor.

    Parameters
    ----------
    dtype
        As safetensors calls it, such as ``F32`` or ``BF16``.
    shape
        Sizes of its axes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of its elements."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


class TensorFile:
    """Writes a safetensors file; a context, at whose end the file is on disk.

    Parameters
    ----------
    path
        File to make.
    layouts
        Tensors that it will hold, by name.
    """

    def __init__(self, path: Path, layouts: Mapping[str, TensorLayout]) -> None:
        self._layouts = layouts
        self._start: dict[str, int] = {}
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        # Wide types first, so that elements lie at multiples of their size.
        for name in sorted(layouts, key=lambda name: -DTYPES[layouts[name].dtype].itemsize):
            layout = layouts[name]
            start, end = end, end + layout.num_bytes
            self._start[name] = start
            header[name] = {
                "dtype": layout.dtype,
                "shape": layout.shape,
                "data_offsets": (start, end),
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._first_byte = 8 + len(text)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._first_byte + end)

    def write(self, name: str, tensor: Tensor, first_element: int = 0) -> None:
        """Write a tensor, or neighbouring elements of it.

        Parameters
        ----------
        name
            Which tensor.
        tensor
            Its elements, or some of them, in its type.
        first_element
            Place of the first of them in the tensor.
        """
        layout = self._layouts[name]
        assert NAMES[tensor.dtype] == layout.dtype
        assert first_element + tensor.numel() <= prod(layout.shape)
        elements = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        self._file.seek(
            self._first_byte + self._start[name] + first_element * tensor.element_size()
        )
        self._file.write(elements.numpy().data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def read_layouts(path: Path) -> dict[str, TensorLayout]:
    """Types and shapes of the tensors of a safetensors file, without their elements.

    Raises
    ------
    ValueError
        If the file is missing or damaged; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: TensorLayout(dtype=one.get_dtype(), shape=tuple(one.get_shape()))
                for name, one in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a whole safetensors file: {error}") from error


@contextmanager
def fresh_folder(path: Path, num_bytes: int) -> Iterator[Path]:
    """Folder that gets its name when it is complete.

    Parameters
    ----------
    path
        The folder; must not be there, or be empty.
    num_bytes
        Size of what will be written.

    Yields
    ------
    Path
        Where to write; removed if anything goes wrong.

    Raises
    ------
    ValueError
        If the folder is taken or the disk is too full; nothing is written then.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path}: expected a new or an empty folder")
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if num_bytes > free:
        raise ValueError(
            f"{path}: expected {num_bytes / 1e9:.1f} GB of free disk, got {free / 1e9:.1f} GB"
        )
    partial = path.with_name(f".partial-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run
    partial.mkdir()
    try:
        yield partial
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
