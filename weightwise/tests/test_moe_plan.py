"""From compute to size, data and a model; fits of budgets on disk and at the command line."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightwise.cli import main
from weightwise.laws import load_budget_fit, load_fit, save_budget_fit
from weightwise.laws.dense import BESIROGLU
from weightwise.laws.moe import (
    DENSE_COST,
    HUNYUAN_BUDGET,
    HUNYUAN_COST,
    ComputeCost,
    critical_batch,
    fit_budgets,
)
from weightwise.laws.moe_plan import plan_size
from weightwise.lm import num_parameters
from weightwise.lm.family import ShapeCost, scale_model
from weightwise.lm.flops import training_flop
from weightwise.recipes import hunyuan_large, moe, scaling_law

if TYPE_CHECKING:
    from pathlib import Path

BUDGETS = np.geomspace(1e18, 1e20, 5)


def grid(noise: float = 0.0005) -> tuple[np.ndarray, ...]:
    """Five budgets of nine sizes around the optimum of a known law: N, D, L, C."""
    rng = np.random.default_rng(0)
    rows = []
    for compute in BUDGETS:
        best, _ = BESIROGLU.optimal(compute)
        for size in best * np.geomspace(0.5, 2.0, 9):
            data = compute / (6 * size)
            loss = BESIROGLU.n / size**BESIROGLU.alpha + BESIROGLU.d / data**BESIROGLU.beta
            rows.append((size, data, loss + BESIROGLU.epsilon + noise * rng.normal(), compute))
    return tuple(np.array(rows).T)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The same as a table, with one run that diverged."""
    rows = [",".join(f"{value:.12g}" for value in row) for row in zip(*grid(), strict=True)]
    lines = ["num_params,num_tokens,loss,cost,status", *(f"{row},done" for row in rows)]
    lines.append("1e8,1e9,,6e17,diverged")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    return path


def test_the_papers_plan() -> None:
    """3.109e24 FLOP: 58.1 billion parameters, 5.64 trillion tokens; what the whole pays for."""
    plan = plan_size(3.109e24)
    assert plan.num_params == pytest.approx(58.1e9, rel=1e-3)
    assert plan.num_tokens == pytest.approx(5.642e12, rel=1e-3)
    paid = plan.tokens(plan.num_params)
    assert HUNYUAN_COST.flop(plan.num_params, paid) == pytest.approx(3.109e24)
    assert plan.valley is None
    # 52 billion on 7 trillion tokens is what 3.492e24 pay for.
    assert plan_size(3.492e24).tokens(52e9) == pytest.approx(7e12, rel=1e-3)


def test_a_large_batch_wastes_compute() -> None:
    """At the critical batch half of the compute counts, and the plan is that of the half."""
    critical = float(critical_batch(2.0))
    wasteful, lean = plan_size(2e22, batch=critical, critical=critical), plan_size(1e22)
    assert wasteful.least_compute == pytest.approx(1e22)
    assert wasteful.num_params == pytest.approx(lean.num_params)
    # Twice the tokens are trained on: E = E_min (1 + B / B_crit).
    size = lean.num_params
    assert wasteful.tokens(size) == pytest.approx(2 * lean.tokens(size))


@given(st.floats(1e18, 1e25))
def test_another_count_meets_the_laws_best_point(compute: float) -> None:
    """The plan's N and D are the law's for one C, and cost what was given in the other count."""
    plan = plan_size(compute, cost=DENSE_COST)
    assert DENSE_COST.flop(plan.num_params, plan.num_tokens) == pytest.approx(compute, rel=1e-6)
    own = HUNYUAN_BUDGET.compute_of_size(plan.num_params)
    assert HUNYUAN_BUDGET.best_data(own) == pytest.approx(plan.num_tokens, rel=1e-6)
    assert plan.tokens(plan.num_params) == pytest.approx(plan.num_tokens, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute": -1.0}, "compute: expected a finite number above 0, got -1.0"),
        ({"compute": 1e20, "batch": 1e6}, "batch, critical: expected both or neither"),
        ({"compute": 1e20, "curvature": 0.0}, "curvature: expected a finite number above 0"),
    ],
)
def test_wrong_plans_are_named(options: dict[str, float], message: str) -> None:
    """A value out of range is named with the range."""
    with pytest.raises(ValueError, match=message):
        plan_size(**options)


