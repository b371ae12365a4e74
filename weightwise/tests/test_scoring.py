"""Scores, corrections and groups of experts against plain definitions and transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import MoEConfig
from weightwise.lm.moe import MixtureOfExperts
from weightwise.lm.routing import route
from weightwise.lm.scoring import ScoringConfig

SIGMOID = ScoringConfig(
    score="sigmoid", is_corrected=True, num_groups=4, top_groups=2, experts_per_group=2, scale=2.5
)
V2 = ScoringConfig(num_groups=4, top_groups=2, scale=16.0)
WIDTH = 20


def plain(
    logits_E: list[float],
    correction_E: list[float],
    scoring: ScoringConfig,
    top_k: int,
    is_renormalized: bool,
) -> dict[int, float]:
    """The weights of one token's experts, by the definition, with sorted lists."""
    logits = torch.tensor(logits_E, dtype=torch.float64)
    is_softmax = scoring.score == "softmax"
    score = (logits.softmax(0) if is_softmax else 1 / (1 + (-logits).exp())).tolist()
    rank = [s + c for s, c in zip(score, correction_E, strict=True)]
    size = len(score) // scoring.num_groups

    def worth(group: int) -> float:
        own = sorted(rank[group * size : (group + 1) * size], reverse=True)
        return sum(own[: scoring.experts_per_group])

    groups = sorted(range(scoring.num_groups), key=worth, reverse=True)[: scoring.top_groups]
    allowed = [e for e in range(len(score)) if e // size in groups]
    chosen = sorted(allowed, key=lambda e: rank[e], reverse=True)[:top_k]
    total = sum(score[e] for e in chosen) if is_renormalized else 1.0
    return {e: score[e] / total * scoring.scale for e in chosen}


@given(
    score=st.sampled_from(["softmax", "sigmoid"]),
    is_corrected=st.booleans(),
    groups=st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 1), (4, 3), (6, 2)]),
    experts_per_group=st.integers(1, 2),
    top_k=st.integers(1, 2),
    is_renormalized=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_routing_is_its_definition(
    score, is_corrected, groups, experts_per_group, top_k, is_renormalized, seed
) -> None:
    """Experts and weights of every token are those of sorted lists."""
    scoring = ScoringConfig(
        score=score, is_corrected=is_corrected, num_groups=groups[0], top_groups=groups[1],
        experts_per_group=experts_per_group, scale=1.5,
    )  # fmt: skip
    config = MoEConfig(
        hidden=4, num_experts=12, top_k=top_k, renormalize=is_renormalized, scoring=scoring
    )
    generator = torch.Generator().manual_seed(seed)
    logits_TE = 3 * torch.randn(7, 12, generator=generator)
    correction_E = torch.randn(12, generator=generator) if is_corrected else torch.zeros(12)
    routing = route(
        logits_TE, config, has_capacity=False,
        correction_E=correction_E if is_corrected else None,
    )  # fmt: skip
    torch.testing.assert_close(routing.probabilities.sum(1), torch.ones(7))
    for token in range(7):
        wanted = plain(
            logits_TE[token].tolist(), correction_E.tolist(), scoring, top_k, is_renormalized
        )
        got = dict(zip(routing.experts[token].tolist(), routing.weights[token], strict=True))
        assert got.keys() == wanted.keys()
        assert [float(got[e]) for e in wanted] == pytest.approx(list(wanted.values()), rel=1e-5)


def test_correction_chooses_and_does_not_weight() -> None:
    """Logits 0, 0, ln 3 have scores 1/2, 1/2, 3/4: with +1 for the first it beats the third."""
    scoring = ScoringConfig(score="sigmoid", is_corrected=True, scale=2.0)
    config = MoEConfig(hidden=4, num_experts=3, scoring=scoring)
    logits_TE = torch.tensor([[0.0, 0.0, 1.0986123]])
    for correction, expert, weight in ((0.0, 2, 1.5), (1.0, 0, 1.0)):
        correction_E = torch.tensor([correction, 0.0, 0.0])
        routing = route(logits_TE, config, has_capacity=False, correction_E=correction_E)
        assert routing.experts.item() == expert
        assert routing.weights.item() == pytest.approx(weight)


def test_a_group_is_its_best_or_its_two_best() -> None:
    """Of 0.9 with 0.1 and 0.6 with 0.6 the first has the best expert, the second the best two."""
    score_TE = torch.tensor([[0.9, 0.1, 0.6, 0.6]])
    one = ScoringConfig(score="sigmoid", num_groups=2, top_groups=1)
    two = ScoringConfig(score="sigmoid", num_groups=2, top_groups=1, experts_per_group=2)
    assert sorted(one.choose(score_TE, None, 2)[0].tolist()) == [0, 1]
    assert sorted(two.choose(score_TE, None, 2)[0].tolist()) == [2, 3]


