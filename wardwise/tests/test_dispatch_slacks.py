"""Insertions that keep promises on random days, against slow tools and the twin."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from experiments import amr_slacks
from tools.results import Measurement
from wardwise.fleet.check import check
from wardwise.fleet.dispatch import Dispatcher, Journal, Policy, Rule, Slacks, Status
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.randomness import Promise, Randomness, Spread
from wardwise.fleet.replay import known_part
from wardwise.fleet.schedule import schedule
from wardwise.fleet.simulate import Disturbances, simulate
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital

CV, SHARES, RETURN_SHARE, END_S = 0.3, (0.05, 0.1, 0.2), 0.1, 600.0
LAW = Randomness(travel=Spread(cv=CV), service=Spread(cv=CV))
PROMISE = Promise(late_share=SHARES, return_share=RETURN_SHARE)
NORMAL = NormalDist()
MEAN = Policy(slacks=Slacks.MEAN)


def random_morning(rng, kinds):
    """Five requests that nobody leaves for before 50, on three robots, with a promise."""
    points = rng.integers(0, 40, (6, 2))
    metres = np.abs(points[:, None] - points[None]).sum(axis=2).astype(float)
    return Instance(
        name="morning",
        places=tuple(Place(id=f"P{k}") for k in range(6)),
        requests=tuple(random_request(rng, f"K{k}", kinds) for k in range(5)),
        robots=tuple(Robot(id=f"R{k}", capacity=2.0 + k % 2, end_s=END_S) for k in range(3)),
        travel_s=metres,
        distance_m=metres,
        reload_s=3.0,
        costs=Costs(per_robot=30.0),
        randomness=LAW,
        promise=PROMISE,
    )


def random_request(rng, id_, kinds):
    """A request from 150 on, some with a tolerance."""
    kind, (place, origin) = rng.choice(kinds), rng.permutation(5)[:2] + 1
    ready_s = float(rng.integers(150, 300))
    return Request(
        id=id_,
        kind=str(kind),
        place=f"P{place}",
        origin=f"P{origin}" if kind == Kind.TRANSFER else None,
        load=float(rng.integers(0, 3)),
        ready_s=ready_s,
        due_s=ready_s + 40.0 + float(rng.integers(0, 100)) + 90.0 * (kind == Kind.TRANSFER),
        service_s=float(rng.integers(0, 8)),
        priority=int(rng.integers(1, 4)),
        tolerance_s=float(rng.integers(0, 2) * 20),
    )


def waited(mean, var, earliest):
    """Mean and variance of ``max(A, earliest)`` of a normal arrival, written out."""
    if var == 0:
        return max(mean, earliest), 0.0
    deviation = math.sqrt(var)
    late = NORMAL.cdf((mean - earliest) / deviation)
    peak = deviation * NORMAL.pdf((mean - earliest) / deviation)
    first = (mean - earliest) * late + peak
    second = ((mean - earliest) ** 2 + var) * late + (mean - earliest) * peak
    return earliest + first, max(0.0, second - first**2)


def excesses_s(instance, plan):
    """Quantile of each arrival minus its last moment, by request and robot, from time 0."""
    found = {}
    for robot, trips in plan.trips_by_robot().items():
        mean, var, here = 0.0, 0.0, instance.places[0].id
        for trip in trips:
            for stop in (*trip.stops, None):
                request = instance.request_by_id[stop.request] if stop else None
                name, place, share, latest = robot, instance.places[0].id, RETURN_SHARE, END_S
                earliest, service = 0.0, instance.reload_s
                if request is not None:
                    is_transfer, is_pickup = request.kind is Kind.TRANSFER, stop.is_pickup
                    name = f"{request.id} pickup" if is_pickup else request.id
                    place = request.origin if is_pickup else request.place
                    share = SHARES[request.priority - 1]
                    latest = math.inf if is_pickup else request.latest_s
                    earliest = 0.0 if is_transfer and not is_pickup else request.ready_s
                    service = request.service_s
                leg = instance.place_index[here], instance.place_index[place]
                travel, here = float(instance.travel_s[leg]), place
                # The robot waits where it is, and leaves so as to come when it may start.
                mean, var = waited(mean, var, earliest - travel)
                mean, var = mean + travel, var + (CV * travel) ** 2
                found[name] = mean + NORMAL.inv_cdf(1 - share) * math.sqrt(var) - latest
                mean, var = waited(mean, var, earliest)
                mean, var = mean + service, var + (CV * service * (request is not None)) ** 2
    return found


def is_kept(instance, before, after):
    """Whether no quantile is too late that was not, and none that was is later now."""
    old = excesses_s(instance, before)
    new = excesses_s(instance, after)
    return all(excess <= max(0.0, old.get(name, 0.0)) + 1e-5 for name, excess in new.items())


def cheapest_by_trying(instance, plan, request, robots):
    """Least change of cost over all feasible places of one stop that keep all promises."""
    routes = {robot.id: [] for robot in instance.robots}
    for trip in plan.trips:
        routes[trip.robot].append([stop.request for stop in trip.stops])
    whole = replace(instance, requests=(*instance.requests, request))
    promised = {stop.request: stop.start_s for trip in plan.trips for stop in trip.stops}
    best = np.inf
    for robot in robots:
        route = routes[robot]
        longer = [[*route[:k], [request.id], *route[k:]] for k in range(len(route) + 1)]
        for k, trip in enumerate(route):
            trips = [[*trip[:j], request.id, *trip[j:]] for j in range(len(trip) + 1)]
            longer += [[*route[:k], each, *route[k + 1 :]] for each in trips]
        for each in longer:
            try:
                trial = schedule(whole, {**routes, robot: each}, plan.denied)
            except ValueError:
                continue
            starts = {stop.request: stop.start_s for trip in trial.trips for stop in trip.stops}
            is_later = any(
                starts[r] > max(start, instance.request_by_id[r].due_s) + 1e-6
                for r, start in promised.items()
            )
            if not is_later and check(whole, trial).is_feasible and is_kept(whole, plan, trial):
                best = min(best, check(whole, trial).cost.total)
    return best - check(instance, plan).cost.total


@pytest.mark.parametrize("seed", range(30))
def test_a_request_goes_to_the_cheapest_place_that_keeps_all_promises(seed):
    """D1 on robots in service, D2 on the others; all places tried with slow tools."""
    rng = np.random.default_rng(seed)
    kinds = (Kind.COLLECT, Kind.DELIVER)
    instance = random_morning(rng, kinds)
    plan = solve(replace(instance, promise=None), method="insertion", objective="cost")
    request = random_request(rng, "new", kinds)
    used = {trip.robot for trip in plan.trips}
    spares = {robot.id for robot in instance.robots} - used
    loss = instance.costs.per_denial[request.priority - 1]
    inserted = cheapest_by_trying(instance, plan, request, used)
    opened = cheapest_by_trying(instance, plan, request, spares)
    decision = Dispatcher(instance, plan, Policy(may_squeeze=False)).submit(request, 0.0)
    if inserted <= loss:
        assert (decision.rule, decision.cost_delta) == (Rule.INSERT, pytest.approx(inserted))
    elif opened <= loss or (request.priority == 1 and opened < np.inf):
        assert (decision.rule, decision.cost_delta) == (Rule.SPARE, pytest.approx(opened))
    else:
        assert decision.status in (Status.DENIED, Status.UNSERVABLE)


@pytest.mark.parametrize("seed", range(12))
def test_no_answer_breaks_a_promise(seed):
    """Transfers, lateness, all rules and re-optimisation: no quantile becomes too late."""
    rng = np.random.default_rng(seed)
    kinds = tuple(Kind)
    instance = random_morning(rng, kinds)
    plan = solve(replace(instance, promise=None), method="insertion", objective="cost")
    dispatcher = Dispatcher(instance, plan, Policy(may_eject=True, may_hold=True))
    for k in range(12):
        before = dispatcher.plan()
        decision = dispatcher.submit(random_request(rng, f"N{k}", kinds), float(k))
        assert is_kept(dispatcher.instance(), before, dispatcher.plan())
        if decision.status is Status.ACCEPTED and len(dispatcher.last.decisions) == 1:
            excess_s = excesses_s(dispatcher.instance(), dispatcher.plan())[decision.request]
            latest_s = dispatcher.instance().request_by_id[decision.request].latest_s
            by_s = max(excess_s + latest_s, decision.eta_s)
            assert decision.by_s == pytest.approx(by_s, abs=1e-3)
    before = dispatcher.plan()
    dispatcher.reoptimise(20.0, rng, max_iterations=200)
    assert is_kept(dispatcher.instance(), before, dispatcher.plan())


def one_robot(**fields):
    """A robot at the depot, and ward a 100 s and 100 m away."""
    metres = 100 * (np.ones((2, 2)) - np.eye(2))
    return Instance(
        name="two places",
        places=(Place(id="depot"), Place(id="a")),
        requests=(),
        robots=(Robot(id="1", capacity=9.0, end_s=1000.0),),
        travel_s=metres,
        distance_m=metres,
        **fields,
    )


def to_a(due_s, **fields):
    """A stat request to ward a, which no price turns down."""
    return Request(id=f"due {due_s}", place="a", due_s=due_s, priority=1, load=1.0, **fields)


def test_the_promised_time_is_the_quantile_of_the_start():
    """100 s and a deviation of 30 s: by 100 + 1.645 * 30 = 149.35 s with 95 %."""
    dispatcher = Dispatcher(one_robot(randomness=LAW, promise=PROMISE))
    denied = dispatcher.quote(to_a(149.0), 0.0)
    assert denied.status is Status.DENIED
    assert denied.remedy.window_s == pytest.approx(0.346, abs=1e-3)
    assert denied.remedy.more_robots is None  # another one would be late as often
    decision = dispatcher.quote(to_a(150.0), 0.0)
    assert (decision.eta_s, decision.by_s) == (100.0, pytest.approx(149.346, abs=1e-3))
    assert "as surely as promised by 149.3" in decision.explain()
    assert decision.document()["by_s"] == decision.by_s


def test_a_robot_under_way_has_the_variance_of_the_rest_of_its_leg():
    """Half of the leg is left, 30 * sqrt(0.5) s, cut off at now: a deviation of 21.04 s."""
    dispatcher = Dispatcher(one_robot(randomness=LAW, promise=PROMISE))
    dispatcher.submit(to_a(150.0), 0.0)
    decision = dispatcher.submit(to_a(160.0, kind="collect"), 50.0)
    assert decision.by_s == pytest.approx(100.07 + 1.645 * 21.04, abs=0.02)


@pytest.mark.parametrize("fields", [{}, {"randomness": LAW}, {"promise": PROMISE}])
def test_without_randomness_or_promise_means_decide(fields):
    """Answers are the same to the last bit, whatever the policy says of slacks."""
    answers = [
        Dispatcher(one_robot(**fields), None, policy).submit(to_a(101.0), 0.0).document()
        for policy in (MEAN, Policy())
    ]
    assert answers[0] == answers[1]
    assert answers[0]["status"] == "accepted"
    assert "by_s" not in answers[0]


def test_mean_slacks_are_a_choice():
    """With them an instance with a promise is dispatched as one without."""
    instance = one_robot(randomness=LAW, promise=PROMISE)
    assert Dispatcher(instance, None, MEAN).submit(to_a(101.0), 0.0).status is Status.ACCEPTED
    with pytest.raises(ValueError, match="policy: slacks: expected one of mean, quantile, got 'x'"):
        Policy(slacks="x")


def test_a_request_that_loses_its_place_is_not_dropped_for_a_risk():
    """A second robot comes at 120 in the mean, not by 150 as surely as others need it."""
    instance = one_robot(randomness=LAW, promise=PROMISE)
    robots = (*instance.robots, replace(instance.robots[0], id="2"))
    dispatcher = Dispatcher(replace(instance, robots=robots))
    dispatcher.submit(to_a(150.0), 0.0)
    decision = dispatcher.breakdown("1", 20.0)[0]
    assert (decision.status, decision.eta_s) == (Status.ACCEPTED, 120.0)
    assert decision.by_s is None
    assert dispatcher.quote(replace(to_a(169.0), load=9.0), 20.0).status is Status.DENIED


def test_a_day_by_quantiles_can_be_replayed(tmp_path):
    """The journal says by which slacks it was answered, re-optimisation included."""
    rng = np.random.default_rng(3)
    kinds = (Kind.COLLECT, Kind.DELIVER)
    instance = random_morning(rng, kinds)
    plan = solve(replace(instance, promise=None), method="insertion", objective="cost")
    for policy in (Policy(may_hold=True), replace(MEAN, may_hold=True)):
        path = tmp_path / f"{policy.slacks}.jsonl"
        with Journal(path) as journal:
            dispatcher = Dispatcher(instance, plan, policy, journal)
            for k in range(8):
                request = replace(random_request(rng, f"N{k}", kinds), release_s=1.0 + k)
                dispatcher.submit(request, 1.0 + k)
                dispatcher.reoptimise(1.0 + k, rng, max_iterations=50)
        again = Dispatcher.replay(path)
        assert again.outcome() == dispatcher.outcome()
        assert again.plan() == dispatcher.plan()


@pytest.mark.slow
def test_fewer_of_those_accepted_are_let_down_in_the_twin():
    """Three crowded hours: with quantiles less than the promised 5 %, with means more."""
    law = Randomness(travel=Spread(cv=0.5), service=Spread(cv=0.5), uses_matrix=False)
    hospital = generate_hospital(num_wards=10, num_robots=2, hours=3, dynamic=True, seed=1)
    plan = solve(known_part(hospital), method="insertion", objective="cost")
    hospital = replace(hospital, randomness=law, promise=Promise())
    found = dict.fromkeys(Slacks, amr_slacks.Count())
    for slacks in Slacks:
        for seed in range(8):
            day = simulate(
                hospital, plan=plan, policy=Policy(slacks=slacks), seed=seed,
                disturbances=Disturbances(travel_cv=0.5, service_cv=0.5),
            )  # fmt: skip
            found[slacks] += amr_slacks.counted(hospital, day)
    by_mean, by_quantile = found[Slacks.MEAN], found[Slacks.QUANTILE]
    assert by_quantile.let_down_pct < 5 < by_mean.let_down_pct
    assert by_quantile.denied_at_once_pct > by_mean.denied_at_once_pct


@pytest.mark.slow
def test_the_study_prints_rows_with_goals(monkeypatch):
    """One day in a small hospital goes through all arms."""
    monkeypatch.setattr(amr_slacks, "FLEETS", (2,))
    table = amr_slacks.live_all(1, 1, 10)
    rows = [Measurement(system="stochastic", **row) for row in amr_slacks.rows([table], 1)]
    assert len({row.name for row in rows}) == len(rows) == 3 * 4 * 3
    assert sum(row.goal is not None for row in rows) == 2 * 3
