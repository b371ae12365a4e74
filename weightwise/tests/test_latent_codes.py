"""Codes of few bits: their formula, packing, errors, and one result on every way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from weightwise.lm.latent import code_kernels
from weightwise.lm.latent.codes import (
    Codes,
    bytes_per_row,
    decode,
    encode,
    fake_quantize,
)
from weightwise.lm.latent.config import CodeConfig

CONFIGS = st.builds(
    CodeConfig,
    bits=st.sampled_from([2, 3, 4, 8]),
    group_width=st.sampled_from([16, 32, 64, 128]),
    is_symmetric=st.booleans(),
    scale_rule=st.sampled_from(["range", "error"]),
)
WIDTHS = st.integers(1, 140)
SIZES = st.sampled_from([1e-6, 1e-3, 1.0, 300.0, 1e5])


@st.composite
def rows(draw: Any, sizes: Any = SIZES) -> Tensor:
    """A few rows: bells of one size, some shifted, some elements drawn by hand."""
    count, width, size = draw(st.integers(1, 3)), draw(WIDTHS), draw(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.standard_normal((count, width)) + draw(st.sampled_from([0.0, 3.0, -50.0]))
    few = st.sampled_from([0.0, -0.0, 1.0, -7.5, 40.0])
    some = draw(arrays(np.float64, width, elements=few))
    x[0] = np.where(rng.random(width) < 0.3, some, x[0])
    return torch.from_numpy((x * size).astype(np.float32))


def stored_numbers(codes: Codes, config: CodeConfig) -> Tensor:
    """Stored codes, read bit by bit from the stream of a row, lowest bits first."""
    bits = np.unpackbits(codes.code.numpy(), axis=-1, bitorder="little")
    bits = bits.reshape(*codes.code.shape[:-1], -1, config.bits)
    return torch.from_numpy((bits << np.arange(config.bits)).sum(-1))


def per_feature(x: Tensor, config: CodeConfig, width: int) -> Tensor:
    """What a group has, once for each of its features, in float64."""
    return x.double().repeat_interleave(config.group_width, -1)[..., :width]


@given(x=rows(), config=CONFIGS)
def test_codes_and_scales_are_the_formula_of_the_sheet(x, config):
    """Scales of the rule "range" in float16, then codes, worked out in float64."""
    config = replace(config, scale_rule="range")
    group, width = config.group_width, x.shape[-1]
    codes = encode(x, config)
    found = stored_numbers(codes, config)
    for row, z in enumerate(x.numpy()):
        for n in range(0, width, group):
            part = z[n : n + group].astype(np.float64)
            top = 2 ** (config.bits - 1) - 1 if config.is_symmetric else 2**config.bits - 1
            low = 0.0
            if config.is_symmetric:
                step = np.abs(part).max() / top
            else:
                low = float(np.float16(np.clip(part.min(), -65504, 65504)))
                step = max((part.max() - low) / top, abs(low) * 2.0**-10)
            step = float(np.float16(np.clip(step, 2.0**-14, 65504)))
            assert float(codes.scale[row, n // group]) == pytest.approx(step, rel=1e-3)
            step = float(codes.scale[row, n // group])
            least = -top if config.is_symmetric else 0
            wanted = np.clip((part - low) / step, least, top) - least
            got = found[row, n : n + len(part)].numpy() - config.is_symmetric
            assert np.abs(got - wanted).max() <= 0.5 + 1e-4


@given(x=rows(), config=CONFIGS)
def test_training_sees_what_the_cache_gives_back(x, config):
    """Fake-quantising is encoding and decoding, bit for bit, in every precision."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        given_x = x.to(dtype)
        seen = fake_quantize(given_x, config)
        kept = decode(encode(given_x, config), config, x.shape[-1], dtype)
        assert seen.dtype == dtype
        assert torch.equal(seen.view(torch.uint8), kept.view(torch.uint8))


@given(x=rows(), config=CONFIGS)
def test_compiled_code_gives_the_bits_of_plain_operations(x, config):
    """Bytes, scales, minima and numbers are the same without the kernels."""
    codes, seen = encode(x, config), fake_quantize(x, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_kernels, "fits", lambda _: False)
        plain, plain_seen = encode(x, config), fake_quantize(x, config)
        plain_kept = decode(codes, config, x.shape[-1], torch.float32)
    for part in ("code", "scale", "minimum"):
        ours, theirs = getattr(codes, part), getattr(plain, part)
        assert (ours is None) == (theirs is None) == (part == "minimum" and config.is_symmetric)
        assert ours is None or torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))
    for other in (plain_seen, plain_kept):
        assert torch.equal(seen.view(torch.int32), other.view(torch.int32))


