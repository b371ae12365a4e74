"""Learning from driven days: what is measured, what is late, and when there is an alarm."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from wardwise.fleet.facts import Deed, DrivenDay, Fact, Ride
from wardwise.fleet.learn import learn
from wardwise.fleet.learn.drift import cusum_alarm, lateness, lower_bound
from wardwise.fleet.learn.measure import BETWEEN_FLOORS, measure
from wardwise.fleet.learn.outcome import Outcome, Outcomes, base_name
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.randomness import Law, Promise, Randomness, Scope, Spread
from wardwise.fleet.schedule import schedule
from wardwise.fleet.simulate import simulate_plan_days
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital
from wardwise.io import read_instance, write_json, write_plan

METRES = np.array([[0.0, 30.0, 50.0], [30.0, 0.0, 20.0], [50.0, 20.0, 0.0]])
TRAVEL = Spread(law=Law.LOGNORMAL, cv=0.4)
SERVICE = Spread(law=Law.GAMMA, cv=0.5)
# Late with probability 0.2, as long as only the way there is random.
DUE_S = 30.0 * float(TRAVEL.quantile(0.8))


def instance(**fields: object) -> Instance:
    """Two wards, two robots; A is late on a fifth of the days, B and C are hardly ever."""
    defaults: dict[str, object] = {
        "requests": (
            Request(id="A", place="a", due_s=DUE_S, service_s=10.0, priority=1),
            Request(id="B", place="b", due_s=2000.0, service_s=20.0),
            Request(id="C", place="b", due_s=2000.0),
        ),
        "promise": Promise(late_share=(0.25, 0.05, 0.05)),
        "randomness": Randomness(travel=TRAVEL, service=SERVICE, day=0.0),
    }
    return Instance(
        name="pair",
        places=tuple(Place(id=name, floor=floor) for name, floor in (("0", 0), ("a", 0), ("b", 1))),
        robots=tuple(Robot(id=id_, capacity=1.0, end_s=900.0) for id_ in "rs"),
        travel_s=METRES,
        distance_m=METRES,
        **defaults | fields,  # type: ignore[arg-type]
    )


def fact(now_s: float, deed: str, place: str, request: str | None = None, robot: str = "r") -> Fact:
    """What the robot r did."""
    return Fact(now_s=now_s, robot=robot, deed=Deed(deed), place=place, request=request)


def test_legs_and_services_are_measured_by_hand():
    """33 s of 30, 15 of 10, 10 of 20, 44 of 20 and 60 of 50; whatever was broken off is counted."""
    facts = (
        fact(3600, "depart", "a", "A"), fact(3633, "arrive", "a", "A"),
        fact(3700, "start", "a", "A"), fact(3715, "end", "a", "A"),
        fact(7200, "depart", "b", "B"), fact(7210, "arrive", "b", "B"),
        fact(7210, "start", "b", "B"), fact(7254, "end", "b", "B"),
        fact(7260, "depart", "0"), fact(7320, "return", "0"),
        fact(7400, "depart", "b", "C"), fact(7410, "break-down", "b", "C"),
        fact(7500, "repaired", "0"),
        fact(7600, "depart", "b", "C/rescue"), fact(7650, "arrive", "b", "C/rescue"),
        fact(7650, "start", "b", "C/rescue"), fact(7660, "end", "b", "C/rescue"),
        fact(7660, "depart", "x"), fact(7670, "arrive", "x"),
        fact(7670, "depart", "b"), fact(7680, "arrive", "a"), fact(7690, "depart", "0"),
    )  # fmt: skip
    found = measure(instance(), [DrivenDay(day=3, facts=facts)])
    assert found.legs.value.tolist() == [33 / 30, 10 / 20, 60 / 50, 1.0]
    assert found.legs.group == ("floor 0", *(BETWEEN_FLOORS,) * 3)
    assert found.legs.hour.tolist() == [1, 2, 2, 2]
    assert found.services.value.tolist() == [15 / 10, 44 / 20]
    assert found.left_out == {
        "legs that began or ended elsewhere": 1,
        "legs that ended in a breakdown": 1,
        "legs to places that the instance does not have": 1,
        "legs without an arrival": 1,
        "services that take no time in the instance": 1,
    }
    assert base_name("C/rescue/rescue", {"C": 1}) == "C"
    assert base_name("C/return", {"C": 1}) == "C/return"


@pytest.mark.slow
def test_without_luck_the_twin_takes_as_long_as_the_instance_says():
    """Rides and waits are taken out to the last second; only queues before doors are left."""
    hospital = generate_hospital(num_floors=2, num_wards=10, num_robots=4, hours=2, seed=1)
    still = Randomness(travel=Spread(cv=0), service=Spread(cv=0), elevator=Spread(cv=0))
    hospital = replace(hospital, randomness=still)
    days: list[DrivenDay] = []
    plan = solve(hospital, method="insertion")
    simulate_plan_days(hospital, plan, num_days=2, uses_building=True, on_day=days.append)
    found = measure(hospital, days)
    assert set(found.left_out) <= {"legs that take no time in the instance"}
    assert found.legs.value.min() == pytest.approx(1.0)
    assert (found.legs.value < 1 + 1e-9).mean() > 0.8
    assert found.services.value == pytest.approx(1.0)
    stated = {elevator.id: elevator.wait_mean_s for elevator in hospital.site.elevators}
    assert found.waits.value == pytest.approx([stated[name] for name in found.waits.group])
    assert BETWEEN_FLOORS in found.legs.group


def driven(driver: Instance, num_days: int, seed: int = 1) -> list[DrivenDay]:
    """Days of both robots, r with A and s with B and C."""
    plan = schedule(driver, {"r": [["A"]], "s": [["B", "C"]]})
    days: list[DrivenDay] = []
    simulate_plan_days(driver, plan, num_days=num_days, seed=seed, on_day=days.append)
    return days


def test_the_twins_luck_is_learnt_from_its_days():
    """Laws, and cvs within 4 deviations, of the days' common factor, too; and no false alarm."""
    law = Randomness(travel=TRAVEL, service=SERVICE, day=0.2)
    # Promised is what this luck keeps; legs of a day are few, so 200 days.
    driver = instance(randomness=law, promise=Promise(late_share=(0.3, 0.05, 0.05)))
    found = learn(driver, driven(driver, 200))
    assert (found.num_days, found.num_cut_off, found.alarms) == (200, 0, ())
    assert found.travel.spread.law is Law.LOGNORMAL
    assert found.service.spread.law is Law.GAMMA
    assert found.travel.spread.cv == pytest.approx(0.4, abs=0.04)  # 800 legs
    assert found.service.spread.cv == pytest.approx(0.5, abs=0.06)  # 400 services
    assert found.day.cv == pytest.approx(0.2, abs=0.06)
    assert found.elevator.spread is None
    assert found.randomness == replace(
        law, travel=found.travel.spread, service=found.service.spread, day=found.day.cv,
        uses_matrix=False,
    )  # fmt: skip
    assert {cell.where for cell in found.cells} == {"floor 0", "floor 1", BETWEEN_FLOORS, "hour 0"}


