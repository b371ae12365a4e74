"""Rounding against other libraries, and the time of a fake-quantize against a copy and peers.

    python weightwise/benchmarks/quantizer.py [--repeats N]

Every level, every midpoint between levels, both float32 neighbours of each, and a million random
numbers are rounded to the OCP formats here and by ml_dtypes, torch, gfloat and torchao; results
that differ in any bit are counted, the sign of zero included. MX formats are compared with torchao
under all four rules for the scale.

Times are medians of ratios to a copy into a tensor that exists already, taken right before; results
go to such tensors too where a library can. All ways take turns. One thread: CPU time of the
process; two: time on the wall. What a library does before its cast and after is torch's work (see
`peers/quantizers.py`). Memory is the highest use of the process above what it used before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import torch
from peers.clock import SEED, Times, compare, emit, threads
from torchao.prototype.custom_fp_utils import _f32_to_floatx_unpacked, _floatx_unpacked_to_f32
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.constants import DTYPE_FP6_E2M3, DTYPE_FP6_E3M2
from torchao.prototype.mx_formats.mx_tensor import MXTensor

from weightwise.numerics import FloatFormat, fake_quantize, parse, round_to_format

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEM = "precision-law"
FORMATS = ("float8_e4m3fn", "float8_e5m2", "float6_e3m2fn", "float6_e2m3fn", "float4_e2m1fn")
MX_DTYPES = {
    "mxfp8_e4m3": torch.float8_e4m3fn,
    "mxfp8_e5m2": torch.float8_e5m2,
    "mxfp6_e3m2": DTYPE_FP6_E3M2,
    "mxfp6_e2m3": DTYPE_FP6_E2M3,
    "mxfp4": torch.float4_e2m1fn_x2,
}
NUM_RANDOM = 1_000_000
SIZE = 4096
SHARINGS = ("tensor", "channel", "32")
TIMED = [f"{element}@{sharing}" for element in ("e4m3fn", "e2m1") for sharing in SHARINGS]
COPIES, TIMES_FASTER, EXTRA_MEMORY = ("<=", 1.6), (">=", 10.0), ("<=", 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="repetitions of each timing")
    repeats = parser.parse_args().repeats
    count_mismatches()
    for num_threads in (1, 2):
        with threads(num_threads):
            time_all(num_threads, repeats)
    measure_memory()


def count_mismatches() -> None:
    """Rows of differences between our results and those of other libraries."""
    rng = np.random.default_rng(SEED)
    for name in FORMATS:
        x = points(parse(name), rng)
        ours = round_to_format(torch.from_numpy(x), parse(name)).numpy()
        for peer, rounding in roundings(name).items():
            differ = ours.view(np.int32) != rounding(x).view(np.int32)
            emit(
                SYSTEM, name=f"quantizer_mismatches_{name}_{peer}", value=int(differ.sum()),
                unit="values", peer=peer, goal=("<=", 0), detail={"compared": len(x)},
            )  # fmt: skip
    x = torch.from_numpy(rng.standard_normal((1024, 1024), dtype=np.float32))
    x *= 2.0 ** torch.from_numpy(rng.integers(-90, 91, (1024, 1)))
    for name, dtype in MX_DTYPES.items():
        count = 0
        for rule in ("floor", "ceil", "even", "rceil"):
            mode = getattr(ScaleCalculationMode, rule.upper())
            theirs = MXTensor.to_mx(x.float(), dtype, 32, mode).dequantize(torch.float32)
            ours = fake_quantize(x.float(), f"{name}-{rule}")
            count += int((ours.view(torch.int32) != theirs.view(torch.int32)).sum())
        emit(
            SYSTEM, name=f"quantizer_mismatches_{name}_torchao", value=count, unit="values",
            peer="torchao", goal=("<=", 0), detail={"compared": 4 * x.numel()},
        )  # fmt: skip


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


def roundings(name: str) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """How each library that knows the format rounds float32 numbers to it."""
    info = getattr(gfloat.formats, f"format_info_ocp_{name.split('_')[1].removesuffix('fn')}")
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "ml_dtypes": lambda x: x.astype(getattr(ml_dtypes, name)).astype(np.float32),
        "gfloat": lambda x: gfloat.round_ndarray(
            info, x, gfloat.RoundMode.TiesToEven, sat=True
        ).astype(np.float32),
    }
    fmt = parse(name)
    if hasattr(torch, name):
        dtype = getattr(torch, name)
        found["torch"] = lambda x: torch.from_numpy(x).to(dtype).float().numpy()
    if fmt.specials == "none":
        bits = (fmt.exponent_bits, fmt.mantissa_bits)
        found["torchao"] = lambda x: _floatx_unpacked_to_f32(
            _f32_to_floatx_unpacked(torch.from_numpy(x), *bits), *bits
        ).numpy()
    return found


def time_all(num_threads: int, repeats: int) -> None:
    """Rows of times of all formats, ours and others'."""
    from peers.quantizers import compiled_reference, libraries  # compiles QPyTorch

    x = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(SEED))
    out, copied, peer_out = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    for name in [*TIMED, "mxfp8", "mxfp4", "nvfp4"]:
        ways = {
            "ours": lambda name=name: fake_quantize(x, name, out=out),
            "ours, columns": lambda name=name: fake_quantize(x, name, axis=0, out=out),
            "torch.compile": compiled_reference(name, x, peer_out),
            **libraries(name, x, peer_out),
        }
        if "tensor" in name:
            del ways["ours, columns"]
        times = compare(lambda: copied.copy_(x), ways, repeats)
        label = f"{name.replace('@', '_')}_{num_threads}t"
        report(label, times, COPIES if name in TIMED else None, num_threads)


