"""Latent attention against its definition, and what the layers of a group share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import (
    Cache,
    CodeConfig,
    GQAConfig,
    LanguageModel,
    LatentConfig,
    LayersConfig,
    ModelConfig,
    SwiGLUConfig,
    layer_groups,
)
from weightwise.lm.attention import Pass
from weightwise.lm.cache import Span
from weightwise.lm.latent.attend import attend_latent, is_absorbed
from weightwise.lm.latent.attention import LatentAttention
from weightwise.lm.latent.cache import LatentView
from weightwise.lm.latent.codes import decode, encode
from weightwise.lm.latent.rotation import rotate_features

WIDTH = 12
LATENT = LatentConfig(
    num_heads=3, head_width=5, value_width=7, latent_width=11, rope_width=4, share_factor=3
)


def group_of(attention: LatentConfig, seed: int = 0) -> list[LatentAttention]:
    """The layers of one group, in float64, with gains and scales other than 1."""
    config = ModelConfig(
        vocab_size=2, width=WIDTH, num_layers=3, max_length=64, attention=attention,
        ffn=SwiGLUConfig(hidden=1),
    )  # fmt: skip
    (group,) = layer_groups(config)
    layers = [LatentAttention(group.attention, WIDTH, i, group).double() for i in range(3)]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (weight for layer in layers for weight in layer.parameters()):
            if weight.ndim == 1:
                weight.uniform_(0.5, 1.5, generator=generator)
            else:
                weight.normal_(0.0, 0.5, generator=generator)
    return layers


def inputs(num_tokens: int = 9, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = batch, num_tokens, WIDTH
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]


def run(
    layers: list[LatentAttention],
    x: list[torch.Tensor],
    cache: Cache | None = None,
    segments: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    start = (0,) * len(x[0]) if cache is None else tuple(cache.length_B.tolist())
    span = Span(start=start, count=(x[0].shape[1],) * len(x[0]), device=torch.device("cpu"))
    current = Pass(span=span, cache=cache, segments=segments)
    out = [layer(part, current) for layer, part in zip(layers, x, strict=True)]
    if cache is not None:
        cache.advance(span)
    return out


def new_cache(layers: list[LatentAttention], batch: int = 2, capacity: int = 16) -> Cache:
    where = {"dtype": torch.float64, "device": torch.device("cpu")}
    return Cache(
        [layer.new_cache(batch, capacity, **where) for layer in layers],
        batch=batch, capacity=capacity,
    )  # fmt: skip


# The definition, written for one row, one head and one query at a time.


def rms(x: torch.Tensor, gain: torch.Tensor | float, eps: float) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain


def turned(x_TR: torch.Tensor, theta: float) -> torch.Tensor:
    """Pairs (i, i + R/2) as complex numbers, times e^(i t theta^(-2i/R))."""
    half = x_TR.shape[-1] // 2
    if not half:
        return x_TR
    rate = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(len(x_TR), dtype=torch.float64)[:, None] * rate
    z = torch.complex(x_TR[:, :half], x_TR[:, half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((z.real, z.imag), dim=-1)


def stored(x: torch.Tensor, codes: CodeConfig | None) -> torch.Tensor:
    return x if codes is None else decode(encode(x, codes), codes, x.shape[-1], x.dtype)


def by_definition(layers: list[LatentAttention], x: list[torch.Tensor]) -> list[torch.Tensor]:
    """Sheet CLLA, 3.2, for every row."""
    rows = zip(*x, strict=True)
    found = [[layer_by_definition(layers, row, i) for i in range(3)] for row in rows]
    return [torch.stack(one) for one in zip(*found, strict=True)]


def layer_by_definition(layers, x, number):
    leader, layer, config = layers[0], layers[number], layers[0].config
    width, eps = config.latent_width, config.norm_eps
    both = x[0] @ leader.latent.weight.T
    latent, key = both[:, :width], both[:, width:]
    if config.latent_norm == "leader":
        latent = rms(latent, leader.latent_gain, eps)
    if config.rotate_latent:
        latent = rotate_features(latent)
    if config.rope_key == "layer" and number:
        key = x[number] @ layer.rope.weight.T
    key = turned(key, config.rope_theta)
    scale = leader.outer_scale if config.outer_scale else torch.ones(both.shape[-1])
    latent = stored(latent / scale[:width], config.codes) * scale[:width]
    key = stored(key / scale[width:], config.stored_rope_codes) * scale[width:]
    if config.latent_norm == "layer":
        latent = rms(latent, layer.latent_gain, eps)
    if config.query_latent_width is None:
        query = x[number] @ layer.query.weight.T
    else:
        down = rms(x[number] @ layer.query_down.weight.T, layer.query_gain, eps)
        query = down @ layer.query_up.weight.T
    up = (leader if config.share_up else layer).up.unflatten(0, (config.num_heads, -1))
    heads = []
    for q, w in zip(query.unflatten(-1, (config.num_heads, -1)).unbind(1), up, strict=True):
        q = rms(q, layer.query_head_gain, eps) if config.query_norm else q
        rotated = turned(q[:, config.head_width :], config.rope_theta)
        k, v = latent @ w[: config.head_width].T, latent @ w[config.head_width :].T
        score = (q[:, : config.head_width] @ k.T + rotated @ key.T) / q.shape[-1] ** 0.5
        score = score.masked_fill(torch.ones_like(score, dtype=torch.bool).triu(1), -torch.inf)
        heads.append(score.softmax(-1) @ v)
    return torch.cat(heads, dim=-1) @ layer.output.weight.T


CHOICES = {
    "share_up": st.booleans(),
    "latent_norm": st.sampled_from(["leader", "layer", "none"]),
    "rope_key": st.sampled_from(["leader", "layer"]),
    "query_norm": st.booleans(),
    "query_latent_width": st.sampled_from([None, 8]),
    "codes": st.sampled_from([None, CodeConfig(bits=8), CodeConfig(bits=3, group_width=16)]),
    "rope_codes": st.sampled_from(["same", "plain", CodeConfig(bits=8, is_symmetric=False)]),
    "rotate_latent": st.booleans(),
    "rope_width": st.sampled_from([2, 4]),
    "num_heads": st.integers(1, 4),
    "latent_width": st.sampled_from([11, 16, 33]),
}


@settings(max_examples=25)
@given(change=st.fixed_dictionaries(CHOICES), outer=st.booleans())
def test_attention_is_its_definition(change, outer):
    """Whatever is chosen, every layer of a group gives what the equations say."""
    outer = outer and change["latent_norm"] != "layer"
    layers = group_of(replace(LATENT, **change, outer_scale=outer))
    with torch.no_grad():
        got, expected = run(layers, inputs()), by_definition(layers, inputs())
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-5)


@settings(max_examples=15)
@given(change=st.fixed_dictionaries(CHOICES), pieces=st.sampled_from([[9], [1] * 9, [4, 1, 4]]))
def test_cache_gives_what_a_whole_pass_gives(change, pieces):
    """In any pieces, with any settings, including those that keep something in every layer."""
    layers = group_of(replace(LATENT, **change))
    cache, at, found = new_cache(layers), 0, []
    with torch.no_grad():
        expected = run(layers, inputs())
        for size in pieces:
            found.append(run(layers, [part[:, at : at + size] for part in inputs()], cache))
            at += size
    for mine, other in zip(zip(*found, strict=True), expected, strict=True):
        torch.testing.assert_close(torch.cat(mine, dim=1), other, atol=1e-5, rtol=1e-5)


def test_segments_do_not_see_each_other():
    """Two texts in one row are what they are alone, positions included."""
    layers, x = group_of(LATENT), inputs()
    segments = torch.tensor([[0] * 4 + [1] * 5] * 2)
    with torch.no_grad():
        packed = run(layers, x, segments=segments)
        parts = [run(layers, [one[:, piece] for one in x]) for piece in (slice(4), slice(4, 9))]
    for got, *alone in zip(packed, *parts, strict=True):
        torch.testing.assert_close(got, torch.cat(alone, dim=1), atol=1e-6, rtol=1e-6)


def test_shared_keys_are_a_special_case():
    """Up-projections that pick keys and values out of a latent are cross-layer attention."""
    config = replace(
        LATENT, num_heads=2, head_width=4, value_width=4, latent_width=16, rope_width=0,
        latent_norm="none",
    )  # fmt: skip
    layers, x = group_of(config), inputs()
    key_value = layers[0].latent.weight.detach()  # heads' keys first, then their values
    pick = torch.eye(16, dtype=torch.float64).unflatten(0, (2, 2, 4)).transpose(0, 1)
    with torch.no_grad():
        for layer in layers:
            layer.up.copy_(pick.flatten(0, 2))
        got = run(layers, x)
        key, value = (x[0] @ key_value.T).unflatten(-1, (2, 2, 4)).permute(2, 0, 3, 1, 4)
        for layer, part, mine in zip(layers, x, got, strict=True):
            query = (part @ layer.query.weight.T).unflatten(-1, (2, 4)).transpose(1, 2)
            score = (query @ key.mT / 2).masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
            mixed = (score.softmax(-1) @ value).transpose(1, 2).flatten(2)
            torch.testing.assert_close(mine, mixed @ layer.output.weight.T)


def test_absorbed_is_expanded():
    """4096 tokens in float32: two orders of the same products, by the choice and by force."""
    generator = torch.Generator().manual_seed(0)
    heads, key, value, latent, rope = 4, 16, 12, 40, 8
    query = torch.randn(1, heads, 1, key, generator=generator)
    query_rope = torch.randn(1, heads, 1, rope, generator=generator)
    view = LatentView.plain(
        torch.randn(1, 4096, latent, generator=generator),
        torch.randn(1, 4096, rope, generator=generator),
    )
    up_key = 0.1 * torch.randn(heads, key, latent, generator=generator)
    up_value = 0.1 * torch.randn(heads, value, latent, generator=generator)
    assert is_absorbed(1, 4096, (key, value, latent, rope))
    args = query, query_rope, view, up_key, up_value, None, (key + rope) ** -0.5
    with torch.no_grad():
        absorbed = attend_latent(*args)
    expanded = attend_latent(*args)  # with gradients nothing is absorbed
    torch.testing.assert_close(absorbed, expanded, atol=1e-5, rtol=0)


def test_few_queries_absorb_and_many_expand():
    """The shape of DeepSeek-V2: one query does not pay for expanding, a prompt does."""
    widths = 128, 128, 512, 64
    assert is_absorbed(1, 4096, widths)
    assert not is_absorbed(4096, 4096, widths)


def gradient_of_latents(layers, x, weights):
    """Gradient of the leader's matrix from a weighted sum of the layers' results."""
    for layer in layers:
        layer.zero_grad()
    out = run(layers, x)
    sum(w * part.square().sum() for w, part in zip(weights, out, strict=True)).backward()
    return layers[0].latent.weight.grad.clone()


@pytest.mark.parametrize("rule", ["sum", "mean"])
@pytest.mark.parametrize("codes", [None, CodeConfig(bits=4)])
def test_leader_gets_the_gradients_of_all_followers(rule, codes):
    """The gradient of a latent is the sum, or the mean, of what each layer gives alone."""
    layers, x = group_of(replace(LATENT, latent_grad=rule, codes=codes)), inputs()
    alone = [gradient_of_latents(layers, x, [i == j for j in range(3)]) for i in range(3)]
    assert all(one.norm() > 0 for one in alone)
    whole = gradient_of_latents(layers, x, [1, 1, 1])
    torch.testing.assert_close(whole, sum(alone))
    plain = gradient_of_latents(group_of(replace(LATENT, codes=codes)), x, [1, 1, 1])
    torch.testing.assert_close(whole, plain if rule == "sum" else plain / 3)


def test_gradient_of_latents_is_that_of_finite_differences():
    """Checked numerically, through all layers of the group."""
    layers, x = group_of(LATENT), inputs(num_tokens=4, batch=1)
    weight = layers[0].latent.weight
    got = gradient_of_latents(layers, x, [1, 1, 1])
    step = 1e-4
    for place in [(0, 0), (10, 3), (13, 11)]:  # two of the latent, one of the rotary key
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * step
                values.append(sum(out.square().sum() for out in run(layers, x)))
                weight[place] -= sign * step
        assert got[place].item() == pytest.approx(
            ((values[0] - values[1]) / (2 * step)).item(), rel=1e-4
        )


@pytest.mark.parametrize("codes", [None, CodeConfig()])
def test_followers_never_change_what_is_kept(codes):
    """New weights in a follower leave the leader's result and every byte of the cache alone."""
    layers, x = group_of(replace(LATENT, codes=codes)), inputs()
    before = new_cache(layers)
    with torch.no_grad():
        first = run(layers, x, before)
        for layer in layers[1:]:
            for weight in layer.parameters():
                weight.mul_(-2.0)
        after = new_cache(layers)
        second = run(layers, x, after)
    assert before.layers[1] is None
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    stores = before.layers[0].stores
    assert stores.keys() == after.layers[0].stores.keys()
    assert all(torch.equal(stores[k].memory, after.layers[0].stores[k].memory) for k in stores)
    assert any(store.memory.count_nonzero() for store in stores.values())


