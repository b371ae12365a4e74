"""Several days of a plan: shares and means, certificates beside them, the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.plan import Certificate, ChargeVisit, RequestRisk, ReturnRisk
from wardwise.fleet.problem import Instance, Place, Request, Robot, Station
from wardwise.fleet.randomness import Law, Randomness, Spread
from wardwise.fleet.schedule import schedule
from wardwise.fleet.simulate import simulate_plan, simulate_plan_days
from wardwise.io import write_json, write_plan

LAW = Spread(law=Law.LOGNORMAL, cv=0.4)
DUE_S = 30.0 * float(LAW.quantile(0.8))


@pytest.fixture(scope="module")
def instance() -> Instance:
    """Two robots, two requests 30 s away that are late with probability 0.2, a charger there."""
    distance = np.array([[0.0, 30.0], [30.0, 0.0]])
    battery = Battery(capacity_wh=100.0, wh_per_m=1.0)
    return Instance(
        name="pair",
        places=(Place(id="0"), Place(id="a", x_m=30.0)),
        requests=tuple(
            Request(id=id_, place="a", due_s=DUE_S, priority=priority)
            for id_, priority in (("A", 1), ("B", 3))
        ),
        robots=tuple(Robot(id=id_, capacity=1.0, end_s=900.0, battery=battery) for id_ in "rs"),
        travel_s=distance,
        distance_m=distance,
        stations=(Station(id="S", place="a", charge=ChargeCurve.linear(100.0, 2.0)),),
        randomness=Randomness(travel=LAW, service=Spread(cv=0.0)),
    )


@pytest.fixture(scope="module")
def plan(instance):
    """Each robot serves one and charges 20 Wh in 40 s; one slot for both; certified 0.2."""
    visit = ChargeVisit(station="S", charged_wh=20.0)
    found = schedule(instance, {"r": [["A", visit]], "s": [["B", visit]]})
    certificate = Certificate(
        num_scenarios=1000,
        seed=0,
        requests=tuple(RequestRisk(request=id_, late_share=0.2, upper=0.23) for id_ in "AB"),
        returns=tuple(ReturnRisk(robot=id_, late_share=0.0, upper=0.01) for id_ in "rs"),
        expected_lateness_s=4.0,
        holds=False,
    )
    return replace(found, certificate=certificate)


def test_late_shares_agree_with_the_certificate(instance, plan):
    """Both requests are late on a fifth of the days; nobody queues before them."""
    days = simulate_plan_days(instance, plan, num_days=400, seed=1)
    stat, urgent, routine = days.late
    for late in (stat, routine):
        assert (late.count, late.certified) == (1, pytest.approx(0.2))
        assert late.simulated.low <= 0.2 <= late.simulated.high
    assert (urgent.count, urgent.certified) == (0, None)
    assert days.late_by_request == {
        "A": pytest.approx(stat.simulated.mean),
        "B": pytest.approx(routine.simulated.mean),
    }
    assert (days.late_returns.count, days.late_returns.simulated.mean) == (2, 0.0)


def test_energy_and_queues_are_those_of_the_days(instance, plan):
    """120 m take 120 Wh; the one slot makes whoever comes second wait, at most 40 s."""
    days = simulate_plan_days(instance, plan, num_days=30, seed=4)
    assert days.used_wh.mean == pytest.approx(120.0)
    assert days.charged_wh.mean == pytest.approx(40.0)
    (station,) = days.stations
    waits = []
    for seed in range(4, 34):
        day = simulate_plan(instance, plan, seed=seed)
        waits.append([charge.start_s - charge.arrive_s for _, charge in day.charges])
        assert sum(each > 0 for each in waits[-1]) == 1
    assert station.charges.mean == 2.0
    assert station.queue_s.mean == pytest.approx(np.mean(waits))
    assert station.longest_s == pytest.approx(np.max(waits))
    assert station.longest_s <= 40.0 + 1e-9


def test_bad_numbers_of_days_and_jobs_are_refused(instance, plan):
    """Two days and one process are the least; elevators need a building."""
    with pytest.raises(ValueError, match="num_days: expected at least 2, got 1"):
        simulate_plan_days(instance, plan, num_days=1)
    with pytest.raises(ValueError, match="jobs: expected at least 1, got 0"):
        simulate_plan_days(instance, plan, jobs=0)
    with pytest.raises(ValueError, match="uses_elevators: expected a site"):
        simulate_plan_days(instance, plan, uses_building=True)


def test_the_command_prints_late_shares_and_queues(run, tmp_path, instance, plan):
    """A table with the certificate, the same as JSON; options for other luck are refused."""
    write_json(instance, tmp_path / "pair.json")
    write_plan(plan, tmp_path / "pair.plan.json")
    words = ("simulate", "pair.json", "--plan", "pair.plan.json", "--days", "20", "--jobs", "1")
    done = run(*words)
    assert done.code == 0, done.err
    for text in ("stat late", "certified 20.0 %", "energy charged", "station S"):
        assert text in done.out
    answer = json.loads(run(*words, "--json").out)
    assert len(answer["days"]) == 20
    assert answer == json.loads(run(*words, "--json").out)
    refused = run(*words, "--travel-cv", "0.3")
    assert refused.code == 2
    assert "got --travel-cv" in refused.err.strip().splitlines()[-1]