def test_groups_of_few_elements_find_their_grid_again():
    """Two large elements among zeros may take one code, which other grids hold all but exactly."""
    make = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 64, generator=make) * (torch.rand(2000, 64, generator=make) < 0.08)
    for bits in (2, 3, 4, 8):
        for is_symmetric in (True, False):
            config = CodeConfig(bits=bits, group_width=16, is_symmetric=is_symmetric)
            once = fake_quantize(x, config)
            assert torch.equal(fake_quantize(once, config), once)


@given(x=rows(), config=CONFIGS)
def test_quantising_twice_is_quantising_once(x, config):
    """What codes stand for lies on a grid that is found again: not one bit changes."""
    once = fake_quantize(x, config)
    assert torch.equal(fake_quantize(once, config).view(torch.int32), once.view(torch.int32))


@given(x=rows(st.sampled_from([1e-6, 1e-3, 1.0, 300.0])), config=CONFIGS)
def test_the_error_is_at_most_half_a_step(x, config):
    """|z - z'| <= |a| / 2 for every element, whichever scale was taken."""
    codes = encode(x, config)
    step = per_feature(codes.scale, config, x.shape[-1]).abs()
    error = (decode(codes, config, x.shape[-1], torch.float32).double() - x.double()).abs()
    rounding = x.double().abs() * 2.0**-22  # of the differences and sums in float32
    assert (error <= step / 2 * (1 + 1e-3) + rounding).all()


@given(x=rows(), config=CONFIGS)
def test_symmetric_codes_of_the_negative_stand_for_the_negative(x, config):
    """Q(-z) = -Q(z), bit for bit but for the sign of zeros."""
    config = replace(config, is_symmetric=True)
    assert torch.equal(fake_quantize(-x, config), -fake_quantize(x, config))


