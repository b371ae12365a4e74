"""Documentation fails the build when it falls behind the code."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tools import render, results

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "wardwise": ("wardwise", "wardwise.io"),
    "weightwise": (
        "weightwise",
        "weightwise.numerics",
        "weightwise.laws",
        "weightwise.distributed",
        "weightwise.images",
        "weightwise.multiplex",
        "weightwise.vision",
        "weightwise.distill",
        "weightwise.fp8",
        "weightwise.lm",
        "weightwise.optim",
        "weightwise.train",
        "weightwise.recipes",
        "weightwise.sweep",
    ),
}
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


def pages(library):
    """All text of a library's docs pages."""
    files = sorted((ROOT / "docs" / library).glob("*.md"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("package", [p for packages in PACKAGES.values() for p in packages])
def test_every_public_name_is_documented(package):
    """Each name in `__all__` stands in the library's pages and has a docstring."""
    module = importlib.import_module(package)
    text = pages(package.split(".")[0])
    for name in module.__all__:
        if name.startswith("__"):
            continue
        assert name in text, f"{package}.{name} is in no page of docs/"
        value = getattr(module, name)
        assert not callable(value) or value.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.slow
@pytest.mark.parametrize("library", PACKAGES)
def test_every_command_and_option_is_documented(start, library, tmp_path):
    """Each command and long option that --help shows stands in the page on the command line."""
    text = (ROOT / "docs" / library / "cli.md").read_text(encoding="utf-8")
    commands = commands_of(library)
    assert commands
    for command, help_text in help_of(start, library, commands, tmp_path).items():
        assert f"{library} {command}" in text
        assert "--help" in help_text
        for option in options_of(help_text):
            assert option in text, f"{library} {command} {option} is not documented"


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_and_draws_what_the_docs_show(start, path, tmp_path):
    """The output and the drawings stored beside each example script are what it makes today."""
    printed = start(path, tmp_path).finish()
    assert printed == path.with_suffix(".txt").read_text(encoding="utf-8")
    library, _, name = path.stem.partition("_")
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    kept = (ROOT / "docs" / library).glob(f"{name}-*.svg")
    assert drawn == {path.name: path.read_bytes() for path in kept}


def test_there_are_examples_of_both_libraries():
    """The comparison above would pass on an empty folder."""
    assert {path.stem.split("_")[0] for path in EXAMPLES} == set(PACKAGES)


@pytest.mark.slow
def test_tables_and_diagrams_are_current():
    """What README and docs show is what the results files and the sources say."""
    stale = [p for p in render.pages() if render.rendered(p) != p.read_text(encoding="utf-8")]
    assert stale == [], "run python -m tools.render"


@pytest.mark.parametrize(
    ("value", "spread", "verdict"),
    [(0.2, 0.1, "yes"), (0.05, 0.1, "yes, within the spread"), (-0.2, 0.1, "**no**")],
)
def test_claims_stand_beside_what_was_found(value, spread, verdict):
    """Mean and spread over seeds, and whether the sign is the paper's; other rows are left out."""
    detail = {"claim": "a beats b", "paper": "said", "by_seed": [0.1, 0.3], "spread": spread}
    stamp = {"machine": "m", "date": "2026-01-01", "commit": "abc"}
    row = results.Row(
        system="moe", name="gap", value=value, unit="nats", goal=(">=", 0.0), detail=detail, **stamp
    )
    table = render.claims([row, replace(row, name="other", detail={})])
    assert table.splitlines()[3:] == [
        f"| a beats b | said | {value} ± {spread} nats, 2 seeds | {verdict} | 2026-01-01, abc |"
    ]
    assert render.claims([]) == "\nNothing measured yet.\n"


def test_columns_are_those_of_the_rows_and_figures_wait_for_their_run():
    """A line a row under all names, gaps left empty; rows without columns are left out."""
    stamp = {"machine": "m", "date": "2026-01-01", "commit": "abc"}
    row = results.Row(system="stochastic", name="a", value=1.0, unit="robots", **stamp)
    plans = [replace(row, detail={"columns": {"z": 0}}), row]
    plans.append(replace(row, detail={"columns": {"z": 1, "robots": 3}}))
    lines = render.columns(plans).splitlines()
    assert lines[1:5] == ["| z | robots |", "|---|---|", "| 0 |  |", "| 1 | 3 |"]
    assert render.columns([row]) == "\nNothing measured yet.\n"
    assert render.figure("static.svg", "Gaps") == "![Gaps](static.svg)"
    assert render.figure("absent.svg", "None") == "\nNot drawn yet.\n"


def test_results_rows_are_complete():
    """Every stored row parses, belongs to a known system and names machine, date and commit."""
    for path in ROOT.glob("*/*/results/*.jsonl"):
        for row in results.read(path):
            assert row.system == path.stem
            assert row.machine and row.date and row.commit


HELP = """
import contextlib, importlib, io, json, sys
main, texts = importlib.import_module(sys.argv[1] + ".cli").main, {}
for command in sys.argv[2:]:
    sys.argv = [sys.argv[0], *command.split(), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as end:
            assert not end.code, command
    texts[command] = out.getvalue()
print(json.dumps(texts))
"""


def help_of(start, library, commands, folder):
    """Plain help text of each command, all from one process: imports take longer than help."""
    program = folder / "help.py"
    program.write_text(HELP, encoding="utf-8")
    plain = {"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}
    return json.loads(start(program, library, *commands, **plain).finish())


def commands_of(library):
    """Names of a library's commands, read from its own table of commands."""
    return importlib.import_module(f"{library}.cli").COMMANDS


def options_of(text):
    """Long options that a help text names."""
    return set(re.findall(r"--[a-z][a-z-]+", text)) - {"--help"}
