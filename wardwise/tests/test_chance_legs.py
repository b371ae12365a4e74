"""Parts and variances of legs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.chance.legs import legs_of
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.randomness import Randomness, Spread
from wardwise.site import Corridor, Elevator, Floor, Node, Site


@pytest.fixture
def upstairs() -> Instance:
    """A depot 7 m before an elevator, a ward 14 m behind it two floors above, at 0.7 m/s."""
    site = Site(
        name="two floors up",
        floors=tuple(Floor(level=level, name=str(level)) for level in range(3)),
        nodes=(Node(id="depot", name="depot"), Node(id="ward", name="ward", floor=2)),
        corridors=(
            Corridor(start="depot", end="lift@0", length_m=7.0, door_s=2.0),
            Corridor(start="lift@2", end="ward", length_m=14.0),
        ),
        elevators=(Elevator(id="lift", floors=(0, 2)),),
    )
    travel = site.travel(["depot", "ward"])
    return Instance(
        name="upstairs",
        places=(Place(id="depot"), Place(id="ward", floor=2)),
        requests=(Request(id="meal", place="ward", due_s=1000.0, service_s=60.0),),
        robots=(Robot(id="r", capacity=1.0, end_s=2000.0),),
        travel_s=travel.travel_s,
        distance_m=travel.distance_m,
        travel_var_s2=travel.travel_var_s2,
        site=site,
        randomness=Randomness(uses_matrix=False),
    )


def test_a_leg_in_a_building_is_driving_waiting_and_riding(upstairs):
    """10 + 2 + 20 s of driving, 45 s of waiting, 2 x 6 s of doors and 2 x 4 s of riding."""
    legs = legs_of(upstairs)
    assert legs.drive_s[0, 1] == pytest.approx(32.0)
    assert legs.wait_s[0, 1] == pytest.approx(45.0)
    assert legs.fixed_s[0, 1] == pytest.approx(20.0)
    # (0.2 * 32)^2 + (1.0 * 45)^2
    assert legs.travel_var_s2[0, 1] == pytest.approx(40.96 + 2025.0)
    np.testing.assert_allclose(legs.drive_s + legs.wait_s + legs.fixed_s, upstairs.travel_s)


def test_variances_of_the_matrix_come_first(upstairs):
    """The matrix states 10 s and 20 s of driving at 0.2 each, and the 45 s of the elevator."""
    legs = legs_of(replace(upstairs, randomness=Randomness()))
    np.testing.assert_allclose(legs.travel_var_s2, upstairs.travel_var_s2)
    assert legs.travel_var_s2[0, 1] == pytest.approx(4.0 + 16.0 + 2025.0)
    assert not legs.wait_s.any()


def test_the_factor_of_the_day_adds_to_the_variance_of_driving(upstairs):
    """E[(F D)^2] - 1 = 1.04 * 1.01 - 1 = 0.0504 with F of 0.2 and D of 0.1."""
    legs = legs_of(replace(upstairs, randomness=Randomness(uses_matrix=False, day=0.1)))
    assert legs.travel_var_s2[0, 1] == pytest.approx(0.0504 * 32.0**2 + 2025.0)


def test_services_vary_as_stated_and_missing_ways_do_not(upstairs):
    """A service of 60 s at 0.5 has variance 900; a place without a way back has none."""
    travel_s = np.array([[0.0, 97.0], [97.0, np.inf]])
    law = Randomness(service=Spread(cv=0.5))
    plain = replace(upstairs, travel_s=travel_s, travel_var_s2=None, site=None, randomness=law)
    legs = legs_of(plain)
    assert legs.service_var_s2 == pytest.approx([900.0])
    assert legs.travel_var_s2[0, 1] == pytest.approx((0.2 * 97.0) ** 2)
    assert legs.travel_var_s2[1, 1] == 0.0


def test_a_law_without_spread_is_certain_whatever_the_matrix_states(upstairs):
    """Quantiles of a law of 0 are 1 for any variance of a leg, so its variance is 0."""
    certain = replace(upstairs, randomness=Randomness(travel=Spread(cv=0.0)))
    assert not legs_of(certain).travel_var_s2.any()
