"""Vision models out of files: what a run begins with, and what was trained, ready to use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from weightwise.images import View
from weightwise.train.checkpoint import find_checkpoint, load_weights, verify
from weightwise.train.vision_recipe import read_vision_recipe
from weightwise.vision import (
    TinyViT,
    load_tiny_vit,
    with_classes,
    with_mapped_classes,
    with_resolution,
)

if TYPE_CHECKING:
    from torch import nn

    from weightwise.train.vision_recipe import VisionRecipe
    from weightwise.vision import TinyViTConfig

MODEL_FILES = ("model.safetensors", "recipe.toml")
FILES = (".safetensors", ".pth", ".pt", ".bin")
# Settings that add no weights.
FREE_AT_START = ("drop_path", "mask_padding", "image_size")


def load_vision_model(path: Path | str) -> tuple[TinyViT, VisionRecipe]:
    """Load a trained vision model for use.

    Parameters
    ----------
    path
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.

    Returns
    -------
    tuple
        Model in evaluation mode on the CPU, and recipe.

    Raises
    ------
    CheckpointError
        If there is no checkpoint or a file of it is damaged.
    ValueError
        If it is not one of a vision model.
    """
    folder = find_checkpoint(Path(path))
    verify(folder, MODEL_FILES)  # the rest may be left out of a copy
    recipe = read_vision_recipe(folder / "recipe.toml")
    model = TinyViT(recipe.model.build())
    load_weights(model, folder)
    return model.eval(), recipe


def load_classifier(path: Path) -> tuple[nn.Module, View]:
    """Load a model of ours and what it sees, for `weightwise.distill.teachers.load_teacher`.

    Parameters
    ----------
    path
        Folder as for `load_vision_model`, or a file of weights, whose view has ImageNet's
        statistics.
    """
    if path.suffix in FILES and path.is_file():
        model = load_tiny_vit(path)
        return model.eval(), View(size=model.config.image_size)
    model, recipe = load_vision_model(path)
    return model, recipe.images.view(model.config.image_size)


def starting_model(recipe: VisionRecipe) -> TinyViT:
    """The model that a run begins with.

    Parameters
    ----------
    recipe
        Its ``start`` is fitted to its ``model``; without one new weights are drawn.

    Returns
    -------
    TinyViT
        In training mode on the CPU.

    Raises
    ------
    ValueError
        If the start cannot be read or does not fit; the message names the field.
    """
    config = recipe.model.build()
    # On the CPU, so that every kind of device starts from the same numbers.
    generator = torch.Generator().manual_seed(recipe.seed)
    if recipe.start is None:
        model = TinyViT(config)
        model.initialize(generator)
        return model
    found, _ = load_classifier(Path(recipe.start.path))
    assert isinstance(found, TinyViT)
    model = with_resolution(found, config.image_size, config.windows)
    if recipe.start.class_map is not None:
        model = with_mapped_classes(model, read_class_map(Path(recipe.start.class_map)))
    elif model.config.num_classes != config.num_classes:
        model = with_classes(model, config.num_classes, generator)
    _check_same(recipe.start.path, model.config, config)
    fitted = TinyViT(config)
    fitted.load_state_dict(model.state_dict())
    return fitted


def read_class_map(path: Path) -> list[int]:
    """Read the old class of every new one, a line each; -1 where there is none.

    Raises
    ------
    ValueError
        If the file cannot be read, or a line is no whole number; with file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a readable file ({error})") from error
    numbers = []
    for line, text in enumerate(lines, start=1):
        if not text.removeprefix("-").isdecimal():
            raise ValueError(f"{path}: line {line}: expected a whole number, got {text!r}")
        numbers.append(int(text))
    return numbers


def _check_same(path: str, found: TinyViTConfig, wanted: TinyViTConfig) -> None:
    free = {name: getattr(wanted, name) for name in FREE_AT_START}
    mine, theirs = vars(wanted), vars(replace(found, **free))
    for name, value in theirs.items():
        if mine[name] != value:
            raise ValueError(
                f"model.{name}: expected {value} as in start.path {path}, got {mine[name]}"
            )
