"""Models turned into models with shared latents: the algebra, what it loses, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from weightwise.lm import (
    CodeConfig,
    GQAConfig,
    LanguageModel,
    LatentConfig,
    LayersConfig,
    ModelConfig,
    MoEConfig,
    SwiGLUConfig,
    layer_groups,
)
from weightwise.lm.latent.conversion import convert_to_latent
from weightwise.lm.latent.heads import attention_weights, attentions, heads_of, run
from weightwise.lm.latent.joint_svd import JointSVD
from weightwise.lm.latent.moments import gather
from weightwise.lm.latent.rope_key import RotatingKeys, SharedRopeKey, angles, sparser_bases
from weightwise.lm.rope_scaling import RopeScaling, YarnScaling

CONFIG = ModelConfig(
    vocab_size=61,
    width=48,
    num_layers=4,
    max_length=64,
    attention=GQAConfig(num_heads=4, num_kv_heads=2, head_width=12),
    ffn=SwiGLUConfig(hidden=64),
    init_std=0.15,
)
LATENT = LatentConfig(num_heads=4, head_width=12, latent_width=48, rope_width=12)


def built(**attention: Any) -> LanguageModel:
    """A model with such attention and weights that are not those of a start."""
    model = LanguageModel(replace(CONFIG, attention=replace(CONFIG.attention, **attention))).eval()
    generator = torch.Generator().manual_seed(1)
    model.initialize(generator)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".bias"):
                weight.normal_(generator=generator)
            elif weight.ndim == 1:
                weight.uniform_(0.7, 1.4, generator=generator)
    return model


YARN = YarnScaling(factor=4.0, original_length=32, beta_fast=4.0)


def texts(count: int, seed: int = 0) -> list[torch.Tensor]:
    """Random calibration text."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(61, (8, 40), generator=generator) for _ in range(count)]


def converted(model: LanguageModel, **layout: Any) -> Any:
    return convert_to_latent(model, replace(LATENT, **layout), texts(8), texts(1, seed=9)[0])


def test_one_key_head_and_a_full_rank_lose_nothing() -> None:
    """A rope key takes over one key head whole, and a latent as wide as the model all values."""
    model = built(num_kv_heads=1)
    found = converted(model)
    token_BT = texts(1, seed=5)[0]
    torch.testing.assert_close(found.model(token_BT), model(token_BT), rtol=0, atol=2e-3)
    for group in found.groups:
        assert group.output_error[0] < 1e-7
        assert group.rope_error < 1e-6
        assert group.rank_error < 1e-6
        assert group.sharing_error < 1e-4


@pytest.mark.parametrize(
    ("attention", "most"),
    [
        ({}, 0.1),
        ({"qk_norm": True}, 0.15),
        ({"qk_norm": True, "qk_gain": "before"}, 0.15),
        ({"qkv_bias": True}, 0.3),
        ({"rope_scaling": RopeScaling(factor=8.0, original_length=32)}, 0.1),
        ({"rope_scaling": YARN}, 0.15),
    ],
)
def test_every_kind_of_attention_comes_close(attention: dict[str, Any], most: float) -> None:
    """Norms and constants are met as well as a linear map can."""
    for group in converted(built(**attention)).groups:
        assert max(group.output_error) < most


def test_layers_that_share_already_lose_nothing_by_sharing() -> None:
    """With keys and values in common the leader's input tells those of its followers."""
    alone = converted(built(), share_factor=2)
    together = converted(built(share_factor=2), share_factor=2)
    for before, after in zip(alone.groups, together.groups, strict=True):
        assert before.sharing_error > 0.1
        assert after.sharing_error < 1e-4
        assert max(after.output_error) < max(before.output_error)


def test_groups_of_any_size_and_codes_are_filled() -> None:
    """The last group is shorter, ends stay alone, and codes only add error."""
    found = converted(built(), share_factor=2, keep_ends=1, codes=CodeConfig(bits=3))
    assert [(group.first, group.end) for group in found.groups] == [(0, 1), (1, 3), (3, 4)]
    for group in found.groups:
        assert group.bits == 3
        assert sum(group.coded_error) > sum(group.output_error)


@pytest.mark.slow
def test_a_rotated_latent_is_the_same_without_codes() -> None:
    """The rotation is folded into the up-projections."""
    model, token_BT = built(), texts(1, seed=5)[0]
    plain, rotated = (converted(model, rotate_latent=on).model(token_BT) for on in (False, True))
    torch.testing.assert_close(plain, rotated, rtol=0, atol=1e-3)


