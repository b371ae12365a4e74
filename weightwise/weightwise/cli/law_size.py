"""The command ``weightwise law size``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from weightwise.cli.law_options import Json, finite, print_json, require_positive
from weightwise.laws import load_budget_fit
from weightwise.laws.moe import HUNYUAN_BUDGET, HUNYUAN_COST, critical_batch
from weightwise.laws.moe_plan import plan_size
from weightwise.lm import (
    ModelConfig,
    MoEConfig,
    num_active_parameters,
    num_parameters,
    num_stored_parameters,
)
from weightwise.lm.family import ShapeCost, scale_model
from weightwise.recipes import hunyuan_large, load_recipe
from weightwise.report.law_figures import check_figure, write_figure
from weightwise.report.moe_figures import size_figure

if TYPE_CHECKING:
    from weightwise.laws.moe import BudgetFit
    from weightwise.laws.moe_plan import SizePlan

# Sizes of the table, over the best one.
FACTORS = (0.25, 0.5, 1 / sqrt(2), 0.9, 1.0, 1.1, sqrt(2), 2.0, 4.0)
HUNYUAN_LENGTH = 8192


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What is shown: the plan, the fit behind it, and a model of the size."""

    plan: SizePlan
    fit: BudgetFit | None
    own_compute: float
    tolerance: float
    model: ModelConfig | None


def size_command(
    compute: float,
    law: str = "hunyuan",
    batch: float | None = None,
    critical_batch_tokens: float | None = None,
    loss: float | None = None,
    curvature: float | None = None,
    tolerance: float = 0.002,
    shape: str | None = None,
    seq_length: int | None = None,
    cost: Literal["law", "exact"] = "law",
    figure: Path | None = None,
    as_json: Json = False,
) -> int:
    """Find the size and data of least loss for some compute, and what other sizes cost.

    Args:
        compute: FLOP of the whole run.
        law: hunyuan, or a file that law isoflop wrote.
        batch: Tokens a step; with critical-batch-tokens or loss, to leave out what it wastes.
        critical_batch_tokens: Critical batch in tokens.
        loss: Loss that is hoped for, nats a token: gives the critical batch by Kaplan's constants.
        curvature: Nats per ln² N; that of the fit by default. The paper prints none.
        tolerance: Penalty in nats that is still fine.
        shape: hunyuan-large, a recipe or a TOML file: give a model of that shape.
        seq_length: Tokens of a sequence, for the exact count. Default: that of the recipe, 8192
            for hunyuan-large.
        cost: How compute is counted: as the runs of the law were, or exact for the shape.
        figure: Draw the penalties of other sizes to this SVG file.
        as_json: Print one JSON object.
    """
    check_figure(figure)
    if not tolerance >= 0:
        raise ValueError(f"tolerance: expected at least 0 nats, got {tolerance}")
    fit, counted = (None, HUNYUAN_COST) if law == "hunyuan" else load_budget_fit(_file(law))
    best = HUNYUAN_BUDGET if fit is None else fit.law
    base, length = (None, 0) if shape is None else _shape(shape, seq_length)
    exact = _exact_cost(base, length) if cost == "exact" else None
    critical = _critical(batch, critical_batch_tokens, loss)

    def planned(curvature: float | None) -> SizePlan:
        return plan_size(
            compute, law=best, law_cost=counted, cost=exact, batch=batch, critical=critical,
            curvature=curvature,
        )  # fmt: skip

    plan = planned(curvature)
    own = float(best.compute_of_size(plan.num_params))
    if curvature is None and fit is not None:
        plan = planned(fit.curvature(own))
    model = None if base is None else scale_model(base, plan.num_params)
    answer = _Answer(plan=plan, fit=fit, own_compute=own, tolerance=tolerance, model=model)
    if figure is not None:
        if plan.valley is None:
            raise ValueError("figure: expected a --curvature or the --law of a fit, got neither")
        write_figure(figure, size_figure(plan, tolerance))
    if as_json:
        print_json(**_record(answer))
    else:
        _show(answer)
    return 0


def _file(law: str) -> Path:
    path = Path(law)
    if not path.exists():
        raise ValueError(
            "law: expected hunyuan or a file that `weightwise law isoflop --out` wrote, "
            f"got {law!r}"
        )
    return path


