"""The compiled insertion and its chains against driving through everything."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search import reference
from wardwise.fleet.search.fleet import Fleet
from wardwise.fleet.search.insertion import best_in_chain, best_insertion, plan_weights
from wardwise.fleet.search.packed import Objective, Packed, pack


def random_instance(rng: np.random.Generator, *, num_requests: int = 8) -> Instance:
    """Real-valued travel without triangle inequality, whole prices and distances.

    Distances are drawn apart from travel, so that any feasible place may be the
    cheapest and a single wrong verdict shows.
    """
    n = num_requests + 1
    travel = rng.uniform(1, 30, (n, n))
    ready = rng.uniform(0, 150, num_requests)
    kinds = [tuple(Kind)[int(k)] for k in rng.integers(3, size=num_requests)]
    robots = [
        Robot(
            id=str(k),
            capacity=float(rng.integers(2, 6)),
            start_s=float(rng.uniform(0, 10)),
            end_s=350.0,
            max_trips=(1, 2, None)[int(rng.integers(3))],
        )
        for k in range(2)
    ]
    requests = tuple(
        Request(
            id=str(i),
            place=str(i + 1),
            kind=kinds[i],
            # The depot, or any other ward.
            origin=str((i + 2 + int(rng.integers(num_requests))) % n)
            if kinds[i] is Kind.TRANSFER
            else None,
            load=float(rng.integers(3)),
            ready_s=ready[i],
            # A transfer drives two legs and serves twice.
            due_s=ready[i] + (90 if kinds[i] is Kind.TRANSFER else 40) + rng.uniform(0, 60),
            service_s=rng.uniform(0, 9),
            tolerance_s=(0.0, rng.uniform(0, 50))[int(rng.integers(2))],
            priority=int(rng.integers(1, 4)),
        )
        for i in range(num_requests)
    )
    return Instance(
        name="random",
        places=tuple(Place(id=str(i)) for i in range(n)),
        requests=requests,
        robots=tuple(robots),
        travel_s=travel,
        distance_m=rng.integers(1, 40, (n, n)).astype(float),
        reload_s=rng.uniform(0, 5),
        costs=Costs(per_robot=50.0),
    )


DERIVED = (
    "node", "place", "begin", "leave", "latest", "leg", "on_board", "peak_before", "peak_after",
)  # fmt: skip


def chain_of(fleet: Fleet, robot: int) -> list[int]:
    return [int(n) for n in fleet.chains.node[robot, : fleet.chains.length[robot]]]


def num_agreements(seed: int, num_cases: int) -> int:
    """Compare insertions of random nodes into growing random chains; count the cases."""
    rng = np.random.default_rng(seed)
    num = num_feasible = 0
    while num < num_cases:
        packed = pack(random_instance(rng), Objective.COST)
        fleet, weights = Fleet(packed), plan_weights(packed)
        for u in rng.permutation(np.arange(1, 9)):
            for robot in range(2):
                chain = chain_of(fleet, robot)
                got = best_in_chain(packed, fleet.chains, weights, robot, u)
                assert got == reference.best_in_chain(packed, robot, chain, int(u))
                num += len(chain)
                num_feasible += got[1] >= 0
            robot = int(rng.integers(2))
            chain = chain_of(fleet, robot)
            feasible = [
                (k, drop, opens)
                for k, drop, opens, longer in reference.candidates(packed, chain, int(u))
                if reference.drive(packed, robot, longer) is not None
            ]
            if feasible:
                k, drop, opens = feasible[int(rng.integers(len(feasible)))]
                assert kernels.put(packed, fleet.chains, robot, k, drop, opens, u)
    assert 0.2 * num < num_feasible * 4 < 4 * num  # both verdicts are well represented
    return num


def test_verdict_and_price_equal_full_propagation() -> None:
    """Bit for bit, for real-valued times, two kinds of load, several trips, soft windows."""
    assert num_agreements(seed=1, num_cases=5_000) >= 5_000


@pytest.mark.slow
def test_verdict_and_price_equal_full_propagation_in_100_000_cases() -> None:
    """The same at length."""
    assert num_agreements(seed=2, num_cases=100_000) >= 100_000


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_price_is_the_change_of_the_score(seed: int) -> None:
    """Serving one node changes the score by its price less its denial."""
    rng = np.random.default_rng(seed)
    packed = pack(random_instance(rng), Objective.COST)
    fleet, weights = Fleet(packed), plan_weights(packed)
    for u in rng.permutation(np.arange(1, 9)):
        price, robot, position, drop, opens = best_insertion(packed, fleet.chains, weights, u)
        if robot < 0:
            continue
        before = fleet.score()[1]
        kernels.put(packed, fleet.chains, robot, position, drop, opens, u)
        assert fleet.score()[1] == before + price - packed.denial_price[u]
        assert fleet.is_feasible()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_chains_after_changes_equal_chains_built_afresh(seed: int) -> None:
    """Insertions and releases leave no trace in any derived array."""
    rng = np.random.default_rng(seed)
    packed = pack(random_instance(rng), Objective.DISTANCE)
    fleet = Fleet(packed)
    for _ in range(6):
        fleet.serve(rng.permutation(np.arange(1, 9))[: int(rng.integers(1, 9))])
        fleet.release(rng.permutation(np.arange(1, 9))[: int(rng.integers(0, 6))])
        fresh = Fleet.from_trips(packed, fleet.trips())
        for robot in range(2):
            size = fleet.chains.length[robot]
            assert size == fresh.chains.length[robot]
            for name in DERIVED:
                mine, theirs = (getattr(f.chains, name)[robot, :size] for f in (fleet, fresh))
                assert np.array_equal(mine, theirs)
        assert np.array_equal(fleet.chains.owner, fresh.chains.owner)


def line(*loads: tuple[Kind, float], max_trips: int | None, num_robots: int = 1) -> Packed:
    """Depot at 0, requests at 10, 20, ... on a line; capacity 2, no hurry; distance is time."""
    x = 10.0 * np.arange(len(loads) + 1)
    distance = np.abs(x[:, None] - x[None, :])
    instance = Instance(
        name="line",
        places=tuple(Place(id=str(i)) for i in range(len(x))),
        requests=tuple(
            Request(id=str(i), place=str(i), kind=kind, load=load, due_s=500.0)
            for i, (kind, load) in enumerate(loads, start=1)
        ),
        robots=tuple(
            Robot(id=str(k), capacity=2.0, end_s=500.0, max_trips=max_trips)
            for k in range(num_robots)
        ),
        travel_s=distance,
        distance_m=distance,
        reload_s=5.0,
    )
    return pack(instance, Objective.DISTANCE)


def test_full_loads_pass_each_other_only_in_one_order() -> None:
    """Deliver 2, then collect 2, fits a capacity of 2; the other order does not."""
    for first, second, position in (
        (Kind.DELIVER, Kind.COLLECT, 1),  # behind the hand-over
        (Kind.COLLECT, Kind.DELIVER, 0),  # before the collection
    ):
        packed = line((first, 2.0), (second, 2.0), max_trips=1)
        fleet, weights = Fleet.from_trips(packed, {0: [[1]]}), plan_weights(packed)
        # Depot, 10, depot is 20 m; with a stop at 20 on either side the tour is 40 m.
        assert best_in_chain(packed, fleet.chains, weights, 0, 2) == (20.0, position, -1, False)


def test_a_full_trip_makes_the_robot_come_back() -> None:
    """Two full collections: a second trip of 2 * 20 m, unless only one trip is allowed."""
    loads = ((Kind.COLLECT, 2.0), (Kind.COLLECT, 2.0))
    packed = line(*loads, max_trips=2)
    fleet = Fleet.from_trips(packed, {0: [[1]]})
    assert best_in_chain(packed, fleet.chains, plan_weights(packed), 0, 2) == (40.0, 0, -1, True)
    fleet.serve([2])
    assert fleet.trips() == {0: [[2], [1]]}
    single = line(*loads, max_trips=1)
    fleet = Fleet.from_trips(single, {0: [[1]]})
    assert best_in_chain(single, fleet.chains, plan_weights(single), 0, 2)[1] == -1


def test_of_idle_twins_only_the_first_leaves_home() -> None:
    """With three equal robots the first takes the request."""
    packed = line((Kind.COLLECT, 1.0), max_trips=1, num_robots=3)
    assert packed.twin.tolist() == [-1, 0, 1]
    fleet = Fleet(packed)
    fleet.serve([1])
    assert fleet.trips() == {0: [[1]]}


def test_loads_of_a_tenth_add_up_exactly() -> None:
    """Twenty loads of 0.1 fill a capacity of 2; 0.1 has no exact binary form."""
    packed = line(*[(Kind.COLLECT, 0.1)] * 21, max_trips=1)
    fleet = Fleet(packed)
    fleet.serve(range(1, 22))
    assert fleet.unserved() == [21]


def test_reference_price_of_a_small_tour_is_worked_out_by_hand() -> None:
    """Out to 20 by way of 10 and back is 40 m in any order of two stops."""
    packed = line((Kind.COLLECT, 1.0), (Kind.COLLECT, 1.0), max_trips=2)
    for order in permutations((1, 2)):
        assert reference.drive(packed, 0, [0, *order, 0]) == 40.0
    assert reference.drive(packed, 0, [0, 1, 0, 2, 0]) == 60.0
    assert reference.drive(packed, 0, [0, 1, 0, 2, 0, 1, 0]) is None  # three trips