def test_tiny_scores_are_still_shares() -> None:
    """Logits of -30 have scores of 1e-13, of which each of two experts has half."""
    scoring = ScoringConfig(score="sigmoid")
    config = MoEConfig(hidden=4, num_experts=3, top_k=2, scoring=scoring)
    routing = route(torch.full((1, 3), -30.0), config, has_capacity=False)
    assert routing.weights[0].tolist() == pytest.approx([0.5, 0.5])


def their_layer(version: int, **changes: Any) -> Any:
    """A layer of transformers with drawn weights."""
    transformers = pytest.importorskip("transformers")
    common: dict[str, Any] = {
        "hidden_size": WIDTH, "moe_intermediate_size": 12, "n_routed_experts": 8,
        "n_shared_experts": 2, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2,
    }  # fmt: skip
    if version == 2:
        from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe as Layer

        config = transformers.DeepseekV2Config(
            **common | {"num_attention_heads": 4, "routed_scaling_factor": 16.0} | changes
        )
    else:
        from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE as Layer

        config = transformers.DeepseekV3Config(**common | changes)
    torch.manual_seed(version)
    layer = Layer(config)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    if version == 3:
        layer.gate.e_score_correction_bias.normal_(std=0.3)
    return layer


def with_weights_of(theirs: Any, scoring: ScoringConfig, renormalize: bool) -> MixtureOfExperts:
    """Our layer with the weights of one of transformers."""
    config = MoEConfig(
        hidden=12, num_experts=8, num_shared=2, top_k=3, renormalize=renormalize, scoring=scoring
    )
    layer = MixtureOfExperts(config, WIDTH)
    state = {
        "router.weight": theirs.gate.weight,
        "experts.gate_up": theirs.experts.gate_up_proj,
        "experts.down": theirs.experts.down_proj,
        "shared.gate.weight": theirs.shared_experts.gate_proj.weight,
        "shared.up.weight": theirs.shared_experts.up_proj.weight,
        "shared.down.weight": theirs.shared_experts.down_proj.weight,
    }
    if scoring.is_corrected:
        state["router.bias"] = theirs.gate.e_score_correction_bias
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize(
    ("version", "changes", "scoring", "renormalize"),
    [
        (2, {"topk_method": "group_limited_greedy"}, V2, False),
        (2, {"routed_scaling_factor": 1.0}, ScoringConfig(), False),
        (2, {}, ScoringConfig(scale=16.0), False),
        (3, {}, SIGMOID, True),
        (3, {"norm_topk_prob": False}, SIGMOID, False),
    ],
    ids=["v2 groups", "v2 plain", "v2", "v3", "v3 without shares"],
)
def test_layers_are_those_of_deepseek(version, changes, scoring, renormalize) -> None:
    """With the weights of transformers' layers come their answers, for few and for many tokens."""
    theirs = their_layer(version, **changes)
    ours = with_weights_of(theirs, scoring, renormalize)
    for num_tokens in (1, 5, 200):
        x_BTD = torch.randn(1, num_tokens, WIDTH)
        with torch.no_grad():
            torch.testing.assert_close(ours(x_BTD), theirs(x_BTD), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            ours(x_BTD).detach(), theirs(x_BTD).detach(), rtol=1e-5, atol=1e-5
        )


def test_gradients_reach_the_router_and_not_the_corrections() -> None:
    """The router learns through the weights; corrections stay as they are."""
    layer = MixtureOfExperts(MoEConfig(hidden=6, num_experts=8, top_k=2, scoring=SIGMOID), WIDTH)
    x_BTD = torch.randn(2, 9, WIDTH)
    (layer(x_BTD).square().sum() + layer.auxiliary_loss()).backward()
    assert layer.router.weight.grad.abs().sum() > 0
    assert layer.router.bias.grad is None
    assert not layer.router.bias.requires_grad


def test_balance_is_one_at_balance() -> None:
    """Equal scores of a sigmoid are equal shares: the balance loss is the experts per token."""
    scoring = ScoringConfig(score="sigmoid")
    config = MoEConfig(hidden=4, num_experts=4, top_k=2, scoring=scoring)
    routing = route(torch.zeros(6, 4), config, has_capacity=False)
    even_E = torch.full((4,), 3)
    assert routing.balance_loss_of(even_E).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_groups": 3}, "num_groups: expected a divisor of num_experts 8, got 3"),
        ({"num_groups": 8, "top_groups": 4, "experts_per_group": 2},
         "experts_per_group: expected at most the 1 of a group, got 2"),
        ({"num_groups": 4}, "top_groups: expected groups of 2 experts that hold top_k 3, got 1"),
        ({"num_groups": 2, "top_groups": 3}, "top_groups: expected 1 to num_groups 2, got 3"),
        ({"scale": 0.0}, "scale"),
    ],
)  # fmt: skip
def test_groups_are_checked(given: dict[str, Any], message: str) -> None:
    """Groups that the experts do not make are refused by name."""
    with pytest.raises(ValueError, match=message):
        ScoringConfig(**given).check(8, 3)
