"""A cache's tensors in one safetensors file, taken back only if they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

# Type and shape of a tensor; None stands for the number of tokens.
Expected = tuple["torch.dtype", tuple[int | None, ...]]


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a file that gets its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path, expected: Mapping[str, Expected], capacity: int) -> dict[str, Tensor]:
    """Tensors of a file.

    Parameters
    ----------
    path
        File.
    expected
        Type and shape of every tensor, by name.
    capacity
        Most tokens.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or a tensor is missing, unknown or of another type or
        shape; the message names both.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a whole file of a cache: {error}") from error
    for name in sorted(tensors.keys() ^ expected.keys()):
        state = "is missing" if name in expected else "is unknown"
        raise ValueError(f"{path}: expected the cache of the same model, {name} {state}")
    for name, (dtype, shape) in expected.items():
        found = tensors[name]
        fits = len(found.shape) == len(shape) and all(
            size == given or (size is None and given <= capacity)
            for size, given in zip(shape, found.shape, strict=True)
        )
        if found.dtype != dtype or not fits:
            wanted = ["at most " + str(capacity) if size is None else str(size) for size in shape]
            raise ValueError(
                f"{path}: {name}: expected {dtype} of shape ({', '.join(wanted)}), "
                f"got {found.dtype} of shape {tuple(found.shape)}"
            )
    return tensors
