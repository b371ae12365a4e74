"""Disturbances: what is refused, and what the random numbers are like."""

import math

import numpy as np
import pytest

from wardwise.fleet.problem import Instance, Place, Robot
from wardwise.fleet.simulate import Disturbances, Law, simulate
from wardwise.fleet.simulate.disturbances import LAWS, Luck, Source

HOSTILE = (math.nan, -1.0, math.inf)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        *(("travel_cv", value, "0 to 10") for value in (*HOSTILE, 10.5)),
        *(("service_cv", value, "0 to 10") for value in (*HOSTILE, 10.5)),
        *(("driving_s_per_failure", value, "at least 1") for value in (math.nan, -1.0, 0.5)),
        *(("repair_s", value, "a finite number of at least 1") for value in (*HOSTILE, 0.0)),
        *(("cancels_per_s", value, "a finite number of at least 0") for value in HOSTILE),
        ("law", "normal", "one of gamma, lognormal"),
    ],
)
def test_hostile_parameters_are_refused_in_one_line(field, value, expected):
    """The line names the field and its range."""
    with pytest.raises(ValueError, match=f"^disturbances: {field}: expected {expected}, got ") as e:
        Disturbances(**{field: value})
    assert "\n" not in str(e.value)


def test_limits_are_accepted():
    """Ends of the ranges, and a law by its name."""
    Disturbances(
        travel_cv=10.0,
        service_cv=0.0,
        driving_s_per_failure=math.inf,
        repair_s=1.0,
        cancels_per_s=0.0,
    )
    Disturbances(travel_cv=None, driving_s_per_failure=1.0)
    assert Disturbances(law="lognormal").law is Law.LOGNORMAL


@pytest.mark.parametrize(
    ("disturbances", "message"),
    [
        (
            Disturbances(travel_cv=None),
            "disturbances: travel_cv: expected a number, the instance has no variances",
        ),
        (
            Disturbances(uses_elevators=True),
            "disturbances: uses_elevators: expected a site, the instance has none",
        ),
    ],
)
def test_an_instance_that_lacks_what_is_asked_for_is_refused(disturbances, message):
    """Variances and buildings are not made up."""
    instance = Instance(
        name="bare",
        places=(Place(id="depot"),),
        requests=(),
        robots=(Robot(id="R", capacity=1, end_s=1),),
        travel_s=np.zeros((1, 1)),
        distance_m=np.zeros((1, 1)),
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        simulate(instance, disturbances=disturbances)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("mean", "variance"), [(60.0, 144.0), (60.0, 3600.0), (5.0, 50.0)])
def test_times_have_their_mean_and_variance(law, mean, variance):
    """Over 20,000 keys; the log-normal with cv 1.4 has the largest standard errors."""
    luck = Luck(1, law)
    times = np.array([luck.duration(mean, variance, Source.TRAVEL, "r", k) for k in range(20_000)])
    assert times.min() > 0
    assert times.mean() == pytest.approx(mean, rel=0.04)
    assert times.var() == pytest.approx(variance, rel=0.25)


def test_exponential_times_have_their_mean_and_median():
    """The median is ln 2 of the mean."""
    luck = Luck(1, Law.GAMMA)
    times = np.array([luck.exponential(100.0, Source.FAILURE, "R", k) for k in range(20_000)])
    assert times.mean() == pytest.approx(100.0, rel=0.03)
    assert np.median(times) == pytest.approx(100.0 * math.log(2), rel=0.03)
    assert luck.exponential(math.inf, Source.FAILURE, "R", 0) == math.inf


def test_a_time_without_variance_or_mean_is_no_draw():
    """Exactly the mean, so that days without disturbances are exact."""
    luck = Luck(1, Law.GAMMA)
    assert luck.duration(7.0, 0.0, Source.TRAVEL, "r", 0) == 7.0
    assert luck.duration(0.0, 9.0, Source.TRAVEL, "r", 0) == 0.0


def test_luck_belongs_to_its_key_alone():
    """The same for the same seed and key; other seeds, sources and keys have other luck."""
    draws = {
        Luck(seed, Law.GAMMA).duration(1.0, 1.0, source, *key)
        for seed in (0, 1)
        for source in (Source.TRAVEL, Source.SERVICE)
        for key in (("a", 0), ("a", 1), ("b", 0), ("\0a", 0), ("ä", 0), (0, 1))
    }
    assert len(draws) == 2 * 2 * 6
    first, second = Luck(3, Law.GAMMA), Luck(3, Law.GAMMA)
    first.exponential(1.0, Source.REPAIR, "R", 0)
    key = (Source.TRAVEL, "a", 0)
    assert first.duration(1.0, 1.0, *key) == second.duration(1.0, 1.0, *key)


@pytest.mark.parametrize("law", LAWS)
def test_more_variance_stretches_the_same_luck(law):
    """A draw is a quantile: twice the mean and four times the variance double it."""
    luck = Luck(1, law)
    for key in range(20):
        small = luck.duration(30.0, 100.0, Source.TRAVEL, key)
        assert luck.duration(60.0, 400.0, Source.TRAVEL, key) == pytest.approx(2 * small)
