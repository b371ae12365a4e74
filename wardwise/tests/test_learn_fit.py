"""Laws learnt from numbers: known laws come back, and so does what days have in common."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gamma, kstest

from wardwise.fleet.learn.fit import LEAST_VALUES, day_factor, fit_spread
from wardwise.fleet.learn.laws import fit_gamma, fit_triangular
from wardwise.fleet.randomness import Law, Spread

LAWS = (
    *(Spread(law=Law.GAMMA, cv=cv) for cv in (0.2, 1.0, 2.0)),
    *(Spread(law=Law.LOGNORMAL, cv=cv) for cv in (0.2, 1.0)),
    *(Spread(law=Law.NORMAL, cv=cv) for cv in (0.1, 0.25)),
    *(Spread(law=Law.TRIANGULAR, shape=shape) for shape in ((1, 2, 5), (1, 1, 4), (0, 1, 1.5))),
)


def drawn(spread: Spread, count: int, seed: int = 1) -> np.ndarray:
    """Draws of a law with mean 1."""
    return spread.quantile(np.random.default_rng(seed).uniform(size=count))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{law.law} {law.cv:.2f}")
def test_known_laws_come_back(law):
    """From 4000 values in another unit: the law, its cv within 5 %, the mean in its interval."""
    fit = fit_spread(1.1 * drawn(law, 4000), np.arange(4000) % 20)
    assert fit.spread.law is law.law
    assert fit.spread.cv == pytest.approx(law.cv, rel=0.05)
    assert fit.mean.low - 0.01 < 1.1 < fit.mean.high + 0.01
    assert [each.bic for each in fit.candidates] == sorted(each.bic for each in fit.candidates)


def test_intervals_of_the_cv_cover_it():
    """In about 95 of 100 samples."""
    law = Spread(cv=0.4)
    fits = [fit_spread(drawn(law, 400, seed), np.arange(400) % 9) for seed in range(40)]
    missed = sum(not fit.cv.low <= 0.4 <= fit.cv.high for fit in fits)
    assert missed <= 2 + 4 * 1.4  # of 40: mean 2, deviation sqrt(40 * 0.05 * 0.95) = 1.4


def test_likelihoods_are_largest():
    """The gamma law is that of SciPy; no triangle around the true one is likelier."""
    values = np.sort(drawn(Spread(cv=0.6), 500))
    ours = fit_gamma(values)
    shape, _, scale = gamma.fit(values, floc=0)
    assert ours.spread.cv == pytest.approx(shape**-0.5, rel=1e-4)
    likelihood = gamma.logpdf(values, shape, scale=scale).sum()
    assert ours.log_likelihood == pytest.approx(likelihood, rel=1e-6)
    (candidate,) = [c for c in fit_spread(values, np.arange(500)).candidates if c.law is Law.GAMMA]
    by_scipy = kstest(values, gamma(shape, scale=scale).cdf)
    assert candidate.distance == pytest.approx(by_scipy.statistic, rel=1e-3)
    assert candidate.p_value == pytest.approx(by_scipy.pvalue, abs=0.01)
    values = np.sort(drawn(Spread(law=Law.TRIANGULAR, shape=(1, 2, 6)), 500))
    best = fit_triangular(values).log_likelihood
    for low, mode, high in ((1, 2, 6), (1, 1.9, 6), (0.95, 2, 6.2)):
        at = values * 3  # the mean of (1, 2, 6)
        rising, falling = (at - low) / (mode - low), (high - at) / (high - mode)
        inside = np.minimum(rising, falling)
        if inside.min() > 0:
            density = 3 * 2 / (high - low) * inside
            assert np.log(density).sum() <= best + 1e-3


def test_what_no_law_fits_is_learnt_by_its_quantiles():
    """Two kinds of legs: the empirical law has their cv and quantiles; 60 values are too few."""
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(1, 0.05, 3000), rng.normal(3, 0.1, 1000)])
    spread = fit_spread(values, np.arange(4000) % 10).spread
    assert spread.law is Law.EMPIRICAL
    assert spread.cv == pytest.approx(values.std() / values.mean(), rel=0.01)
    at = np.array([0.1, 0.5, 0.9])
    assert spread.quantile(at) == pytest.approx(np.quantile(values, at) / values.mean(), rel=0.02)
    assert fit_spread(values[::67], np.arange(60)).spread.law is not Law.EMPIRICAL


def test_little_or_no_luck():
    """Too few values leave the law open; equal ones are certain; zeros are no obstacle."""
    few = fit_spread(np.ones(LEAST_VALUES - 1), np.zeros(LEAST_VALUES - 1, dtype=np.int64))
    assert (few.spread, few.count) == (None, LEAST_VALUES - 1)
    assert fit_spread(np.full(50, 1.3), np.arange(50)).spread == Spread(cv=0.0)
    assert fit_spread(np.zeros(50), np.arange(50)).spread is None
    zeros = np.maximum(0.0, np.random.default_rng(3).normal(1, 0.33, 3000))
    zeros[0] = 0.0
    assert fit_spread(zeros, np.arange(3000) % 7).spread.law in (Law.NORMAL, Law.EMPIRICAL)


@pytest.mark.parametrize("true", [0.0, 0.05, 0.3])
def test_what_days_have_in_common_is_told_from_legs(true):
    """On 200 days of 20 to 60 legs: both cvs within 4 deviations, and none where there is none."""
    rng = np.random.default_rng(4)
    day = np.repeat(np.arange(200), rng.integers(20, 61, size=200))
    common = Spread(law=Law.LOGNORMAL, cv=true).quantile(rng.uniform(size=200))
    values = 0.9 * common[day] * drawn(Spread(cv=0.3), len(day))
    found, rest = day_factor(values, day)
    fit = fit_spread(rest, day)
    if true == 0:
        assert (found.cv, rest is values) == (0.0, True)
    else:  # deviation of an estimated deviation: cv / sqrt(2 * days), and skew
        assert found.cv == pytest.approx(true, abs=4 * true / np.sqrt(2 * 200) + 0.005)
    assert fit.spread.law is Law.GAMMA
    assert fit.spread.cv == pytest.approx(0.3, abs=0.01)


def test_few_days_say_nothing_of_days():
    """With four days the factor stays open, whatever they differ by."""
    day = np.repeat(np.arange(4), 50)
    found, rest = day_factor(1.0 + day + np.tile([0.0, 0.1], 100), day)
    assert (found.cv, found.num_days) == (None, 4)
    assert rest.shape == day.shape
