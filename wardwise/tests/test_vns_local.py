"""Moves of the local search: verdicts and prices are those of the new routes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.problem import Instance, Place, Request, Robot, Station
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.search.undo import touch
from wardwise.fleet.vns.labels import Routes, empty_routes, refresh
from wardwise.fleet.vns.local import descend, exchange, joins
from wardwise.fleet.vns.model import Model, model
from wardwise.fleet.vns.solve import vns
from wardwise.fleet.vns.undo import make_work, take_back


def electric(seed: int, num_requests: int = 10) -> Instance:
    """Random places on a square of 40, three stations, a battery of 130 metres, one trip each."""
    rng = np.random.default_rng(seed)
    spots = rng.uniform(0, 40, (4 + num_requests, 2))
    distance = np.hypot(*(spots[:, None] - spots[None, :]).T).T
    ready = rng.uniform(0, 150, num_requests)
    return Instance(
        name="electric",
        places=tuple(Place(id=str(i)) for i in range(len(spots))),
        requests=tuple(
            Request(
                id=str(i + 1),
                place=str(i + 1),
                load=float(rng.integers(1, 4)),
                ready_s=float(ready[i]),
                due_s=float(ready[i] + rng.uniform(150, 400)),
                service_s=5.0,
            )
            for i in range(num_requests)
        ),
        robots=tuple(
            Robot(
                id=f"R{k}",
                capacity=10.0,
                end_s=900.0,
                max_trips=1,
                battery=Battery(capacity_wh=130.0, wh_per_m=1.0),
            )
            for k in range(num_requests)
        ),
        stations=tuple(
            Station(
                id=f"S{s}",
                place=str(1 + num_requests + s),
                num_slots=None,
                charge=ChargeCurve.linear(130.0, 0.8),
            )
            for s in range(3)
        ),
        travel_s=distance,
        distance_m=distance,
    )


def fill(m: Model, s: Routes, rng: np.random.Generator) -> None:
    """Feasible routes of all requests, each stop put behind a random one while that fits."""
    k = 0
    for v in rng.permutation(m.num_requests) + 1:
        row = [*s.node[k, : s.length[k] - 1], int(v), 0]
        if not set_row(m, s, k, row):
            set_row(m, s, k, [*row[:-2], 0])
            k += 1
            assert set_row(m, s, k, [0, int(v), 0])


def set_row(m: Model, s: Routes, k: int, row: list[int]) -> bool:
    """Make `row` a route; returns whether it is feasible."""
    s.node[k, : len(row)] = row
    s.length[k] = len(row)
    return bool(refresh(m, s, k))


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_tails_are_joined_if_both_routes_are_feasible(seed: int) -> None:
    """Every exchange of tails of two routes: verdict of the labels = both routes driven."""
    m = model(electric(seed), Objective.HIERARCHICAL)
    s = empty_routes(m)
    fill(m, s, np.random.default_rng(seed))
    rows = [[int(v) for v in s.node[k, : s.length[k]]] for k in (0, 1)]
    for p in range(len(rows[0]) - 1):
        for q in range(1, len(rows[1])):
            for k in (0, 1):
                set_row(m, s, k, rows[k])
            verdict = joins(m, s, 0, p, 1, q) and joins(m, s, 1, q - 1, 0, p + 1)
            exchange(m, s, 0, p, 1, q)
            new = [[int(v) for v in s.node[k, : s.length[k]]] for k in (0, 1)]
            assert new == [rows[0][: p + 1] + rows[1][q:], rows[1][:q] + rows[0][p + 1 :]]
            assert verdict == all([refresh(m, s, 0), refresh(m, s, 1)])


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_descent_shortens_feasible_routes_and_can_be_taken_back(seed: int) -> None:
    """Every request stays served, no route breaks, metres fall, and undo restores all."""
    m = model(electric(seed), Objective.HIERARCHICAL)
    s = empty_routes(m)
    fill(m, s, np.random.default_rng(seed))
    w = make_work(m, s, seed + 1)
    before = s.price.sum()
    rows = [list(s.node[k, : s.length[k]]) for k in range(len(s.length))]
    for k in np.flatnonzero(s.length > 2):
        touch(s, w, k)
    moves = descend(m, s, w)
    assert s.price.sum() < before if moves else s.price.sum() == pytest.approx(before)
    assert all(refresh(m, s, k) for k in range(len(s.length)))
    served = sorted(
        v for k in range(len(s.length)) for v in s.node[k, : s.length[k]] if 0 < v <= 10
    )
    assert served == list(range(1, 11))
    take_back(m, s, w, 0)
    assert rows == [list(s.node[k, : s.length[k]]) for k in range(len(s.length))]


def test_the_search_descends_on_demand() -> None:
    """With local search the plan is sound, too, and repeated bit for bit."""
    instance = electric(4)
    first, second = (
        vns(instance, local_search=True, max_iterations=300, time_limit=60.0) for _ in range(2)
    )
    assert first == second
    assert check(instance, first).is_feasible
    assert first.denied == ()
