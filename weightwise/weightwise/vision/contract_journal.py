"""What a contraction search has measured and scored, on disk: one JSON object a line.

The first line says which search it is. A line is appended in one piece and reaches the disk before
the search goes on; whatever a kill left of a last line is removed by the next call.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.vision.config import TinyViTConfig


class Journal:
    """Numbers of models, kept in a file or, without a path, in memory alone.

    Parameters
    ----------
    path
        The file; made if missing.
    header
        What makes the search: its numbers are of no use to another one.

    Raises
    ------
    ValueError
        If the file is of another search, or a line is no record, with file and line.
    """

    def __init__(self, path: Path | None, header: dict[str, Any]) -> None:
        self._path = path
        self._values: dict[tuple[str, str], float] = {}
        if path is None:
            return
        header = json.loads(json.dumps(header))  # tuples become lists, as in the file
        lines = _whole_lines(path)
        if not lines:
            self._append(header)
        for number, line in enumerate(lines, start=1):
            record = _parsed(line)
            if number == 1:
                _check_header(path, record, header)
            elif isinstance(record, dict) and set(record) == {"config", "name", "value"}:
                key = json.dumps(record["config"]), str(record["name"])
                self._values[key] = float(record["value"])
            else:
                raise ValueError(
                    f"{path}, line {number}: expected config, name and value, got {line[:40]!r}"
                )

    def get(self, config: TinyViTConfig, name: str) -> float | None:
        """A number of a model, None if it is not known yet."""
        return self._values.get((json.dumps(asdict(config)), name))

    def put(self, config: TinyViTConfig, name: str, value: float) -> None:
        """Keep a number; it is on disk when this returns."""
        self._values[json.dumps(asdict(config)), name] = value
        if self._path is not None:
            self._append({"config": asdict(config), "name": name, "value": value})

    def _append(self, record: dict[str, Any]) -> None:
        assert self._path is not None
        with self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(record).encode() + b"\n")
            os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[str]:
    """Lines of a file, from which a torn last one is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    return content[:end].decode(errors="replace").splitlines()


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _check_header(path: Path, found: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(found, dict) or set(found) != set(wanted):
        raise ValueError(f"{path}, line 1: expected the journal of a contraction search")
    for name, value in wanted.items():
        if found[name] != value:
            raise ValueError(
                f"{path}, line 1: expected the journal of this search, got one with another {name}"
            )
