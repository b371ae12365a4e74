"""Instances and plans in files: JSON, Solomon text, VRPLIB text.

`read_instance` tells the formats apart. Every refusal is an `InputError` of one
line that names the file, the line or JSON field, and what was expected. Writers
replace a file at once or not at all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from wardwise.io.errors import InputError
from wardwise.io.files import read_text
from wardwise.io.json import parse_json, read_json, read_plan, write_json, write_plan
from wardwise.io.schemas import json_schema
from wardwise.io.solomon import parse_solomon, read_solomon, write_solomon
from wardwise.io.solution import Solution, read_solution, write_solution
from wardwise.io.vrplib import parse_vrplib, read_vrplib, write_vrplib

if TYPE_CHECKING:
    import os

    from wardwise.fleet.problem import Instance

__all__ = [
    "InputError",
    "Solution",
    "json_schema",
    "read_instance",
    "read_json",
    "read_plan",
    "read_solomon",
    "read_solution",
    "read_vrplib",
    "write_json",
    "write_plan",
    "write_solomon",
    "write_solution",
    "write_vrplib",
]

_KEYWORD_LINE = re.compile(r"\s*[A-Z_0-9]+\s*:")


def read_instance(path: str | os.PathLike[str]) -> Instance:
    """Read an instance in whichever format it is written.

    ``.json`` and ``.vrp`` settle the format. Else the content does: JSON starts
    with a brace, VRPLIB with ``KEYWORD :``, and all else is taken for Solomon text.

    Raises
    ------
    InputError
        Naming line or field, and what was expected.
    """
    text = read_text(path)
    suffix = Path(path).suffix.lower()
    if suffix == ".json" or (suffix != ".vrp" and text.lstrip().startswith("{")):
        return parse_json(text, path)
    if suffix == ".vrp" or _KEYWORD_LINE.match(text):
        return parse_vrplib(text, path)
    return parse_solomon(text, path)