def test_group_shares_one_up_projection():
    """Only the leader has the matrix; it decides what the followers see and learns from them."""
    layers, x = group_of(replace(LATENT, share_up=True)), inputs()
    assert [layer.up is None for layer in layers] == [False, True, True]
    before = run(layers, x)
    before[2].sum().backward()
    assert layers[0].up.grad.norm() > 0
    with torch.no_grad():
        layers[0].up.neg_()
    assert not torch.allclose(run(layers, x)[2], before[2])


def test_kinds_stand_side_by_side():
    """Latent layers between grouped-query layers, with gradients everywhere and one cache."""
    config = ModelConfig(
        vocab_size=23,
        width=WIDTH,
        num_layers=5,
        max_length=32,
        attention=replace(LATENT, share_factor=2, codes=CodeConfig()),
        ffn=SwiGLUConfig(hidden=8),
        attention_of=(
            LayersConfig(first=1, end=3, attention=GQAConfig(num_heads=3, share_factor=2)),
        ),
    )
    model = LanguageModel(config)
    model.initialize(torch.Generator().manual_seed(0))
    token_BT = torch.randint(23, (2, 10), generator=torch.Generator().manual_seed(1))
    model(token_BT).logsumexp(-1).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    model.eval()
    cache = model.new_cache(2)
    with torch.no_grad():
        whole = model(token_BT)
        steps = [model(token_BT[:, [i]], cache) for i in range(10)]
    assert [layer is None for layer in cache.layers] == [False, False, True, False, True]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=1e-4)
