"""The language model of a recipe: its layers, and which of them share their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightwise.lm import LanguageModel
from weightwise.multiplex import share

if TYPE_CHECKING:
    from weightwise.train.recipe import Recipe


def language_model(recipe: Recipe) -> LanguageModel:
    """Make a model whose weights are still to be drawn or loaded.

    Parameters
    ----------
    recipe
        Its ``model`` and ``sharing`` say what is made.

    Raises
    ------
    ValueError
        If the plan of sharing is not one for such a model.
    """
    model = LanguageModel(recipe.model)
    if recipe.sharing is not None:
        share(model, recipe.sharing)
    return model
