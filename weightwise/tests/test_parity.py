"""Rounding and scaled formats against torchao and QPyTorch, and what libraries disagree on."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import ml_dtypes
import ninja
import numpy as np
import pytest
import torch
from torch import Tensor
from torchao.prototype.custom_fp_utils import _f32_to_floatx_unpacked, _floatx_unpacked_to_f32
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.constants import DTYPE_FP6_E2M3, DTYPE_FP6_E3M2
from torchao.prototype.mx_formats.mx_tensor import MXTensor
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

from weightwise.numerics import FloatFormat, fake_quantize, parse, round_to_format

if TYPE_CHECKING:
    from collections.abc import Callable

MX: dict[str, Any] = {
    "mxfp8_e4m3": torch.float8_e4m3fn,
    "mxfp8_e5m2": torch.float8_e5m2,
    "mxfp6_e3m2": DTYPE_FP6_E3M2,
    "mxfp6_e2m3": DTYPE_FP6_E2M3,
    "mxfp4": torch.float4_e2m1fn_x2,
}
RULES = {rule: getattr(ScaleCalculationMode, rule.upper()) for rule in ("floor", "ceil", "even")}
RULES["rceil"] = ScaleCalculationMode.RCEIL
BYTE_FORMATS = [(e, m) for e in range(1, 7) for m in range(1, 8 - e)]  # 1 + E + M <= 8


def assert_same_bits(a: Tensor, b: Tensor) -> None:
    """Compare values including the sign of zero, and show the first differences."""
    integer = torch.int32 if a.dtype == torch.float32 else torch.int16
    is_different = a.contiguous().view(integer) != b.contiguous().view(integer)
    shown = a[is_different][:5].tolist(), b[is_different][:5].tolist()
    assert not is_different.any(), (int(is_different.sum()), *shown)


def probes(fmt: FloatFormat) -> Tensor:
    """Levels, midpoints, the float32 neighbours of both, and random magnitudes, of either sign."""
    levels = fmt.levels().numpy()
    points = np.concatenate([levels, (levels[1:] + levels[:-1]) / 2]).astype(np.float32)
    infinity = np.float32(np.inf)
    around = [points, np.nextafter(points, infinity), np.nextafter(points, -infinity)]
    lowest, highest = np.log2([levels[1] / 8, 4 * fmt.max])
    random = np.exp2(np.random.default_rng(5).uniform(lowest, highest, 50_000))
    x = torch.from_numpy(np.concatenate([*around, random.astype(np.float32)]))
    return torch.cat([x, -x])


def blocks(dtype: torch.dtype, size: int = 32) -> Tensor:
    """Blocks of magnitudes from 2^-90 to 2^90, of zeros, with zeros, and of powers of two."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4096, 4 * size, generator=generator)
    x *= 2.0 ** torch.randint(-90, 91, (4096, 1), generator=generator)
    x[::7, ::3] = 0.0
    x[5:40] = -0.0
    powers = 2.0 ** torch.randint(-90, 91, (512, 1), generator=generator)
    x[512:1024] = powers * (torch.randint(-64, 65, (512, 4 * size), generator=generator) / 64)
    x[512:1024, ::size] = powers
    return x.to(dtype)


@pytest.mark.parametrize(("exponent_bits", "mantissa_bits"), BYTE_FORMATS)
def test_rounding_equals_torchao(exponent_bits: int, mantissa_bits: int) -> None:
    """All formats of up to eight bits round as in torchao, at ties and beside them too."""
    fmt = FloatFormat(exponent_bits=exponent_bits, mantissa_bits=mantissa_bits)
    x = probes(fmt)
    code = _f32_to_floatx_unpacked(x, exponent_bits, mantissa_bits)
    ours = round_to_format(x, fmt)
    assert_same_bits(ours, _floatx_unpacked_to_f32(code, exponent_bits, mantissa_bits))
    assert torch.equal(fmt.encode(ours), code.long())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", MX)
def test_mx_formats_equal_torchao(name: str, rule: str, dtype: torch.dtype) -> None:
    """Each MX format with each way to choose the power of two gives torchao's numbers."""
    x = blocks(dtype)
    theirs = MXTensor.to_mx(x, MX[name], 32, RULES[rule]).dequantize(dtype)
    assert_same_bits(fake_quantize(x, f"{name}-{rule}"), theirs)


def test_smallest_mx_scale() -> None:
    """Scale 2^-127 is in the specification; torchao rounds with 2^-126 and returns half."""
    x = torch.zeros(1, 32)
    x[0, :3] = torch.tensor([4.0, 3.0, -1.0]) * 2.0**-127  # levels of E2M1 times 2^-127
    assert torch.equal(fake_quantize(x, "mxfp4"), x)
    theirs = MXTensor.to_mx(x, MX["mxfp4"], 32).dequantize(torch.float32)
    assert torch.equal(theirs, x / 2)
    x *= 2  # from here on there is no difference
    theirs = MXTensor.to_mx(x, MX["mxfp4"], 32).dequantize(torch.float32)
    assert_same_bits(fake_quantize(x, "mxfp4"), theirs)


