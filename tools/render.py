"""Write the measured figures into README files and docs pages, from the results files alone.

A page asks for a table by a pair of comments:

    <!-- results:foundation routing_* make_* -->
    <!-- /results -->

(the system, then shell patterns of the names to show, none for all)
for what papers claim beside what was found by `<!-- claims:moe study_* -->` … `<!-- /claims -->`,
for rows that bring several columns of their own (`detail["columns"]`) by
`<!-- columns:stochastic robust_plan_* -->` … `<!-- /columns -->`, for a figure that a run draws
into docs/results by `<!-- figure:robust.svg What it shows -->` … `<!-- /figure -->`,
and for the import diagram by `<!-- imports:wardwise -->` … `<!-- /imports -->`.

    python -m tools.render [--check]
"""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tools import imports, results

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("README.md", "wardwise/README.md", "weightwise/README.md", "docs/**/*.md")
FIGURES = results.ROOT / "docs" / "results"
BLOCK = re.compile(
    r"<!-- (results|claims|columns|figure|imports):([\w *.-]+) -->\n.*?<!-- /\1 -->", re.DOTALL
)


def main(arguments: list[str]) -> int:
    """Rewrite all pages, or with --check say which ones are out of date."""
    stale = [page for page in pages() if rendered(page) != page.read_text(encoding="utf-8")]
    if arguments == ["--check"]:
        for page in stale:
            print(f"{page.relative_to(results.ROOT)} is out of date: run python -m tools.render")
        return int(bool(stale))
    write_all()
    return 0


def pages() -> list[Path]:
    """Every page that may hold a block."""
    return sorted({path for pattern in PAGES for path in results.ROOT.glob(pattern)})


def write_all() -> None:
    """Bring every page up to date."""
    for page in pages():
        page.write_text(rendered(page), encoding="utf-8")


def rendered(page: Path) -> str:
    """Text of a page with all its blocks filled."""
    return BLOCK.sub(_fill, page.read_text(encoding="utf-8"))


def _fill(match: re.Match[str]) -> str:
    kind, argument = match.groups()
    if kind == "imports":
        body = imports.diagram(argument)
    elif kind == "figure":
        body = figure(*argument.split(maxsplit=1))
    else:
        system, *patterns = argument.split()
        rows = newest_rows(system, patterns)
        body = {"results": table, "claims": claims, "columns": columns}[kind](rows)
    return f"<!-- {kind}:{argument} -->\n{body}\n<!-- /{kind} -->"


def newest_rows(system: str, patterns: list[str]) -> list[results.Row]:
    """A system's newest rows whose names fit any of the patterns."""
    return [
        row
        for path in sorted(results.ROOT.glob(f"*/*/results/{system}.jsonl"))
        for row in results.newest(results.read(path))
        if not patterns or any(fnmatchcase(row.name, pattern) for pattern in patterns)
    ]


def table(rows: list[results.Row]) -> str:
    """Markdown table of rows with their goals."""
    if not rows:
        return "\nNothing measured yet.\n"
    lines = ["", "| figure | value | goal | | peer | date, commit |", "|---|---:|---:|---|---|---|"]
    for row in rows:
        goal = f"{row.goal[0]} {row.goal[1]:g}" if row.goal else ""
        met = {True: "met", False: "**missed**", None: ""}[row.is_met]
        name = row.name.replace("_", " ")
        lines.append(
            f"| {name} | {row.value:.6g} {row.unit} | {goal} | {met} | {row.peer or ''} "
            f"| {row.date}, {row.commit} |"
        )
    machines = "; ".join(sorted({row.machine for row in rows}))
    return "\n".join([*lines, "", f"Measured on: {machines}.", ""])


def figure(name: str, caption: str) -> str:
    """A figure of docs/results, on a page of that folder, once a run has drawn it."""
    return f"![{caption}]({name})" if (FIGURES / name).exists() else "\nNot drawn yet.\n"


def columns(rows: list[results.Row]) -> str:
    """Markdown table with a line for each row that has columns, under the names of all of them."""
    rows = [row for row in rows if "columns" in row.detail]
    if not rows:
        return "\nNothing measured yet.\n"
    names = list(dict.fromkeys(name for row in rows for name in row.detail["columns"]))
    lines = ["", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = (str(row.detail["columns"].get(name, "")) for name in names)
        lines.append(f"| {' | '.join(cells)} |")
    measured = sorted({f"{row.date}, {row.commit}, on {row.machine}" for row in rows})
    return "\n".join([*lines, "", f"Measured: {'; '.join(measured)}.", ""])


def claims(rows: list[results.Row]) -> str:
    """Markdown table of what a paper claims and what was found, of the rows that are claims."""
    rows = [row for row in rows if "claim" in row.detail]
    if not rows:
        return "\nNothing measured yet.\n"
    head = [
        "",
        "| claim | paper | here | same direction? | date, commit |",
        "|---|---|---:|---|---|",
    ]
    lines = [
        f"| {row.detail['claim']} | {row.detail['paper']} | {_found(row)} | {_verdict(row)} "
        f"| {row.date}, {row.commit} |"
        for row in rows
    ]
    return "\n".join([*head, *lines, ""])


def _found(row: results.Row) -> str:
    """Mean, and over several seeds the standard deviation."""
    text = f"{row.value:.3g} {row.unit}".strip()
    if "spread" not in row.detail:
        return text
    seeds = len(row.detail["by_seed"])
    return f"{row.value:.3g} ± {row.detail['spread']:.2g} {row.unit}, {seeds} seeds"


def _verdict(row: results.Row) -> str:
    """Whether the sign is the paper's, and whether the seeds leave a doubt."""
    answer = {True: "yes", False: "**no**", None: ""}[row.is_met]
    is_doubtful = abs(row.value) < row.detail.get("spread", 0.0)
    return answer + (", within the spread" if is_doubtful else "")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
