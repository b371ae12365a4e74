"""Rounding against three other libraries, and the time of a fake-quantize against a copy.

    python weightwise/benchmarks/quantizer.py

Every level, every midpoint between levels, both float32 neighbours of each, and a million random
numbers are rounded to the OCP formats here and by ml_dtypes, torch and gfloat; results that differ
in any bit are counted, the sign of zero included. Times are medians of ratios, each repetition
interleaved with a copy of the same tensor.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import torch

from weightwise.numerics import FloatFormat, Scaling, fake_quantize, parse, round_to_format

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS = ("float8_e4m3fn", "float8_e5m2", "float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn")
SEED = 1
NUM_RANDOM = 1_000_000
SIZE = 4096
REPEATS = 11


def main() -> None:
    rng = np.random.default_rng(SEED)
    for name in FORMATS:
        x = points(parse(name), rng)
        ours = round_to_format(torch.from_numpy(x), parse(name)).numpy()
        for peer, rounding in peers(name).items():
            differ = ours.view(np.int32) != rounding(x).view(np.int32)
            emit(
                name=f"quantizer_mismatches_{name}_{peer}",
                value=int(differ.sum()),
                unit="values",
                peer=peer,
                goal=("<=", 0),
                detail={"compared": len(x)},
            )
    normal = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(SEED))
    for label, scaling in {
        "tensor": Scaling(granularity="tensor"),
        "channel": Scaling(granularity="channel"),
        "block32": Scaling(granularity="block", block_size=32),
    }.items():
        ratio, seconds = time_against_copy(normal, scaling)
        emit(
            name=f"quantizer_time_e4m3_{label}_over_copy",
            value=round(ratio, 2),
            unit="x",
            peer="torch copy_",
            goal=None,
            detail={
                "size": [SIZE, SIZE],
                "dtype": "float32",
                "ms": round(seconds * 1e3, 1),
                "runs": REPEATS,
                "threads": torch.get_num_threads(),
            },
        )


def emit(
    *,
    name: str,
    value: float,
    unit: str,
    peer: str,
    goal: tuple[str, float] | None,
    detail: dict[str, object],
) -> None:
    """Print one measurement on stdout."""
    row = {"system": "foundation", "name": name, "value": value, "unit": unit, "peer": peer}
    print(json.dumps(row | {"goal": goal, "detail": detail, "seed": SEED}), flush=True)


def points(fmt: FloatFormat, rng: np.random.Generator) -> np.ndarray:
    """Critical points of either sign and random magnitudes over the range of the format."""
    levels = fmt.levels().numpy()
    points = np.concatenate([levels, (levels[1:] + levels[:-1]) / 2]).astype(np.float32)
    infinity = np.float32(np.inf)
    neighbours = [np.nextafter(points, infinity), np.nextafter(points, -infinity)]
    lowest, highest = np.log2([levels[1] / 8, fmt.max])
    random = np.exp2(rng.uniform(lowest, highest, NUM_RANDOM)).astype(np.float32)
    x = np.concatenate([points, *neighbours, random])
    return np.concatenate([x, -x])


def peers(name: str) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """How each library that knows the format rounds float32 numbers to it."""
    info = getattr(gfloat.formats, f"format_info_ocp_{name.split('_')[1].removesuffix('fn')}")
    roundings: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "ml_dtypes": lambda x: x.astype(getattr(ml_dtypes, name)).astype(np.float32),
        "gfloat": lambda x: gfloat.round_ndarray(
            info, x, gfloat.RoundMode.TiesToEven, sat=True
        ).astype(np.float32),
    }
    if hasattr(torch, name):
        dtype = getattr(torch, name)
        roundings["torch"] = lambda x: torch.from_numpy(x).to(dtype).float().numpy()
    return roundings


def time_against_copy(x: torch.Tensor, scaling: Scaling) -> tuple[float, float]:
    """Median ratio to a copy, and median seconds, into outputs that exist already."""
    out, copied = torch.empty_like(x), torch.empty_like(x)
    fmt = parse("e4m3")
    ratios, seconds = [], []
    for repeat in range(REPEATS + 1):
        copy_s = clock(lambda: copied.copy_(x))
        ours_s = clock(lambda: fake_quantize(x, fmt, scaling, out=out))
        if repeat > 0:  # the first one warms up
            ratios.append(ours_s / copy_s)
            seconds.append(ours_s)
    print(f"{scaling}: {min(ratios):.1f} to {max(ratios):.1f} copies", file=sys.stderr)
    return statistics.median(ratios), statistics.median(seconds)


def clock(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
