"""Beam search against all continuations there are, and against transformers."""

from __future__ import annotations

import warnings
from itertools import product

import pytest
import torch

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig
from weightwise.lm.beams import beam_search
from weightwise.lm.latent.config import LatentConfig
from weightwise.lm.paged import PagedCache

STOP = 3


def build(attention, vocab_size: int = 4) -> LanguageModel:
    config = ModelConfig(
        vocab_size=vocab_size,
        width=16,
        num_layers=2,
        max_length=32,
        attention=attention,
        ffn=SwiGLUConfig(hidden=24),
        # Large weights give logits that differ clearly, so that no two are nearly equal.
        init_std=0.4,
    )
    model = LanguageModel(config).eval()
    model.initialize(torch.Generator().manual_seed(0))
    return model


MODELS = {
    "grouped": build(GQAConfig(num_heads=4, num_kv_heads=2)),
    "latent": build(LatentConfig(num_heads=4, share_factor=2, rope_width=4)),
}


def all_continuations(model: LanguageModel, prompt: list[int], length: int, penalty: float):
    """Every text of up to so many tokens that ends with the stop token or is that long."""
    found = {}
    for tokens in product(range(4), repeat=length):
        end = tokens.index(STOP) + 1 if STOP in tokens else length
        found[tokens[:end]] = None
    scores = {}
    with torch.no_grad():
        for text in found:
            logprob_TV = model(torch.tensor([[*prompt, *text]]))[0].log_softmax(-1)
            first = len(prompt) - 1
            total = sum(float(logprob_TV[first + i, token]) for i, token in enumerate(text))
            scores[text] = total / len(text) ** penalty
    return sorted(scores.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0])
def test_wide_search_finds_the_best_of_all(model, penalty):
    """27 beams hold every open text of three tokens out of {0, 1, 2}: nothing can be missed."""
    prompt = [1, 2, 0, 2]
    wanted = all_continuations(model, prompt, 4, penalty)
    got = beam_search(
        model, prompt, num_beams=27, max_new_tokens=4, stop_ids={STOP}, length_penalty=penalty
    )
    assert [beam.tokens for beam in got[:5]] == [text for text, _ in wanted[:5]]
    for beam, (_, score) in zip(got[:5], wanted, strict=False):
        assert beam.score == pytest.approx(score, abs=1e-4)


def test_one_beam_is_greedy():
    """The likeliest token each time, until the text is long enough."""
    model, tokens = MODELS["grouped"], [1, 2]
    (beam,) = beam_search(model, tokens, num_beams=1, max_new_tokens=6)
    for token in beam.tokens:
        with torch.no_grad():
            assert token == int(model(torch.tensor([tokens]))[0, -1].argmax())
        tokens.append(token)
    assert len(beam.tokens) == 6


def test_texts_are_those_of_transformers():
    """Four beams with the weights in a Llama model: the same two best texts."""
    transformers = pytest.importorskip("transformers")
    model = build(GQAConfig(num_heads=4, num_kv_heads=2), vocab_size=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=40,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=32,
                rms_norm_eps=1e-5,
                tie_word_embeddings=True,
                eos_token_id=STOP,
                pad_token_id=0,
            )
        ).eval()
    names = {
        "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj", "attention.output": "self_attn.o_proj",
        "ffn.gate": "mlp.gate_proj", "ffn.up": "mlp.up_proj", "ffn.down": "mlp.down_proj",
    }  # fmt: skip
    state = model.state_dict()
    copied = {
        "model.embed_tokens.weight": state["embed.weight"],
        "model.norm.weight": state["norm.weight"],
    }
    for layer in range(2):
        for ours, other in names.items():
            weight = state[f"blocks.{layer}.{ours}.weight"]
            copied[f"model.layers.{layer}.{other}.weight"] = weight
    theirs.load_state_dict(copied, strict=False)
    prompt = [5, 17, 8, 30]
    wanted = theirs.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, 4, dtype=torch.int64),
        num_beams=4,
        num_return_sequences=2,
        max_new_tokens=8,
        do_sample=False,
    )[:, 4:].tolist()
    got = beam_search(model, prompt, num_beams=4, max_new_tokens=8, stop_ids={STOP})
    for beam, row in zip(got[:2], wanted, strict=True):
        end = row.index(STOP) + 1 if STOP in row else len(row)
        assert list(beam.tokens) == row[:end]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("page_tokens", [1, 3, 8])
def test_beams_may_stand_in_pages(monkeypatch, model, page_tokens):
    """Rows of pages that follow their texts, sharing whole pages, give the same texts and scores.

    Five beams of 4 + 7 tokens need 55 pages of one token at most, and so do fewer, longer pages.
    """
    settings = {"num_beams": 5, "max_new_tokens": 7, "stop_ids": {STOP}}
    prompt = [1, 2, 0, 2]
    wanted = beam_search(model, prompt, **settings)
    made = []

    class Pages:
        """Stands for the cache of the prompt until its rows are copied."""

        def __init__(self, capacity: int) -> None:
            pool = new_cache(5 * -(-capacity // page_tokens) + 1, page_tokens)
            self.paged = PagedCache(pool, batch=5, capacity=capacity)
            for row in range(5):
                assert self.paged.reserve(row, capacity)
            made.append(self.paged)

        def __getattr__(self, name: str):
            return getattr(self.paged.rows(0, 1), name)

        def repeat(self, times: int) -> PagedCache:
            assert times == 5
            self.paged.reorder(torch.zeros(5, dtype=torch.int64))
            return self.paged

    new_cache = model.new_cache
    monkeypatch.setattr(model, "new_cache", lambda _, capacity: Pages(capacity))
    got = beam_search(model, prompt, **settings)
    assert [beam.tokens for beam in got] == [beam.tokens for beam in wanted]
    assert [beam.score for beam in got] == pytest.approx([beam.score for beam in wanted], abs=1e-5)
    assert made[0].length >= 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_beams": 0}, "num_beams: expected at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected at least 1, got 0"),
        ({"prompt": []}, "prompt: expected at least 1 token, got none"),
        ({"max_new_tokens": 31}, "capacity: expected 1 to max_length 32, got 33"),
    ],
)
def test_sizes_are_checked(change, message):
    """The message names the size and its range."""
    settings = {"prompt": [1, 2], "num_beams": 2, "max_new_tokens": 3} | change
    with pytest.raises(ValueError, match=message):
        beam_search(MODELS["grouped"], settings.pop("prompt"), **settings)
