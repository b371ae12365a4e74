"""Ruin and recreate: bookkeeping, both parts of the search, and transfers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.check import check
from wardwise.fleet.dispatch.improve import improve_open
from wardwise.fleet.dispatch.reoptimise import Freedom
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.search.construct import cheapest_first
from wardwise.fleet.search.fleet import Fleet
from wardwise.fleet.search.insertion import plan_weights
from wardwise.fleet.search.neighbours import closeness, nearest, proximity
from wardwise.fleet.search.packed import Objective, Packed, is_request, pack
from wardwise.fleet.search.ruin import make_work
from wardwise.fleet.search.ruin_kernels import Strings, Work, anneal
from wardwise.fleet.search.undo import keep
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital
from wardwise.io import read_instance

PENALTY = 500.0


def day(seed: int, *, num_requests: int = 14, is_metric: bool = True) -> Instance:
    """All three kinds, several trips, some windows soft; travel with or without detours."""
    rng = np.random.default_rng(seed)
    n = num_requests + 1
    xy = rng.uniform(0, 40, (n, 2))
    travel = np.hypot(*(xy[:, None] - xy[None, :]).transpose(2, 0, 1))
    if not is_metric:
        travel = travel * rng.uniform(0.6, 1.6, (n, n))
    kinds = [tuple(Kind)[int(k)] for k in rng.integers(3, size=num_requests)]
    ready = rng.uniform(0, 200, num_requests)
    return Instance(
        name="day",
        places=tuple(Place(id=str(i)) for i in range(n)),
        requests=tuple(
            Request(
                id=f"q{i}",
                place=str(i + 1),
                kind=kinds[i],
                origin=str((i + 3) % n) if kinds[i] is Kind.TRANSFER else None,
                load=float(rng.integers(1, 3)),
                ready_s=ready[i],
                due_s=ready[i] + 150,
                service_s=4.0,
                tolerance_s=20.0 * (i % 2),
                priority=1 + i % 3,
            )
            for i in range(num_requests)
        ),
        robots=tuple(Robot(id=str(k), capacity=3.0, end_s=600.0) for k in range(4)),
        travel_s=travel,
        distance_m=travel,
        reload_s=8.0,
    )


def annealed(packed: Packed, seed: int, *, iterations: int) -> tuple[Fleet, Work, np.ndarray]:
    """A fleet after some iterations at a warm temperature, its scratch arrays and state."""
    fleet = cheapest_first(packed)
    requests = np.flatnonzero(is_request(packed))
    work = make_work(packed, fleet.chains, np.random.default_rng(seed), requests)
    work.penalty[:] = PENALTY
    keep(fleet.chains, work)
    unserved = len(fleet.unserved())
    cost = fleet.chains.price.sum() + PENALTY * unserved
    state = np.array([cost, cost, unserved, unserved])
    anneal(
        packed, fleet.chains, plan_weights(packed), work, Strings(), state, 20.0, False, iterations
    )
    return fleet, work, state


def test_emptying_says_after_how_many_iterations_it_ended() -> None:
    """The pace of the search comes from iterations that ran, not from those asked for."""
    packed = pack(generate_hospital(num_wards=12, hours=2, seed=1), Objective.HIERARCHICAL)
    fleet = cheapest_first(packed)
    assert not fleet.unserved()
    requests = np.flatnonzero(is_request(packed))
    work = make_work(packed, fleet.chains, np.random.default_rng(1), requests)
    fleet.release(requests[:1])
    state = np.array([0.0, 0.0, 1.0, 0.0])
    found, done = anneal(
        packed, fleet.chains, plan_weights(packed), work, Strings(), state, 1.0, True, 10**6
    )
    assert (found, state[2]) == (1, 0)
    assert not fleet.unserved()
    assert 1 <= done < 1000


@pytest.mark.parametrize("max_iterations", [1, 2, 5, 60])
def test_however_few_iterations_end_with_a_plan(max_iterations: int) -> None:
    """Emptying robots may use up all that is granted."""
    hospital = generate_hospital(num_wards=12, hours=2, seed=1)
    plan = solve(hospital, objective="hierarchical", max_iterations=max_iterations, seed=1)
    assert check(hospital, plan).is_feasible


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=25)
def test_running_cost_and_chains_equal_those_built_afresh(seed: int, is_metric: bool) -> None:
    """After kept and undone iterations nothing has drifted, whatever the travel times."""
    packed = pack(day(seed, is_metric=is_metric), Objective.COST)
    fleet, work, state = annealed(packed, seed, iterations=200)
    fresh = Fleet.from_trips(packed, fleet.trips())
    assert fresh.is_feasible()
    assert sorted([*(n for r in range(4) for n in fleet.stops(r)), *fleet.unserved()]) == list(
        range(1, 15)
    )
    assert state[0] == pytest.approx(
        fresh.chains.price.sum() + PENALTY * len(fresh.unserved()), abs=1e-6
    )
    best = Fleet.from_chains(
        packed, {r: work.best_node[r, :n] for r, n in enumerate(work.best_length)}
    )
    assert best.is_feasible()
    assert state[1] == pytest.approx(
        best.chains.price.sum() + PENALTY * len(best.unserved()), abs=1e-6
    )


@pytest.mark.parametrize("objective", list(Objective))
def test_plans_with_transfers_keep_every_rule(objective: Objective) -> None:
    """The checker accepts what the search makes of collections, deliveries and transfers."""
    for seed in range(4):
        instance = day(seed)
        plan = solve(instance, objective=objective, max_iterations=2000, time_limit=60, seed=seed)
        assert check(instance, plan).violations == ()


def test_a_hospital_with_transfers_gets_cheaper() -> None:
    """2,000 iterations beat the best construction of a generated morning by far."""
    instance = generate_hospital(num_wards=12, hours=3, transfers=True, seed=2)
    cost = {
        method: check(
            instance,
            solve(instance, method=method, objective="cost", max_iterations=2000, time_limit=60),
        ).cost.total
        for method in ("insertion", "ruin")
    }
    assert cost["ruin"] < 0.95 * cost["insertion"]


def test_open_part_is_improved_and_the_rest_is_left_alone() -> None:
    """Committed positions, idle robots and the set of served requests stay; the price falls."""
    packed = pack(day(3, num_requests=20), Objective.COST)
    fleet = cheapest_first(packed)
    chains = fleet.chains
    chains.first[:] = np.minimum(1, chains.length - 2)
    before = [chains.node[r, : chains.first[r] + 1].copy() for r in range(4)]
    served, idle, price = chains.owner >= 0, chains.length == 2, chains.price.sum()
    nobody = np.empty(0, dtype=np.int64)
    freedom = Freedom(pending=nobody, spares=nobody)
    improve_open(packed, chains, np.random.default_rng(1), 3000, freedom)
    assert all(np.array_equal(b, chains.node[r, : len(b)]) for r, b in enumerate(before))
    assert np.array_equal(chains.owner >= 0, served)
    assert (chains.length[idle] == 2).all()
    assert chains.price.sum() < price
    assert fleet.is_feasible()


def test_near_requests_come_first() -> None:
    """On a line with the depot at 0: of 10, 20 and 50 the one at 20 is nearest to both others."""
    x = np.array([0.0, 10.0, 20.0, 50.0])
    metres = np.abs(x[:, None] - x[None, :])
    instance = Instance(
        name="line",
        places=tuple(Place(id=str(i)) for i in range(4)),
        requests=tuple(Request(id=str(i), place=str(i), due_s=500.0) for i in (1, 2, 3)),
        robots=(Robot(id="1", capacity=1.0, end_s=500.0),),
        travel_s=metres,
        distance_m=metres,
    )
    packed = pack(instance, Objective.DISTANCE)
    nodes = np.array([1, 2, 3])
    near = nearest(closeness(packed, nodes), nodes, 4, 5)
    assert near[1:].tolist() == [[2, 3], [1, 3], [2, 1]]
    # All windows are open all day, so nothing but distance counts.
    assert np.array_equal(proximity(packed, nodes), closeness(packed, nodes))


@pytest.mark.slow
def test_the_fewest_known_robots_are_reached() -> None:
    """Emptying robots by absence counters finds the fleet of the best known plan of RC106."""
    if "WARDWISE_DATA" not in os.environ:
        pytest.skip("needs WARDWISE_DATA")
    instance = read_instance(Path(os.environ["WARDWISE_DATA"]) / "solomon" / "RC106.txt")
    plan = solve(instance, max_iterations=1_200_000, time_limit=200.0, seed=1)
    report = check(instance, plan)
    assert report.is_feasible
    assert report.cost.num_robots == 11
