"""Weights of TinyViT in files, in the names of timm or in those of the authors' own code.

The two layouts hold the same tensors. Ours are timm's names; the authors count a merge to the stage
before it, and name a convolution ``c``, the parts of the stem by their number, and the head flat.
Settings need no file of their own: the shapes say them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from weightwise.vision.config import TinyViTConfig
from weightwise.vision.tiny_vit import TinyViT
from weightwise.vision.weight_files import read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Layout = Literal["timm", "official"]
TABLE = "blocks.0.attn.attention_biases"
STRIDE = 32  # of the last stage, whose map is one window in all published models
MANY = 6  # names in a message


def to_official(name: str) -> str:
    """Name of a tensor of ours in the layout of the authors' code."""
    parts = name.split(".")
    if parts[0] == "patch_embed":
        parts[1] = {"conv1": "seq.0", "conv2": "seq.2"}.get(parts[1], parts[1])
    elif parts[0] == "stages":
        stage = int(parts[1]) - (parts[2] == "downsample")
        parts[:2] = ["layers", str(stage)]
    elif parts[0] == "head":
        parts[:2] = ["norm_head" if parts[1] == "norm" else "head"]
    return ".".join("c" if part == "conv" else part for part in parts)


def from_official(name: str) -> str:
    """Name with us of a tensor in the layout of the authors' code; unknown names stay."""
    name = re.sub(r"\bc\b", "conv", name)
    name = re.sub(r"^patch_embed\.seq\.0\b", "patch_embed.conv1", name)
    name = re.sub(r"^patch_embed\.seq\.2\b", "patch_embed.conv2", name)
    merge = re.match(r"layers\.(\d+)\.downsample\b", name)
    if merge:
        name = f"stages.{int(merge[1]) + 1}.downsample{name[merge.end() :]}"
    name = re.sub(r"^layers\b", "stages", name)
    name = re.sub(r"^head\b", "head.fc", name)
    return re.sub(r"^norm_head\b", "head.norm", name)


def load_tiny_vit(path: Path, config: TinyViTConfig | None = None) -> TinyViT:
    """Read a model from a file of either layout.

    Parameters
    ----------
    path
        A ``.safetensors`` file, or a ``.pth``, ``.pt`` or ``.bin`` file of tensors, possibly under
        ``model`` or ``state_dict``. Files that hold other objects are not opened.
    config
        Settings that the file must fit; ``None`` reads them off the shapes, with images of 32 times
        the last window and no drop-path.

    Returns
    -------
    A model in float32 and training mode.

    Raises
    ------
    ValueError
        If the file cannot be read, or tensors are missing, unknown, or of another shape; the
        message names the file and the tensors.
    """
    tensors = _named_as_ours(read_tensors(path))
    if config is None:
        config = _config_of(path, tensors)
    with torch.device("meta"):
        model = TinyViT(config)
    _check(path, tensors, model.state_dict())
    model = model.to_empty(device="cpu")
    model.load_state_dict(tensors)
    return model


def save_tiny_vit(model: TinyViT, path: Path, layout: Layout = "timm") -> None:
    """Write a model's weights; the file is either whole or as it was before.

    Parameters
    ----------
    model
        Any model but the result of `fuse`.
    path
        File to make, ``.safetensors``, ``.pth``, ``.pt`` or ``.bin``.
    layout
        ``timm`` for names that timm and we read, ``official`` for those of the authors' code, which
        reads ``.pth`` files.

    Raises
    ------
    ValueError
        If the ending or the layout is unknown, or the model is fused.
    """
    if layout not in ("timm", "official"):
        raise ValueError(f"layout: expected timm or official, got {layout!r}")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if "patch_embed.conv1.bn.weight" not in tensors:
        raise ValueError("model: expected one with batch normalization, got a fused one")
    if layout == "official":
        tensors = {to_official(name): tensor for name, tensor in tensors.items()}
    write_tensors(tensors, path)


def _named_as_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names, without the index of biases that follows from the windows."""
    is_official = any(name.startswith("layers.") for name in tensors)
    rename: Callable[[str], str] = from_official if is_official else str
    kept = {name: one for name, one in tensors.items() if not name.endswith("bias_idxs")}
    return {rename(name): tensor for name, tensor in kept.items()}


def _config_of(path: Path, tensors: Mapping[str, Tensor]) -> TinyViTConfig:
    def shape(name: str, num_axes: int) -> tuple[int, ...]:
        if name not in tensors:
            raise ValueError(f"{path}: {name}: expected in the checkpoint, found none")
        found = tuple(tensors[name].shape)
        if len(found) != num_axes:
            raise ValueError(f"{path}: {name}: expected {num_axes} axes, got shape {found}")
        return found

    def depth(stage: int) -> int:
        start = f"stages.{stage}.blocks."
        return len({name.split(".")[3] for name in tensors if name.startswith(start)})

    first = shape("patch_embed.conv2.conv.weight", 4)[0]
    widths = [first, *(shape(f"stages.{i}.downsample.conv1.conv.weight", 4)[0] for i in (1, 2, 3))]
    tables = [shape(f"stages.{stage}.{TABLE}", 2) for stage in (1, 2, 3)]
    windows = [round(length**0.5) for _, length in tables]
    try:
        return TinyViTConfig(
            widths=(widths[0], widths[1], widths[2], widths[3]),
            depths=(depth(0), depth(1), depth(2), depth(3)),
            windows=(windows[0], windows[1], windows[2]),
            conv_expansion=shape("stages.0.blocks.0.conv1.conv.weight", 4)[0] / first,
            mlp_expansion=shape("stages.1.blocks.0.mlp.fc1.weight", 2)[0] / widths[1],
            head_width=widths[1] // tables[0][0],
            image_size=STRIDE * windows[2],
            num_classes=shape("head.fc.weight", 2)[0],
        )
    except ZeroDivisionError as error:
        raise ValueError(f"{path}: expected tensors of a TinyViT, got empty ones") from error


def _check(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """List every tensor that does not fit."""
    shapes = {
        name: f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    }
    problems = {
        "missing": [name for name in wanted if name not in found],
        "unknown": [name for name in found if name not in wanted],
        "of another shape": list(shapes.values()),
    }
    lines = [f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]
    if lines:
        raise ValueError(f"{path}: expected the tensors of a TinyViT; {'; '.join(lines)}")


def _some(names: list[str]) -> str:
    more = len(names) - MANY
    return ", ".join(names[:MANY]) + (f" and {more} more" if more > 0 else "")
