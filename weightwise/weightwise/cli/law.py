"""The commands ``weightwise law fit``, ``compare``, ``predict`` and ``plan``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path  # noqa: TC003 (the parser reads annotations)
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tyro  # noqa: TC002 (the parser reads annotations)
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from weightwise.cli.law_options import (
    ALL_LAWS,
    PUBLISHED,
    FittedLaw,
    Json,
    finite,
    load_law,
    one_setting,
    print_json,
    warn,
)
from weightwise.laws import (
    QAT,
    QAT_CAVEAT,
    Capybara,
    Settings,
    biases,
    constants,
    cross_validate,
    extrapolate,
    fit,
    optimal_training,
    predict,
    read_runs,
    read_settings,
    save_fit,
    training_by_bits,
)
from weightwise.report.law_figures import (
    check_figure,
    compare_figure,
    fit_figure,
    plan_figure,
    predict_figure,
    write_figure,
)

if TYPE_CHECKING:
    from weightwise.laws import Law
    from weightwise.laws.law import Floats
    from weightwise.laws.problem import Objective


def fit_command(
    runs: tyro.conf.Positional[Path],
    /,
    law: FittedLaw = "capybara",
    objective: Literal["huber", "squares"] = "huber",
    samples: int = 200,
    level: float = 0.9,
    seed: int = 0,
    out: Path | None = None,
    figure: Path | None = None,
    as_json: Json = False,
) -> int:
    """Fit a law to a table of runs and print its constants with intervals.

    Args:
        runs: CSV or JSON lines with num_params (N), num_tokens (D), loss (L), format or E and M,
            block_size (B).
        law: Law to fit.
        objective: Huber losses of log losses, or squares of losses.
        samples: Bootstrap samples for the intervals; 0 for none.
        level: Share of the samples inside of an interval.
        seed: Seed of the bootstrap.
        out: Write the fitted law to this JSON file, for predict and plan.
        figure: Draw predicted against observed losses, and the bias of formats, to this SVG file.
        as_json: Print one JSON object.
    """
    if samples < 0:
        raise ValueError(f"samples: expected at least 0, got {samples}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    check_figure(figure)
    table = read_runs(runs)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("refitting resampled runs", total=samples, visible=samples > 0)
        found = fit(
            law, table.settings, table.losses, objective=objective, num_samples=samples,
            seed=seed, on_sample=lambda done: progress.update(task, completed=done),
        )  # fmt: skip
    if out is not None:
        save_fit(out, law, found)
    if figure is not None:
        write_figure(figure, fit_figure(found.law, table.settings, table.losses))
    intervals = _intervals(found.samples, level)
    bias = biases(found.law, table.settings, table.losses)
    if as_json:
        print_json(
            law=law, constants=constants(found.law), intervals=intervals, level=level,
            objective=found.objective, rmse=found.rmse, aic=found.aic, bic=found.bic, bias=bias,
            num_runs=len(table.losses), num_diverged=table.num_diverged,
        )  # fmt: skip
        return 0
    console = Console()
    console.print(_constants_table(found.law, intervals, level))
    left_out = f", {table.num_diverged} diverged and left out" if table.num_diverged else ""
    console.print(
        f"{law}: {len(table.losses)} runs{left_out}; root mean squared error {found.rmse:.4f} "
        f"nats a token"
    )
    console.print(_bias_table(bias))
    return 0


def compare_command(
    runs: tyro.conf.Positional[Path],
    /,
    objective: Literal["huber", "squares"] = "huber",
    folds: int = 5,
    seed: int = 0,
    figure: Path | None = None,
    as_json: Json = False,
) -> int:
    """Compare all laws on a table of runs, also on runs that they did not see.

    Args:
        runs: Table of runs, as for fit.
        objective: Huber losses of log losses, or squares of losses.
        folds: Parts of the cross-validation.
        seed: Seed of the parts.
        figure: Draw the errors to this SVG file.
        as_json: Print one JSON object.
    """
    check_figure(figure)
    table = read_runs(runs)
    settings, losses = table.settings, table.losses
    rows: dict[str, dict[str, Any]] = {}
    refused = []
    for name in ALL_LAWS:
        try:
            rows[name] = _errors(name, settings, losses, objective, folds, seed)
        except ValueError as error:
            refused.append(str(error))
    if not rows:
        raise ValueError(refused[0])
    if figure is not None:
        write_figure(figure, compare_figure(rows))
    if as_json:
        print_json(num_runs=len(losses), laws=rows, refused=refused)
        return 0
    console = Console()
    shown = Table("law", "error", "unseen runs", "largest size unseen", "its bias", "AIC", "BIC")
    for title, row in sorted(rows.items(), key=lambda item: item[1]["rmse_cross_validated"]):
        shown.add_row(
            title, *(_digits(row[key]) for key in (
                "rmse", "rmse_cross_validated", "rmse_largest_size", "bias_largest_size")),
            f"{row['aic']:.1f}", f"{row['bic']:.1f}",
        )  # fmt: skip
    console.print(shown)
    console.print(f"{len(losses)} runs; root mean squared errors in nats a token")
    warn(refused)
    return 0


def predict_command(
    law: str = "capybara",
    params: float | None = None,
    tokens: float | None = None,
    format: str = "bf16",  # noqa: A002 (the name of the option)
    block: str | None = None,
    settings: Path | None = None,
    level: float = 0.9,
    figure: Path | None = None,
    as_json: Json = False,
) -> int:
    """Predict losses, for one setting or for a table of them.

    Args:
        law: capybara, hoffmann, besiroglu, qat-w4a4, qat-w4a16, qat-w16a4, or a file that fit
            wrote.
        params: N, parameters without embeddings.
        tokens: D, training tokens.
        format: Number format such as e4m3; bf16 without quantization.
        block: Elements that share a scale (128 by default), channel or tensor; none with a format
            that says so itself, such as mxfp4 or e4m3@32.
        settings: Table of settings, as for fit but without losses, instead of the four above.
        level: Share of the fit's samples inside of an interval.
        figure: Draw losses against tokens for these sizes and formats to this SVG file.
        as_json: Print one JSON object.
    """
    check_figure(figure)
    chosen, samples = load_law(law)
    asked = _asked(params, tokens, format, block, settings)
    answer = predict(chosen, asked, samples, level)
    if figure is not None:
        write_figure(figure, predict_figure(chosen, asked))
    extra = {}
    if isinstance(chosen, Capybara | QAT):
        critical, effective = chosen.critical_tokens(asked), chosen.effective_params(asked)
        extra = {"critical_tokens": critical, "effective_params": effective}
    warnings = [str(one) for one in answer.warnings]
    if isinstance(chosen, QAT) and law in PUBLISHED:
        warnings.append(QAT_CAVEAT)
    if as_json:
        columns = {"loss": answer.loss, "low": answer.low, "high": answer.high, **extra}
        print_json(
            law=law, level=level, warnings=warnings,
            rows=[
                {key: finite(values[i]) for key, values in columns.items() if values is not None}
                for i in range(len(asked))
            ],
        )  # fmt: skip
        return 0
    console = Console()
    shown = Table("params", "tokens", "loss", f"{level:.0%} interval", *extra)
    for i in range(len(asked)):
        low, high = (None if one is None else one[i] for one in (answer.low, answer.high))
        shown.add_row(
            f"{asked.num_params[i]:.4g}", f"{asked.num_tokens[i]:.4g}", f"{answer.loss[i]:.4f}",
            "" if low is None else f"{low:.4f} to {high:.4f}",
            *(f"{values[i]:.4g}" for values in extra.values()),
        )  # fmt: skip
    console.print(shown)
    warn(warnings)
    return 0


def plan_command(
    compute: float,
    law: str = "capybara",
    params: float | None = None,
    tokens: float | None = None,
    bits: float | None = None,
    block: float = 128,
    overhead_bits: float = 0.0,
    cost: tuple[str, ...] = (),
    figure: Path | None = None,
    as_json: Json = False,
) -> int:
    """Find the bits, parameters and tokens of least loss for a given amount of computing.

    Args:
        compute: FLOP in 16-bit arithmetic.
        law: capybara, or a file that fit wrote for it.
        params: Keep N fixed.
        tokens: Keep D fixed.
        bits: Keep P = 1 + E + M fixed.
        block: Elements that share a scale.
        overhead_bits: Bits that stand for the work of scaling.
        cost: What whole bits cost over 16 bits, such as 4=0.25 8=0.5 16=1; only these compete.
        figure: Draw the loss against the bits to this SVG file.
        as_json: Print one JSON object.
    """
    check_figure(figure)
    chosen, _ = load_law(law)
    if not isinstance(chosen, Capybara):
        raise ValueError(f"law: expected a Capybara law, got {law}")  # noqa: TRY004 (user's input)
    costs = _costs(cost)
    found = optimal_training(
        compute=compute, num_params=params, num_tokens=tokens, bits=bits, block_size=block,
        overhead_bits=overhead_bits, costs=costs, law=chosen,
    )  # fmt: skip
    if figure is not None:
        curve = training_by_bits(
            compute=compute, num_params=params, num_tokens=tokens, block_size=block,
            overhead_bits=overhead_bits, costs=costs, law=chosen,
        )  # fmt: skip
        write_figure(figure, plan_figure(curve, found, compute))
    layouts = ["E{}M{}".format(*pair) for pair in found.layouts]
    asked = Settings.of(found.num_params, found.num_tokens)
    warnings = [str(one) for one in (chosen.hull.warnings(asked) if chosen.hull else ())]
    if as_json:
        print_json(**(asdict(found) | {"layouts": layouts, "warnings": warnings}))
        return 0
    print(f"bits       {found.bits:.3f}  (whole formats beside it: {', '.join(layouts)})")
    print(f"parameters {found.num_params:.4g}")
    print(f"tokens     {found.num_tokens:.4g}")
    print(f"loss       {found.loss:.4f} nats a token")
    warn([*warnings, found.caveat])
    return 0


def _errors(
    name: str, settings: Settings, losses: Floats, objective: Objective, folds: int, seed: int
) -> dict[str, Any]:
    """How far a law is off, on runs that its fit saw and on others."""
    found = fit(name, settings, losses, objective=objective)
    unseen = cross_validate(name, settings, losses, num_folds=folds, objective=objective, seed=seed)
    try:
        larger = extrapolate(name, settings, losses, objective=objective)
    except ValueError:  # one size, or too few runs without the largest
        larger = None
    return {
        "rmse": found.rmse,
        "aic": found.aic,
        "bic": found.bic,
        "rmse_cross_validated": unseen.rmse,
        "rmse_largest_size": larger and larger.rmse,
        "bias_largest_size": larger and larger.bias,
        "bias": biases(found.law, settings, losses),
    }


def _asked(
    params: float | None, tokens: float | None, fmt: str, block: str | None, table: Path | None
) -> Settings:
    """The settings of the options, or of a table."""
    if table is not None:
        return read_settings(table)
    if params is None or tokens is None:
        raise ValueError("params, tokens: expected both, or a table with --settings")
    return one_setting(params, tokens, fmt, block)


def _costs(words: tuple[str, ...]) -> dict[int, float] | None:
    """A table of costs from BITS=COST words."""
    costs = {}
    for word in words:
        bits, _, cost = word.partition("=")
        try:
            costs[int(bits)] = float(cost)
        except ValueError:
            raise ValueError(f"cost: expected BITS=COST such as 8=0.5, got {word!r}") from None
    return costs or None


def _intervals(samples: tuple[Law, ...], level: float) -> dict[str, tuple[float, float]]:
    """Ends of the interval of each constant."""
    if not samples:
        return {}
    tables = [constants(sample) for sample in samples]
    ends = [(1 - level) / 2, (1 + level) / 2]
    found = {name: np.quantile([one[name] for one in tables], ends) for name in tables[0]}
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def _constants_table(law: Law, intervals: dict[str, tuple[float, float]], level: float) -> Table:
    """Constants with their intervals; those that the fit keeps have none."""
    table = Table("constant", "value", f"{level:.0%} interval")
    for name, value in constants(law).items():
        ends = intervals.get(name)
        spread = ends and ("kept" if ends[0] == ends[1] else "{:.4g} to {:.4g}".format(*ends))
        table.add_row(name, f"{value:.6g}", spread or "")
    return table


def _bias_table(bias: dict[str, float]) -> Table:
    """Mean residual by format, as numbers and bars."""
    table = Table("format", "predicted - observed", "")
    largest = max(map(abs, bias.values())) or 1.0
    for name, value in bias.items():
        bar = "█" * round(12 * abs(value) / largest)
        table.add_row(name, f"{value:+.4f}", f"[red]{bar}[/]" if value > 0 else f"[blue]{bar}[/]")
    return table


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
