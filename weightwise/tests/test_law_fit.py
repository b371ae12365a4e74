"""Fits: real Chinchilla runs, synthetic runs with and without noise, files of runs."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from weightwise.laws import (
    CAPYBARA,
    QAT_W4A4,
    BitsOnly,
    Chinchilla,
    OpenAI,
    Settings,
    biases,
    constants,
    cross_validate,
    extrapolate,
    fit,
    predict,
    read_runs,
    read_settings,
)
from weightwise.laws.families import FAMILIES
from weightwise.laws.problem import Problem

if TYPE_CHECKING:
    from pathlib import Path

# Spread of estimates over 40 reference fits by noise of the loss.
SPREAD = {
    0.002: {"n": 0.68, "alpha": 0.0007, "d": 1505, "beta": 0.0010, "epsilon": 0.0025,
            "gamma": 347, "delta": 0.0124, "nu": 0.0088},
    0.005: {"n": 1.94, "alpha": 0.0020, "d": 3603, "beta": 0.0023, "epsilon": 0.0076,
            "gamma": 760, "delta": 0.026, "nu": 0.020},
    0.010: {"n": 4.18, "alpha": 0.0042, "d": 8891, "beta": 0.0059, "epsilon": 0.0148,
            "gamma": 2173, "delta": 0.055, "nu": 0.039},
}  # fmt: skip


def chinchilla_runs(law_data: Path, num_dropped: int) -> tuple[Settings, np.ndarray]:
    """Runs of Hoffmann et al. without those of highest loss."""
    with (law_data / "chinchilla_svg_extracted.csv").open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    size = np.array([float(row["Model Size"]) for row in found])
    compute = np.array([float(row["Training FLOP"]) for row in found])
    loss = np.array([float(row["loss"]) for row in found])
    kept = np.argsort(loss)[: len(loss) - num_dropped]
    return Settings.of(size[kept], compute[kept] / 6 / size[kept]), loss[kept]


@pytest.fixture
def grid(law_data: Path) -> Settings:
    """The 343 runs of table 3 that support the fit and have no scale per tensor."""
    path = law_data / "table3_configurations.csv"
    with path.open(encoding="utf-8") as file:
        supports = np.array([row["fitting_support"] == "1" for row in csv.DictReader(file)])
    settings = read_settings(path)
    return settings[supports & (settings.granularity != "tensor")]


def small_grid(name: str = "capybara") -> Settings:
    """Few runs that a law can be fitted to: sizes, tokens, formats, blocks."""
    formats = ((None, 32), ("e1m1", 32), ("e2m1", 128), ("e3m2", 64), ("e3m2", "channel"))
    if name == "qat":
        formats = ((None, 32), ("e1m2", 16), ("e1m2", 32), ("e1m2", 128))
    return Settings.join(
        [
            Settings.of(size, tokens, fmt, block)
            for size in (4e7, 1e8, 6e8)
            for tokens in (1e10, 3e10, 1e11)
            for fmt, block in formats
        ]
    )


def test_chinchilla_runs_give_the_published_optimum(law_data: Path) -> None:
    """The fit of Besiroglu et al. on 240 runs."""
    found = fit("chinchilla", *chinchilla_runs(law_data, 5))
    assert found.objective <= 0.00101828
    expected = {"n": 477.83, "alpha": 0.3473, "d": 2143.4, "beta": 0.3672, "epsilon": 1.8172}
    for name, value in expected.items():
        assert constants(found.law)[name] == pytest.approx(value, rel=5e-4)


def test_all_chinchilla_runs_show_what_outliers_do(law_data: Path) -> None:
    """Five runs more change d sixfold."""
    found = fit("chinchilla", *chinchilla_runs(law_data, 0))
    assert found.objective == pytest.approx(0.0018260105, abs=1e-9)
    assert constants(found.law)["d"] == pytest.approx(12845.6, rel=1e-4)


@pytest.mark.parametrize("objective", ["squares", "huber"])
def test_constants_come_back_from_runs_without_noise(grid: Settings, objective: str) -> None:
    """Both objectives find them to five digits."""
    settings = grid
    assert len(settings) == 343
    found = fit("capybara", settings, CAPYBARA.loss(settings), objective=objective)
    for name, value in constants(CAPYBARA).items():
        assert constants(found.law)[name] == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("noise", SPREAD)
def test_constants_come_back_from_noisy_runs_within_the_spread(
    grid: Settings, noise: float
) -> None:
    """Twenty fits scatter as the published forty."""
    settings, rng = grid, np.random.default_rng(11)
    clean, estimates = CAPYBARA.loss(settings), []
    for _ in range(20):
        losses = clean + noise * rng.standard_normal(len(clean))
        estimates.append(constants(fit("capybara", settings, losses, objective="squares").law))
    for name, spread in SPREAD[noise].items():
        values = np.array([one[name] for one in estimates])
        assert values.std() < 2 * spread
        assert abs(values.mean() - constants(CAPYBARA)[name]) < spread


def test_bits_alone_are_biased_on_capybara_runs_as_in_figure_1(grid: Settings) -> None:
    """Error, largest error and signs."""
    settings = grid
    losses = CAPYBARA.loss(settings)
    found = fit("kumar", settings, losses, objective="squares")
    assert round(found.rmse, 3) == 0.069
    assert round(float(np.abs(found.residuals).max()), 2) == 0.45
    bias = biases(found.law, settings, losses)
    assert [round(bias[name], d) for name, d in (("E0M7", 2), ("E1M1", 2), ("E4M3", 3))] == [
        -0.10,
        -0.03,
        -0.004,
    ]


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("chinchilla", Chinchilla(n=400.0, alpha=0.34, d=2000.0, beta=0.36, epsilon=1.8)),
        ("openai", OpenAI(n=5e8, alpha=0.24, d=1e10, beta=0.25, epsilon=1.5)),
        ("kumar", BitsOnly(n=70.0, alpha=0.24, d=7e4, beta=0.5, epsilon=1.9, gamma=1.5)),
        ("capybara", CAPYBARA),
        ("qat", QAT_W4A4),
    ],
)
def test_every_law_finds_itself(name: str, law: Chinchilla) -> None:
    """A fit of a law's own losses returns its constants."""
    settings = small_grid(name)
    found = fit(name, settings, law.loss(settings))
    assert found.rmse < 1e-7
    for constant, value in constants(law).items():
        assert constants(found.law)[constant] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_derivatives_agree_with_differences(name: str) -> None:
    """At points of the grid of starts."""
    settings = small_grid(name)
    family = FAMILIES[name](settings)
    for theta in list(family.starts())[::4]:
        slopes = family.features(theta)[1]
        for k in range(len(theta)):
            step = np.zeros(len(theta))
            step[k] = 1e-6
            above, below = (family.features(theta + s * step)[0] for s in (1, -1))
            np.testing.assert_allclose(
                slopes[:, k], (above - below) / 2e-6, rtol=1e-5, atol=1e-6 * np.abs(above).max()
            )


