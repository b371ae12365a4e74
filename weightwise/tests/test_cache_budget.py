"""Layouts of a cache for a budget, and bytes as predicted, in the table and as allocated."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm import CodeConfig, GQAConfig, LatentConfig, ModelConfig, SwiGLUConfig
from weightwise.lm.latent.budget import (
    allocated_bytes_per_token,
    cache_bytes_per_token,
    fit_cache,
    mha_bytes_per_token,
)

# Shape A of the method sheet, with a narrow feed-forward layer: it has no cache.
SHAPE_A = ModelConfig(
    vocab_size=64,
    width=2048,
    num_layers=24,
    max_length=256,
    attention=GQAConfig(num_heads=16, num_kv_heads=4),
    ffn=SwiGLUConfig(hidden=64),
)
SMALL = replace(SHAPE_A, width=64, num_layers=4, attention=GQAConfig(num_heads=4, num_kv_heads=2))


@pytest.mark.parametrize(
    ("percent", "share", "bits"), [(2.0, 2, 4), (1.0, 4, 4), (14.1, 1, 16), (7.1, 2, 16)]
)
def test_shape_a_gets_the_layouts_of_the_table(percent: float, share: int, bits: int) -> None:
    """2 % are 4-bit latents of two layers, 14 % are MLA: section 3.4 of the sheet."""
    fit = fit_cache(SHAPE_A, percent=percent, share_factor=share, bits=bits)  # type: ignore[arg-type]
    assert fit.attention.latent_width == 512
    assert fit.attention.rope_width == 64
    assert fit.percent <= percent
    config = replace(SHAPE_A, attention=fit.attention)
    assert allocated_bytes_per_token(config) == fit.bytes_per_token


def test_two_percent_of_shape_a_is_found_without_help() -> None:
    """With nothing decided the default of the sheet comes out, or one that is expected better."""
    fit = fit_cache(SHAPE_A, percent=2.0)
    sheet = LatentConfig(
        num_heads=16, latent_width=512, rope_width=64, share_factor=2, codes=CodeConfig()
    )
    assert fit.bytes_per_token <= 0.02 * 196_608
    assert cache_bytes_per_token(replace(SHAPE_A, attention=sheet)) == 3888
    assert fit.attention.share_factor == 2
    assert fit.attention.codes is not None
    assert fit.attention.codes.bits == 4


@pytest.mark.slow
@given(
    budget=st.floats(30, 2000),
    share=st.sampled_from([None, 1, 2, 3]),
    bits=st.sampled_from([None, 2, 4, 8, 16]),
)
def test_what_is_found_fits(budget: float, share: int | None, bits: int | None) -> None:
    """Within the budget, what is decided kept, and predicted bytes as the cache allocates them."""
    try:
        fit = fit_cache(SMALL, bytes_per_token=budget, share_factor=share, bits=bits)  # type: ignore[arg-type]
    except ValueError as error:
        assert "cache: expected at least" in str(error)
        return
    assert fit.bytes_per_token <= budget
    config = replace(SMALL, attention=fit.attention)
    assert allocated_bytes_per_token(config) == cache_bytes_per_token(config)
    assert cache_bytes_per_token(config) == fit.bytes_per_token
    assert share in (None, fit.attention.share_factor)
    codes = fit.attention.codes
    assert bits in (None, 16 if codes is None else codes.bits)


@pytest.mark.slow
@given(budget=st.floats(40, 1000), more=st.floats(1, 500))
def test_more_bytes_are_never_worse(budget: float, more: float) -> None:
    """The expected loss falls with the budget."""
    less = fit_cache(SMALL, bytes_per_token=budget)
    assert fit_cache(SMALL, bytes_per_token=budget + more).penalty_percent <= less.penalty_percent


def test_all_kinds_of_caches_are_counted() -> None:
    """Keys and values, groups of their own sizes and bits, rope keys of every layer."""
    kinds = [
        GQAConfig(num_heads=4, num_kv_heads=2, share_factor=2),
        GQAConfig(num_heads=4, num_kv_heads=1, keep_ends=1, share_factor=2),
        LatentConfig(num_heads=4, share_factor=3, codes=CodeConfig(bits=3, is_symmetric=False)),
        LatentConfig(
            num_heads=4, share_factor=2, codes=CodeConfig(), rope_codes=CodeConfig(bits=8)
        ),
        LatentConfig(num_heads=4, share_factor=2, codes=CodeConfig(), rope_codes="plain"),
        LatentConfig(num_heads=4, share_factor=2, codes=CodeConfig(), group_bits=(16, 4)),
        LatentConfig(num_heads=4, share_factor=2, rope_key="layer"),
        LatentConfig(num_heads=4, latent_width=40, codes=CodeConfig(bits=2, group_width=16)),
    ]
    for attention in kinds:
        config = replace(SMALL, attention=attention)
        assert allocated_bytes_per_token(config) == cache_bytes_per_token(config), attention
    # Two layers lead with two key heads of 16 features in bfloat16: 2 * 2 * 2 * 16 * 2.
    assert cache_bytes_per_token(replace(SMALL, attention=kinds[0])) == 256
    assert mha_bytes_per_token(SMALL) == 1024


def test_bad_budgets_are_named() -> None:
    """None, two, too small, and no number."""
    for budget in ({}, {"bytes_per_token": 5.0, "percent": 5.0}):
        with pytest.raises(ValueError, match="one of bytes_per_token and percent"):
            fit_cache(SMALL, **budget)
    with pytest.raises(ValueError, match=r"cache: expected at least .* bytes a token .* got 1"):
        fit_cache(SMALL, bytes_per_token=1)
    with pytest.raises(ValueError, match="percent: expected a finite number above 0, got -"):
        fit_cache(SMALL, percent=-1)
    with pytest.raises(ValueError, match="bytes_per_token: expected a finite number above 0"):
        fit_cache(SMALL, bytes_per_token=float("nan"))
