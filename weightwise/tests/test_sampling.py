"""Choice of tokens: shares, penalties, transformers' filters, and rows that do not mix."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm.sampling import (
    CHAT_SAMPLING,
    Sampler,
    SamplingConfig,
    choose_tokens,
    score_token,
    tokens_at,
)

PROBABILITIES = [0.05, 0.5, 0.15, 0.3]


def sampler(config: SamplingConfig, seed: int = 0, prompt: list[int] | None = None) -> Sampler:
    return Sampler(config, torch.Generator().manual_seed(seed), prompt or [])


def shares(logits_V: torch.Tensor, config: SamplingConfig, count: int = 4000) -> torch.Tensor:
    """Share of each token over evenly spaced draws: off by less than K / count."""
    draw_B1 = (torch.arange(count, dtype=torch.float64)[:, None] + 0.5) / count
    tokens = tokens_at(logits_V.expand(count, -1), config, draw_B1)
    return torch.bincount(tokens, minlength=len(logits_V)) / count


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.05, 0.5, 0.15, 0.3]),
        ({"top_k": 2}, [0, 5 / 8, 0, 3 / 8]),
        ({"top_p": 0.79}, [0, 5 / 8, 0, 3 / 8]),
        ({"top_p": 0.81}, [0, 10 / 19, 3 / 19, 6 / 19]),
        ({"top_p": 0.4}, [0, 1, 0, 0]),
        ({"top_k": 9, "top_p": 1.0}, [0.05, 0.5, 0.15, 0.3]),
        # After k = 2 the rest is 0.625 and 0.375, so p = 0.6 keeps one.
        ({"top_k": 2, "top_p": 0.6}, [0, 1, 0, 0]),
        # 0.29 of 0.5 is 0.145, which 0.15 reaches.
        ({"min_p": 0.29}, [0, 10 / 19, 3 / 19, 6 / 19]),
        ({"min_p": 0.31}, [0, 5 / 8, 0, 3 / 8]),
        # Temperature 0.5 squares the odds: 1, 100, 9, 36 of 146.
        ({"temperature": 0.5}, [1 / 146, 100 / 146, 9 / 146, 36 / 146]),
        ({"temperature": 1e-30}, [0, 1, 0, 0]),
    ],
)
def test_shares_are_what_is_left_renormalised(settings, expected):
    """Of 0.5, 0.3, 0.15 and 0.05, worked out by hand."""
    got = shares(torch.tensor(PROBABILITIES).log(), SamplingConfig(**settings))
    torch.testing.assert_close(got, torch.tensor(expected, dtype=got.dtype), atol=1e-3, rtol=0)


def test_draws_come_from_the_generator():
    """4000 draws at 0.5: standard deviation 0.008, so within 0.04; the same seed repeats them."""
    logits_BV = torch.tensor([PROBABILITIES]).log().expand(4000, -1)
    first, again = ([sampler(SamplingConfig())] * 4000 for _ in range(2))
    tokens = choose_tokens(logits_BV, first)
    assert tokens == choose_tokens(logits_BV, again)
    counts = Counter(tokens)
    for token, probability in enumerate(PROBABILITIES):
        assert abs(counts[token] / 4000 - probability) < 0.04


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    temperature=st.floats(0.3, 2.0),
    top_k=st.none() | st.integers(1, 40),
    top_p=st.none() | st.floats(0.05, 1.0),
    min_p=st.none() | st.floats(0.0, 0.5),
)
def test_filters_are_those_of_transformers(seed, temperature, top_k, top_p, min_p):
    """Shares are the softmax of what transformers' filters leave, in their order."""
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits_V = torch.randn(40, generator=torch.Generator().manual_seed(seed)) * 2
    steps = [processors.TemperatureLogitsWarper(temperature)]
    if top_k is not None:
        steps.append(processors.TopKLogitsWarper(top_k))
    if top_p is not None and top_p < 1:
        steps.append(processors.TopPLogitsWarper(top_p))
    if min_p is not None:
        steps.append(processors.MinPLogitsWarper(min_p))
    scores_BV = logits_V[None]
    for step in steps:
        scores_BV = step(torch.zeros(1, 1, dtype=torch.int64), scores_BV)
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected_V = scores_BV[0].softmax(-1)
    got_V = shares(logits_V, config, 2000)
    torch.testing.assert_close(got_V, expected_V, atol=2e-3, rtol=0)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    penalty=st.floats(0.5, 2.0),
    prompt=st.lists(st.integers(0, 19), max_size=8),
    text=st.lists(st.integers(0, 19), max_size=8),
)
def test_repetition_penalty_is_that_of_transformers(seed, penalty, prompt, text):
    """Tokens of the prompt and of the text so far count once."""
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits_V = torch.randn(20, generator=torch.Generator().manual_seed(seed))
    one = sampler(SamplingConfig(repetition_penalty=penalty), prompt=prompt)
    one.penalize(logits_V)
    for token in text:
        one.record(token)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = processors.RepetitionPenaltyLogitsProcessor(penalty)
    seen = torch.tensor([[*prompt, *text]], dtype=torch.int64)
    expected_V = theirs(seen, logits_V[None].clone())[0] if seen.numel() else logits_V
    torch.testing.assert_close(one.penalize(logits_V), expected_V)


