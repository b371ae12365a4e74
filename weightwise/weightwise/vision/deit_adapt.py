"""A trained DeiT for another resolution, or as the start of a Mini-DeiT.

The position embedding is an image over rows and columns of patches and is resized bicubically, as
DeiT's published fine-tuning does. Terms of relative position fit maps of any size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F

from weightwise.multiplex.files import load_unique, unique_state_dict
from weightwise.vision.deit import SHARED, DeiT

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weightwise.vision.deit_config import DeiTConfig

GroupStart = Literal["mean", "first"]
KEPT = ("width", "num_heads", "depth", "hidden", "patch", "num_classes", "image_size")


def resize_positions(embedding_1NC: Tensor, side: int, new_side: int) -> Tensor:
    """Resize a position embedding.

    Parameters
    ----------
    embedding_1NC
        Of ``side^2`` patches, row by row, and of a class token before them if there is one.
    side, new_side
        Patches along height and width, at least 1.

    Returns
    -------
    Tensor of shape (1, N - side^2 + new_side^2, C), interpolated bicubically.
    """
    if side == new_side:
        return embedding_1NC
    first_1NC, map_1NC = embedding_1NC.split([embedding_1NC.shape[1] - side**2, side**2], dim=1)
    map_1CRS = map_1NC.transpose(1, 2).unflatten(2, (side, side)).float()
    size = (new_side, new_side)
    map_1CRS = F.interpolate(map_1CRS, size, mode="bicubic", align_corners=False)
    resized_1NC = map_1CRS.flatten(2).transpose(1, 2).to(embedding_1NC.dtype)
    return torch.cat([first_1NC, resized_1NC], dim=1)


def with_image_size(model: DeiT, image_size: int) -> DeiT:
    """Copy a model for another resolution.

    Parameters
    ----------
    model
        Stays as it is.
    image_size
        New side of the images, a multiple of the patch.

    Returns
    -------
    A model in the mode of the old one, with a resized position embedding.

    Raises
    ------
    ValueError
        If the size is out of range.
    """
    config = replace(model.config, image_size=image_size)
    tensors = unique_state_dict(model)
    tensors["pos_embed"] = resize_positions(tensors["pos_embed"], model.config.side, config.side)
    built = _like(model, config)
    load_unique(built, tensors)
    return built.train(model.training)


@torch.no_grad()
def to_mini(model: DeiT, config: DeiTConfig, start: GroupStart = "mean") -> DeiT:
    """Begin a model whose blocks share weights from one whose blocks do not.

    Parameters
    ----------
    model
        Original, each of whose blocks has weights of its own; it stays as it is.
    config
        Settings of the new model, for example of `mini_deit`; sizes and depth are the original's.
    start
        What a group begins with: the ``mean`` of its blocks' weights, or those of the ``first``.

    Returns
    -------
    A model in the mode of the original. Layer normalizations, embeddings and head are copied. Maps
    over heads and convolutions are the identity and tables are zero, but for a ``published``
    convolution, which has torch's values. A class token that the new model has not is left out.

    Raises
    ------
    ValueError
        If the settings do not fit the original, or ``start`` is unknown.
    """
    if start not in get_args(GroupStart):
        raise ValueError(f"start: expected one of {get_args(GroupStart)}, got {start!r}")
    if max(model.config.groups) > 1:
        raise ValueError(f"model: expected one without sharing, got groups {model.config.groups}")
    for name in KEPT:
        old, new = getattr(model.config, name), getattr(config, name)
        if old != new:
            raise ValueError(f"{name}: expected the original's {old}, got {new}")
    if config.class_token and not model.config.class_token:
        raise ValueError("class_token: expected none, as the original has none")
    built = _like(model, config)
    own = built.state_dict()
    given = model.state_dict()
    first = 0
    for length in config.groups:
        for part in SHARED:
            for leaf in ("weight", "bias"):
                names = [f"blocks.{first + i}.{part}.{leaf}" for i in range(length)]
                stacked = torch.stack([given.pop(name) for name in names])
                own[names[0]].copy_(stacked.mean(0) if start == "mean" else stacked[0])
        first += length
    if not config.class_token and given.pop("cls_token", None) is not None:
        given["pos_embed"] = given["pos_embed"][:, 1:]
    for name, one in given.items():
        if name in own:
            own[name].copy_(one)
    return built.train(model.training)


def _like(model: nn.Module, config: DeiTConfig) -> DeiT:
    """Make a model on the device and in the type of another one."""
    weight = next(model.parameters())
    return DeiT(config).to(device=weight.device, dtype=weight.dtype)
