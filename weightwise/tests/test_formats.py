"""Number formats: the published ranges, levels, names and errors."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.numerics import FloatFormat, parse

FORMATS = st.builds(
    FloatFormat,
    exponent_bits=st.integers(0, 8),
    mantissa_bits=st.integers(1, 12),
    specials=st.just("none"),
) | st.builds(
    FloatFormat,
    exponent_bits=st.integers(2, 8),
    mantissa_bits=st.integers(0, 12),
    specials=st.sampled_from(["none", "nan", "ieee"]),
)


def make(exponent_bits: int, mantissa_bits: int) -> FloatFormat:
    return FloatFormat(exponent_bits=exponent_bits, mantissa_bits=mantissa_bits)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        # Sheet 3.1, and by hand: (m/2^M) 2^e_min below, (1 + m/2^M) 2^(e - bias) above.
        ("e1m1", [0, 1, 2, 3]),
        ("e2m1", [0, 0.5, 1, 1.5, 2, 3, 4, 6]),
        ("e3m0", [0, 0.25, 0.5, 1, 2, 4, 8, 16]),
        ("e2m1ieee", [0, 0.5, 1, 1.5, 2, 3]),
        ("e2m1fn", [0, 0.5, 1, 1.5, 2, 3, 4]),
        # E0Mk is (m / 2^k) * 2.
        ("e0m2", [0, 0.5, 1, 1.5]),
    ],
)
def test_levels_of_small_formats(name: str, levels: list[float]) -> None:
    """The levels are those that the definition gives by hand."""
    assert parse(name).levels().tolist() == levels


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("e4m3", 480),
        ("e4m3fn", 448),
        ("e5m2", 114688),
        ("e5m2ieee", 57344),
        ("e3m2", 28),
        ("e2m3", 7.5),
        ("e1m6", 3.96875),
        ("fp16", 65504),
        ("bf16", torch.finfo(torch.bfloat16).max),
    ],
)
def test_largest_values(name: str, largest: float) -> None:
    """The paper's E4M3 ends at 480 and the OCP's at 448, and so on."""
    assert parse(name).max == largest


def test_published_table() -> None:
    """Every row of the table of formats without special codes agrees."""
    folder = os.environ.get("WEIGHTWISE_DATA")
    if folder is None:
        pytest.skip("WEIGHTWISE_DATA is not set")
    text = (Path(folder) / "formats_no_specials.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 26
    for row in rows:
        fmt = parse(row["format"])
        assert fmt.name == row["format"]
        assert (fmt.bits, fmt.bias) == (int(row["bits"]), int(row["bias"]))
        assert (fmt.e_min, fmt.e_max) == (int(row["emin"]), int(row["emax"]))
        assert (fmt.max, fmt.min_normal) == (float(row["max"]), float(row["min_normal"]))
        assert fmt.min_subnormal == (float(row["min_subnormal"]) if row["min_subnormal"] else None)
        assert fmt.num_positive == int(row["positive_levels"])
        assert fmt.is_uniform == (row["uniform_grid"] == "True")


@settings(deadline=None)
@given(FORMATS)
def test_levels_agree_with_the_properties(fmt: FloatFormat) -> None:
    """The levels increase, and their ends and number are what the properties say."""
    levels = fmt.levels()
    assert len(levels) == 1 + fmt.num_positive
    assert (levels.diff() > 0).all()
    assert levels[0] == 0
    assert levels[-1] == fmt.max
    assert fmt.e_max == math.floor(math.log2(fmt.max))
    if fmt.min_subnormal is not None:
        assert levels[1] == fmt.min_subnormal
    if fmt.min_normal is not None:
        assert fmt.min_normal in levels
    assert bool((levels.diff() == levels[1]).all()) == (fmt.is_uniform or len(levels) <= 3)


@settings(deadline=None)
@given(FORMATS)
def test_name_round_trip(fmt: FloatFormat) -> None:
    """A format is found again under its own name, with or without its width."""
    assert parse(fmt.name) == parse(f"fp{fmt.bits}_{fmt.name.lower()}") == fmt


@pytest.mark.parametrize(
    "name",
    [
        *("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e3m4", "float8_e4m3"),
        *("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16"),
    ],
)
def test_dtype_names_mean_those_dtypes(name: str) -> None:
    """Under a dtype's name one gets the finite values of that dtype, every code compared."""
    fmt = parse(name)
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    codes = np.arange(1 << fmt.bits - 1, dtype=np.uint16 if fmt.bits > 8 else np.uint8)
    with np.errstate(invalid="ignore"):  # casting a signalling NaN warns
        values = codes.view(dtype).astype(np.float64)
    assert np.array_equal(values[np.isfinite(values)], fmt.levels().numpy())


def test_short_names() -> None:
    """FP4, FP6 and FP8 without further words are the formats without reserved codes."""
    assert [parse(name).name for name in ("fp4", "FP6", "fp8")] == ["E2M1", "E3M2", "E4M3"]


def test_e0_is_e1_with_one_bit_less() -> None:
    """E0Mk has the levels of E1M(k-1), halved: after scaling the same quantizer."""
    assert torch.equal(make(0, 7).levels() * 2, make(1, 6).levels())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("e9m3", "exponent_bits in 0 to 8, got 9"),
        ("e4m24", "mantissa_bits in 0 to 23, got 24"),
        ("e0m0", "exponent_bits \\+ mantissa_bits >= 1"),
        ("e1m2fn", "exponent_bits >= 2 with specials='nan', got 1"),
        ("fp7_e4m3", "says 7 bits, but E4M3 has 8"),
        ("int1", "Unknown number format 'int1': expected eXmY .* float8_e4m3fn"),
        ("", "Unknown number format ''"),
    ],
)
def test_wrong_names_are_refused(name: str, message: str) -> None:
    """The message says what is wrong and what is accepted."""
    with pytest.raises(ValueError, match=message):
        parse(name)


def test_wrong_arguments_are_refused() -> None:
    """Unknown specials and endless level lists name the field."""
    with pytest.raises(ValueError, match="specials"):
        FloatFormat(exponent_bits=4, mantissa_bits=3, specials="inf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="<= 20"):
        make(8, 13).levels()
