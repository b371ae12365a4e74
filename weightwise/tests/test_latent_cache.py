"""Latents kept once for a group of layers: their codes, their views and their bytes."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig
from weightwise.lm.cache import Cache, Span
from weightwise.lm.config import layer_groups
from weightwise.lm.latent.cache import LatentGroupCache, LatentView, RopeKeyCache
from weightwise.lm.latent.codes import decode, encode
from weightwise.lm.latent.config import CodeConfig, LatentConfig

CPU = torch.device("cpu")
INT4 = CodeConfig(bits=4, group_width=32)
# 40 and 6 features: no whole groups.
PLAIN = LatentConfig(num_heads=2, head_width=8, value_width=8, latent_width=40, rope_width=6)
KINDS = {
    "plain": PLAIN,
    "int4": replace(PLAIN, codes=INT4),
    "asymmetric int2": replace(PLAIN, codes=CodeConfig(bits=2, is_symmetric=False)),
    "rotary int8": replace(PLAIN, codes=INT4, rope_codes=replace(INT4, bits=8)),
    "rotary plain": replace(PLAIN, codes=INT4, rope_codes="plain"),
    "no rotary": replace(PLAIN, codes=INT4, rope_width=0),
}
kinds = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def new(config: LatentConfig, batch: int, capacity: int, **settings) -> LatentGroupCache:
    options = {"dtype": torch.float32, "device": CPU} | settings
    return LatentGroupCache.new(batch=batch, capacity=capacity, config=config, **options)


def vectors(batch: int, num_tokens: int, config: LatentConfig, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(batch, num_tokens, width, generator=generator)
        for width in (config.latent_width, config.rope_width)
    )


def seen(x: torch.Tensor, codes: CodeConfig | None) -> torch.Tensor:
    """What attention should see of vectors, by the quantiser alone."""
    return x if codes is None or not x.shape[-1] else decode(
        encode(x, codes), codes, x.shape[-1], x.dtype
    )  # fmt: skip


@kinds
@pytest.mark.parametrize("chunk", [1, 7, 64, 150])
def test_pieces_of_any_size_leave_the_same_codes(config, chunk):
    """150 tokens at once or in pieces: memory is the same bit for bit, and what is read too."""
    latent, rope = vectors(2, 150, config, 0)
    cache = new(config, 2, 160)
    for start in range(0, 150, chunk):
        size = min(chunk, 150 - start)
        span = Span(start=(start,) * 2, count=(size,) * 2, device=CPU)
        view = cache.write(span, latent[:, start : start + size], rope[:, start : start + size])
    assert view.num_tokens == 150
    got = view.latent_and_rope()
    assert torch.equal(got[0], seen(latent, config.codes))
    assert torch.equal(got[1], seen(rope, config.stored_rope_codes))
    whole = new(config, 2, 160)
    whole.write(Span(start=(0, 0), count=(150, 150), device=CPU), latent, rope)
    for name, store in cache.stores.items():
        assert torch.equal(store.memory, whole.stores[name].memory), name


@pytest.mark.slow
@kinds
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_history_keeps_the_tokens_of_each_row(config, data):
    """Ragged writes, swaps, beams, rollbacks, repeats: each row reads as its own tokens coded."""
    batch = data.draw(st.integers(1, 4))
    layer = new(config, batch, 40)
    cache = Cache([layer, None], batch=batch, capacity=40)
    texts = [vectors(1, 0, config, 0) for _ in range(batch)]
    for step in range(8):
        action = data.draw(st.sampled_from(["write", "write", "swap", "reorder", "crop"]))
        row = st.integers(0, batch - 1)
        if action == "write":
            count = [data.draw(st.integers(1, 5)) for _ in range(batch)]
            new_ones = vectors(batch, max(count), config, step)
            start = cache.length_B.tolist()
            span = Span(start=tuple(start), count=tuple(count), device=CPU)
            view = cache.layers[0].write(span, *new_ones)
            cache.advance(span)
            for i, (text, size) in enumerate(zip(texts, count, strict=True)):
                pairs = zip(text, new_ones, strict=True)
                texts[i] = tuple(torch.cat((old, x[i : i + 1, :size]), 1) for old, x in pairs)
            got = view.latent_and_rope()
            for i, text in enumerate(texts):
                for x, kept, codes in zip(
                    got, text, (config.codes, config.stored_rope_codes), strict=True
                ):
                    assert torch.equal(x[i : i + 1, : kept.shape[1]], seen(kept, codes))
        elif action == "swap":
            first, second = data.draw(row), data.draw(row)
            cache.swap(first, second)
            texts[first], texts[second] = texts[second], texts[first]
        elif action == "reorder":
            index = data.draw(st.lists(row, min_size=batch, max_size=batch))
            cache.reorder(torch.tensor(index))
            texts = [texts[i] for i in index]
        else:
            keep = data.draw(st.integers(0, cache.length))
            cache.crop(keep)
            texts = [tuple(x[:, :keep] for x in text) for text in texts]


def test_followers_get_what_was_decoded_for_the_leader():
    """The second asking decodes nothing; plain vectors are views of the memory."""
    latent, rope = vectors(1, 5, PLAIN, 0)
    span = Span(start=(0,), count=(5,), device=CPU)
    view = new(KINDS["int4"], 1, 8).write(span, latent, rope)
    assert view.latent_and_rope()[0] is view.latent_and_rope()[0]
    assert view.codes is not None
    assert view.codes[0].code.shape == (1, 5, 32)  # 40 features: 2 groups of 32, 4 bits each
    cache = new(PLAIN, 1, 8)
    view = cache.write(span, latent, rope)
    assert view.codes is None
    assert view.latent_and_rope()[0].data_ptr() == cache.stores["latent"].memory.data_ptr()
    assert new(KINDS["rotary plain"], 1, 8).write(span, latent, rope).codes is None


def test_followers_may_have_rotary_keys_of_their_own():
    """Such a layer keeps its keys beside the leader's latents, in codes of the same kind."""
    config = KINDS["int4"]
    latent, rope = vectors(2, 5, config, 0)
    span = Span(start=(0, 0), count=(5, 5), device=CPU)
    leader = new(config, 2, 8).write(span, latent, rope)
    own = RopeKeyCache.new(batch=2, capacity=8, config=config, dtype=torch.float32, device=CPU)
    view = own.write(span, -rope, leader)
    assert view.latent is leader.latent
    assert torch.equal(view.latent_and_rope()[1], -leader.latent_and_rope()[1])
    assert own.num_bytes == 2 * 8 * 18  # one group: 16 bytes of codes and a scale