def test_the_alarm_rings_when_the_twin_is_slower_than_the_plan():
    """A quarter late is promised and a fifth comes: silence. With legs 25 % longer it rings."""
    told = instance()
    assert learn(told, driven(told, 100)).alarms == ()
    slower = replace(told, travel_s=1.25 * METRES)
    found = learn(told, driven(slower, 100))
    stat = found.lateness[0]
    assert stat.count == 100
    assert stat.share == pytest.approx(0.40, abs=0.16)
    assert stat.lower > 0.25
    assert stat.alarm_day is not None
    assert [alarm.split(":")[0] for alarm in found.alarms] == ["stat"] * 3
    assert found.travel.mean.low < 1.25 < found.travel.mean.high


def test_a_change_is_noticed_on_the_day_when_it_shows():
    """On time for 60 days, then always late: log 2 a day up to log(10,000)."""
    late = np.repeat([0.0, 1.0], [60, 40])
    # 0.25 against 0.5: log 2 a late day; 13.3 of them make log(10,000).
    assert cusum_alarm(late, np.ones(100), 0.25) == 60 + math.ceil(math.log(1e4) / math.log(2)) - 1
    assert cusum_alarm(late[:60], np.ones(60), 0.25) is None


@pytest.mark.parametrize("dependence", [0.0, 0.1])
def test_false_alarms_are_rare(dependence):
    """Late exactly as often as promised, 60 days of 20 requests: at most 1 % of such logs ring."""
    rng = np.random.default_rng(6)
    promise, rings, num_logs = Promise(late_share=(0.05, 0.05, 0.05)), 0, 150
    for _ in range(num_logs):
        share = np.full(60, 0.05)
        if dependence:  # beta-binomial: requests of a day are late together
            odds = 1 / dependence - 1
            share = rng.beta(0.05 * odds, 0.95 * odds, size=60)
        outcomes = Outcomes(instance())
        outcomes.days = list(range(60))
        outcomes.by_day[0] = [(int(rng.binomial(20, p)), 20) for p in share]
        for group in (1, 2, 3):
            outcomes.by_day[group] = [(0, 0)] * 60
        rings += bool(lateness(outcomes, promise)[0].alarms)
    assert rings <= 0.01 * num_logs + 4 * math.sqrt(0.01 * num_logs)


@settings(max_examples=30)
@given(count=st.integers(1, 500), share=st.floats(0, 1), confidence=st.floats(0.5, 0.9999))
def test_bounds_are_exact(count, share, confidence):
    """So many late or more have the probability 1 - confidence at the bound."""
    num_late = round(share * count)
    lower = lower_bound(num_late, count, confidence)
    assert 0 <= lower <= num_late / count + 1e-12
    if num_late:
        assert binom.sf(num_late - 1, count, lower) == pytest.approx(1 - confidence, rel=1e-6)


