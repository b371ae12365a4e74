"""Outer scales found from text: exact where nothing is coded, better where something is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm import GQAConfig, LanguageModel, LatentConfig, ModelConfig, SwiGLUConfig
from weightwise.lm.latent.calibrate import calibrate, find_scales
from weightwise.lm.latent.codes import fake_quantize
from weightwise.lm.latent.config import CodeConfig
from weightwise.lm.latent.conversion import convert_to_latent

LATENT = LatentConfig(
    num_heads=2, head_width=8, latent_width=32, rope_width=8, share_factor=2,
    codes=CodeConfig(bits=3, group_width=16), outer_scale=True,
)  # fmt: skip
MODEL = ModelConfig(
    vocab_size=50, width=32, num_layers=4, max_length=64, attention=LATENT,
    ffn=SwiGLUConfig(hidden=32),
)  # fmt: skip


def uneven_model(attention: LatentConfig = LATENT) -> LanguageModel:
    """A model whose latents have features of sizes from 1 to 30, read with weights as uneven."""
    torch.manual_seed(0)
    model = LanguageModel(replace(MODEL, attention=attention)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("latent_gain"):
                weight.copy_(torch.logspace(0, 1.5, 32)[torch.randperm(32)])
                gain = weight
            elif name.endswith("attention.up"):
                weight.mul_(20 / gain)
    return model


def tokens(count: int = 4) -> torch.Tensor:
    return torch.randint(50, (count, 40), generator=torch.Generator().manual_seed(count))


@given(seed=st.integers(0, 1000), bits=st.sampled_from([2, 4, 8]), is_symmetric=st.booleans())
def test_scales_are_powers_of_two_and_never_err_more(seed, bits, is_symmetric):
    """The error that is reported is that of the scaled vectors, and no larger than without."""
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 40, generator=make) * torch.randn(40, generator=make).exp()
    weight = torch.rand(40, generator=make)
    config = CodeConfig(bits=bits, group_width=16, is_symmetric=is_symmetric)
    scale, (before, after) = find_scales(x, weight, config)
    assert torch.equal(scale.log2(), scale.log2().round())
    lost = (fake_quantize(x / scale, config) * scale - x).square().mean(0)
    assert after == pytest.approx(
        float((lost * weight).sum() / (x**2 * weight).mean(0).sum()), rel=1e-4
    )
    assert after <= before


def test_a_large_feature_that_nobody_reads_gets_coarse_steps():
    """One feature of size 100 beside 15 of size 1: its group's steps were for it alone."""
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    x[:, 5] *= 100
    weight = torch.ones(16)
    weight[5] = 1e-4
    scale, (before, after) = find_scales(x, weight, CodeConfig(group_width=16))
    assert scale[5] > 16 * scale[0]
    assert after < before / 20


def test_features_without_values_or_readers_do_no_harm():
    """Zeros in sizes or weights leave scales finite; nothing at all leaves them at 1."""
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0
    weight = torch.ones(16)
    weight[3] = 0
    scale, _ = find_scales(x, weight, CodeConfig(group_width=16))
    assert ((scale > 0) & scale.isfinite()).all()
    nothing, errors = find_scales(torch.zeros(4, 16), torch.zeros(16), CodeConfig(group_width=16))
    assert torch.equal(nothing, torch.ones(16))
    assert errors == (0.0, 0.0)


@pytest.mark.parametrize("rope_key", ["leader", "layer"])
def test_calibration_brings_the_coded_model_closer_to_the_plain_one(rope_key):
    """Logits of a model whose features are uneven lose less, on other text as well."""
    attention = replace(LATENT, rope_key=rope_key)
    model = uneven_model(attention)
    plain = uneven_model(replace(attention, codes=None))
    wanted = plain(tokens(5))
    before = (model(tokens(5)) - wanted).square().mean()
    reports = calibrate(model, [tokens(), tokens(3)])
    after = (model(tokens(5)) - wanted).square().mean()
    assert [report.group for report in reports] == [0, 1]
    for report in reports:
        assert report.latent_error[1] < report.latent_error[0]
        assert report.rope_error[1] <= report.rope_error[0]
    assert after < 0.6 * before, (before, after)


def test_plain_latents_do_not_change_by_a_bit():
    """Dividing and multiplying by powers of two is exact."""
    model = uneven_model(replace(LATENT, codes=None))
    wanted = model(tokens())
    for name, weight in model.named_parameters():
        if name.endswith("outer_scale"):
            weight.data = 2.0 ** torch.randint(-3, 4, weight.shape).float()
    assert torch.equal(model(tokens()), wanted)


def test_what_cannot_be_calibrated_is_refused():
    """Without outer scales or without text there is nothing to find."""
    with pytest.raises(ValueError, match="outer_scale: expected a group"):
        calibrate(uneven_model(replace(LATENT, outer_scale=False)), [tokens()])
    with pytest.raises(ValueError, match="batches: expected at least one"):
        calibrate(uneven_model(), [])


def test_models_without_rotary_keys_are_calibrated_too():
    """A rope width of 0 leaves only latents to scale; training goes on afterwards."""
    torch.manual_seed(0)
    model = LanguageModel(replace(MODEL, attention=replace(LATENT, rope_width=0))).train()
    reports = calibrate(model, [tokens()])
    assert all(report.rope_error == (0.0, 0.0) for report in reports)
    assert model.training


def test_a_model_may_get_rotated_latents_and_outer_scales_after_training():
    """Storing otherwise is exact for plain latents, and both ways there; coded ones err less."""
    old = uneven_model(replace(LATENT, codes=None, outer_scale=False))
    plain = replace(LATENT, codes=None)
    wanted = uneven_model(plain)(tokens(5))
    turned = convert_to_latent(old, replace(plain, rotate_latent=True), [tokens()], tokens(3)).model
    assert torch.allclose(turned(tokens(5)), wanted, atol=1e-3)
    back = convert_to_latent(turned, plain, [tokens()], tokens(3)).model
    assert torch.allclose(back(tokens(5)), wanted, atol=1e-3)
    scaled = convert_to_latent(old, LATENT, iter([tokens()]), tokens(3))
    as_it_was = convert_to_latent(old, replace(LATENT, outer_scale=False), [tokens()], tokens(3))
    for with_scales, without in zip(scaled.groups, as_it_was.groups, strict=True):
        assert sum(with_scales.coded_error) < sum(without.coded_error)


def test_a_conversion_from_grouped_queries_finds_outer_scales():
    """The calibration text, which comes but once, serves the algebra and the scales."""
    torch.manual_seed(0)
    grouped = GQAConfig(num_heads=2, num_kv_heads=1, head_width=16)
    old = LanguageModel(replace(MODEL, attention=grouped)).eval()
    latent = replace(LATENT, head_width=16)
    found = convert_to_latent(old, latent, iter([tokens(), tokens(6)]), tokens(3)).model
    scales = [w for name, w in found.named_parameters() if name.endswith("outer_scale")]
    assert len(scales) == 2
    assert any(len(scale.unique()) > 1 for scale in scales)
