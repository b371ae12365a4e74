"""Spreads of random times, and promises: moments, orders and refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.randomness import Law, Promise, Randomness, Scope, Spread

SPREADS = (
    Spread(),
    Spread(cv=1.5),
    Spread(law=Law.LOGNORMAL, cv=1.0),
    Spread(law=Law.NORMAL, cv=0.3),
    Spread(law=Law.TRIANGULAR, shape=(0.274, 0.508, 0.63)),
    Spread(law=Law.TRIANGULAR, shape=(2.0, 2.0, 5.0)),
    Spread(law=Law.EMPIRICAL, quantiles=(10.0, 12.0, 12.0, 20.0, 60.0)),
)


@pytest.mark.parametrize("spread", SPREADS)
def test_factors_have_mean_one_and_their_variance(spread):
    """Integrals of the quantile function over the probabilities, by the midpoint rule."""
    uniform = (np.arange(400_000) + 0.5) / 400_000
    factor = spread.quantile(uniform)
    assert factor.mean() == pytest.approx(1.0, abs=3e-4)
    assert factor.std() == pytest.approx(spread.cv, rel=3e-3)
    assert (np.diff(factor) >= 0).all()


def test_shapes_give_the_textbook_variance():
    """Triangular (0, 1, 2): variance 1/6; uniform 0 to 2 as two quantiles: variance 1/3."""
    assert Spread(law=Law.TRIANGULAR, shape=(0.0, 1.0, 2.0)).cv == pytest.approx(6**-0.5)
    assert Spread(law=Law.EMPIRICAL, quantiles=(0.0, 2.0)).cv == pytest.approx(3**-0.5)


@pytest.mark.parametrize("spread", SPREADS)
def test_another_variance_stretches_the_same_luck(spread):
    """Half the deviation about the same mean, in the same order."""
    uniform = (np.arange(100_000) + 0.5) / 100_000
    factor = spread.quantile(uniform, cv=spread.cv / 2)
    assert factor.mean() == pytest.approx(1.0, abs=3e-4)
    assert factor.std() == pytest.approx(spread.cv / 2, rel=2e-3)
    assert (spread.quantile(uniform, cv=0.0) == 1.0).all()


@given(values=st.lists(st.floats(0, 1e6), min_size=2, max_size=9).map(sorted))
def test_empirical_factors_stay_within_their_values(values):
    """Any rising values are a law, in any unit; factors are values over the mean."""
    if values[-1] <= 0:
        return
    spread = Spread(law=Law.EMPIRICAL, quantiles=tuple(values))
    factor = spread.quantile(np.linspace(0.01, 0.99, 50))
    mean = (np.array(values[1:]) + np.array(values[:-1])).mean() / 2
    assert (factor >= values[0] / mean - 1e-9).all()
    assert (factor <= values[-1] / mean + 1e-9).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"law": "weibull"}, "spread: law: expected one of gamma"),
        ({"cv": -0.1}, "spread: cv: expected 0 to 10"),
        ({"cv": math.nan}, "spread: cv: expected 0 to 10"),
        ({"law": "normal", "cv": 0.4}, "spread: cv: expected 0 to 0.333"),
        ({"law": "triangular"}, "spread: shape: expected values for law triangular"),
        ({"law": "gamma", "shape": (1.0, 2.0, 3.0)}, "spread: shape: expected none for law gamma"),
        ({"law": "triangular", "shape": (1.0, 3.0, 2.0)}, "spread: shape: expected at least 3"),
        ({"law": "triangular", "shape": (0.0, 0.0, 0.0)}, "spread: shape: expected 3 values"),
        ({"law": "empirical", "quantiles": (1.0,)}, "spread: quantiles: expected at least 2"),
        ({"law": "empirical", "quantiles": (-1.0, 1.0)}, "spread: quantiles: expected at least 2"),
    ],
)
def test_a_spread_that_is_none_is_refused(fields, message):
    """The message names the field and what it takes."""
    with pytest.raises(ValueError, match=f"^{message}"):
        Spread(**fields)


def test_randomness_and_promises_are_checked():
    """Shares lie above 0 and at most 0.5; the limits themselves are accepted."""
    assert Promise(late_share=(0.5, 1e-9, 0.01), scope="trip").scope is Scope.TRIP
    assert Randomness(day=0.0).uses_matrix
    with pytest.raises(ValueError, match=r"^promise: late_share: expected above 0 and at most 0.5"):
        Promise(late_share=(0.0, 0.1, 0.1))
    with pytest.raises(ValueError, match=r"^promise: late_share: expected 3 values"):
        Promise(late_share=(0.1, 0.1))
    with pytest.raises(ValueError, match=r"^promise: return_share: expected above 0"):
        Promise(return_share=0.6)
    with pytest.raises(ValueError, match=r"^promise: scope: expected one of request, trip"):
        Promise(scope="day")
    with pytest.raises(ValueError, match=r"^randomness: day: expected 0 to 10"):
        Randomness(day=-1.0)
