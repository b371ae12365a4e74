"""Constructions: every start is a feasible plan, and the rules do what they say."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.search.construct import (
    I1_PARAMETERS,
    cheapest_first,
    drop_losses,
    solomon_i1,
    starts,
    urgency_order,
)
from wardwise.fleet.search.fleet import Fleet
from wardwise.fleet.search.packed import Objective, pack
from wardwise.io import read_instance


def line(positions: list[float], *, num_robots: int = 3, horizon_s: float = 100.0) -> Instance:
    """Depot at 0, one collection of one slot at each position; capacity 2; distance is time."""
    x = np.array([0.0, *positions])
    distance = np.abs(x[:, None] - x[None, :])
    return Instance(
        name="line",
        places=tuple(Place(id=str(i)) for i in range(len(x))),
        requests=tuple(
            Request(id=str(i), place=str(i), load=1.0, due_s=horizon_s) for i in range(1, len(x))
        ),
        robots=tuple(
            Robot(id=str(k), capacity=2.0, end_s=horizon_s, max_trips=1) for k in range(num_robots)
        ),
        travel_s=distance,
        distance_m=distance,
    )


def hospital(rng: np.random.Generator) -> Instance:
    """Twelve requests of both kinds on a square, soft windows, several trips, scarce robots."""
    xy = rng.uniform(0, 50, (13, 2))
    distance = np.hypot(*(xy[:, None] - xy[None, :]).transpose(2, 0, 1))
    ready = rng.uniform(0, 200, 12)
    return Instance(
        name="hospital",
        places=tuple(Place(id=str(i)) for i in range(13)),
        requests=tuple(
            Request(
                id=str(i),
                place=str(i + 1),
                kind=(Kind.COLLECT, Kind.DELIVER)[i % 2],
                load=float(rng.integers(1, 3)),
                ready_s=ready[i],
                due_s=ready[i] + 80,
                service_s=5.0,
                priority=1 + i % 3,
                tolerance_s=20.0 * (i % 3),
            )
            for i in range(12)
        ),
        robots=tuple(Robot(id=str(k), capacity=3.0 + k, end_s=400.0) for k in range(2)),
        travel_s=distance,
        distance_m=distance,
        reload_s=10.0,
    )


@pytest.mark.parametrize("objective", list(Objective))
def test_every_start_is_feasible_and_complete(objective: Objective) -> None:
    """All nine starts keep every rule, and serve a request once or not at all."""
    for seed in range(10):
        packed = pack(hospital(np.random.default_rng(seed)), objective)
        fleets = list(starts(packed))
        assert len(fleets) == 9
        for fleet in fleets:
            assert fleet.is_feasible()
            served = [n for trips in fleet.trips().values() for trip in trips for n in trip]
            assert sorted([*served, *fleet.unserved()]) == list(range(1, 13))


def test_i1_fills_the_robot_of_the_farthest_first() -> None:
    """Seed 40; of 10 and 30 both cost no detour, c2 = d - 0 prefers 30; 10 is left over."""
    packed = pack(line([10.0, 30.0, 40.0]), Objective.DISTANCE)
    assert solomon_i1(packed, I1_PARAMETERS[0], "farthest").trips() == {0: [[2, 3]], 1: [[1]]}


def test_i1_can_start_from_the_earliest_deadline() -> None:
    """Seed 10, due first; then 40 with c2 = 40 - 60 against 30 - 40 for 30: 30 wins."""
    instance = line([10.0, 30.0, 40.0])
    first = replace(instance.requests[0], due_s=15.0)
    packed = pack(replace(instance, requests=(first, *instance.requests[1:])), Objective.DISTANCE)
    assert solomon_i1(packed, I1_PARAMETERS[0], "earliest").trips() == {0: [[1, 2]], 1: [[3]]}


def test_urgent_requests_come_first_and_equal_ones_by_due_time() -> None:
    """Stat (node 2), then routine by due time (3 before 1)."""
    instance = line([10.0, 20.0, 30.0])
    a, b, c = instance.requests
    requests = (a, replace(b, priority=1), replace(c, due_s=50.0))
    packed = pack(replace(instance, requests=requests), Objective.COST)
    assert urgency_order(packed) == [2, 3, 1]


def test_scarce_room_goes_to_the_more_urgent() -> None:
    """One robot with two slots and three requests: the routine one of the three is denied."""
    instance = line([10.0, 20.0, 30.0], num_robots=1)
    requests = tuple(
        replace(r, priority=p) for r, p in zip(instance.requests, (2, 3, 1), strict=True)
    )
    fleet = cheapest_first(pack(replace(instance, requests=requests), Objective.HIERARCHICAL))
    assert fleet.unserved() == [2]


@pytest.mark.parametrize(("denial", "unserved"), [(119.0, [1]), (121.0, [])])
def test_money_denies_what_costs_more_to_serve(denial: float, unserved: list[int]) -> None:
    """A robot for 100 and 20 m there and back make 120: denied for 119, served for 121."""
    costs = Costs(per_denial=(denial, denial, denial))
    packed = pack(replace(line([10.0]), costs=costs), Objective.COST)
    assert cheapest_first(packed).unserved() == unserved
    assert solomon_i1(packed, I1_PARAMETERS[0], "farthest").unserved() == unserved


def test_a_robot_goes_home_only_if_all_its_requests_together_do_not_pay() -> None:
    """Two requests at 10 share 120: denied for 59 each, kept for 61 each."""
    for denial, num_used in ((59.0, 0), (61.0, 1)):
        costs = Costs(per_denial=(denial, denial, denial))
        packed = pack(replace(line([10.0, 10.0]), costs=costs), Objective.COST)
        fleet = Fleet.from_trips(packed, {0: [[1, 2]]})
        drop_losses(fleet)
        assert len(fleet.used()) == num_used


def test_hierarchical_prefers_any_distance_to_one_more_robot() -> None:
    """Three slots need two robots; all fit in one chain of trips, however far."""
    instance = line([10.0, 20.0, 30.0], horizon_s=1000.0)
    robots = tuple(replace(robot, max_trips=None) for robot in instance.robots)
    packed = pack(replace(instance, robots=robots), Objective.HIERARCHICAL)
    assert len(cheapest_first(packed).used()) == 1


def test_solomon_c201_is_solved_by_the_first_construction() -> None:
    """Best known plan of C201: 3 robots, 591.557 (clusters of narrow windows)."""
    if "WARDWISE_DATA" not in os.environ:
        pytest.skip("needs WARDWISE_DATA")
    path = Path(os.environ["WARDWISE_DATA"]) / "solomon" / "C201.txt"
    packed = pack(read_instance(path), Objective.HIERARCHICAL)
    best = min(starts(packed), key=Fleet.score)
    assert len(best.used()) == 3
    assert best.score()[1] - 3 * packed.robot_price == pytest.approx(591.557, abs=1e-3)
