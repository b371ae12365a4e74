"""Text from a language model, one token after the other.

The prompt goes through the model first (in pieces, which bounds the memory of long prompts);
after that each token costs one pass over a single position, because keys and values of all
earlier tokens are kept. Logits are the same as without the cache, and as without the other rows
of the batch, up to the order of additions. `weightwise.lm.decoder` does the work.
"""

# Shapes: B batch, T tokens

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from weightwise.lm.decoder import PREFILL_TOKENS, Continuation, Decoder, Request
from weightwise.lm.sampling import SamplingConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from weightwise.lm.model import LanguageModel
    from weightwise.lm.tokenizer import Tokenizer

MAX_BATCH = 32


def complete(
    model: LanguageModel,
    requests: Sequence[Request],
    *,
    tokenizer: Tokenizer | None = None,
    max_batch: int = MAX_BATCH,
    prefill_tokens: int = PREFILL_TOKENS,
    on_token: Callable[[int, Continuation], None] | None = None,
) -> list[Continuation]:
    """Continue prompts of any lengths, each with settings of its own.

    What a request gets does not depend on the others.

    Parameters
    ----------
    model
        Trained model; its training mode is restored afterwards.
    requests
        Prompts and settings.
    tokenizer
        For the text of the continuations and for stop texts.
    max_batch
        Most texts at a time; a text that ends makes room for the next one.
    prefill_tokens
        Most tokens of prompts per pass.
    on_token
        Called with the number of a request and its continuation after each token.

    Returns
    -------
    list
        Continuations, in the order of the requests.

    Raises
    ------
    ValueError
        If a size is out of range or a request does not fit the model; nothing is generated then.
    """
    if not requests:
        return []
    longest = max(len(request.prompt) + request.max_new_tokens for request in requests)
    with _evaluation_mode(model):
        decoder = Decoder(
            model,
            tokenizer,
            num_slots=min(max_batch, len(requests)),
            max_length=min(longest, model.config.max_length),
            prefill_tokens=prefill_tokens,
        )
        for request in requests:
            decoder.check(request)
        waiting = deque(requests)
        found: dict[Continuation, int] = {}
        while waiting or not decoder.is_idle:
            while waiting and decoder.has_room(waiting[0]):
                found[decoder.add(waiting.popleft())] = len(found)
            for one in decoder.step():
                if on_token is not None:
                    on_token(found[one], one)
    return list(found)


def generate(
    model: LanguageModel,
    token_BT: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    stop_token: int | None = None,
    prefill_chunk: int | None = None,
    on_token: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Continue every prompt of a batch whose prompts are equally long.

    `complete` takes prompts of any lengths and knows more settings.

    Parameters
    ----------
    model
        Trained model; its training mode is restored afterwards.
    token_BT
        Prompts of equal length, int64, at least one token each.
    max_new_tokens
        Most tokens to add, at least 1; prompt and addition must fit in ``max_length``.
    temperature, top_k, top_p
        See `weightwise.lm.sampling.SamplingConfig`.
    generator
        Source of the rows' own generators; needed unless the temperature is 0.
    stop_token
        Ends a row; rows that end before others are filled up with it.
    prefill_chunk
        Prompt tokens per pass, over all rows; all at once by default.
    on_token
        Called with the new tokens, shape (B,), as soon as they are known.

    Returns
    -------
    Tensor
        Prompts and what was added, shape (B, T + added).

    Raises
    ------
    ValueError
        If a setting is out of range or the text would exceed ``max_length``.
    """
    if token_BT.ndim != 2 or token_BT.shape[1] < 1:
        raise ValueError(
            f"token_BT: expected shape (batch, tokens) with at least 1 token, "
            f"got {tuple(token_BT.shape)}"
        )
    if prefill_chunk is not None and prefill_chunk < 1:
        raise ValueError(f"prefill_chunk: expected at least 1, got {prefill_chunk}")
    columns: list[Tensor] = []
    rows: dict[int, Continuation] = {}

    def keep(number: int, one: Continuation) -> None:
        rows[number] = one
        while (column := _next_column(rows, len(token_BT), len(columns), stop_token)) is not None:
            columns.append(torch.tensor(column, device=token_BT.device))
            if on_token is not None:
                on_token(columns[-1])

    complete(
        model,
        _requests(
            token_BT,
            max_new_tokens,
            SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p),
            generator,
            stop_token,
        ),
        max_batch=len(token_BT),
        prefill_tokens=prefill_chunk or token_BT.numel(),
        on_token=keep,
    )
    return torch.cat([token_BT, torch.stack(columns, dim=1)], dim=1)


def _requests(
    token_BT: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    generator: torch.Generator | None,
    stop_token: int | None,
) -> list[Request]:
    """One request per row, with a seed of its own."""
    seeds = [0] * len(token_BT)
    if sampling.temperature > 0:
        if generator is None:
            raise ValueError("generator: expected a torch.Generator for temperature > 0, got None")
        seeds = torch.randint(
            2**63 - 1, (len(token_BT),), generator=generator, device=generator.device
        ).tolist()
    return [
        Request(
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop_ids=frozenset() if stop_token is None else frozenset({stop_token}),
        )
        for prompt, seed in zip(token_BT.tolist(), seeds, strict=True)
    ]


def _next_column(
    rows: dict[int, Continuation], batch: int, index: int, stop_token: int | None
) -> list[int] | None:
    """Tokens that all rows have at a place, once those that have not ended have one."""
    if len(rows) < batch or all(len(one.tokens) <= index for one in rows.values()):
        return None
    column = []
    for number in range(batch):
        tokens = rows[number].tokens
        if index < len(tokens):
            column.append(tokens[index])
        elif rows[number].finish is not None and stop_token is not None:
            column.append(stop_token)
        else:
            return None
    return column


@contextmanager
def _evaluation_mode(model: LanguageModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
