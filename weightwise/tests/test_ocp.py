"""MX formats and layers that train in them against the OCP's definition, element by element."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from weightwise.numerics import (
    PrecisionConfig,
    QuantizedLinear,
    ScaledFormat,
    Target,
    fake_quantize,
)

# Exponent bits, mantissa bits, largest value and its exponent (OCP MX v1.0, section 5.3).
ELEMENTS = {
    "mxfp8_e4m3": (4, 3, 448.0, 8),
    "mxfp8_e5m2": (5, 2, 57344.0, 15),
    "mxfp6_e3m2": (3, 2, 28.0, 4),
    "mxfp6_e2m3": (2, 3, 7.5, 2),
    "mxfp4": (2, 1, 6.0, 2),
}


def element(value: float, exponent_bits: int, mantissa_bits: int, largest: float) -> float:
    """Nearest value of a format, ties to even: Python's own round, in steps of the binade."""
    lowest = 2 - 2 ** (exponent_bits - 1)
    exponent = max(math.frexp(value)[1] - 1, lowest)
    step = 2.0 ** (exponent - mantissa_bits)
    return math.copysign(min(abs(round(value / step) * step), largest), value)


def ocp_line(line: list[float], name: str) -> list[float]:
    """Blocks of 32 of one line: section 6.3, with floor(log2) of the largest magnitude."""
    exponent_bits, mantissa_bits, largest, top = ELEMENTS[name]
    result = []
    for start in range(0, len(line), 32):
        block = line[start : start + 32]
        amax = max(map(abs, block))
        shared = max(math.frexp(amax)[1] - 1 - top, -127) if amax else -127
        scale = 2.0**shared
        result += [element(v / scale, exponent_bits, mantissa_bits, largest) * scale for v in block]
    return result


def ocp(x: Tensor | np.ndarray, name: str, axis: int) -> np.ndarray:
    """A matrix in an MX format along an axis, in float64."""
    lines = np.moveaxis(np.asarray(x, dtype=np.float64), axis, -1)
    done = np.array([ocp_line(line.tolist(), name) for line in lines])
    return np.moveaxis(done, -1, axis)


def normal(*shape: int, seed: int) -> Tensor:
    """Normal numbers whose rows and columns differ in magnitude by a few powers of two."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return x * 2.0 ** torch.randint(-3, 4, shape, generator=generator)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ELEMENTS)
def test_mx_formats_follow_their_definition(name: str, axis: int) -> None:
    """Every element is the one of the definition, ragged last blocks included."""
    x = normal(70, 45, seed=1)
    got = fake_quantize(x, name, axis=axis).double()
    assert np.array_equal(got.numpy(), ocp(x, name, axis))


TARGETS = [{target} for target in Target] + [{Target.P2, Target.P4, Target.P6}, set(Target)]


@pytest.mark.parametrize("name", ["mxfp8", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4"])
@pytest.mark.parametrize("targets", TARGETS, ids=lambda targets: "+".join(sorted(targets)))
def test_layers_follow_the_definition(name: str, targets: set[Target]) -> None:
    """Output and gradients are products of operands in blocks along what is summed over."""
    precision = PrecisionConfig(format=name, targets=tuple(sorted(targets)))
    linear = QuantizedLinear(64, 96, bias=False, precision=precision)
    weight, x, dy = normal(96, 64, seed=1), normal(40, 64, seed=2), normal(40, 96, seed=3)
    linear.weight.data.copy_(weight)
    x.requires_grad_()
    y = linear(x)
    y.backward(dy)
    known = "mxfp8_e4m3" if name == "mxfp8" else name

    def q(operand: Tensor, target: Target, axis: int) -> np.ndarray:
        if target in targets:
            return ocp(operand.detach(), known, axis)
        return operand.detach().double().numpy()

    expected = [
        (y, q(x, Target.P1, 1) @ q(weight, Target.P2, 1).T),
        (x.grad, q(dy, Target.P3, 1) @ q(weight, Target.P4, 0)),
        (linear.weight.grad, q(dy, Target.P5, 0).T @ q(x, Target.P6, 0)),
    ]
    for got, want in expected:
        assert got is not None
        # Sums of 40 to 96 products in float32; a wrong operand would be off by 1e-2 and more.
        bound = 1e-5 * np.abs(want).max()
        np.testing.assert_allclose(got.detach().double().numpy(), want, rtol=0, atol=bound)


def test_mxint8_is_twos_complement_with_six_binary_places() -> None:
    """Whole numbers over 64 in int8, -127 to 127, times the block's power of two."""
    x = normal(64, 320, seed=5)
    x[3, :32] = 0.0
    x[4, :32] = torch.linspace(-1.999, 1.999, 32)  # rounds beyond 127 / 64 at both ends
    got = fake_quantize(x, "mxint8")
    blocks = x.double().numpy().reshape(64, 10, 32)
    amax = np.abs(blocks).max(-1, keepdims=True)
    scale = np.exp2(np.where(amax > 0, np.floor(np.log2(np.where(amax > 0, amax, 1))), -127))
    whole = np.clip(np.rint(blocks / scale * 64), -127, 127).astype(np.int8)
    assert np.array_equal(got.double().numpy(), (whole * (scale / 64)).reshape(64, 320))
    code = ScaledFormat.parse("mxint8").element.encode(torch.from_numpy(whole / 64.0))
    assert np.array_equal(code.numpy().astype(np.uint8), whole.view(np.uint8))


@pytest.mark.parametrize("sharing", ["@tensor", "@channel", "@32", "@16/bfloat16", "@32/e8m0"])
@pytest.mark.parametrize("bits", [3, 4, 6, 8, 12])
def test_integers_equal_one_exponent_bit(bits: int, sharing: str) -> None:
    """INTk, E0M(k-1) and E1M(k-2) have the same levels up to a factor, hence the same results."""
    x = normal(32, 100, seed=6)
    got = fake_quantize(x, f"int{bits}{sharing}")
    for other in (f"e0m{bits - 1}{sharing}", f"e1m{bits - 2}{sharing}"):
        assert torch.equal(got, fake_quantize(x, other))
