"""Making requests appear during the day, and measuring how much of that there is."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.dynamism import degree_of_dynamism, depart_late, edod_tw, make_dynamic
from wardwise.fleet.check import Constraint, Timing, check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.schedule import schedule
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital
from wardwise.io import Provenance, read_instance, read_provenance, write_lackner

DATA = Path(os.environ.get("WARDWISE_DATA") or "absent")
DYNAMIC = sorted(DATA.glob("dvrptw/*.txt"))


def line_instance(count, **change):
    """Places 10 s apart on a line from the depot; windows open after the robot could be there."""
    x = 10.0 * np.arange(count + 1)
    travel = np.abs(x[:, None] - x[None, :])
    requests = tuple(
        Request(id=f"r{k}", place=f"p{k}", load=1, ready_s=15.0 * k, due_s=4000, service_s=2)
        for k in range(1, count + 1)
    )
    return Instance(
        name="line",
        places=(Place(id="depot"), *(Place(id=f"p{k}") for k in range(1, count + 1))),
        requests=tuple(replace(request, **change) for request in requests),
        robots=(Robot(id="R", capacity=1000, end_s=8000),),
        travel_s=travel,
        distance_m=travel,
    )


def all_in_order(instance):
    """One trip through all requests."""
    return schedule(instance, {"R": [[request.id for request in instance.requests]]})


def latest(instance, plan):
    """The largest release that each request gets over many seeds."""
    drawn = [make_dynamic(instance, plan, degree=1, seed=seed) for seed in range(300)]
    return np.max([[r.release_s for r in dynamic.requests] for dynamic in drawn], axis=0)


def test_release_is_no_later_than_the_last_useful_departure():
    """Starts 15, 30, 45: departures 5 from the depot, 20 and 35 from the stop before."""
    instance = line_instance(3)
    found = latest(instance, all_in_order(instance))
    # The largest of 300 uniform draws is within 5 % of the bound but for 0.95^300 = 2e-7.
    assert (found <= [5, 20, 35]).all()
    assert (found >= 0.95 * np.array([5, 20, 35])).all()


def test_release_is_no_later_than_the_window_opens():
    """A late start does not move the bound past the ready time."""
    # Ready 15, 20, 45: the second starts at 27, as 15 + 2 + 10, left for at 17 < 20. With
    # ready 12 it is bounded by 12.
    instance = line_instance(3)
    early = replace(instance.requests[1], ready_s=12.0)
    instance = replace(instance, requests=(instance.requests[0], early, instance.requests[2]))
    found = latest(instance, all_in_order(instance))
    assert (found <= [5, 12, 35]).all()
    assert found[1] >= 0.95 * 12


def test_goods_to_deliver_are_known_before_they_are_loaded():
    """All of one trip are bounded by its departure, 5."""
    instance = line_instance(3, kind=Kind.DELIVER)
    assert (latest(instance, all_in_order(instance)) <= 5).all()


def test_transfer_is_known_before_the_robot_leaves_for_its_pickup():
    """Picked up at 15 at place 1, left for at 5, though the drop at place 2 is at 27."""
    transfer = Request(
        id="t", place="p2", origin="p1", kind=Kind.TRANSFER, load=1, ready_s=15, due_s=900,
        service_s=2,
    )  # fmt: skip
    instance = replace(line_instance(2), requests=(transfer,))
    pickup = Stop(request="t", arrive_s=10, start_s=15, is_pickup=True)
    drop = Stop(request="t", arrive_s=27, start_s=27)
    trip = Trip(robot="R", depart_s=0, stops=(pickup, drop), return_s=49)
    plan = Plan(instance="line", trips=(trip,))
    assert (latest(instance, plan) <= 5).all()
    dynamic = make_dynamic(instance, plan, degree=1, seed=1)
    assert check(dynamic, depart_late(dynamic, plan), timing=Timing.DISPATCHED).is_feasible


def test_depart_late_waits_at_the_stop_before():
    """Starts stay 15, 30, 45; the robot arrives at each of them and leaves home at 5."""
    instance = line_instance(3)
    late = depart_late(instance, all_in_order(instance))
    assert [stop.arrive_s for stop in late.trips[0].stops] == [15, 30, 45]
    assert [stop.start_s for stop in late.trips[0].stops] == [15, 30, 45]
    assert late.trips[0].depart_s == 5
    assert check(instance, late).is_feasible


def foresight(instance, plan):
    """Requests that a robot leaves for before they are known, in a plan that is else sound."""
    report = check(instance, plan, timing=Timing.DISPATCHED)
    assert {violation.constraint for violation in report.violations} <= {Constraint.FORESIGHT}
    return len(report.violations)


def test_releases_at_the_bound_pass_and_later_ones_do_not():
    """Departures are 5, 20 and 35; each release a second later is one violation."""
    instance = line_instance(3)
    late = depart_late(instance, all_in_order(instance))
    for delay_s, expected in ((0, 0), (1, 3)):
        released = tuple(
            replace(request, release_s=bound_s + delay_s)
            for request, bound_s in zip(instance.requests, (5, 20, 35), strict=True)
        )
        assert foresight(replace(instance, requests=released), late) == expected


@given(
    stops=st.lists(
        st.tuples(st.sampled_from([Kind.COLLECT, Kind.DELIVER]), st.floats(0, 900), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    degree=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_reference_plan_stays_executable(stops, degree, seed):
    """Whatever the kinds, windows and trips, nothing is left for before it is known."""
    instance = line_instance(len(stops))
    requests = tuple(
        replace(request, kind=kind, ready_s=ready_s)
        for request, (kind, ready_s, _) in zip(instance.requests, stops, strict=True)
    )
    instance = replace(instance, requests=requests)
    trips = [[]]
    for request, (_, _, is_new) in zip(requests, stops, strict=True):
        if is_new and trips[-1]:
            trips.append([])
        trips[-1].append(request.id)
    plan = schedule(instance, {"R": trips})
    dynamic = make_dynamic(instance, plan, degree=degree, seed=seed)
    assert check(dynamic, depart_late(dynamic, plan), timing=Timing.DISPATCHED).is_feasible


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reference_plan_of_a_hospital_stays_executable(seed):
    """Goods out and in, several trips a robot: nothing is left for before it is known."""
    hospital = generate_hospital(num_floors=2, num_wards=10, hours=3, seed=seed)
    plan = solve(hospital, method="insertion", time_limit=10.0, max_iterations=1, seed=seed)
    dynamic = make_dynamic(hospital, plan, degree=0.9, seed=seed)
    assert degree_of_dynamism(dynamic) > 0.5
    assert foresight(dynamic, depart_late(dynamic, plan)) == 0


def test_higher_degree_adds_requests_and_changes_no_other():
    """The chosen ones are nested; releases and priorities are the same at every degree."""
    instance = line_instance(20)
    plan = all_in_order(instance)
    before = make_dynamic(instance, plan, degree=0, seed=5)
    assert degree_of_dynamism(before) == 0
    for degree in (0.1, 0.35, 0.7, 1.0):
        after = make_dynamic(instance, plan, degree=degree, seed=5)
        assert degree_of_dynamism(after) == round(degree * 20) / 20
        assert [r.priority for r in after.requests] == [r.priority for r in before.requests]
        for old, new in zip(before.requests, after.requests, strict=True):
            assert old.release_s in (0, new.release_s)
        before = after
    assert after == make_dynamic(instance, plan, degree=1.0, seed=5)
    assert after != make_dynamic(instance, plan, degree=1.0, seed=6)
    assert after.name == "line-dod100-seed5"


def test_priorities_follow_the_mix_and_tolerances_the_priorities():
    """Counts over 2000 requests within four standard deviations of 20, 30 and 50 %."""
    instance = line_instance(200, tolerance_s=7.0)
    plan = all_in_order(instance)
    drawn = [make_dynamic(instance, plan, degree=0.5, seed=seed) for seed in range(10)]
    counts = np.bincount([r.priority for dynamic in drawn for r in dynamic.requests])[1:]
    # Standard deviations sqrt(2000 p (1 - p)) are at most 22.4.
    assert counts == pytest.approx([400, 600, 1000], abs=90)
    assert {r.tolerance_s for r in drawn[0].requests} == {7.0}
    soft = make_dynamic(
        instance, plan, degree=0.5, seed=0, priority_mix=(0, 0.5, 0.5), tolerance_s=(0, 20, 50)
    )
    assert {(r.priority, r.tolerance_s) for r in soft.requests} == {(2, 20.0), (3, 50.0)}


def test_measures_worked_out_by_hand():
    """Horizon 8000; due - release of 4000 and 4000 - 200: (0.5 + 0.525) / 2."""
    instance = line_instance(2)
    late = replace(instance.requests[1], release_s=200)
    instance = replace(instance, requests=(instance.requests[0], late))
    assert degree_of_dynamism(instance) == 0.5
    assert edod_tw(instance) == pytest.approx(0.5125)
    assert degree_of_dynamism(replace(instance, requests=())) == 0
    assert edod_tw(replace(instance, requests=())) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"degree": 1.5}, "degree: expected 0 to 1, got 1.5"),
        ({"degree": float("nan")}, "degree: expected 0 to 1, got nan"),
        ({"priority_mix": (0.5, 0.5)}, "priority_mix: expected 3 shares of at least 0 and sum 1"),
        ({"priority_mix": (0.5, 0.5, 0.5)}, "priority_mix: expected 3 shares"),
        ({"priority_mix": (-0.5, 0.5, 1.0)}, "priority_mix: expected 3 shares"),
        ({"tolerance_s": (1.0,)}, "tolerance_s: expected 3 values, got 1"),
        ({"tolerance_s": (1.0, 1.0, -1.0)}, "tolerance_s: expected a finite number of at least 0"),
    ],
)
def test_parameters_out_of_range_are_named(change, message):
    """The message names the parameter and its range."""
    instance = line_instance(20)
    with pytest.raises(ValueError, match=message):
        make_dynamic(instance, all_in_order(instance), **{"degree": 0.5, "seed": 1, **change})


def test_reference_plan_must_serve_everything():
    """A denied request has no predecessor, an impossible plan no use."""
    instance = line_instance(2)
    denying = schedule(instance, {"R": [["r1"]]}, denied=["r2"])
    with pytest.raises(ValueError, match=r"reference_plan: .* but request 'r2' is denied"):
        make_dynamic(instance, denying, degree=0.5, seed=1)
    with pytest.raises(ValueError, match=r"reference_plan: .* but request 'r2' is neither served"):
        make_dynamic(instance, replace(denying, denied=()), degree=0.5, seed=1)


needs_data = pytest.mark.skipif(not DYNAMIC, reason="WARDWISE_DATA is not set")


@needs_data
@pytest.mark.parametrize("path", DYNAMIC, ids=lambda path: path.stem)
def test_public_dynamic_files_have_the_degree_in_their_name(path):
    """Each request that can be dynamic is so with about the stated chance."""
    instance = read_instance(path)
    degree = float(path.stem.rpartition("-")[2])
    # Releases are whole numbers up to the ready time: none above 0 where that is 0.
    possible = sum(request.ready_s > 0 for request in instance.requests)
    found = degree_of_dynamism(instance) * len(instance.requests)
    assert abs(found - degree * possible) <= 3 * (possible * degree * (1 - degree)) ** 0.5
    if path.stem == "c101-0.1":
        assert found == 8
    assert 0 < edod_tw(instance) < 1
    static = replace(instance, requests=tuple(replace(r, release_s=0.0) for r in instance.requests))
    assert edod_tw(instance) > edod_tw(static)


@needs_data
def test_solomon_instance_made_dynamic_survives_its_file(tmp_path):
    """C101 at 50 %: the reference stays executable, and the CSV keeps all of it."""
    # Customers that robots leave for at 0 stay known beforehand: 4 of the 50 chosen.
    base = read_instance(DATA / "solomon" / "C101.txt")
    plan = solve(base, method="insertion", time_limit=10.0, max_iterations=1, seed=1)
    distance = check(base, plan).cost.distance_m
    dynamic = make_dynamic(base, plan, degree=0.5, seed=1)
    assert degree_of_dynamism(dynamic) == 0.46
    assert foresight(dynamic, depart_late(dynamic, plan)) == 0
    made = Provenance(base=base.name, degree=0.5, seed=1, reference_cost=distance)
    write_lackner(dynamic, tmp_path / "c101.csv", made)
    assert read_instance(tmp_path / "c101.csv") == dynamic
    assert read_provenance(tmp_path / "c101.csv") == made
