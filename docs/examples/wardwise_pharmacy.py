"""The commands of the pharmacy tutorial, in an empty folder or in the one that is named."""

import os
import shlex
import sys
import tempfile
import textwrap
from pathlib import Path

os.environ["COLUMNS"] = "80"  # tables do not depend on the window

from wardwise.cli import main

DAY = "generate-pharmacy --orders 200 --per-hour 26 --zipf 0.8 --packs 12"
LAYOUT = "layout tuesday --target-minutes 5 --cost-point 3 --cost-pharmacist 40"
TROUBLE = "--days 8 --mtbf 2 --mttr 15 --missing 1 --restock 45"
STEPS = {
    "generate": (f"{DAY} --output tuesday",),
    "sequence": (
        "generate-pharmacy --orders 4 --points 2 --output counter.json",
        "sequence counter.json --figure pharmacy-sequence.svg",
    ),
    "layout": (f"{LAYOUT} --figure pharmacy-layouts.svg",),
    "day": (f"pharmacy-sim tuesday {TROUBLE} --compare",),
    "two": (f"{DAY} --points 2 --output two.json", f"pharmacy-sim two.json {TROUBLE}"),
    "chart": (
        "generate-pharmacy --orders 12 --per-hour 40 --seed 3 --output hour.json",
        "pharmacy-sim hour.json --days 1 --seed 1 --mtbf 0.1 --mttr 2 --figure pharmacy-day.svg",
    ),
}


def run(command: str) -> None:
    """One command as at a terminal."""
    print(" \\\n".join(textwrap.wrap(f"$ wardwise {command}", 78, subsequent_indent="    ")))
    sys.argv = ["wardwise", *shlex.split(command)]
    try:
        main()
    except SystemExit as end:
        if end.code:
            print(f"[exit code {end.code}]")


def show(name: str, lines: int) -> None:
    """The first lines of a file."""
    print(f"$ head -{lines} {name}")
    print("".join(Path(name).read_text(encoding="utf-8").splitlines(keepends=True)[:lines]), end="")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(sys.argv[1] if len(sys.argv) > 1 else folder)
    Path("tuesday").mkdir()
    for step, commands in STEPS.items():
        print(f"--8<-- [start:{step}]")
        if step == "generate":
            print("$ mkdir tuesday")
        for command in commands:
            run(command)
        if step == "generate":
            show("tuesday/orders.csv", 4)
            show("tuesday/bins.csv", 3)
        print(f"--8<-- [end:{step}]")
    os.chdir("/")
