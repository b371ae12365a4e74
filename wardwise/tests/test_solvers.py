"""The methods behind `solve`: one contract for all, oracles, limits and interruption."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from wardwise.fleet.check import check
from wardwise.fleet.plan import Plan
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.search import reference
from wardwise.fleet.search.packed import Objective, Packed, pack
from wardwise.fleet.solvers import METHODS, Progress, solve
from wardwise.io import read_instance

OBJECTIVES = [str(objective) for objective in Objective]
# Its kernels take most of a minute to compile.
TABU = pytest.param("tabu", marks=pytest.mark.slow)
EVERY_METHOD = [TABU if method == "tabu" else method for method in METHODS]


def hospital(
    seed: int, *, num_requests: int, num_robots: int = 2, is_soft: bool = True
) -> Instance:
    """Deliveries and collections on a square, several trips, some of them urgent."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 50, (num_requests + 1, 2))
    distance = np.hypot(*(xy[:, None] - xy[None, :]).transpose(2, 0, 1))
    ready = rng.uniform(0, 150, num_requests)
    return Instance(
        name="hospital",
        places=tuple(Place(id=str(i)) for i in range(num_requests + 1)),
        requests=tuple(
            Request(
                id=f"q{i}",
                place=str(i + 1),
                kind=(Kind.COLLECT, Kind.DELIVER)[i % 2],
                load=float(rng.integers(1, 3)),
                ready_s=ready[i],
                due_s=ready[i] + 100,
                service_s=5.0,
                priority=1 + i % 3,
                tolerance_s=15.0 * (i % 3) * is_soft,
            )
            for i in range(num_requests)
        ),
        robots=tuple(Robot(id=f"r{k}", capacity=3.0, end_s=450.0) for k in range(num_robots)),
        travel_s=distance,
        distance_m=distance,
        reload_s=10.0,
        costs=Costs(per_robot=60.0),
    )


def optimum(packed: Packed) -> tuple[float, float]:
    """Best score over every assignment, order and cut into trips (few requests only)."""
    nodes = range(1, len(packed.service))
    num_robots = len(packed.capacity)
    cheapest: list[dict[frozenset[int], float]] = []
    for robot in range(num_robots):
        prices = {frozenset[int](): 0.0}
        for size in range(1, len(nodes) + 1):
            for order in permutations(nodes, size):
                for cuts in product((False, True), repeat=size - 1):
                    chain = [0, order[0]]
                    for node, is_cut in zip(order[1:], cuts, strict=True):
                        chain += [0, node] if is_cut else [node]
                    price = reference.drive(packed, robot, [*chain, 0])
                    if price is not None and price < prices.get(frozenset(order), np.inf):
                        prices[frozenset(order)] = price
        cheapest.append(prices)
    best = (np.inf, np.inf)
    for choice in product(range(-1, num_robots), repeat=len(nodes)):
        sets = [
            frozenset(n for n, c in zip(nodes, choice, strict=True) if c == k)
            for k in range(num_robots)
        ]
        if all(s in prices for s, prices in zip(sets, cheapest, strict=True)):
            price = sum(prices[s] for s, prices in zip(sets, cheapest, strict=True))
            loss = sum(packed.denial_price[n] for n, c in zip(nodes, choice, strict=True) if c < 0)
            best = min(best, (0.0, price + loss) if packed.is_money else (loss, price))
    return best


def score(instance: Instance, plan: Plan, objective: str) -> tuple[float, ...]:
    """What the objective looks at, from the checker's figures."""
    cost = check(instance, plan).cost
    if objective == "cost":
        return (cost.total,)
    driving = cost.distance_m + cost.lateness_cost
    return (cost.denial_cost, cost.num_robots if objective == "hierarchical" else 0, driving)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("method", EVERY_METHOD)
