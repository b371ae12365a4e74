"""Retrieval from a long text: which value was said for a key, among noise.

A text is noise in which eight tokens say each "key k has value v"; all keys of a text differ.
It ends in one question for each of them, in another order. A token says key and value at once, so
that one look is enough, and what is tested is the cache: the latent of that one token must still
tell key and value after it was stored. The loss counts the answers only.

Lengths grow in training from 48 to 1024 tokens; judged are texts of up to four times that. They are
read through the cache as in generation: the noise in passes of 512, then token by token. Two things
let a model read further than it was trained:

* No rotary pair turns so slowly that training has not seen it turn around: with a base of 100 the
  slowest of eight features' needs 199 tokens. With 10,000 it needs more than 6000, and the model is
  right in six of ten cases at 4096.
* A needle must stand out among four times as much noise. Scores are taken times ln T / ln 1024 for
  texts of T > 1024 tokens (Su 2021, "log n" attention), at most 1.2 here. It costs no training.
"""

# Shapes: B texts, T tokens, P needles, V vocabulary

from __future__ import annotations

from copy import deepcopy
from math import log
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from weightwise.lm import LanguageModel, ModelConfig, SwiGLUConfig
from weightwise.optim import OptimizerConfig, ScheduleConfig, learning_rate, make_optimizer

if TYPE_CHECKING:
    from weightwise.lm.config import AttentionConfig

NUM_KEYS, NUM_VALUES, NUM_NOISE = 16, 16, 32
NUM_NEEDLES = 8
FIRST_QUESTION = NUM_NOISE
FIRST_NEEDLE = FIRST_QUESTION + NUM_KEYS
FIRST_ANSWER = FIRST_NEEDLE + NUM_KEYS * NUM_VALUES
VOCAB_SIZE = FIRST_ANSWER + NUM_VALUES
STAGES = ((48, 32, 300), (256, 8, 100), (1024, 2, 60))  # tokens, texts of a step, steps
LENGTHS = (512, 1024, 2048, 4096)
PREFILL = 512
ROPE_THETA = 100.0
RATE = 3e-3


def texts(batch: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw texts; the last 2 P tokens are questions with their answers.

    Parameters
    ----------
    batch
        Number of texts.
    length
        Tokens of each, more than three times the needles.
    generator
        Source of randomness.

    Returns
    -------
    Tensor
        Token ids, shape (B, T).
    """
    body = length - 2 * NUM_NEEDLES
    token_BT = torch.randint(NUM_NOISE, (batch, length), generator=generator)
    key_BP = _different(batch, NUM_KEYS, generator)
    value_BP = torch.randint(NUM_VALUES, (batch, NUM_NEEDLES), generator=generator)
    place_BP = _different(batch, body, generator)
    token_BT.scatter_(1, place_BP, FIRST_NEEDLE + key_BP * NUM_VALUES + value_BP)
    order_BP = _different(batch, NUM_NEEDLES, generator)
    token_BT[:, body::2] = FIRST_QUESTION + key_BP.gather(1, order_BP)
    token_BT[:, body + 1 :: 2] = FIRST_ANSWER + value_BP.gather(1, order_BP)
    return token_BT


def _different(batch: int, count: int, generator: torch.Generator) -> Tensor:
    """As many different numbers below `count` as there are needles, in each row."""
    return torch.rand((batch, count), generator=generator).argsort(1)[:, :NUM_NEEDLES]


def model_config(attention: AttentionConfig) -> ModelConfig:
    """Four layers of width 64."""
    return ModelConfig(
        vocab_size=VOCAB_SIZE, width=64, num_layers=4, max_length=LENGTHS[-1],
        attention=attention, ffn=SwiGLUConfig(hidden=128), init_std=0.1,
    )  # fmt: skip


def trained(attention: AttentionConfig, seed: int) -> LanguageModel:
    """A model that has learnt to answer.

    Parameters
    ----------
    attention
        Settings of the attention.
    seed
        Of weights and texts.
    """
    generator = torch.Generator().manual_seed(seed)
    model = LanguageModel(model_config(attention))
    model.initialize(generator)
    optimizer = make_optimizer(OptimizerConfig(), model, 1.0)
    num_steps = sum(steps for *_, steps in STAGES)
    schedule = ScheduleConfig(peak_lr=RATE, warmup_steps=50, min_lr_ratio=0.1)
    lengths = [(length, batch) for length, batch, steps in STAGES for _ in range(steps)]
    model.train()
    for step, (length, batch) in enumerate(lengths, start=1):
        model.set_progress((step - 1) / num_steps)
        token_BT = texts(batch, length, generator)
        logits_BPV = model(token_BT)[:, -2 * NUM_NEEDLES :: 2]
        answer_BP = token_BT[:, 1 - 2 * NUM_NEEDLES :: 2]
        F.cross_entropy(logits_BPV.flatten(0, 1), answer_BP.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step, num_steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model.eval()


@torch.no_grad()
def sharpened(model: LanguageModel, length: int) -> LanguageModel:
    """A copy with larger queries for texts that are longer than those of the training.

    Parameters
    ----------
    model
        With any kind of attention.
    length
        Tokens T of a text. Scores are taken times ln T / ln 1024, but at least 1.
    """
    other = deepcopy(model)
    factor = max(1.0, log(length) / log(STAGES[-1][0]))
    for name, weight in other.named_parameters():
        if name.endswith("attention.query.weight"):
            weight *= factor
    return other


@torch.no_grad()
def accuracy(model: LanguageModel, length: int, num_texts: int, seed: int = 1) -> float:
    """Share of the answers that are the likeliest, read through the cache.

    Parameters
    ----------
    model
        In evaluation mode.
    length
        Tokens of a text.
    num_texts
        Texts, at least 1.
    seed
        Of the texts.
    """
    token_BT = texts(num_texts, length, torch.Generator().manual_seed(seed))
    cache = model.new_cache(num_texts, length)
    body = length - 2 * NUM_NEEDLES
    for piece in token_BT[:, :body].split(PREFILL, dim=1):
        model(piece, cache, last_only=True)
    found: list[Tensor] = []
    for place in range(body, length - 1):
        logits_B1V = model(token_BT[:, place : place + 1], cache)
        found.append(logits_B1V[:, 0].argmax(-1))
    answer_BP = torch.stack(found[::2], dim=1)
    return (answer_BP == token_BT[:, body + 1 :: 2]).float().mean().item()
