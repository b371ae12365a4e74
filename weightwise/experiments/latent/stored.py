"""Trained weights whose cache is stored in another way than in their training."""

# Shapes: B texts, T tokens

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from weightwise.lm import LanguageModel
from weightwise.lm.latent.rotation import rotate_features
from weightwise.train import default_cache_dir, prepare
from weightwise.train.batches import Windows, evaluation_windows
from weightwise.train.examples import TextExamples, score_with

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.lm import LatentConfig
    from weightwise.train import Recipe

TEXTS_AT_A_TIME = 24


@torch.no_grad()
def stored_otherwise(model: LanguageModel, attention: LatentConfig) -> LanguageModel:
    """The same model with a cache that is stored in another way.

    Parameters
    ----------
    model
        A model with latent attention whose latents are not rotated.
    attention
        Its attention but for codes, outer scales, and the rotation of latents, which the
        up-projections undo.
    """
    other = LanguageModel(replace(model.config, attention=attention))
    other.load_state_dict(other.state_dict() | model.state_dict())  # outer scales begin at 1
    if attention.rotate_latent:
        for name, weight in other.named_parameters():
            if name.endswith("attention.up"):
                weight.copy_(rotate_features(weight))
    return other.eval()


def training_text(recipe: Recipe) -> Tensor:
    """Some text that the run was trained on, shape (B, T)."""
    data = prepare(recipe.data, recipe.model.vocab_size, default_cache_dir())
    windows = Windows(data.train, recipe.train.seq_length, "train")
    return windows.read(evaluation_windows(windows.count, TEXTS_AT_A_TIME))[0]


@torch.no_grad()
def validation_loss(model: LanguageModel, recipe: Recipe) -> float:
    """Loss on the held-out text that the run itself is judged by, nats a token.

    Parameters
    ----------
    model
        In evaluation mode, with the vocabulary of the recipe.
    recipe
        Says which text.
    """
    data = prepare(recipe.data, recipe.model.vocab_size, default_cache_dir())
    examples = TextExamples(Windows(data.valid, recipe.train.seq_length, "valid"))
    wanted = recipe.train.eval_batches * recipe.train.batch_size
    index = evaluation_windows(examples.count, wanted)
    score, total = score_with(model, recipe.train.dtype), 0.0
    for start in range(0, len(index), TEXTS_AT_A_TIME):
        piece = index[start : start + TEXTS_AT_A_TIME]
        total += examples.measure(score, piece)["loss"].item() * len(piece)
    return total / len(index)