def test_curvature_is_that_of_the_known_law() -> None:
    """Half the second derivative of the loss in ln N at fixed compute, within 6 %, also beyond."""
    fit = fit_budgets(*grid(0.0))
    for compute in (3e18, 3e19, 1e21):
        best, data = BESIROGLU.optimal(compute)
        of_size = BESIROGLU.alpha**2 * BESIROGLU.n / best**BESIROGLU.alpha
        of_data = BESIROGLU.beta**2 * BESIROGLU.d / data**BESIROGLU.beta
        assert fit.curvature(compute) == pytest.approx((of_size + of_data) / 2, rel=0.06)


def test_cost_is_fitted_to_counted_runs() -> None:
    """The constants of equation 2 come back from runs that were counted with them."""
    size, data = np.array([1e7, 3e7, 1e8]), np.array([1e10, 5e9, 2e10])
    found = ComputeCost.fitted(size, data, HUNYUAN_COST.flop(size, data))
    assert found.per_weight == pytest.approx(9.59)
    assert found.per_token == pytest.approx(2.3e8)
    with pytest.raises(ValueError, match="at least 2 different sizes"):
        ComputeCost.fitted([1e7, 1e7], [1e9, 2e9], [1e18, 2e18])


def test_fit_survives_the_disk(tmp_path: Path) -> None:
    """What is read is what was written; another file is refused by name, both ways."""
    fit = fit_budgets(*grid(), num_resamplings=20)
    path = tmp_path / "law.json"
    save_budget_fit(path, fit, DENSE_COST)
    assert load_budget_fit(path) == (fit, DENSE_COST)
    with pytest.raises(ValueError, match=r"law\.json: expected a law that `law fit --out` wrote"):
        load_fit(path)
    path.write_text('{"law": "capybara"}')
    with pytest.raises(ValueError, match=r"law\.json: expected a law of size"):
        load_budget_fit(path)


@pytest.mark.parametrize(
    ("base", "factor"),
    [
        *((hunyuan_large(), factor) for factor in (0.005, 0.02, 0.3, 1.0, 3.0, 20.0)),
        *((scaling_law("154m").model, factor) for factor in (0.05, 0.3, 1.0, 20.0)),
        *((moe().model, factor) for factor in (1.0, 3.0, 20.0, 1000.0)),  # small already
    ],
)
def test_scaled_models_have_the_size_and_the_shape(base, factor: float) -> None:
    """Within 5 % of the weights; proportions within a factor of 2; heads and groups fit."""
    wanted = factor * num_parameters(base)
    model = scale_model(base, wanted)
    assert num_parameters(model) == pytest.approx(wanted, rel=0.05)
    assert model.num_layers % base.attention.share_factor == 0
    assert model.attention.width_per_head(model.width) == base.attention.width_per_head(base.width)
    for got, of_base in (
        (model.width / model.num_layers, base.width / base.num_layers),
        (model.ffn.hidden / model.width, base.ffn.hidden / base.width),
    ):
        assert 0.5 < got / of_base < 2
    if factor == 1.0:
        assert model == base


def test_impossible_sizes_are_refused() -> None:
    """Eight key and value heads of 80 features cannot be had in a thousand weights."""
    with pytest.raises(ValueError, match="num_params: expected a size that whole layers"):
        scale_model(hunyuan_large(), 1000)


def test_cost_of_a_shape_is_the_exact_count() -> None:
    """At the base to rounding, and near that of scaled models, whose sizes come in steps."""
    base = moe().model
    for is_recomputed in (False, True):
        cost = ShapeCost(base=base, seq_length=128, is_recomputed=is_recomputed)
        exact = training_flop(base, 128, is_recomputed=is_recomputed)
        assert cost.flop(num_parameters(base), 10) == pytest.approx(10 * exact)
    cost = ShapeCost(base=base, seq_length=128)
    for factor in (4.0, 30.0):
        model = scale_model(base, factor * num_parameters(base))
        exact = training_flop(model, 128)
        assert cost.flop(num_parameters(model), 1) == pytest.approx(exact, rel=0.1)


