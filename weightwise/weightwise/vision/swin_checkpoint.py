"""Weights of Swin and Mini-Swin in files, in our names or in those of the authors' code.

Ours are timm's names, and those of the transforms beside them; a weight that executions share
stands once, under the first of them. The authors count a merge to the stage before it and name the
head flat. In their Mini-Swin a block is a set of weights, with its executions' own parts in lists.

Files of ours tell their settings (safetensors) or leave them to the shapes.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F

from weightwise.multiplex.files import load_unique, unique_state_dict
from weightwise.vision.swin import Swin
from weightwise.vision.swin_config import NUM_STAGES, SwinConfig, alone, as_published
from weightwise.vision.weight_files import read_tensors, shape_of, told_settings, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

Layout = Literal["timm", "official"]
BUFFERS = ("relative_position_index", "attn_mask")  # follow from the settings
TABLE = "relative_position_bias_table"
STRIDE = 32  # of the last stage, whose map is one window in all published models
# Parts of an execution: ours, and the authors' lists.
PARTS = {
    "norm1": "norm1_list",
    "norm2": "norm2_list",
    "attn.attend.before": "proj_l",
    "attn.attend.after": "proj_w",
    "local.norm": "local_norm_list",
    "local.conv": "local_conv_list",
}
OURS = re.compile(r"layers\.(\d)\.blocks\.(\d+)\.(.+)\.(\w+)")
LISTED = re.compile(r"layers\.(\d)\.blocks\.(\d+)\.(\w+)\.(\d+)\.(\w+)")
BLOCK = re.compile(r"layers\.(\d)\.blocks\.(\d+)\.")


def to_official(name: str, config: SwinConfig) -> str:
    """Name of a tensor of ours in the layout of the authors' code."""
    name = re.sub(r"^head\.fc\b", "head", name)
    merge = re.match(r"layers\.(\d)\.downsample\b", name)
    if merge:
        return f"layers.{int(merge[1]) - 1}.downsample{name[merge.end() :]}"
    found = OURS.fullmatch(name)
    if found is None or not _is_mini(config):
        return name
    stage, number, part, leaf = int(found[1]), int(found[2]), found[3], found[4]
    length = config.groups[stage][0]
    start = f"layers.{stage}.blocks.{number // length}"
    is_listed = part in PARTS and (config.own_norms or not part.startswith("norm"))
    if is_listed:
        return f"{start}.{PARTS[part]}.{number % length}.{leaf}"
    return f"{start}.{part}.{leaf}"


def from_official(name: str, config: SwinConfig) -> str:
    """Name with us of a tensor in the layout of the authors' code; unknown names stay."""
    name = re.sub(r"^head\b(?!\.fc)", "head.fc", name)
    merge = re.match(r"layers\.(\d)\.downsample\b", name)
    if merge:
        return f"layers.{int(merge[1]) + 1}.downsample{name[merge.end() :]}"
    block = BLOCK.match(name)
    if block is None or not _is_mini(config) or int(block[1]) >= NUM_STAGES:
        return name
    stage, number, rest = int(block[1]), int(block[2]), name[block.end() :]
    execution, length = 0, config.groups[stage][0]
    listed = LISTED.fullmatch(name)
    if listed is not None:
        ours = {theirs: part for part, theirs in PARTS.items()}
        execution = int(listed[4])
        rest = f"{ours.get(listed[3], listed[3])}.{listed[5]}"
    return f"layers.{stage}.blocks.{number * length + execution}.{rest}"


def resize_table(table_XM: Tensor, window: int) -> Tensor:
    """Make a table of biases fit another window, by bicubic interpolation (published).

    Parameters
    ----------
    table_XM
        Rows of distances and columns of heads.
    window
        New side of a window, at least 1.

    Returns
    -------
    Table of ``(2 window - 1)^2`` rows.
    """
    old, new = round(len(table_XM) ** 0.5), 2 * window - 1
    if old == new:
        return table_XM
    table_1Mxx = table_XM.t().reshape(1, -1, old, old).float()
    resized_1Mxx = F.interpolate(table_1Mxx, (new, new), mode="bicubic", align_corners=False)
    return resized_1Mxx.flatten(2)[0].t().to(table_XM.dtype).contiguous()


