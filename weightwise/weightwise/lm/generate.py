"""Text from a language model, one token after the other.

The prompt goes through the model once (or in chunks, which bounds the memory of long prompts);
after that each token costs one pass over a single position, because keys and values of all
earlier tokens are kept. Logits are the same as without the cache up to the order of additions.
"""

# Shapes: B batch, T tokens, V vocabulary

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from weightwise.lm.cache import Cache
    from weightwise.lm.model import LanguageModel


def choose_tokens(
    logits_BV: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Pick one token per row.

    Parameters
    ----------
    logits_BV
        Scores of the next token.
    temperature
        0 takes the best token (the first of equals); otherwise logits are divided by it.
    top_k
        Keep the ``top_k`` best tokens, and those equal to the last of them.
    top_p
        Keep the smallest set of best tokens whose probability reaches ``top_p``
        (Holtzman et al., arXiv 1904.09751). Applied after ``top_k``.
    generator
        Source of randomness; needed unless the temperature is 0.

    Returns
    -------
    Tensor
        Token ids, shape (B,).
    """
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    logits_BV = logits_BV.float() / temperature
    if top_k is not None and top_k < logits_BV.shape[-1]:
        worst_kept = logits_BV.topk(top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < worst_kept, -torch.inf)
    prob_BV = logits_BV.softmax(dim=-1)
    if top_p is not None and top_p < 1:
        sorted_BV, order_BV = prob_BV.sort(dim=-1, descending=True, stable=True)
        # A token stays if those before it do not reach top_p yet; so the first always stays.
        keep_BV = sorted_BV.cumsum(dim=-1) - sorted_BV < top_p
        prob_BV = torch.zeros_like(prob_BV).scatter(-1, order_BV, sorted_BV * keep_BV)
    return torch.multinomial(prob_BV, 1, generator=generator).squeeze(-1)


@torch.inference_mode()
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
    """Continue every prompt of a batch.

    Parameters
    ----------
    model
        Trained model; its training mode is restored afterwards.
    token_BT
        Prompts of equal length, int64, at least one token each.
    max_new_tokens
        Most tokens to add, at least 1; prompt and addition must fit in ``max_length``.
    temperature, top_k, top_p, generator
        See `choose_tokens`.
    stop_token
        Ends a row; rows that end before others are filled up with it.
    prefill_chunk
        Prompt tokens per pass; all at once by default.
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
    _check(model, token_BT, max_new_tokens=max_new_tokens, prefill_chunk=prefill_chunk)
    _check_sampling(temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
    batch, num_prompt = token_BT.shape
    is_done_B = torch.zeros(batch, dtype=torch.bool, device=token_BT.device)
    pieces = [token_BT]
    with _evaluation_mode(model):
        # The last token is never fed back, so its keys need no room.
        cache = model.new_cache(batch, max(num_prompt, num_prompt + max_new_tokens - 1))
        logits_BV = _prefill(model, token_BT, cache, prefill_chunk)
        for index in range(max_new_tokens):
            if index:
                logits_BV = model(pieces[-1], cache)[:, -1]
            next_B = choose_tokens(
                logits_BV,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                generator=generator,
            )
            if stop_token is not None:
                next_B = next_B.masked_fill(is_done_B, stop_token)
                is_done_B |= next_B == stop_token
            pieces.append(next_B[:, None])
            if on_token is not None:
                on_token(next_B)
            if stop_token is not None and bool(is_done_B.all()):
                break
    return torch.cat(pieces, dim=1)


def _prefill(model: LanguageModel, token_BT: Tensor, cache: Cache, chunk: int | None) -> Tensor:
    last_BV = token_BT.new_empty(0)
    for piece_BT in token_BT.split(chunk or token_BT.shape[1], dim=1):
        last_BV = model(piece_BT, cache)[:, -1]
    return last_BV


@contextmanager
def _evaluation_mode(model: LanguageModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _check(
    model: LanguageModel, token_BT: Tensor, *, max_new_tokens: int, prefill_chunk: int | None
) -> None:
    if token_BT.ndim != 2 or token_BT.shape[1] < 1:
        raise ValueError(
            f"token_BT: expected shape (batch, tokens) with at least 1 token, "
            f"got {tuple(token_BT.shape)}"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens: expected at least 1, got {max_new_tokens}")
    if prefill_chunk is not None and prefill_chunk < 1:
        raise ValueError(f"prefill_chunk: expected at least 1, got {prefill_chunk}")
    longest, num_prompt = model.config.max_length, token_BT.shape[1]
    if num_prompt + max_new_tokens > longest:
        raise ValueError(
            f"max_new_tokens: expected at most {longest - num_prompt} "
            f"(max_length {longest}, prompt {num_prompt}), got {max_new_tokens}"
        )
    lowest, highest = int(token_BT.min()), int(token_BT.max())
    if lowest < 0 or highest >= model.config.vocab_size:
        raise ValueError(
            f"token_BT: expected ids 0 to {model.config.vocab_size - 1}, got {lowest} to {highest}"
        )


def _check_sampling(
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> None:
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature: expected 0 (greedy) or more, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: expected at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected above 0 and at most 1, got {top_p}")
    if temperature > 0 and generator is None:
        raise ValueError("generator: expected a torch.Generator for temperature > 0, got None")
