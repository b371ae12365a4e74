"""Texts that begin alike are read once, in rows of their own and in pages."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig
from weightwise.lm.decoder import Continuation, Decoder, Request
from weightwise.lm.generate import complete
from weightwise.lm.latent.config import CodeConfig, LatentConfig
from weightwise.lm.sampling import SamplingConfig

CONFIG = ModelConfig(
    vocab_size=29,
    width=16,
    num_layers=2,
    max_length=96,
    attention=GQAConfig(num_heads=4, num_kv_heads=2, share_factor=2),
    ffn=SwiGLUConfig(hidden=24),
    # Large weights give logits that differ clearly, so that no two are nearly equal.
    init_std=0.4,
)
GREEDY = SamplingConfig(temperature=0)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    built = LanguageModel(CONFIG).eval()
    built.initialize(torch.Generator().manual_seed(0))
    return built


def ids(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 29, (length,), generator=generator).tolist()


def greedy(prompt: list[int], max_new_tokens: int = 4) -> Request:
    return Request(prompt=prompt, max_new_tokens=max_new_tokens, sampling=GREEDY)


def assert_greedy(model: LanguageModel, one: Continuation) -> None:
    """A finished text is the greedy one of its prompt."""
    prompt, tokens = one.request.prompt, one.tokens
    assert len(tokens) == one.request.max_new_tokens
    with torch.no_grad():
        best_T = model(torch.tensor([[*prompt, *tokens]]))[0].argmax(-1)
    assert tokens == best_T[len(prompt) - 1 : -1].tolist()


def run(decoder: Decoder, requests: list[Request]) -> tuple[list[Continuation], int]:
    """Finished texts of these requests, and the tokens that the model was given for them."""
    sizes: list[int] = []

    def count(_: object, arguments: tuple) -> None:
        num_new = arguments[2] if len(arguments) > 2 else [1] * len(arguments[0])
        sizes.append(sum(num_new))

    handle = decoder.model.register_forward_pre_hook(count)
    found = []
    waiting = list(requests)
    while waiting or not decoder.is_idle:
        while waiting and decoder.has_room(waiting[0]):
            found.append(decoder.add(waiting.pop(0)))
        decoder.step()
    handle.remove()
    return found, sum(sizes)


kinds = pytest.mark.parametrize("cache_tokens", [None, 400], ids=["rows", "pages"])


@kinds
def test_choices_of_a_prompt_read_it_once(model, cache_tokens):
    """40 tokens for five texts: 40 + 4 last ones are read, then 3 tokens for each are written."""
    decoder = Decoder(model, num_slots=5, prefill_tokens=16, cache_tokens=cache_tokens)
    request = greedy(ids(40, 0))
    texts, num_tokens = run(decoder, [request] * 5)
    assert num_tokens == 40 + 4 + 5 * 3
    assert [one.num_shared for one in texts] == [0, 39, 39, 39, 39]
    for one in texts:
        assert_greedy(model, one)


def test_sampled_choices_are_those_of_each_alone(model):
    """Seeds make different texts of one prompt, the same as without sharing."""
    requests = [Request(prompt=ids(40, 0), max_new_tokens=6, seed=seed) for seed in range(6)]
    alone = [complete(model, [request])[0].tokens for request in requests]
    assert [one.tokens for one in complete(model, requests)] == alone
    assert len({tuple(tokens) for tokens in alone}) > 1


@kinds
def test_conversation_goes_on_where_it_was(model, cache_tokens):
    """The second message begins with the first one and its answer: only what is new is read."""
    decoder = Decoder(model, num_slots=2, cache_tokens=cache_tokens)
    first = greedy(ids(30, 0), 5)
    other = greedy(ids(25, 1), 5)
    (answer, _), _ = run(decoder, [first, other])
    second = greedy([*first.prompt, *answer.tokens, *ids(7, 2)])
    (text,), num_tokens = run(decoder, [second])
    # 4 of the 5 tokens of the answer are in the cache.
    assert text.num_shared == 34
    assert num_tokens == 1 + 7 + 3
    assert_greedy(model, text)
    (again,), _ = run(decoder, [replace(other, max_new_tokens=3)])
    assert again.num_shared == 24


def test_prompt_that_begins_like_a_running_text_copies_it(model):
    """The text that is being written keeps its row; the new one takes 20 tokens from it."""
    decoder = Decoder(model, num_slots=2)
    long = decoder.add(greedy(ids(30, 0), 12))
    decoder.step()
    request = greedy([*ids(30, 0)[:20], *ids(5, 3)])
    texts, _ = run(decoder, [request])
    assert texts[0].num_shared == 20
    for one in (texts[0], long):
        assert_greedy(model, one)


@kinds
@pytest.mark.parametrize("num_steps", [0, 1, 2])
def test_text_that_goes_hands_over_what_it_has_read(model, cache_tokens, num_steps):
    """The one that others wait for is cancelled: one reads on for both, nothing is read twice."""
    decoder = Decoder(model, num_slots=3, prefill_tokens=16, cache_tokens=cache_tokens)
    first, *others = (decoder.add(greedy(ids(40, 0), 2)) for _ in range(3))
    for _ in range(num_steps):
        decoder.step()
    decoder.remove(first)
    _, num_tokens = run(decoder, [])
    assert num_tokens == (40 - 16 * num_steps) + 1 + 2
    for one in others:
        assert_greedy(model, one)


@kinds
@settings(max_examples=15, deadline=None)
@given(data=st.data(), slots=st.integers(1, 4), chunk=st.integers(1, 30))
def test_texts_that_begin_alike_are_those_of_each_alone(model, cache_tokens, data, slots, chunk):
    """Random arrivals and cancellations of prompts with common beginnings: all are right."""
    decoder = Decoder(
        model, num_slots=slots, prefill_tokens=chunk, cache_tokens=cache_tokens and 96,
        shared_tokens=1,
    )  # fmt: skip
    live: list[Continuation] = []
    done: list[Continuation] = []
    for _ in range(25):
        action = data.draw(st.sampled_from(["add", "add", "step", "step", "remove"]))
        stem = ids(30, data.draw(st.integers(0, 1)))
        prompt = [*stem[: data.draw(st.integers(0, 30))], *ids(data.draw(st.integers(1, 9)), 7)]
        request = greedy(prompt, data.draw(st.integers(1, 4)))
        if action == "add" and decoder.has_room(request):
            live.append(decoder.add(request))
        elif action == "remove" and live:
            decoder.remove(live.pop(data.draw(st.integers(0, len(live) - 1))))
        elif not decoder.is_idle:
            done += [one for one in decoder.step() if one.finish is not None]
            live = [one for one in live if one.finish is None]
    while not decoder.is_idle:
        done += [one for one in decoder.step() if one.finish is not None]
    for one in done:
        assert_greedy(model, one)


def test_pages_of_coded_latents_write_what_rows_write():
    """Two layers on one latent in int4: the same texts, bit for bit the same scores."""
    attention = LatentConfig(
        num_heads=4, share_factor=2, rope_width=4, codes=CodeConfig(group_width=16)
    )
    coded = LanguageModel(replace(CONFIG, attention=attention)).eval()
    coded.initialize(torch.Generator().manual_seed(0))
    requests = [
        Request(prompt=ids(40, number % 2), max_new_tokens=6, seed=number, num_logprobs=1)
        for number in range(5)
    ]
    found = []
    for cache_tokens in (None, 200):
        texts, _ = run(Decoder(coded, num_slots=3, cache_tokens=cache_tokens), requests)
        found.append([(one.tokens, one.scores) for one in texts])
    assert found[0] == found[1]


def test_request_waits_for_free_pages(model):
    """96 tokens for all: two texts of 40 tokens fit, the third comes when one has ended."""
    decoder = Decoder(model, num_slots=3, cache_tokens=128, max_length=96)
    requests = [greedy(ids(36, seed)) for seed in range(3)]
    for request in requests[:2]:
        decoder.add(request)
    assert decoder.num_free == 1
    assert not decoder.has_room(requests[2])
    with pytest.raises(ValueError, match="cache_tokens: expected 40 free, got 0"):
        decoder.add(requests[2])
    while not decoder.has_room(requests[2]):
        decoder.step()
    assert_greedy(model, run(decoder, requests[2:])[0][0])
    whole = Decoder(model, num_slots=3, max_length=96)
    assert decoder.cache.num_bytes < whole.cache.num_bytes * 0.6


def test_nothing_is_shared_where_nobody_asks(model):
    """Without sharing every text reads its prompt."""
    decoder = Decoder(model, num_slots=2, shared_tokens=None)
    texts, num_tokens = run(decoder, [greedy(ids(20, 0), 2)] * 2)
    assert num_tokens == 2 * 20 + 2
    assert [one.num_shared for one in texts] == [0, 0]
    with pytest.raises(ValueError, match="shared_tokens: expected at least 1 or None, got 0"):
        Decoder(model, num_slots=2, shared_tokens=0)
    with pytest.raises(ValueError, match="cache_tokens: expected at least max_length 96, got 95"):
        Decoder(model, num_slots=2, cache_tokens=95)
