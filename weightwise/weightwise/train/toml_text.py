"""Nested tables as the text of a TOML file; Python itself only reads that."""

from __future__ import annotations

import json
from typing import Any


def toml_lines(table: dict[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """Lines of a table: plain values first, then one section per inner table, as TOML wants it.

    Parameters
    ----------
    table
        Nested dicts of plain values.
    path
        Names that lead to the table.
    """
    lines = [f"[{'.'.join(path)}]"] if path else []
    lines += [f"{k} = {_toml_text(v)}" for k, v in table.items() if not isinstance(v, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", *toml_lines(value, (*path, key))]
    return lines


def _toml_text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_text(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml_text(v)}" for k, v in value.items()) + "}"
    # Numbers, truth values and strings look the same in TOML and JSON, except that TOML wants
    # the delete character escaped and knows no surrogate pairs.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
