"""Recipes that come with the library, and how to find one by name or in a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from weightwise.recipes.demo import demo
from weightwise.recipes.latent import clla, clla_moe
from weightwise.recipes.long_context import long_context
from weightwise.recipes.moe import hunyuan_large, moe
from weightwise.recipes.scaling_law import scaling_law
from weightwise.recipes.tiny import tiny
from weightwise.train import from_dict, read_recipe, to_dict
from weightwise.train.recipe import override

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weightwise.train import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "tiny": tiny,
    "moe": moe,
    "clla": clla,
    "clla-moe": clla_moe,
    "fp-41m": partial(scaling_law, "41m"),
    "fp-85m": partial(scaling_law, "85m"),
    "fp-154m": partial(scaling_law, "154m"),
    "fp-679m": partial(scaling_law, "679m"),
    "fp-1.2b": partial(scaling_law, "1.2b"),
}

__all__ = [
    "RECIPES",
    "clla",
    "clla_moe",
    "demo",
    "hunyuan_large",
    "load_recipe",
    "long_context",
    "moe",
    "scaling_law",
    "tiny",
]


def load_recipe(path_or_name: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Find a recipe and change settings in it.

    Parameters
    ----------
    path_or_name
        Name of a built-in recipe, or path of a TOML file. A name that is a built-in one is
        taken as that; write ``./demo`` for a file of that name.
    overrides
        Changes such as ``"train.steps=100"``, see `weightwise.train.recipe.override`.

    Returns
    -------
    Recipe
        The checked recipe.

    Raises
    ------
    ValueError
        If there is no such recipe, or a setting is wrong; one line that names it.
    """
    name = str(path_or_name)
    if name in RECIPES:
        return from_dict(override(to_dict(RECIPES[name]()), overrides), origin=name)
    path = Path(path_or_name)
    if not path.is_file():
        raise ValueError(
            f"recipe: expected a TOML file or one of {', '.join(RECIPES)}, got {name!r}"
        )
    return read_recipe(path, overrides)
