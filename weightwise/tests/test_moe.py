"""Experts and routing: counts, capacity, recycling, and what reaches the router."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import (
    GQAConfig,
    LanguageModel,
    ModelConfig,
    MoEConfig,
    generate,
    num_active_parameters,
    num_parameters,
    num_stored_parameters,
)
from weightwise.lm.attention import rotary_table, rotate
from weightwise.lm.moe import MixtureOfExperts
from weightwise.lm.routing import keep, recycle, route
from weightwise.recipes import hunyuan_large

HUNYUAN = hunyuan_large()
SMALL = ModelConfig(
    vocab_size=50,
    width=32,
    num_layers=4,
    max_length=48,
    attention=GQAConfig(num_heads=4, num_kv_heads=2, qk_norm=True, share_factor=2),
    ffn=MoEConfig(hidden=24, num_experts=8),
    init_std=0.2,
)


def test_parameters_of_hunyuan_large() -> None:
    """Exact counts of the released shape, as settings and as a model without memory."""
    with torch.device("meta"):
        model = LanguageModel(HUNYUAN)
    assert sum(weight.numel() for weight in model.parameters()) == 388_701_405_440
    assert num_stored_parameters(HUNYUAN) == 388_701_405_440
    assert num_active_parameters(HUNYUAN) == 51_322_077_440
    untied = replace(HUNYUAN, tie_embeddings=False)
    assert round(num_stored_parameters(untied) / 1e9, 3) == 389.527
    assert round(num_active_parameters(untied) / 1e9, 3) == 52.148
    other = replace(HUNYUAN, vocab_size=128_512)
    assert round(num_stored_parameters(other) / 1e9, 3) == 388.698
    assert round(num_active_parameters(other) / 1e9, 3) == 51.319
    table = HUNYUAN.vocab_size * HUNYUAN.width
    assert num_stored_parameters(HUNYUAN) - table == 387_875_651_840
    assert num_active_parameters(HUNYUAN) - table == 50_496_323_840


def test_rotary_base_of_the_released_model() -> None:
    """The NTK rule with alpha 1000 on 80 features."""
    assert HUNYUAN.attention.rope_base(6400) == pytest.approx(1.1938e7, rel=1e-4)
    far = replace(HUNYUAN.attention, rope_alpha=74_989.0)
    assert far.rope_base(6400) == pytest.approx(1e9, rel=1e-4)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, ffn=replace(SMALL.ffn, top_k=3))])
def test_counts_are_those_of_the_model(config: ModelConfig) -> None:
    """Stored parameters by formula and by looking; idle experts make the difference to active."""
    model = LanguageModel(config)
    assert sum(weight.numel() for weight in model.parameters()) == num_stored_parameters(config)
    idle = config.num_layers * (8 - config.ffn.top_k) * 3 * 24 * 32
    assert num_stored_parameters(config) - num_active_parameters(config) == idle
    matrices = 4 * (2 * 32 * 32) + 2 * (2 * 32 * 16) + 4 * (1 + config.ffn.top_k) * 3 * 24 * 32
    assert num_parameters(config) == matrices


def plain(layer: MixtureOfExperts, x_TD: torch.Tensor) -> torch.Tensor:
    """The definition, token after token."""
    config, out = layer.config, []
    for x_D in x_TD:
        prob_E = (layer.router.weight.double() @ x_D.double()).softmax(0).to(x_D.dtype)
        best = prob_E.argsort(descending=True)[: config.top_k]
        total = prob_E[best].sum() if config.is_renormalized else 1.0
        y_D = layer.shared(x_D) if layer.shared is not None else torch.zeros_like(x_D)
        for expert in best:
            gate_F, up_F = (layer.experts.gate_up[expert] @ x_D).chunk(2)
            answer_D = layer.experts.down[expert] @ (torch.nn.functional.silu(gate_F) * up_F)
            y_D = y_D + prob_E[expert] / total * answer_D
        out.append(y_D)
    return torch.stack(out)


@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("num_shared", [0, 1, 2])
def test_layer_is_its_definition(top_k: int, num_shared: int) -> None:
    """Outputs and gradients equal those of the sum written out token by token."""
    torch.manual_seed(0)
    config = MoEConfig(hidden=12, num_experts=5, num_shared=num_shared, top_k=top_k)
    layer = MixtureOfExperts(config, 16).double()
    with torch.no_grad():
        layer.router.weight.mul_(20)
        layer.experts.gate_up.mul_(10)
    x_TD = torch.randn(23, 16, dtype=torch.float64)
    aim_TD = torch.randn(23, 16, dtype=torch.float64)
    gradients = []
    outputs = []
    for forward in (layer, lambda x: plain(layer, x)):
        layer.zero_grad()
        outputs.append(forward(x_TD))
        (outputs[-1] * aim_TD).sum().backward()
        gradients.append([weight.grad.clone() for weight in layer.parameters()])
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    assert layer.router.weight.grad.abs().max() > 1e-6


def test_renormalized_top_1_teaches_the_router_nothing() -> None:
    """A weight that is always 1 has no gradient, which is why it is off by default."""
    torch.manual_seed(0)
    config = MoEConfig(hidden=8, num_experts=4, renormalize=True, balance_coef=0.0)
    layer = MixtureOfExperts(config, 8)
    layer(torch.randn(9, 8)).square().sum().backward()
    assert layer.router.weight.grad.abs().max() < 1e-7


def test_losses_at_balance() -> None:
    """Uniform probabilities and equal counts: balance loss k, z-loss the square of log E."""
    for top_k in (1, 2):
        config = MoEConfig(hidden=1, num_experts=4, top_k=top_k)
        logits_TE = 1e-6 * torch.stack([torch.eye(4).roll(i, 1) for i in range(4)]).flatten(0, 1)
        routing = route(logits_TE, config, has_capacity=False)
        if top_k == 1:
            assert routing.chosen.tolist() == [4, 4, 4, 4]
        assert routing.balance_loss.item() == pytest.approx(top_k, rel=1e-4)
        assert routing.z_loss.item() == pytest.approx(1.3863**2, rel=1e-4)


@given(
    seed=st.integers(0, 2**31),
    num_tokens=st.integers(1, 60),
    num_experts=st.integers(2, 9),
    top_k=st.integers(1, 3),
    factor=st.sampled_from([0.25, 1.0, 1.3, 8.0]),
    overflow=st.sampled_from(["drop", "recycle"]),
    rule=st.sampled_from(["position", "probability", "random"]),
    weight=st.sampled_from(["new", "original"]),
)
@settings(max_examples=150, deadline=None)
def test_rules_of_capacity(
    seed, num_tokens, num_experts, top_k, factor, overflow, rule, weight
) -> None:
    """No expert gets more than it takes, no token the same one twice, the rest stays as it was."""
    top_k = min(top_k, num_experts)
    config = MoEConfig(
        hidden=1, num_experts=num_experts, top_k=top_k, overflow=overflow, keep_rule=rule,
        weight_rule=weight, capacity_factor=factor, min_capacity=1,
    )  # fmt: skip
    torch.manual_seed(seed)
    logits_TE = 2 * torch.randn(num_tokens, num_experts)
    free = route(logits_TE, config, has_capacity=False)
    state = torch.get_rng_state()
    got = route(logits_TE, config, has_capacity=True)
    capacity = config.capacity(num_tokens)
    assert got.load.max() <= capacity
    assert torch.equal(got.chosen, free.chosen)
    is_same = got.experts == free.experts
    assert torch.equal(got.weights[is_same], free.weights[is_same])
    assert got.num_overflow == (~is_same).sum()
    is_dropped = got.experts == num_experts
    assert got.num_dropped == is_dropped.sum()
    assert (got.weights[is_dropped] == 0).all()
    assert int(got.load.sum()) + got.num_dropped == num_tokens * top_k
    for row in got.experts.tolist():
        served = [expert for expert in row if expert < num_experts]
        assert len(set(served)) == len(served)
    # An expert that turned somebody away is full, as far as its own choices go.
    turned = set(free.experts[~is_same].tolist())
    stayed = torch.bincount(free.experts[is_same], minlength=num_experts)
    assert all(stayed[expert] == capacity for expert in turned)
    if overflow == "recycle" and top_k == 1 and factor >= 1:
        assert got.num_dropped == 0
    if factor == 8.0:
        assert is_same.all()
    if weight == "new" and not config.is_renormalized:
        prob_TE = logits_TE.softmax(-1)
        moved = ~is_same & ~is_dropped
        expected = prob_TE.gather(1, got.experts.clamp_max(num_experts - 1))
        assert torch.equal(got.weights[moved], expected[moved])
    torch.set_rng_state(state)
    again = route(logits_TE, config, has_capacity=True)
    assert torch.equal(again.experts, got.experts)


def test_who_stays() -> None:
    """The first, the likeliest, or anybody."""
    expert_A = torch.tensor([1, 1, 0, 1, 1])
    prob_A = torch.tensor([0.3, 0.9, 0.5, 0.8, 0.4])
    config = MoEConfig(hidden=1, num_experts=2)
    assert keep(expert_A, prob_A, 2, config).tolist() == [True, True, True, False, False]
    likely = replace(config, keep_rule="probability")
    assert keep(expert_A, prob_A, 2, likely).tolist() == [False, True, True, True, False]
    anybody = replace(config, keep_rule="random")
    torch.manual_seed(0)
    kept = torch.stack([keep(expert_A, prob_A, 2, anybody) for _ in range(4000)]).float().mean(0)
    torch.testing.assert_close(kept, torch.tensor([0.5, 0.5, 1.0, 0.5, 0.5]), atol=0.03, rtol=0)


@pytest.mark.slow
def test_recycled_tokens_are_spread_over_free_places() -> None:
    """An expert with more room gets more: frequencies as free places, by a chi-square test."""
    torch.manual_seed(0)
    free_E = torch.tensor([0, 1, 3, 6])
    count_E = torch.zeros(4)
    draws = 6000
    for _ in range(draws):
        expert_A = torch.tensor([0, 4])
        recycle(expert_A, torch.tensor([1]), free_E, num_tokens=2)
        count_E[expert_A[1]] += 1
    expected_E = draws * free_E / 10
    assert count_E[0] == 0
    chi_square = ((count_E - expected_E)[1:].square() / expected_E[1:]).sum()
    assert chi_square < 13.8  # 0.1 % with two degrees of freedom


def test_sharing_keys_is_exact() -> None:
    """Followers that norm the leader's keys with their own gain, done plainly, agree."""
    model = LanguageModel(SMALL).double().eval()
    model.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for block in model.blocks:
            block.attention.query_gain.uniform_(0.5, 1.5)
            block.attention.key_gain.uniform_(0.5, 1.5)
    token_BT = torch.randint(50, (2, 20))
    got = model(token_BT)
    torch.testing.assert_close(got, by_definition(model, token_BT), rtol=1e-9, atol=1e-9)


