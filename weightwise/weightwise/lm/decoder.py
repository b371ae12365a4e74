"""Many texts at once: continuous batching.

A decoder has a number of slots, one row of the cache each. `Decoder.add` gives a free slot to a
prompt at any time, and `Decoder.step` makes one pass over the newest tokens of all texts that are
being written, then one over the next piece of the prompts that are still being read. The size of
that piece bounds how long the others wait for a long prompt. A text that ends frees its slot at
once.

Texts that are being written stand in the first rows of the cache, the prompts that are being read
behind them, free rows last, so that each pass works on neighbouring rows, whose keys need no
copying; rows change places when a text moves from one part to another.

What texts have in common at their beginning is read once. A free row keeps its text until the row
or its memory is wanted, so the next message of a conversation finds the earlier ones. Otherwise the
beginning is copied from a text that is there; and if that one is still being read, as when
several texts are asked for one prompt, the others wait for it. At least the last token of a prompt
is read, because the next one is chosen from what the model says there.
"""

# Shapes: B rows of a pass, T new tokens, V vocabulary

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from weightwise.lm.paged import PAGE_TOKENS, PagedCache
from weightwise.lm.sampling import (
    Sampler,
    SamplingConfig,
    TokenScore,
    choose_tokens,
    score_token,
)
from weightwise.lm.seats import Seats
from weightwise.lm.stream import TextStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from weightwise.lm.cache import Cache
    from weightwise.lm.model import LanguageModel
    from weightwise.lm.tokenizer import Tokenizer

