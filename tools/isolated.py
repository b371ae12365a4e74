"""Install each library alone into a bare environment and run its demo there.

Shows that neither needs the other, nor what the other brings. Uses the
standard library only, so that it runs before anything is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ABSENT = {
    "wardwise": ("torch", "weightwise", "pyvrp"),
    "weightwise": ("pyvrp", "wardwise", "ray", "transformers"),
}
DEMO = {
    "wardwise": ("demo", "--time-limit", "3"),
    "weightwise": ("demo", "--steps", "30"),
}


def main() -> int:
    """Check both libraries; raises on the first failure."""
    for library in ABSENT:
        with tempfile.TemporaryDirectory(prefix=f"{library}-") as folder:
            check(library, Path(folder))
    return 0


def check(library: str, folder: Path) -> None:
    """Install `library` into a new environment under `folder` and run its demo."""
    print(f"{library}: a bare environment, pip install ./{library}", flush=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    install(python, *(["torch"] if library == "weightwise" else []))
    install(python, str(ROOT / library))
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True
    )
    found = {package["name"].lower() for package in json.loads(listed.stdout)}
    if strangers := found & set(ABSENT[library]):
        raise SystemExit(f"{library} alone brought {', '.join(sorted(strangers))}")
    command = [str(folder / "venv" / "bin" / library), *DEMO[library], "--out", str(folder / "out")]
    print(f"{library}: {' '.join(command[1:])}", flush=True)
    subprocess.run(command, cwd=folder, check=True)
    page = folder / "out" / f"{library}.html"
    if not page.is_file():
        raise SystemExit(f"{library} demo wrote no {page.name}")
    print(f"{library}: runs alone; {page.name} has {page.stat().st_size / 1e6:.2f} MB", flush=True)


def install(python: Path, *what: str) -> None:
    """Run pip with the pinned versions."""
    if what:
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--constraint", ROOT / "constraints.txt", *what],
            check=True,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
