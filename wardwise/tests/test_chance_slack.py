"""Normal chains and the constant-time test of insertions."""

from __future__ import annotations

import numpy as np
import pytest

from wardwise.fleet.chance.normal import start_moments
from wardwise.fleet.chance.slack import arrivals, keeps_promises, suffix_minima


def test_a_chain_without_waiting_adds_means_and_variances():
    """10 + 20 + 30 s and 1 + 4 + 9 s2 from a start of 5 s and 2 s2."""
    mean, var = np.empty(3), np.empty(3)
    steps = np.array([10.0, 20.0, 30.0]), np.array([1.0, 4.0, 9.0])
    last = arrivals(5.0, 2.0, *steps, np.zeros(3), mean, var)
    np.testing.assert_allclose(mean, [15.0, 35.0, 65.0])
    np.testing.assert_allclose(var, [3.0, 7.0, 16.0])
    assert last == pytest.approx((65.0, 16.0))


def test_a_wait_takes_variance_away():
    """The second arrival counts from the start that was waited for."""
    mean, var = np.empty(2), np.empty(2)
    arrivals(0.0, 0.0, np.full(2, 10.0), np.full(2, 4.0), np.array([11.0, 0.0]), mean, var)
    start_mean, start_var = start_moments(10.0, 4.0, 11.0)
    assert mean[1] == start_mean + 10.0
    assert var[1] == start_var + 4.0 < 8.0


@pytest.mark.slow
def test_accepted_insertions_keep_every_promise_without_waiting():
    """100,000 random suffixes: none that is accepted breaks the recomputed chain."""
    rng = np.random.default_rng(8)
    num_accepted = num_kept = 0
    for _ in range(100_000):
        size = int(rng.integers(1, 9))
        mean, var = np.cumsum(rng.random(size)) * 100, np.cumsum(rng.random(size)) * 50
        latest, z = mean + 60 * rng.random(size), 2.5 * rng.random()
        more_mean, more_var = 20 * rng.random(), 200 * rng.random()
        least = np.empty(size), np.empty(size)
        suffix_minima(mean, var, latest, z, *least)
        kept = (mean + more_mean + z * np.sqrt(var + more_var) <= latest + 1e-9).all()
        accepted = keeps_promises(more_mean, more_var, z, least[0][0], least[1][0])
        assert kept or not accepted
        num_accepted += accepted
        num_kept += kept
    assert 0 < num_accepted <= num_kept
