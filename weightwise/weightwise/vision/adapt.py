"""A trained model for another resolution or other classes.

At a higher resolution windows grow with the map. A head's table of biases is an image over rows and
columns of distance; it is enlarged bicubically. All other weights stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.multiplex.share import PLAN, share
from weightwise.vision.deit import DeiT
from weightwise.vision.swin import Swin
from weightwise.vision.tiny_vit import INIT_STD, TinyViT

if TYPE_CHECKING:
    from collections.abc import Sequence

Model = TypeVar("Model", bound=TinyViT | DeiT | Swin)
TABLE = "attention_biases"


def resize_table(table_GL: Tensor, window: int) -> Tensor:
    """Resize the bias table of an attention layer.

    Parameters
    ----------
    table_GL
        A row of old window squared entries for every head.
    window
        New side of the window, at least 1.

    Returns
    -------
    Tensor of shape (G, window^2), interpolated bicubically (section 3.4 of the recipes).
    """
    side = round(table_GL.shape[1] ** 0.5)
    if side == window:
        return table_GL
    image_1Gww = table_GL.float().view(1, -1, side, side)
    image_1Gww = F.interpolate(image_1Gww, (window, window), mode="bicubic", align_corners=False)
    return image_1Gww.reshape(-1, window**2).to(table_GL.dtype)


def with_resolution(
    model: TinyViT, image_size: int, windows: tuple[int, int, int] | None = None
) -> TinyViT:
    """Copy a model for another resolution.

    Parameters
    ----------
    model
        Stays as it is.
    image_size
        New side of the images, at least 1.
    windows
        New windows; ``None`` means the old ones times the ratio of the sizes, rounded.

    Returns
    -------
    A model with resized tables, in the mode of the old one.

    Raises
    ------
    ValueError
        If the new settings are out of range.
    """
    old = model.config
    if windows is None:
        second, third, fourth = (
            max(round(window * image_size / old.image_size), 1) for window in old.windows
        )
        windows = (second, third, fourth)
    tensors = model.state_dict()
    for name in tensors:
        if name.endswith(TABLE):
            stage = int(name.split(".")[1])
            tensors[name] = resize_table(tensors[name], windows[stage - 1])
    return _rebuilt(model, replace(old, image_size=image_size, windows=windows), tensors)


def with_classes(model: Model, num_classes: int, generator: torch.Generator) -> Model:
    """Copy a model with a new head.

    Parameters
    ----------
    model
        Stays as it is.
    num_classes
        Classes of the new head, at least 1.
    generator
        Source of the head's weights; biases are 0.

    Returns
    -------
    A model in the mode of the old one.

    Raises
    ------
    ValueError
        If ``num_classes`` is below 1.
    """
    config = replace(model.config, num_classes=num_classes)
    tensors = model.state_dict()
    head = _head(model)
    weight = tensors[f"{head}.weight"].new_empty(num_classes, tensors[f"{head}.weight"].shape[1])
    tensors[f"{head}.weight"] = nn.init.trunc_normal_(weight, std=INIT_STD, generator=generator)
    tensors[f"{head}.bias"] = weight.new_zeros(num_classes)
    return _rebuilt(model, config, tensors)


def with_mapped_classes(model: Model, sources: Sequence[int]) -> Model:
    """Copy a model whose new classes are some of the old ones, to fine-tune it.

    Parameters
    ----------
    model
        Stays as it is.
    sources
        Old class of every new one; -1 where there is none, whose row of the head becomes the mean
        of all that have one.

    Returns
    -------
    A model in the mode of the old one.

    Raises
    ------
    ValueError
        If an entry is not a class of the model, or all are -1.
    """
    index, is_known = _checked(sources, model.config.num_classes)
    tensors = model.state_dict()
    for name in (f"{_head(model)}.weight", f"{_head(model)}.bias"):
        rows = tensors[name][index.to(tensors[name].device)]
        rows[~is_known] = rows[is_known].mean(0)
        tensors[name] = rows
    return _rebuilt(model, replace(model.config, num_classes=len(sources)), tensors)


def map_logits(logits_BK: Tensor, sources: Sequence[int]) -> Tensor:
    """Read logits of new classes off those of old ones, to evaluate a model as it is.

    Parameters
    ----------
    logits_BK
        Logits of the old classes.
    sources
        As for `with_mapped_classes`; a class without a source gets logit 0.

    Returns
    -------
    Tensor of shape (B, len(sources)).

    Raises
    ------
    ValueError
        If an entry is not a class of the model, or all are -1.
    """
    index, is_known = _checked(sources, logits_BK.shape[1])
    device = logits_BK.device
    return logits_BK[:, index.to(device)].masked_fill(~is_known.to(device), 0.0)


def _checked(sources: Sequence[int], num_classes: int) -> tuple[Tensor, Tensor]:
    """Source of every class, 0 where there is none, and whether there is one."""
    index = torch.tensor(sources, dtype=torch.int64)
    is_known = index >= 0
    if not is_known.any():
        raise ValueError("sources: expected at least one class of the model, got none")
    for place, source in enumerate(sources):
        if not -1 <= source < num_classes:
            raise ValueError(
                f"sources: expected -1 to {num_classes - 1}, got {source} for class {place}"
            )
    return index.clamp(min=0), is_known


def _head(model: nn.Module) -> str:
    """Name of the linear layer that classifies."""
    return "head" if isinstance(model, DeiT) else "head.fc"


def _rebuilt(model: Model, config: Any, tensors: dict[str, Tensor]) -> Model:
    """A model of the same family, whose blocks share as those of the old one do."""
    like = next(model.parameters())
    built = type(model)(config)
    plan = getattr(model, PLAN, None)
    if plan is not None:
        share(built, plan)
    built.to(like)
    built.load_state_dict(tensors)
    return cast("Model", built.train(model.training))
