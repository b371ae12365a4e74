"""Chats as samples: reading, masks, packing, and that packed samples do not see each other."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig, train_tokenizer
from weightwise.lm.chat import ChatTemplate, Message
from weightwise.lm.post.sft import Sample, collate, encode_chat, fit, pack, read_chats, sft_loss

CONFIG = ModelConfig(
    vocab_size=300,
    width=32,
    num_layers=3,
    max_length=64,
    attention=GQAConfig(num_heads=4, num_kv_heads=2, qk_norm=True, share_factor=2),
    ffn=MoEConfig(hidden=16, num_experts=4, overflow="recycle"),
    init_std=0.2,
)


@pytest.fixture(scope="module")
def template():
    """A chat format over a small vocabulary."""
    return ChatTemplate(train_tokenizer(["a b c d"], 300, chat_tokens=True))


def model_of(config):
    """A model with fixed weights, in evaluation."""
    model = LanguageModel(config)
    model.initialize(torch.Generator().manual_seed(5))
    return model.eval()


def samples_of(*lengths):
    """Samples of so many targets, of which the later half is learnt."""
    draw = np.random.default_rng(3)
    return [
        Sample(ids=draw.integers(0, 300, n + 1), is_learnt=np.arange(n + 1) > n // 2)
        for n in lengths
    ]


def write(tmp_path, *lines):
    """A file of these lines."""
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b"".join(line.encode("utf-8", "surrogatepass") + b"\n" for line in lines))
    return path


def test_learnt_are_answers_and_the_mark_before_them(template):
    """From an answered question's end to the end of the answer; nothing else is a target."""
    said = [("system", "s"), ("user", "q"), ("assistant", "yes"), ("user", "r"), ("assistant", "n")]
    messages = [Message(role=role, content=text) for role, text in said]
    sample = encode_chat(template, messages)
    special = template._tokenizer.special_tokens
    wanted = [False] * len(sample.ids)
    start = None
    for place, token in enumerate(sample.ids):
        if token == special["<|extra_0|>"]:
            start = place
        if start is not None:
            wanted[place] = True
        if token == special["<|eos|>"]:
            start = None
    assert list(sample.is_learnt) == wanted
    assert sample.num_targets == len("yes") + len("n") + 4


def test_targets_of_a_batch_are_the_learnt_ids_one_further(template):
    """Inputs, targets and segments of two samples in a row and one alone, by hand."""
    a = Sample(ids=[1, 2, 3], is_learnt=[False, True, True])
    b = Sample(ids=[4, 5, 6, 7], is_learnt=[False, False, False, True])
    batch = collate([[a, b], [a]])
    assert batch.tokens.tolist() == [[1, 2, 4, 5, 6], [1, 2, 1, 2, 1]]
    assert batch.targets.tolist() == [[2, 3, -100, -100, 7], [2, 3, -100, -100, -100]]
    assert batch.segments.tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]