PREFILL_TOKENS = 512
SHARED_TOKENS = 16
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
    logprob
        Sum of the log probabilities of all new tokens, a stop token included; 0 if not asked for.
    finish
        Why the text has ended: ``stop`` for a stop token or text, ``length`` for the most
        tokens; ``None`` while it goes on.
    num_shared
        Tokens of the prompt that were taken from another text.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer | None) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.scores: list[TokenScore] = []
        self.logprob = 0.0
        self.finish: Finish | None = None
        self.num_read = 0  # tokens of the prompt that are in the cache
        self.num_shared = 0
        self.source: tuple[Continuation, int] | None = None  # reads so many tokens for this one
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

    @property
    def num_held(self) -> int:
        """Tokens that are in the cache: of those that were added, all but the newest."""
        return self.num_read + max(len(self.tokens) - 1, 0)

    @property
    def held(self) -> list[int]:
        """Tokens that are in the cache."""
        return [*self.request.prompt, *self.tokens][: self.num_held]

    def extend(self, token: int, logits_V: Tensor) -> None:
        """Take the token that was chosen from these scores."""
        request, stream = self.request, self._stream
        self.tokens.append(token)
        if token in request.stop_ids:
            self.finish = "stop"
        if request.num_logprobs is not None:
            score = score_token(logits_V, token, request.num_logprobs)
            self.logprob += score.logprob
            self.scores += [] if self.finish else [score]
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
    cache_tokens
        Tokens that all texts hold together, at least ``max_length``. Memory is taken for so many,
        in pages, and a text is added when there are free ones for all of it.
    shared_tokens
        Fewest common tokens at the beginning of two texts that are read once; ``None`` reads all.

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
        cache_tokens: int | None = None,
        shared_tokens: int | None = SHARED_TOKENS,
    ) -> None:
        if prefill_tokens < 1:
            raise ValueError(f"prefill_tokens: expected at least 1, got {prefill_tokens}")
        longest = model.config.max_length
        if max_length is not None and not 2 <= max_length <= longest:
            raise ValueError(f"max_length: expected 2 to {longest}, got {max_length}")
        self.model = model
        self.tokenizer = tokenizer
        if shared_tokens is not None and shared_tokens < 1:
            raise ValueError(f"shared_tokens: expected at least 1 or None, got {shared_tokens}")
        self.cache = _new_cache(model, num_slots, max_length or longest, cache_tokens)
        self.prefill_tokens = prefill_tokens
        self._seats = Seats(self.cache, shared_tokens)

    @property
    def num_free(self) -> int:
        """Free slots."""
        return self.cache.batch - len(self._seats.rows)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._seats.rows

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

    def has_room(self, request: Request) -> bool:
        """Whether there is a free slot and memory for a request."""
        return self._seats.has_room(len(request.prompt) + request.max_new_tokens)

    def add(self, request: Request) -> Continuation:
        """Give a free slot to a request.

        Raises
        ------
        ValueError
            If it does not fit, see `check`, or there is no room now, see `has_room`.
        """
        self.check(request)
        if not self.num_free:
            raise ValueError(f"num_slots: expected a free one of {self.cache.batch}, got none")
        if not self.has_room(request):
            free = self.cache.free_tokens(len(self._seats.rows))
            raise ValueError(
                f"cache_tokens: expected {len(request.prompt) + request.max_new_tokens} free, "
                f"got {free}"
            )
        one = Continuation(request, self.tokenizer)
        self._seats.add(one)
        return one

    def remove(self, one: Continuation) -> None:
        """Free the slot of a text that nobody waits for."""
        self._seats.remove(one)

    @torch.inference_mode()
    def step(self) -> list[Continuation]:
        """Add one token to every text that is being written, and read on in the prompts.

        Returns
        -------
        list
            Continuations that got a token; those with a `finish` have left their slots.
        """
        grown = self._write() if self._seats.num_writing else []
        if len(self._seats.rows) > len(grown):
            grown = grown + self._read()
        for one in grown:
            if one.finish is not None:
                self.remove(one)
        return grown

    def _write(self) -> list[Continuation]:
        """One pass over the newest tokens."""
        rows = self._seats.rows[: self._seats.num_writing]
        token_BT = torch.tensor([one.tokens[-1:] for one in rows], device=self._device)
        logits_BV = self.model(token_BT, self.cache.rows(0, len(rows)))[:, -1]
        _extend(rows, logits_BV)
        return rows

    def _read(self) -> list[Continuation]:
        """One pass over the next tokens of prompts; gives those that got their first token."""
        rows, width = self._next_prompts()
        first = self._seats.num_writing
        pieces = [one.request.prompt[one.num_read : one.num_read + width] for one in rows]
        count = [len(piece) for piece in pieces]
        padded = [[*piece, *[0] * (width - len(piece))] for piece in pieces]
        token_BT = torch.tensor(padded, device=self._device)
        part = self.cache.rows(first, first + len(rows))
        logits_BV = self.model(token_BT, part, count, last_only=True)[:, -1]
        for one, num_new in zip(rows, count, strict=True):
            one.num_read += num_new
        self._seats.take_over()
        done = [row for row, one in enumerate(rows) if not one.num_left]
        ready = [rows[row] for row in done]
        if ready:
            _extend(ready, logits_BV[done])
        for row in done:
            self._seats.swap(first + row, self._seats.num_writing)
            self._seats.num_writing += 1
        return ready

    def _next_prompts(self) -> tuple[list[Continuation], int]:
        """Prompts of the next pass, in the first rows behind the texts; width of the longest."""
        rows: list[Continuation] = []
        width = 0
        for row in range(self._seats.num_writing, len(self._seats.rows)):
            one = self._seats.rows[row]
            if one.source is not None:
                continue
            wider = max(width, min(one.num_left, self.prefill_tokens))
            if rows and wider * (len(rows) + 1) > self.prefill_tokens:
                break
            self._seats.swap(row, self._seats.num_writing + len(rows))
            rows.append(one)
            width = wider
        return rows, width

    @property
    def _device(self) -> torch.device:
        return self.model.embed.weight.device


def _extend(rows: Sequence[Continuation], logits_BV: Tensor) -> None:
    tokens = choose_tokens(logits_BV, [one.sampler for one in rows])
    for one, token, logits_V in zip(rows, tokens, logits_BV, strict=True):
        one.extend(token, logits_V)


def _new_cache(
    model: LanguageModel, num_slots: int, max_length: int, cache_tokens: int | None
) -> Cache:
    """A stretch of memory for each slot, or pages for all of them together."""
    if cache_tokens is None:
        return model.new_cache(num_slots, max_length)
    if cache_tokens < max_length:
        raise ValueError(
            f"cache_tokens: expected at least max_length {max_length}, got {cache_tokens}"
        )
    page_tokens = min(PAGE_TOKENS, max_length)
    num_pages = -(-cache_tokens // page_tokens) + 1  # one of them is nobody's
    pool = model.new_cache(num_pages, page_tokens)
    return PagedCache(pool, batch=num_slots, capacity=max_length)
