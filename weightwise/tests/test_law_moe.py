"""Best size of mixtures of experts: published numbers, and fits that find what they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from weightwise.laws.dense import BESIROGLU
from weightwise.laws.moe import (
    DENSE_COST,
    HUNYUAN_BUDGET,
    HUNYUAN_COST,
    critical_batch,
    fit_budgets,
    least_compute,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_published_optimum() -> None:
    """58.1 billion parameters belong to 3.109e24 FLOP and 5.642 trillion tokens."""
    compute = HUNYUAN_BUDGET.compute_of_size(58.1e9)
    assert compute == pytest.approx(3.109e24, rel=5e-4)
    assert HUNYUAN_BUDGET.best_data(compute) == pytest.approx(5.642e12, rel=5e-4)
    assert HUNYUAN_COST.flop(58.1e9, 5.642e12) == pytest.approx(3.146e24, rel=1e-3)
    assert HUNYUAN_COST.flop(52e9, 7e12) == pytest.approx(3.492e24, rel=5e-4)


@pytest.mark.parametrize(
    ("compute", "size", "data", "cost"),
    [(5e18, 49.05e6, 7.155e9, 5.01e18), (9.5e19, 233.9e6, 31.19e9, 7.71e19)],
)
def test_ends_of_the_published_budgets(
    compute: float, size: float, data: float, cost: float
) -> None:
    """Size, data and what they cost at the smallest and the largest budget of the figures."""
    assert HUNYUAN_BUDGET.best_size(compute) == pytest.approx(size, rel=1e-3)
    assert HUNYUAN_BUDGET.best_data(compute) == pytest.approx(data, rel=1e-3)
    assert HUNYUAN_COST.flop(size, data) == pytest.approx(cost, rel=2e-3)


def test_batches_waste_compute() -> None:
    """At the critical batch half of it, with small ones nothing; lower losses bear larger ones."""
    critical = critical_batch(2.5)
    assert least_compute(1e20, critical, critical) == pytest.approx(5e19)
    assert least_compute(1e20, 1.0, critical) == pytest.approx(1e20, rel=1e-5)
    assert critical_batch(2.0) > critical_batch(3.0)


def grid(noise: float) -> tuple[np.ndarray, ...]:
    """Five budgets of nine sizes around the optimum of a law that is known."""
    rng = np.random.default_rng(0)
    rows = []
    for compute in np.geomspace(1e18, 1e20, 5):
        best, _ = BESIROGLU.optimal(compute)
        for size in best * np.geomspace(0.5, 2.0, 9):
            data = compute / (6 * size)
            loss = BESIROGLU.n / size**BESIROGLU.alpha + BESIROGLU.d / data**BESIROGLU.beta
            rows.append((size, data, loss + BESIROGLU.epsilon + noise * rng.normal(), compute))
    return tuple(np.array(rows).T)


def test_fit_finds_the_powers_of_a_known_law() -> None:
    """Exponents within 2 %, and the optimum of each budget within 2 %, of the closed form."""
    size_R, data_R, loss_R, compute_R = grid(0.0)
    assert DENSE_COST.flop(size_R, data_R) == pytest.approx(compute_R)
    fit = fit_budgets(size_R, data_R, loss_R, compute_R)
    alpha, beta = BESIROGLU.alpha, BESIROGLU.beta
    assert fit.law.size_power == pytest.approx(beta / (alpha + beta), rel=0.02)
    assert fit.law.data_power == pytest.approx(alpha / (alpha + beta), rel=0.02)
    for valley in fit.sizes:
        best, _ = BESIROGLU.optimal(valley.compute)
        assert valley.best == pytest.approx(best, rel=0.02)
        low, high = valley.flat_region(0.002)
        assert low < valley.best < high
        assert valley.penalty(high) == pytest.approx(0.002)


def test_intervals_hold_the_truth_under_noise() -> None:
    """The powers lie within the resampled intervals, which are wider with more noise."""
    alpha, beta = BESIROGLU.alpha, BESIROGLU.beta
    widths = []
    for noise in (0.0005, 0.002):
        fit = fit_budgets(*grid(noise), num_resamplings=300)
        low, high = fit.size_power_interval
        assert low < beta / (alpha + beta) < high
        low_data, high_data = fit.data_power_interval
        assert low_data < alpha / (alpha + beta) < high_data
        widths.append(high - low)
    assert widths[0] < widths[1]


def test_wrong_runs_are_named() -> None:
    """A budget without a bottom, with too few sizes, or alone, and columns that do not fit."""
    size_R, data_R, loss_R, compute_R = grid(0.0)
    with pytest.raises(ValueError, match="at least 2 budgets, got 1"):
        fit_budgets(size_R[:9], data_R[:9], loss_R[:9], compute_R[:9])
    small = size_R < np.array([BESIROGLU.optimal(c)[0] for c in compute_R]) * 0.9
    with pytest.raises(ValueError, match="within the sizes that were trained"):
        fit_budgets(size_R[small], data_R[small], loss_R[small], compute_R[small])
    with pytest.raises(ValueError, match="at least 3 different sizes"):
        fit_budgets(size_R[::8], data_R[::8], loss_R[::8], compute_R[::8])
    with pytest.raises(ValueError, match="losses: expected finite numbers above 0"):
        fit_budgets(size_R, data_R, -loss_R, compute_R)
    with pytest.raises(ValueError, match="compute: expected as many runs"):
        fit_budgets(size_R, data_R, loss_R, compute_R[:3])


def test_published_runs_of_dense_models(law_data: Path) -> None:
    """Digitised Chinchilla runs near its budgets: powers near one half, each with a bottom."""
    path = law_data / "chinchilla_svg_extracted.csv"
    size_R, compute_R, loss_R = np.genfromtxt(
        path, delimiter=",", skip_header=1, comments=None, usecols=(3, 4, 6)
    ).T
    budget_R = np.zeros_like(compute_R)
    for budget in (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21):
        budget_R[np.abs(compute_R / budget - 0.97) < 0.12] = budget
    # Far from the bottom the loss is no parabola.
    used = (budget_R > 0) & (loss_R < 3.6)
    size_R, compute_R = size_R[used], compute_R[used]
    fit = fit_budgets(size_R, compute_R / (6 * size_R), loss_R[used], compute_R, tolerance=0.1)
    assert len(fit.sizes) == 8
    # arXiv 2203.15556, Table 2, has 0.49 and 0.51 by such profiles.
    assert fit.law.size_power == pytest.approx(0.5, abs=0.05)
    assert fit.law.data_power == pytest.approx(0.5, abs=0.05)
    low, high = fit.size_power_interval
    assert 0.01 < high - low < 0.06
