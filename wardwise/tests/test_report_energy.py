"""The report of plans with batteries and certificates: levels, charges, stations, promises."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardwise.fleet.chance import certify
from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.plan import (
    Certificate,
    Charge,
    ChargeVisit,
    Plan,
    RequestRisk,
    ReturnRisk,
    Stop,
    Trip,
)
from wardwise.fleet.problem import Instance, Place, Request, Robot, Station
from wardwise.fleet.randomness import Promise, Scope
from wardwise.fleet.schedule import schedule
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital
from wardwise.io import read_instance
from wardwise.report import ElectricKpis, Kpis, summarise
from wardwise.report.energy import level_of
from wardwise.report.floormap import draw_floors, trip_paths
from wardwise.report.html import render_report
from wardwise.report.service import broken_promises

DATA = Path(os.environ.get("WARDWISE_DATA") or "absent")

# Depot, a station and a ward on a line, 10 s = 10 m apart; 0.1 Wh each second, 1 Wh a metre.
# The charger takes 1 s for each of the first 20 Wh and 2 s for the others.
TINY = Instance(
    name="tiny",
    places=(Place(id="depot"), Place(id="corner", x_m=10.0), Place(id="ward", x_m=20.0)),
    requests=(Request(id="q1", place="ward", load=1, ready_s=60, due_s=70, service_s=4),),
    robots=(
        Robot(
            id="R1",
            capacity=2,
            end_s=200,
            battery=Battery(capacity_wh=40.0, reserve_wh=4.0, wh_per_m=1.0, base_w=360.0),
        ),
    ),
    stations=(
        Station(id="S", place="corner", charge=ChargeCurve(points=((0, 0), (20, 20), (40, 60)))),
        Station(id="mark", place="ward"),
    ),
    travel_s=np.array([[0.0, 10, 20], [10, 0, 10], [20, 10, 0]]),
    distance_m=np.array([[0.0, 10, 20], [10, 0, 10], [20, 10, 0]]),
)
PLAN = Plan(
    instance="tiny",
    trips=(
        Trip(
            robot="R1",
            depart_s=10,
            stops=(Stop(request="q1", arrive_s=44, start_s=60),),
            return_s=95.8,
            charges=(
                Charge(station="S", before=0, arrive_s=20, start_s=22, end_s=34, charged_wh=6),
                Charge(station="S", before=1, arrive_s=74, start_s=74, end_s=85.8, charged_wh=11),
            ),
        ),
    ),
)
CERTIFICATE = Certificate(
    num_scenarios=1000,
    seed=0,
    requests=(RequestRisk(request="q1", late_share=0.02, upper=0.04),),
    returns=(ReturnRisk(robot="R1", late_share=0.0, upper=0.005),),
    expected_lateness_s=3.0,
    holds=True,
)


@pytest.fixture(scope="module")
def electric() -> Instance:
    path = DATA / "evrptw" / "5" / "c101C5.txt"
    if not path.exists():
        pytest.skip("WARDWISE_DATA is not set")
    return read_instance(path)


@pytest.fixture(scope="module")
def hospital() -> Instance:
    return generate_hospital(num_floors=2, num_wards=10, hours=2, batteries=True, seed=1)


@pytest.fixture(scope="module")
def morning(hospital: Instance) -> Plan:
    return solve(hospital, method="vns", time_limit=10.0, max_iterations=100, seed=1)


def test_levels_worked_out_by_hand():
    """Base power but while charging, legs evenly, a charge along the corners of its curve."""
    level = level_of(TINY, "R1", PLAN.trips)
    assert level is not None
    expected = [
        (0, 40.0),
        (10, 39.0),  # 10 s at the depot
        (20, 28.0),  # 10 m and 10 s
        (22, 27.8),  # waits for the slot
        (34, 33.8),  # 6 Wh above 20 take 12 s
        (44, 22.8),  # 10 m and 10 s
        (60, 21.2),
        (64, 20.8),
        (74, 9.8),
        (84.2, 20.0),  # the corner of the curve: 10.2 Wh in 10.2 s
        (85.8, 20.8),  # 0.8 Wh in 1.6 s
        (95.8, 9.8),
    ]
    points = sorted({(round(s, 9), round(wh, 9)) for s, wh in level.points})
    assert points == [(pytest.approx(s), pytest.approx(wh)) for s, wh in expected]
    assert level.spans == (
        (pytest.approx(27.8), pytest.approx(33.8)),
        (pytest.approx(9.8), pytest.approx(20.8)),
    )


def test_a_robot_without_a_battery_has_no_level():
    """Nor has one that the instance does not know."""
    plain = replace(TINY, robots=(replace(TINY.robots[0], battery=None),))
    assert level_of(plain, "R1", PLAN.trips) is None
    assert level_of(TINY, "R9", PLAN.trips) is None


def test_levels_of_a_real_plan_keep_the_energy(hospital: Instance, morning: Plan):
    """Energy at the start and charged is energy taken and left; no level leaves the battery."""
    left_wh = 0.0
    for robot, trips in morning.trips_by_robot().items():
        level = level_of(hospital, robot, trips)
        assert level is not None
        times = [time_s for time_s, _ in level.points]
        assert times == pytest.approx(sorted(times), abs=1e-6)
        battery = level.battery
        for _, level_wh in level.points:
            assert battery.reserve_wh - 1e-3 <= level_wh <= battery.capacity_wh + 1e-3
        left_wh += level.points[-1][1] - battery.first_wh
    cost = check(hospital, morning).cost
    assert cost.num_charges > 0
    assert left_wh == pytest.approx(cost.charged_wh - cost.energy_wh, abs=1e-6)


def test_figures_of_energy():
    """Drawn 40 m and 72 s away from chargers; charging is no work of the robot."""
    kpis = summarise(TINY, PLAN, check(TINY, PLAN))
    assert isinstance(kpis, ElectricKpis)
    assert kpis.service is None
    assert kpis.energy is not None
    assert kpis.energy.energy_wh == pytest.approx(40 + 0.1 * (95.8 - 12 - 11.8))
    assert (kpis.energy.charged_wh, kpis.energy.num_charges) == (17, 2)
    assert (kpis.energy.charging_s, kpis.energy.queue_s) == (pytest.approx(23.8), 2)
    assert kpis.energy.lowest_pct == pytest.approx(100 * 9.8 / 40)
    # Out for 85.8 s, of which 16 s wait at the ward, 14 and 11.8 s stand at the charger.
    assert kpis.utilisation_pct == pytest.approx(100 * (85.8 - 16 - 14 - 11.8) / 200)


def test_nothing_is_said_of_batteries_where_there_are_none():
    """Figures and page of a plain plan are what they were."""
    plain = replace(TINY, robots=(replace(TINY.robots[0], battery=None),), stations=())
    plan = replace(PLAN, trips=(replace(PLAN.trips[0], charges=()),))
    report = check(plain, plan)
    assert type(summarise(plain, plan, report)) is Kpis
    page = render_report(plain, plan, report)
    for word in ('class="battery"', "bar charge", "Lowest level", "Service level", "electric"):
        assert word not in page.split("</style>")[1]


def test_page_shows_charges_levels_and_energy(hospital: Instance, morning: Plan):
    """A block for every charge, a strip for every robot, inside their axes; energy as tiles."""
    page = render_report(hospital, morning, check(hospital, morning), start_h=6)
    body = page.split("</style>")[1]
    num_charges = sum(len(trip.charges) for trip in morning.trips)
    assert body.count('class="bar charge ') == num_charges
    strips = [part.split('"')[0] for part in body.split('<polyline points="')[1:]]
    assert len(strips) == len(morning.trips_by_robot())
    for strip in strips:
        for point in strip.split():
            assert all(0 <= float(value) <= 100 for value in point.split(","))
    assert "Lowest level" in body
    assert f"in {num_charges} charge" in body


def test_a_detour_to_a_station_stands_in_chart_and_map(electric: Instance):
    """Way, charge with its levels; the route goes by the station, which is a mark of its own."""
    station = electric.stations[1]
    request = next(r for r in electric.requests if r.id == "C30")
    plan = schedule(electric, {"1": [[ChargeVisit(station=station.id), request.id]]})
    page = render_report(electric, plan, check(electric, plan))
    assert f"Way to station {station.id}" in page
    assert f"Charges at station {station.id}, " in page
    (path,) = trip_paths(electric, plan.trips)
    row = electric.place_index[station.place]
    assert [leg[-1] for leg in path.legs] == [row, electric.place_index[request.place], 0]
    assert path.charges == [0]
    marks = {mark.index: mark for mark in draw_floors(electric).floors[0].marks}
    assert marks[row].kind == "charger"
    assert marks[row].title.endswith(f"station {station.id}, any number of slots")
    assert marks[0].kind == "dock"


def test_stations_without_a_charger_are_no_chargers():
    """Slots stand in the title."""
    marks = draw_floors(TINY).floors[0].marks
    assert [mark.kind for mark in marks] == ["dock", "charger", "place"]
    assert marks[1].title == "Place corner, station S, 1 slot"


def test_page_shows_the_certified_service_level():
    """Class by class beside the promise, verdict of the certificate, share of each request."""
    plan = replace(PLAN, certificate=CERTIFICATE)
    page = render_report(TINY, plan, check(TINY, plan))
    assert "Promise kept" in page
    assert "2.00 %, at most 4.00 %" in page
    assert "On 1,000 random days, routine requests are late on at most 4.00 % of the days" in page
    assert "(promise 5 %) – kept." in page
    # One class, and the robots that return.
    assert page.count("not kept") == 0
    assert page.count(">kept<") == 2
    strict = replace(TINY, promise=Promise(late_share=(0.01, 0.01, 0.03)))
    bad = replace(plan, certificate=replace(CERTIFICATE, holds=False))
    page = render_report(strict, bad, check(strict, bad))
    assert "Promise not kept" in page
    assert page.count(">not kept<") == 1
    assert broken_promises(strict, bad) == ("q1",)
    assert broken_promises(TINY, plan) == ()


def test_promises_by_trip_are_not_judged_by_class():
    """What the certificate says of single requests does not decide them."""
    joint = replace(TINY, promise=Promise(scope=Scope.TRIP))
    plan = replace(PLAN, certificate=CERTIFICATE)
    page = render_report(joint, plan, check(joint, plan))
    assert "all requests of a trip at once" in page
    assert page.count(">kept<") == 1


def test_figures_of_a_certificate(hospital: Instance, morning: Plan):
    """Largest share and bound over all classes are those of the certificate."""
    plan = certify(hospital, morning, num_scenarios=2000)
    kpis = summarise(hospital, plan, check(hospital, plan))
    assert isinstance(kpis, ElectricKpis)
    assert kpis.service is not None
    assert plan.certificate is not None
    risks = plan.certificate.requests
    assert kpis.service.largest == max(risk.late_share for risk in risks)
    assert kpis.service.upper == max(risk.upper for risk in risks)
    assert sum(level.num_requests for level in kpis.service.classes) == len(risks)


def test_page_of_impossible_charges_stays_whole():
    """Unknown stations, times and amounts that are no numbers: the violations are listed."""
    charge = Charge(
        station="<b>", before=0, arrive_s=math.nan, start_s=math.inf, end_s=math.nan,
        charged_wh=math.inf,
    )  # fmt: skip
    plan = replace(PLAN, trips=(replace(PLAN.trips[0], charges=(charge,)),))
    report = check(TINY, plan)
    assert not report.is_feasible
    page = render_report(TINY, plan, report)
    assert "non-finite" in page
    kpis = summarise(TINY, plan, report)
    assert isinstance(kpis, ElectricKpis)
    assert kpis.energy is not None
    assert (kpis.energy.charging_s, kpis.energy.queue_s) == (0, 0)
    assert "station <b>" not in page


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_electric_page_works_in_a_browser(electric: Instance, open_page: Any, width: int):
    """Stations that the chosen robot does not visit fade; strips lie below the trips."""
    station = electric.stations[1]
    plan = schedule(electric, {"1": [[ChargeVisit(station=station.id), "C30"]]})
    certified = certify(electric, plan, num_scenarios=2000)
    browser = open_page(render_report(electric, certified, check(electric, certified)), width)
    run = browser.execute_script
    assert run("return document.documentElement.scrollWidth") <= width
    run("document.getElementById('next').click()")
    faded = run("return [...document.querySelectorAll('.charger.faded')].length")
    assert faded == run("return document.querySelectorAll('.mark.charger').length") - 1
    # The order of stops does not count the station.
    assert run("return document.querySelector('.order text').textContent") == "1"
    boxes = run(
        "return ['.bar.charge', 'svg.battery'].map("
        "s => document.querySelector(s).getBoundingClientRect())"
    )
    assert boxes[0]["bottom"] <= boxes[1]["top"]
    assert min(boxes[0]["width"], boxes[1]["width"]) > 0
    assert browser.get_log("browser") == []
