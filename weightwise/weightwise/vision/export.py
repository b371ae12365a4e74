"""A model as a program of its own: torch.export and ONNX.

Of a TinyViT the fused model is exported, so there is no batch normalization in the program. Height
and width are fixed, as the windows' layout depends on them; the number of images is not. Weights
that several executions share are there once.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch

from weightwise.multiplex.export import write_onnx
from weightwise.vision.fuse import fuse
from weightwise.vision.tiny_vit import TinyViT

if TYPE_CHECKING:
    from pathlib import Path

    from torch.export import ExportedProgram

    from weightwise.vision.deit import DeiT
    from weightwise.vision.swin import Swin

BATCH = 2  # of the example; an example of one image would be taken for a constant


def export(
    model: TinyViT | DeiT | Swin, image_size: int | tuple[int, int] | None = None
) -> ExportedProgram:
    """Export a model for inference with any number of images.

    Parameters
    ----------
    model
        Stays as it is.
    image_size
        Side, or height and width; ``None`` means that of the settings.

    Returns
    -------
    A program that takes normalized images (B, 3, height, width) and gives logits.

    Raises
    ------
    ValueError
        If a side is below 1.
    """
    size = model.config.image_size if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"image_size: expected at least 1, got {size}")
    weight = next(model.parameters())
    images = torch.zeros(BATCH, 3, height, width, device=weight.device, dtype=weight.dtype)
    batch = torch.export.Dim("batch")
    ready = fuse(model) if isinstance(model, TinyViT) else deepcopy(model).eval()
    with torch.no_grad():
        return torch.export.export(ready, (images,), dynamic_shapes=({0: batch},))


def save_onnx(
    model: TinyViT | DeiT | Swin, path: Path, image_size: int | tuple[int, int] | None = None
) -> None:
    """Write a model as ONNX, with input ``images`` and output ``logits``.

    Parameters
    ----------
    model
        Stays as it is.
    path
        File to make; it holds the weights too.
    image_size
        As for `export`.

    Raises
    ------
    ValueError
        If a side is below 1, or onnxscript is not installed.
    """
    write_onnx(export(model, image_size), path, input_names=["images"], output_names=["logits"])
