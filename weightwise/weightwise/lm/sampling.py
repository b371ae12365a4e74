"""Choice of the next token, by settings and a generator of each row's own.

The steps come in the order of transformers: penalties, temperature, ``top_k``, ``top_p``,
``min_p``. What is left is drawn by inversion: one uniform number u per token, and the first
candidate at which the cumulative probability exceeds u.

A row's token depends on its logits, its settings, its text so far and its draws, and on nothing
else in the batch: rows with equal settings go through the steps together, but no step looks
across rows.
"""

# Shapes: B batch, K candidates, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Below, logits over the temperature leave the range of float32; the best token wins anyway.
LOWEST_TEMPERATURE = 1e-5


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen.

    Parameters
    ----------
    temperature
        0 takes the likeliest token; above, logits are divided by it.
    top_k
        Choose among this many likeliest tokens, at least 1.
    top_p
        Choose among the fewest likeliest tokens that together have this probability, above 0
        and at most 1 (Holtzman et al., arXiv 1904.09751).
    min_p
        Leave out tokens less likely than this share of the likeliest one, 0 to 1
        (arXiv 2407.01082).
    repetition_penalty
        Divides positive logits of tokens that the prompt or the text holds, and multiplies
        negative ones; above 0, 1 for none (arXiv 1909.05858).
    presence_penalty
        Taken from the logit of every token that the new text holds, -2 to 2.
    frequency_penalty
        The same, times how often the new text holds it, -2 to 2.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < inf:
            raise ValueError(f"temperature: expected 0 (greedy) or more, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: expected at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected above 0 and at most 1, got {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p: expected 0 to 1, got {self.min_p}")
        if not 0 < self.repetition_penalty < inf:
            raise ValueError(
                f"repetition_penalty: expected above 0 (1 for none), got {self.repetition_penalty}"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if not -2 <= value <= 2:
                raise ValueError(f"{name}: expected -2 to 2, got {value}")

    @property
    def has_penalties(self) -> bool:
        """Whether the text so far matters."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


# Sampling of the released Hunyuan-Large (its generation_config.json).
CHAT_SAMPLING = SamplingConfig(temperature=0.7, top_k=20, top_p=0.6, repetition_penalty=1.05)


class Sampler:
    """Settings, random numbers and history of one row.

    Parameters
    ----------
    config
        How tokens are chosen.
    generator
        Where the draws come from.
    prompt
        Token ids before the new text, for the repetition penalty.
    """

    def __init__(
        self, config: SamplingConfig, generator: torch.Generator, prompt: Sequence[int] = ()
    ) -> None:
        self.config = config
        self._generator = generator
        self._prompt = prompt
        self._history: tuple[Tensor, Tensor] | None = None  # in the prompt, times in the text

    def draw(self) -> float:
        """Next uniform number, from 0 to below 1."""
        generator = self._generator
        number = torch.rand((), generator=generator, dtype=torch.float64, device=generator.device)
        return float(number)

    def penalize(self, logits_V: Tensor) -> Tensor:
        """Apply the penalties to the scores of the next token."""
        if self._history is None:
            in_prompt_V = torch.zeros_like(logits_V, dtype=torch.bool)
            in_prompt_V[torch.tensor(self._prompt, dtype=torch.int64)] = True
            self._history = in_prompt_V, torch.zeros_like(logits_V)
        in_prompt_V, times_V = self._history
        config, in_text_V = self.config, times_V > 0
        factor = config.repetition_penalty
        scaled_V = torch.where(logits_V > 0, logits_V / factor, logits_V * factor)
        logits_V = torch.where(in_prompt_V | in_text_V, scaled_V, logits_V)
        return logits_V - config.frequency_penalty * times_V - config.presence_penalty * in_text_V

    def record(self, token: int) -> None:
        """Add the chosen token to the history."""
        if self._history is not None:
            self._history[1][token] += 1


def choose_tokens(logits_BV: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Choose one token per row.

    Parameters
    ----------
    logits_BV
        Scores of the next token.
    samplers
        Of each row; they move on.

    Returns
    -------
    list
        Token ids.
    """
    rows_of: dict[SamplingConfig, list[int]] = {}
    for row, sampler in enumerate(samplers):
        rows_of.setdefault(sampler.config, []).append(row)
    tokens = [0] * len(samplers)
    for config, rows in rows_of.items():
        group_BV = (logits_BV if len(rows) == len(samplers) else logits_BV[rows]).float()
        if config.has_penalties:
            pairs = zip(rows, group_BV, strict=True)
            group_BV = torch.stack([samplers[row].penalize(logits_V) for row, logits_V in pairs])
        if config.temperature == 0:
            chosen_B = group_BV.argmax(dim=-1)
        else:
            draws = [[samplers[row].draw()] for row in rows]
            chosen_B = tokens_at(group_BV, config, torch.tensor(draws, dtype=torch.float64))
        for row, token in zip(rows, chosen_B.tolist(), strict=True):
            tokens[row] = token
            samplers[row].record(token)
    return tokens


def tokens_at(logits_BV: Tensor, config: SamplingConfig, draw_B1: Tensor) -> Tensor:
    """Choose by given draws, penalties apart.

    Parameters
    ----------
    logits_BV
        Scores of the next token.
    config
        Settings of all rows, with a temperature above 0.
    draw_B1
        Numbers from 0 to below 1, float64.

    Returns
    -------
    Tensor
        For each row the first candidate at which the cumulative probability exceeds the draw.
    """
    vocab_size, top_k, top_p = logits_BV.shape[-1], config.top_k, config.top_p
    if top_k is not None and top_k < vocab_size:
        logits_BK, token_BK = logits_BV.topk(top_k, dim=-1)
    elif top_p is not None:
        logits_BK, token_BK = logits_BV.sort(dim=-1, descending=True, stable=True)
    else:
        logits_BK = logits_BV
        token_BK = torch.arange(vocab_size, device=logits_BV.device).expand_as(logits_BV)
    below_BK = logits_BK - logits_BK.amax(dim=-1, keepdim=True)
    prob_BK = (below_BK / max(config.temperature, LOWEST_TEMPERATURE)).softmax(dim=-1)
    if top_p is not None:
        # A token stays if those before it do not reach top_p yet; so the first always stays.
        prob_BK = prob_BK * (prob_BK.cumsum(dim=-1) - prob_BK < top_p)
    if config.min_p is not None:
        prob_BK = prob_BK * (prob_BK >= config.min_p * prob_BK.amax(dim=-1, keepdim=True))
    upto_BK = prob_BK.cumsum(dim=-1, dtype=torch.float64)
    target_B1 = draw_B1.to(upto_BK.device) * upto_BK[:, -1:]
    index_B1 = torch.searchsorted(upto_BK, target_B1, right=True)
    # A logit that is no number makes every sum none, and the search runs over the end.
    index_B1 = index_B1.clamp(max=upto_BK.shape[-1] - 1)
    return token_BK.gather(-1, index_B1).squeeze(-1)


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """Log probabilities under the model's own distribution, before any setting.

    Parameters
    ----------
    token, logprob
        The chosen token and its natural logarithm of probability.
    top
        The likeliest tokens and theirs, best first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def score_token(logits_V: Tensor, token: int, num_top: int) -> TokenScore:
    """Score the chosen token and the ``num_top`` likeliest ones."""
    logprob_V = logits_V.float().log_softmax(dim=-1)
    best = logprob_V.topk(min(num_top, len(logprob_V)))
    return TokenScore(
        token=token,
        logprob=float(logprob_V[token]),
        top=tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
    )