def test_intervals_from_resampled_runs_hold_the_truth(grid: Settings) -> None:
    """They are narrow, and progress is told."""
    settings = grid
    noise = 0.005 * np.random.default_rng(3).standard_normal(len(settings))
    done: list[int] = []
    found = fit(
        "capybara", settings, CAPYBARA.loss(settings) + noise, num_samples=40, on_sample=done.append
    )
    assert done == list(range(1, 41))
    asked = Settings.of([1e8, 3e8], 5e10, "e4m3", 128)
    answer = predict(found.law, asked, found.samples, level=0.99)
    truth = CAPYBARA.loss(asked)
    assert np.all((answer.low < truth) & (truth < answer.high))
    assert np.all(answer.high - answer.low < 0.01)


@pytest.mark.slow
def test_the_right_law_wins_on_runs_that_were_left_out(grid: Settings) -> None:
    """At random, and with the largest size left out."""
    settings = grid
    losses = CAPYBARA.loss(settings)
    losses = losses + 0.005 * np.random.default_rng(5).standard_normal(len(losses))
    own, other = (cross_validate(name, settings, losses) for name in ("capybara", "kumar"))
    assert own.rmse < 0.006 < other.rmse
    own, other = (extrapolate(name, settings, losses) for name in ("capybara", "kumar"))
    assert own.rmse < 0.01 < other.rmse


def test_same_seed_same_intervals(law_data: Path) -> None:
    """The bootstrap draws from its seed alone."""
    settings, losses = chinchilla_runs(law_data, 5)
    first, second = (fit("chinchilla", settings, losses, num_samples=3, seed=4) for _ in range(2))
    assert first.samples == second.samples


