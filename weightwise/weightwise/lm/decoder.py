"""Many texts at once: continuous batching.

A decoder has a number of slots, one row of the cache each. `Decoder.add` gives a free slot to a
prompt at any time, and `Decoder.step` makes one pass over the newest tokens of all texts that are
being written, then one over the next piece of the prompts that are still being read. The size of
that piece bounds how long the others wait for a long prompt. A text that ends frees its slot at
once.

Texts that are being written stand in the first rows of the cache, the prompts that are being read
behind them, free rows last, so that each pass works on neighbouring rows, whose keys need no
copying; rows change places when a text moves from one part to another.
"""

# Shapes: B rows of a pass, T new tokens, V vocabulary

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from weightwise.lm.sampling import (
    Sampler,
    SamplingConfig,
    TokenScore,
    choose_tokens,
    score_token,
)
from weightwise.lm.stream import TextStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from weightwise.lm.model import LanguageModel
    from weightwise.lm.tokenizer import Tokenizer

PREFILL_TOKENS = 512
MOST_LOGPROBS = 20
SEEDS = range(-(2**63), 2**63)
Finish = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and how to continue it.

    Parameters
    ----------
    prompt
        Token ids, at least one.
    max_new_tokens
        Most tokens to add, at least 1.
    sampling
        How tokens are chosen.
    seed
        Of this text's own generator, a signed 64-bit number.
    stop_ids
        Tokens that end the text; the one that came is the last of its tokens, and no part of the
        text.
    stop_texts
        The text ends before any of them; not empty.
    num_logprobs
        Keep the log probabilities of the chosen and of this many likeliest tokens, 0 to 20.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()
    stop_texts: tuple[str, ...] = ()
    num_logprobs: int | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("prompt: expected at least 1 token, got none")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1, got {self.max_new_tokens}")
        if self.seed not in SEEDS:
            raise ValueError(f"seed: expected -2^63 to 2^63 - 1, got {self.seed}")
        if "" in self.stop_texts:
            raise ValueError("stop: expected texts of at least 1 character, got an empty one")
        if self.num_logprobs is not None and not 0 <= self.num_logprobs <= MOST_LOGPROBS:
            raise ValueError(f"logprobs: expected 0 to {MOST_LOGPROBS}, got {self.num_logprobs}")


