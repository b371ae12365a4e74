"""Bounds on fleets, fewest robots for settled trips, and impossible legs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.bounds import (
    Deviation,
    direct_legs,
    fewest_robots,
    largest_overlap,
    least_fleet,
    possible_legs,
)
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station

intervals = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), min_size=0, max_size=10).map(
    lambda pairs: [(start, start + length) for start, length in pairs]
)


def line(xs, requests, *, battery=None, stations=(), **robot):
    """Places on a line, one metre a second, the depot at 0."""
    x = np.array([0.0, *xs])
    way = np.abs(x[:, None] - x[None, :])
    return Instance(
        name="line",
        places=tuple(Place(id=f"p{k}", x_m=float(v)) for k, v in enumerate(x)),
        requests=tuple(requests),
        robots=tuple(
            Robot(id=f"r{k}", battery=battery, **{"capacity": 10.0, "end_s": 1000.0, **robot})
            for k in range(2)
        ),
        stations=tuple(stations),
        travel_s=way,
        distance_m=way,
    )


def fewest_by_trial(trips, turn_s):
    """Fewest chains: put each trip, by its start, behind any chain or on a new one."""
    order = sorted(trips)

    def best(k, ends):
        if k == len(order):
            return len(ends)
        start, end = order[k]
        found = best(k + 1, (*ends, end))
        for j in range(len(ends)):
            if ends[j] + turn_s <= start:
                found = min(found, best(k + 1, (*ends[:j], end, *ends[j + 1 :])))
        return found

    return best(0, ())


@given(trips=intervals.filter(lambda trips: len(trips) <= 7), turn_s=st.integers(0, 3))
def test_fewest_robots_equal_trial_of_all_chains(trips, turn_s):
    """The matching needs no more chains than the best of all assignments, and no fewer."""
    chains = fewest_robots([a for a, _ in trips], [b for _, b in trips], turn_s)
    assert chains.num_robots == fewest_by_trial(trips, turn_s)


@given(trips=intervals)
def test_without_turns_fewest_robots_equal_the_overlap(trips):
    """Dilworth: the fewest chains of intervals are as many as overlap at most."""
    starts, ends = [a for a, _ in trips], [b for _, b in trips]
    assert fewest_robots(starts, ends).num_robots == largest_overlap(starts, ends)


@given(trips=intervals, seed=st.integers(0, 99))
def test_chains_hold_every_trip_once_and_in_time(trips, seed):
    """Whatever the turns from trip to trip, each link leaves time for its own."""
    turn_s = np.random.default_rng(seed).integers(0, 5, (len(trips), len(trips))).astype(float)
    chains = fewest_robots([a for a, _ in trips], [b for _, b in trips], turn_s).trips
    assert sorted(k for chain in chains for k in chain) == list(range(len(trips)))
    for chain in chains:
        for one, other in pairwise(chain):
            assert trips[one][1] + turn_s[one, other] <= trips[other][0]


def test_trips_that_end_before_they_start_are_refused():
    """The message names the trip."""
    with pytest.raises(ValueError, match=r"trip 1: end_s: expected at least start_s = 5, got 4"):
        fewest_robots([0, 5], [1, 4])
    with pytest.raises(ValueError, match="turn_s: expected at least 0, got -1"):
        fewest_robots([0], [1], -1)


def test_least_fleet_counts_loads_overlaps_and_time():
    """Loads 6 + 6 + 6 over 10 are 2, but each is above half; must-work intervals share 50."""
    requests = [
        Request(id=str(k), place=f"p{k}", load=6.0, ready_s=40, due_s=45, service_s=20.0)
        for k in (1, 2, 3)
    ]
    instance = line([10, 10, 20], requests)
    least = least_fleet(instance)
    assert least.trips == 3
    assert least.robots_by_overlap == 3  # all are served from 45 to 60
    # 60 s of service, legs of at least 0, 0, 10 in a shift of 1000 s
    assert least.robots_by_time == 1
    assert least.robots == 3
    short = replace(instance, robots=tuple(replace(r, end_s=85.0) for r in instance.robots))
    # 60 + 0 + 0 + 10 = 70 of 85 s; in shifts of 69 s they were two
    assert least_fleet(short).robots_by_time == 1


def test_robots_with_few_trips_are_more():
    """Five full loads and two trips a robot need three robots."""
    requests = [Request(id=str(k), place="p1", load=10.0, due_s=900) for k in range(5)]
    assert least_fleet(line([10], requests, max_trips=2)).robots == 3


def test_a_leg_too_late_is_impossible():
    """From 1 at 100 + 5 s over 10 m the robot is at 2 at 115, not at 114."""
    first = Request(id="1", place="p1", ready_s=100, due_s=200, service_s=5)
    last = Request(id="2", place="p2", due_s=115)
    legs = direct_legs(line([10, 20], [first, last]))
    assert legs.tolist() == [[False, True], [True, False]]
    legs = direct_legs(line([10, 20], [first, replace(last, due_s=114)]))
    assert legs.tolist() == [[False, False], [True, False]]


def test_a_promise_makes_legs_impossible():
    """Deviations 3 of service and 4 of the leg are 5 together; two of them take 10 s more."""
    first = Request(id="1", place="p1", ready_s=100, due_s=200, service_s=5)
    last = Request(id="2", place="p2", due_s=125)
    deviation = Deviation(2.0, np.full((3, 3), 16.0), np.full(2, 9.0))
    assert direct_legs(line([10, 20], [first, last]), deviation)[0, 1]
    assert not direct_legs(line([10, 20], [first, replace(last, due_s=124)]), deviation)[0, 1]


def test_loads_that_meet_must_fit():
    """6 and 5 collected do not fit into 10; one delivered and one collected need not meet."""
    requests = [
        Request(id="a", place="p1", load=6, due_s=900),
        Request(id="b", place="p2", load=5, due_s=900),
        Request(id="c", place="p2", load=6, due_s=900, kind=Kind.DELIVER),
    ]
    legs = direct_legs(line([10, 20], requests))
    assert legs.tolist() == [[False, False, True], [False, False, True], [True, True, False]]


def test_legs_beyond_a_battery_are_driven_over_stations():
    """0 - 30 - (-30) - 0 takes 120 Wh of 100; a charger at 0 on the way splits it."""
    requests = [Request(id=str(k), place=f"p{k}", due_s=900) for k in (1, 2)]
    battery = Battery(capacity_wh=100.0, wh_per_m=1.0)
    plain = line([30, -30], requests, battery=battery)
    assert not direct_legs(plain)[0, 1]
    assert not possible_legs(plain)[0, 1]
    station = Station(id="s", place="p0", charge=ChargeCurve.linear(100.0, 1.0))
    charged = replace(plain, stations=(station,))
    assert not direct_legs(charged)[0, 1]
    assert possible_legs(charged)[0, 1]
    assert direct_legs(line([30, -20], requests, battery=battery))[0, 1]  # 30 + 50 + 20


def test_bounds_of_an_empty_day_are_zero():
    """Nothing to do needs nobody."""
    assert least_fleet(line([1], [])).robots == 0
    assert fewest_robots([], []).num_robots == 0
