"""Promises in the search: the normal chain along its routes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.randomness import Promise, Randomness, Scope, Spread
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.solvers import solve
from wardwise.fleet.vns.labels import empty_routes
from wardwise.fleet.vns.model import Model, model
from wardwise.fleet.vns.punctual import is_row_punctual


def day(
    *,
    share: float = 0.05,
    cv: float = 0.2,
    num_wards: int = 12,
    seed: int = 1,
    scope: Scope = Scope.REQUEST,
    capacity_wh: float | None = None,
) -> Instance:
    """Wards on a square of 60 with windows of 40 to 120, one trip each."""
    rng = np.random.default_rng(seed)
    spots = rng.uniform(0, 60, (num_wards + 2, 2))
    distance = np.hypot(*(spots[:, None] - spots[None, :]).T).T
    battery = None
    if capacity_wh is not None:
        battery = Battery(capacity_wh=capacity_wh, wh_per_m=1.0)
    ready = rng.uniform(80, 300, num_wards)
    return Instance(
        name="day",
        places=tuple(Place(id=f"p{i}") for i in range(num_wards + 2)),
        requests=tuple(
            Request(
                id=f"r{i}",
                place=f"p{i + 1}",
                kind=Kind.COLLECT,
                ready_s=float(ready[i]),
                due_s=float(ready[i] + rng.uniform(40, 120)),
                service_s=10.0,
            )
            for i in range(num_wards)
        ),
        robots=tuple(
            Robot(id=f"k{k}", capacity=1.0, end_s=900.0, max_trips=1, battery=battery)
            for k in range(num_wards)
        ),
        stations=(
            Station(
                id="S",
                place=f"p{num_wards + 1}",
                num_slots=None,
                charge=ChargeCurve.linear(capacity_wh or 1.0, 0.5),
            ),
        ),
        travel_s=distance,
        distance_m=distance,
        randomness=Randomness(travel=Spread(cv=cv), service=Spread(cv=cv)),
        promise=Promise(late_share=(share,) * 3, return_share=share, scope=scope),
    )


def chain(m: Model, row: list[int]) -> list[tuple[float, float, int]]:
    """Mean and variance of the arrival at each vertex, by Clark's formulas as published."""
    mean, var, found = float(m.start[0]), 0.0, []
    for i, j in itertools.pairwise(row):
        mean += m.service[i] + m.travel[i, j]
        var += m.service_var[i] + m.travel_var[i, j]
        found.append((mean, var, j))
        e = m.earliest[j]
        a = (mean - e) / sqrt(var)
        first = mean * norm.cdf(a) + e * norm.sf(a) + sqrt(var) * norm.pdf(a)
        second = (mean**2 + var) * norm.cdf(a) + e**2 * norm.sf(a)
        second += (mean + e) * sqrt(var) * norm.pdf(a)
        mean, var = first, max(second - first**2, 1e-12)
    return found


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), scope=st.sampled_from(list(Scope)))
def test_rows_are_judged_as_by_the_published_formulas(seed: int, scope: Scope) -> None:
    """Random rows: every quantile in time, or the sum of late probabilities small enough."""
    m = model(day(seed=seed, scope=scope), Objective.HIERARCHICAL)
    s, rng = empty_routes(m), np.random.default_rng(seed)
    stops = sorted(rng.choice(12, rng.integers(1, 5), replace=False) + 1, key=lambda v: m.due[v])
    row = [0, *(int(v) for v in stops), 0]
    s.row[: len(row)] = row
    arrivals = chain(m, row)
    margins = [
        (m.latest[j] if j else m.end[0]) - mean - 1.6448536 * sqrt(var) for mean, var, j in arrivals
    ]
    is_fine = min(margins) >= 0
    if scope is Scope.TRIP:
        late = sum(norm.sf((m.latest[j] - mean) / sqrt(var)) for mean, var, j in arrivals if j)
        is_fine = late <= 0.05 and margins[-1] >= 0
        margins = [late - 0.05, margins[-1]]
    if min(map(abs, margins)) > 1e-3:
        assert is_row_punctual(m, s, 0, len(row)) == is_fine


def test_nothing_random_is_no_promise() -> None:
    """With variance 0 the plan is the one without a promise, bit for bit."""
    sure = day(cv=0.0)
    first, second = (
        solve(instance, method="vns", max_iterations=300, time_limit=60.0)
        for instance in (sure, replace(sure, promise=None, randomness=None))
    )
    assert first.trips == second.trips


@pytest.mark.parametrize("capacity_wh", [None, 170.0])
def test_stricter_promises_take_no_fewer_robots(capacity_wh: float | None) -> None:
    """Shares of 0.5, 0.1 and 0.01: robots never fall, and every stop keeps its quantile."""
    num_robots = []
    for share in (0.5, 0.1, 0.01):
        instance = day(share=share, capacity_wh=capacity_wh)
        plan = solve(instance, max_iterations=2500, time_limit=60.0)
        report = check(instance, plan)
        assert report.is_feasible
        num_robots.append((report.cost.num_denied, report.cost.num_robots))
    assert num_robots == sorted(num_robots)


def test_promises_hold_on_random_days() -> None:
    """Gamma legs and services: no stop of the plan is late on more than 10 % of 4,000 days."""
    instance = day(num_wards=15, seed=3)
    plan = solve(instance, max_iterations=2500, time_limit=60.0)
    rng, index = np.random.default_rng(1), instance.place_index
    for trip in plan.trips:
        now, here = np.zeros(4000), 0
        for stop in trip.stops:
            request = instance.request_by_id[stop.request]
            there = index[request.place]
            now = now + instance.travel_s[here, there] * rng.gamma(25.0, 1 / 25.0, 4000)
            assert (now > request.due_s).mean() < 0.1
            now = np.maximum(now, request.ready_s) + 10.0 * rng.gamma(25.0, 1 / 25.0, 4000)
            here = there
    assert plan.trips