@given(x=rows(), config=CONFIGS)
def test_a_row_takes_the_bytes_of_the_formula(x, config):
    """Padding and scales are counted; the codes are ceil(W / G) G b / 8 bytes of them."""
    codes = encode(x, config)
    groups = -(-x.shape[-1] // config.group_width)
    assert codes.num_bytes == len(x) * bytes_per_row(x.shape[-1], config)
    assert codes.code.shape == (len(x), groups * config.group_width * config.bits // 8)
    assert codes.scale.shape == (len(x), groups)


@given(x=rows(), config=CONFIGS)
def test_scales_chosen_by_error_are_never_worse(x, config):
    """The squared error of no group exceeds that of the scale that spans the range."""
    group, pad = config.group_width, -x.shape[-1] % config.group_width

    def errors(rule: str) -> Tensor:
        seen = fake_quantize(x, replace(config, scale_rule=rule)).double()
        squares = (seen - x.double()).square()
        return torch.nn.functional.pad(squares, (0, pad)).unflatten(-1, (-1, group)).sum(-1)

    # Errors are compared in whole units, 2^-16 of a squared step for each element.
    step = encode(x, replace(config, scale_rule="range")).scale.double()
    assert (errors("error") <= errors("range") + group * step**2 * 2.0**-16).all()


@pytest.mark.slow
@given(x=rows(), config=CONFIGS, data=st.data())
def test_a_token_has_its_codes_wherever_it_stands(x, config, data):
    """Prompts in pieces of any length, and rows of any shape, have the codes of one piece."""
    whole = encode(x, config)
    cut = data.draw(st.integers(0, len(x)))
    pieces = [encode(piece, config) for piece in (x[:cut], x[cut:])]
    assert torch.equal(torch.cat([piece.code for piece in pieces]), whole.code)
    assert torch.equal(torch.cat([piece.scale for piece in pieces]), whole.scale)
    columns = x.T.contiguous().T  # the same numbers in another order of memory
    assert torch.equal(encode(columns.unsqueeze(1), config).code.squeeze(1), whole.code)


@pytest.mark.parametrize("size", [1, 7, 64, 300])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_codes_of_a_long_prompt_do_not_depend_on_its_pieces(size, is_symmetric):
    """300 tokens read 1, 7, 64 or all at a time; threads share the longest piece."""
    config = CodeConfig(is_symmetric=is_symmetric)
    x = torch.randn(300, 576, generator=torch.Generator().manual_seed(0))
    whole, pieces = encode(x, config), [encode(piece, config) for piece in x.split(size)]
    for part in ("code", "scale") if is_symmetric else ("code", "scale", "minimum"):
        joined = torch.cat([getattr(piece, part) for piece in pieces])
        assert torch.equal(joined, getattr(whole, part))


@pytest.mark.slow
def test_threads_change_nothing():
    """A tensor that is large enough to be shared has the bits of the same rows alone."""
    before = torch.get_num_threads()
    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    config = CodeConfig(bits=3, is_symmetric=False)
    alone = [fake_quantize(row, config) for row in x[:8]]
    torch.set_num_threads(2)
    try:
        codes, seen = encode(x, config), fake_quantize(x, config)
        assert torch.equal(decode(codes, config, 512, torch.float32), seen)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(seen[:8], torch.stack(alone))


@pytest.mark.parametrize("rule", ["range", "error"])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_zeros_stay_zeros(rule, is_symmetric):
    """A group without anything in it has nothing but zeros, and no NaN from 0 / 0."""
    config = CodeConfig(is_symmetric=is_symmetric, scale_rule=rule)
    seen = fake_quantize(torch.tensor([0.0, -0.0]).repeat(20), config)
    assert torch.equal(seen, torch.zeros(40))
    assert not seen.signbit().any()


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_what_float16_scales_cannot_reach_saturates(is_symmetric):
    """Elements of 1e30 and infinity come back finite, as large as there is; a NaN shows."""
    config = CodeConfig(is_symmetric=is_symmetric)
    x = torch.ones(3, 32)
    x[0, 3], x[1, 3], x[2, 3] = 1e30, torch.inf, torch.nan
    seen = fake_quantize(x, config)
    limit = 7 * 65504 if is_symmetric else 15 * 65504 + 1  # code 0 stands for 1
    assert torch.equal(seen[:2, 3], torch.full((2,), limit, dtype=torch.float32))
    assert seen[:2].isfinite().all()
    assert seen[2].isnan().all()


def test_gradients_pass_straight_through():
    """The derivative is 1, also where rounding loses everything, and for second derivatives."""
    x = torch.randn(5, 33, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.randn(5, 33, generator=torch.Generator().manual_seed(1))
    (fake_quantize(x, CodeConfig(bits=2)) * weight).sum().backward()
    assert torch.equal(x.grad, weight)
    (first,) = torch.autograd.grad(fake_quantize(x, CodeConfig()).square().sum(), x)
    assert torch.equal(first, 2 * fake_quantize(x.detach(), CodeConfig()))


def test_a_nibble_below_is_the_even_feature():
    """Codes 1 and -3 with a scale of 1 are stored as 9 and 5 in one byte: 5 * 16 + 9."""
    config = CodeConfig(group_width=16, scale_rule="range")
    codes = encode(torch.tensor([1.0, -3.0, 7.0, 0.0]), config)
    assert codes.scale.tolist() == [1.0]
    assert codes.code.tolist() == [0x59, 0x8F, *[0x88] * 6]


def test_the_largest_element_may_take_the_code_that_has_no_opposite():
    """8, 7, ..., -7 lie on steps of -1 from -8 on: no error, where the range alone has some."""
    x = torch.arange(8.0, -8.0, -1.0)
    config = CodeConfig(group_width=16)
    codes = encode(x, config)
    assert codes.scale.tolist() == [-1.0]
    assert torch.equal(decode(codes, config, 16, torch.float32), x)
    assert not torch.equal(fake_quantize(x, replace(config, scale_rule="range")), x)


@pytest.mark.parametrize(("bits", "symmetric", "asymmetric"), [(4, 0.75, 0.86), (2, 0.45, 0.7)])
def test_less_error_at_the_same_bytes(bits, symmetric, asymmetric):
    """On a bell of numbers the chosen scales save a share of the squared error."""
    x = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
    for is_symmetric, most in ((True, symmetric), (False, asymmetric)):
        config = CodeConfig(bits=bits, is_symmetric=is_symmetric)
        by_range = fake_quantize(x, replace(config, scale_rule="range"))
        ratio = (fake_quantize(x, config) - x).square().sum() / (by_range - x).square().sum()
        assert ratio < most, ratio


def test_nothing_to_keep():
    """Rows without features, and no rows, have codes of no bytes and come back as they were."""
    config = CodeConfig()
    for shape in ((2, 5, 0), (0, 64)):
        codes = encode(torch.zeros(shape), config)
        assert codes.num_bytes == 0
        assert decode(codes, config, shape[-1], torch.float32).shape == shape
