"""Bandwidth of fake-quantization on a GPU beside that of a copy, and the time of a linear layer.

    python weightwise/benchmarks/gpu_quantizer.py

A copy reads and writes every element once. So does fake-quantization, except where a scale belongs
to the whole tensor: the tensor is then read twice, and bandwidth counts both readings. Times are
medians over CUDA events around several calls in a row, each repetition interleaved with the peer.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from weightwise.numerics import PrecisionConfig, QuantizedLinear, ScaledFormat, fake_quantize
from weightwise.numerics.kernels import has_triton

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEM = "precision-law"
SEED = 1
SIZE = 8192  # 128 MiB in bfloat16: more than any cache holds
COMPARED_ROWS = 256
WIDTH = 4096  # tokens, features in and features out of the linear layer
CALLS, REPEATS = 10, 21
NAMES = [
    f"{element}@{sharing}"
    for element in ("e4m3", "e2m1", "e3m2")
    for sharing in ("tensor", "channel", "32", "16")
]
NAMES += ["mxfp4", "nvfp4"]
LINEAR_NAMES = ("e4m3@channel", "e4m3@32", "mxfp4", "nvfp4")
TARGETS = ("P1", "P2", "P3", "P4", "P5", "P6")


def main() -> None:
    if not (torch.cuda.is_available() and has_triton()):
        print("gpu_quantizer: no CUDA device with Triton here, nothing measured", file=sys.stderr)
        return
    generator = torch.Generator("cuda").manual_seed(SEED)
    x = torch.randn(SIZE, SIZE, generator=generator, device="cuda", dtype=torch.bfloat16)
    emit(
        name="gpu_mismatches_with_cpu", value=mismatches(x[:COMPARED_ROWS].float()), unit="values",
        peer="CPU path", goal=("<=", 0),
        detail={"compared": COMPARED_ROWS * SIZE * len(NAMES) * 3, "formats": NAMES},
    )  # fmt: skip
    for name in NAMES:
        measure_bandwidth(x, name)
    for name in LINEAR_NAMES:
        measure_linear(name, generator)


def mismatches(x: Tensor) -> int:
    """Count the elements whose bits differ from those of the CPU, over formats and roundings."""
    here, count = x.cpu(), 0
    for name in NAMES:
        for rounding in ("even", "away", "stochastic"):
            options: Any = {"axis": 0, "rounding": rounding, "seed": SEED}
            got = fake_quantize(x, name, **options).cpu()
            expected = fake_quantize(here, name, **options)
            count += int((got.view(torch.int32) != expected.view(torch.int32)).sum())
    return count


def measure_bandwidth(x: Tensor, name: str) -> None:
    """Emit the bandwidth of a format as a share of the copy's."""
    scaling = ScaledFormat.parse(name).scaling
    passes = 3 if scaling.granularity == "tensor" or scaling.scale == "e4m3" else 2
    ours_s, copy_s, ratio = times(
        lambda: fake_quantize(x, name, non_finite="propagate"), lambda: torch.clone(x)
    )
    num_bytes = x.numel() * x.element_size()
    emit(
        name=f"gpu_{name.replace('@', '_')}_bandwidth_over_copy",
        value=round(passes / 2 / ratio, 3), unit="x", peer="torch.clone", goal=(">=", 0.7),
        detail={
            "size": list(x.shape), "dtype": "bfloat16", "passes": passes,
            "ours_gb_s": round(passes * num_bytes / ours_s / 1e9),
            "copy_gb_s": round(2 * num_bytes / copy_s / 1e9),
            "time_over_copy": round(ratio, 3), "runs": REPEATS,
        },
    )  # fmt: skip


def measure_linear(name: str, generator: torch.Generator) -> None:
    """Emit the time of a layer with six quantized operands over that of a plain one."""
    options: Any = {"device": "cuda", "dtype": torch.bfloat16}
    precision = PrecisionConfig(format=name, targets=TARGETS)  # type: ignore[arg-type]
    layer = QuantizedLinear(WIDTH, WIDTH, bias=False, precision=precision, **options)
    x, dy = (torch.randn(WIDTH, WIDTH, generator=generator, **options) for _ in range(2))
    x.requires_grad_()

    def step(forward: Callable[[Tensor], Tensor]) -> None:
        torch.autograd.grad(forward(x), (x, layer.weight), dy)

    ours_s, plain_s, ratio = times(
        lambda: step(layer), lambda: step(lambda x: F.linear(x, layer.weight))
    )
    emit(
        name=f"gpu_linear_{name.replace('@', '_')}_time_over_plain", value=round(ratio, 3),
        unit="x", peer="torch F.linear, bfloat16", goal=None,
        detail={
            "size": [WIDTH] * 3, "passes": "forward and backward", "targets": list(TARGETS),
            "ours_ms": round(ours_s * 1e3, 3), "plain_ms": round(plain_s * 1e3, 3),
            "runs": REPEATS,
        },
    )  # fmt: skip


def times(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float, float]:
    """Median seconds of a call of each, and the median of their ratios."""
    pairs = [(clock(ours), clock(peer)) for _ in range(REPEATS + 1)][1:]  # the first one warms up
    ours_s, peer_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    return ours_s, peer_s, statistics.median(a / b for a, b in pairs)


def clock(work: Callable[[], object]) -> float:
    """Seconds that one of several calls takes on the device."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(CALLS):
        work()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / 1e3 / CALLS


def emit(
    *,
    name: str,
    value: float,
    unit: str,
    peer: str,
    goal: tuple[str, float] | None,
    detail: dict[str, Any],
) -> None:
    """Print one measurement on stdout."""
    detail |= {"gpu": torch.cuda.get_device_name()}
    row = {"system": SYSTEM, "name": name, "value": value, "unit": unit, "peer": peer}
    print(json.dumps(row | {"goal": goal, "detail": detail, "seed": SEED}), flush=True)


if __name__ == "__main__":
    main()
