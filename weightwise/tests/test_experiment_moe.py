"""The study of mixtures of experts: its own arithmetic, its figures, and runs made once."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from math import log
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixture import law, rates, runs
from mixture.figures import overflow_figure, rates_figure
from mixture.studies import late_mean
from study.rows import claim, differences, figure
from study.runs import Runs

from weightwise.lm import MoEConfig, num_parameters
from weightwise.lm.flops import training_flop
from weightwise.recipes import tiny
from weightwise.report.experts import expert_loads, load_figure
from weightwise.sweep.grid import num_tokens

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_are_means_over_seeds() -> None:
    """Of 1, 2, 6 the mean is 3 and the standard deviation sqrt((4 + 1 + 9) / 2) = sqrt 7."""
    row = figure("loss", [1.0, 2.0, 6.0], "nats", detail={"rate": 0.1})
    assert (row["name"], row["value"], row["unit"], row["goal"]) == ("study_loss", 3, "nats", None)
    assert row["detail"]["spread"] == pytest.approx(7**0.5)
    assert row["detail"]["by_seed"] == [1.0, 2.0, 6.0]
    assert row["detail"]["rate"] == 0.1
    assert "spread" not in figure("loss", [1.0], "nats")["detail"]


def test_claims_are_differences_of_equal_seeds() -> None:
    """Each arm's seeds are paired, and the goal is that the difference is not negative."""
    gap = differences([2.0, 3.0], [1.5, 3.5])
    assert gap == [0.5, -0.5]
    row = claim("gap", "a is better", "said", gap, "nats")
    assert row["goal"] == (">=", 0.0)
    assert row["value"] == 0.0
    assert (row["detail"]["claim"], row["detail"]["paper"]) == ("a is better", "said")
    with pytest.raises(ValueError, match="zip"):
        differences([1.0], [1.0, 2.0])


@given(best=st.sampled_from([5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]))
def test_grids_of_rates_grow_until_the_best_is_inside(best: float) -> None:
    """A parabola in log rate up to three doublings outside is found, with both its neighbours."""
    asked: list[float] = []

    def losses(some: tuple[float, ...]) -> list[float]:
        asked.extend(some)
        return [log(rate / best) ** 2 for rate in some]

    grid = runs.grown_grid(losses)
    assert len(asked) == len(set(asked)) == len(grid)
    found = runs.least(grid)
    assert abs(log(found / best)) <= log(2) / 2 + 1e-9
    assert min(grid) < found < max(grid)


def test_grids_of_rates_do_not_grow_for_ever() -> None:
    """A loss that only falls ends at the end of the grid."""
    grid = runs.grown_grid(lambda some: [-rate for rate in some])
    assert len(grid) == len(runs.RATES) + runs.MOST_EXTRA_RATES
    assert runs.least(grid) == max(grid)


def test_dense_arm_has_as_many_activated_weights() -> None:
    """Attention and feed-forward; the router is not counted."""
    dense, experts = (runs.small(arm, 1e-3, 1).model for arm in ("dense", "keep"))
    assert num_parameters(dense) == num_parameters(experts)


def test_runs_of_different_settings_have_different_names() -> None:
    """A name stands for one recipe: records are found by it."""
    made = [
        runs.small(arm, rate, seed, expert_lr=ratio)
        for arm in runs.FFN
        for rate in (2e-3, 4e-3)
        for seed in (0, 1)
        for ratio in (1.0, 0.31)
    ]
    made += [rates.at_batch(size, rate) for size in rates.NOISE_STEPS for rate in (2e-3, 4e-3)]
    made += [law.at_budget(budget, width) for budget in law.BUDGETS for width in law.WIDTHS]
    assert len({recipe.name for recipe in made}) == len(made)


@pytest.mark.parametrize("budget", law.BUDGETS)
def test_runs_of_a_budget_cost_as_much(budget: float) -> None:
    """Within the 5 % inside which `fit_budgets` takes runs for those of one budget."""
    costs = []
    for width in law.FIRST[budget]:
        recipe = law.at_budget(budget, width)
        costs.append(training_flop(recipe.model, law.LENGTH) * num_tokens(recipe))
    assert max(costs) / min(costs) < 1.025
    assert costs == pytest.approx([budget] * len(costs), rel=0.015)


@pytest.mark.parametrize(("best", "expected"), [(8, 8), (32, 32), (64, 64), (128, 128)])
def test_sizes_are_added_until_the_best_is_inside(best: int, expected: int) -> None:
    """Widths from 24 to 64 grow to either side as far as there are any."""
    found = law.sized(5.4e11, lambda width: (width**2, 1, abs(log(width / best)), 1.0))
    assert min(found, key=lambda width: found[width][2]) == expected
    inside = expected not in (min(law.WIDTHS), max(law.WIDTHS))
    assert (min(found) < expected < max(found)) is inside
    assert list(found) == [width for width in law.WIDTHS if min(found) <= width <= max(found)]


