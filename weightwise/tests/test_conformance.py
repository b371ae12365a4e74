"""The exported conformance vectors, read back and judged by other libraries and by hand."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest

from weightwise.cli import main
from weightwise.numerics.conformance import ELEMENTS, SCALED, write_conformance_vectors

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = {
    "e2m1": "float4_e2m1fn",
    "e2m3": "float6_e2m3fn",
    "e3m2": "float6_e3m2fn",
    "e3m4ieee": "float8_e3m4",
    "e4m3ieee": "float8_e4m3",
    "e4m3fn": "float8_e4m3fn",
    "e5m2ieee": "float8_e5m2",
    "bf16": "bfloat16",
}
# Largest magnitudes of the elements (OCP Microscaling Formats v1.0, table 1) and their exponents.
MX = {
    "mxfp8_e4m3": ("float8_e4m3fn", 448.0, 8),
    "mxfp8_e5m2": ("float8_e5m2", 57344.0, 15),
    "mxfp6_e3m2": ("float6_e3m2fn", 28.0, 4),
    "mxfp6_e2m3": ("float6_e2m3fn", 7.5, 2),
    "mxfp4": ("float4_e2m1fn", 6.0, 2),
}

pytestmark = pytest.mark.slow  # all files are written once, which takes seconds


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files."""
    folder = tmp_path_factory.mktemp("vectors")
    write_conformance_vectors(folder)
    return folder


def table(path: Path) -> dict[str, list[str]]:
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    return {name: [row[name] for row in rows] for name in rows[0]}


def floats(bits: list[str] | list[int]) -> np.ndarray:
    return np.array([int(one) for one in bits], dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize(("name", "dtype"), DTYPES.items())
def test_codes_and_roundings_are_those_of_ml_dtypes(vectors: Path, name: str, dtype: str) -> None:
    """Every code has the value, and every finite number in range the code, that ml_dtypes gives."""
    kind = np.dtype(getattr(ml_dtypes, dtype))
    width = np.uint16 if kind.itemsize == 2 else np.uint8
    codes = table(vectors / f"{name}.codes.csv")
    with np.errstate(invalid="ignore"):
        expected = np.array(codes["code"], dtype=width).view(kind).astype(np.float32)
    np.testing.assert_array_equal(floats(codes["float32_bits"]), expected)
    rounding = table(vectors / f"{name}.rounding.csv")
    x = floats(rounding["float32_bits"])
    largest = np.nanmax(np.where(np.isfinite(expected), expected, np.nan))
    inside = np.abs(x) <= largest
    rounded = x[inside].astype(kind).view(width)
    np.testing.assert_array_equal(np.array(rounding["even"], dtype=np.int64)[inside], rounded)


@pytest.mark.parametrize("name", ELEMENTS)
def test_roundings_lie_beside_the_number(vectors: Path, name: str) -> None:
    """Each rule gives one of the two neighbours; away from zero only differs at midpoints."""
    codes = table(vectors / f"{name}.codes.csv")
    values = np.array(codes["value"], dtype=np.float64)
    rounding = table(vectors / f"{name}.rounding.csv")
    x = floats(rounding["float32_bits"]).astype(np.float64)
    finite = np.sort(values[np.isfinite(values)])
    if name.startswith("int"):
        finite = finite[1:]  # the most negative code is never written
    inside = (x >= finite[0]) & (x <= finite[-1])
    above = finite[np.searchsorted(finite, x[inside], side="left")]
    below = finite[np.searchsorted(finite, x[inside], side="right") - 1]
    got = {
        rule: values[np.array(rounding[rule], dtype=np.int64)]
        for rule in ("even", "away", "stochastic")
    }
    for result in got.values():
        assert ((result[inside] == above) | (result[inside] == below)).all()
        assert (np.abs(result[~inside]) == finite[-1]).all()
    differ = got["even"][inside] != got["away"][inside]
    midpoint = x[inside] - below == above - x[inside]
    assert midpoint[differ].all()
    assert (np.abs(got["away"][inside])[midpoint] >= np.abs(got["even"][inside])[midpoint]).all()


@pytest.mark.parametrize("name", MX)
def test_mx_files_follow_the_specification(vectors: Path, name: str) -> None:
    """Scale and codes of every block, computed here from the OCP's text with ml_dtypes."""
    dtype, largest, e_max = MX[name]
    for line in (vectors / f"{name}-floor.jsonl").read_text().splitlines():
        record = json.loads(line)
        x = floats(record["x"])
        decoded = []
        for number, start in enumerate(range(0, len(x), 32)):
            block = x[start : start + 32].astype(np.float64)
            amax = np.abs(block).max()
            exponent = max(int(np.floor(np.log2(amax))) - e_max, -127) if amax else -127
            assert record["scales"][number] == exponent + 127
            scaled = np.clip(block * 2.0**-exponent, -largest, largest).astype(np.float32)
            codes = scaled.astype(getattr(ml_dtypes, dtype))
            assert record["codes"][start : start + 32] == codes.view(np.uint8).tolist()
            decoded.append(codes.astype(np.float64) * 2.0**exponent)
        np.testing.assert_array_equal(floats(record["decoded"]), np.concatenate(decoded))


def test_nvfp4_files_follow_their_two_scales(vectors: Path) -> None:
    """Decoded numbers are code times E4M3 scale times the tensor's scale."""
    for name, least in (("nvfp4-normal", 2.0**-6), ("nvfp4-subnormal", 2.0**-9)):
        for line in (vectors / f"{name}.jsonl").read_text().splitlines():
            record = json.loads(line)
            scales = np.array(record["scales"], dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)
            assert scales.astype(np.float64).min() >= least
            down = scales.astype(np.float32) * floats([record["tensor_scale"]])
            codes = np.array(record["codes"], dtype=np.uint8).view(ml_dtypes.float4_e2m1fn)
            values = codes.astype(np.float32) * np.repeat(down, 16)[: len(codes)]
            np.testing.assert_array_equal(floats(record["decoded"]), values)


def test_command_lists_formats_and_writes_the_vectors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table tells what a format holds; --vectors fills a folder; a wrong name is refused."""
    assert main(["formats", "mxfp4", "e4m3fn", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["formats"]
    assert [row["bits_per_element"] for row in rows] == [4.25, 8]
    assert [row["max"] for row in rows] == [6, 448]
    assert main(["formats"]) == 0
    assert "nvfp4" in capsys.readouterr().out
    assert main(["formats", "--vectors", str(tmp_path / "v")]) == 0
    assert f"{2 * len(ELEMENTS) + len(SCALED)} files" in capsys.readouterr().out
    assert len(list((tmp_path / "v").iterdir())) == 2 * len(ELEMENTS) + len(SCALED)
    assert main(["formats", "mxfp5"]) == 2
    assert "mxfp5" in capsys.readouterr().err