def test_every_method_returns_a_feasible_plan(method: str, objective: str) -> None:
    """Scarce robots, both kinds, several trips, soft windows: the checker finds no fault."""
    for seed, num_requests in ((1, 12), (2, 25)):
        instance = hospital(seed, num_requests=num_requests)
        plan = solve(instance, method=method, objective=objective, max_iterations=60)
        assert check(instance, plan).violations == ()


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_same_seed_gives_the_same_plan(method: str) -> None:
    """With a limit on iterations the plan is repeated bit for bit."""
    instance = hospital(3, num_requests=20)
    first, second = (
        solve(instance, method=method, max_iterations=80, time_limit=60, seed=5) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("method", ["ruin", TABU, "pyvrp"])
def test_tiny_instances_are_solved_to_the_optimum(method: str, objective: str) -> None:
    """Five requests, one or two robots: the optimum comes from plain enumeration."""
    for seed, num_robots in ((0, 1), (1, 2), (2, 2)):
        # PyVRP knows no soft windows.
        instance = hospital(seed, num_requests=5, num_robots=num_robots, is_soft=method != "pyvrp")
        packed = pack(instance, Objective(objective))
        loss, price = optimum(packed)
        plan = solve(instance, method=method, objective=objective, max_iterations=300)
        cost = check(instance, plan).cost
        node = {request.id: index for index, request in enumerate(instance.requests, start=1)}
        got_loss = sum(packed.denial_price[node[request]] for request in plan.denied)
        got = cost.distance_m * packed.metre_price + cost.lateness_cost
        got += cost.num_robots * packed.robot_price
        if packed.is_money:
            got, got_loss = got + cost.denial_cost, 0.0
        # PyVRP counts in thousandths, rounded up leg by leg.
        assert (got_loss, got) == pytest.approx((loss, price), abs=0.02)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.slow
def test_more_work_is_never_worse(objective: str) -> None:
    """The search starts from the best construction and PyVRP falls back to it."""
    instance = hospital(4, num_requests=25, num_robots=3)
    start = solve(instance, method="insertion", objective=objective)
    for method in ("ruin", "tabu", "pyvrp"):
        plan = solve(instance, method=method, objective=objective, max_iterations=100)
        assert score(instance, plan, objective) <= score(instance, start, objective)


def test_hierarchical_saves_robots_and_distance_saves_metres() -> None:
    """Fewer robots with more metres, and the other way round."""
    instance = hospital(6, num_requests=25, num_robots=6)
    costs = {
        objective: check(
            instance, solve(instance, method="ruin", objective=objective, max_iterations=5000)
        ).cost
        for objective in ("hierarchical", "distance")
    }
    assert costs["hierarchical"].num_robots < costs["distance"].num_robots
    assert costs["hierarchical"].distance_m > costs["distance"].distance_m


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_ctrl_c_returns_the_best_plan_so_far(method: str) -> None:
    """The interrupt comes with the second improvement; that plan is returned."""
    instance = hospital(7, num_requests=25, num_robots=6)
    seen: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 2:
            raise KeyboardInterrupt

    plan = solve(instance, method=method, objective="distance", on_progress=interrupt)
    report = check(instance, plan)
    assert report.is_feasible
    assert report.cost.distance_m == pytest.approx(seen[1].distance_m, abs=1e-9)


def test_ctrl_c_before_any_plan_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to return yet."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(METHODS, "interrupted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        solve(hospital(1, num_requests=3), method="interrupted")


def test_progress_reports_falling_costs() -> None:
    """Each report improves on the one before; the last one is the plan that is returned."""
    instance = hospital(8, num_requests=25)
    seen: list[Progress] = []
    plan = solve(
        instance, method="ruin", objective="cost", max_iterations=200, on_progress=seen.append
    )
    costs = [progress.cost for progress in seen]
    assert len(costs) > 1
    assert costs == sorted(costs, reverse=True)
    assert check(instance, plan).cost.total == costs[-1]
    assert [p.iteration for p in seen] == sorted(p.iteration for p in seen)


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_no_time_and_no_requests_still_give_a_plan(method: str) -> None:
    """A limit of 0 s stops after the first construction; an empty day is an empty plan."""
    instance = hospital(9, num_requests=25)
    assert check(instance, solve(instance, method=method, time_limit=0.0)).is_feasible
    idle = replace(instance, requests=())
    assert solve(idle, method=method, max_iterations=3) == Plan(instance="hospital", trips=())


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_what_cannot_be_served_is_denied(method: str) -> None:
    """A request that becomes known at 151 and was due at 150 has no moment left."""
    instance = hospital(1, num_requests=6, is_soft=False)
    too_late = replace(
        instance.requests[0], id="too late", ready_s=0.0, due_s=150.0, release_s=151.0
    )
    lone = replace(instance, requests=(*instance.requests, too_late))
    plan = solve(lone, method=method, max_iterations=30)
    assert plan.denied == ("too late",)
    assert check(lone, plan).is_feasible


def test_legs_without_a_way_are_not_driven() -> None:
    """Between two wards there is no way; each takes a trip of its own."""
    instance = hospital(1, num_requests=2, num_robots=1)
    travel, distance = instance.travel_s.copy(), instance.distance_m.copy()
    for a, b in ((1, 2), (2, 1)):
        travel[a, b] = distance[a, b] = np.inf
    split = replace(instance, travel_s=travel, distance_m=distance)
    for method in METHODS:
        plan = solve(split, method=method, max_iterations=20)
        assert len(plan.trips) == 2
        assert check(split, plan).is_feasible


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "method: expected one of ruin, .*, pyvrp, vns, got 'magic'"),
        ({"objective": "time"}, "objective: expected one of hierarchical, distance, cost"),
        ({"time_limit": -1.0}, "time_limit: expected seconds of at least 0, got -1.0"),
        ({"time_limit": float("nan")}, "time_limit: expected seconds of at least 0, got nan"),
        ({"max_iterations": 0}, "max_iterations: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    """One line with the argument and what it accepts."""
    with pytest.raises(ValueError, match=message):
        solve(hospital(1, num_requests=2), **arguments)  # type: ignore[arg-type]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the message tells what to install."""
    monkeypatch.setitem(sys.modules, "pyvrp", None)
    with pytest.raises(ValueError, match=r"pip install 'wardwise\[pyvrp\]'"):
        solve(hospital(1, num_requests=2), method="pyvrp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "num_robots", "distance_m"),
    [
        ("C101", "pyvrp", 10, 828.94),
        ("R101", "ruin", 19, 1650.80),
        ("C101", "tabu", 10, 828.94),
    ],
)
def test_solomon_within_one_per_cent_of_the_best_known(
    name: str, method: str, num_robots: int, distance_m: float
) -> None:
    """Fewest robots first; the best known plans are proven or long unbeaten."""
    if "WARDWISE_DATA" not in os.environ:
        pytest.skip("needs WARDWISE_DATA")
    instance = read_instance(Path(os.environ["WARDWISE_DATA"]) / "solomon" / f"{name}.txt")
    iterations = {"pyvrp": 3000, "tabu": 12_000, "ruin": 300_000}[method]
    plan = solve(instance, method=method, max_iterations=iterations, time_limit=60.0)
    report = check(instance, plan)
    assert report.is_feasible
    assert report.cost.num_robots == num_robots
    assert report.cost.distance_m < 1.01 * distance_m
