"""Generation: cache against no cache, sampling rules, stops and limits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig, generate


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    config = ModelConfig(
        vocab_size=23,
        width=16,
        num_layers=2,
        max_length=40,
        attention=GQAConfig(num_heads=4, num_kv_heads=2),
        ffn=SwiGLUConfig(hidden=24),
        # Large weights give logits that differ clearly, so that no two are nearly equal.
        init_std=0.5,
    )
    built = LanguageModel(config)
    built.initialize(torch.Generator().manual_seed(0))
    return built


def prompt(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 23, (batch, length), generator=torch.Generator().manual_seed(seed))


def greedy_without_cache(model: LanguageModel, token_BT: torch.Tensor, count: int) -> torch.Tensor:
    for _ in range(count):
        with torch.no_grad():
            next_B = model(token_BT)[:, -1].argmax(-1)
        token_BT = torch.cat((token_BT, next_B[:, None]), dim=1)
    return token_BT


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 20),
    chunk=st.none() | st.integers(1, 21),
    seed=st.integers(0, 99),
)
def test_greedy_equals_recomputing_everything(model, batch, length, chunk, seed):
    """With cache and prefill in chunks, the tokens are those of full passes."""
    token_BT = prompt(batch, length, seed)
    got = generate(model, token_BT, max_new_tokens=20, temperature=0, prefill_chunk=chunk)
    assert torch.equal(got, greedy_without_cache(model, token_BT, 20))


def test_rows_of_a_batch_do_not_touch_each_other(model):
    """A batch of three greedy continuations equals three single ones."""
    token_BT = prompt(3, 6)
    together = generate(model, token_BT, max_new_tokens=12, temperature=0)
    for row in range(3):
        alone = generate(model, token_BT[row : row + 1], max_new_tokens=12, temperature=0)
        assert torch.equal(together[row], alone[0])


def test_a_row_does_not_depend_on_how_prompts_are_read(model):
    """Sampled text is the same with prompts read at once, and six tokens at a time."""
    texts = [
        generate(
            model,
            prompt(3, 9),
            max_new_tokens=20,
            generator=torch.Generator().manual_seed(1),
            prefill_chunk=chunk,
        )
        for chunk in (None, 6)
    ]
    assert torch.equal(*texts)


def test_sampling_repeats_with_the_same_seed(model):
    """Same generator state, same text; another seed, another text."""
    texts = [
        generate(
            model,
            prompt(2, 4),
            max_new_tokens=30,
            temperature=2.0,
            top_k=10,
            top_p=0.95,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (5, 5, 6)
    ]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_stop_token_ends_rows_and_fills_them_up(model):
    """Stop on the token that row 0 emits third: row 0 is filled up, the text may end early."""
    token_BT = prompt(2, 5)
    free = generate(model, token_BT, max_new_tokens=15, temperature=0)[:, 5:]
    stop = int(free[0, 2])
    seen: list[torch.Tensor] = []
    got = generate(
        model, token_BT, max_new_tokens=15, temperature=0, stop_token=stop, on_token=seen.append
    )[:, 5:]
    for row in range(2):
        hits = (free[row] == stop).nonzero().flatten().tolist()
        end = hits[0] + 1 if hits else 15
        assert torch.equal(got[row, :end], free[row, :end])
        assert (got[row, end:] == stop).all()
    assert torch.equal(torch.stack(seen, dim=1), got)


def test_generation_stops_when_every_row_has(model):
    """One row that emits the stop token at once gives one new token."""
    first = int(generate(model, prompt(1, 5), max_new_tokens=1, temperature=0)[0, -1])
    got = generate(model, prompt(1, 5), max_new_tokens=30, temperature=0, stop_token=first)
    assert got.shape == (1, 6)


def test_exactly_max_length_fits_and_one_more_does_not(model):
    """Prompt 30 and 10 new tokens fill 40; 11 do not fit."""
    got = generate(model, prompt(1, 30), max_new_tokens=10, temperature=0)
    assert torch.equal(got, greedy_without_cache(model, prompt(1, 30), 10))
    with pytest.raises(ValueError, match=r"at most 10 \(max_length 40, prompt 30\), got 11"):
        generate(model, prompt(1, 30), max_new_tokens=11, temperature=0)


def test_training_mode_is_restored(model):
    """A model in training stays in training, also after an error."""
    model.train()
    generate(model, prompt(1, 3), max_new_tokens=1, temperature=0)
    assert model.training
    model.eval()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: expected at least 1, got 0"),
        ({"temperature": -1.0}, "temperature: expected 0"),
        ({"temperature": float("nan")}, "temperature: expected 0"),
        ({"temperature": 1.0}, "generator: expected a torch.Generator"),
        ({"top_k": 0}, "top_k: expected at least 1, got 0"),
        ({"top_p": 0.0}, "top_p: expected above 0"),
        ({"top_p": 1.5}, "top_p: expected above 0"),
        ({"prefill_chunk": 0}, "prefill_chunk: expected at least 1, got 0"),
        ({"token_BT": torch.zeros(1, 0, dtype=torch.int64)}, "at least 1 token"),
        ({"token_BT": torch.tensor([[3, 23]])}, "ids 0 to 22, got 3 to 23"),
    ],
)
def test_bad_arguments_are_named(model, arguments, message):
    """Every refusal names the argument and the range."""
    base = {"token_BT": prompt(1, 3), "max_new_tokens": 2, "temperature": 0.0}
    with pytest.raises(ValueError, match=message):
        generate(model, **(base | arguments))
