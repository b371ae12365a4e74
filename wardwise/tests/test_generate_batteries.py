"""Generated hospitals whose robots have batteries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from wardwise.fleet.check import check
from wardwise.fleet.energy import DELIVERY_ROBOT
from wardwise.fleet.plan import ChargeVisit
from wardwise.fleet.randomness import Promise, Randomness
from wardwise.fleet.schedule import schedule
from wardwise.generate import generate_hospital
from wardwise.io import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"num_floors": 2, "num_wards": 10, "hours": 2.0, "seed": 1}


def test_batteries_change_robots_and_stations_and_nothing_else():
    """Same building, same requests: 960 Wh charged with 211.2 W take 4.55 h."""
    plain = generate_hospital(**SMALL)
    electric = generate_hospital(**SMALL, batteries=True, late_share=0.1)
    assert {robot.battery for robot in electric.robots} == {DELIVERY_ROBOT}
    assert [station.place for station in electric.stations] == ["dock", "charger"]
    for station in electric.stations:
        assert station.charge is not None
        assert station.charge.time_s(0.0, 960.0) / 3600 == pytest.approx(4.55, abs=0.005)
    assert electric.randomness == Randomness()
    assert electric.promise == Promise(late_share=(0.1, 0.1, 0.1), return_share=0.1)
    same = replace(
        electric,
        name=plain.name,
        robots=plain.robots,
        stations=plain.stations,
        randomness=None,
        promise=None,
    )
    assert same == plain


def test_each_request_can_be_served_on_one_charge_and_the_robot_charged_after():
    """A robot of its own for a request: the referee finds nothing but the other requests."""
    hospital = generate_hospital(**SMALL, batteries=True)
    for request in hospital.requests:
        alone = replace(hospital, requests=(request,))
        trip = [request.id, ChargeVisit(station="chargers", charged_wh=1.0)]
        assert check(alone, schedule(alone, {"R01": [trip]})).violations == ()


def test_batteries_and_promise_survive_a_file(tmp_path: Path):
    """What is written reads back equal."""
    hospital = generate_hospital(**SMALL, batteries=True, late_share=0.05)
    write_json(hospital, tmp_path / "h.json")
    assert read_json(tmp_path / "h.json") == hospital


def test_a_promise_out_of_range_is_refused():
    """More than half of the requests late is no promise."""
    with pytest.raises(ValueError, match=r"late_share: expected above 0 and at most 0.5, got 0.6"):
        generate_hospital(**SMALL, late_share=0.6)
