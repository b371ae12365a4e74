"""Where simulated days come from."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from wardwise.dynamism import degree_of_dynamism
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.sizing import HospitalDays, PastDays, RedrawnDays, days_of
from wardwise.fleet.solvers import solve


def line(num_requests: int = 40) -> Instance:
    """One ward at a distance of one; windows that open from 2 on, one after the other."""
    travel = np.ones((2, 2)) - np.eye(2)
    requests = tuple(
        Request(id=f"q{i}", place="ward", ready_s=2.0 + 3 * i, due_s=5.0 + 3 * i)
        for i in range(num_requests)
    )
    return Instance(
        name="line",
        places=(Place(id="depot"), Place(id="ward")),
        requests=requests,
        robots=(Robot(id="1", capacity=1.0, end_s=200.0),),
        travel_s=travel,
        distance_m=travel,
    )


@pytest.fixture(scope="module")
def redrawn() -> RedrawnDays:
    base = line()
    plan = solve(base, method="insertion", time_limit=60.0)
    return RedrawnDays(base=base, reference_plan=plan, degree=0.5)


def test_redrawn_days_keep_the_requests_and_the_degree(redrawn: RedrawnDays) -> None:
    """Places and windows stay, releases and priorities change with the seed."""
    one, other = redrawn.day(1), redrawn.day(2)
    assert one == redrawn.day(1) != other
    for day in (one, other):
        assert [q.due_s for q in day.requests] == [q.due_s for q in redrawn.base.requests]
        assert degree_of_dynamism(day) == 0.5
    assert redrawn.name == "line-dod50"
    with pytest.raises(ValueError, match="degree: expected 0 to 1, got 2"):
        replace(redrawn, degree=2.0)


def test_a_single_past_day_is_drawn_again_request_by_request(redrawn: RedrawnDays) -> None:
    """What was known stays; the rest comes Poisson(1) times, each moved as a whole."""
    past = redrawn.day(1)
    source = PastDays(days=(past,), jitter_s=4.0)
    known = [q for q in past.requests if q.release_s == 0]
    counts = []
    for seed in range(200):
        day = source.day(seed)
        assert [q for q in day.requests if q.release_s == 0] == known
        drawn = [q for q in day.requests if q.release_s > 0]
        counts.append(len(drawn))
        for request in drawn:
            old = past.request_by_id[request.id.partition("/")[0]]
            shift = request.release_s - old.release_s
            assert abs(shift) <= 4.0
            assert request.due_s - old.due_s == pytest.approx(shift)
            assert request.place == old.place
    # Poisson with mean and variance 20: the mean of 200 is within 20 +- 1.
    assert np.mean(counts) == pytest.approx(20, abs=1)
    assert np.var(counts) == pytest.approx(20, rel=0.3)


def test_of_several_past_days_one_is_drawn_as_a_whole(redrawn: RedrawnDays) -> None:
    """Without jitter it is one of them; days of other places are refused."""
    days = (redrawn.day(1), redrawn.day(2))
    source = PastDays(days=days)
    drawn = [source.day(seed).requests for seed in range(20)]
    assert all(any(requests == day.requests for day in days) for requests in drawn)
    assert any(drawn[0] != requests for requests in drawn)
    with pytest.raises(ValueError, match="days: expected the places of 'line-dod50-seed1'"):
        PastDays(
            days=(
                days[0],
                replace(
                    days[0],
                    places=(*days[0].places, Place(id="x")),
                    travel_s=np.ones((3, 3)),
                    distance_m=np.ones((3, 3)),
                ),
            )
        )
    with pytest.raises(ValueError, match="days: expected at least one"):
        PastDays(days=())
    with pytest.raises(ValueError, match="jitter_s: expected at least 0, got -1"):
        PastDays(days=days, jitter_s=-1)


def test_hospital_days_are_days_of_one_building() -> None:
    """The building stays, requests change; what arises at random comes in."""
    source = HospitalDays(num_wards=10, transfers=True, hours=3.0)
    one, other = source.day(1), source.day(2)
    assert one.places == other.places == source.base.places
    assert np.array_equal(one.travel_s, other.travel_s)
    assert one.requests != other.requests
    assert one.requests == source.day(1).requests
    assert 0 < degree_of_dynamism(one) < 1


def test_an_instance_stands_for_days_like_it(redrawn: RedrawnDays) -> None:
    """With releases a past day, without any or with a degree redrawn."""
    past = days_of(redrawn.day(3))
    assert isinstance(past, PastDays)
    assert past.jitter_s == 0.02 * 200
    for instance, degree, expected in (
        (line(8), None, 0.5),
        (redrawn.day(3), 0.75, 0.75),
    ):
        source = days_of(instance, degree=degree)
        assert isinstance(source, RedrawnDays)
        assert degree_of_dynamism(source.day(1)) == expected


def test_sources_travel_to_other_processes(redrawn: RedrawnDays) -> None:
    """A pickled source gives the same days."""
    for source in (redrawn, PastDays(days=(redrawn.day(1),)), HospitalDays(num_wards=10)):
        assert pickle.loads(pickle.dumps(source)).day(5) == source.day(5)  # noqa: S301
