"""The command ``weightwise formats``: what each number format holds and costs."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003, tyro needs it
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from weightwise.numerics import ScaledFormat
from weightwise.numerics.conformance import ELEMENTS, write_conformance_vectors
from weightwise.numerics.scaling import NAMED

Json = Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff]


def formats_command(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    /,
    vectors: Path | None = None,
    as_json: Json = False,
) -> int:
    """Tell what number formats hold and cost, or export their conformance vectors.

    Args:
        names: Formats such as e4m3, e2m1@32 or mxfp4; all named ones by default.
        vectors: Write every code, its value, and roundings of all named formats to this folder.
        as_json: Print one JSON object.
    """
    if vectors is not None:
        files = write_conformance_vectors(vectors)
        size = sum(file.stat().st_size for file in files)
        if as_json:
            print(json.dumps({"folder": str(vectors), "files": [file.name for file in files]}))
        else:
            print(f"{len(files)} files, {size / 1e6:.1f} MB, in {vectors}")
        return 0
    rows = [_describe(name) for name in names or (*ELEMENTS, *NAMED)]
    if as_json:
        print(json.dumps({"formats": rows}))
        return 0
    shown = Table("format", "bits", "with scale", "largest", "smallest", "levels", "top codes")
    for row in rows:
        shown.add_row(
            row["name"], str(row["element_bits"]), f"{row['bits_per_element']:g}",
            f"{row['max']:.4g}", f"{row['min']:.3g}", f"{row['num_positive']:,}", row["top_codes"],
        )  # fmt: skip
    Console().print(shown)
    print("levels: positive values. A scale each block; those of channels and tensors not counted.")
    return 0


def _describe(name: str) -> dict[str, Any]:
    """The figures of one format."""
    fmt = ScaledFormat.parse(name)
    element = fmt.element
    top_codes = {"none": "numbers", "nan": "one NaN", "ieee": "inf, NaN"}[element.specials]
    return {
        "name": name,
        "element": element.name,
        "element_bits": element.bits,
        "bits_per_element": fmt.bits_per_element,
        "max": element.max,
        "min": element.min_subnormal or element.min_normal,
        "num_positive": element.num_positive,
        "top_codes": top_codes,
        "is_uniform": element.is_uniform,
    }
