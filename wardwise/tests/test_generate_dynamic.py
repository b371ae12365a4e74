"""Generated hospitals with calls during the day and transfers; without both, as ever."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.dynamism import degree_of_dynamism
from wardwise.fleet.check import Timing, check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Instance, Kind, Robot
from wardwise.fleet.solvers import solve
from wardwise.flows import FLOWS, HOUR_S, TRANSFERS
from wardwise.generate import generate_hospital
from wardwise.io import read_json, write_json

ON_DEMAND = {flow.name for flow in FLOWS + TRANSFERS if flow.per_hour}


def flow_of(request_id: str) -> str:
    """Name of the flow that a request belongs to."""
    return request_id.rpartition("-")[0]


def digest(hospital: Instance) -> str:
    """A fingerprint of everything that was drawn; travel times to a microsecond."""
    requests = [
        (
            r.id, r.place, str(r.kind), r.load, r.ready_s, r.due_s, r.service_s, r.release_s,
            r.priority, r.tolerance_s,
        )
        for r in hospital.requests
    ]  # fmt: skip
    places = [(p.id, p.x_m, p.y_m, p.floor) for p in hospital.places]
    robots = [(r.id, r.capacity, r.start_s, r.end_s) for r in hospital.robots]
    content = repr((hospital.name, requests, places, robots)).encode()
    for matrix in (hospital.travel_s, hospital.distance_m, hospital.travel_var_s2):
        content += np.round(matrix, 6).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": 1}, "a7c76c39f1a25bab"),
        ({"seed": 7, "num_floors": 4, "num_wards": 16}, "584dfc76cd06558b"),
        (
            {"seed": 3, "num_floors": 2, "num_wards": 80, "start_h": 5.5, "hours": 18},
            "485d3bf39d1b067e",
        ),
        (
            {"seed": 9, "num_floors": 12, "num_wards": 33, "start_h": 0, "hours": 24},
            "17540679eac3c220",
        ),
    ],
)
def test_hospital_without_either_is_what_it_was(change: dict[str, float], expected: str):
    """Fingerprints taken before there were calls and transfers."""
    assert digest(generate_hospital(**change)) == expected


def test_dynamic_day_has_the_requests_of_the_static_one():
    """Only the release differs: the ready time for what is called in, 0 for timetables."""
    static, dynamic = (generate_hospital(seed=1, dynamic=flag) for flag in (False, True))
    for before, after in zip(static.requests, dynamic.requests, strict=True):
        is_called = flow_of(before.id) in ON_DEMAND
        assert after == replace(before, release_s=before.ready_s if is_called else 0.0)
    assert dynamic.name == "hospital-5x24-seed1-dynamic"
    # Meals, linen and sterile sets of a morning: 2 * 24 + 2 * 24 + 9 of 253 are timetables.
    assert degree_of_dynamism(dynamic) == pytest.approx((253 - 105) / 253)
    # Everything is due a whole window after the call.
    windows = {flow.name: flow.window_s for flow in FLOWS}
    called = [r for r in dynamic.requests if r.release_s > 0]
    assert all(r.due_s - r.release_s == windows[flow_of(r.id)] for r in called)


def test_transfers_come_on_top_of_the_other_flows():
    """The rest of the day stays as it is but for its loads, which are drawn anew."""
    plain, more = (generate_hospital(seed=1, transfers=flag) for flag in (False, True))
    assert more.name == "hospital-5x24-seed1-transfers"
    rest = [r for r in more.requests if r.kind is not Kind.TRANSFER]
    assert [replace(r, load=0) for r in rest] == [replace(r, load=0) for r in plain.requests]
    assert 20 <= len(more.requests) - len(rest) <= 60
    new = {place.id for place in more.places} - {place.id for place in plain.places}
    assert new == {"laboratory", "pharmacy", "sterile"}


def test_transfers_run_between_the_stated_kinds_of_places():
    """Blood and samples, tissue, medicines and used sets, each in its direction."""
    hospital = generate_hospital(seed=1, hours=12, transfers=True)
    assert hospital.site is not None
    kind = {node.id: node.kind.value for node in hospital.site.nodes}
    found = {
        flow_of(r.id): (kind[r.origin], kind[r.place])
        for r in hospital.requests
        if r.origin is not None
    }
    assert found == {
        "stat-blood": ("laboratory", "theatre"),
        "stat-sample": ("ward", "laboratory"),
        "tissue": ("theatre", "laboratory"),
        "dispensed": ("pharmacy", "ward"),
        "used-set": ("theatre", "sterile"),
    }


@pytest.mark.slow
def test_transfers_keep_their_hourly_rates():
    """Over 40 seeds the counts lie within four standard deviations of the stated rates."""
    hospitals = [generate_hospital(seed=seed, transfers=True) for seed in range(40)]
    count = Counter(flow_of(r.id) for hospital in hospitals for r in hospital.requests)
    for flow in TRANSFERS:
        # 24 wards or 3 theatres, from 6:00 until the last window that closes by 12:00.
        num_places = 24 if "ward" in (flow.origin, flow.to) else 3
        expected = 40 * num_places * flow.per_hour[6] * (6 - flow.window_s / HOUR_S)
        assert abs(count[flow.name] - expected) < 4 * math.sqrt(expected), flow.name


def lone_trips(instance: Instance) -> Plan:
    """A robot a request, which leaves the dock when the request is known."""
    trips = []
    for index, request in enumerate(instance.requests):
        here, clock_s, stops = 0, request.release_s, []
        for place in (request.origin, request.place):
            if place is None:
                continue
            there = instance.place_index[place]
            arrive_s = clock_s + instance.travel_s[here, there]
            start_s = max(arrive_s, request.ready_s)
            is_pickup = place == request.origin
            stops.append(
                Stop(request=request.id, arrive_s=arrive_s, start_s=start_s, is_pickup=is_pickup)
            )
            here, clock_s = there, start_s + request.service_s
        trips.append(
            Trip(
                robot=f"lone-{index}",
                depart_s=request.release_s,
                stops=tuple(stops),
                return_s=clock_s + instance.travel_s[here, 0],
            )
        )
    return Plan(instance=instance.name, trips=tuple(trips))


@pytest.mark.slow
@settings(max_examples=25)
@given(
    num_floors=st.integers(2, 12),
    num_wards=st.integers(10, 80),
    start_h=st.integers(0, 23),
    hours=st.integers(1, 24),
    dynamic=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_every_request_can_be_served_once_it_is_known(
    num_floors: int, num_wards: int, start_h: int, hours: int, dynamic: bool, seed: int
):
    """A robot that stands at the dock at that moment is there on time and back in its shift."""
    hospital = generate_hospital(
        num_floors=num_floors,
        num_wards=num_wards,
        start_h=start_h,
        hours=min(hours, 24 - start_h),
        dynamic=dynamic,
        transfers=True,
        seed=seed,
    )
    end_s = hospital.robots[0].end_s
    robots = [
        Robot(id=f"lone-{k}", capacity=4.0, end_s=end_s) for k in range(len(hospital.requests))
    ]
    enough = replace(hospital, robots=tuple(robots or hospital.robots))
    report = check(enough, lone_trips(enough), timing=Timing.DISPATCHED)
    assert report.violations == ()
    assert report.cost.num_late == 0
    for request in hospital.requests:
        is_called = dynamic and flow_of(request.id) in ON_DEMAND
        assert request.release_s == (request.ready_s if is_called else 0)


def test_the_default_fleet_serves_the_morning_with_transfers():
    """Construction alone carries everything, transfers among it."""
    hospital = generate_hospital(seed=1, transfers=True)
    plan = solve(hospital, method="insertion", time_limit=10.0, max_iterations=1, seed=1)
    assert check(hospital, plan).is_feasible
    assert plan.denied == ()


def test_dynamic_hospital_with_transfers_survives_its_file(tmp_path):
    """Releases and origins come back from JSON."""
    hospital = generate_hospital(seed=2, dynamic=True, transfers=True)
    assert hospital.name == "hospital-5x24-seed2-dynamic-transfers"
    write_json(hospital, tmp_path / "day.json")
    assert read_json(tmp_path / "day.json") == hospital