def with_window(model: Swin, window: int, image_size: int) -> Swin:
    """Copy a model for larger images, with windows that grow with them.

    Parameters
    ----------
    model
        Stays as it is.
    window, image_size
        As in `SwinConfig`.

    Returns
    -------
    A model whose tables of biases are resized, see `resize_table`; all else is the same.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    config = replace(model.config, window=window, image_size=image_size)
    weight = model.head.fc.weight
    resized = Swin(config).to(device=weight.device, dtype=weight.dtype)
    load_unique(resized, _fitting(unique_state_dict(model), window))
    return resized.train(model.training)


def load_swin(path: Path, config: SwinConfig | None = None) -> Swin:
    """Read a model from a file of either layout.

    Parameters
    ----------
    path
        A ``.safetensors`` file, or a ``.pth``, ``.pt`` or ``.bin`` file of tensors, possibly under
        ``model`` or ``state_dict``. Files that hold other objects are not opened.
    config
        Settings that the file must fit, but for the window: tables of another one are resized.
        ``None`` takes those that the file tells, or else reads them off names and shapes: images
        of 32 times the window, no drop-path, and Mini-Swin as published.

    Returns
    -------
    A model in float32 and training mode.

    Raises
    ------
    ValueError
        If the file cannot be read, or tensors are missing, unknown, or of another shape; the
        message names the file and the tensors.
    """
    tensors = {name: one for name, one in read_tensors(path).items() if not name.endswith(BUFFERS)}
    is_official = "layers.0.downsample.reduction.weight" in tensors
    try:
        if config is None:
            config = _told(path) or _config_of(tensors, is_official=is_official)
        if is_official:
            _check_runs(config)
            tensors = {from_official(name, config): one for name, one in tensors.items()}
        model = Swin(config)
        load_unique(model, _fitting(tensors, config.window))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model


def save_swin(model: Swin, path: Path, layout: Layout = "timm") -> None:
    """Write a model's weights, each once; the file is either whole or as it was before.

    Parameters
    ----------
    model
        Any model.
    path
        File to make, ``.safetensors``, ``.pth``, ``.pt`` or ``.bin``.
    layout
        ``timm`` for names that we and, where nothing is shared, timm read; ``official`` for those
        of the authors' code, which reads ``.pth`` files.

    Raises
    ------
    ValueError
        If the ending or the layout is unknown, or the authors' code has no such model.
    """
    if layout not in ("timm", "official"):
        raise ValueError(f"layout: expected timm or official, got {layout!r}")
    tensors = unique_state_dict(model)
    if layout == "official":
        _check_runs(model.config)
        tensors = {to_official(name, model.config): one for name, one in tensors.items()}
    write_tensors(tensors, path, asdict(model.config))


def _is_mini(config: SwinConfig) -> bool:
    """Whether the authors' code for Mini-Swin is meant, not that for Swin."""
    has_transforms = config.mixes or config.local != "none"
    return has_transforms or config.groups != alone(config.depths)


def _check_runs(config: SwinConfig) -> None:
    """The authors' code splits a stage evenly."""
    if any(len(set(stage)) > 1 for stage in config.groups):
        raise ValueError(f"groups: expected even ones in the official layout, got {config.groups}")


def _fitting(tensors: Mapping[str, Tensor], window: int) -> dict[str, Tensor]:
    return {
        name: resize_table(one, window) if name.endswith(TABLE) and one.dim() == 2 else one
        for name, one in tensors.items()
    }


def _told(path: Path) -> SwinConfig | None:
    """Settings that a file of ours tells."""
    told = told_settings(path)
    if told is None:
        return None
    try:
        return SwinConfig(**{**told, "groups": tuple(map(tuple, told["groups"]))})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"config: expected settings of a Swin ({error})") from error


def _config_of(tensors: Mapping[str, Tensor], *, is_official: bool) -> SwinConfig:
    shape = partial(shape_of, tensors)

    start = "layers.0.blocks.0"
    is_mini = is_official and f"{start}.norm1_list.0.weight" in tensors
    distances, heads = shape(f"{start}.attn.{TABLE}", 2)
    width = shape("patch_embed.proj.weight", 4)[0]
    window = (round(distances**0.5) + 1) // 2
    config = SwinConfig(
        width=width,
        groups=tuple(_runs(tensors, stage, is_mini=is_mini) for stage in range(NUM_STAGES)),
        window=window,
        head_width=max(width // heads, 1),
        mlp_expansion=shape(f"{start}.mlp.fc1.weight", 2)[0] / width,
        image_size=STRIDE * window,
        num_classes=shape("head.weight" if is_official else "head.fc.weight", 2)[0],
        mixes=f"{start}.proj_l.0.weight" in tensors,
        local="published" if f"{start}.local_conv_list.0.weight" in tensors else "none",
    )
    if not is_mini:
        return config
    return replace(as_published(config), local=config.local)


def _runs(tensors: Mapping[str, Tensor], stage: int, *, is_mini: bool) -> tuple[int, ...]:
    """Executions of each set of weights of a stage."""
    names = [name for name in tensors if name.startswith(f"layers.{stage}.blocks.")]
    sets = {int(name.split(".")[3]) for name in names if name.split(".")[3].isdigit()}
    if not sets:
        raise ValueError(f"layers.{stage}.blocks: expected in the checkpoint, found none")
    length = 1
    if is_mini:
        length = sum(bool(re.search(r"blocks\.0\.norm1_list\.\d+\.weight", one)) for one in names)
    return (max(length, 1),) * len(sets)
