"""Moments of starts, lateness of normal times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from wardwise.fleet.chance.normal import (
    expected_lateness,
    late_probability,
    start_moments,
    z_of,
)

CASES = [
    (mean, var, earliest)
    for earliest in (0.0, 600.0, 80_000.0)
    for var in (1.0, 400.0, 90_000.0)
    for mean in (earliest + a * math.sqrt(var) for a in (-2.0, -1.0, -0.2, 0.0, 0.7, 2.5))
]


@pytest.mark.parametrize(("mean", "var", "earliest"), CASES)
def test_moments_of_starts_equal_those_of_a_million_samples(mean, var, earliest):
    """Both moments, counted from the earliest start, lie within 0.1 %."""
    deviation = math.sqrt(var)
    draws = norm.ppf((np.arange(1_000_000) + 0.5) / 1_000_000)
    starts = np.maximum(mean + deviation * draws, earliest)
    found_mean, found_var = start_moments(mean, var, earliest)
    assert found_mean == pytest.approx(starts.mean(), rel=1e-3)
    assert found_mean - earliest == pytest.approx((starts - earliest).mean(), rel=1e-3)
    assert found_var == pytest.approx(starts.var(), rel=1e-3)


@pytest.mark.parametrize("a", [-7.5, -5.0, -2.0, 0.0, 1.0, 4.0, 7.5])
def test_moments_of_starts_equal_integrals(a):
    """E[max(a + X, 0)] and E[max(a + X, 0)^2] for a standard normal X, by quadrature."""
    first = quad(lambda x: (a + x) * norm.pdf(x), -a, math.inf, epsabs=0)[0]
    second = quad(lambda x: (a + x) ** 2 * norm.pdf(x), -a, math.inf, epsabs=0)[0]
    mean, var = start_moments(a, 1.0, 0.0)
    assert mean == pytest.approx(first, rel=1e-6)
    assert var == pytest.approx(second - first**2, rel=1e-6)
    assert expected_lateness(a, 1.0, 0.0) == pytest.approx(first, rel=1e-6)


def test_far_from_the_window_a_start_is_the_arrival_or_the_earliest_moment():
    """Forty deviations after the opening nobody waits, forty before it everybody does."""
    assert start_moments(1000.0, 25.0, 800.0) == (1000.0, 25.0)
    assert start_moments(600.0, 25.0, 800.0) == (800.0, 0.0)


def test_certain_times_are_handled_without_division():
    """With variance 0 a start is the later of arrival and opening, and late or not."""
    assert start_moments(7.0, 0.0, 5.0) == (7.0, 0.0)
    assert start_moments(3.0, 0.0, 5.0) == (5.0, 0.0)
    assert start_moments(5.0, 0.0, 5.0) == (5.0, 0.0)
    assert expected_lateness(7.0, 0.0, 5.0) == 2.0
    assert expected_lateness(3.0, 0.0, 5.0) == 0.0
    assert late_probability(5.0, 0.0, 5.0) == 0.0
    assert late_probability(5.0 + 1e-9, 0.0, 5.0) == 0.0
    assert late_probability(5.1, 0.0, 5.0) == 1.0


def test_probability_of_being_late_is_the_upper_tail():
    """One deviation before the deadline 15.87 % are late, at it half."""
    assert late_probability(90.0, 100.0, 100.0) == pytest.approx(norm.sf(1.0), rel=1e-6)
    assert late_probability(100.0, 100.0, 100.0) == pytest.approx(0.5, abs=1e-6)


def test_deviations_of_a_share_give_the_share_back():
    """5 % lie beyond 1.645 deviations, half beyond none; more than half is refused."""
    assert z_of(0.05) == pytest.approx(1.6448536)
    assert z_of(0.5) == 0.0
    for share in (0.0, 0.51, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"share: expected above 0 and at most 0\.5"):
            z_of(share)
