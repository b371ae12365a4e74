"""Time the make targets in a fresh clone of the committed tree, installation included.

Prints one measurement as a JSON object a line; `make fresh-clone` records them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Target, name of its figure, goal in minutes (None: it only has to succeed).
TARGETS = (
    ("demo", "workspace_fresh_clone_make_demo", 8.0),
    ("test-quick", "workspace_make_test_quick", 3.0),
    ("test", "workspace_make_test", 15.0),
    ("lint", "workspace_make_lint", None),
    ("docs", "workspace_make_docs", None),
)
PAGES = ("out/wardwise.html", "out/weightwise.html")


def main() -> int:
    """Clone, run every target in turn, print its minutes; stops at the first failure."""
    with tempfile.TemporaryDirectory(prefix="fresh-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for target, name, goal in TARGETS:
            minutes = timed(target, clone)
            goal_pair = ["<=", goal] if goal else None
            emit(name, minutes, "min", goal_pair, {"command": f"make {target}"})
            if target == "demo":
                missing = [page for page in PAGES if not (clone / page).is_file()]
                emit("workspace_demo_pages_missing", len(missing), "pages", ["==", 0], {})
    return 0


def timed(target: str, clone: Path) -> float:
    """Minutes that a target takes; its output goes to stderr."""
    variables = {
        name: str(ROOT.parent / "shared" / "data" / folder)
        for name, folder in (("WARDWISE_DATA", "routing"), ("WEIGHTWISE_DATA", "fp-scaling-law"))
        if (ROOT.parent / "shared" / "data" / folder).is_dir()
    }
    start = time.monotonic()
    subprocess.run(
        ["make", target, *(f"{name}={path}" for name, path in variables.items())],
        cwd=clone, stdout=sys.stderr, check=True,
    )  # fmt: skip
    return (time.monotonic() - start) / 60


def emit(
    name: str, value: float, unit: str, goal: list[object] | None, detail: dict[str, object]
) -> None:
    """Print one measurement."""
    row = {"system": "foundation", "name": name, "value": value, "unit": unit, "goal": goal}
    print(json.dumps({**row, "detail": detail}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
