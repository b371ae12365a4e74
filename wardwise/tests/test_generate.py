"""The hospital generator: believable, servable, repeatable."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.check import check
from wardwise.fleet.problem import Instance, Kind
from wardwise.fleet.solvers import solve
from wardwise.flows import FLOWS, HOUR_S, TOLERANCE_S
from wardwise.generate import OVERTIME_S, generate_hospital
from wardwise.site import NodeKind


def _flow(request_id: str) -> str:
    return request_id.rpartition("-")[0]


def _count(instance: Instance) -> Counter[str]:
    return Counter(_flow(request.id) for request in instance.requests)


def test_same_seed_same_hospital():
    """All randomness comes from the seed."""
    assert generate_hospital(seed=3) == generate_hospital(seed=3)
    assert generate_hospital(seed=3) != generate_hospital(seed=4)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    num_floors=st.integers(2, 12),
    num_wards=st.integers(10, 80),
    start_h=st.integers(0, 23),
    hours=st.integers(1, 24),
    seed=st.integers(0, 10_000),
)
def test_every_request_of_every_hospital_can_be_served(
    num_floors: int, num_wards: int, start_h: int, hours: int, seed: int
):
    """A lone robot that starts at 0 is there in time and back before its shift ends."""
    hours = min(hours, 24 - start_h)
    hospital = generate_hospital(
        num_floors=num_floors, num_wards=num_wards, start_h=start_h, hours=hours, seed=seed
    )
    assert hospital.site is not None
    kinds = Counter(node.kind for node in hospital.site.nodes)
    assert kinds[NodeKind.WARD] == num_wards
    assert len(hospital.site.floors) == num_floors
    for request in hospital.requests:
        place = hospital.place_index[request.place]
        start_s = max(hospital.travel_s[0, place], request.ready_s)
        assert start_s <= request.due_s <= hours * HOUR_S
        back_s = start_s + request.service_s + hospital.travel_s[place, 0]
        assert back_s <= hours * HOUR_S + OVERTIME_S
        assert request.release_s == 0
        assert request.tolerance_s == TOLERANCE_S[request.priority - 1]


def test_default_morning_has_the_stated_size_and_flows():
    """24 wards: about 250 requests, each ward gets breakfast, lunch and clean linen."""
    hospital = generate_hospital(seed=1)
    count = _count(hospital)
    assert 200 <= len(hospital.requests) <= 300
    assert len(hospital.robots) == 10
    assert count["meal"] == 2 * 24
    assert count["clean-linen"] == count["used-linen"] == 24
    # 3 theatres for 24 wards, sets before 7:30, 9:30 and 11:30
    assert count["sterile"] == 3 * 3
    collected = {_flow(r.id) for r in hospital.requests if r.kind is Kind.COLLECT}
    assert collected == {"sample", "used-linen", "waste"}


@pytest.mark.slow
def test_poisson_flows_keep_their_hourly_rates():
    """Over 40 seeds the counts lie within four standard deviations of the stated rates."""
    hospitals = [generate_hospital(seed=seed) for seed in range(40)]
    for flow in (flow for flow in FLOWS if flow.per_hour):
        # Windows must close by 12:00: what is ready later than that is left out.
        last_h = 12 - flow.window_s / HOUR_S
        open_h = [min(max(last_h - hour, 0.0), 1.0) for hour in range(24)]
        rate = sum(flow.per_hour[hour] * open_h[hour] for hour in range(6, 12))
        expected = 40 * 24 * rate
        found = sum(_count(hospital)[flow.name] for hospital in hospitals)
        assert abs(found - expected) < 4 * math.sqrt(expected), flow.name


def test_samples_peak_at_seven_and_ten():
    """Rates 1.0 and 0.7 stand out from 0.3 around them."""
    ready_h = np.array(
        [
            6 + request.ready_s / HOUR_S
            for seed in range(20)
            for request in generate_hospital(seed=seed).requests
            if _flow(request.id) == "sample"
        ]
    )
    per_hour = np.bincount(ready_h.astype(int), minlength=12)
    assert per_hour[7] > per_hour[10] > 1.5 * max(per_hour[6], per_hour[8], per_hour[9])


def test_the_sluice_makes_the_way_home_shorter_and_never_longer():
    """The one-way door opens towards the dock only."""
    hospital = generate_hospital(seed=1)
    assert hospital.site is not None
    out_s, back_s = hospital.travel_s[0], hospital.travel_s[:, 0]
    assert (back_s <= out_s + 1e-9).all()
    assert (back_s < out_s - 1).any()
    assert "sluice" in hospital.site.path("ward-201", "dock")
    assert "sluice" not in hospital.site.path("dock", "ward-201")


def test_travel_variance_grows_with_the_elevator():
    """A ride adds its wait's variance; places on the dock's own floor have none of it."""
    hospital = generate_hospital(seed=1)
    assert hospital.site is not None and hospital.travel_var_s2 is not None
    least_wait_var = min(lift.wait_sd_s**2 for lift in hospital.site.elevators)
    wards = [row for row, place in enumerate(hospital.places) if place.floor > 0]
    assert (hospital.travel_var_s2[0, wards] > least_wait_var).all()
    assert hospital.travel_var_s2[0, hospital.place_index["charger"]] < least_wait_var


def test_the_default_fleet_serves_the_default_morning():
    """Construction alone already carries everything, in the windows with their tolerance."""
    hospital = generate_hospital(seed=1)
    plan = solve(hospital, method="insertion", time_limit=10.0, max_iterations=1, seed=1)
    assert check(hospital, plan).is_feasible
    assert plan.denied == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_floors": 1}, "num_floors: expected 2 to 12, got 1"),
        ({"num_wards": 81}, "num_wards: expected 10 to 80, got 81"),
        ({"num_robots": 0}, "num_robots: expected 1 to 200, got 0"),
        ({"start_h": 24}, "start_h: expected 0 to 23, got 24"),
        ({"start_h": 20, "hours": 5}, "hours: expected 1 to 4, got 5"),
    ],
)
def test_parameters_out_of_range_are_named(change: dict[str, int], message: str):
    """The message names the parameter and its range."""
    with pytest.raises(ValueError, match=message):
        generate_hospital(seed=1, **change)