def test_units_are_late_as_the_promise_counts_them():
    """Requests one by one or by trip; unserved, stranded and overdue ones are late."""
    facts = (
        fact(0, "depart", "a", "A"), fact(40, "start", "a", "A"),
        fact(50, "depart", "b", "B"), fact(70, "start", "b", "B"), fact(999, "return", "0"),
        fact(0, "depart", "b", "C", robot="s"),
    )  # fmt: skip
    day = DrivenDay(day=0, facts=facts, unserved=("C",))
    told = instance()
    outcome = Outcome(told, day)
    for each in facts:
        outcome.see(each)
    is_late = DUE_S < 40
    robots = {(3, "r"): True, (3, "s"): True}
    by_request = {(0, "A"): is_late, (2, "B"): False, (2, "C"): True}
    assert outcome.late(Scope.REQUEST) == by_request | robots
    by_trip = {(0, "r, trip 1"): is_late, (2, "C"): True}
    assert outcome.late(Scope.TRIP) == by_trip | robots
    cut_off = learn(told, [day, replace(day, day=1, is_complete=False)])
    assert (cut_off.num_cut_off, cut_off.lateness[0].count) == (1, 1)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(Deed), st.sampled_from("0abx"), st.sampled_from(["A", "C", "?", None])
        ),
        max_size=30,
    )
)
def test_any_facts_are_measured_or_counted(deeds):
    """Each departure is a leg or left out, and each start is a service or left out."""
    facts = tuple(fact(10.0 * k, *each) for k, each in enumerate(deeds))
    rides = (
        Ride(robot="r", elevator="E", floor=0, target=1, come_s=5, turn_s=5, board_s=6, leave_s=9),
    )
    found = measure(instance(), [DrivenDay(day=0, facts=facts, rides=rides)])
    lost = {what: sum(n for reason, n in found.left_out.items() if reason.startswith(what))
            for what in ("legs", "services")}  # fmt: skip
    departures = sum(deed is Deed.DEPART for deed, _, _ in deeds)
    assert len(found.legs) + lost["legs"] == departures
    starts = sum(deed is Deed.START for deed, _, _ in deeds)
    assert len(found.services) + lost["services"] >= starts
    assert len(found.waits) == 1


def test_the_command_writes_what_it_learnt(run, tmp_path):
    """From `simulate --log` to an instance with the learnt laws; alarms end with 3 if asked."""
    told = instance(promise=None)
    write_json(told, tmp_path / "pair.json")
    write_plan(schedule(told, {"r": [["A"]], "s": [["B", "C"]]}), tmp_path / "plan.json")
    options = "--plan plan.json --days 40 --jobs 1 --log days.jsonl"
    simulated = run("simulate", "pair.json", *options.split())
    assert simulated.code == 0
    log = ("days.jsonl", "--instance", "pair.json")
    done = run("learn", *log, "--write", "new.json", "--promise", "stat=99", "--alarm")
    assert done.code == 3
    assert "alarm: stat: 'A' late on" in done.out
    learnt = read_instance(tmp_path / "new.json")
    assert learnt.randomness.travel.cv == pytest.approx(0.4, abs=0.15)
    assert not learnt.randomness.uses_matrix
    assert replace(learnt, randomness=told.randomness) == told
    answer = json.loads(run("learn", *log, "--json").out)
    assert answer["travel"]["count"] == 160
    assert (answer["alarms"], answer["written"]) == ([], {})


def test_the_command_refuses_and_warns_in_one_line(run, tmp_path):
    """Another instance's log, a log without days, an alarm about nothing, a half line."""
    write_json(instance(promise=None), tmp_path / "pair.json")
    header = '{"schema": "wardwise/log/1", "instance": "pair"}\n'
    day = '{"kind": "day", "day": 1}\n'
    (tmp_path / "other").write_text(header.replace("pair", "other"))
    (tmp_path / "none").write_text(header)
    (tmp_path / "half").write_text(header + day + day[:9])
    for options, message in (
        ("other", "error: other:1: instance: expected 'pair' as in pair.json, got 'other'"),
        ("none", "error: none: expected at least one day, got none"),
        ("none --alarm", "error: --alarm: expected a promise, by --promise or in FILE, got none"),
        ("none --write no/new.json", "error: no/new.json: no folder is called 'no'"),
    ):
        refused = run("learn", *options.split(), "--instance", "pair.json")
        assert (refused.code, refused.err.strip().splitlines()[-1]) == (2, message)
    done = run("learn", "half", "--instance", "pair.json")
    assert done.code == 0
    assert "warning: half:3: unfinished line, not read" in done.err
    assert "learnt from 1 day, 1 of them cut off" in done.out
    assert "0 legs, fewer than 30: stays as it was" in done.out
