"""Exchange of tails: bookkeeping, and the best of all exchanges on tiny plans."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.check import check
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.search.construct import cheapest_first
from wardwise.fleet.search.fleet import Fleet
from wardwise.fleet.search.packed import Objective, Packed, is_request, pack
from wardwise.fleet.search.ruin import make_work
from wardwise.fleet.search.tails import exchange_tails
from wardwise.fleet.solvers import solve

if TYPE_CHECKING:
    from wardwise.fleet.search.ruin_kernels import Work


def day(
    seed: int, *, num_requests: int = 12, is_metric: bool = True, num_sizes: int = 2
) -> Instance:
    """Requests both ways, one trip a robot, robots of one or two sizes, some windows soft."""
    rng = np.random.default_rng(seed)
    n = num_requests + 1
    xy = rng.uniform(0, 40, (n, 2))
    travel = np.hypot(*(xy[:, None] - xy[None, :]).transpose(2, 0, 1))
    if not is_metric:
        travel = travel * rng.uniform(0.6, 1.6, (n, n))
    ready = rng.uniform(0, 200, num_requests)
    return Instance(
        name="day",
        places=tuple(Place(id=str(i)) for i in range(n)),
        requests=tuple(
            Request(
                id=f"q{i}",
                place=str(i + 1),
                kind=(Kind.COLLECT, Kind.DELIVER)[i % 2],
                load=float(rng.integers(1, 3)),
                ready_s=ready[i],
                due_s=ready[i] + 150,
                service_s=4.0,
                tolerance_s=20.0 * (i % 3 == 0) * (seed % 2),
            )
            for i in range(num_requests)
        ),
        robots=tuple(
            Robot(id=str(k), capacity=5.0 + k % num_sizes, end_s=600.0, max_trips=1)
            for k in range(6)
        ),
        travel_s=travel,
        distance_m=travel,
    )


def begun(instance: Instance, objective: Objective, seed: int) -> tuple[Packed, Fleet, Work]:
    """A first plan and what an exchange scribbles on."""
    packed = pack(instance, objective)
    fleet = cheapest_first(packed)
    requests = np.flatnonzero(is_request(packed))
    return packed, fleet, make_work(packed, fleet.chains, np.random.default_rng(seed), requests)


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(list(Objective)))
@settings(max_examples=40, deadline=None)
def test_exchanges_keep_plans_whole(seed: int, is_metric: bool, objective: Objective) -> None:
    """Every request stays served once, in time, and the change told is that of the price."""
    instance = day(seed, is_metric=is_metric)
    packed, fleet, work = begun(instance, objective, seed)
    served = sorted(n for robot in fleet.used() for n in fleet.stops(robot))
    for temperature in (50.0, 1.0):
        before = fleet.chains.price.sum()
        change = exchange_tails(packed, fleet.chains, work, temperature, 300)
        assert fleet.chains.price.sum() - before == pytest.approx(change, abs=1e-6)
    assert sorted(n for robot in fleet.used() for n in fleet.stops(robot)) == served
    fresh = Fleet.from_trips(packed, fleet.trips())
    assert fresh.is_feasible()
    assert fresh.chains.price.sum() == pytest.approx(fleet.chains.price.sum(), abs=1e-6)
    assert not work.is_touched.any()
    assert work.tally[0] == 0


def exchanged(fleet: Fleet) -> set[frozenset[tuple[int, ...]]]:
    """Every set of chains that one exchange of tails makes."""
    chains = [tuple(fleet.stops(robot)) for robot in range(len(fleet.chains.length))]
    found = set()
    for a in range(len(chains)):
        for b in range(len(chains)):
            for i in range(len(chains[a])):
                for j in range(len(chains[b]) + 1):
                    if a == b:
                        continue
                    others = [c for k, c in enumerate(chains) if k not in (a, b)]
                    ends = (chains[a][:i] + chains[b][j:], chains[b][:j] + chains[a][i:])
                    found.add(frozenset(c for c in (*others, *ends) if c))
    return found


def test_cold_exchanges_end_where_none_is_better() -> None:
    """With time enough no exchange of tails of the last plan is shorter and feasible."""
    seen = 0
    for seed in range(0, 20, 2):
        packed, fleet, work = begun(
            day(seed, num_requests=7, num_sizes=1), Objective.DISTANCE, seed
        )
        first = fleet.chains.price.sum()
        exchange_tails(packed, fleet.chains, work, 1e-9, 40_000)
        last = fleet.chains.price.sum()
        seen += last < first - 1e-6
        for chains in exchanged(fleet):
            legs = [pairwise((0, *chain, 0)) for chain in chains]
            length = sum(packed.distance[i, j] for chain in legs for i, j in chain)
            if length >= last - 1e-6:
                continue
            rows = {robot: np.array([0, *chain, 0]) for robot, chain in enumerate(chains)}
            if len(rows) <= len(packed.capacity):
                assert not Fleet.from_chains(packed, rows).is_feasible()
    assert seen > 0


@pytest.mark.parametrize("num_requests", [1, 2])
def test_one_request_has_nowhere_to_go(num_requests: int) -> None:
    """A plan without neighbours stays as good as it was."""
    packed, fleet, work = begun(day(4, num_requests=num_requests), Objective.DISTANCE, 4)
    before = fleet.chains.price.sum()
    exchange_tails(packed, fleet.chains, work, 1e-9, 5_000)
    assert fleet.chains.price.sum() <= before + 1e-6
    assert len(fleet.unserved()) == 0


def test_closed_robots_stay_at_home() -> None:
    """A tail is not given to an idle robot that must stay there."""
    packed, fleet, work = begun(day(2), Objective.DISTANCE, 2)
    idle = fleet.chains.length == 2
    assert idle.any()
    work.is_closed[:] = idle
    exchange_tails(packed, fleet.chains, work, 100.0, 2_000)
    assert (fleet.chains.length[idle] == 2).all()
    work.is_closed[:] = False
    exchange_tails(packed, fleet.chains, work, 100.0, 2_000)
    assert (fleet.chains.length[idle] > 2).any()


def test_few_long_chains_become_many_where_that_is_shorter() -> None:
    """Wards in two directions: one robot each way is shorter than one for all, and found."""
    places = [0.0, 10.0, 11.0, 12.0, -10.0, -11.0, -12.0]
    travel = np.abs(np.subtract.outer(places, places)) + 0.0
    travel[1:4, 4:] = travel[4:, 1:4] = 200.0
    instance = Instance(
        name="two ways",
        places=tuple(Place(id=str(i)) for i in range(7)),
        requests=tuple(
            Request(id=str(i), place=str(i), kind=Kind.DELIVER, load=1.0, ready_s=0.0, due_s=900.0)
            for i in range(1, 7)
        ),
        robots=tuple(Robot(id=str(k), capacity=9.0, end_s=1000.0, max_trips=1) for k in range(2)),
        travel_s=travel,
        distance_m=travel,
    )
    packed, fleet, work = begun(instance, Objective.DISTANCE, 0)
    fleet.set_chain(0, np.array([0, 1, 2, 3, 4, 5, 6, 0]))
    fleet.set_chain(1, np.array([0, 0]))
    exchange_tails(packed, fleet.chains, work, 1e-9, 5_000)
    assert fleet.chains.price.sum() == 48.0
    plan = solve(instance, objective="distance", max_iterations=50, seed=0)
    assert check(instance, plan).cost.distance_m == 48.0
