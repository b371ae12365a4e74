"""Weights of DeiT and Mini-DeiT in files, in our names or in those of Mini-DeiT's authors.

Ours are timm's names, and those of the transforms beside them; a weight that executions share
stands once, under the first of them. In the authors' code a block is a set of weights, with its
executions' own parts in lists: maps over heads as 1 x 1 filters, tables with an axis for one head.
Their code has no layer normalizations in a block that runs once; such a block becomes a list of
one with us.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Literal

from weightwise.multiplex.files import load_unique, unique_state_dict
from weightwise.vision.deit import DeiT
from weightwise.vision.deit_config import DeiTConfig
from weightwise.vision.weight_files import read_tensors, shape_of, told_settings, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

Layout = Literal["timm", "official"]
HEAD_WIDTH = 64  # of every published model; where maps over heads do not tell their number
# Parts of an execution: ours, and the authors' with the shape that theirs has.
PARTS = {
    "norm1": "norm1.instances",
    "norm2": "norm2.instances",
    "attn.position": "attn.rpe_k.instances",
    "attn.attend.before": "attn.conv_l.instances",
    "attn.attend.after": "attn.conv_w.instances",
}
LEAVES = {"table": "lookup_table_weight"}
OURS = re.compile(r"blocks\.(\d+)\.(.+)\.(\w+)")
THEIRS = re.compile(r"blocks\.(\d+)\.block\.(.+?)(?:\.(?<=instances\.)(\d+))?\.(\w+)")


def to_official(name: str, groups: tuple[int, ...]) -> str:
    """Name of a tensor of ours in the layout of the authors' code."""
    found = OURS.fullmatch(name)
    if found is None:
        return name
    group, place = _group_of(int(found[1]), groups)
    part, leaf = found[2], found[3]
    if part in PARTS:
        return f"blocks.{group}.block.{PARTS[part]}.{place}.{LEAVES.get(leaf, leaf)}"
    return f"blocks.{group}.block.{part}.{leaf}"


def from_official(name: str, groups: tuple[int, ...]) -> str:
    """Name with us of a tensor in the layout of the authors' code; unknown names stay."""
    found = THEIRS.fullmatch(name)
    if found is None or int(found[1]) >= len(groups):
        return name
    ours = {theirs: part for part, theirs in PARTS.items()}
    leaves = {theirs: leaf for leaf, theirs in LEAVES.items()}
    number = sum(groups[: int(found[1])]) + int(found[3] or 0)
    leaf = leaves.get(found[4], found[4])
    return f"blocks.{number}.{ours.get(found[2], found[2])}.{leaf}"


