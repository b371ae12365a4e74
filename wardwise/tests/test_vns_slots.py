"""Stations with few slots in the search: queues are counted, paid for, and harmless in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.schedule import ScheduleError
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.solvers import solve
from wardwise.fleet.vns.clock import Clock
from wardwise.fleet.vns.model import model
from wardwise.fleet.vns.routes import to_plan
from wardwise.fleet.vns.run import Found, Run
from wardwise.fleet.vns.search import Search

if TYPE_CHECKING:
    from wardwise.fleet.vns.model import Model


def crowded(seed: int, num_slots: int = 1, num_wards: int = 10) -> Instance:
    """Wards around a charger that all robots, nearly empty at first, pass on their way."""
    rng = np.random.default_rng(seed)
    spots = np.vstack([[0, 0], [6, 0], rng.uniform(-14, 14, (num_wards, 2))])
    distance = np.hypot(*(spots[:, None] - spots[None, :]).T).T
    ready = rng.uniform(20, 110, num_wards)
    return Instance(
        name="crowded",
        places=tuple(Place(id=f"p{i}") for i in range(num_wards + 2)),
        requests=tuple(
            Request(
                id=f"r{w}",
                place=f"p{2 + w}",
                kind=Kind.COLLECT,
                ready_s=float(ready[w]),
                due_s=float(ready[w]) + 25.0,
                service_s=10.0,
            )
            for w in range(num_wards)
        ),
        robots=tuple(
            Robot(
                id=f"k{k}",
                capacity=2.0,
                end_s=400.0,
                max_trips=1,
                battery=Battery(capacity_wh=40.0, start_wh=16.0, wh_per_m=1.0),
            )
            for k in range(num_wards)
        ),
        stations=(
            Station(id="S", place="p1", num_slots=num_slots, charge=ChargeCurve.linear(40.0, 0.8)),
        ),
        travel_s=distance,
        distance_m=distance,
    )


def rows_of(search: Search) -> dict[int, list[int]]:
    """Routes of the robots that leave home."""
    node, length = search.routes.node, search.routes.length
    return {k: [int(v) for v in node[k, : length[k]]] for k in search.used()}


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), num_slots=st.integers(1, 4))
def test_late_queues_are_those_that_the_scheduler_refuses(seed: int, num_slots: int) -> None:
    """Routes made without a thought of slots can be timed if and only if no queue is late."""
    instance = crowded(seed, num_slots)
    m = model(instance, Objective.HIERARCHICAL)
    search = Search(m, seed + 1)
    search.construct({})
    try:
        to_plan(instance, m, rows_of(search), search.absent())
        is_timed = True
    except ScheduleError:
        is_timed = False
    assert is_timed == (search.queued() <= 1e-6)


def heedless(instance: Instance) -> tuple[Model, Found]:
    """The plan of a search that takes stations for as large as need be."""
    m = model(instance, Objective.HIERARCHICAL)._replace(has_slots=False)
    found: list[Found] = []

    def accept(each: Found, _elapsed_s: float, _iteration: int) -> bool:
        found.append(each)
        return True

    Run(m, Clock(time_limit=60.0, max_iterations=400), 0, accept).solve()
    return m, found[-1]


@pytest.mark.parametrize(("seed", "most_denied"), [(2, 0), (4, 2)])
def test_few_slots_are_planned_for(seed: int, most_denied: int) -> None:
    """A day whose best plan without a thought of slots cannot be driven."""
    instance = crowded(seed)
    m, found = heedless(instance)
    with pytest.raises(ScheduleError):
        to_plan(instance, m, found.rows, found.denied)
    plan = solve(instance, max_iterations=400, time_limit=60.0)
    report = check(instance, plan)
    assert report.violations == ()
    assert len(plan.denied) <= most_denied


def test_more_slots_serve_no_fewer_requests() -> None:
    """One, two and any number of slots; with any number nobody is denied."""
    denied = [
        len(solve(each, max_iterations=400, time_limit=60.0).denied)
        for each in (crowded(4, 1), crowded(4, 2), crowded(4, 99))
    ]
    assert denied == sorted(denied, reverse=True)
    assert denied[-1] == 0


def test_a_day_without_room_for_queues_is_still_answered() -> None:
    """One iteration from an impossible start: who is late stays at home, and nothing fails."""
    instance = crowded(1)
    plan = solve(instance, max_iterations=1, time_limit=60.0)
    assert check(instance, plan).violations == ()
