"""The noise batch from runs, from gradients and at the command line."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightwise.cli import main
from weightwise.optim import (
    ScheduleConfig,
    best_rate,
    fit_noise,
    gradient_noise_batch,
)
from weightwise.optim.noise import smooth_curve, steps_to_loss
from weightwise.recipes import tiny
from weightwise.sweep.noise import estimate_noise
from weightwise.train import to_toml

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.train import Recipe

NOISE, HIGHEST = 1000.0, 4e-3
BATCHES = (256, 512, 1024, 2048, 4096)  # tokens a step; tiny has 32 tokens a sequence


def write_run(
    folder: Path, batch: int, rate: float, *, seed: int = 1, noise: float = 0.0, **changes: object
) -> Path:
    """A run whose steps follow the law, slower with any other than the best rate."""
    base = tiny()
    recipe: Recipe = replace(
        base,
        name=folder.name,
        seed=seed,
        schedule=ScheduleConfig(kind="constant", peak_lr=rate),
        train=replace(base.train, batch_size=batch // 32, micro_batch_size=None, steps=4000),
        **changes,
    )
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(to_toml(recipe))
    off = np.log(rate / best_rate(batch, NOISE, HIGHEST))
    steps = np.arange(10, 4001, 10)
    progress = steps / ((1 + NOISE / batch) * np.exp(off**2 / 2))
    rng = np.random.default_rng((seed, batch))
    losses = 2.0 + 8.0 * progress**-0.4 + noise * rng.normal(size=len(steps))
    norms = np.sqrt(0.04 * (1 + NOISE / batch)) * np.ones(len(steps))
    rows = [
        {"step": int(s), "tokens": int(s) * batch, "train_loss": loss, "grad_norm": norm}
        for s, loss, norm in zip(steps, losses, norms, strict=True)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_grid(root: Path, noise: float = 0.0) -> list[Path]:
    """Three rates at each batch, the middle one the best of the three."""
    return [
        write_run(root / f"b{batch}-r{k}", batch, rate, noise=noise)
        for batch in BATCHES
        for k, rate in enumerate(best_rate(batch, NOISE, HIGHEST) * np.array([0.4, 0.9, 2.5]))
    ]


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.01, 1.0))
def test_smoothing_keeps_a_straight_line(height: float, slope: float, bandwidth: float) -> None:
    """What is straight in the logarithm of the step comes out as it went in."""
    steps = np.arange(10, 500, 10)
    values = height + slope * np.log(steps)
    places, smooth = smooth_curve(steps, values, bandwidth=bandwidth)
    assert smooth == pytest.approx(height + slope * np.log(places), abs=1e-8)


def test_steps_are_read_off_a_noisy_curve() -> None:
    """Of loss 2 + 8 / sqrt(s) the value 2.4 is reached at step 400, here within 4 %."""
    steps = np.arange(5, 2000, 5)
    rng = np.random.default_rng(0)
    losses = 2 + 8 / np.sqrt(steps) + 0.02 * rng.normal(size=len(steps))
    curve = smooth_curve(steps, losses)
    assert steps_to_loss(*curve, 2.4) == pytest.approx(400, rel=0.04)
    exact = smooth_curve(steps, 2 + 8 / np.sqrt(steps), bandwidth=0.02)
    assert steps_to_loss(*exact, 2.4) == pytest.approx(400, rel=2e-3)
    assert steps_to_loss(*curve, 1.9) is None
    with pytest.raises(ValueError, match="target: expected below"):
        steps_to_loss(*curve, 9.0)


def test_interval_holds_the_truth() -> None:
    """With a percent of noise in the steps the interval covers the noise batch and is narrow."""
    batches = np.repeat(BATCHES, 3)
    rng = np.random.default_rng(1)
    steps = 500 * (1 + NOISE / batches) * np.exp(0.01 * rng.normal(size=len(batches)))
    fit = fit_noise(steps, batches)
    assert fit.interval[0] < NOISE < fit.interval[1]
    assert fit.interval[1] / fit.interval[0] < 1.2
    assert fit.least_steps == pytest.approx(500, rel=0.03)
    assert fit.least_tokens == pytest.approx(500 * NOISE, rel=0.05)
    assert fit.doubt() is None
    assert fit.warning() is None
    two = fit_noise([500 * (1 + NOISE / b) for b in (256, 4096)], [256, 4096])
    assert np.isnan(two.interval).all()  # a line through two points says nothing of its spread


def test_a_poor_line_is_doubted() -> None:
    """Steps that do not fall along the law are told, and so is a noise batch far outside."""
    steps = 500 * (1 + NOISE / np.array(BATCHES)) * np.array([1.0, 1.5, 0.7, 1.6, 0.7])
    doubt = fit_noise(steps, BATCHES).doubt()
    assert doubt is not None
    assert "no straight line" in doubt
    small = np.array([2, 4, 8, 16])
    text = fit_noise(500 * (1 + NOISE / small), small).warning()
    assert text is not None
    assert "2 to 16 tokens" in text


def test_gradients_of_a_known_problem_show_its_noise() -> None:
    """Per-token gradients of mean g and covariance 4 I in 50 dimensions: 200 / |g|^2 tokens."""
    rng = np.random.default_rng(0)
    mean = np.full(50, 0.5)
    batches = (16, 64, 256)
    squares = [
        float(((mean + 2 / np.sqrt(b) * rng.normal(size=(4000, 50))) ** 2).sum(1).mean())
        for b in batches
    ]
    found = gradient_noise_batch(squares, batches)
    assert found == pytest.approx(200 / (mean**2).sum(), rel=0.03)
    # arXiv 1812.06162, appendix A.1: |G|^2 and S from a small and a big batch.
    (small, big), (few, many) = squares[::2], batches[::2]
    limit = (many * big - few * small) / (many - few)
    spread = (small - big) / (1 / few - 1 / many)
    assert gradient_noise_batch(squares[::2], batches[::2]) == pytest.approx(spread / limit)
    with pytest.raises(ValueError, match="show no noise batch"):
        gradient_noise_batch([1.0, 2.0], [16, 64])
    with pytest.raises(ValueError, match="at least 2 different batches"):
        gradient_noise_batch([1.0, 2.0], [16, 16])


def test_runs_give_back_noise_batch_and_highest_rate(tmp_path: Path) -> None:
    """The best rate of every batch is chosen, and its neighbours refine it."""
    found = estimate_noise(write_grid(tmp_path, noise=0.003))
    assert found.refusal is None
    assert found.fit is not None
    assert found.fit.noise_batch == pytest.approx(NOISE, rel=0.05)
    assert found.fit.r_squared > 0.999
    assert found.highest_rate == pytest.approx(HIGHEST, rel=0.05)
    assert found.from_gradients == pytest.approx(NOISE, rel=1e-6)
    assert [run.folder.name for run in found.runs if run.is_chosen] == [
        f"b{batch}-r1" for batch in BATCHES
    ]
    assert found.warnings == ()


def test_seeds_of_the_best_rate_count_together(tmp_path: Path) -> None:
    """Two seeds of each batch are two points of the line; one rate alone is remarked."""
    folders = [
        write_run(tmp_path / f"b{batch}-s{seed}", batch, 3e-3, seed=seed, noise=0.003)
        for batch in BATCHES[:3]
        for seed in (1, 2)
    ]
    found = estimate_noise(folders, target=3.0)
    assert found.fit is not None
    assert len(found.fit.steps) == 6
    assert sum("one learning rate only" in text for text in found.warnings) == 3


def test_wrong_runs_are_named(tmp_path: Path) -> None:
    """One batch alone, other settings, a target that no run reaches, and a folder without a run."""
    first = write_run(tmp_path / "a", 256, 3e-3)
    second = write_run(tmp_path / "b", 512, 3e-3)
    with pytest.raises(ValueError, match="at least 2 different batches, got 1"):
        estimate_noise([first])
    with pytest.raises(ValueError, match=r"target: expected at least \d\.\d+, which the runs"):
        estimate_noise([first, second], target=0.5)
    other = write_run(tmp_path / "c", 512, 3e-3, model=replace(tiny().model, width=64))
    with pytest.raises(ValueError, match=r"c: model\.width: expected 32 as in .*a, got 64"):
        estimate_noise([first, other])
    with pytest.raises(ValueError, match=r"nothing.recipe\.toml"):
        estimate_noise([first, tmp_path / "nothing"])


def test_command_prints_what_the_optimizer_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table, a figure, JSON; and exit code 1 with the reason where no line fits."""
    folders = [str(path) for path in write_grid(tmp_path)]
    figure = tmp_path / "noise.svg"
    assert main(["law", "noise", *folders, "--figure", str(figure)]) == 0
    out = capsys.readouterr().out
    found = re.search(r"--set optimizer\.noise_batch=(\d+)", out)
    assert found is not None
    assert float(found[1]) == pytest.approx(NOISE, rel=0.02)
    assert ET.parse(figure).getroot().tag.endswith("svg")  # noqa: S314
    assert main(["law", "noise", *folders, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["noise_batch"] == pytest.approx(NOISE, rel=0.02)
    assert sum(run["is_chosen"] for run in record["runs"]) == len(BATCHES)
    # More steps with larger batches: they bring nothing, so there is no noise batch.
    odd = [write_run(tmp_path / f"odd{b}", b, 3e-3) for b in (256, 512, 1024)]
    rows = [(folder / "metrics.jsonl").read_text() for folder in odd]
    for folder, text in zip(odd, reversed(rows), strict=True):
        (folder / "metrics.jsonl").write_text(text)
    assert main(["law", "noise", *map(str, odd), "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["noise_batch"] is None
    assert "not to be used" in captured.err
