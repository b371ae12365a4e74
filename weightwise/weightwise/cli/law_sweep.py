"""The command ``weightwise law sweep``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from weightwise.sweep import estimate, read_sweep, run_sweep, time_left

if TYPE_CHECKING:
    from weightwise.sweep import Estimate, Sweep, SweepResult

Json = Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff]
DONE, STOPPED = 0, 1


def sweep_command(
    spec: tyro.conf.Positional[Path],
    /,
    out: Path | None = None,
    jobs: int | None = None,
    ray: str | None = None,
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    as_json: Json = False,
) -> int:
    """Train a grid of models for a law, or go on with a sweep that was stopped.

    The same command again goes on: runs that have a record are left alone, failed ones are tried
    again. The records are a table of runs for fit and compare.

    Args:
        spec: TOML file with a recipe and lists of sizes, tokens, formats and so on.
        out: Folder of the sweep. Default: out/NAME, after the name in the file.
        jobs: Runs at a time, each in a process with one thread. Default: one for each core.
        ray: Ray cluster that makes the runs instead; local starts one on this machine.
        dry_run: List the runs with N, D, FLOP and time, and make none.
        as_json: Print one JSON object.
    """
    sweep = read_sweep(spec)
    out = Path("out") / sweep.name if out is None else out
    if dry_run:
        _show_estimates(sweep, out, jobs, as_json=as_json)
        return DONE
    result = run_sweep(sweep, out, jobs=jobs, ray_address=ray)
    if as_json:
        counts = {key: value for key, value in asdict(result).items() if key != "records"}
        print(json.dumps({
            "records": str(result.records), **counts, "is_complete": result.is_complete,
        }))  # fmt: skip
    else:
        print(_summary(sweep, result))
    if result.is_complete:
        return DONE
    num_left = result.num_runs - result.num_done - result.num_diverged
    failed = f", {result.num_failed} of them failed: {out / 'failed.jsonl'}"
    Console(stderr=True).print(
        f"weightwise: {num_left} runs left{failed if result.num_failed else ''}; the same command "
        "goes on with them",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    return STOPPED


def _summary(sweep: Sweep, result: SweepResult) -> str:
    counts = [f"{result.num_done} of {result.num_runs} runs done"]
    if result.num_diverged:
        counts.append(f"{result.num_diverged} diverged")
    if result.num_others:
        counts.append(f"{result.num_others} records of runs that are not in the sweep")
    return f"{sweep.name}: {', '.join(counts)}; records in {_near(result.records)}"


def _near(path: Path) -> Path:
    """A path as people write it: from the working directory, if it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _show_estimates(sweep: Sweep, out: Path, jobs: int | None, *, as_json: bool) -> None:
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs: expected at least 1, got {jobs}")
    with Console(stderr=True).status("measuring a few steps of each kind of run"):
        rows = estimate(sweep, out)
    seconds = time_left(rows, jobs)
    if as_json:
        print(json.dumps({"jobs": jobs, "seconds": seconds, "runs": [asdict(row) for row in rows]}))
        return
    console = Console()
    console.print(_table(rows))
    done = sum(bool(row.status) for row in rows)
    console.print(
        f"{sweep.name}: {len(rows)} runs, {done} of them made; the others take about "
        f"{_duration(seconds)} with {jobs} at a time",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _table(rows: list[Estimate]) -> Table:
    table = Table("run", "params", "tokens", "FLOP", "time", "status")
    table.columns[0].overflow = "fold"  # never cut a name short
    for row in rows:
        table.add_row(
            row.name, f"{row.num_params:.4g}", f"{row.num_tokens:.4g}", f"{row.flop:.3g}",
            _duration(row.seconds), row.status,
        )  # fmt: skip
    return table


def _duration(seconds: float) -> str:
    """Time in the unit that suits it."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} seconds" if seconds < 10 else f"{seconds:.0f} seconds"
