"""Times on a GPU, and the rows that tell of them.

The sizes of the benchmarks are those of one GPU with 80 GB. With ``--tiny`` their sizes are small
and any device will do: their figures then mean nothing, which tests make use of.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import TYPE_CHECKING

import torch

from peers import clock

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM_UP_S = 0.3
# Dense bfloat16 products, FLOP/s, as NVIDIA's data sheets of 2020 to 2023 state them.
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}


def arguments(about: str, parts: tuple[str, ...], script: str) -> argparse.Namespace | None:
    """Options of a script; ``None``, with a word on stderr, where there is nothing to measure."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="what to measure")
    parser.add_argument("--tiny", action="store_true", help="small sizes on any device, for tests")
    options = parser.parse_args()
    if options.tiny or DEVICE.type == "cuda":
        return options
    print(f"{script}: no CUDA device here, nothing measured", file=sys.stderr)
    return None


def gpu_name() -> str:
    """The GPU in words."""
    return torch.cuda.get_device_name() if DEVICE.type == "cuda" else "none"


def peak_flop_per_s() -> float | None:
    """What its data sheet promises for products in bfloat16, if it is a known one."""
    return next((peak for kind, peak in PEAKS.items() if kind in gpu_name()), None)


def seconds(work: Callable[[], object], *, calls: int = 5, repeats: int = 11) -> float:
    """Median time of one of several calls in a row, after some to warm up."""
    if DEVICE.type == "cpu":
        return min(_seconds_of(work, 1) for _ in range(2))
    start = time.perf_counter()
    work()
    synchronize()
    while time.perf_counter() - start < WARM_UP_S:
        work()
        synchronize()
    return statistics.median(_seconds_of(work, calls) for _ in range(repeats)) / calls


def synchronize() -> None:
    """Wait for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def free_bytes() -> int:
    """Memory of the device that nothing uses, what torch keeps for reuse given back first."""
    if DEVICE.type == "cpu":
        return 1 << 24
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def emit(
    system: str, *, name: str, value: float, unit: str, peer: str | None = None,
    goal: tuple[str, float] | None = None, detail: dict[str, object],
) -> None:  # fmt: skip
    """Print one measurement on stdout, with the GPU it was taken on."""
    clock.emit(
        system, name=name, value=value, unit=unit, peer=peer, goal=goal,
        detail=detail | {"gpu": gpu_name()},
    )  # fmt: skip


def _seconds_of(work: Callable[[], object], calls: int) -> float:
    if DEVICE.type == "cpu":
        start_s = time.perf_counter()
        for _ in range(calls):
            work()
        return time.perf_counter() - start_s
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        work()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / 1e3
