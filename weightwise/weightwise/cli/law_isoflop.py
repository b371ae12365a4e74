"""The command ``weightwise law isoflop``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path  # noqa: TC003 (the parser reads annotations)
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tyro  # noqa: TC002 (the parser reads annotations)
from rich.console import Console
from rich.table import Table

from weightwise.cli.law_options import Json, finite, print_json, require_positive
from weightwise.laws import read_budget_runs, save_budget_fit
from weightwise.laws.moe import (
    DENSE_COST,
    HUNYUAN_COST,
    ComputeCost,
    critical_batch,
    fit_budgets,
    least_compute,
)
from weightwise.report.law_figures import check_figure, write_figure
from weightwise.report.moe_figures import isoflop_figure

if TYPE_CHECKING:
    from weightwise.laws import BudgetRuns
    from weightwise.laws.moe import BudgetFit, Floats

COSTS = {"hunyuan": HUNYUAN_COST, "dense": DENSE_COST}


def isoflop_command(
    runs: tyro.conf.Positional[Path],
    /,
    cost: Literal["hunyuan", "dense", "column"] | None = None,
    batch: float | None = None,
    critical_scale: float = 2e8,
    critical_power: float = 0.21,
    tolerance: float = 0.05,
    samples: int = 200,
    seed: int = 0,
    out: Path | None = None,
    figure: Path | None = None,
    as_json: Json = False,
) -> int:
    """Fit the best size and data to runs of equal budgets: a parabola each, a power through all.

    Args:
        runs: CSV or JSON lines with num_params (N, activated), num_tokens (D), loss (L), and where
            known cost (C, FLOP) and batch_tokens (tokens a step).
        cost: hunyuan (9.59 N D + 2.3e8 D), dense (6 N D), or column, the table's own. Default: the
            column where there is one, else hunyuan.
        batch: Tokens a step of all runs. Without it and the column no compute counts as wasted.
        critical_scale: B* of the critical batch B* / L^(1 / power), tokens.
        critical_power: Its power.
        tolerance: Runs whose compute lies within this share of each other are one budget.
        samples: Resampled fits for the intervals; 0 for none.
        seed: Seed of the resampling.
        out: Write the law to this JSON file, for law size.
        figure: Draw parabolas and power to this SVG file.
        as_json: Print one JSON object.
    """
    check_figure(figure)
    require_positive(
        batch=batch, critical_scale=critical_scale, critical_power=critical_power,
        tolerance=tolerance,
    )  # fmt: skip
    if samples < 0:
        raise ValueError(f"samples: expected at least 0, got {samples}")
    table = read_budget_runs(runs)
    counted, flop = _flop(table, cost)
    batches = table.batch_tokens if batch is None else np.full(len(flop), batch)
    if batches is not None:
        critical = critical_batch(table.losses, scale=critical_scale, power=critical_power)
        flop = least_compute(flop, batches, critical)
    fit = fit_budgets(
        table.num_params, table.num_tokens, table.losses, flop,
        tolerance=tolerance, num_resamplings=samples, seed=seed,
    )  # fmt: skip
    if out is not None:
        save_budget_fit(out, fit, counted)
    if figure is not None:
        write_figure(figure, isoflop_figure(fit, table.num_params, table.losses, flop))
    if as_json:
        print_json(**_record(fit, counted, table))
    else:
        _show(fit, counted, table, has_batches=batches is not None)
    return 0


def _flop(table: BudgetRuns, cost: str | None) -> tuple[ComputeCost, Floats]:
    """How compute is counted, and C of each run."""
    if table.flop is not None and cost in (None, "column"):
        return ComputeCost.fitted(table.num_params, table.num_tokens, table.flop), table.flop
    if cost == "column":
        raise ValueError("cost: expected a column cost (or C) in the table, got none")
    counted = COSTS[cost or "hunyuan"]
    return counted, counted.flop(table.num_params, table.num_tokens)


def _record(fit: BudgetFit, cost: ComputeCost, table: BudgetRuns) -> dict[str, Any]:
    return {
        "constants": asdict(fit.law),
        "intervals": {
            name: [finite(end) for end in ends]
            for name, ends in (
                ("size_power", fit.size_power_interval),
                ("data_power", fit.data_power_interval),
            )
        },
        "cost": asdict(cost),
        "num_runs": len(table.losses),
        "num_diverged": table.num_diverged,
        "sizes": [asdict(valley) for valley in fit.sizes],
        "tokens": [asdict(valley) for valley in fit.tokens],
    }


def _show(fit: BudgetFit, cost: ComputeCost, table: BudgetRuns, *, has_batches: bool) -> None:
    """Print a table for people."""
    shown = Table("FLOP", "best size", "best data", "loss", "nats per ln² N")
    for size, data in zip(fit.sizes, fit.tokens, strict=True):
        shown.add_row(
            f"{size.compute:.4g}", f"{size.best:.4g}", f"{data.best:.4g}", f"{size.least:.4f}",
            f"{size.curvature:.4g}",
        )  # fmt: skip
    Console().print(shown)
    law = fit.law
    for name, scale, exponent, ends in (
        ("N", law.size_scale, law.size_power, fit.size_power_interval),
        ("D", law.data_scale, law.data_power, fit.data_power_interval),
    ):
        spread = "  (95 %: {:.4f} to {:.4f})".format(*ends) if fit.samples else ""
        print(f"{name} = {scale:.4g} C^{exponent:.4f}{spread}")
    left_out = f", {table.num_diverged} diverged and left out" if table.num_diverged else ""
    each = f" + {cost.per_token:.4g} D" if cost.per_token else ""
    print(f"{len(table.losses)} runs{left_out}; C = {cost.per_weight:.4g} N D{each}")
    if has_batches:
        print("compute without what large batches waste")
