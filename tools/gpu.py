"""Run everything that needs a GPU in one call: the tests of its kernels, then the benchmarks.

    python -m tools.gpu [--commit TEXT] [--only STEP ...]
    python -m tools.gpu --add out/gpu/rows.jsonl

Sized for one GPU with 80 GB and less than eight minutes: each step has a limit, what it has printed
by then counts, and a step that fails does not keep the others from running. Rows are appended to
the results files and kept in out/gpu/rows.jsonl as well, so that a run on another machine can be
added here by the second form; a copy without history says its commit by --commit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tools import measure, render, results

FOLDER = results.ROOT / "out" / "gpu"
IMPORTED = tuple(results.ROOT / folder for folder in (*results.LIBRARIES, ""))
TESTS = (
    "test_gpu_kernels.py", "test_latent_gpu.py", "test_latent_gpu_codes.py",
    "test_expert_products.py", "test_gpu_adam.py",
)  # fmt: skip
IS_THERE = "import sys, torch; sys.exit(not torch.cuda.is_available())"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One process.

    Parameters
    ----------
    arguments
        Of the interpreter.
    limit_s
        Time after which it is ended.
    """

    arguments: tuple[str, ...]
    limit_s: int


STEPS = {
    # Many small kernels are compiled: eight processes share that.
    "tests": Step(
        arguments=(
            "-m", "pytest", "-q", "-n", "8", "-m", "not slow", "-p", "no:cacheprovider",
            *(f"weightwise/tests/{name}" for name in TESTS),
        ),
        limit_s=120,
    ),
    "clla": Step(arguments=("weightwise/benchmarks/clla_gpu.py",), limit_s=130),
    "moe": Step(arguments=("weightwise/benchmarks/moe_gpu.py",), limit_s=130),
    "quantizer": Step(arguments=("weightwise/benchmarks/gpu_quantizer.py",), limit_s=90),
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run the steps; exit code 1 where there is no GPU, a step fails or a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commit", help="commit of this copy, if it has no history")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=tuple(STEPS), metavar="STEP")
    parser.add_argument("--add", type=Path, metavar="FILE", help="add rows of another machine")
    options = parser.parse_args(arguments)
    if options.add is not None:
        return add(options.add)
    if subprocess.run([sys.executable, "-c", IS_THERE], check=False).returncode:
        print("bench-gpu: torch finds no CUDA device here, nothing was run", file=sys.stderr)
        return 1
    commit = options.commit or results.commit()
    rows, is_done = [], True
    for name in options.only:
        found, is_whole = run(name, STEPS[name], commit)
        rows += found
        is_done &= is_whole
    render.write_all()
    for row in rows:
        print(measure.describe(row))
    return int(not is_done or any(row.is_met is False for row in rows))


def run(name: str, step: Step, commit: str) -> tuple[list[results.Row], bool]:
    """Rows of one step, which are stored, and whether it came to its end."""
    print(f"== {name}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *step.arguments], check=False, cwd=results.ROOT,
            stdout=subprocess.PIPE, timeout=step.limit_s,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, IMPORTED))},
        )  # fmt: skip
        output, problem = done.stdout, f"exit code {done.returncode}" if done.returncode else None
    except subprocess.TimeoutExpired as late:
        output, problem = late.stdout or b"", f"ended after {step.limit_s} s"
    rows = []
    for line in output.decode().splitlines():
        if line.startswith('{"system"'):
            rows.append(results.stamp(results.Measurement(**results.parse(line)), commit))
            store(rows[-1], FOLDER / "rows.jsonl")
        else:
            print(line, file=sys.stderr)
    spent = f"{time.perf_counter() - start:.0f} s"
    print(f"   {name}: {problem or 'done'}, {spent}, {len(rows)} rows", file=sys.stderr)
    return rows, problem is None


def store(row: results.Row, *others: Path) -> None:
    """Append a row to the results file of its system, and to others."""
    own = results.ROOT / "weightwise" / "benchmarks" / "results" / f"{row.system}.jsonl"
    for path in (own, *others):
        results.append(path, row)


def add(path: Path) -> int:
    """Store the rows of a file."""
    if not path.is_file():
        print(f"--add: expected a file of rows, got {path}", file=sys.stderr)
        return 2
    for row in results.read(path):
        store(row)
    render.write_all()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
