"""A trained vision model turned into a smaller one, whose blocks share their weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from weightwise.lm.tensor_file import fresh_folder
from weightwise.multiplex import SizeReport, multiplex, num_unique_parameters
from weightwise.train.checkpoint import find_checkpoint, whole_weights
from weightwise.train.exchange import write_state
from weightwise.train.shrinking import Shrunk, write_report
from weightwise.train.vision_images import open_images
from weightwise.train.vision_recipe import vision_to_toml
from weightwise.train.vision_scores import held_out, measured_on, top1
from weightwise.train.vision_start import load_vision_model

if TYPE_CHECKING:
    from weightwise.train.shrinking import ShrinkConfig


def shrink_vision(
    checkpoint: Path | str, out: Path | str, config: ShrinkConfig, *, num_images: int = 256
) -> Shrunk:
    """Let blocks of a trained vision model share weights until it is small enough.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
    out
        Folder of the new checkpoint; must be new or empty.
    config
        How small, and how.
    num_images
        Training images of the run to measure on, at least 1.

    Raises
    ------
    ValueError
        If the checkpoint is damaged, its images cannot be read, its blocks cannot share or not so
        much, ``out`` is taken or the disk too full. Nothing is written then.
    """
    start, out = find_checkpoint(Path(checkpoint)), Path(out)
    if num_images < 1:
        raise ValueError(f"images: expected at least 1, got {num_images}")
    model, recipe = load_vision_model(start)
    if recipe.sharing is not None:
        raise ValueError(f"{start}: sharing: expected a model without, got one that is shrunk")
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    images = open_images(recipe.images, model.config.num_classes, needs_labels=False)
    view = recipe.images.view(model.config.image_size)
    loader = held_out(recipe, images, view)
    params_before, before = num_unique_parameters(model), top1(model, loader)
    with fresh_folder(out, sum(weight.nbytes for weight in model.parameters())) as partial:
        device = next(model.parameters()).device
        plan = multiplex(
            model, config.params, by=config.by, start=config.start, transforms=config.transforms,
            batches=[one.to(device) for one in measured_on(recipe, images, view, num_images)],
            keep=config.keep,
        )  # fmt: skip
        shrunk = Shrunk(
            source=start, folder=out, plan=plan, size=SizeReport.of(model),
            params_before=params_before, params_after=num_unique_parameters(model),
            measure="top-1", before=before, after=top1(model, loader),
        )  # fmt: skip
        save_file(whole_weights(model), partial / "model.safetensors")
        write_report(partial, shrunk)
        small = replace(recipe, name=f"{recipe.name}-shrunk", start=None, sharing=plan)
        write_state(partial, vision_to_toml(small))
    return shrunk
