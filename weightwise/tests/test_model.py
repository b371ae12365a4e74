"""The model: shapes, causality, cache, counts and settings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from weightwise.lm import (
    GQAConfig,
    LanguageModel,
    ModelConfig,
    SwiGLUConfig,
    matrix_shapes,
    num_parameters,
    num_stored_parameters,
)
from weightwise.lm.attention import attend, rotary_table, rotate

TINY = ModelConfig(
    vocab_size=17,
    width=16,
    num_layers=2,
    max_length=12,
    attention=GQAConfig(num_heads=4, num_kv_heads=2),
    ffn=SwiGLUConfig(hidden=24),
)


def build(config: ModelConfig = TINY, seed: int = 0) -> LanguageModel:
    model = LanguageModel(config)
    model.initialize(torch.Generator().manual_seed(seed))
    return model


def tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, TINY.vocab_size, (batch, length), generator=generator)


def test_same_seed_gives_the_same_weights_and_logits():
    """Weights come from the generator alone."""
    first, second, other = build(seed=3), build(seed=3), build(seed=4)
    assert torch.equal(first(tokens(2, 5)), second(tokens(2, 5)))
    assert not torch.equal(first.embed.weight, other.embed.weight)
    # 16 x 16 query weights: the sample standard deviation is within 0.02 +- 5 * 0.02/sqrt(512).
    assert abs(first.blocks[0].attention.query.weight.std().item() - 0.02) < 0.0045
    assert torch.equal(first.norm.weight, torch.ones(16))


def test_a_token_does_not_see_later_tokens():
    """Changing token 4 leaves the logits of tokens 0 to 3 as they were."""
    model, token_BT = build(), tokens(2, 8)
    changed_BT = token_BT.clone()
    changed_BT[:, 4] = (changed_BT[:, 4] + 1) % TINY.vocab_size
    before, after = model(token_BT), model(changed_BT)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 11), max_size=4, unique=True), batch=st.integers(1, 3))
def test_cached_logits_equal_uncached_logits(kv_heads, cuts, batch):
    """However the sequence is cut into passes, the logits are those of one pass."""
    attention = replace(TINY.attention, num_kv_heads=kv_heads)
    model, token_BT = build(replace(TINY, attention=attention)), tokens(batch, 12)
    with torch.no_grad():
        expected = model(token_BT)
        cache = model.new_cache(batch)
        pieces = torch.tensor_split(token_BT, sorted(cuts), dim=1)
        got = torch.cat([model(piece, cache) for piece in pieces], dim=1)
    assert cache.length == 12
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_cropped_cache_continues_as_if_the_tokens_never_came():
    """Take back 3 of 6 tokens, feed others: same logits as a fresh cache."""
    model, token_BT = build(), tokens(1, 9)
    with torch.no_grad():
        cache = model.new_cache(1)
        model(token_BT[:, :6], cache)
        cache.crop(3)
        got = model(token_BT[:, 6:], cache)
        expected = model(torch.cat((token_BT[:, :3], token_BT[:, 6:]), dim=1))[:, 3:]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        cache.reset()
        torch.testing.assert_close(model(token_BT, cache), model(token_BT), atol=1e-5, rtol=0)


def test_cache_bytes_and_limits():
    """2 layers x (key, value) x batch 3 x 2 heads x 10 tokens x 4 features x 4 bytes = 3840."""
    model = build()
    cache = model.new_cache(3, 10)
    assert cache.num_bytes == 2 * 2 * 3 * 2 * 10 * 4 * 4 == 3840
    assert model.new_cache(3, 10, dtype=torch.bfloat16).num_bytes == 1920
    with torch.no_grad():
        model(tokens(3, 10), cache)
        with pytest.raises(ValueError, match=r"at most 0 more tokens .*10 of 10.* got 1"):
            model(tokens(3, 1), cache)
    assert cache.length == 10
    with pytest.raises(ValueError, match="batch of 3, got 2"):
        model(tokens(2, 1), cache)
    with pytest.raises(ValueError, match="length: expected 0 to 10, got 11"):
        cache.crop(11)
    with pytest.raises(ValueError, match="capacity: expected 1 to max_length 12, got 13"):
        model.new_cache(1, 13)
    with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
        model.new_cache(0)


def test_sequence_longer_than_max_length_is_refused():
    """Twelve tokens fit, thirteen do not, none do not."""
    model = build()
    assert model(tokens(1, 12)).shape == (1, 12, 17)
    with pytest.raises(ValueError, match=r"1 to 12 tokens .* got 13"):
        model(tokens(1, 13))
    with pytest.raises(ValueError, match="got 0"):
        model(tokens(1, 0))


def test_rotation_turns_each_pair_by_its_angle():
    """Width 4, theta 100: at position 3 the pairs (0,2), (1,3) turn by 3 and 3/10 radians."""
    cos, sin = rotary_table(torch.tensor([3]), width=4, theta=100.0)
    x = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    expected = [math.cos(3.0), math.cos(0.3), math.sin(3.0), math.sin(0.3)]
    torch.testing.assert_close(rotate(x, cos, sin).flatten(), torch.tensor(expected))


def test_attention_matches_a_loop_over_tokens():
    """Softmax over keys 0 to t, group by group, in float64."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 5, 8, generator=generator, dtype=torch.float64)
    key = torch.randn(1, 2, 5, 8, generator=generator, dtype=torch.float64)
    value = torch.randn(1, 2, 5, 8, generator=generator, dtype=torch.float64)
    mask = torch.ones(3, 5, dtype=torch.bool).tril(2)
    got = attend(query[:, :, 2:], key, value, mask)
    torch.testing.assert_close(attend(query, key, value)[:, :, 2:], got)
    for head in range(4):
        for t in range(2, 5):
            score = key[0, head // 2, : t + 1] @ query[0, head, t] / math.sqrt(8)
            expected = score.softmax(0) @ value[0, head // 2, : t + 1]
            torch.testing.assert_close(got[0, head, t - 2], expected)


def test_bfloat16_autocast_stays_close_and_fills_a_bfloat16_cache():
    """Products in bfloat16 (8 bits) change logits of size ~0.1 by less than 0.01."""
    model, token_BT = build(), tokens(2, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(token_BT)
        cache = model.new_cache(2)
        cached = torch.cat([model(piece, cache) for piece in token_BT.split(4, dim=1)], dim=1)
    assert cache.layers[0].stores["key"].memory.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(logits.float(), model(token_BT), atol=0.01, rtol=0)
    torch.testing.assert_close(cached, logits, atol=0.01, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_counts_equal_the_built_model(tied, kv_heads):
    """N is the matrices in the blocks; the stored count is every parameter."""
    config = replace(TINY, tie_embeddings=tied, attention=GQAConfig(
        num_heads=4, num_kv_heads=kv_heads, head_width=6))  # fmt: skip
    model = LanguageModel(config)
    in_blocks = [tuple(p.shape) for p in model.blocks.parameters() if p.ndim == 2]
    assert sorted(matrix_shapes(config)) == sorted(in_blocks)
    assert num_parameters(config) == sum(rows * columns for rows, columns in in_blocks)
    assert num_stored_parameters(config) == sum(p.numel() for p in model.parameters())
    assert ("head.weight" in dict(model.named_parameters())) is not tied


@pytest.mark.parametrize(
    ("num_layers", "width", "hidden", "num_heads", "expected"),
    [
        (12, 512, 1536, 8, 40_894_464),
        (12, 768, 2048, 12, 84_934_656),
        (12, 1024, 2816, 16, 154_140_672),
        (24, 1536, 4096, 24, 679_477_248),
        (24, 2048, 5632, 32, 1_233_125_376),
        # The printed inner width 10752 is a misprint: only 11008 gives the printed N.
        (35, 4096, 11008, 32, 7_083_130_880),
        (88, 8192, 22016, 64, 71_236_059_136),
    ],
)
def test_counts_equal_the_published_sizes(num_layers, width, hidden, num_heads, expected):
    """Table 3 of arXiv 2501.02423, and the same from a model without memory."""
    config = ModelConfig(
        vocab_size=50_304,
        width=width,
        num_layers=num_layers,
        max_length=2048,
        attention=GQAConfig(num_heads=num_heads),
        ffn=SwiGLUConfig(hidden=hidden),
    )
    assert num_parameters(config) == expected
    with torch.device("meta"):
        model = LanguageModel(config)
    assert sum(p.numel() for p in model.parameters()) == num_stored_parameters(config)


def test_model_built_on_meta_gets_real_weights():
    """Built without memory, emptied into memory and initialised, it equals the direct one."""
    with torch.device("meta"):
        model = LanguageModel(TINY)
    model.to_empty(device="cpu")
    model.initialize(torch.Generator().manual_seed(0))
    assert torch.equal(model(tokens(2, 6)), build()(tokens(2, 6)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 15}, "width: expected a multiple of 2 \\* num_heads = 8"),
        ({"num_layers": 0}, "num_layers"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"init_std": float("inf")}, "init_std"),
        ({"depth": 3}, "depth"),
        ({"attention": {"kind": "gqa", "num_heads": 4, "num_kv_heads": 3}}, "divisor of num_heads"),
        ({"attention": {"kind": "gqa", "num_heads": 4, "head_width": 5}}, "head_width"),
        ({"attention": {"kind": "mla", "num_heads": 4}}, "kind"),
        ({"ffn": {"kind": "swiglu", "hidden": 0}}, "hidden"),
    ],
)
def test_bad_settings_name_the_field(change, message):
    """Out-of-range values and unknown keys are refused where the config is made."""
    fields = {
        "vocab_size": 17,
        "width": 16,
        "num_layers": 2,
        "max_length": 12,
        "attention": {"num_heads": 4},
        "ffn": {"hidden": 24},
    }
    assert ModelConfig(**fields).attention.kv_heads == 4
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**(fields | change))
