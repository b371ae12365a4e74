"""Results files: one JSON object a line, in `<library>/<benchmarks|experiments>/results/`.

A row says what was measured, against which goal, on which machine and commit
(docs/design.md, section 4). The newest row of a name counts.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import operator
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("wardwise", "weightwise")
SYSTEMS = (
    "foundation", "dispatch", "precision-law", "pharmacy", "moe", "clla",
    "stochastic", "fp8-lm", "tinyvit", "minivit", "tinyclip", "desk",
)  # fmt: skip
COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq, "<": operator.lt}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a benchmark prints: a value, its goal, and what it was compared with."""

    system: str
    name: str
    value: float
    unit: str
    peer: str | None = None
    goal: tuple[str, float] | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise ValueError(f"system: expected one of {', '.join(SYSTEMS)}, got {self.system!r}")
        if not math.isfinite(self.value):
            raise ValueError(f"{self.name}: value: expected a finite number, got {self.value}")
        if self.goal is not None and self.goal[0] not in COMPARE:
            raise ValueError(f"{self.name}: goal: expected one of {', '.join(COMPARE)}")

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; `None` where there is none."""
        return None if self.goal is None else COMPARE[self.goal[0]](self.value, self.goal[1])


@dataclass(frozen=True, kw_only=True)
class Row(Measurement):
    """A measurement with its place and time."""

    machine: str
    date: str
    commit: str


def parse(line: str) -> dict[str, Any]:
    """Decode a printed measurement or a stored row; goals become tuples."""
    row: dict[str, Any] = json.loads(line)
    if row.get("goal") is not None:
        row["goal"] = tuple(row["goal"])
    return row


def stamp(measurement: Measurement, at_commit: str | None = None) -> Row:
    """Add machine, the GPU that the details name included, date and commit."""
    gpu = measurement.detail.get("gpu")
    where = machine() if gpu is None else f"{gpu}, {machine()}"
    at_commit = at_commit or commit()
    return Row(**asdict(measurement), machine=where, date=_today(), commit=at_commit)


def append(path: Path, row: Row) -> None:
    """Write one row at the end of a results file, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def read(path: Path) -> list[Row]:
    """All rows of a file, oldest first."""
    return [Row(**parse(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def newest(rows: Iterable[Row]) -> list[Row]:
    """The last row of every name, in order of first appearance."""
    by_name: dict[str, Row] = {}
    for row in rows:
        by_name[row.name] = row
    return list(by_name.values())


def machine() -> str:
    """Cores, processor and torch build in words, without a host name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    python = platform.python_version()
    return f"{os.cpu_count()}-core {model}, Python {python}, torch {metadata.version('torch')}"


def commit() -> str:
    """Short commit of the working tree, with a plus sign if it has changes."""
    head = _git("rev-parse", "--short", "HEAD")
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", *LIBRARIES, ":!*/results/*"
    )
    return head + "+" if changed else head


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()
