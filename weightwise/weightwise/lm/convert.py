"""Checkpoints of Hugging Face's model families in, and of HunYuan's out.

Tensors are copied one by one, in their own types, from memory-mapped files into a model or a
file, or the other way round, so that a conversion between files never holds more than one tensor.
`weightwise.lm.families` knows names and settings, `weightwise.lm.checkpoint_files` checks what is
on disk.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from weightwise.lm.checkpoint_files import INDEX, open_checkpoint, own_layouts
from weightwise.lm.hunyuan import config_of, pieces
from weightwise.lm.model import LanguageModel
from weightwise.lm.tensor_file import DTYPES, NAMES, TensorFile, TensorLayout, fresh_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from weightwise.lm.config import ModelConfig
    from weightwise.lm.hub_settings import Piece

SHARD_BYTES = 5_000_000_000


def read_checkpoint(folder: Path | str) -> LanguageModel:
    """Load a checkpoint of a family that `weightwise.lm.families` knows.

    Parameters
    ----------
    folder
        Holds ``config.json`` and safetensors files, one or several with an index.

    Returns
    -------
    LanguageModel
        Every weight in the type of the files.

    Raises
    ------
    ValueError
        As `weightwise.lm.checkpoint_files.open_checkpoint`.
    """
    checkpoint = open_checkpoint(folder)
    weights = {
        name: torch.empty(layout.shape, dtype=DTYPES[layout.dtype])
        for name, layout in checkpoint.layouts.items()
    }
    for piece, tensor in checkpoint.tensors():
        piece.of(weights[piece.ours]).copy_(tensor)
    with torch.device("meta"):
        model = LanguageModel(checkpoint.config)
    model.load_state_dict(weights, assign=True)
    return model


def write_hunyuan(
    model: LanguageModel, folder: Path | str, *, max_shard_bytes: int = SHARD_BYTES
) -> None:
    """Save a model so that transformers can load it.

    With cross-layer attention the layout is that of the released Hunyuan-Large, which
    transformers itself has no class for.

    Parameters
    ----------
    model
        With experts; weights are written in their own precision.
    folder
        Must be new or empty; it is there whole or not at all.
    max_shard_bytes
        Size at which a further file begins, at least 1.

    Raises
    ------
    ValueError
        If the model has settings that the family does not know, or the folder is taken.
    """
    settings = config_of(model.config)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    layouts = {
        name: TensorLayout(dtype=NAMES[weight.dtype], shape=tuple(weight.shape))
        for name, weight in weights.items()
    }
    num_bytes = sum(layout.num_bytes for layout in layouts.values())
    with fresh_folder(Path(folder), num_bytes) as partial:
        write_tensors(
            partial, layouts, lambda piece: piece.of(weights[piece.ours]), max_shard_bytes
        )
        write_json(partial / "config.json", settings)


def copy_weights(
    weights: Path,
    config: ModelConfig,
    folder: Path,
    *,
    max_shard_bytes: int = SHARD_BYTES,
    on_bytes: Callable[[int], None] | None = None,
) -> int:
    """Write the weights of a file of ours in the family's layout, holding one tensor at a time.

    Parameters
    ----------
    weights
        Safetensors file with our parameters.
    config
        Settings of their model.
    folder
        Where to write shards and index.
    max_shard_bytes
        Size at which a further file begins, at least 1.
    on_bytes
        Told the size of every tensor that has been copied.

    Returns
    -------
    int
        Number of tensors written.

    Raises
    ------
    ValueError
        If the file is damaged or has other tensors than the model; the message names one.
    """
    layouts = own_layouts(weights, config)
    with safe_open(weights, framework="pt") as opened:

        def load(piece: Piece) -> Tensor:
            if piece.expert is None:
                whole: Tensor = opened.get_tensor(piece.ours)
                return whole
            rows = slice(piece.first_row, piece.first_row + piece.shape[0])
            part: Tensor = opened.get_slice(piece.ours)[piece.expert : piece.expert + 1, rows]
            return part[0]

        return write_tensors(folder, layouts, load, max_shard_bytes, on_bytes)


def write_tensors(
    folder: Path,
    layouts: Mapping[str, TensorLayout],
    load: Callable[[Piece], Tensor],
    max_shard_bytes: int = SHARD_BYTES,
    on_bytes: Callable[[int], None] | None = None,
) -> int:
    """Write shards and their index.

    Parameters
    ----------
    folder
        Where to write.
    layouts
        Our parameters by name.
    load
        Gives the elements of a piece.
    max_shard_bytes
        Size at which a further file begins, at least 1.
    on_bytes
        Told the size of every tensor that has been written.

    Returns
    -------
    int
        Number of tensors written.

    Raises
    ------
    ValueError
        If ``max_shard_bytes`` is out of range.
    """
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes: expected at least 1, got {max_shard_bytes}")
    parts = pieces({name: layout.shape for name, layout in layouts.items()})
    theirs = {
        name: TensorLayout(dtype=layouts[piece.ours].dtype, shape=piece.shape)
        for name, piece in parts.items()
    }
    shards = _shards(theirs, max_shard_bytes)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with TensorFile(folder / file_name, {name: theirs[name] for name in shard}) as file:
            for name in shard:
                file.write(name, load(parts[name]))
                places[name] = file_name
                if on_bytes is not None:
                    on_bytes(theirs[name].num_bytes)
    total = sum(layout.num_bytes for layout in theirs.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    return len(theirs)


def write_json(path: Path, settings: Mapping[str, Any]) -> None:
    """Write an object to a file for people to read."""
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _shards(layouts: Mapping[str, TensorLayout], max_shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, layout in layouts.items():
        if shards[-1] and size + layout.num_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += layout.num_bytes
    return shards