def load_deit(path: Path, config: DeiTConfig | None = None) -> DeiT:
    """Read a model from a file of either layout.

    Parameters
    ----------
    path
        A ``.safetensors`` file, or a ``.pth``, ``.pt`` or ``.bin`` file of tensors, possibly under
        ``model`` or ``state_dict``. Files that hold other objects are not opened.
    config
        Settings that the file must fit. ``None`` takes those that the file tells, or else reads
        them off names and shapes: no drop-path, and heads of 64 channels without maps over heads.

    Returns
    -------
    A model in float32 and training mode.

    Raises
    ------
    ValueError
        If the file cannot be read, or tensors are missing, unknown, or of another shape; the
        message names the file and the tensors.
    """
    tensors: Mapping[str, Tensor] = read_tensors(path)
    is_official = any(name.startswith("blocks.0.block.") for name in tensors)
    try:
        if config is None:
            config = _told(path) or _config_of(tensors, is_official=is_official)
        if is_official:
            tensors = {
                from_official(name, config.groups): _reshaped(name, one)
                for name, one in tensors.items()
            }
        model = DeiT(config)
        load_unique(model, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model


def save_deit(model: DeiT, path: Path, layout: Layout = "timm") -> None:
    """Write a model's weights, each once; the file is either whole or as it was before.

    Parameters
    ----------
    model
        Any model.
    path
        File to make, ``.safetensors``, ``.pth``, ``.pt`` or ``.bin``.
    layout
        ``timm`` for names that we and, where nothing is shared, timm read; ``official`` for those
        of Mini-DeiT's authors, whose code reads ``.pth`` files.

    Raises
    ------
    ValueError
        If the ending or the layout is unknown, or the authors' code has no such model.
    """
    if layout not in ("timm", "official"):
        raise ValueError(f"layout: expected timm or official, got {layout!r}")
    tensors = unique_state_dict(model)
    if layout == "official":
        if model.config.local != "none":
            raise ValueError(
                f"local: expected none in the official layout, got {model.config.local}"
            )
        renamed = {to_official(name, model.config.groups): one for name, one in tensors.items()}
        tensors = {name: _shaped(name, one) for name, one in renamed.items()}
    write_tensors(tensors, path, asdict(model.config))


def _group_of(execution: int, groups: tuple[int, ...]) -> tuple[int, int]:
    """Group of an execution, and its place there."""
    group = 0
    while execution >= groups[group]:
        execution -= groups[group]
        group += 1
    return group, execution


def _shaped(name: str, one: Tensor) -> Tensor:
    """Give a tensor under an official name the authors' shape."""
    if ".conv_" in name:
        return one[:, :, None, None]
    return one[None] if name.endswith(LEAVES["table"]) else one


def _reshaped(name: str, one: Tensor) -> Tensor:
    """Undo `_shaped`; tensors of another shape stay, to be refused."""
    if ".conv_" in name and one.shape[2:] == (1, 1):
        return one[:, :, 0, 0]
    is_table = name.endswith(LEAVES["table"]) and one.dim() == 3 and len(one) == 1
    return one[0] if is_table else one


def _told(path: Path) -> DeiTConfig | None:
    """Settings that a file of ours tells."""
    told = told_settings(path)
    if told is None:
        return None
    try:
        return DeiTConfig(**{**told, "groups": tuple(told["groups"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"config: expected settings of a DeiT ({error})") from error


def _config_of(tensors: Mapping[str, Tensor], *, is_official: bool) -> DeiTConfig:
    shape = partial(shape_of, tensors)

    if any(".local." in name for name in tensors):
        raise ValueError("config: expected for a model with convolutions, got none")
    start = "blocks.0.block" if is_official else "blocks.0"
    mix = f"{start}.attn.conv_l.instances.0.weight"
    table = f"{start}.attn.rpe_k.instances.0.{LEAVES['table']}"
    if not is_official:
        mix, table = f"{start}.attn.attend.before.weight", f"{start}.attn.position.table"
    width, _, patch, _ = shape("patch_embed.proj.weight", 4)
    class_token = "cls_token" in tensors
    side = round((shape("pos_embed", 3)[1] - class_token) ** 0.5)
    heads = tensors[mix].shape[0] if mix in tensors else width // HEAD_WIDTH
    hidden = shape(f"{start}.mlp.fc1.weight", 2)[0]
    return DeiTConfig(
        width=width,
        num_heads=heads,
        groups=_groups(tensors, is_official=is_official),
        mlp_expansion=hidden / width,
        patch=patch,
        image_size=side * patch,
        num_classes=shape("head.weight", 2)[0],
        class_token=class_token,
        relative=table in tensors,
        mixes=mix in tensors,
    )


def _groups(tensors: Mapping[str, Tensor], *, is_official: bool) -> tuple[int, ...]:
    """Executions of each set of weights."""
    form = (
        r"blocks\.(\d+)\.block\.norm1\.instances\.\d+\.weight"
        if is_official
        else (r"blocks\.(\d+)\.norm1\.weight")
    )
    found = [re.fullmatch(form, name) for name in tensors]
    numbers = sorted(int(one[1]) for one in found if one is not None)
    if is_official:
        return tuple(numbers.count(number) for number in sorted(set(numbers)))
    firsts = [number for number in numbers if f"blocks.{number}.attn.qkv.weight" in tensors]
    if numbers != list(range(len(numbers))):
        raise ValueError(
            f"blocks: expected numbers from 0 without a gap, got {len(numbers)} others"
        )
    return tuple(b - a for a, b in zip(firsts, [*firsts, len(numbers)][1:], strict=True))