def test_presence_and_frequency_count_the_new_text_alone():
    """After 1, 1, 2: 1 loses 0.5 + 2 x 0.25, 2 loses 0.5 + 0.25, 3 of the prompt nothing."""
    one = sampler(SamplingConfig(presence_penalty=0.5, frequency_penalty=0.25), prompt=[3])
    logits_V = torch.zeros(4)
    one.penalize(logits_V)
    for token in (1, 1, 2):
        one.record(token)
    assert one.penalize(logits_V).tolist() == [0.0, -1.0, -0.75, 0.0]


def test_penalties_act_through_choose_tokens():
    """Greedy choice leaves a token once its penalty outweighs the lead of 1."""
    config = SamplingConfig(temperature=0, presence_penalty=1.5)
    logits_BV = torch.tensor([[3.0, 2.0, 0.0]])
    one = sampler(config)
    # 3, then 1.5 against 2; then 1.5 against 0.5.
    assert [choose_tokens(logits_BV, [one])[0] for _ in range(3)] == [0, 1, 0]


CONFIGS = st.builds(
    SamplingConfig,
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([None, 3]),
    top_p=st.sampled_from([None, 0.6]),
    min_p=st.sampled_from([None, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
)


@settings(max_examples=25, deadline=None)
@given(configs=st.lists(CONFIGS, min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_row_does_not_know_the_others(configs, seed):
    """Several steps of a mixed batch give each row what it gets alone."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(4, len(configs), 12, generator=generator)
    together = [sampler(config, row) for row, config in enumerate(configs)]
    got = [choose_tokens(logits_BV, together) for logits_BV in steps]
    for row, config in enumerate(configs):
        alone = sampler(config, row)
        expected = [choose_tokens(logits_BV[row : row + 1], [alone])[0] for logits_BV in steps]
        assert [tokens[row] for tokens in got] == expected


def test_scores_are_logarithms_of_the_softmax():
    """Before temperature and filters; the likeliest first."""
    score = score_token(torch.tensor(PROBABILITIES).log(), 2, 2)
    assert score.token == 2
    assert score.logprob == pytest.approx(torch.tensor(0.15).log().item())
    assert [token for token, _ in score.top] == [1, 3]
    assert [value for _, value in score.top] == pytest.approx([-0.693147, -1.203973], abs=1e-5)
    assert score_token(torch.zeros(3), 0, 20).top[0][1] == pytest.approx(-1.098612, abs=1e-5)


def test_logits_that_are_no_numbers_still_give_a_token():
    """A broken model must not stop the others in the batch."""
    logits_BV = torch.full((1, 5), torch.nan)
    for config in (SamplingConfig(), CHAT_SAMPLING, SamplingConfig(temperature=0)):
        assert 0 <= choose_tokens(logits_BV, [sampler(config)])[0] < 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -0.1}, r"temperature: expected 0 \(greedy\) or more, got -0.1"),
        ({"temperature": float("nan")}, "temperature: expected 0"),
        ({"temperature": float("inf")}, "temperature: expected 0"),
        ({"top_k": 0}, "top_k: expected at least 1, got 0"),
        ({"top_p": 0.0}, "top_p: expected above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p: expected above 0"),
        ({"min_p": 1.1}, "min_p: expected 0 to 1, got 1.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: expected above 0"),
        ({"presence_penalty": 2.5}, "presence_penalty: expected -2 to 2, got 2.5"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty: expected -2 to 2, got nan"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    """The message names the field and the range."""
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**setting)
