"""Many texts at once: rows of unequal length, slots that change hands, prompts read in pieces."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.lm.decoder import Continuation, Decoder, Request
from weightwise.lm.generate import complete
from weightwise.lm.latent.config import CodeConfig, LatentConfig
from weightwise.lm.sampling import CHAT_SAMPLING, SamplingConfig

DENSE = ModelConfig(
    vocab_size=29,
    width=16,
    num_layers=2,
    max_length=40,
    attention=GQAConfig(num_heads=4, num_kv_heads=2),
    ffn=SwiGLUConfig(hidden=24),
    # Large weights give logits that differ clearly, so that no two are nearly equal.
    init_std=0.4,
)
# Layers that share keys, norms on them, experts: all that Hunyuan-Large has.
MIXTURE = replace(
    DENSE,
    num_layers=4,
    attention=GQAConfig(num_heads=4, num_kv_heads=2, qk_norm=True, share_factor=2),
    ffn=MoEConfig(hidden=12, num_experts=4, top_k=2),
)
# One latent for two layers, plain and in codes.
LATENT = replace(
    DENSE, num_layers=4, attention=LatentConfig(num_heads=4, share_factor=2, rope_width=4)
)
CODED = replace(
    LATENT, attention=replace(LATENT.attention, codes=CodeConfig(bits=8, group_width=16))
)
GREEDY = SamplingConfig(temperature=0)
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def build(config: ModelConfig) -> LanguageModel:
    model = LanguageModel(config).eval()
    model.initialize(torch.Generator().manual_seed(0))
    return model


MODELS = {"dense": build(DENSE), "mixture": build(MIXTURE), "latent": build(LATENT)}
# The order of additions may move a number to another code, so scores of coded latents are as
# close as codes are, and only what is likeliest is the same.
WITH_CODES = MODELS | {"coded": build(CODED)}
all_models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
all_and_coded = pytest.mark.parametrize("model", WITH_CODES.values(), ids=WITH_CODES)


def ids(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 29, (length,), generator=generator).tolist()


def padded(rows: list[list[int]], filler: int = 0) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def greedy_alone(model: LanguageModel, prompt: list[int], count: int) -> list[int]:
    """Greedy text without cache, batch or decoder."""
    tokens = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.slow
@all_models
@settings(max_examples=25, deadline=None)
@given(first=lengths, data=st.data())
def test_unequal_rows_score_as_each_alone(model, first, data):
    """Three passes with other lengths in each row: logits are those of one row in one pass."""
    batch = len(first)
    # Few queries and many take the products over latents in another order.
    atol = 1e-4 if isinstance(model.config.attention, LatentConfig) else 1e-5
    passes = [first] + [
        data.draw(st.lists(st.integers(1, 12), min_size=batch, max_size=batch)) for _ in range(2)
    ]
    rows = [ids(sum(counts), seed) for seed, counts in enumerate(zip(*passes, strict=True))]
    cache = model.new_cache(batch)
    taken = [0] * batch
    for counts in passes:
        pieces = [row[n : n + c] for row, n, c in zip(rows, taken, counts, strict=True)]
        with torch.no_grad():
            got = model(padded(pieces), cache, counts)
        for row, (tokens, start, count) in enumerate(zip(rows, taken, counts, strict=True)):
            with torch.no_grad():
                alone = model(torch.tensor([tokens]))[0, start : start + count]
            torch.testing.assert_close(got[row, :count], alone, atol=atol, rtol=0)
        taken = [n + c for n, c in zip(taken, counts, strict=True)]
    assert cache.length_B.tolist() == taken


@all_models
def test_padding_has_no_influence(model):
    """Other padding, the same logits; the last ones are those that last_only gives."""
    rows = [ids(3, 1), ids(9, 2), ids(1, 3)]
    count = [3, 9, 1]
    with torch.no_grad():
        first, second = (model(padded(rows, filler), None, count) for filler in (0, 17))
        last = model(padded(rows), None, count, last_only=True)
    for row, length in enumerate(count):
        torch.testing.assert_close(first[row, :length], second[row, :length], atol=1e-5, rtol=0)
        torch.testing.assert_close(last[row, 0], first[row, length - 1], atol=1e-5, rtol=0)


def test_rows_of_a_cache_swap_clear_and_share_memory():
    """After a swap each text goes on in its new row; a cleared row holds nothing of before."""
    model = MODELS["mixture"]
    texts = [ids(5, 1), ids(8, 2), ids(3, 3)]
    cache = model.new_cache(3, 16)
    with torch.no_grad():
        for row, text in enumerate(texts):
            model(torch.tensor([text]), cache.rows(row, row + 1))
        assert cache.length_B.tolist() == [5, 8, 3]
        cache.swap(0, 2)
        assert cache.length_B.tolist() == [3, 8, 5]
        got = model(torch.tensor([[4], [5], [6]]), cache)
        for row, (text, new) in enumerate(zip(texts[::-1], (4, 5, 6), strict=True)):
            alone = model(torch.tensor([[*text, new]]))[0, -1]
            torch.testing.assert_close(got[row, 0], alone, atol=1e-5, rtol=0)
        for layer in cache.layers:
            if layer is not None:
                layer.stores["value"].memory[1, :, :9] = torch.nan
        cache.clear(1)
        again = model(torch.tensor([[4], [5], [6]]), cache)
    assert again.isfinite().all()
    with pytest.raises(ValueError, match="rows: expected some of 0 to 3, got 2 to 4"):
        cache.rows(2, 4)


@pytest.mark.slow
@all_and_coded
@settings(max_examples=15, deadline=None)
@given(data=st.data(), slots=st.integers(1, 4), chunk=st.integers(1, 30))
def test_texts_that_come_and_go_are_those_of_each_alone(model, data, slots, chunk):
    """Random arrivals and cancellations: every finished text is the greedy one of its prompt."""
    decoder = Decoder(model, num_slots=slots, prefill_tokens=chunk)
    live: list[Continuation] = []
    done: list[Continuation] = []
    for number in range(25):
        action = data.draw(st.sampled_from(["add", "step", "step", "remove"]))
        if action == "add" and decoder.num_free:
            length, count = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 6))
            request = Request(prompt=ids(length, number), max_new_tokens=count, sampling=GREEDY)
            live.append(decoder.add(request))
        elif action == "remove" and live:
            decoder.remove(live.pop(data.draw(st.integers(0, len(live) - 1))))
        else:
            done += [one for one in decoder.step() if one.finish is not None]
            live = [one for one in live if one.finish is None]
    while not decoder.is_idle:
        done += [one for one in decoder.step() if one.finish is not None]
    assert decoder.num_free == slots
    for one in done:
        assert one.finish == "length"
        request = one.request
        assert one.tokens == greedy_alone(model, request.prompt, request.max_new_tokens)


@all_and_coded
def test_sampled_text_does_not_depend_on_the_batch(model):
    """Twelve requests with other settings and seeds: together, in threes, and one by one."""
    configs = [CHAT_SAMPLING, SamplingConfig(), SamplingConfig(min_p=0.05, top_p=0.9), GREEDY]
    requests = [
        Request(
            prompt=ids(1 + 5 * i % 17, i),
            max_new_tokens=4 + i,
            sampling=configs[i % 4],
            seed=i // 4,
        )
        for i in range(12)
    ]
    alone = [complete(model, [request])[0].tokens for request in requests]
    for max_batch, chunk in ((12, 512), (3, 4)):
        together = complete(model, requests, max_batch=max_batch, prefill_tokens=chunk)
        assert [one.tokens for one in together] == alone
    other = complete(model, [replace(requests[1], seed=77)])[0].tokens
    assert other != alone[1]


def test_long_prompt_does_not_stop_the_others():
    """With 4 prompt tokens a step, a text gets a token in each of the 8 steps of 30 tokens."""
    decoder = Decoder(MODELS["dense"], num_slots=2, prefill_tokens=4)
    short = decoder.add(Request(prompt=ids(2, 0), max_new_tokens=20))
    decoder.step()
    long = decoder.add(Request(prompt=ids(30, 1), max_new_tokens=1))
    for number in range(8):
        assert not long.tokens
        decoder.step()
        assert len(short.tokens) == 2 + number
    assert long.finish == "length"


def test_stop_tokens_end_a_text_and_free_its_slot():
    """The stop token is the last token; without one the text goes on to its full length."""
    model = MODELS["dense"]
    free = greedy_alone(model, ids(4, 5), 12)
    stop = free[5]
    request = Request(
        prompt=ids(4, 5),
        max_new_tokens=12,
        sampling=GREEDY,
        stop_ids=frozenset({stop, 28}),
        num_logprobs=0,
    )
    one = complete(model, [request])[0]
    end = next(i for i, token in enumerate(free) if token in (stop, 28))
    assert (one.tokens, one.finish) == (free[: end + 1], "stop")
    assert len(one.scores) == end
    assert complete(model, []) == []


def test_scores_are_those_of_a_full_pass():
    """Log probabilities of the chosen and of the two likeliest tokens, settings left out."""
    model = MODELS["mixture"]
    request = Request(prompt=ids(6, 2), max_new_tokens=5, sampling=CHAT_SAMPLING, num_logprobs=2)
    one = complete(model, [request, request])[1]
    with torch.no_grad():
        logprob_TV = model(torch.tensor([[*request.prompt, *one.tokens]]))[0].log_softmax(-1)
    for i, score in enumerate(one.scores):
        row_V = logprob_TV[len(request.prompt) - 1 + i]
        assert score.token == one.tokens[i]
        assert score.logprob == pytest.approx(row_V[score.token].item(), abs=1e-4)
        assert [token for token, _ in score.top] == row_V.topk(2).indices.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": []}, "prompt: expected at least 1 token, got none"),
        ({"prompt": [3] * 40}, r"prompt: expected at most 39 tokens \(max_length 40\), got 40"),
        ({"prompt": [1, 29]}, "prompt: expected ids 0 to 28, got 1 to 29"),
        ({"prompt": [-1]}, "got -1 to -1"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected at least 1, got 0"),
        ({"max_new_tokens": 39}, r"at most 38 \(max_length 40, prompt 2\), got 39"),
        ({"seed": 2**63}, r"seed: expected -2\^63 to 2\^63 - 1, got 9223372036854775808"),
        ({"stop_texts": ("",)}, "stop: expected texts of at least 1 character"),
        ({"stop_texts": ("x",)}, "stop_texts: expected none without a tokenizer"),
        ({"num_logprobs": 21}, "logprobs: expected 0 to 20, got 21"),
    ],
)
def test_requests_that_do_not_fit_are_refused(change, message):
    """The message names the field and the range."""
    decoder = Decoder(MODELS["dense"], num_slots=1)
    settings = {"prompt": [1, 2], "max_new_tokens": 3} | change
    with pytest.raises(ValueError, match=message):
        decoder.add(Request(**settings))
    assert decoder.is_idle


def test_slots_are_limited():
    """A third text for two slots is refused; none at all is no decoder."""
    decoder = Decoder(MODELS["dense"], num_slots=2)
    request = Request(prompt=[1], max_new_tokens=2)
    first, _ = decoder.add(request), decoder.add(request)
    with pytest.raises(ValueError, match="num_slots: expected a free one of 2, got none"):
        decoder.add(request)
    decoder.remove(first)
    decoder.add(request)
    with pytest.raises(ValueError, match="prefill_tokens: expected at least 1, got 0"):
        Decoder(MODELS["dense"], num_slots=1, prefill_tokens=0)


@pytest.mark.parametrize("count", [[3, 2], [3, 0, 2], [2, 2, 2], [4, 3, 3]])
def test_counts_of_padded_rows_are_checked(count):
    """Three rows of three tokens: one to three each, three in the longest."""
    with pytest.raises(ValueError, match="count: expected 1 to 3 for each of 3 rows"):
        MODELS["dense"](torch.zeros(3, 3, dtype=torch.int64), None, count)
