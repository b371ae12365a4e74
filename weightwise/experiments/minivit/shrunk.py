"""A trained model at half its weights in three ways, each then trained beside the original.

``multiplexed`` is what ``weightwise shrink`` makes: groups and shared weights by what changes
outputs least, and as much of its own for every execution as half the weights leave room for.
``plain`` shares the mean of neighbours and has nothing but its normalizations. ``half-depth`` keeps
every second block, which leaves it more weights than the others where embeddings weigh much. What
follows, ``uptrain``, is the same for all: its rate, steps, order and teacher, of which none was
tuned. Parts of low rank took the place of maps over heads after a look at the first seed.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from weightwise.multiplex import Transforms
from weightwise.recipes.demo import demo
from weightwise.recipes.uptrain import uptrain
from weightwise.recipes.uptrain_vision import uptrain_vision
from weightwise.recipes.vision_mini import digits_vit
from weightwise.train.checkpoint import find_checkpoint
from weightwise.train.exchange import write_state
from weightwise.train.recipe import read_recipe, to_toml
from weightwise.train.shrink_language import shrink_language
from weightwise.train.shrink_vision import shrink_vision
from weightwise.train.shrinking import ShrinkConfig
from weightwise.train.vision_recipe import read_vision_recipe, vision_to_toml

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from weightwise.train import Recipe
    from weightwise.train.vision_recipe import VisionRecipe

MULTIPLEXED, PLAIN, HALF = WAYS = ("multiplexed", "plain", "half-depth")
SHARE = 0.5
LAYERS = 6
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def vision_original(seed: int) -> VisionRecipe:
    """Six blocks on digits of 16 x 16 pixels."""
    return replace(digits_vit(), name=f"vision-s{seed}", seed=seed)


def language_original(seed: int) -> Recipe:
    """Six blocks on the built-in text."""
    recipe = demo()
    model = replace(recipe.model, num_layers=LAYERS)
    train = replace(recipe.train, keep_checkpoints=1, eval_every=recipe.train.steps)
    return replace(recipe, name=f"language-s{seed}", seed=seed, model=model, train=train)


def vision_shrunk(original: Path, way: str, folder: Path, *, epochs: int) -> VisionRecipe:
    """Recipe that trains a smaller vision model; what it begins with is made where missing.

    Parameters
    ----------
    original
        Folder of a run.
    way
        One of `WAYS`.
    folder
        Of the smaller model before training.
    epochs
        Passes over the images.
    """
    if not folder.exists():
        if way == HALF:
            halve(original, folder, is_vision=True)
        else:
            shrink_vision(original, folder, way_of(way, Transforms(rank=8, kernel=3)))
    recipe = uptrain_vision(folder, epochs=epochs, teacher=original)
    return replace(recipe, name=folder.name)


def language_shrunk(original: Path, way: str, folder: Path, *, steps: int) -> Recipe:
    """The same for a language model; see `vision_shrunk`."""
    if not folder.exists():
        if way == HALF:
            halve(original, folder, is_vision=False)
        else:
            shrink_language(original, folder, way_of(way, Transforms(rank=2)))
    recipe = uptrain(folder, steps=steps, teacher=original)
    train = replace(recipe.train, eval_every=steps, keep_checkpoints=1)
    return replace(recipe, name=folder.name, train=train)


def way_of(way: str, transforms: Transforms) -> ShrinkConfig:
    """How blocks are brought to share."""
    if way == PLAIN:
        return ShrinkConfig(params=SHARE, by="even", start="mean")
    return ShrinkConfig(params=SHARE, transforms=transforms)


def halve(original: Path, folder: Path, *, is_vision: bool) -> None:
    """Write a checkpoint with every second block of another, the last one among them.

    Parameters
    ----------
    original
        Folder of a run.
    folder
        To be made.
    is_vision
        Whether it is a vision model.
    """
    start = find_checkpoint(original)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(every_second(load_file(start / "model.safetensors")), partial / "model.safetensors")
    path = start / "recipe.toml"
    if is_vision:
        recipe = read_vision_recipe(path)
        model = replace(recipe.model, groups=(1,) * (LAYERS // 2))
        write_state(partial, vision_to_toml(replace(recipe, model=model)))
    else:
        shutil.copy(start / "tokenizer.json", partial)
        own = read_recipe(path)
        model = replace(own.model, num_layers=LAYERS // 2)
        write_state(partial, to_toml(replace(own, model=model)))
    partial.rename(folder)


def every_second(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the blocks 1, 3, 5, … under the numbers 0, 1, 2, …, and all that is no block's."""
    kept = {}
    for name, one in tensors.items():
        found = BLOCK.fullmatch(name)
        if found is None:
            kept[name] = one
        elif int(found[1]) % 2:
            kept[f"blocks.{int(found[1]) // 2}.{found[2]}"] = one
    return kept
