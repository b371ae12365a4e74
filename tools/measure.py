"""Run benchmarks, experiments or the workspace timings, record the rows, redraw the tables.

Every script prints one measurement as a JSON object a line on stdout and talks
on stderr, so it knows nothing of files, machines or commits.

    python -m tools.measure benchmarks [SYSTEM]
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tools import render, results

if TYPE_CHECKING:
    from pathlib import Path

USAGE = "usage: python -m tools.measure benchmarks|experiments|workspace [SYSTEM]"
WORKSPACE = "wardwise"  # the library whose results folder holds the workspace's own timings


def main(arguments: list[str]) -> int:
    """Run the scripts of one kind; exit code 1 when a goal is missed."""
    if not arguments or arguments[0] not in ("benchmarks", "experiments", "workspace"):
        print(USAGE, file=sys.stderr)
        return 2
    kind, system = arguments[0], arguments[1] if len(arguments) > 1 else None
    if system not in (None, *results.SYSTEMS):
        print(f"system: expected one of {', '.join(results.SYSTEMS)}", file=sys.stderr)
        return 2
    rows = []
    for script, folder in scripts(kind):
        rows += run(script, folder, system)
    render.write_all()
    for row in rows:
        print(describe(row))
    return int(any(row.is_met is False for row in rows))


def scripts(kind: str) -> list[tuple[Path, Path]]:
    """Pairs of script and results folder."""
    if kind == "workspace":
        folder = results.ROOT / WORKSPACE / "benchmarks" / "results"
        return [(results.ROOT / "tools" / "fresh_clone.py", folder)]
    return [
        (script, script.parent / "results")
        for library in results.LIBRARIES
        for script in sorted((results.ROOT / library / kind).glob("*.py"))
    ]


def run(script: Path, folder: Path, system: str | None) -> list[results.Row]:
    """Run one script and append what it prints; a system that is not asked for is passed over."""
    if system and f'"{system}"' not in script.read_text(encoding="utf-8"):
        return []
    print(f"== {script.relative_to(results.ROOT)}", file=sys.stderr)
    environment = {**os.environ, "PYTHONPATH": str(results.ROOT)}
    rows = []
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=results.ROOT,
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            row = results.stamp(results.Measurement(**results.parse(line)))
            results.append(folder / f"{row.system}.jsonl", row)
            rows.append(row)
    if process.returncode:
        raise SystemExit(f"{script.name} failed with exit code {process.returncode}")
    return rows


def describe(row: results.Row) -> str:
    """One line for people: value beside goal."""
    verdict = {True: "met", False: "MISSED", None: ""}[row.is_met]
    goal = f"goal {row.goal[0]} {row.goal[1]:g}" if row.goal else ""
    return f"{row.name:<52} {row.value:>12.6g} {row.unit:<10} {goal:<16} {verdict}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