@pytest.mark.parametrize(
    ("name", "losses", "message"),
    [
        ("moe", [2.0] * 45, "law: expected one of capybara"),
        ("capybara", [2.0] * 44, "losses: expected 45 numbers"),
        ("capybara", [2.0] * 44 + [-1.0], "row 45: loss: expected a number above 0"),
    ],
)
def test_impossible_fits_are_refused(name: str, losses: list[float], message: str) -> None:
    """Name, shape and sign of what is given."""
    with pytest.raises(ValueError, match=message):
        fit(name, small_grid(), np.array(losses))


def test_starts_that_run_away_do_not_stop_a_fit(grid: Settings) -> None:
    """A start where terms overflow counts as infinitely bad; the fit goes on from the others."""
    problem = Problem.of("capybara", grid, CAPYBARA.loss(grid), "huber", 1e-3)
    start = problem.starts()[0]
    start[2:4] = -16_000.0, 31_000.0  # delta and nu
    assert problem.solve(start)[0] == np.inf
    assert problem.best()[0] < 1e-9


def test_too_few_runs_are_refused() -> None:
    """Fewer runs than constants have no one answer."""
    with pytest.raises(ValueError, match="chinchilla has 5 constants"):
        fit("chinchilla", Settings.of([1e8, 1e9], 1e10), np.array([2.0, 2.1]))


def test_files_of_both_kinds_give_the_same_runs(tmp_path: Path) -> None:
    """Long and short names, both ways to name a format."""
    table = tmp_path / "runs.csv"
    table.write_text(
        "name,N,D,format,B,loss,status\n"
        "a,1e8,1e10,e4m3,32,3.1,done\n"
        "b,1e8,1e10,,,3.0,done\n"
        "c,2e8,1e10,E2M1,channel,3.2,done\n"
        "d,2e8,1e10,e2m1,tensor,,diverged\n"
    )
    lines = tmp_path / "runs.jsonl"
    records = [
        {"num_params": 1e8, "num_tokens": 1e10, "E": 4, "M": 3, "block_size": 32, "loss": 3.1},
        {"num_params": 1e8, "num_tokens": 1e10, "format": None, "loss": 3.0},
        {"num_params": 2e8, "num_tokens": 1e10, "format": "e2m1", "B": "channel", "loss": 3.2},
    ]
    lines.write_text("\n".join(json.dumps(record) for record in records))
    one, two = read_runs(table), read_runs(lines)
    assert one.num_diverged == 1
    for name in ("num_params", "num_tokens", "exponent_bits", "mantissa_bits", "block_size"):
        np.testing.assert_array_equal(getattr(one.settings, name), getattr(two.settings, name))
    assert list(one.settings.granularity) == ["block", "none", "channel"]
    np.testing.assert_array_equal(one.losses, two.losses)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "N,D,format,loss\n1e8,1e10,,x\n", "a.csv, line 2: column loss: expected a"),
        ("a.csv", "N,D,format,loss\n1e8,0,,3\n", "line 2: column D: expected a number above 0"),
        ("a.csv", "N,D,loss\n1e8,1e10,3,4\n", "line 2: expected 3 columns as in line 1"),
        ("a.csv", "N,D,format,loss\n1,1,e99,3\n", "line 2: column format: Unknown number format"),
        ("a.csv", "N,D,E,M,B,loss\n1,1,4,,32,3\n", "line 2: column M: expected a number of at"),
        ("a.csv", "N,D,E,M,B,loss\n1,1,4,3,row,3\n", "line 2: column B: expected a number of at"),
        ("a.csv", "N,loss\n1,3\n", r"line 2: column num_tokens \(or D\): expected"),
        ("a.csv", "N,D,loss\n", "expected at least one finished run"),
        ("a.csv", b"\xff\xfe", "expected UTF-8 text, byte 0"),
        ("a.jsonl", '{"N": 1}\n{"N" 1}\n', r"line 1: column num_tokens"),
        ("a.jsonl", '{"N" 1}\n', "line 1, column 6: expected JSON"),
        ("a.jsonl", "[1]\n", "line 1: expected a JSON object"),
    ],
)
def test_malformed_files_are_refused_by_line_and_column(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    """Numbers, formats, columns, encodings."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_runs(path)