@given(
    capacity=st.integers(1, 40),
    data=st.data(),
)
def test_packing_loses_nothing_and_keeps_to_capacity(capacity, data):
    """Each sample once, no sequence too long, longest first, and first fit indeed."""
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=60))
    packs = pack(lengths, capacity)
    assert sorted(n for members in packs for n in members) == list(range(len(lengths)))
    assert all(sum(lengths[n] for n in members) <= capacity for members in packs)
    for members in packs:
        order = [(-lengths[n], n) for n in members]
        assert all(first < second for first, second in pairwise(order))
    # What a sequence begins with had no room in any sequence before it.
    for place, members in enumerate(packs):
        first = members[0]
        for earlier in packs[:place]:
            before = sum(lengths[n] for n in earlier if (-lengths[n], n) < (-lengths[first], first))
            assert before + lengths[first] > capacity
    assert packs == pack(lengths, capacity)
    fewest = -(-sum(lengths) // capacity)
    assert len(packs) <= 2 * fewest


def test_packing_refuses_what_fits_nowhere():
    """The sample is named."""
    with pytest.raises(ValueError, match=r"lengths\[1\]: expected 1 to 4, got 5"):
        pack([4, 5], 4)


@pytest.mark.parametrize("change", [{}, {"share_factor": 1, "qk_norm": False}])
def test_packed_samples_have_the_losses_of_separate_ones(change):
    """Attention stays in its segment and positions start again: losses within 1e-5."""
    model = model_of(replace(CONFIG, attention=replace(CONFIG.attention, **change)))
    samples = samples_of(9, 14, 5, 20)
    batch = collate([samples[:3], samples[3:]])
    with torch.no_grad():
        packed = model(batch.tokens, segment_BT=batch.segments)
        alone = [model(collate([[sample]]).tokens)[0] for sample in samples]
    together = torch.cat([packed[0, :28], packed[1, :20]])
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    losses = [
        F.cross_entropy(logits, collate([[one]]).targets[0], reduction="sum")
        for one, logits in zip(samples, alone, strict=True)
    ]
    mean = sum(losses) / sum(sample.num_targets for sample in samples)
    torch.testing.assert_close(sft_loss(packed, batch.targets), mean, atol=1e-5, rtol=0)


def test_without_segments_samples_would_see_each_other():
    """The check above can fail."""
    model = model_of(CONFIG)
    batch = collate([samples_of(9, 14)])
    with torch.no_grad():
        difference = model(batch.tokens) - model(batch.tokens, segment_BT=batch.segments)
    assert difference[0, :9].abs().max() < 1e-5
    assert difference[0, 9:].abs().max() > 0.01


def test_segments_need_their_shape_and_no_cache():
    """Both are refused by name."""
    model, token_BT = model_of(CONFIG), torch.zeros(1, 4, dtype=torch.int64)
    for segments, cache in [(token_BT[:, :3], None), (token_BT, model.new_cache(1))]:
        with pytest.raises(ValueError, match="segment_BT: expected shape"):
            model(token_BT, cache, segment_BT=segments)


def test_dropout_is_for_training_and_from_the_seed():
    """No effect in evaluation; in training the same seed drops the same, both kinds act."""
    token_BT = torch.arange(20)[None]
    plain = model_of(CONFIG)(token_BT)
    for change in (
        {"residual_dropout": 0.5},
        {"attention": replace(CONFIG.attention, dropout=0.5)},
    ):
        model = model_of(replace(CONFIG, ffn=replace(CONFIG.ffn, overflow="keep"), **change))
        assert torch.equal(model(token_BT), plain)
        model.train()
        runs = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            runs.append(model(token_BT))
        assert torch.equal(runs[0], runs[1])
        assert not torch.allclose(runs[0], runs[2])


def test_dropping_keeps_the_expected_branch():
    """A branch that is dropped by half and doubled adds what it adds, on average."""
    config = replace(CONFIG, num_layers=1, residual_dropout=0.5)
    block = model_of(config).blocks[0]
    x_BTD = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    mean = torch.stack([block.train()._dropped(x_BTD) for _ in range(4000)]).mean(dim=0)
    torch.testing.assert_close(mean, x_BTD, atol=0.1, rtol=0.05)


def test_long_samples_are_cut_or_refused():
    """A cut keeps the beginning; one that leaves nothing learnt leaves nothing."""
    (sample,) = samples_of(20)
    assert fit(sample, 20, is_cut=False) is sample
    kept = fit(sample, 15, is_cut=True)
    assert kept is not None
    assert list(kept.ids) == list(sample.ids[:16])
    assert kept.num_targets == 5
    assert fit(sample, 9, is_cut=True) is None
    with pytest.raises(ValueError, match=r"length: expected at most 16 tokens .* got 21"):
        fit(sample, 15, is_cut=False)


GOOD = json.dumps({"messages": [{"role": "user", "content": "q"}]})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "expected a JSON object, got "),
        ("[]", "expected a JSON object, got list"),
        ("[" * 100_000, "expected a JSON object, got "),
        ('{"messages": "\\ud800"}', "expected a JSON object, got "),
        ("\ud800", "expected a JSON object, got 'utf-8' codec"),
        ("{}", "messages: expected a list"),
        ('{"messages": []}', "messages: expected a list with at least one"),
        ('{"messages": [1]}', "messages[0]: expected an object with role and content"),
        ('{"messages": [{"role": "bot", "content": ""}]}', "messages[0].role: expected one of"),
        ('{"messages": [{"role": "user", "content": 1}]}', "messages[0].content: expected text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    """File, line and field; the lines before are read, blank ones skipped."""
    path = write(tmp_path, "\ufeff" + GOOD, "", line)
    chats = read_chats(path)
    assert next(chats)[0] == f"{path}:1"
    with pytest.raises(ValueError, match=r"chats\.jsonl:3: ") as caught:
        next(chats)
    assert message in str(caught.value)


def test_separators_that_json_allows_do_not_split_a_line(tmp_path):
    """A text with U+2028 stays one text."""
    line = json.dumps(
        {"messages": [{"role": "user", "content": "a\u2028b"}], "id": 7}, ensure_ascii=False
    )
    ((_, messages),) = read_chats(write(tmp_path, line))
    assert messages == [Message(role="user", content="a\u2028b")]


def test_a_missing_file_is_named(tmp_path):
    """No traceback for a wrong path."""
    with pytest.raises(ValueError, match=r"none\.jsonl: expected a readable file"):
        list(read_chats(tmp_path / "none.jsonl"))
