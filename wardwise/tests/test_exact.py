"""Proven optima of small instances, against published ones and against trial of all plans."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from wardwise.fleet.bounds import least_fleet
from wardwise.fleet.charging import Charged, charge_trips
from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.exact import run_exact, solve_exact
from wardwise.fleet.exact.partition import Ways, fewest_then_shortest
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.randomness import Promise
from wardwise.io.evrptw import read_evrptw

# Full recharge: known since Schneider, Stenger and Goeke 2014, Transportation Science 48(4).
OPTIMA = {
    "c101C5": (2, 257.75), "c206C5": (1, 242.56), "r104C5": (2, 136.69), "rc105C5": (2, 241.30),
    "c101C10": (3, 393.76), "r102C10": (3, 249.19), "rc205C10": (2, 325.98),
}  # fmt: skip
pytest.importorskip("highspy")


def file_of(name):
    folder = os.environ.get("WARDWISE_DATA")
    if folder is None:
        pytest.skip("needs WARDWISE_DATA")
    return Path(folder) / "evrptw" / name.rpartition("C")[2] / f"{name}.txt"


@pytest.mark.parametrize("name", OPTIMA)
def test_full_recharge_gives_the_published_optimum(name):
    """Robots and distance are those of the literature, and bounds do not exceed them."""
    instance = read_evrptw(file_of(name), recharge=Recharge.FULL)
    solved = solve_exact(instance)
    cost = check(instance, solved.plan).cost
    assert solved.is_proven
    assert (cost.num_robots, cost.distance_m) == (
        OPTIMA[name][0],
        pytest.approx(OPTIMA[name][1], abs=0.005),
    )
    assert least_fleet(instance).robots <= cost.num_robots


@pytest.mark.parametrize("name", OPTIMA)
def test_partial_recharge_is_never_worse(name):
    """Every plan with full charges is one with partial charges, too."""
    instance = read_evrptw(file_of(name))
    report = check(instance, run_exact(instance))
    assert report.is_feasible
    assert (report.cost.num_robots, report.cost.distance_m) <= (
        OPTIMA[name][0],
        OPTIMA[name][1] + 0.005,
    )


def small_day(seed, *, num_requests=3, **robot):
    """Requests of all priorities and both ways in a square, two robots, a charger at the depot."""
    rng = np.random.default_rng(seed)
    xy = np.vstack([[50, 50], rng.uniform(0, 100, (num_requests + 1, 2))])
    way = np.hypot(*(xy[:, None] - xy[None, :]).transpose(2, 0, 1))
    kinds = [Kind.COLLECT, Kind.DELIVER]
    requests = []
    for k in range(num_requests):
        kind = kinds[int(rng.integers(2))]
        ready = float(rng.uniform(0, 300))
        requests.append(
            Request(
                id=str(k), place=f"p{k + 1}", kind=kind, load=float(rng.integers(1, 4)),
                ready_s=ready, due_s=ready + 250, service_s=10.0,
                available_s=float(rng.uniform(0, 100)) if kind is Kind.DELIVER else 0.0,
            )
        )  # fmt: skip
    curve = ChargeCurve(points=((0, 0), (120, 120), (150, 240)))
    battery = Battery(capacity_wh=150.0, wh_per_m=0.9, base_w=100.0)
    return Instance(
        name=f"small {seed}",
        places=tuple(Place(id=f"p{k}", x_m=float(x), y_m=float(y)) for k, (x, y) in enumerate(xy)),
        requests=tuple(requests),
        robots=tuple(
            Robot(id=f"r{k}", capacity=4.0, end_s=900.0, battery=battery, **robot) for k in range(2)
        ),
        stations=(
            Station(id="home", place="p0", charge=curve, num_slots=None),
            Station(id="far", place=f"p{num_requests + 1}", charge=curve, num_slots=None),
        ),
        travel_s=way,
        distance_m=way,
        reload_s=20.0,
    )


def in_trips(order):
    """All ways to cut an order into trips."""
    for cuts in range(1 << max(0, len(order) - 1)):
        trips = [[order[0]]]
        for k, id_ in enumerate(order[1:]):
            if cuts >> k & 1:
                trips.append([])
            trips[-1].append(id_)
        yield trips


def best_by_trial(instance):
    """Fewest robots and least distance over all orders, cuts into trips, and two robots."""
    ids = [request.id for request in instance.requests]
    most = instance.robots[0].max_trips
    metres = {}
    for bits in range(1, 1 << len(ids)):
        chosen = [id_ for k, id_ in enumerate(ids) if bits >> k & 1]
        found = [
            charge_trips(instance, "r0", trips)
            for order in permutations(chosen)
            for trips in in_trips(order)
            if most is None or len(trips) <= most
        ]
        metres[bits] = min(
            (answer.distance_m for answer in found if isinstance(answer, Charged)), default=np.inf
        )
    whole = (1 << len(ids)) - 1
    if np.isfinite(metres[whole]):
        return 1, metres[whole]
    best = min((metres[b] + metres[whole ^ b] for b in range(1, whole)), default=np.inf)
    return (2, best) if np.isfinite(best) else None


@pytest.mark.parametrize("max_trips", [1, 2, None])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("recharge", Recharge)
def test_several_trips_equal_trial_of_all_plans(seed, max_trips, recharge):
    """With reloads, charges at the depot and goods that come later, nothing is better."""
    instance = replace(small_day(seed, max_trips=max_trips), recharge=recharge)
    best = best_by_trial(instance)
    if best is None:
        with pytest.raises(ValueError, match=r"robots: expected enough|cannot be served"):
            run_exact(instance)
        return
    report = check(instance, run_exact(instance))
    assert report.is_feasible, report.violations
    assert (report.cost.num_robots, report.cost.distance_m) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_legs_left_out_change_nothing(seed):
    """Arc elimination never adds labels, and the distance is the same."""
    instance = small_day(seed, num_requests=5, max_trips=1)
    instance = replace(instance, robots=tuple(
        replace(instance.robots[0], id=f"r{k}") for k in range(5)
    ))  # fmt: skip
    fewer, all_ = solve_exact(instance), solve_exact(instance, eliminates=False)
    assert fewer.num_labels <= all_.num_labels
    assert check(instance, fewer.plan).cost.distance_m == pytest.approx(
        check(instance, all_.plan).cost.distance_m
    )


def test_robots_of_two_kinds_are_counted_apart():
    """One large robot and one small: only the large one carries 5, so the small one helps."""
    instance = small_day(0, num_requests=2)
    requests = tuple(
        replace(r, load=load, kind=Kind.COLLECT, available_s=0.0, ready_s=0.0, due_s=70.0)
        for r, load in zip(instance.requests, (5.0, 1.0), strict=True)
    )
    large, small = instance.robots
    instance = replace(
        instance,
        requests=requests,
        robots=(replace(large, capacity=5.0), replace(small, capacity=1.0)),
    )
    plan = run_exact(instance)
    carried = {trip.robot: [stop.request for stop in trip.stops] for trip in plan.trips}
    assert carried.get("r0", [])[:1] == ["0"] or "0" in carried["r0"]
    assert check(instance, plan).is_feasible


def test_what_cannot_be_served_is_named():
    """A robot that starts with 5 Wh and finds no charger gets nowhere."""
    instance = small_day(1, num_requests=2)
    empty = replace(instance.robots[0].battery, start_wh=5.0)
    robots = tuple(replace(robot, battery=empty) for robot in instance.robots)
    with pytest.raises(ValueError, match=r"requests '0', '1': cannot be served; .*'0': battery"):
        run_exact(replace(instance, robots=robots, stations=()))


def test_too_few_robots_are_named():
    """Every request can be served, but not all by one robot."""
    instance = small_day(1, num_requests=3)
    at_once = tuple(
        replace(r, kind=Kind.COLLECT, available_s=0.0, ready_s=100.0, due_s=101.0)
        for r in instance.requests
    )
    one = replace(instance, requests=at_once, robots=instance.robots[:1])
    with pytest.raises(ValueError, match=r"robots: expected enough .* all 3 requests .* got 1"):
        run_exact(one)


def test_what_the_method_does_not_know_is_refused():
    """Too many requests, transfers and promises, each with what was expected."""
    instance = small_day(0)
    many = replace(
        instance, requests=tuple(replace(instance.requests[0], id=str(k)) for k in range(16))
    )
    with pytest.raises(ValueError, match="expected 1 to 15 requests, got 16"):
        run_exact(many)
    with pytest.raises(ValueError, match="expected no promise"):
        run_exact(replace(instance, promise=Promise()))
    transfer = Request(id="t", origin="p1", place="p2", kind=Kind.TRANSFER, due_s=900)
    with pytest.raises(ValueError, match="expected no transfers, got request 't'"):
        run_exact(replace(instance, requests=(transfer,)))


def test_partition_prefers_fewer_ways_to_shorter_ones():
    """{a, b} at 100 beats {a} + {b} at 2; of two pairs the shorter one is taken."""
    kind = Ways(np.array([1, 2, 3, 3]), np.array([1.0, 1.0, 100.0, 90.0]), 2)
    assert fewest_then_shortest([kind], 2, 10.0) == ([(0, 3)], True)
    assert fewest_then_shortest([Ways(np.array([1]), np.array([1.0]), 2)], 2, 10.0) is None
    few = [Ways(np.array([1]), np.array([1.0]), 1), Ways(np.array([1, 2]), np.array([5.0, 5.0]), 1)]
    assert sorted(fewest_then_shortest(few, 2, 10.0).ways) == [(0, 0), (1, 1)]
