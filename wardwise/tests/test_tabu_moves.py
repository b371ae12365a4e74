"""The compiled moves of the tabu search against plain lists and joins of segments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.search.fleet import Fleet
from wardwise.fleet.search.packed import Objective, Packed, pack
from wardwise.fleet.search.segments import Segment, concatenate, weigh
from wardwise.fleet.search.tabu import TabuParams, new_memory
from wardwise.fleet.search.tabu_kernels import best_move
from wardwise.fleet.search.tabu_memory import CLOCK, PER_LOAD, PER_SECOND, TOO_MUCH, Memory
from wardwise.fleet.search.tabu_reference import (
    Plan,
    between,
    is_allowed,
    tidy,
    total,
    within,
)
from wardwise.fleet.search.tabu_routes import (
    NUM_PIECES,
    TAKE,
    Sums,
    meet,
    over_with,
    sums_of,
    warp_with,
)
from wardwise.fleet.search.tabu_steps import execute

# The kernels take most of a minute to compile.
pytestmark = pytest.mark.slow

NUM_REQUESTS, NUM_ROBOTS = 9, 4


def random_packed(rng: np.random.Generator) -> Packed:
    """Real-valued travel without triangle inequality; two robots are alike, two are not."""
    n = NUM_REQUESTS + 1
    travel = rng.uniform(1, 30, (n, n))
    ready = rng.uniform(0, 150, NUM_REQUESTS)
    most = (1, 2, None)[int(rng.integers(3))]
    robots = [
        Robot(
            id=str(k), capacity=(3.0, 3.0, 5.0, 4.0)[k], start_s=float(k // 2), end_s=300.0,
            max_trips=most,
        )
        for k in range(NUM_ROBOTS)
    ]  # fmt: skip
    requests = tuple(
        Request(
            id=str(i),
            place=str(i + 1),
            kind=(Kind.COLLECT, Kind.DELIVER)[int(rng.integers(2))],
            load=float(rng.integers(4)),
            ready_s=ready[i],
            due_s=ready[i] + 40 + rng.uniform(0, 60),
            service_s=rng.uniform(0, 9),
            tolerance_s=(0.0, rng.uniform(0, 50))[int(rng.integers(2))],
        )
        for i in range(NUM_REQUESTS)
    )
    instance = Instance(
        name="random",
        places=tuple(Place(id=str(i)) for i in range(n)),
        requests=requests,
        robots=tuple(robots),
        travel_s=travel,
        distance_m=rng.uniform(1, 40, (n, n)),
        reload_s=rng.uniform(0, 5),
    )
    return pack(instance, (Objective.COST, Objective.DISTANCE)[int(rng.integers(2))])


def random_plan(packed: Packed, rng: np.random.Generator) -> Plan:
    """Requests anywhere, in any order, cut into trips anywhere; one may be unserved."""
    plan: Plan = {robot: [0] for robot in range(NUM_ROBOTS)}
    for node in rng.permutation(NUM_REQUESTS)[int(rng.integers(2)) :] + 1:
        chain = plan[int(rng.choice([0, 0, 1, 1, 1, 2, 3]))]
        if len(chain) > 1 and chain.count(0) < packed.max_trips[0] and rng.uniform() < 0.3:
            chain.append(0)
        chain.append(int(node))
    return {robot: [*chain, 0] for robot, chain in plan.items()}


def as_fleet(packed: Packed, plan: Plan) -> Fleet:
    return Fleet.from_chains(packed, {r: np.array(c) for r, c in plan.items() if len(c) > 2})


def as_plan(fleet: Fleet) -> Plan:
    chains = fleet.chains
    return {r: [int(n) for n in chains.node[r, : chains.length[r]]] for r in range(NUM_ROBOTS)}


def stops(plan: Plan) -> list[int]:
    return sorted(node for chain in plan.values() for node in chain if node)


def sides(chain: list[int]) -> list[tuple[int, list[int], list[int]]]:
    """Cuts of a chain: position before the cut, what stands before it, and what behind."""
    return [(k, chain[: k + 1], chain[k + 1 :]) for k in range(len(chain) - 1)]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_any_beginning_piece_and_end_weigh_what_plain_joins_weigh(seed: int) -> None:
    """Overload and time warp bit for bit, for every cut of two chains and every piece."""
    rng = np.random.default_rng(seed)
    packed = random_packed(rng)
    plan = random_plan(packed, rng)
    fleet = as_fleet(packed, plan)
    sums = sums_of(packed, fleet.chains)
    place, record = fleet.chains.place, sums.record
    for robot in range(NUM_ROBOTS):
        assert tuple(sums.total[robot]) == weigh(packed, robot, plan[robot])[1:]
    # Robots 0 and 1 are alike: the end of one chain may follow the beginning of the other.
    for a, b in ((0, 1), (1, 0), (0, 0), (1, 1)):
        for i, head, _ in sides(plan[a]):
            for j, _, tail in sides(plan[b]):
                if tidy(head + tail) != head + tail or len(head + tail) == 2:
                    continue
                travel = packed.travel[place[a, i], place[b, j + 1]]
                got = meet(record, a, i, record, b, j + 1, travel, packed.capacity[a])
                assert got == weigh(packed, a, head + tail)[1:]
                for k in range(1, NUM_REQUESTS + 1):
                    _check_pieces(packed, plan, fleet, sums, (a, i, head), (b, j + 1, tail), k)


def _check_pieces(
    packed: Packed, plan: Plan, fleet: Fleet, sums: Sums,
    before: tuple[int, int, list[int]], after: tuple[int, int, list[int]], node: int,
) -> None:  # fmt: skip
    """All pieces that start at a node, between a beginning and an end."""
    (a, i, head), (b, j, tail) = before, after
    robot = fleet.chains.owner[node]
    if robot < 0:
        return
    k = int(sums.position[node])
    for variant in range(NUM_PIECES):
        size = variant + 1 if variant < 3 else variant - 1
        nodes = plan[robot][k : k + size]
        if 0 in nodes or len(nodes) < size:
            assert sums.piece[node, variant, TAKE] == np.inf
            continue
        nodes = nodes if variant < 3 else nodes[::-1]
        first, last = packed.place[nodes[0]], packed.place[nodes[-1]]
        place, record = fleet.chains.place, sums.record
        warp = warp_with(
            record, a, i, sums.piece, node, variant, record, b, j,
            packed.travel[place[a, i], first], packed.travel[last, place[b, j]],
        )  # fmt: skip
        over = over_with(record, a, i, sums.piece, node, variant, record, b, j, packed.capacity[a])
        assert (over, warp) == weigh(packed, a, head + nodes + tail)[1:]


def memory_with(packed: Packed, fleet: Fleet, rng: np.random.Generator, width: int) -> Memory:
    """Memory with random candidates and weights, in which nothing is tabu for long."""
    memory = new_memory(fleet, rng, TabuParams())
    shape = (NUM_REQUESTS + 1, width)
    memory = memory._replace(
        near_before=rng.integers(1, NUM_REQUESTS + 1, shape),
        near_after=rng.integers(1, NUM_REQUESTS + 1, shape),
    )
    memory.level[PER_SECOND] = rng.choice([0.0, 0.1, 3.0])
    memory.level[PER_LOAD] = rng.choice([0.0, 1e-10, 1e-7])
    return memory


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_best_move_is_the_best_of_all_and_changes_what_it_says(seed: int) -> None:
    """Cheapest of all plain moves; the predicted change is the real one, bit for bit."""
    rng = np.random.default_rng(seed)
    packed = random_packed(rng)
    fleet = as_fleet(packed, random_plan(packed, rng))
    sums = sums_of(packed, fleet.chains)
    for _ in range(6):
        memory = memory_with(packed, fleet, rng, width=int(rng.integers(1, 3)))
        memory.tally[CLOCK] = 1
        plan = as_plan(fleet)
        before = total(packed, plan)
        prices = np.array(
            [packed.metre_price, memory.level[PER_LOAD], memory.level[PER_SECOND],
             packed.robot_price]
        )  # fmt: skip
        moves = list(between(packed, plan, memory.near_before, memory.near_after, memory.kind))
        costs = [
            float((total(packed, after) - before) @ prices)
            for after in moves
            if is_allowed(packed, after)
        ]
        inside = [
            float((total(packed, plan | {robot: chain}) - before) @ prices)
            for robot in plan
            for chain in within(plan[robot])
            if is_allowed(packed, {robot: chain})
        ]
        costs += [cost for cost in inside if cost < -1e-7]
        cost = best_move(packed, fleet.chains, sums, memory)
        assert cost == pytest.approx(min(costs, default=TOO_MUCH), rel=1e-9, abs=1e-6)
        if not costs:
            break
        execute(packed, fleet.chains, sums, memory)
        after = total(packed, as_plan(fleet))
        assert tuple(memory.effect) == tuple(after - before)
        assert stops(as_plan(fleet)) == stops(plan)
        fresh = sums_of(packed, fleet.chains)
        assert np.array_equal(fresh.total, sums.total)


windows = st.tuples(
    st.integers(0, 40),  # earliest
    st.integers(0, 20),  # width of the window
    st.integers(0, 9),  # service
    st.integers(0, 15),  # travel from the stop before
)


@given(st.lists(windows, min_size=1, max_size=7), st.integers(-30, 90), st.data())
def test_a_segment_tells_duration_and_time_warp_of_any_start(
    route: list[tuple[int, int, int, int]], start: int, data: st.DataObject
) -> None:
    """``D + max(E - t, 0)`` and ``W + max(t - L, 0)`` are what driving gives, for any split."""

    def join(first: int, last: int) -> Segment:
        earliest, width, service, _ = route[first]
        if last - first == 1:
            return Segment(
                duration_s=service, time_warp_s=0, earliest_s=earliest, latest_s=earliest + width
            )
        cut = data.draw(st.integers(first + 1, last - 1))
        return concatenate(join(first, cut), join(cut, last), route[cut][3])

    time, warp = start, 0
    for k, (earliest, width, service, travel) in enumerate(route):
        time = max(time + (travel if k else 0), earliest)
        warp += max(0, time - earliest - width)
        time = min(time, earliest + width) + service
    whole = join(0, len(route))
    assert time - start + warp == whole.duration_s + max(whole.earliest_s - start, 0)
    assert warp == whole.time_warp_s + max(start - whole.latest_s, 0)
