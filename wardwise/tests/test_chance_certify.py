"""Certificates: bounds, promises for requests and trips, and how many days they take."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from wardwise.fleet.chance import certify, evaluate, service_levels
from wardwise.fleet.chance.certify import least_scenarios, upper_bounds
from wardwise.fleet.check import Timing
from wardwise.fleet.plan import Plan
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.randomness import Law, Promise, Randomness, Scope, Spread
from wardwise.fleet.schedule import schedule
from wardwise.io import read_plan, write_plan


def line(slack_s: float = 40.0, **promise: object) -> tuple[Instance, Plan]:
    """Two wards 100 s apart in a row, due `slack_s` after the mean arrival; one trip."""
    travel_s = np.abs(np.subtract.outer(np.arange(3), np.arange(3))) * 100.0
    instance = Instance(
        name="line",
        places=tuple(Place(id=f"p{i}") for i in range(3)),
        requests=(
            Request(id="near", place="p1", due_s=100 + slack_s),
            Request(id="far", place="p2", due_s=200 + slack_s, priority=1),
        ),
        robots=(Robot(id="r", capacity=1.0, end_s=520),),
        travel_s=travel_s,
        distance_m=travel_s,
        randomness=Randomness(travel=Spread(law=Law.NORMAL, cv=0.2)),
        promise=Promise(**promise),  # type: ignore[arg-type]
    )
    return instance, schedule(instance, {"r": [["near", "far"]]})


def test_shares_are_those_of_the_normal_law():
    """Late by more than 40 s: 1 - Phi(40 / 20) = 0.02275 and 1 - Phi(40 / sqrt(800)) = 0.0786."""
    certificate = certify(*line(), num_scenarios=100_000).certificate
    near, far = certificate.requests
    assert (near.request, far.request) == ("near", "far")
    assert near.late_share == pytest.approx(0.02275, abs=4 * 0.00047)
    assert far.late_share == pytest.approx(0.0786, abs=4 * 0.00085)
    # Back at 400 s in the mean with deviation sqrt(400 + 400 + 1600) = 49.0: 1 - Phi(2.45).
    assert certificate.returns[0].late_share == pytest.approx(0.00716, abs=4 * 0.00027)
    assert not certificate.holds


@pytest.mark.parametrize("kind", [Kind.DELIVER, Kind.COLLECT])
def test_no_robot_of_a_dispatched_day_leaves_before_it_knows(kind: Kind):
    """Called in at 30 s, 100 s away with deviation 20, due at 150 s: 1 - Phi(1), not Phi(2.5)."""
    instance, _ = line()
    near = replace(instance.requests[0], kind=kind, release_s=30, due_s=150)
    called = replace(instance, requests=(near,))
    # Driven as it was dispatched: at the ward at 130 s.
    plan = schedule(called, {"r": [["near"]]})
    (trip,) = plan.trips
    late = replace(trip.stops[0], arrive_s=130.0, start_s=130.0)
    plan = replace(plan, trips=(replace(trip, depart_s=30.0, stops=(late,), return_s=230.0),))
    shares = {}
    for timing in Timing:
        found = certify(called, plan, num_scenarios=50_000, timing=timing).certificate
        shares[timing] = found.requests[0].late_share
    assert shares[Timing.PLANNED] == pytest.approx(0.0062, abs=4 * 0.00035)
    assert shares[Timing.DISPATCHED] == pytest.approx(0.1587, abs=4 * 0.0016)
    assert shares[Timing.EXECUTED] == shares[Timing.DISPATCHED]


def test_chance_begins_with_the_last_call():
    """The second is called in when the first is served: 1 - Phi(2) late, not 1 - Phi(sqrt 2).

    The first keeps its 1 - Phi(2); if the call comes sooner, both are random from the start.
    """
    instance, plan = line()
    near, far = (replace(request, kind=Kind.COLLECT) for request in instance.requests)
    shares = []
    for release_s in (100.0, 99.0):
        called = replace(instance, requests=(near, replace(far, release_s=release_s)))
        found = certify(called, plan, num_scenarios=50_000, timing=Timing.DISPATCHED).certificate
        assert found.requests[0].late_share == pytest.approx(0.02275, abs=4 * 0.00067)
        shares.append(found.requests[1].late_share)
    # Up to 100 s as planned; else the first leg may be late by more than the call.
    assert shares[0] == pytest.approx(0.02275, abs=4 * 0.00067)
    assert shares[1] > 0.07


def test_a_promise_is_kept_by_bounds_not_by_shares():
    """7.86 % are late: 8.3 % are kept with 100,000 days, 8.0 % are not, nor 8.3 % with 2,000."""
    for promised, num_scenarios, holds in (
        (0.083, 100_000, True),
        (0.080, 100_000, False),
        (0.083, 2_000, False),
    ):
        instance, plan = line(late_share=(promised, 0.05, 0.05))
        certificate = certify(instance, plan, num_scenarios=num_scenarios).certificate
        assert certificate.holds is holds
        assert certificate.requests[1].late_share < certificate.requests[1].upper


def test_returns_are_promised_too():
    """0.7 % are back late: of 1 % that is kept, of 0.5 % not."""
    for promised, holds in ((0.01, True), (0.005, False)):
        instance, plan = line(late_share=(0.2, 0.2, 0.2), return_share=promised)
        assert certify(instance, plan).certificate.holds is holds


def test_a_trip_is_held_to_its_strictest_priority():
    """Late at either ward is more likely than at each: 9 % for both keeps requests, not trips."""
    shares = {"late_share": (0.087, 0.087, 0.087)}
    by_request = certify(*line(**shares), num_scenarios=50_000).certificate
    by_trip = certify(*line(**shares, scope=Scope.TRIP), num_scenarios=50_000).certificate
    assert by_request.holds
    assert not by_trip.holds
    assert by_request.requests == by_trip.requests
    loose = {"late_share": (0.12, 0.001, 0.03), "scope": Scope.TRIP}
    assert not certify(*line(**loose), num_scenarios=50_000).certificate.holds
    loose = {"late_share": (0.12, 0.001, 0.12), "scope": Scope.TRIP}
    assert certify(*line(**loose), num_scenarios=50_000).certificate.holds


def test_certificates_are_stable_and_survive_files(tmp_path):
    """Same seed, same certificate, on any threads; read back equal."""
    instance, plan = line()
    certified = certify(instance, plan, seed=7)
    assert certify(instance, plan, seed=7, jobs=2) == certified
    assert certify(instance, plan, seed=8) != certified
    assert replace(certified, certificate=None) == plan
    path = tmp_path / "plan.json"
    write_plan(certified, path)
    assert read_plan(path) == certified


@given(num=st.integers(1, 2000), late=st.integers(0, 2000), confidence=st.floats(0.5, 0.999))
def test_bounds_are_those_at_which_so_few_late_days_are_unlikely(num, late, confidence):
    """At the bound P(at most `late` of `num`) = 1 - confidence; with all late it is 1."""
    late = min(late, num)
    bound = float(upper_bounds(np.array([late]), num, confidence)[0])
    if late == num:
        assert bound == 1
    else:
        assert binom.cdf(late, num, bound) == pytest.approx(1 - confidence, rel=1e-6)


def test_bounds_cover_the_true_share_as_often_as_stated():
    """400 seeds of 1,000 days with a true share of 0.02275: 99 % minus three deviations."""
    instance, plan = line()
    covered = 0
    for seed in range(400):
        late = evaluate(instance, plan, num_scenarios=1000, seed=seed).late["near"]
        covered += float(upper_bounds(np.array([late]), 1000, 0.99)[0]) >= 0.02275
    assert covered >= 400 * 0.99 - 3 * math.sqrt(400 * 0.99 * 0.01)


def test_strict_promises_take_more_days():
    """None late in n days bounds the share by 1 - 0.01^(1/n): half of 0.0001 takes 92,102."""
    strict = Promise(late_share=(0.0001, 0.05, 0.05))
    assert least_scenarios(strict, 0.99) == math.ceil(math.log(0.01) / math.log(0.99995)) == 92_102
    instance, plan = line(slack_s=200.0, late_share=(0.0001, 0.05, 0.05))
    certificate = certify(instance, plan).certificate
    assert certificate.num_scenarios == 92_102
    assert certificate.holds
    hopeless = line(late_share=(1e-8, 0.05, 0.05))
    with pytest.raises(ValueError, match=r"promise: late_share: 1e-08 takes .* scenarios"):
        certify(*hopeless)
    with pytest.raises(ValueError, match="confidence"):
        certify(instance, plan, confidence=1.0)


def test_service_levels_by_priority():
    """One stat and one routine request, no urgent one."""
    instance, plan = line()
    certificate = certify(instance, plan).certificate
    near, far = certificate.requests
    stat, urgent, routine = service_levels(instance, certificate)
    assert (stat.num_requests, stat.mean_late_share, stat.largest_upper) == (
        1,
        far.late_share,
        far.upper,
    )
    assert (urgent.num_requests, urgent.largest_late_share) == (0, 0)
    assert (routine.priority, routine.largest_late_share) == (3, near.late_share)


def test_an_empty_plan_keeps_every_promise():
    """Nothing is served, so nothing is late; that all is denied, the referee sees."""
    instance, _ = line()
    certificate = certify(instance, Plan(instance="line", trips=())).certificate
    assert certificate.holds
    assert certificate.requests == ()