def test_a_valley_has_its_bottom_inside() -> None:
    """Not a hill, and not a slope whose bottom lies beyond."""
    sizes = [1e4, 3e4, 9e4, 2.7e5]
    assert law.is_valley([(n, log(n / 5e4) ** 2) for n in sizes])
    assert not law.is_valley([(n, -(log(n / 5e4) ** 2)) for n in sizes])
    assert not law.is_valley([(n, log(n / 1e6) ** 2) for n in sizes])


def test_late_mean_takes_the_last_quarter() -> None:
    """Of eight values the last two; rows without the metric do not count."""
    rows = [{"step": step, "load": float(step)} for step in range(1, 9)]
    assert late_mean([*rows, {"step": 9, "valid_loss": 1.0}], "load") == 7.5


def test_a_refused_noise_batch_gives_way_to_that_of_the_gradients() -> None:
    """The fit where nothing speaks against it."""
    fit = SimpleNamespace(noise_batch=1000.0)
    good = SimpleNamespace(fit=fit, refusal=None, from_gradients=10.0)
    assert rates.noise_tokens(good) == 1000.0
    assert rates.noise_tokens(SimpleNamespace(fit=fit, refusal="no", from_gradients=10.0)) == 10.0
    assert rates.noise_tokens(SimpleNamespace(fit=None, refusal="no", from_gradients=None)) is None


def test_figures_are_well_formed() -> None:
    """Each parses as XML, says what it is, and keeps its points inside."""
    loads = [
        {"step": step, "load_0_0": 1.5, "load_0_1": 0.5, "load_1_0": 1.0, "load_1_1": 1.0}
        for step in (5, 10, 15)
    ]
    drawings = [
        overflow_figure(
            {"keep": [1.0, 1.1], "recycle": [1.2, 1.25], "drop": [1.3, 1.31]},
            {"recycle": [(1, 0.2), (2, 0.1)], "drop": [(1, 0.3), (2, 0.2)]},
        ),
        rates_figure(
            {"x1": {1e-3: 2.0, 2e-3: 1.9}, "auto": {1e-3: 2.1, 2e-3: 1.95}},
            {"x1": 1.0, "auto": 0.5},
        ),
        load_figure({"with": loads, "without": loads}),
    ]
    for drawing in drawings:
        root = ET.fromstring(drawing)  # noqa: S314 - our own drawing, nothing foreign in it
        assert root.attrib["aria-label"]
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        lines = [node for node in root.iter() if node.tag.endswith("polyline")]
        assert lines
        for node in lines:
            assert node.attrib["points"]
            for pair in node.attrib["points"].split():
                x, y = map(float, pair.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height


def test_loads_are_read_by_layer_and_expert() -> None:
    """Rows of evaluations have none; a run without any cannot be drawn."""
    rows = [{"step": 5, "load_0_1": 0.5, "load_10_0": 2.0}, {"step": 5, "valid_loss": 1.0}]
    assert expert_loads(rows) == {0: {1: [(5, 0.5)]}, 10: {0: [(5, 2.0)]}}
    with pytest.raises(ValueError, match="dense: expected rows with loads"):
        load_figure({"dense": [{"step": 1, "train_loss": 2.0}]})


@pytest.mark.slow
def test_runs_are_made_once_and_log_the_load_of_every_expert(tmp_path: Path) -> None:
    """A second call reads the records; loads average to 1 and the busiest is their maximum."""
    base = tiny()
    ffn = MoEConfig(hidden=16, num_experts=4)
    wanted = [
        replace(
            base,
            name=f"s{seed}",
            seed=seed,
            model=replace(base.model, ffn=ffn),
            train=replace(base.train, steps=3, eval_batches=1),
        )
        for seed in (1, 2)
    ]
    made = Runs(tmp_path, 1, "experts")
    losses = made.losses(wanted)
    before = (tmp_path / "runs.jsonl").read_bytes()
    assert made.losses(reversed(wanted)) == losses[::-1]
    assert (tmp_path / "runs.jsonl").read_bytes() == before
    rows = [row for row in made.metrics(wanted[0]) if "train_loss" in row]
    assert len(rows) == 3
    for row in rows:
        loads = [[row[f"load_{layer}_{expert}"] for expert in range(4)] for layer in range(2)]
        assert all(sum(layer) == pytest.approx(4, abs=1e-3) for layer in loads)
        assert max(map(max, loads)) == pytest.approx(row["busiest_expert"], abs=1e-4)