def report(
    label: str, times: dict[str, Times], goal: tuple[str, float] | None, num_threads: int
) -> None:
    """Rows of one format: over a copy, ours and others'; and how much faster ours is."""
    size = {"size": [SIZE, SIZE], "dtype": "float32", "threads": num_threads}
    for way, found in times.items():
        print(f"{label:<18}{way:<18}{found.ratio:>8.2f} copies", file=sys.stderr)
        words = way.replace(", ", "_").replace(" ", "_").replace(".", "_")
        emit(
            SYSTEM, name=f"quantizer_copies_{label}_{words}", value=round(found.ratio, 2), unit="x",
            peer="torch copy_", goal=goal if way == "ours" else None, detail=size | found.detail(),
        )  # fmt: skip
    ours = times["ours"]
    others = {way: found for way, found in times.items() if not is_own(way)}
    peer = min(others, key=lambda way: others[way].ratio)
    faster = [b / a for a, b in zip(ours.seconds, others[peer].seconds, strict=False)]
    emit(
        SYSTEM, name=f"quantizer_times_faster_{label}", value=round(statistics.median(faster), 1),
        unit="x", peer=peer, goal=TIMES_FASTER, detail=size | {"runs": len(faster)},
    )  # fmt: skip


def is_own(way: str) -> bool:
    """Whether a way is code of this library."""
    return way.startswith("ours") or way == "torch.compile"


def measure_memory() -> None:
    """Row of the largest share of the tensor's size that any of the timed formats takes on top."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        shares = pool.apply(extra_memory)
    emit(
        SYSTEM, name="quantizer_extra_memory", value=round(max(shares.values()), 5),
        unit="of the tensor", goal=EXTRA_MEMORY, detail={"size": [SIZE, SIZE], "shares": shares},
    )  # fmt: skip


def extra_memory() -> dict[str, float]:
    """Highest use of memory during a call less the use before, over the size of the tensor."""
    torch.set_num_threads(2)
    shares = {}
    for name in [*TIMED, "mxfp4", "nvfp4"]:
        for axis in (0, 1):
            small = torch.randn(512, 512)
            fake_quantize(small, name, axis=axis, out=small)  # loads what is compiled
            x = torch.randn(SIZE, SIZE)
            out = torch.zeros_like(x)
            Path("/proc/self/clear_refs").write_text("5")  # the highest use starts anew
            before = status_bytes("VmRSS")
            fake_quantize(x, name, axis=axis, out=out)
            share = (status_bytes("VmHWM") - before) / x.nbytes
            shares[f"{name}, axis {axis}"] = round(max(share, 0.0), 5)
    return shares


def status_bytes(field: str) -> int:
    """A figure of this process that Linux tells in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(field))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
