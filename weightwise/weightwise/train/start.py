"""What a run begins with: the weights and tokenizer of another, and its prepared data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from weightwise.train.checkpoint import MODEL_FILES, find_checkpoint, read_state, verify
from weightwise.train.data import DataConfig, PreparedData, prepare
from weightwise.train.post_config import ChatConfig
from weightwise.train.recipe import Recipe, read_recipe, to_dict
from weightwise.train.recipe_conflicts import difference
from weightwise.train.samples import PreparedSamples, prepare_samples

if TYPE_CHECKING:
    from collections.abc import Collection

Prepared: TypeAlias = PreparedData | PreparedSamples

# Settings of the model that may differ from where the run begins: they add no weights and change
# how it is trained, or how far it sees.
FREE_AT_START = frozenset(
    {
        "max_length",
        "init_std",
        "residual_dropout",
        "attention.dropout",
        "attention.rope_theta",
        "attention.rope_alpha",
        "attention.latent_grad",
        "attention.codes.bits",
        "attention.codes.group_width",
        "attention.codes.is_symmetric",
        "attention.codes.scale_rule",
        "attention.rope_codes",
        "attention.rope_codes.bits",
        "attention.rope_codes.group_width",
        "attention.rope_codes.is_symmetric",
        "attention.rope_codes.scale_rule",
        "attention.group_bits",
        "attention.quantize_from",
        "ffn.overflow",
        "ffn.capacity_factor",
        "ffn.min_capacity",
        "ffn.keep_rule",
        "ffn.weight_rule",
        "ffn.balance_coef",
        "ffn.z_coef",
        "ffn.balance_over",
    }
)


def starting_checkpoint(recipe: Recipe, free: Collection[str] = FREE_AT_START) -> Path | None:
    """Find the checkpoint that a run begins with, and see that the recipe's model fits it.

    Parameters
    ----------
    recipe
        Its ``start`` is the folder of a checkpoint or of a run.
    free
        Settings of the model that may differ.

    Returns
    -------
    Path or None
        The checkpoint; ``None`` if the run begins with new weights.

    Raises
    ------
    ValueError
        If there is no checkpoint, it is damaged, or its model is another one.
    """
    if recipe.start is None:
        return None
    folder = find_checkpoint(Path(recipe.start))
    verify(folder, MODEL_FILES)
    theirs, ours = to_dict(read_recipe(folder / "recipe.toml")), to_dict(recipe)
    conflict = difference(theirs["model"], ours["model"], free, where=str(folder))
    if conflict:
        raise ValueError(f"model.{conflict}")
    conflict = difference(theirs.get("sharing", {}), ours.get("sharing", {}), (), where=str(folder))
    if conflict:
        raise ValueError(f"sharing.{conflict}")
    return folder


def prepare_data(recipe: Recipe, cache_dir: Path) -> Prepared:
    """Tokenize what a recipe trains on, or find that done in the cache.

    Parameters
    ----------
    recipe
        A run that begins with another's weights uses its tokenizer, unless
        ``data.tokenizer`` says otherwise.
    cache_dir
        Folder of the cache; made if missing.

    Raises
    ------
    ValueError
        If start or data are not as they should be.
    """
    start = starting_checkpoint(recipe)
    if isinstance(recipe.data, DataConfig):
        config = recipe.data
        if start is not None and config.tokenizer is None:
            config = replace(config, tokenizer=str(start / "tokenizer.json"))
        return prepare(config, recipe.model.vocab_size, cache_dir)
    assert start is not None, "recipes with such data have a start"
    tokenizer = start / "tokenizer.json"
    samples = prepare_samples(recipe.data, tokenizer, recipe.train.seq_length, cache_dir)
    if isinstance(recipe.data, ChatConfig):
        return samples
    # The start is the reference too, so a run may not go on with another.
    _, weights = read_state(start).files["model.safetensors"]
    return replace(samples, fingerprint=f"{samples.fingerprint}-{weights}")
