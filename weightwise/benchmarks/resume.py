"""Nothing is lost on a kill, and processes agree: measured with the real commands.

``kills``: a training run is killed (SIGKILL) at five random steps and started again each time;
its metrics are compared row by row with those of a run that was left alone. ``processes``: the
same recipe under torchrun with two processes, DDP and FSDP, is compared with one process.

Prints one JSON object a line; ``python resume.py kills`` measures one part alone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SEED = 7
STEPS, SAVE_EVERY = 60, 5
NUM_KILLS = 5
SETTINGS = (f"train.steps={STEPS}", f"train.save_every={SAVE_EVERY}", "train.eval_every=20")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def main() -> None:
    """Measure what the arguments ask for, by default everything."""
    parts = sys.argv[1:] or ["kills", "processes"]
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        work = Path(folder)
        environment = {**os.environ, "WEIGHTWISE_CACHE": str(work / "cache")}
        # One thread: with two, so small a model only waits for the other.
        environment["OMP_NUM_THREADS"] = "1"
        whole = work / "whole"
        run(whole, environment)
        if "kills" in parts:
            measure_kills(work / "killed", whole, environment)
        if "processes" in parts:
            for strategy in ("ddp", "fsdp"):
                measure_processes(work / strategy, whole, strategy, environment)


def measure_kills(run_dir: Path, whole: Path, environment: dict[str, str]) -> None:
    """Kill a run at random steps and compare it with one that was left alone."""
    targets = sorted(random.Random(SEED).sample(range(2, STEPS), NUM_KILLS))
    killed_at = [kill_after(target, run_dir, environment) for target in targets]
    run(run_dir, environment)
    ours, theirs = read_rows(run_dir), read_rows(whole)
    emit(
        "training_resume_after_5_sigkills_max_loss_difference",
        largest_difference(ours, theirs),
        "nats",
        ["<=", 0.0],
        {"killed_at_step": killed_at, "save_every": SAVE_EVERY, "rows": len(ours)},
    )
    rows_equal = [untimed(row) for row in ours] == [untimed(row) for row in theirs]
    emit(
        "training_resume_after_5_sigkills_rows_identical",
        float(rows_equal),
        "bool",
        ["==", 1.0],
        {},
    )


def measure_processes(
    run_dir: Path, whole: Path, strategy: str, environment: dict[str, str]
) -> None:
    """Compare two processes with one on the same global batches."""
    run(run_dir, environment, launcher=TORCHRUN, extra=[f"train.strategy={strategy}"])
    ours, theirs = read_rows(run_dir), read_rows(whole)
    emit(
        f"training_two_processes_vs_one_max_loss_difference_{strategy}",
        largest_difference(ours, theirs),
        "nats",
        ["<=", 1e-5],
        {"strategy": strategy, "steps": STEPS, "rows": len(ours)},
    )


def command(run_dir: Path, launcher: tuple[str, ...], extra: list[str]) -> list[str]:
    """Words of a training command."""
    words = [sys.executable, *launcher, "-m", "weightwise", "train", "tiny"]
    return [*words, "--out", str(run_dir), "--set", *SETTINGS, *extra]


def run(
    run_dir: Path,
    environment: dict[str, str],
    launcher: tuple[str, ...] = (),
    extra: list[str] | None = None,
) -> None:
    """Run a training command to its end."""
    words = command(run_dir, launcher, extra or [])
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")


def kill_after(target: int, run_dir: Path, environment: dict[str, str]) -> int:
    """Start the command, kill it once it has logged a step, and say which one was last."""
    with subprocess.Popen(
        command(run_dir, (), []), env=environment, stdout=subprocess.DEVNULL, stderr=sys.stderr
    ) as process:
        while process.poll() is None and last_step(run_dir) < target:
            time.sleep(0.001)
        if process.poll() is not None:
            raise SystemExit(f"the run ended before it could be killed at step {target}")
        process.send_signal(signal.SIGKILL)
    return last_step(run_dir)


def last_step(run_dir: Path) -> int:
    """Step of the newest whole row, 0 if there is none."""
    rows = read_rows(run_dir)
    return int(rows[-1]["step"]) if rows else 0


def read_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics, without a last one that was cut short."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the speed, which no two runs share."""
    return {name: value for name, value in row.items() if name != "tokens_per_s"}


def largest_difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    """Largest difference of any loss; the rows must be of the same steps."""
    difference = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if mine.keys() != other.keys() or mine["step"] != other["step"]:
            raise SystemExit(f"rows differ: {mine} and {other}")
        for name in ("train_loss", "valid_loss"):
            if name in mine:
                difference = max(difference, abs(mine[name] - other[name]))
    return difference


def emit(name: str, value: float, unit: str, goal: list[object], detail: dict[str, object]) -> None:
    """Print one measurement."""
    row = {"system": "foundation", "name": name, "value": value, "unit": unit, "goal": goal}
    print(json.dumps({**row, "detail": detail, "seed": SEED}), flush=True)


if __name__ == "__main__":
    main()