def _shape(name: str, seq_length: int | None) -> tuple[ModelConfig, int]:
    """The base of a shape, and the length of its sequences."""
    if name == "hunyuan-large":
        return hunyuan_large(), seq_length or HUNYUAN_LENGTH
    recipe = load_recipe(name)
    return recipe.model, seq_length or recipe.train.seq_length


def _exact_cost(base: ModelConfig | None, seq_length: int) -> ShapeCost:
    if base is None:
        raise ValueError("cost: expected a --shape to count exactly, got none")
    return ShapeCost(base=base, seq_length=seq_length)


def _critical(batch: float | None, tokens: float | None, loss: float | None) -> float | None:
    """The critical batch that goes with a batch."""
    require_positive(loss=loss)
    given = [value for value in (tokens, loss) if value is not None]
    if len(given) != (0 if batch is None else 1):
        raise ValueError(
            "batch: expected either critical-batch-tokens or loss with it, and neither without"
        )
    return tokens if loss is None else float(critical_batch(loss))


def _record(answer: _Answer) -> dict[str, Any]:
    plan, valley = answer.plan, answer.plan.valley
    size = plan.num_params
    record: dict[str, Any] = {
        "compute": plan.compute,
        "least_compute": plan.least_compute,
        "num_params": size,
        "num_tokens": plan.num_tokens,
        "num_tokens_paid": float(plan.tokens(size)),
        "curvature": valley and valley.curvature,
        "tolerance": answer.tolerance,
        "flat_region": valley and list(valley.flat_region(answer.tolerance)),
        "sizes": [
            {
                "num_params": factor * size,
                "num_tokens_paid": float(plan.tokens(factor * size)),
                "penalty": valley and float(valley.penalty(factor * size)),
            }
            for factor in FACTORS
        ],
    }
    if answer.fit is not None:
        record["num_params_interval"] = [
            finite(end) for end in answer.fit.size_interval(answer.own_compute)
        ]
        record["num_tokens_interval"] = [
            finite(end) for end in answer.fit.data_interval(answer.own_compute)
        ]
    if answer.model is not None:
        record["model"] = asdict(answer.model)
        record["model_num_params"] = num_parameters(answer.model)
        record["model_num_stored"] = num_stored_parameters(answer.model)
    return record


def _show(answer: _Answer) -> None:
    """Print a table for people."""
    plan, valley, fit = answer.plan, answer.plan.valley, answer.fit
    size = plan.num_params
    spread_size = spread_data = ""
    if fit is not None and fit.samples:
        form = "  (95 %: {:.4g} to {:.4g})"
        spread_size = form.format(*fit.size_interval(answer.own_compute))
        spread_data = form.format(*fit.data_interval(answer.own_compute))
    waste = 1 - plan.least_compute / plan.compute
    wasted = f", {waste:.1%} of it wasted by the batch" if waste else ""
    print(f"compute     {plan.compute:.4g} FLOP{wasted}")
    print(f"parameters  {size:.4g} activated{spread_size}")
    print(f"tokens      {plan.num_tokens:.4g}{spread_data}")
    if valley is None:
        print("penalties   not known: the paper prints no curvature; --curvature or a fit gives it")
    else:
        low, high = valley.flat_region(answer.tolerance)
        print(f"flat        {low:.4g} to {high:.4g} parameters, within {answer.tolerance:g} nats")
    shown = Table("activated parameters", "tokens for the compute", "penalty in nats")
    for factor in FACTORS:
        penalty = "" if valley is None else f"{float(valley.penalty(factor * size)):.4f}"
        tokens = float(plan.tokens(factor * size))
        shown.add_row(f"{factor * size:.4g}", f"{tokens:.4g}", penalty)
    Console().print(shown)
    if answer.model is not None:
        print(_described(answer.model))


def _described(model: ModelConfig) -> str:
    """A model in one line."""
    ffn, attention = model.ffn, model.attention
    inner = f"inner width {ffn.hidden}"
    if isinstance(ffn, MoEConfig):
        inner = (
            f"{ffn.num_experts} experts and {ffn.num_shared} shared of {inner}, {ffn.top_k} a token"
        )
    return (
        f"model       {model.num_layers} layers, width {model.width}, {attention.summary}, "
        f"{inner}: "
        f"{num_parameters(model):.4g} activated ({num_active_parameters(model):.4g} with "
        f"embeddings), {num_stored_parameters(model):.4g} stored"
    )