def test_latent_attention_that_shares_with_none_is_kept() -> None:
    """Only the codes are new; with them off the model is the same bit for bit."""
    first = converted(built(), latent_width=40).model
    found = convert_to_latent(
        first, replace(LATENT, latent_width=40), texts(1), texts(1, seed=9)[0]
    )
    token_BT = texts(1, seed=5)[0]
    assert torch.equal(found.model(token_BT), first(token_BT))
    assert found.model.config == first.config
    assert all(group.output_error == (0.0,) for group in found.groups)


def test_latent_attention_can_begin_to_share() -> None:
    """MLA becomes CLLA: the leader's keys and values survive, a follower's as far as told."""
    source = LanguageModel(
        replace(CONFIG, attention=replace(LATENT, latent_width=24, query_latent_width=20))
    ).eval()
    source.initialize(torch.Generator().manual_seed(2))
    found = converted(source, share_factor=2, query_latent_width=20)
    for group in found.groups:
        assert group.output_error[0] < 0.1
        assert group.rope_error < 0.9
    assert len(found.groups) == 2


def test_experts_and_all_else_stay_as_they_are() -> None:
    """Hunyuan's kind of model: only attention is new, and every group has its report."""
    attention = replace(CONFIG.attention, qk_norm=True, share_factor=2)
    ffn = MoEConfig(hidden=24, num_experts=4)
    source = LanguageModel(replace(CONFIG, attention=attention, ffn=ffn)).eval()
    source.initialize(torch.Generator().manual_seed(4))
    found = converted(source, share_factor=2)
    old = dict(source.named_parameters())
    for name, weight in found.model.named_parameters():
        if ".attention." not in name:
            assert torch.equal(weight, old[name]), name
    assert all(max(group.output_error) < 0.2 for group in found.groups)


def test_mixed_attention_is_refused() -> None:
    """A model whose layers differ already is named by the field that says so."""
    others = (LayersConfig(first=0, end=1, attention=GQAConfig(num_heads=4, num_kv_heads=1)),)
    with pytest.raises(ValueError, match="attention_of: expected attention of one kind"):
        converted(LanguageModel(replace(CONFIG, attention_of=others)).eval())


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"num_heads": 2}, "num_heads: expected 4 for a conversion, got 2"),
        ({"head_width": 16}, "head_width: expected 12 as in the model, got 16"),
        ({"value_width": 8}, "value_width: expected 12"),
        ({"share_up": True}, "share_up: expected False"),
        ({"rope_key": "layer"}, "rope_key: expected 'leader'"),
        ({"query_norm": True}, "query_norm: expected False"),
        ({"query_latent_width": 8}, "query_latent_width: expected None"),
        ({"latent_width": 64}, "latent_width, rope_width: expected at most the model width 48"),
        ({"rope_width": 0}, "rope_width: expected at most the model width 48 and at least"),
    ],
)
def test_layouts_that_no_conversion_reaches_are_refused(
    layout: dict[str, Any], message: str
) -> None:
    """The message names the field."""
    with pytest.raises(ValueError, match=message):
        converted(built(), **{"value_width": 12} | layout)


def test_no_text_is_refused() -> None:
    """There is nothing to learn from none."""
    with pytest.raises(ValueError, match="calibration text: expected at least one sequence"):
        convert_to_latent(built(), LATENT, [], texts(1)[0])


def test_latent_is_white_and_its_rank_the_best() -> None:
    """Features of the latent have unit variance, and no other rank-C map has less error.

    The smallest possible error is that of NumPy's singular values of M^(1/2) B S^(1/2), here for
    values alone: keys are silenced by queries of zero.
    """
    model = built()
    with torch.no_grad():
        for attention in attentions(model):
            attention.query.weight.zero_()
    plan = replace(CONFIG, attention=LATENT)
    moments = gather(model, layer_groups(plan), texts(8))
    fit = JointSVD(moments[1])
    found = fit.maps(fit.rope_key(12, 10_000.0), latent_width=5)
    inputs, _ = run(model, torch.cat(texts(8)))
    x_ND = inputs[1].flatten(0, 1).double().numpy()
    second_DD = x_ND.T @ x_ND / len(x_ND)
    white_CC = found.latent.numpy() @ second_DD @ found.latent.numpy().T
    np.testing.assert_allclose(white_CC, np.eye(5), atol=1e-2)
    attention = attentions(model)[1]
    value_HVD = attention.value.weight.detach().double().view(2, 12, 48).repeat_interleave(2, 0)
    output_HDV = attention.output.weight.detach().double().view(48, 4, 12).transpose(0, 1)
    value, vector = np.linalg.eigh(second_DD)
    root_DD = vector * np.sqrt(value.clip(0)) @ vector.T
    stacked = np.concatenate(
        [(o @ v).numpy() @ root_DD for o, v in zip(output_HDV, value_HVD, strict=True)]
    )
    singular = np.linalg.svd(stacked, compute_uv=False) ** 2
    assert found.rank_error == pytest.approx(singular[5:].sum() / singular.sum(), rel=1e-2)


