"""The command ``weightwise law noise``."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 (the parser reads annotations)
from typing import TYPE_CHECKING, Any, Literal

import tyro  # noqa: TC002 (the parser reads annotations)
from rich.console import Console
from rich.table import Table

from weightwise.cli.law_options import Json, finite, print_json, warn
from weightwise.report.law_figures import check_figure, write_figure
from weightwise.report.moe_figures import noise_figure
from weightwise.sweep.noise import estimate_noise

if TYPE_CHECKING:
    from weightwise.sweep.noise import NoiseEstimate, NoiseRun

DONE, REFUSED = 0, 1


def noise_command(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    /,
    target: float | None = None,
    curve: Literal["train", "valid"] = "train",
    bandwidth: float = 0.1,
    figure: Path | None = None,
    as_json: Json = False,
) -> int:
    """Measure the noise batch and the highest learning rate from finished runs.

    The runs differ in batch, learning rate and seed only. The result is what
    optimizer.noise_batch takes. Exit code 1: the runs show none that could be relied on.

    Args:
        runs: Folders of runs at two batches or more; several learning rates at each are better.
        target: Loss to measure to, nats a token. Default: the least that every batch reaches.
        curve: Loss of training, smoothed, or of validation.
        bandwidth: How far the smoothing reaches, a share of the step.
        figure: Draw steps against tokens with the fitted curve to this SVG file.
        as_json: Print one JSON object.
    """
    check_figure(figure)
    found = estimate_noise(runs, target=target, curve=curve, bandwidth=bandwidth)
    if figure is not None and found.fit is not None:
        write_figure(figure, noise_figure(found.fit, found.target))
    if as_json:
        print_json(**_record(found))
    else:
        _show(found)
    warnings = [*found.warnings]
    if found.refusal is not None:
        warnings.append(f"not to be used: {found.refusal}")
    warn(warnings)
    return DONE if found.refusal is None else REFUSED


def _record(found: NoiseEstimate) -> dict[str, Any]:
    """The estimate as JSON; numbers that are not known are None."""
    fit = found.fit
    return {
        "noise_batch": None if found.refusal is not None or fit is None else fit.noise_batch,
        "interval": fit and [finite(end) for end in fit.interval],
        "r_squared": fit and finite(fit.r_squared),
        "least_steps": fit and fit.least_steps,
        "least_tokens": fit and fit.least_tokens,
        "highest_rate": found.highest_rate,
        "from_gradients": found.from_gradients,
        "target": found.target,
        "refusal": found.refusal,
        "warnings": list(found.warnings),
        "runs": [
            asdict(run) | {
                "folder": str(run.folder), "steps": finite(run.steps),
                "squared_norm": finite(run.squared_norm),
            } for run in found.runs
        ],
    }  # fmt: skip


def _show(found: NoiseEstimate) -> None:
    """Print a table for people."""
    console = Console()
    shown = Table("run", "batch", "rate", "steps", "tokens", "gradient", "")
    shown.columns[0].overflow = "fold"
    for run in found.runs:
        shown.add_row(*_cells(run))
    console.print(shown)
    print(f"steps and tokens to {found.target:.4f} nats a token; * in the line")
    fit = found.fit
    if fit is None:
        return
    low, high = fit.interval
    spread = "" if math.isnan(low) else f"  (95 %: {low:.4g} to {high:.4g})"
    print(f"noise batch   {fit.noise_batch:.4g} tokens{spread}, R^2 {fit.r_squared:.3f}")
    print(f"least steps   {fit.least_steps:.4g}, least tokens {fit.least_tokens:.4g}")
    if found.highest_rate is not None:
        print(f"highest rate  {found.highest_rate:.3g}")
    if found.from_gradients is not None:
        print(f"by gradients  {found.from_gradients:.3g} tokens, an order of magnitude")
    if found.refusal is None:
        print(f"use           --set optimizer.noise_batch={fit.noise_batch:.4g}")


def _cells(run: NoiseRun) -> tuple[str, ...]:
    is_reached = math.isfinite(run.steps)
    return (
        str(run.folder),
        f"{run.batch}",
        f"{run.peak_lr:g}",
        f"{run.steps:.1f}" if is_reached else "not reached",
        f"{run.steps * run.batch:.4g}" if is_reached else "",
        "" if math.isnan(run.squared_norm) else f"{math.sqrt(run.squared_norm):.3g}",
        "*" if run.is_chosen else "",
    )
