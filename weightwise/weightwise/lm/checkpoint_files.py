"""Checkpoints of other libraries on disk: which files, which tensors, and whether they fit.

Everything is checked before a weight is read: settings, and the name, shape and type of every
tensor. What is then read comes one tensor at a time from memory-mapped files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from weightwise.lm.families import pieces, read_config
from weightwise.lm.hub_settings import COMPUTED, HEAD, Piece
from weightwise.lm.model import LanguageModel
from weightwise.lm.tensor_file import DTYPES, TensorFile, TensorLayout, read_layouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from weightwise.lm.config import ModelConfig

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint of a known family whose settings and tensors have been checked.

    Parameters
    ----------
    config
        Settings of the model.
    layouts
        Our parameters by name, in the types of the files.
    files
        Names of the wanted tensors in every file.
    pieces
        What each of them is in our model.
    left_out
        Tensors that the model has no use for: computed tables, biases that the settings switch
        off, the head of a model with tied embeddings.
    """

    config: ModelConfig
    layouts: dict[str, TensorLayout]
    files: dict[Path, list[str]]
    pieces: dict[str, Piece]
    left_out: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Size of all parameters."""
        return sum(layout.num_bytes for layout in self.layouts.values())

    def copy_to(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Write our parameters to a safetensors file, holding one tensor at a time.

        Parameters
        ----------
        path
            File to make.
        on_bytes
            Told the size of every tensor that has been copied.
        """
        with TensorFile(path, self.layouts) as file:
            for piece, tensor in self.tensors():
                first = piece.first_element(self.layouts[piece.ours].shape)
                file.write(piece.ours, tensor, first)
                if on_bytes is not None:
                    on_bytes(tensor.nbytes)

    def tensors(self) -> Iterator[tuple[Piece, Tensor]]:
        """All tensors, one after the other."""
        for file, names in self.files.items():
            with safe_open(file, framework="pt") as opened:
                for name in names:
                    piece = self.pieces[name]
                    yield piece, piece.arranged(opened.get_tensor(name))


def open_checkpoint(folder: Path | str) -> Checkpoint:
    """Check a checkpoint of a known family without reading its weights.

    Parameters
    ----------
    folder
        Holds ``config.json`` and safetensors files, one or several with an index.

    Raises
    ------
    ValueError
        If a setting is not supported, or a tensor is missing, unknown, there twice, or of another
        shape or type than float32, bfloat16 and float16; the message names the file and the field
        or tensor.
    """
    folder = Path(folder)
    settings = folder / "config.json"
    config = read_config(settings)
    shapes = _shapes(config)
    wanted, known = pieces(settings, shapes, config)
    layouts: dict[str, TensorLayout] = {}
    files: dict[Path, list[str]] = {}
    left_out: list[str] = []
    num_left = {ours: prod(shape) for ours, shape in shapes.items()}
    found: set[str] = set()
    for file in _files(folder):
        files[file] = []
        for name, layout in read_layouts(file).items():
            if _is_idle(name, known, config):
                left_out.append(name)
                continue
            piece = _checked(layout, known.get(name), layouts, f"{file}: {name}")
            num_left[piece.ours] -= prod(piece.shape)
            if name in found or num_left[piece.ours] < 0:
                raise ValueError(f"{file}: {name}: expected once, it was there before")
            found.add(name)
            files[file].append(name)
            layouts[piece.ours] = TensorLayout(dtype=layout.dtype, shape=shapes[piece.ours])
    missing = [name for name, piece in wanted.items() if num_left[piece.ours] and name not in found]
    if missing:
        raise ValueError(f"{folder}: {missing[0]}: expected in the checkpoint, found none")
    return Checkpoint(
        config=config, layouts=layouts, files=files, pieces=known, left_out=tuple(left_out)
    )


def own_layouts(weights: Path, config: ModelConfig) -> dict[str, TensorLayout]:
    """Types and shapes of a file of ours, checked against the model's settings.

    Raises
    ------
    ValueError
        If the file is damaged or has other tensors than the model; the message names one.
    """
    found, shapes = read_layouts(weights), _shapes(config)
    for name in sorted(found.keys() | shapes.keys()):
        if name not in shapes:
            raise ValueError(f"{weights}: {name}: expected a tensor of this model, got unknown")
        if name not in found:
            raise ValueError(f"{weights}: {name}: expected in the checkpoint, found none")
        _check(found[name], shapes[name], f"{weights}: {name}")
    return {name: found[name] for name in shapes}


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of our parameters, without any memory for them."""
    with torch.device("meta"):
        model = LanguageModel(config)
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def _is_idle(name: str, known: Mapping[str, Piece], config: ModelConfig) -> bool:
    """Whether a tensor is expected in some checkpoints though the model has no use for it."""
    if name == HEAD:
        return config.tie_embeddings
    # Hunyuan-Large holds biases that its settings switch off.
    is_bias = name.endswith(".bias") and name.removesuffix("bias") + "weight" in known
    return (is_bias and name not in known) or COMPUTED.fullmatch(name) is not None


def _checked(
    layout: TensorLayout,
    piece: Piece | None,
    layouts: Mapping[str, TensorLayout],
    place: str,
) -> Piece:
    if piece is None:
        raise ValueError(f"{place}: expected a tensor of this model, got unknown")
    _check(layout, piece.shape, place)
    before = layouts.get(piece.ours)
    if before is not None and before.dtype != layout.dtype:
        raise ValueError(
            f"{place}: expected {before.dtype} as the other experts of the layer, "
            f"got {layout.dtype}"
        )
    return piece


def _check(layout: TensorLayout, shape: tuple[int, ...], place: str) -> None:
    if layout.shape != shape:
        raise ValueError(f"{place}: expected shape {shape}, got {layout.shape}")
    if layout.dtype not in DTYPES:
        raise ValueError(f"{place}: expected type {', '.join(DTYPES)}, got {layout.dtype}")


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.exists():
        single = folder / "model.safetensors"
        if not single.exists():
            raise ValueError(f"{folder}: expected model.safetensors or {INDEX}")
        return [single]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index}: expected a weight_map of tensor and file names") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index}: weight_map: expected names of files here, got {name!r}")
        if not (folder / name).exists():
            raise ValueError(f"{folder / name}: expected a file that {INDEX} speaks of")
    return [folder / name for name in names]
