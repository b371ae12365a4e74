"""Files of weights: tensors by name, in safetensors or torch's own format, and their settings."""

from __future__ import annotations

import json
import os
import pickle
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SAFETENSORS, PICKLE = (".safetensors",), (".pth", ".pt", ".bin")


def is_safetensors(path: Path) -> bool:
    """Whether a file of weights is one of safetensors by its name; else it is one of torch.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if path.suffix not in SAFETENSORS + PICKLE:
        known = ", ".join(SAFETENSORS + PICKLE)
        raise ValueError(f"{path}: expected a name that ends in {known}")
    return path.suffix in SAFETENSORS


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Read tensors by name, at the top of a file or under ``model`` or ``state_dict``.

    Raises
    ------
    ValueError
        If the file cannot be read or holds other objects.
    """
    is_safe = is_safetensors(path)
    try:
        if is_safe:
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: expected a readable file of tensors only ({reason})") from error
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(one, Tensor) for name, one in loaded.items()
    ):
        raise ValueError(f"{path}: expected tensors by name, at the top or under model")
    return loaded


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, settings: Mapping[str, Any] | None = None
) -> None:
    """Write tensors by name; the file is either whole or as it was before.

    Parameters
    ----------
    tensors
        Contiguous, no two of one storage.
    path
        File to make, ``.safetensors``, ``.pth``, ``.pt`` or ``.bin``.
    settings
        What a safetensors file tells of its model, see `told_settings`.

    Raises
    ------
    ValueError
        If the ending is unknown.
    """
    is_safe = is_safetensors(path)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        if is_safe:
            told = None if settings is None else {"config": json.dumps(settings)}
            save_file(dict(tensors), partial, metadata=told)
        else:
            torch.save({"model": dict(tensors)}, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def told_settings(path: Path) -> dict[str, Any] | None:
    """Settings that a file of `write_tensors` tells; ``None`` where there are none.

    Raises
    ------
    ValueError
        If they cannot be read.
    """
    if path.suffix not in SAFETENSORS:
        return None
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get("config")
        return None if told is None else dict(json.loads(told))
    except (SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"config: expected settings of a model ({error})") from error


def shape_of(tensors: Mapping[str, Tensor], name: str, num_axes: int) -> tuple[int, ...]:
    """Shape of a tensor that must be there, from which settings are read off.

    Raises
    ------
    ValueError
        If it is missing, empty or has another number of axes.
    """
    if name not in tensors:
        raise ValueError(f"{name}: expected in the checkpoint, found none")
    found = tuple(tensors[name].shape)
    if len(found) != num_axes or 0 in found:
        raise ValueError(f"{name}: expected {num_axes} axes, got shape {found}")
    return found
