"""Rounding and fake-quantization against slow, obvious and third-party references."""

from __future__ import annotations

import math
from typing import Any

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from weightwise.numerics import (
    FloatFormat,
    ScaledFormat,
    Scaling,
    fake_quantize,
    parse,
    round_to_format,
)

NAMES = ["e0m3", "e1m1", "e1m6", "e2m0", "e2m1", "e3m0", "e3m2", "e4m3", "e4m3fn", "e5m2ieee"]
NAMES += ["e5m10ieee", "e6m1", "e7m8"]
FORMATS = st.sampled_from([parse(name) for name in NAMES])
SCALINGS = st.sampled_from(
    [Scaling(granularity="tensor"), Scaling()]
    + [Scaling(granularity="block", block_size=size) for size in (1, 2, 3, 7)]
)
FLOATS = st.floats(-1e6, 1e6, width=32)
VECTORS = arrays(np.float32, st.integers(1, 40), elements=FLOATS).map(torch.from_numpy)
TENSORS = arrays(np.float32, array_shapes(max_dims=3, max_side=9), elements=FLOATS).map(
    torch.from_numpy
)


def nearest(x: np.ndarray, fmt: FloatFormat, rounding: str = "even") -> np.ndarray:
    """Search the list of levels for the nearest one, in float64, where differences are exact."""
    levels = fmt.levels().numpy()
    magnitude = np.minimum(np.abs(x.astype(np.float64)), fmt.max)
    upper = np.searchsorted(levels, magnitude)
    lower = np.maximum(upper - 1, 0)
    below, above = magnitude - levels[lower], levels[upper] - magnitude
    # Powers of two (M = 0): ties go up except from zero; otherwise to the even code.
    even = upper % 2 == 0 if fmt.mantissa_bits else lower > 0
    takes_upper = (above < below) | ((above == below) & (even | (rounding == "away")))
    rounded: np.ndarray = np.copysign(np.where(takes_upper, levels[upper], levels[lower]), x)
    return rounded


def slow_fake_quantize(x: np.ndarray, fmt: FloatFormat, scaling: Scaling, axis: int) -> np.ndarray:
    """Equation 7, one group after the other; float32 for the scale, products and quotients."""
    rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    if scaling.granularity == "tensor":
        groups = [x.reshape(-1)]
    else:
        size = scaling.block_size or x.shape[axis]
        groups = [row[i : i + size] for row in rows for i in range(0, len(row), size)]
    done = []
    for group in groups:
        amax = np.abs(group).max()
        with np.errstate(over="ignore"):
            scale = min(np.float32(fmt.max) / amax, np.float32(2**127)) if amax else np.float32(1)
        done.append(nearest(group * scale, fmt).astype(np.float32) / scale)
    flat = np.concatenate(done)
    if scaling.granularity == "tensor":
        return flat.reshape(x.shape)
    moved = np.moveaxis(x, axis, -1).shape
    return np.moveaxis(flat.reshape(moved), -1, axis)


def quantize(x: Tensor, fmt: FloatFormat, scaling: Scaling, **options: Any) -> Tensor:
    """Fake-quantize to an element format with scales."""
    return fake_quantize(x, ScaledFormat(element=fmt, scaling=scaling), **options)


