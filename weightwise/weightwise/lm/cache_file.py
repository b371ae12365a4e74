"""A cache in a safetensors file: a prompt that need not be read again.

The file holds the tokens of all rows as they are stored, codes as codes, and nothing behind the
longest. It is taken back only by a cache of the same layout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from weightwise.lm.cache import Span

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from weightwise.lm.cache import Cache
    from weightwise.lm.store import Store


def save_cache(cache: Cache, path: Path) -> None:
    """Write the tokens of all rows to a file.

    Parameters
    ----------
    cache
        Of any model.
    path
        File to make; one that is there is replaced when the new one is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    longest = cache.length
    tensors = {
        name: store.read(longest).contiguous().cpu() for name, store in _stores(cache).items()
    }
    try:
        save_file({**tensors, "length": cache.length_B.clone()}, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_cache(cache: Cache, path: Path) -> None:
    """Take the tokens that `save_cache` wrote, in the place of all that the cache holds.

    Parameters
    ----------
    cache
        Of the same model, with as many rows and room for the longest.
    path
        File.

    Raises
    ------
    ValueError
        If the file is missing, damaged or of another layout, or there is too little memory;
        nothing is taken for the first three reasons.
    """
    stores = _stores(cache)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a whole file of a cache: {error}") from error
    for name in sorted(tensors.keys() ^ {*stores, "length"}):
        state = "is unknown" if name in tensors else "is missing"
        raise ValueError(f"{path}: expected the cache of the same model, {name} {state}")
    length_B = tensors.pop("length")
    _check_lengths(path, length_B, cache)
    count = tuple(length_B.tolist())
    for name, tensor in tensors.items():
        kept = stores[name].read(max(count))
        if (tensor.dtype, tensor.shape) != (kept.dtype, kept.shape):
            raise ValueError(
                f"{path}: {name}: expected {kept.dtype} of shape {tuple(kept.shape)}, "
                f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
    for row in range(cache.batch):
        cache.clear(row)
    if not all(cache.reserve(row, count[row]) for row in range(cache.batch)):
        raise ValueError(f"{path}: expected memory for {sum(count)} tokens, got too few free pages")
    span = Span(start=(0,) * cache.batch, count=count, device=kept.device)
    for name, tensor in tensors.items():
        stores[name].write(span, tensor.to(kept.device))
    cache.advance(span)


def _stores(cache: Cache) -> dict[str, Store]:
    return {
        f"layers.{number}.{name}": store
        for number, layer in enumerate(cache.layers)
        if layer is not None
        for name, store in layer.stores.items()
    }


def _check_lengths(path: Path, length_B: Tensor, cache: Cache) -> None:
    if length_B.dtype != torch.int64 or length_B.shape != (cache.batch,):
        raise ValueError(
            f"{path}: expected {cache.batch} rows, got length of shape {tuple(length_B.shape)}"
        )
    if not 0 <= int(length_B.min()) <= int(length_B.max()) <= cache.capacity:
        raise ValueError(
            f"{path}: expected 0 to {cache.capacity} tokens a row, got {length_B.tolist()}"
        )
