"""The shape of the repository: who may import whom, and how large things may grow."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from tools import imports

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("wardwise", "weightwise", "tools", "tests", "docs")


@pytest.mark.slow
@pytest.mark.parametrize("library", imports.LAYERS)
def test_imports_only_go_down(library):
    """A part imports lower layers only, never its neighbours or what is built on it."""
    assert imports.violations(library) == []


@pytest.mark.parametrize("library", imports.LAYERS)
@pytest.mark.parametrize("folder", ["benchmarks", "experiments"])
def test_scripts_import_names_that_exist(library, folder):
    """Benchmarks and studies run for long and seldom: what they ask a library for must be there."""
    for path in sorted((ROOT / library / folder).rglob("*.py")):
        for name in imports.imported(path):
            module, _, attribute = name.rpartition(".")
            if module.split(".")[0] == library:
                found = importlib.import_module(module)
                is_there = hasattr(found, attribute) or find_spec(name) is not None
                assert is_there, f"{path}: {name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "other"), [("wardwise", "weightwise"), ("weightwise", "wardwise")]
)
def test_neither_library_imports_the_other(library, other):
    """Each library must be able to move into a repository of its own."""
    for path in (ROOT / library).rglob("*.py"):
        names = {name.split(".")[0] for name in imports.imported(path)}
        assert other not in names, path


@pytest.mark.slow
def test_checker_knows_only_problem_and_plan():
    """The referee shares no code with any solver."""
    assert imports.edges("wardwise")["fleet.check"] == {
        "fleet.problem",
        "fleet.plan",
        "fleet.energy",
    }


def test_hidden_upward_import_is_found(tmp_path):
    """The guard sees imports inside functions, but not those for annotations only."""
    file = tmp_path / "part.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from wardwise.cli import app\n"
        "def f():\n    from wardwise.report import page\n"
    )
    assert imports.imported(file) == ["typing.TYPE_CHECKING", "wardwise.report.page"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "stranger"),
    [("wardwise", "torch"), ("wardwise", "pyvrp"), ("weightwise", "transformers")],
)
def test_importing_a_library_stays_light(library, stranger):
    """Optional and foreign packages are not loaded by a plain import."""
    code = f"import sys, {library}, {library}.cli; sys.exit({stranger!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("library", imports.LAYERS)
def test_every_dependency_is_used(library):
    """What an install brings along is imported somewhere, by the name it is asked for."""
    settings = tomllib.loads((ROOT / library / "pyproject.toml").read_text(encoding="utf-8"))
    asked = {re.split(r"[<>=\[]", line)[0] for line in settings["project"]["dependencies"]}
    asked = {{"pillow": "PIL"}.get(name, name) for name in asked}
    used = {
        name.split(".")[0]
        for path in (ROOT / library / library).rglob("*.py")
        for name in imports.imported(path)
    }
    assert asked <= used


def too_long(path):
    """A line for the file if it has more than 400 lines, and for each function of more than 50."""
    text = path.read_text(encoding="utf-8")
    where, length = path.relative_to(ROOT), len(text.splitlines())
    if length > 400:
        yield f"{where} has {length} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            if length > 50:
                yield f"{where}: {node.name} has {length} lines"


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_and_functions_stay_small(folder):
    """At most 400 lines a file and 50 a function; longer ones have two purposes."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    assert [line for path in paths for line in too_long(path)] == []


@pytest.mark.parametrize(
    ("readme", "low", "high"),
    [("README.md", 20, 80), ("wardwise/README.md", 90, 150), ("weightwise/README.md", 90, 150)],
)
def test_readme_fits_its_screen(readme, low, high):
    """One screen for the whole, 90 to 150 lines for each library."""
    assert low <= len((ROOT / readme).read_text(encoding="utf-8").splitlines()) <= high
