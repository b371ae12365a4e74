"""Promises in the search: the normal chain along its routes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from wardwise.fleet.chance import certify
from wardwise.fleet.chance.certify import CONFIDENCE, upper_bounds
from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.randomness import Promise, Randomness, Scope, Spread
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.solvers import solve
from wardwise.fleet.vns.clock import Clock
from wardwise.fleet.vns.labels import empty_routes
from wardwise.fleet.vns.model import Model, model
from wardwise.fleet.vns.promises import allowed_share
from wardwise.fleet.vns.punctual import is_row_punctual
from wardwise.fleet.vns.routes import to_plan
from wardwise.fleet.vns.run import Found, Run


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


@settings(max_examples=30)
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


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("capacity_wh", [None, 170.0])
def test_plans_keep_their_promise_on_days_they_never_saw(
    scope: Scope, capacity_wh: float | None
) -> None:
    """Skewed times and narrow windows: a certificate on other days than the search's holds."""
    instance = day(num_wards=12, seed=3, cv=0.4, scope=scope, capacity_wh=capacity_wh)
    plan = solve(instance, max_iterations=1500, time_limit=60.0)
    certificate = certify(instance, plan, seed=5).certificate
    assert certificate is not None
    assert certificate.holds
    assert len(plan.denied) < 6


def test_judge_mends_what_the_chain_alone_would_break() -> None:
    """The chain is too sure on this day: its plan breaks the promise, the judge's keeps it."""
    instance = day(num_wards=20, seed=4, cv=0.4)
    m = model(instance, Objective.HIERARCHICAL)
    found: list[Found] = []

    def accept(each: Found, _elapsed_s: float, _iteration: int) -> bool:
        found.append(each)
        return True

    Run(m, Clock(time_limit=60.0, max_iterations=800), 0, accept).solve()
    trusting = certify(instance, to_plan(instance, m, found[-1].rows, found[-1].denied))
    judged = certify(instance, solve(instance, max_iterations=800, time_limit=60.0))
    assert trusting.certificate is not None
    assert judged.certificate is not None
    assert not trusting.certificate.holds
    assert judged.certificate.holds
    assert judged.denied == ()


def test_plans_with_a_promise_depend_on_the_seed_alone() -> None:
    """With a limit on iterations two runs give the same plan, judge and all."""
    instance = day(num_wards=42, seed=2, cv=0.4)
    first, second = (solve(instance, max_iterations=60, time_limit=60.0) for _ in range(2))
    assert first == second


def test_requests_out_of_reach_of_the_promise_are_denied() -> None:
    """A window that even a robot of its own misses on every fifth day; the others are served."""
    instance = day(num_wards=4, seed=3)
    far = instance.requests[0]
    way_s = float(instance.travel_s[0, instance.place_index[far.place]])
    hard = replace(far, ready_s=0.0, due_s=way_s * 1.15)
    instance = replace(instance, requests=(hard, *instance.requests[1:]))
    plan = solve(instance, max_iterations=300, time_limit=60.0)
    assert plan.denied == (far.id,)


@settings(max_examples=4, deadline=None)
@given(promised=st.floats(0.01, 0.5), num_scenarios=st.sampled_from([2_000, 5_000]))
def test_days_of_the_judge_leave_room_for_the_certificate(
    promised: float, num_scenarios: int
) -> None:
    """Late as often as the judge allows, all but one certificate of 10,000 hold."""
    allowed = allowed_share(promised, num_scenarios)
    counts = np.arange(num_scenarios)
    most = int((upper_bounds(counts, num_scenarios, CONFIDENCE) <= promised).sum()) - 1
    assert binom.sf(most, num_scenarios, allowed) == pytest.approx(1e-4, rel=1e-6)