def test_nothing_is_kept_in_training():
    """A view of tensors gives those tensors, gradients and all."""
    latent, rope = (x.requires_grad_() for x in vectors(1, 3, PLAIN, 0))
    got = LatentView.plain(latent, rope).latent_and_rope()
    assert got[0] is latent
    assert got[1] is rope


def test_16_bit_models_decode_to_16_bits():
    """The type of what is read is the model's; scales stay float16."""
    cache = new(KINDS["int4"], 1, 8, dtype=torch.bfloat16)
    latent, rope = (x.bfloat16() for x in vectors(1, 5, PLAIN, 0))
    view = cache.write(Span(start=(0,), count=(5,), device=CPU), latent, rope)
    assert {x.dtype for x in view.latent_and_rope()} == {torch.bfloat16}
    assert torch.equal(view.latent_and_rope()[0], seen(latent, INT4))
    assert cache.stores["latent_scale"].memory.dtype == torch.float16


# Shapes of sheet CLLA, 3.4: heads, width of a head, layers, latent, rotary key.
SHAPE_A, SHAPE_D, SHAPE_H = (16, 128, 24, 512, 64), (32, 128, 32, 512, 64), (80, 80, 64, 320, 40)


def shape_model(attention, shape) -> ModelConfig:
    heads, head_width, num_layers, *_ = shape
    return ModelConfig(
        vocab_size=8,
        width=heads * head_width,
        num_layers=num_layers,
        max_length=4096,
        attention=attention,
        ffn=SwiGLUConfig(hidden=8),
    )


def bytes_per_token(attention, shape) -> float:
    """Of buffers that were really allocated, for two rows of 64 tokens, in a bfloat16 model."""
    with torch.device("meta"):
        model = LanguageModel(shape_model(attention, shape))
    return model.new_cache(2, 64, dtype=torch.bfloat16).num_bytes / 128


def latents(shape, share_factor: int = 2, **settings) -> LatentConfig:
    heads, _, _, latent_width, rope_width = shape
    return LatentConfig(
        num_heads=heads,
        latent_width=latent_width,
        rope_width=rope_width,
        share_factor=share_factor,
        **settings,
    )


def codes(bits: int = 4, group_width: int = 32, is_symmetric: bool = True) -> CodeConfig:
    return CodeConfig(bits=bits, group_width=group_width, is_symmetric=is_symmetric)


