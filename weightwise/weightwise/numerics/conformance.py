"""Conformance vectors: files by which hardware and other libraries can be tested bit for bit.

For every element format two CSV files. ``NAME.codes.csv``: each code and its value, in decimal and
as bits of float32 (formats up to 16 bits). ``NAME.rounding.csv``: float32 numbers by their bits and
the codes to which they are rounded: ties to even, ties away from zero, and stochastic with seed 1
and the row's number, counted from 0, as position. The numbers are all values (every 256th of a
format with more than 8 bits), the midpoints between neighbours, both float32 neighbours of each,
numbers beyond the range, and random ones.

For every scaled format ``NAME.jsonl``: one tensor of one row a line, with the bits of its elements
(``x``), the codes (``codes``), the stored scales (``scales``: S as bits of float32, or codes of
E8M0 or E4M3), the bits of ``tensor_scale`` or null, and those of the decoded elements
(``decoded``).
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from weightwise.numerics.encoded import encode, unpack
from weightwise.numerics.formats import parse
from weightwise.numerics.quantize import round_to_format
from weightwise.numerics.scaling import NAMED, RULES, ScaledFormat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from weightwise.numerics.formats import FloatFormat

ELEMENTS = (
    "e1m1", "e1m2", "e1m6", "e2m1", "e2m3", "e3m0", "e3m2", "e4m3", "e4m3fn", "e4m3ieee", "e5m2",
    "e5m2ieee", "e3m4ieee", "int4", "int8", "fp16", "bf16",
)  # fmt: skip
SCALED = (
    *(f"{name}-{rule}" for name in NAMED if name.startswith("mx") for rule in RULES),
    "nvfp4-normal", "nvfp4-subnormal", "e4m3@32", "e2m1@32", "e2m1@channel", "int8@tensor",
)  # fmt: skip
NUM_RANDOM, NUM_TENSORS, LENGTH, SEED = 1000, 80, 70, 1
LISTED_BITS = 16


def write_conformance_vectors(folder: Path) -> list[Path]:
    """Write the vectors of all named formats.

    Parameters
    ----------
    folder
        Made if it does not exist; files of the same names are replaced.

    Returns
    -------
    The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in ELEMENTS:
        fmt = parse(name)
        written.append(_write_csv(folder / f"{name}.codes.csv", _codes(fmt)))
        written.append(_write_csv(folder / f"{name}.rounding.csv", _roundings(fmt)))
    for name in SCALED:
        path = folder / f"{name.replace('/', '_')}.jsonl"
        lines = [json.dumps(line) for line in _tensors(ScaledFormat.parse(name))]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _codes(fmt: FloatFormat) -> Iterator[tuple[object, ...]]:
    yield "code", "value", "float32_bits"
    codes = torch.arange(1 << fmt.bits)
    values = fmt.decode(codes)
    for code, value, bits in zip(
        codes.tolist(), values.tolist(), _bits(values.float()), strict=True
    ):
        yield code, repr(value), bits


def _roundings(fmt: FloatFormat) -> Iterator[tuple[object, ...]]:
    yield "float32_bits", "even", "away", "stochastic"
    x = critical_points(fmt)
    columns = [
        fmt.encode(round_to_format(x, fmt, rounding="even")),
        fmt.encode(round_to_format(x, fmt, rounding="away")),
        fmt.encode(round_to_format(x, fmt, rounding="stochastic", seed=SEED)),
    ]
    yield from zip(_bits(x), *(column.tolist() for column in columns), strict=True)


def critical_points(fmt: FloatFormat) -> Tensor:
    """Return the numbers at which a rounding can go wrong, and random ones, float32."""
    infinity = torch.tensor(torch.inf)
    every = 1 if fmt.bits <= 8 else 256
    levels = fmt.levels()[::every]
    points = torch.cat([levels, (levels[1:] + levels[:-1]) / 2, torch.tensor([2 * fmt.max])])
    points = points.float()
    points = points[points.isfinite()]
    generator = torch.Generator().manual_seed(SEED)
    exponents = torch.rand(NUM_RANDOM, generator=generator) * 2 - 1
    random = torch.randn(NUM_RANDOM, generator=generator) * 2.0 ** (exponents * (2 - fmt.e_min))
    around = [points.nextafter(infinity), points.nextafter(-infinity)]
    both = torch.cat([points, *around, random.clamp(-1e38, 1e38)])
    both = both[both.isfinite()]
    return torch.cat([both, -both])


def _tensors(fmt: ScaledFormat) -> Iterator[dict[str, object]]:
    """Rows of random magnitude, sparse ones, and rows of zeros and powers of two."""
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(NUM_TENSORS, LENGTH, generator=generator)
    x *= 2.0 ** torch.randint(-60, 60, (NUM_TENSORS, 1), generator=generator)
    x *= 2.0 ** torch.randint(-12, 1, (NUM_TENSORS, LENGTH), generator=generator)
    x[::4] *= torch.rand(len(x[::4]), LENGTH, generator=generator) < 0.2
    x[1::50] = 0.0
    x[2::50] = 2.0 ** torch.arange(-LENGTH // 2, LENGTH // 2).float()
    for row in x:
        stored = encode(row, fmt)
        scales = stored.scales.reshape(-1)
        outer = stored.tensor_scale
        yield {
            "x": _bits(row),
            "codes": unpack(stored.codes, fmt.element.bits, LENGTH).tolist(),
            "scales": scales.tolist() if scales.dtype == torch.uint8 else _bits(scales.float()),
            "tensor_scale": None if outer is None else _bits(outer.reshape(1))[0],
            "decoded": _bits(stored.decode()),
        }


def _bits(x: Tensor) -> list[int]:
    """Bits of float32 numbers, unsigned."""
    return [number & 0xFFFFFFFF for number in x.view(torch.int32).tolist()]


def _write_csv(path: Path, rows: Iterable[tuple[object, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path