@pytest.mark.slow
def test_isoflop_then_size(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fitted powers hold the known ones; the plan from the file lies in its flat region."""
    law, figure = tmp_path / "law.json", tmp_path / "isoflop.svg"
    words = ["law", "isoflop", str(runs), "--out", str(law), "--figure", str(figure)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    power = BESIROGLU.beta / (BESIROGLU.alpha + BESIROGLU.beta)
    low, high = found["intervals"]["size_power"]
    assert low < power < high
    assert found["num_runs"] == 45
    assert found["num_diverged"] == 1
    assert found["cost"]["per_weight"] == pytest.approx(6.0, rel=1e-6)
    assert ET.parse(figure).getroot().tag.endswith("svg")  # noqa: S314
    words = ["law", "size", "--law", str(law), "--compute", "1e21", "--shape", "moe"]
    figure = tmp_path / "size.svg"
    assert main([*words, "--json", "--figure", str(figure)]) == 0
    plan = json.loads(capsys.readouterr().out)
    best, data = BESIROGLU.optimal(1e21)
    assert plan["num_params"] == pytest.approx(best, rel=0.15)
    assert plan["num_tokens"] == pytest.approx(data, rel=0.15)
    assert plan["flat_region"][0] < plan["num_params"] < plan["flat_region"][1]
    assert plan["model_num_params"] == pytest.approx(plan["num_params"], rel=0.05)
    assert plan["model"]["ffn"]["num_experts"] == 8
    assert ET.parse(figure).getroot().tag.endswith("svg")  # noqa: S314
    assert main(["law", "isoflop", str(runs), "--cost", "dense", "--batch", "1e6"]) == 0
    assert "without what large batches waste" in capsys.readouterr().out
    assert main(words) == 0
    assert "within 0.002 nats" in capsys.readouterr().out


def test_published_plan_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers of the paper, an unknown penalty, and a model near the released one."""
    words = ["law", "size", "--compute", "3.109e24"]
    assert main([*words, "--shape", "hunyuan-large"]) == 0
    out = capsys.readouterr().out
    assert "5.81e+10 activated" in out
    assert "5.642e+12" in out
    assert "the paper prints no curvature" in out
    assert "16 experts and 1 shared" in out
    assert main([*words, "--curvature", "0.05", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    # 0.002 nats are sqrt(0.04) = 0.2 in ln N.
    assert plan["flat_region"][1] / plan["num_params"] == pytest.approx(np.exp(0.2))
    exact = ["--shape", "hunyuan-large", "--cost", "exact", "--json"]
    assert main([*words, *exact]) == 0
    # Counted exactly a token costs two thirds, so the same FLOP pay for a larger model.
    assert json.loads(capsys.readouterr().out)["num_params"] > 1.1 * plan["num_params"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["size", "--compute", "1e20", "--law", "no.json"], "law: expected hunyuan or a file"),
        (["size", "--compute", "1e20", "--cost", "exact"], "cost: expected a --shape"),
        (["size", "--compute", "1e20", "--batch", "1e6"], "batch: expected either"),
        (["size", "--compute", "1e20", "--loss", "2"], "batch: expected either"),
        (["size", "--compute", "1e20", "--figure", "a.svg"], "figure: expected a --curvature"),
        (["isoflop", "RUNS", "--tolerance", "-1"], "tolerance: expected a finite number above 0"),
        (["isoflop", "RUNS", "--figure", "a.png"], "figure: expected a file name"),
        (["isoflop", "no.csv"], "no.csv"),
    ],
)
def test_wrong_words_are_named(
    words: list[str],
    message: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, one line that names the option, and nothing written."""
    monkeypatch.chdir(tmp_path)
    assert main(["law", *(str(runs) if word == "RUNS" else word for word in words)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("*.svg"))


def test_a_column_is_filled_in_every_row_or_in_none(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File, line and column are named."""
    lines = runs.read_text().splitlines()
    lines[3] = ",".join([*lines[3].split(",")[:3], "", "done"])
    runs.write_text("\n".join(lines))
    assert main(["law", "isoflop", str(runs)]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "runs.csv, line 4: column cost: expected a number in every row or in none" in err
