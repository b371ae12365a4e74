"""Microsoft's microxcaling beside ours: MX formats, rounding, and linear layers of six operands.

    MICROXCALING=/path/to/a/clone python weightwise/benchmarks/microxcaling.py

The library is on no package index; without a clone the script says so and measures nothing. It
computes logarithms in float32, so blocks whose largest magnitude lies an ulp below a power of two
may get another scale than the one defined; random data hold next to none.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from peers.clock import SEED, emit
from torch import Tensor

from weightwise.numerics import (
    FloatFormat,
    PrecisionConfig,
    QuantizedLinear,
    Target,
    fake_quantize,
    round_to_format,
)

SYSTEM = "precision-law"
PEER = "microxcaling"
FORMATS = {
    "fp8_e4m3": "mxfp8_e4m3",
    "fp8_e5m2": "mxfp8_e5m2",
    "fp6_e3m2": "mxfp6_e3m2",
    "fp6_e2m3": "mxfp6_e2m3",
    "fp4_e2m1": "mxfp4",
    "int8": "mxint8",
}
OPERANDS = {
    Target.P1: "a_elem_format",
    Target.P2: "w_elem_format",
    Target.P3: "a_elem_format_bp_os",
    Target.P4: "w_elem_format_bp",
    Target.P5: "a_elem_format_bp_ex",
    Target.P6: "a_elem_format_bp",
}
TARGETS = [(target,) for target in Target] + [(Target.P2, Target.P4, Target.P6), tuple(Target)]


def main() -> int:
    folder = os.environ.get("MICROXCALING")
    if not folder:
        print("set MICROXCALING to a clone of microsoft/microxcaling; passed over", file=sys.stderr)
        return 0
    sys.path.insert(0, folder)
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(2048, 512, generator=generator)
    x *= 2.0 ** torch.randint(-80, 81, (2048, 1), generator=generator)
    for theirs, ours in FORMATS.items():
        emit(
            SYSTEM, peer=PEER, name=f"quantizer_mismatches_{ours}_{PEER}",
            value=mx_mismatches(x, theirs, ours), unit="values", goal=("<=", 0),
            detail={"compared": 2 * x.numel()},
        )  # fmt: skip
    for exponent_bits, mantissa_bits in ((2, 1), (2, 3), (3, 2), (4, 3), (5, 2)):
        fmt = FloatFormat(exponent_bits=exponent_bits, mantissa_bits=mantissa_bits)
        count, compared = rounding_mismatches(fmt)
        emit(
            SYSTEM, peer=PEER, name=f"quantizer_mismatches_{fmt.name.lower()}_{PEER}",
            value=count, unit="values", goal=("<=", 0),
            detail={"compared": compared, "accepted": "float32 next below the first midpoint"},
        )  # fmt: skip
    for theirs, ours in FORMATS.items():
        worst, compared = layer_difference(theirs, ours)
        emit(
            SYSTEM, peer=PEER, name=f"linear_difference_{ours}_{PEER}", value=worst,
            unit="of the largest element", goal=("<=", 1e-6),
            detail={"compared": compared, "targets": len(TARGETS)},
        )  # fmt: skip
    return 0


def mx_mismatches(x: Tensor, theirs: str, ours: str) -> int:
    """Values that differ between the two, blocks along rows and along columns."""
    from mx.mx_ops import _quantize_mx

    count = 0
    for axis in (0, 1):
        expected = _quantize_mx(x, 8, theirs, axes=[axis], block_size=32, round="even")
        count += int((fake_quantize(x, ours, axis=axis) != expected).sum())
    return count


def rounding_mismatches(fmt: FloatFormat) -> tuple[int, int]:
    """Values rounded differently, the one input that microxcaling rounds twice left out."""
    from mx.elemwise_ops import _quantize_elemwise_core

    levels = fmt.levels(torch.float32)
    points = torch.cat([levels, (levels[1:] + levels[:-1]) / 2])
    top = torch.tensor(torch.inf)
    generator = torch.Generator().manual_seed(SEED)
    random = torch.randn(1_000_000, generator=generator) * fmt.max / 2
    x = torch.cat([points, points.nextafter(top), points.nextafter(-top), random])
    x = torch.cat([x, -x])
    x = x[x.abs() != (levels[1] / 2).nextafter(-top)]
    count = 0
    for ours, theirs in (("even", "even"), ("away", "nearest")):
        expected = _quantize_elemwise_core(
            x, fmt.mantissa_bits + 2, fmt.exponent_bits, fmt.max, round=theirs,
            saturate_normals=True,
        )  # fmt: skip
        got = round_to_format(x, fmt, rounding=ours)  # type: ignore[arg-type]
        count += int((got != expected).sum())
    return count, 2 * len(x)


def layer_difference(theirs: str, ours: str) -> tuple[float, int]:
    """Largest difference of outputs and gradients over all targets, and how many are compared."""
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.randn(192, 256, generator=generator)
    x, dy = (torch.randn(320, size, generator=generator) for size in (256, 192))
    worst, compared = 0.0, 0
    for targets in TARGETS:
        linear = QuantizedLinear(
            256, 192, bias=False, precision=PrecisionConfig(format=ours, targets=targets)
        )
        linear.weight.data.copy_(weight)
        got = run(linear, x, linear.weight, dy)
        expected = run(their_layer(linear.weight, theirs, targets), x, linear.weight, dy)
        for a, b in zip(got, expected, strict=True):
            worst = max(worst, ((a - b).abs().max() / b.abs().max()).item())
            compared += a.numel()
    return worst, compared


def their_layer(weight: Tensor, theirs: str, targets: tuple[Target, ...]) -> Any:
    """Their layer, no operand of which takes the format of another by default."""
    from mx import linear
    from mx.specs import get_default_mx_specs

    specs = get_default_mx_specs()
    for name in specs:
        if name.startswith("round"):
            specs[name] = "even"
    specs |= {"scale_bits": 8, "block_size": 32}
    specs |= {name: theirs for target, name in OPERANDS.items() if target in targets}
    return lambda x: linear(x, weight, mx_specs=specs)


def run(layer: Any, x: Tensor, weight: Tensor, dy: Tensor) -> list[Tensor]:
    """Output and both gradients."""
    x, weight.grad = x.clone().requires_grad_(), None
    y = layer(x)
    y.backward(dy)
    assert x.grad is not None
    assert weight.grad is not None
    return [y.detach(), x.grad, weight.grad]


if __name__ == "__main__":
    raise SystemExit(main())