def test_round_up_rule_just_above_a_power_of_two() -> None:
    """Largest magnitude 6 * 2^40 and one ulp: the scale must be 2^41, which a logarithm misses."""
    x = torch.zeros(1, 32)
    x[0, 0] = torch.tensor(6.0 * 2.0**40).nextafter(torch.tensor(torch.inf))
    x[0, 1] = 2.0**39  # a level with scale 2^40; half of one, which goes to zero, with 2^41
    assert fake_quantize(x, "mxfp4-rceil")[0, :2].tolist() == [6 * 2.0**40, 0]
    theirs = MXTensor.to_mx(x, MX["mxfp4"], 32, RULES["rceil"])
    assert int(theirs.scale.view(torch.uint8)[0, 0]) == 127 + 40


def test_nvfp4_equals_torchao() -> None:
    """The two levels of scales, zeros and small blocks included, are those of torchao."""
    x = blocks(torch.float32, 16)
    x = x[(x.abs().amax(1) < 2.0**30) & (x.abs().amax(1) > 2.0**-30)]
    for part in (x, x[:1], torch.randn(64, 256, generator=torch.Generator().manual_seed(3))):
        scale = per_tensor_amax_to_scale(part.abs().max())
        theirs = NVFP4Tensor.to_nvfp4(part.contiguous(), per_tensor_scale=scale)
        assert_same_bits(fake_quantize(part, "nvfp4"), theirs.dequantize(torch.float32))


def slow_nvfp4(x: np.ndarray, least: float) -> np.ndarray:
    """Blocks of 16 along rows, one after the other, in float32 with ml_dtypes' casts."""
    tensor_scale = np.abs(x).max() / np.float32(448 * 6)
    result = np.empty_like(x)
    for i, j in np.ndindex(x.shape[0], x.shape[1] // 16):
        block = x[i, 16 * j : 16 * j + 16]
        wanted = np.abs(block).max() / np.float32(6) / tensor_scale
        scale = np.clip(wanted, np.float32(least), np.float32(448))
        scale = scale.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        scaled = block * (np.float32(1) / tensor_scale / scale)
        rounded = np.clip(scaled, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
        result[i, 16 * j : 16 * j + 16] = rounded * (scale * tensor_scale)
    return result


def test_smallest_nvfp4_scale() -> None:
    """Down to 2^-9 small blocks keep digits that end at 2^-6 otherwise (pytorch #179111)."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(64, 64, generator=generator)
    x *= 2.0 ** torch.randint(-24, 1, (64, 4), generator=generator).repeat_interleave(16, 1)
    for name, least in (("nvfp4", 2.0**-6), ("nvfp4-subnormal", 2.0**-9)):
        assert_same_bits(fake_quantize(x, name), torch.from_numpy(slow_nvfp4(x.numpy(), least)))
    small = x.abs() < 2.0**-10 * x.abs().max()
    with_normal, with_subnormal = fake_quantize(x, "nvfp4"), fake_quantize(x, "nvfp4-subnormal")
    assert with_subnormal[small].count_nonzero() > with_normal[small].count_nonzero()


@pytest.fixture(scope="module")
def float_quantize() -> Callable[..., Tensor]:
    """QPyTorch's rounding, which is compiled when it is first imported."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("needs a C++ compiler")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([ninja.BIN_DIR, os.environ["PATH"]]))
        from qtorch.quant import float_quantize
    return float_quantize  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exponent_bits", "mantissa_bits"),
    [(1, 2), (2, 1), (2, 3), (3, 2), (4, 3), (5, 2), (5, 10), (6, 5), (7, 8)],
)
def test_ties_away_equal_qpytorch(
    float_quantize: Callable[..., Tensor], exponent_bits: int, mantissa_bits: int
) -> None:
    """Rounding agrees but for inputs one ulp below a subnormal midpoint, which QPyTorch lifts."""
    fmt = FloatFormat(exponent_bits=exponent_bits, mantissa_bits=mantissa_bits)
    x = torch.cat([probes(fmt), torch.tensor([torch.inf, -torch.inf, 1e30, -1e30])])
    ours = round_to_format(x, fmt, rounding="away")
    theirs = float_quantize(x, exp=exponent_bits, man=mantissa_bits, rounding="nearest")
    assert fmt.min_subnormal is not None
    midpoint = (torch.arange(2**mantissa_bits) + 0.5) * fmt.min_subnormal
    below = midpoint.nextafter(torch.tensor(0.0))
    assert torch.equal(x[ours != theirs].abs().unique(), below)
    # There it adds 2^e_min first, so that float32 rounds before the format does.
    lifted = ours + fmt.min_subnormal * x.sign()
    assert torch.equal(theirs[ours != theirs], lifted[ours != theirs])


@pytest.mark.slow
def test_overflow_conventions(float_quantize: Callable[..., Tensor]) -> None:
    """500 in E4M3: NaN in ml_dtypes, 448 in torch, 480 where no code is reserved; so is ours."""
    x = torch.tensor([500.0, torch.inf])
    assert np.isnan(x.numpy().astype(ml_dtypes.float8_e4m3fn).astype(np.float32)).all()
    assert x.to(torch.float8_e4m3fn).float().tolist() == [448, 448]
    assert float_quantize(x, exp=4, man=3, rounding="nearest").tolist() == [480, 480]
    assert round_to_format(x, parse("float8_e4m3fn")).tolist() == [448, 448]
    assert round_to_format(x, parse("e4m3")).tolist() == [480, 480]
