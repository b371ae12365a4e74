"""Instances, plans and logs of driven days in files: JSON, Solomon, VRPLIB, E-VRPTW text, CSV.

`read_instance` tells the formats apart. Every refusal is an `InputError` of one
line that names the file, the line or JSON field, and what was expected. Writers
replace a file at once or not at all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from wardwise.errors import InputError
from wardwise.io.driven import DrivenLog, UnfinishedLineWarning, read_log, write_log
from wardwise.io.evrptw import is_evrptw, parse_evrptw, read_evrptw
from wardwise.io.files import read_text
from wardwise.io.json import parse_json, read_json, read_plan, write_json, write_plan
from wardwise.io.lackner import (
    Provenance,
    parse_lackner,
    read_lackner,
    read_provenance,
    write_lackner,
)
from wardwise.io.schemas import json_schema
from wardwise.io.solomon import parse_solomon, read_solomon, write_solomon
from wardwise.io.solution import (
    Solution,
    read_solution,
    require_sequences,
    solution_of,
    write_solution,
)
from wardwise.io.vrplib import parse_vrplib, read_vrplib, write_vrplib

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from wardwise.fleet.problem import Instance

__all__ = [
    "DrivenLog",
    "InputError",
    "Provenance",
    "Solution",
    "UnfinishedLineWarning",
    "json_schema",
    "read_evrptw",
    "read_instance",
    "read_json",
    "read_lackner",
    "read_log",
    "read_plan",
    "read_provenance",
    "read_solomon",
    "read_solution",
    "read_vrplib",
    "require_sequences",
    "solution_of",
    "write_json",
    "write_lackner",
    "write_log",
    "write_plan",
    "write_solomon",
    "write_solution",
    "write_vrplib",
]

_KEYWORD_LINE = re.compile(r"\s*[A-Z_0-9]+\s*:")
_COLUMNS_OF_CSV = re.compile(r"(?:#.*\n\s*)*id\s*,", re.IGNORECASE)

_PARSERS = {".json": parse_json, ".vrp": parse_vrplib, ".csv": parse_lackner}


def read_instance(path: str | os.PathLike[str]) -> Instance:
    """Read an instance in whichever format it is written.

    ``.json``, ``.vrp`` and ``.csv`` settle the format. Else the content does: JSON
    starts with a brace, VRPLIB with ``KEYWORD :``, Lackner-style CSV, after lines
    with ``#``, with ``id,``, E-VRPTW text names its columns, ``StringID`` among them, and all
    else is taken for Solomon text.

    Raises
    ------
    InputError
        Naming line or field, and what was expected.
    """
    text = read_text(path)
    parse = _PARSERS.get(Path(path).suffix.lower()) or _by_content(text)
    return parse(text, path)


def _by_content(text: str) -> Callable[[str, str | os.PathLike[str]], Instance]:
    """Parser of a text whose name does not tell the format."""
    start = text.lstrip()
    if start.startswith("{"):
        return parse_json
    if _KEYWORD_LINE.match(start):
        return parse_vrplib
    if _COLUMNS_OF_CSV.match(start):
        return parse_lackner
    if is_evrptw(start):
        return parse_evrptw
    return parse_solomon
