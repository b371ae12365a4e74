"""Memory, penalties and fleet reduction of the tabu search, on cases small enough for the head."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.search.fleet import Fleet
from wardwise.fleet.search.packed import Objective, Packed, pack
from wardwise.fleet.search.tabu import TabuParams, new_memory
from wardwise.fleet.search.tabu_fleet import drop_dear, reinsert, without_shortest
from wardwise.fleet.search.tabu_kernels import Rule, best_move, move_behind, search
from wardwise.fleet.search.tabu_memory import (
    CLOCK,
    PER_FREQUENCY,
    PER_LOAD,
    PER_SECOND,
    TENURE,
    TOO_MUCH,
    Memory,
)
from wardwise.fleet.search.tabu_routes import Sums, sums_of
from wardwise.fleet.solvers import solve

# The kernels take most of a minute to compile.
pytestmark = pytest.mark.slow

A, B = 1, 2
SLOT = 1e9  # loads are counted in billionths


def corridor(
    metres: list[float],
    capacities: list[float],
    *,
    loads: list[float] | None = None,
    due_s: list[float] | None = None,
    tolerance_s: float = 0.0,
) -> Instance:
    """Wards along a straight corridor with the depot at 0; a metre takes a second."""
    x = np.array([0.0, *metres])
    distance = np.abs(x[:, None] - x[None, :])
    loads, due_s = loads or [1.0] * len(metres), due_s or [999.0] * len(metres)
    return Instance(
        name="corridor",
        places=tuple(Place(id=str(k)) for k in range(len(x))),
        requests=tuple(
            Request(
                id=str(k + 1), place=str(k + 1), load=loads[k], due_s=due_s[k],
                tolerance_s=tolerance_s,
            )
            for k in range(len(metres))
        ),
        robots=tuple(
            Robot(id=str(k), capacity=c, end_s=999.0, max_trips=1)
            for k, c in enumerate(capacities)
        ),
        travel_s=distance,
        distance_m=distance,
    )  # fmt: skip


class Case(NamedTuple):
    """A plan with its sums and a memory in which a slot of overload costs 100."""

    packed: Packed
    fleet: Fleet
    sums: Sums
    memory: Memory

    def best(self) -> float:
        """Cost of the best move, which is then proposed."""
        return float(best_move(self.packed, self.fleet.chains, self.sums, self.memory))


def case(instance: Instance, trips: dict[int, list[list[int]]]) -> Case:
    packed = pack(instance, Objective.DISTANCE)
    fleet = Fleet.from_trips(packed, trips)
    memory = new_memory(fleet, np.random.default_rng(1), TabuParams())
    memory.level[PER_LOAD], memory.level[PER_SECOND] = 100 / SLOT, 100.0
    memory.tally[CLOCK], memory.tally[TENURE] = 1, 3
    return Case(packed, fleet, sums_of(packed, fleet.chains), memory)


def split_pair(first_capacity: float = 2.0) -> Case:
    """Robot 0 serves A at 10 m; B at 11 m has just moved from it to robot 1, which holds one."""
    made = case(corridor([10, 11, -1], [first_capacity, 1.0]), {0: [[A, B]], 1: [[3]]})
    move_behind(made.packed, made.fleet.chains, made.sums, made.memory, B, 3)
    made.fleet.release([3])
    return made._replace(sums=sums_of(made.packed, made.fleet.chains))


def test_what_has_left_a_robot_may_not_come_back_for_the_tenure() -> None:
    """B would save 20 m by returning; for three iterations only A may move, into overload.

    Joining both saves 20 m: 20 + 22 - 22. Robot 1 then has one slot too few: 100 - 20 = 80.
    """
    made = split_pair()
    made.memory.aspiration[:] = 0.0  # no plan is good enough to forget what is tabu
    for clock in (2, 3, 4):
        made.memory.tally[CLOCK] = clock
        assert made.best() == pytest.approx(80)
    made.memory.tally[CLOCK] = 5
    assert made.best() == pytest.approx(-20)


def test_a_tabu_move_is_taken_for_a_plan_better_than_all_with_that_attribute() -> None:
    """The plan after it costs 22: better than 22.5, not better than 22."""
    made = split_pair()
    made.memory.tally[CLOCK] = 2
    made.memory.aspiration[B, 0] = 22.5
    assert made.best() == pytest.approx(-20)
    made.memory.aspiration[B, 0] = 22.0
    assert made.best() == pytest.approx(80)


def test_only_a_feasible_plan_lifts_a_tabu() -> None:
    """Robot 0 holds one, too: both in it are cheap while overload is, but that is no plan."""
    made = split_pair(first_capacity=1.0)
    made.memory.tally[CLOCK] = 2
    made.memory.level[PER_LOAD] = 0.5 / SLOT
    # A may go to robot 1, which is no more allowed, but not tabu: -20 m and half a metre.
    assert made.best() == pytest.approx(-19.5)
    made.memory.tabu_until[A, 1] = 9
    assert made.best() == TOO_MUCH


def test_a_frequent_attribute_costs_where_nothing_improves() -> None:
    """80 for A in robot 1; 0.1 x 42 x 3 / 2 as it came there thrice in two iterations."""
    made = split_pair()
    made.memory.aspiration[:] = 0.0
    made.memory.tally[CLOCK] = 2
    made.memory.frequency[A, 1] = 3
    made.memory.level[PER_FREQUENCY] = 0.1
    assert made.best() == pytest.approx(80 + 6.3)


def test_weights_rise_with_violations_and_fall_without_within_their_bounds() -> None:
    """One robot with a load too many and ample time: nothing to move, only to weigh."""
    made = case(corridor([10, 11], [1.0]), {0: [[A, B]]})
    made.memory.is_feasible[:] = False
    rule = Rule(1.5, 10 / SLOT, 200 / SLOT, 10.0, 200.0)
    packed, fleet, sums, memory = made
    search(packed, fleet.chains, sums, memory, rule, 1, 99)
    assert memory.level[PER_LOAD] == pytest.approx(150 / SLOT)
    assert memory.level[PER_SECOND] == pytest.approx(100 / 1.5)
    search(packed, fleet.chains, sums, memory, rule, 20, 99)
    assert memory.level[PER_LOAD] == pytest.approx(200 / SLOT)
    assert memory.level[PER_SECOND] == pytest.approx(10)


def test_a_robot_is_sent_home_by_ejection() -> None:
    """Two slots of request 1 fit only where request 2 makes room, which fits beside request 3."""
    instance = corridor([10, 11, 12], [2.0, 2.0, 2.0], loads=[2.0, 1.0, 1.0])
    packed = pack(instance, Objective.HIERARCHICAL)
    fleet = Fleet.from_trips(packed, {0: [[1]], 1: [[2]], 2: [[3]]})
    smaller = without_shortest(fleet, np.random.default_rng(1))
    assert smaller is not None
    assert smaller.is_feasible()
    assert sorted(map(len, (smaller.stops(r) for r in smaller.used()))) == [1, 2]
    assert smaller.unserved() == []
    # With a slot less in all no robot can be spared.
    assert without_shortest(smaller, np.random.default_rng(1)) is None
    assert fleet.used() == [0, 1, 2]


def test_what_costs_more_than_its_denial_is_dropped() -> None:
    """100 m out and back for 150: kept; from 80 m on beyond it, 160 m for 150: dropped."""
    packed = pack(corridor([20, 100], [9.0]), Objective.COST)
    fleet = Fleet.from_trips(packed, {0: [[1, 2]]})
    drop_dear(packed, fleet.chains)
    assert fleet.unserved() == [2]
    packed = pack(corridor([30, 100], [9.0]), Objective.COST)
    fleet = Fleet.from_trips(packed, {0: [[1, 2]]})
    drop_dear(packed, fleet.chains)
    assert fleet.unserved() == []


def test_reinsertion_prices_lateness() -> None:
    """At 20 before at 10: request 1 is 20 s late. The other way round nobody is."""
    instance = corridor([10, 20], [9.0], due_s=[10.0, 999.0], tolerance_s=99.0)
    packed = pack(instance, Objective.DISTANCE)
    fleet = Fleet.from_trips(packed, {0: [[2, 1]]})
    assert fleet.score() == (0.0, 40 + 20)
    reinsert(packed, fleet.chains, fleet._weights)
    assert fleet.trips() == {0: [[1, 2]]}
    assert fleet.score() == (0.0, 40)


def test_transfers_are_refused_in_one_line() -> None:
    """The search moves single stops; a pair would be torn apart."""
    instance = corridor([10, 20], [9.0])
    transfer = Request(id="t", place="1", origin="2", kind=Kind.TRANSFER, due_s=99.0)
    moving = Instance(
        name="moving", places=instance.places, requests=(transfer,), robots=instance.robots,
        travel_s=instance.travel_s, distance_m=instance.distance_m,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"^method: 'tabu' plans no transfers; take 'ruin'$"):
        solve(moving, method="tabu")