def test_weights_of_attention_are_the_models_own() -> None:
    """Values mixed by these weights and projected are what attention gives."""
    scaling = RopeScaling(factor=8.0, original_length=32)
    kinds: list[dict[str, Any]] = [
        {},
        {"qk_norm": True, "qk_gain": "before"},
        {"qkv_bias": True, "rope_scaling": scaling},
        {"rope_scaling": YARN},
        {"qk_norm": True, "qk_gain": "before", "rope_scaling": YARN},
    ]
    for attention in kinds:
        model, token_BT = built(**attention), texts(1)[0]
        inputs, outputs = run(model, token_BT)
        heads = heads_of(model, inputs)[2]
        weight_BHTT = attention_weights(attentions(model)[2], heads)
        value_BHTV = heads.value.transpose(1, 2).repeat_interleave(2, dim=1)
        mixed_BTX = (weight_BHTT @ value_BHTV).transpose(1, 2).flatten(2)
        got = attentions(model)[2].output(mixed_BTX)
        torch.testing.assert_close(got, outputs[2], rtol=0, atol=1e-4)


def keys(rows_GPD: torch.Tensor, distance: list[float]) -> RotatingKeys:
    """Complex rows as keys of one layer with as many query heads."""
    groups, pairs, _ = rows_GPD.shape
    return RotatingKeys(
        weight=torch.cat((rows_GPD.real, rows_GPD.imag), dim=1),
        energy=torch.ones(groups, pairs, dtype=torch.float64),
        distance=torch.tensor([distance] * groups, dtype=torch.float64),
        pair_angles=angles(2 * pairs, 10_000.0),
    )


def test_keys_that_differ_by_a_complex_factor_share_one_rope_key() -> None:
    """Three heads, each the first one turned and stretched: nothing is lost, nothing is left."""
    generator = torch.Generator().manual_seed(0)
    row_PD = torch.randn(4, 10, 2, generator=generator, dtype=torch.float64)
    factors = torch.tensor([1, 2j, -0.5 + 0.5j], dtype=torch.complex128)
    layer = keys(factors[:, None, None] * torch.view_as_complex(row_PD), [0.25] * 4)
    rope = SharedRopeKey([layer], torch.eye(10, dtype=torch.float64), 8, 10_000.0)
    assert rope.error < 1e-10
    assert rope.left_over(0).abs().max() < 1e-10
    query = torch.randn(3, 8, 1, generator=generator, dtype=torch.float64)
    x_D = torch.randn(10, generator=generator, dtype=torch.float64)
    wanted = (query.squeeze(-1) * (layer.weight @ x_D)).sum(-1)
    got = ((rope.rope_query(0) @ query).squeeze(-1) * (rope.weight_RD @ x_D)).sum(-1)
    torch.testing.assert_close(got, wanted)


def test_a_slow_pair_may_rest_and_a_fast_one_may_not() -> None:
    """Of two independent heads one must rest: that costs the more, the faster the pair turns."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 6, 10, 2, generator=generator, dtype=torch.float64)
    rows_GPD = torch.view_as_complex(rows)
    lost = []
    for pair in range(6):
        alone = torch.zeros_like(rows_GPD)
        alone[:, pair] = rows_GPD[:, pair]
        layer = keys(alone, [0.125] * 8)
        lost.append(SharedRopeKey([layer], torch.eye(10, dtype=torch.float64), 12, 1e4).error)
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0.05
    assert lost[-1] < 1e-4
    # Looking at the token itself only, no turn is wrong.
    here = keys(rows_GPD, [1.0])
    assert SharedRopeKey([here], torch.eye(10, dtype=torch.float64), 4, 1e4).error < 1e-10


def test_sparser_wavelengths_are_some_of_the_old_ones() -> None:
    """Every base keeps the shortest wavelength and takes every m-th of the others."""
    old = angles(16, 10_000.0)
    for stride, base in enumerate(sparser_bases(10_000.0, 16, 4), 1):
        torch.testing.assert_close(angles(4, base), old[::stride][:2])
    assert len(sparser_bases(10_000.0, 16, 4)) == 4
    assert sparser_bases(10_000.0, 16, 32) == [pytest.approx(1e8)]
