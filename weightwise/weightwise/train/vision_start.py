"""Vision models out of files: what a run begins with, and what was trained, ready to use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from weightwise.images import View
from weightwise.multiplex.share import PLAN, multiplex
from weightwise.train.checkpoint import find_checkpoint, load_weights, verify
from weightwise.train.recipe import read_table
from weightwise.train.vision_models import draw_weights, make_model
from weightwise.train.vision_recipe import read_vision_recipe
from weightwise.vision import (
    TinyViT,
    TinyViTConfig,
    load_tiny_vit,
    with_classes,
    with_mapped_classes,
    with_resolution,
)
from weightwise.vision.deit import DeiT
from weightwise.vision.deit_adapt import to_mini, with_image_size
from weightwise.vision.deit_checkpoint import load_deit
from weightwise.vision.deit_config import DeiTConfig
from weightwise.vision.swin import Swin
from weightwise.vision.swin_checkpoint import load_swin, with_window
from weightwise.vision.swin_config import SwinConfig
from weightwise.vision.weight_files import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from weightwise.multiplex.plan import Plan
    from weightwise.train.vision_models import VisionModel, VisionSettings
    from weightwise.train.vision_recipe import VisionRecipe

MODEL_FILES = ("model.safetensors", "recipe.toml")
FILES = (".safetensors", ".pth", ".pt", ".bin")
# Settings that add no weights.
FREE_AT_START = ("drop_path", "mask_padding", "mask_unshifted", "mix_start", "image_size")


def load_vision_model(path: Path | str) -> tuple[VisionModel, VisionRecipe]:
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
    model = make_model(recipe.model.build(), recipe.sharing)
    load_weights(model, folder)
    return model.eval(), recipe


def is_vision_checkpoint(path: Path | str) -> bool:
    """Whether the checkpoint in a folder, or the newest of a run, is one of a vision model.

    Raises
    ------
    CheckpointError
        If there is no checkpoint.
    """
    return "images" in read_table(find_checkpoint(Path(path)) / "recipe.toml")


def load_classifier(path: Path) -> tuple[VisionModel, View]:
    """Load a model of ours and what it sees, for `weightwise.distill.teachers.load_teacher`.

    Parameters
    ----------
    path
        Folder as for `load_vision_model`, or a file of weights, whose view has ImageNet's
        statistics.
    """
    if path.suffix in FILES and path.is_file():
        model = _family(path)(path)
        return model.eval(), View(size=model.config.image_size)
    model, recipe = load_vision_model(path)
    return model, recipe.images.view(model.config.image_size)


def starting_model(recipe: VisionRecipe, batches: Sequence[Tensor] = ()) -> VisionModel:
    """The model that a run begins with.

    Parameters
    ----------
    recipe
        Its ``start`` is fitted to its ``model`` and ``sharing``; without one new weights are drawn.
    batches
        Images, where ``start.share`` is to measure something or to find places for transforms.

    Returns
    -------
    VisionModel
        In training mode on the CPU. Where blocks share by a plan, it has ``multiplex_plan``.

    Raises
    ------
    ValueError
        If the start cannot be read or does not fit; the message names the field.
    """
    config = recipe.model.build()
    # On the CPU, so that every kind of device starts from the same numbers.
    generator = torch.Generator().manual_seed(recipe.seed)
    if recipe.start is None:
        model = make_model(config)
        draw_weights(model, recipe.model, generator)
        if recipe.sharing is not None:
            multiplex(model, plan=recipe.sharing, start="first")
        return model
    found, _ = load_classifier(Path(recipe.start.path))
    model = _fitted(recipe, config, found, generator)
    share = recipe.start.share
    plan = recipe.sharing
    if share is not None and (plan is not None or share.budget is not None):
        multiplex(
            model, share.budget if plan is None else None, plan=plan, by=share.by,
            start=share.start, transforms=share.transforms, batches=batches, keep=share.keep,
        )  # fmt: skip
    elif plan is not None and plan != plan_of(model):
        raise ValueError(
            f"sharing: expected the plan of start.path {recipe.start.path}, or start.share to "
            "bring blocks to share, got another plan"
        )
    return model


def plan_of(model: nn.Module) -> Plan | None:
    """By which plan blocks of a model share weights; ``None`` where there is none."""
    plan: Plan | None = getattr(model, PLAN, None)
    return plan


def _fitted(
    recipe: VisionRecipe, config: VisionSettings, found: VisionModel, generator: torch.Generator
) -> VisionModel:
    """A start with the recipe's resolution and classes."""
    assert recipe.start is not None
    path = recipe.start.path
    if type(found.config) is not type(config):
        theirs = type(found).__name__
        raise ValueError(f"model.kind: expected that of a {theirs} as in start.path {path}")
    model = _resized(found, config)
    share = recipe.start.share
    if isinstance(model, DeiT) and isinstance(config, DeiTConfig) and share is not None:
        is_mini = max(config.groups) > max(model.config.groups)
        if is_mini and share.start != "data":
            settings = replace(config, num_classes=model.config.num_classes)
            model = to_mini(model, settings, share.start)
    if recipe.start.class_map is not None:
        model = with_mapped_classes(model, read_class_map(Path(recipe.start.class_map)))
    elif model.config.num_classes != config.num_classes:
        model = with_classes(model, config.num_classes, generator)
    _check_same(path, model.config, config)
    fitted = make_model(config, plan_of(model))
    fitted.load_state_dict(model.state_dict())
    return fitted


def _resized(found: VisionModel, config: VisionSettings) -> VisionModel:
    """A start at the recipe's resolution."""
    if isinstance(config, TinyViTConfig) and isinstance(found, TinyViT):
        is_fitting = found.config.windows == config.windows
    else:
        is_fitting = found.config.image_size == config.image_size
    if is_fitting:
        return found
    if plan_of(found) is not None:
        raise ValueError(
            f"model.image_size: expected {found.config.image_size} as in start.path, whose blocks "
            f"share by a plan, got {config.image_size}"
        )
    if isinstance(found, TinyViT) and isinstance(config, TinyViTConfig):
        return with_resolution(found, config.image_size, config.windows)
    if isinstance(found, Swin) and isinstance(config, SwinConfig):
        return with_window(found, config.window, config.image_size)
    assert isinstance(found, DeiT)
    return with_image_size(found, config.image_size)


def _family(path: Path) -> Callable[[Path], VisionModel]:
    """What reads a file of weights, by the names of its tensors."""
    names = read_tensors(path)
    if any(name.endswith("relative_position_bias_table") for name in names):
        return load_swin
    return load_deit if "pos_embed" in names else load_tiny_vit


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


def _check_same(path: str, found: VisionSettings, wanted: VisionSettings) -> None:
    free = {name: getattr(wanted, name) for name in FREE_AT_START if hasattr(wanted, name)}
    mine, theirs = vars(wanted), vars(replace(found, **free))
    for name, value in theirs.items():
        if mine[name] != value:
            raise ValueError(
                f"model.{name}: expected {value} as in start.path {path}, got {mine[name]}"
            )