def assert_same_bits(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> None:
    """Compare float32 values including the sign of zero, and show the first difference."""
    a, b = (np.ascontiguousarray(np.asarray(t, dtype=np.float32)) for t in (a, b))
    differ = np.flatnonzero(a.view(np.int32) != b.view(np.int32))
    assert not len(differ), (len(differ), a.flat[differ[0]], b.flat[differ[0]])


def probes(fmt: FloatFormat) -> np.ndarray:
    """Every level, every midpoint and the float32 neighbours of both, of either sign."""
    levels = fmt.levels().numpy()
    points = np.concatenate([levels, (levels[1:] + levels[:-1]) / 2]).astype(np.float32)
    infinity = np.float32(np.inf)
    points = np.concatenate(
        [points, np.nextafter(points, infinity), np.nextafter(points, -infinity)]
    )
    return np.concatenate([points, -points])


OCP = ["float8_e4m3fn", "float8_e5m2", "float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn"]


@pytest.mark.parametrize("name", OCP)
def test_rounding_equals_ml_dtypes(name: str) -> None:
    """Levels, midpoints and their neighbours round as in ml_dtypes, sign of zero included."""
    x = probes(parse(name))
    expected = x.astype(getattr(ml_dtypes, name)).astype(np.float32)
    assert_same_bits(round_to_format(torch.from_numpy(x), parse(name)), expected)


@pytest.mark.parametrize("name", OCP[:2])
def test_rounding_equals_torch(name: str) -> None:
    """The same points round as in torch's own casts."""
    x = torch.from_numpy(probes(parse(name)))
    assert_same_bits(round_to_format(x, parse(name)), x.to(getattr(torch, name)).float())


@pytest.mark.parametrize("name", OCP)
def test_rounding_equals_gfloat(name: str) -> None:
    """The same points round as in gfloat's readable reference."""
    short = name.split("_")[1].removesuffix("fn")
    info = getattr(gfloat.formats, f"format_info_ocp_{short}")
    x = probes(parse(name))
    expected = gfloat.round_ndarray(info, x, gfloat.RoundMode.TiesToEven, sat=True)
    assert_same_bits(round_to_format(torch.from_numpy(x), parse(name)), expected)


@pytest.mark.parametrize("rounding", ["even", "away"])
@pytest.mark.parametrize("name", [*NAMES, "e1m12", "e4m10", "e6m0", "e7m5ieee"])
def test_rounding_equals_search_for_the_nearest_level(name: str, rounding: str) -> None:
    """Every level, midpoint and neighbour of other formats goes to the nearest level."""
    fmt = parse(name)
    x = probes(fmt)
    got = round_to_format(torch.from_numpy(x), fmt, rounding=rounding)  # type: ignore[arg-type]
    assert_same_bits(got, nearest(x, fmt, rounding))


@pytest.mark.parametrize("name", ["e5m22", "e7m23", "e2m21", "e4m23ieee"])
def test_rounding_of_long_mantissas(name: str) -> None:
    """With a mantissa too long to list, rounding is to a multiple of the step of its binade."""
    fmt = parse(name)
    rng = np.random.default_rng(7)
    exponent = rng.integers(fmt.e_min - fmt.mantissa_bits - 2, fmt.e_max, 4096)
    x = np.ldexp(rng.uniform(-2, 2, 4096), exponent).astype(np.float32)
    binade = np.maximum(np.frexp(x)[1] - 1, fmt.e_min)
    step = np.ldexp(1.0, binade - fmt.mantissa_bits)
    # numpy rounds halves to even; float64 holds every product here exactly.
    assert_same_bits(
        round_to_format(torch.from_numpy(x), fmt), np.rint(x.astype(np.float64) / step) * step
    )


def test_bfloat16_is_the_native_cast() -> None:
    """E8M7 rounds as the cast to bfloat16 does, down to subnormals, and saturates at the top."""
    bits = np.random.default_rng(1).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    x = torch.from_numpy(bits.view(np.float32))
    x = x[x.isfinite()]
    largest = torch.finfo(torch.bfloat16).max
    expected = x.bfloat16().float().clamp(-largest, largest)
    for name in ("e8m7", "bf16"):
        assert_same_bits(round_to_format(x, parse(name)), expected)
        assert_same_bits(quantize(x, parse(name), Scaling(granularity="tensor")), expected)
    assert_same_bits(round_to_format(x, parse("e8m23ieee")), x)


def test_ties_of_powers_of_two() -> None:
    """M = 0: 1.5 and 3 go up, half the smallest value goes to zero unless away is asked for."""
    fmt = parse("e3m0")  # 0, 1/4, 1/2, 1, 2, 4, 8, 16
    x = torch.tensor([0.125, 0.375, 1.5, 3.0, -3.0])
    assert round_to_format(x, fmt).tolist() == [0, 0.5, 2, 4, -4]
    assert round_to_format(x, fmt, rounding="away").tolist() == [0.25, 0.5, 2, 4, -4]


def test_special_values() -> None:
    """Overflow and infinities saturate, NaN stays, and zero keeps its sign."""
    x = torch.tensor([500.0, -1e9, math.inf, -math.inf, math.nan, 0.0, -0.0, -1e-9])
    got = round_to_format(x, parse("e4m3fn"))
    assert got[:4].tolist() == [448, -448, 448, -448]
    assert got[4].isnan()
    assert got[5:].tolist() == [0, 0, 0]
    assert got[5:].signbit().tolist() == [False, True, True]


def test_half_precision_saturates_at_what_it_holds() -> None:
    """In float16 the paper's E5M2 (levels ..., 57344, 65536, ...) ends at 57344, not at inf."""
    x = torch.tensor([65504.0, -65504.0, 3.1], dtype=torch.float16)
    assert round_to_format(x, parse("e5m2")).tolist() == [57344, -57344, 3]


@settings(deadline=None)
@given(VECTORS, FORMATS, st.sampled_from(["even", "away"]))
def test_rounding_invariants(x: Tensor, fmt: FloatFormat, rounding: str) -> None:
    """Rounding gives levels, is idempotent, odd and monotone, and errs by half a step at most."""

    def q(v: Tensor) -> Tensor:
        return round_to_format(v, fmt, rounding=rounding)  # type: ignore[arg-type]

    got = q(x)
    assert torch.isin(got.abs(), fmt.levels(torch.float32)).all()
    assert_same_bits(q(got), got)
    assert_same_bits(q(-x), -got)
    assert (q(x.sort().values).diff() >= 0).all()
    # The step at |x| is 2^(e - M) with e = floor(log2 |x|), at least e_min.
    inside = x.abs() <= fmt.max
    exponent = (x.double().abs().frexp().exponent - 1).clamp(min=fmt.e_min)
    half_step = 2.0 ** (exponent.double() - fmt.mantissa_bits - 1)
    assert ((got.double() - x.double()).abs() <= half_step)[inside].all()


@settings(deadline=None)
@given(TENSORS, FORMATS, SCALINGS, st.data())
def test_fake_quantize_equals_the_slow_reference(
    x: Tensor, fmt: FloatFormat, scaling: Scaling, data: st.DataObject
) -> None:
    """Any shape, axis, block size and format agrees bit for bit, ragged last blocks included."""
    axis = data.draw(st.integers(-x.dim(), x.dim() - 1))
    expected = slow_fake_quantize(x.numpy(), fmt, scaling, axis)
    assert_same_bits(quantize(x, fmt, scaling, axis=axis), expected)


@settings(deadline=None)
@given(TENSORS, FORMATS, SCALINGS, st.integers(-20, 20))
def test_powers_of_two_pass_through(
    x: Tensor, fmt: FloatFormat, scaling: Scaling, power: int
) -> None:
    """Scaling the input by a power of two scales the result, away from subnormal numbers."""
    least = max(1e-20, fmt.max * 2.0**-100)  # else the scale is subnormal
    x = torch.where(x.abs() < least, 0.0, x)
    got = quantize(x * 2.0**power, fmt, scaling)
    expected = quantize(x, fmt, scaling) * 2.0**power
    normal = (expected == 0) | (expected.abs() > 1e-30)
    assert_same_bits(got[normal], expected[normal])


@settings(deadline=None)
@given(TENSORS, FORMATS)
def test_largest_magnitude_is_reproduced(x: Tensor, fmt: FloatFormat) -> None:
    """The largest magnitude of a row survives up to the rounding of its scale, 2 ulp."""
    x = torch.where(x.abs() < 1e-20, 0.0, x)
    before, after = x.abs().amax(-1), quantize(x, fmt, Scaling()).abs().amax(-1)
    assert ((after - before).abs() <= before * 2.0**-22).all()
    powers = 2.0 ** torch.arange(-60, 60)[:, None] * torch.tensor([1.0, -0.3])
    assert torch.equal(quantize(powers, fmt, Scaling())[:, 0], powers[:, 0])


@settings(deadline=None)
@given(TENSORS, FORMATS)
def test_blocks_of_one_lose_nothing(x: Tensor, fmt: FloatFormat) -> None:
    """With a scale of its own every number comes back, up to the rounding of the scale."""
    x = torch.where(x.abs() < 1e-20, 0.0, x)
    got = quantize(x, fmt, Scaling(granularity="block", block_size=1))
    assert ((got - x).abs() <= x.abs() * 2.0**-22).all()


@settings(deadline=None)
@given(TENSORS, st.integers(1, 6))
def test_one_exponent_bit_is_an_integer_quantizer(x: Tensor, mantissa_bits: int) -> None:
    """E1Mk with a scale per tensor is symmetric integer rounding with 2^(k+1) - 1 steps."""
    x = torch.where(x.abs() < 1e-20, 0.0, x).double()
    top = 2 ** (mantissa_bits + 1) - 1
    # A float32 scale moves near-ties: whole numbers over a power of two have none of that.
    x = (x / x.abs().max().clamp(min=1e-20) * 4 * top).round() / 4
    x.view(-1)[0] = top
    fmt = FloatFormat(exponent_bits=1, mantissa_bits=mantissa_bits)
    got = quantize(x.float(), fmt, Scaling(granularity="tensor"))
    assert torch.equal(got, x.round().float())


def test_ragged_block_has_a_scale_of_its_own() -> None:
    """[6, 1 | 3] in E2M1: 1 stays in its block of scale 1, and 3 is the largest of the last."""
    x = torch.tensor([6.0, 1.2, 3.0])
    got = quantize(x, parse("e2m1"), Scaling(granularity="block", block_size=2))
    assert got.tolist() == [6, 1, 3]


def test_zero_and_tiny_groups_stay_finite() -> None:
    """Zeros come back as zeros; subnormal groups are finite and off by half a step at most."""
    tiny = torch.tensor([[0.0, -0.0], [1e-45, 0.0], [3e-39, -1e-39], [1e-37, 9e-38]])
    for name in ("e1m1", "e2m1", "e4m3", "e7m8"):
        fmt = parse(name)
        got = quantize(tiny, fmt, Scaling())
        assert got.isfinite().all()
        assert_same_bits(got[0], tiny[0])
        # The scale ends at 2^127, where half of the smallest level is this many units.
        bound = torch.maximum(tiny.abs() * 2.0**-fmt.mantissa_bits, tiny.new_tensor(2.0**-127))
        assert ((got - tiny).abs() <= bound).all()


def test_non_finite_groups() -> None:
    """By default refused; with "propagate" the group turns NaN and the others do not change."""
    x = torch.tensor([[1.0, math.inf], [math.nan, 1.0], [1.0, 6.0]])
    for name in ("e2m1", "bf16"):
        with pytest.raises(ValueError, match="Expected finite x"):
            quantize(x, parse(name), Scaling())
        got = quantize(x, parse(name), Scaling(), non_finite="propagate")
        assert got[:2].isnan().all()
        assert got[2].tolist() == [1, 6]
    # Refused before anything is written, even where only the shorter last block is not finite.
    y = torch.tensor([1.1, 6.0, math.nan])
    with pytest.raises(ValueError, match="Expected finite x"):
        quantize(y, parse("e2m1"), Scaling(granularity="block", block_size=2), out=y)
    assert y[:2].tolist() == torch.tensor([1.1, 6.0]).tolist()


@settings(deadline=None)
@given(TENSORS, SCALINGS)
def test_strides_and_targets_do_not_matter(x: Tensor, scaling: Scaling) -> None:
    """Views with odd strides, ``out`` and in-place work give the bits of a plain call."""
    fmt = parse("e4m3")
    expected = quantize(x, fmt, scaling, axis=0)
    spread = torch.zeros([2 * n for n in x.shape])[tuple(slice(0, None, 2) for _ in x.shape)]
    spread.copy_(x)
    assert_same_bits(quantize(spread, fmt, scaling, axis=0), expected)
    turned = x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    assert_same_bits(quantize(turned, fmt, scaling, axis=0), expected)
    assert quantize(spread, fmt, scaling, axis=0, out=spread) is spread
    assert_same_bits(spread, expected)
    out = torch.empty_like(x)
    assert quantize(x, fmt, scaling, axis=0, out=out) is out
    assert_same_bits(out, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_tensors(dtype: torch.dtype) -> None:
    """A 16-bit tensor gives the float32 result, rounded once to its dtype."""
    x = torch.randn(8, 50, generator=torch.Generator().manual_seed(3)).to(dtype)
    for scaling in (Scaling(granularity="tensor"), Scaling(granularity="block", block_size=16)):
        got = quantize(x, parse("e2m3"), scaling)
        assert got.dtype == dtype
        assert torch.equal(got, quantize(x.float(), parse("e2m3"), scaling).to(dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(quantize(x, parse("e2m3"), scaling), got)


def test_no_gradient_and_empty_tensors() -> None:
    """The result is cut from the graph, and a tensor without elements is no special case."""
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert not quantize(x, parse("fp4"), Scaling()).requires_grad
    assert not round_to_format(x, parse("fp4")).requires_grad
    assert quantize(torch.empty(0, 8), parse("fp4"), Scaling(), axis=0).shape == (0, 8)
    assert round_to_format(torch.empty(0, 8), parse("fp4")).shape == (0, 8)


def test_wrong_arguments_are_refused() -> None:
    """Each message names the field and what it accepts."""
    x, fmt = torch.ones(2, 3), parse("fp4")
    with pytest.raises(ValueError, match="dtype float32, bfloat16 or float16, got"):
        round_to_format(x.double(), fmt)
    with pytest.raises(ValueError, match="rounding in \\['even', 'away', 'stochastic'\\]"):
        round_to_format(x, fmt, rounding="up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="axis in -2 to 1, got 2"):
        quantize(x, fmt, Scaling(), axis=2)
    with pytest.raises(ValueError, match="out of shape"):
        quantize(x, fmt, Scaling(), out=torch.ones(3, 2))
    with pytest.raises(ValueError, match="non_finite 'raise' or 'propagate'"):
        quantize(x, fmt, Scaling(), non_finite="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="block_size >= 1 with blocks, got None"):
        Scaling(granularity="block")
    with pytest.raises(ValueError, match="block_size only with blocks, got 8"):
        Scaling(block_size=8)
    with pytest.raises(ValueError, match="granularity 'tensor', 'channel' or 'block'"):
        Scaling(granularity="row")  # type: ignore[arg-type]