def by_definition(model: LanguageModel, token_BT: torch.Tensor) -> torch.Tensor:
    """Attention as released: keys normed in each layer, with its own gain."""
    cos, sin = rotary_table(torch.arange(token_BT.shape[1]), width=8, theta=10_000.0)
    x = model.embed(token_BT)
    raw = None
    for block in model.blocks:
        a = block.attention
        h = block.attention_norm(x)

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.unflatten(-1, (-1, 8)).transpose(1, 2)

        def normed(y: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.rms_norm(rotate(y, cos, sin), (8,), gain, 1e-5)

        if a.is_leader:
            raw = heads(a.key(h)), heads(a.value(h))
        query = normed(heads(a.query(h)), a.query_gain)
        key = normed(raw[0], a.key_gain).repeat_interleave(2, 1)
        score = (query @ key.transpose(-1, -2)) / 8**0.5
        mask = torch.ones(score.shape[-2:], dtype=torch.bool).tril()
        mixed = score.masked_fill(~mask, -torch.inf).softmax(-1) @ raw[1].repeat_interleave(2, 1)
        x = x + a.output(mixed.transpose(1, 2).flatten(2))
        x = x + block.ffn(block.ffn_norm(x))
    return torch.nn.functional.linear(model.norm(x), model.embed.weight)


@pytest.mark.parametrize("share_factor", [1, 2, 3, 4])
def test_one_cache_entry_per_group(share_factor: int) -> None:
    """Bytes are those of one pair of keys and values per group, and text does not change."""
    attention = replace(SMALL.attention, share_factor=share_factor)
    config = replace(SMALL, attention=attention)
    model = LanguageModel(config).eval()
    model.initialize(torch.Generator().manual_seed(1))
    cache = model.new_cache(1, 40, dtype=torch.bfloat16)
    groups = -(-4 // share_factor)
    assert cache.num_bytes == 40 * groups * 2 * 2 * 8 * 2
    token_BT = torch.randint(50, (2, 17))
    cache = model.new_cache(2)
    with torch.no_grad():
        whole = model(token_BT)
        pieces = [model(piece, cache) for piece in token_BT.split((9, 1, 1, 6), dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-5)
    text = generate(model, token_BT, max_new_tokens=8, temperature=0)
    assert text.shape == (2, 25)


def test_evaluation_knows_no_capacity() -> None:
    """A token gets the experts of its choice there, whatever stands beside it."""
    config = replace(SMALL.ffn, overflow="drop", capacity_factor=0.1, min_capacity=1)
    layer = MixtureOfExperts(config, 32).eval()
    x_BTD = torch.randn(3, 10, 32)
    alone = torch.stack([torch.stack([layer(x[None, None])[0, 0] for x in row]) for row in x_BTD])
    torch.testing.assert_close(layer(x_BTD), alone, rtol=1e-5, atol=1e-6)
    layer.train()
    layer(x_BTD)
    assert layer.routing is not None
    assert layer.routing.num_dropped > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 9}, "top_k: expected 1 to num_experts 8, got 9"),
        ({"num_experts": 1}, "num_experts"),
        ({"capacity_factor": 0.0}, "capacity_factor"),
        ({"overflow": "spill"}, "overflow"),
    ],
)
def test_wrong_settings_are_named(change, message: str) -> None:
    """A field out of range is named with the range."""
    with pytest.raises(ValueError, match=message):
        MoEConfig(**{"hidden": 4, "num_experts": 8, **change})