class Continuation:
    """What has been added to a prompt so far.

    Parameters
    ----------
    request
        What is asked for.
    tokenizer
        Needed for text and stop texts.

    Attributes
    ----------
    tokens
        New token ids.
    scores
        Their log probabilities, if asked for; none for a stop token.
    finish
        Why the text has ended: ``stop`` for a stop token or text, ``length`` for the most
        tokens; ``None`` while it goes on.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer | None) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.scores: list[TokenScore] = []
        self.finish: Finish | None = None
        self.num_read = 0  # tokens of the prompt that are in the cache
        generator = torch.Generator().manual_seed(request.seed)
        self.sampler = Sampler(request.sampling, generator, request.prompt)
        self._stream = None if tokenizer is None else TextStream(tokenizer, request.stop_texts)

    @property
    def text(self) -> str:
        """New text that is certain, without what may be the beginning of a stop text."""
        return "" if self._stream is None else self._stream.text

    @property
    def num_left(self) -> int:
        """Tokens of the prompt that are not in the cache yet."""
        return len(self.request.prompt) - self.num_read

    def extend(self, token: int, logits_V: Tensor) -> None:
        """Take the token that was chosen from these scores."""
        request, stream = self.request, self._stream
        self.tokens.append(token)
        if token in request.stop_ids:
            self.finish = "stop"
        elif request.num_logprobs is not None:
            self.scores.append(score_token(logits_V, token, request.num_logprobs))
        if stream is not None and self.finish is None:
            stream.add(token)
            if stream.is_stopped:
                self.finish = "stop"
        if self.finish is None and len(self.tokens) == request.max_new_tokens:
            self.finish = "length"
        if self.finish is not None and stream is not None:
            stream.finish()


class Decoder:
    """Continues up to ``num_slots`` prompts at a time.

    Parameters
    ----------
    model
        Trained model in evaluation mode.
    tokenizer
        For the text of continuations and for stop texts.
    num_slots
        Texts at a time, at least 1.
    max_length
        Most tokens of a prompt and what is added, 2 to the model's ``max_length``, which is the
        default. Memory is taken for all slots at this length.
    prefill_tokens
        Most tokens of prompts per step, at least 1.

    Raises
    ------
    ValueError
        If a size is out of range.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer | None = None,
        *,
        num_slots: int,
        max_length: int | None = None,
        prefill_tokens: int = PREFILL_TOKENS,
    ) -> None:
        if prefill_tokens < 1:
            raise ValueError(f"prefill_tokens: expected at least 1, got {prefill_tokens}")
        longest = model.config.max_length
        if max_length is not None and not 2 <= max_length <= longest:
            raise ValueError(f"max_length: expected 2 to {longest}, got {max_length}")
        self.model = model
        self.tokenizer = tokenizer
        self.cache = model.new_cache(num_slots, max_length)
        self.prefill_tokens = prefill_tokens
        self._rows: list[Continuation] = []
        self._num_writing = 0

    @property
    def num_free(self) -> int:
        """Free slots."""
        return self.cache.batch - len(self._rows)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._rows

    def check(self, request: Request) -> None:
        """Refuse a request that the model or the cache cannot take.

        Raises
        ------
        ValueError
            If a token is not in the vocabulary, prompt and addition are too long, or stop texts
            are given without a tokenizer.
        """
        longest, num_prompt = self.cache.capacity, len(request.prompt)
        if num_prompt >= longest:
            raise ValueError(
                f"prompt: expected at most {longest - 1} tokens (max_length {longest}), "
                f"got {num_prompt}"
            )
        if num_prompt + request.max_new_tokens > longest:
            raise ValueError(
                f"max_new_tokens: expected at most {longest - num_prompt} "
                f"(max_length {longest}, prompt {num_prompt}), got {request.max_new_tokens}"
            )
        lowest, highest = min(request.prompt), max(request.prompt)
        vocab_size = self.model.config.vocab_size
        if lowest < 0 or highest >= vocab_size:
            raise ValueError(
                f"prompt: expected ids 0 to {vocab_size - 1}, got {lowest} to {highest}"
            )
        if request.stop_texts and self.tokenizer is None:
            raise ValueError("stop_texts: expected none without a tokenizer")

    def add(self, request: Request) -> Continuation:
        """Give a free slot to a request.

        Raises
        ------
        ValueError
            If it does not fit, see `check`, or no slot is free.
        """
        self.check(request)
        if not self.num_free:
            raise ValueError(f"num_slots: expected a free one of {self.cache.batch}, got none")
        one = Continuation(request, self.tokenizer)
        self.cache.clear(len(self._rows))
        self._rows.append(one)
        return one

    def remove(self, one: Continuation) -> None:
        """Free the slot of a text that nobody waits for."""
        row = self._rows.index(one)
        if row < self._num_writing:
            self._num_writing -= 1
            self._swap(row, self._num_writing)
            row = self._num_writing
        self._swap(row, len(self._rows) - 1)
        self._rows.pop()

    @torch.inference_mode()
    def step(self) -> list[Continuation]:
        """Add one token to every text that is being written, and read on in the prompts.

        Returns
        -------
        list
            Continuations that got a token; those with a `finish` have left their slots.
        """
        grown = self._write() if self._num_writing else []
        if len(self._rows) > len(grown):
            grown = grown + self._read()
        for one in grown:
            if one.finish is not None:
                self.remove(one)
        return grown

    def _write(self) -> list[Continuation]:
        """One pass over the newest tokens."""
        rows = self._rows[: self._num_writing]
        token_BT = torch.tensor([one.tokens[-1:] for one in rows], device=self._device)
        logits_BV = self.model(token_BT, self.cache.rows(0, len(rows)))[:, -1]
        _extend(rows, logits_BV)
        return rows

    def _read(self) -> list[Continuation]:
        """One pass over the next tokens of prompts; gives those that got their first token."""
        rows, width = self._next_prompts()
        first = self._num_writing
        pieces = [one.request.prompt[one.num_read : one.num_read + width] for one in rows]
        count = [len(piece) for piece in pieces]
        padded = [[*piece, *[0] * (width - len(piece))] for piece in pieces]
        token_BT = torch.tensor(padded, device=self._device)
        part = self.cache.rows(first, first + len(rows))
        logits_BV = self.model(token_BT, part, count, last_only=True)[:, -1]
        for one, num_new in zip(rows, count, strict=True):
            one.num_read += num_new
        done = [row for row, one in enumerate(rows) if not one.num_left]
        ready = [rows[row] for row in done]
        if ready:
            _extend(ready, logits_BV[done])
        for row in done:
            self._swap(first + row, self._num_writing)
            self._num_writing += 1
        return ready

    def _next_prompts(self) -> tuple[list[Continuation], int]:
        """Prompts of the next pass, and the tokens of the longest piece."""
        rows: list[Continuation] = []
        width = 0
        for one in self._rows[self._num_writing :]:
            wider = max(width, min(one.num_left, self.prefill_tokens))
            if rows and wider * (len(rows) + 1) > self.prefill_tokens:
                break
            rows.append(one)
            width = wider
        return rows, width

    def _swap(self, first: int, second: int) -> None:
        rows = self._rows
        rows[first], rows[second] = rows[second], rows[first]
        self.cache.swap(first, second)

    @property
    def _device(self) -> torch.device:
        return self.model.embed.weight.device


def _extend(rows: Sequence[Continuation], logits_BV: Tensor) -> None:
    tokens = choose_tokens(logits_BV, [one.sampler for one in rows])
    for one, token, logits_V in zip(rows, tokens, logits_BV, strict=True):
        one.extend(token, logits_V)
