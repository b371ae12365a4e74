"""The likeliest continuation rather than a random one: beam search.

Of all continuations of a few texts by one token, the best few go on (Lowerre 1976; as in Wu et al.,
arXiv 1609.08144, section 7). A text that ends is put aside with the sum of its log probabilities
over its number of new tokens to the power of ``length_penalty``, and the search is over when no
open text can pass the worst of those that are kept. The prompt is read once; the rows of the cache
are then copied and, after each token, follow their texts.
"""

# Shapes: B beams, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import torch

from weightwise.lm.decoder import PREFILL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor

    from weightwise.lm.cache import Cache
    from weightwise.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Beam:
    """A continuation.

    Parameters
    ----------
    tokens
        New token ids, a stop token included.
    score
        Sum of their log probabilities, over their number to the power of the length penalty.
    """

    tokens: tuple[int, ...]
    score: float


@torch.inference_mode()
def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    *,
    num_beams: int,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    length_penalty: float = 1.0,
) -> list[Beam]:
    """Search for the likeliest continuations of a prompt.

    Parameters
    ----------
    model
        Trained model in evaluation mode.
    prompt
        Token ids, at least one.
    num_beams
        Texts at a time, at least 1; with 1 the likeliest token is taken each time.
    max_new_tokens
        Most tokens to add, at least 1.
    stop_ids
        Tokens that end a text.
    length_penalty
        Above 0 longer texts are preferred, below 0 shorter ones.

    Returns
    -------
    list
        The ``num_beams`` best texts that were found, best first.

    Raises
    ------
    ValueError
        If a size is out of range or the text would exceed ``max_length``.
    """
    for name, value in (("num_beams", num_beams), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if not prompt:
        raise ValueError("prompt: expected at least 1 token, got none")
    cache = model.new_cache(1, len(prompt) + max_new_tokens)
    logits_BV = _read(model, prompt, cache)
    cache = cache.repeat(num_beams)
    search = _Search(num_beams, max_new_tokens, frozenset(stop_ids), length_penalty)
    # All rows are the same at first: one of them stands for all.
    score_B = torch.full((num_beams,), -inf)
    score_B[0] = 0.0
    logits_BV = logits_BV.expand(num_beams, -1)
    texts: list[tuple[int, ...]] = [()] * num_beams
    while True:
        source, texts, score_B = search.step(texts, score_B, logits_BV)
        if search.is_over(texts, score_B):
            return search.best(texts, score_B)
        cache.reorder(torch.tensor(source))
        newest = torch.tensor([[text[-1]] for text in texts], device=logits_BV.device)
        logits_BV = model(newest, cache)[:, -1]


class _Search:
    """Open texts grow, ended ones are kept."""

    def __init__(
        self, num_beams: int, max_new_tokens: int, stop_ids: frozenset[int], length_penalty: float
    ) -> None:
        self._num_beams = num_beams
        self._max_new_tokens = max_new_tokens
        self._stop_ids = stop_ids
        self._length_penalty = length_penalty
        self._ended: list[Beam] = []

    def step(
        self, texts: Sequence[tuple[int, ...]], score_B: Tensor, logits_BV: Tensor
    ) -> tuple[list[int], list[tuple[int, ...]], Tensor]:
        """Grow by a token; gives the rows that the new texts come from, the texts and scores."""
        total_BV = score_B.unsqueeze(1) + logits_BV.float().log_softmax(-1).cpu()
        # So many that enough go on even if each text ends in one way for every stop token.
        count = self._num_beams * (1 + len(self._stop_ids))
        best = total_BV.flatten().topk(min(count, total_BV.numel()))
        grown: list[tuple[int, tuple[int, ...], float]] = []
        for rank, (place, score) in enumerate(
            zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ):
            row, token = divmod(place, total_BV.shape[1])
            text = (*texts[row], token)
            if token not in self._stop_ids:
                grown.append((row, text, score))
            elif rank < self._num_beams:
                self._end(text, score)
        grown = grown[: self._num_beams]
        # A vocabulary of nothing but stop tokens leaves rows without a text.
        grown += [(0, (*texts[0], 0), -inf)] * (self._num_beams - len(grown))
        rows, new_texts, scores = zip(*grown, strict=True)
        return list(rows), list(new_texts), torch.tensor(scores)

    def is_over(self, texts: Sequence[tuple[int, ...]], score_B: Tensor) -> bool:
        """Whether there is no room, or no open text can become better than those kept."""
        length = len(texts[0])
        if length == self._max_new_tokens or float(score_B.max()) == -inf:
            return True
        if len(self._ended) < self._num_beams:
            return False
        longest = self._max_new_tokens if self._length_penalty > 0 else length
        attainable = float(score_B.max()) / longest**self._length_penalty
        return bool(self._ended[-1].score >= attainable)

    def best(self, texts: Sequence[tuple[int, ...]], score_B: Tensor) -> list[Beam]:
        """The best texts, open ones included where there is no more room."""
        if len(texts[0]) == self._max_new_tokens or len(self._ended) < self._num_beams:
            for text, score in zip(texts, score_B.tolist(), strict=True):
                if score > -inf:
                    self._end(text, score)
        return self._ended

    def _end(self, text: tuple[int, ...], score: float) -> None:
        self._ended.append(Beam(tokens=text, score=score / len(text) ** self._length_penalty))
        self._ended.sort(key=lambda beam: -beam.score)
        del self._ended[self._num_beams :]


def _read(model: LanguageModel, prompt: Sequence[int], cache: Cache) -> Tensor:
    """Scores of the token after a prompt, shape (1, V)."""
    token_BT = torch.tensor([list(prompt)], device=model.embed.weight.device)
    for piece in token_BT.split(PREFILL_TOKENS, dim=1):
        logits_BV: Tensor = model(piece, cache, last_only=True)[:, -1]
    return logits_BV