@pytest.mark.parametrize(
    ("settings", "bytes_a", "bytes_d"),
    [
        ({"share_factor": 1}, 27_648, 36_864),
        ({}, 13_824, 18_432),
        ({"codes": codes(bits=8)}, 7_344, 9_792),
        ({"codes": codes(group_width=64)}, 3_672, 4_896),
        ({"codes": codes()}, 3_888, 5_184),
        ({"codes": codes(group_width=64, is_symmetric=False)}, 3_888, 5_184),
        ({"codes": codes(is_symmetric=False)}, 4_320, 5_760),
        ({"codes": codes(), "rope_codes": codes(bits=8)}, 4_272, 5_696),
        ({"codes": codes(), "rope_codes": "plain"}, 4_992, 6_656),
        # The table's 3,456 for D is of 10.67 groups; real ones are 11, the last one shorter.
        ({"share_factor": 3, "codes": codes()}, 2_592, 11 * 324),
        ({"share_factor": 4, "codes": codes()}, 1_944, 2_592),
    ],
)
def test_allocated_bytes_are_those_of_the_table(settings, bytes_a, bytes_d):
    """Rows of sheet CLLA, 3.4, from live buffers; the default is under 2 % of MHA in bfloat16."""
    assert bytes_per_token(latents(SHAPE_A, **settings), SHAPE_A) == bytes_a
    assert bytes_per_token(latents(SHAPE_D, **settings), SHAPE_D) == bytes_d
    if settings == {"codes": codes()}:
        assert bytes_a / bytes_per_token(GQAConfig(num_heads=16), SHAPE_A) < 0.02


@pytest.mark.parametrize(
    ("shape", "kv_heads", "share_factor", "wanted"),
    [
        (SHAPE_A, 16, 1, 196_608),
        (SHAPE_A, 4, 1, 49_152),
        (SHAPE_A, 1, 1, 12_288),
        (SHAPE_A, 4, 2, 24_576),
        (SHAPE_D, 32, 1, 524_288),
        (SHAPE_D, 8, 2, 65_536),
        (SHAPE_H, 80, 1, 1_638_400),
        (SHAPE_H, 8, 1, 163_840),
        (SHAPE_H, 8, 2, 81_920),
    ],
)
def test_allocated_bytes_of_the_other_kinds(shape, kv_heads, share_factor, wanted):
    """MHA, GQA, MQA and CLA of the same table."""
    attention = GQAConfig(num_heads=shape[0], num_kv_heads=kv_heads, share_factor=share_factor)
    assert bytes_per_token(attention, shape) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("shape", [SHAPE_A, SHAPE_D, SHAPE_H])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_width", [16, 128])
@pytest.mark.parametrize("share_factor", [1, 3])
def test_allocated_bytes_follow_the_formula(shape, bits, group_width, share_factor):
    """Groups of layers x (G b + o) / 8 bytes for every begun group of features, o = 32."""
    coding = codes(bits, group_width, is_symmetric=False)
    *_, num_layers, latent_width, rope_width = shape
    begun = ceil(latent_width / group_width) + ceil(rope_width / group_width)
    wanted = ceil(num_layers / share_factor) * begun * (group_width * bits + 32) / 8
    assert bytes_per_token(latents(shape, share_factor, codes=coding), shape) == wanted


def test_groups_of_layers_keep_what_they_are_set_to():
    """Seven layers: the ends alone, the others in groups of 3 and 2; bits of each group."""
    attention = replace(
        PLAIN, share_factor=3, keep_ends=1, codes=INT4, group_bits=(16, 8, 2, 16)
    )  # fmt: skip
    config = ModelConfig(
        vocab_size=8, width=16, num_layers=7, max_length=16, attention=attention,
        ffn=SwiGLUConfig(hidden=8),
    )  # fmt: skip
    groups = layer_groups(config)
    assert [(group.first, group.end) for group in groups] == [(0, 1), (1, 4), (4, 6), (6, 7)]
    cache = LanguageModel(config).new_cache(1, 8)
    kept = [number for number, layer in enumerate(cache.layers) if layer is not None]
    assert kept == [0, 1, 4, 6]
    # 46 plain float32 features; 40 features in 2 groups and 6 in 1.
    plain, int8, int2 = 46 * 4, 3 * (32 + 2), 3 * (8 + 2)
    # Where latents are kept plain, rotary keys are too.
    sizes = [cache.layers[number].num_bytes / 8 for number in kept]
    assert sizes == [plain, int8, int2, plain]
