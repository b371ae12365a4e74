"""The peers of the benchmarks: what they are given is the problem that we pose."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from wardwise.fleet.check import check
from wardwise.fleet.problem import Costs, Instance, Place, Request, Robot

pytest.importorskip("pyvrp")
pytest.importorskip("vroom")
pytest.importorskip("ortools")

from benchmarks.peers import (
    by_ortools,
    by_pyvrp,
    by_vroom,
    committed,
    draw,
    resolve,
    results,
    rows,
)
from benchmarks.peers.found import DISTANCE, HIERARCHICAL, best_within
from benchmarks.peers.numbers import THOUSANDTHS, cut_tenths, numbers, to_plan

SOLVERS = {
    "pyvrp": lambda state: resolve.resolve_pyvrp(state, budget_s=0.2),
    "ortools": lambda state: resolve.resolve_ortools(state, budget_s=0.2),
    "vroom": lambda state: resolve.resolve_vroom(state, exploration=1),
}


def square(seed: int, *, num_requests: int, num_robots: int, load: float = 1.0) -> Instance:
    """Collections on a square with windows a fifth of the day long."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 50, (num_requests + 1, 2))
    distance = np.hypot(*(xy[:, None] - xy[None, :]).transpose(2, 0, 1))
    ready = rng.uniform(0, 200, num_requests)
    return Instance(
        name="square",
        places=tuple(Place(id=str(i)) for i in range(num_requests + 1)),
        requests=tuple(
            Request(
                id=f"q{i}",
                place=str(i + 1),
                load=load,
                ready_s=ready[i],
                due_s=ready[i] + 80,
                service_s=5.0,
            )
            for i in range(num_requests)
        ),
        robots=tuple(
            Robot(id=f"r{k}", capacity=4.0, end_s=400.0, max_trips=1) for k in range(num_robots)
        ),
        travel_s=distance,
        distance_m=distance,
        costs=Costs(per_robot=40.0),
    )


def committed_state(seed: int, *, num_requests: int) -> committed.State:
    """Two robots on their way, one at home; the last request has just come in."""
    instance = square(seed, num_requests=num_requests + 2, num_robots=3)
    vehicles = (
        committed.Vehicle(place=1, free_s=20.0, room=3.0, end_s=400.0, is_used=True),
        committed.Vehicle(place=2, free_s=35.5, room=2.0, end_s=400.0, is_used=True),
        committed.Vehicle(place=0, free_s=15.0, room=4.0, end_s=400.0, is_used=False),
    )
    open_requests = instance.requests[2:]
    return committed.State(
        instance=instance,
        vehicles=vehicles,
        requests=open_requests,
        optional=frozenset({open_requests[-1].id}),
    )


def cheapest(state: committed.State) -> float:
    """Lowest cost over every assignment, order and denial."""
    best = float("inf")
    nobody = len(state.vehicles)
    for owners in product(range(nobody + 1), repeat=len(state.requests)):
        groups = [
            [k for k, owner in enumerate(owners) if owner == vehicle] for vehicle in range(nobody)
        ]
        for routes in product(*(permutations(group) for group in groups)):
            answer = committed.price(state, [list(route) for route in routes], 0.0)
            if answer.is_feasible:
                best = min(best, answer.cost)
    return best


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_resolve_finds_the_optimum_of_a_small_state(solver, seed):
    """Start places, free times, room, the way home and prices mean the same to each peer."""
    state = committed_state(seed, num_requests=4)
    answer = SOLVERS[solver](state)
    assert answer.is_feasible
    assert answer.cost == pytest.approx(cheapest(state), abs=0.01)


def test_resolve_goes_on_from_the_present_plan():
    """PyVRP takes the routes of robots on their way and at home, and adds the new request."""
    state = replace(committed_state(3, num_requests=4), plan=((0,), (1,), (2,)))
    answer = SOLVERS["pyvrp"](state)
    assert answer.is_feasible
    assert answer.cost == pytest.approx(cheapest(state), abs=0.01)


@pytest.mark.parametrize("solver", SOLVERS)
def test_resolve_turns_down_what_it_may_and_keeps_what_is_promised(solver):
    """The new request is denied, for its price, where only a promised one can be served."""
    # Both windows close at 12; the places lie 10 east and 10 west of the robot's.
    line = np.abs(np.subtract.outer([0.0, 10.0, -10.0], [0.0, 10.0, -10.0]))
    requests = tuple(
        Request(id=id_, place=place, due_s=12.0) for id_, place in (("old", "1"), ("new", "2"))
    )
    instance = Instance(
        name="line",
        places=(Place(id="0"), Place(id="1"), Place(id="2")),
        requests=requests,
        robots=(Robot(id="r", capacity=1.0, end_s=100.0),),
        travel_s=line,
        distance_m=line,
    )
    robot = committed.Vehicle(place=0, free_s=0.0, room=1.0, end_s=100.0, is_used=True)
    state = committed.State(
        instance=instance, vehicles=(robot,), requests=requests, optional=frozenset({"new"})
    )
    answer = SOLVERS[solver](state)
    assert answer.routes == ((0,),)
    assert answer.denied == ("new",)
    # 20 metres and one denial of a routine request at 150.
    assert answer.cost == pytest.approx(170.0)


@pytest.mark.parametrize("objective", [DISTANCE, HIERARCHICAL])
@pytest.mark.parametrize("peer", [by_pyvrp, by_ortools, by_vroom])
def test_peers_find_feasible_plans_of_the_stated_length(peer, objective):
    """What a peer calls feasible in integers passes the checker in doubles."""
    instance = square(7, num_requests=12, num_robots=6)
    whole = numbers(instance, THOUSANDTHS)
    found = peer.run(whole, objective, [0.2, 0.3], 1)
    for budget in (0.2, 0.3):
        best = best_within(found[budget], budget, objective)
        report = check(instance, to_plan(instance, best.routes))
        assert report.is_feasible
        assert report.cost.num_robots == len(best.routes)
        # 18 legs at most, each rounded by at most half a thousandth.
        assert report.cost.distance_m == pytest.approx(best.distance / THOUSANDTHS, abs=0.009)


def test_arcs_are_cut_to_tenths():
    """DIMACS cuts: 2.29 gives 2.2, and 0.3, which is 0.2999... in binary, stays."""
    matrix = np.array([[0.0, 2.29], [0.3, 0.0]])
    instance = Instance(
        name="two",
        places=(Place(id="0"), Place(id="1")),
        requests=(Request(id="q", place="1", due_s=9.0),),
        robots=(Robot(id="r", capacity=1.0, end_s=9.0),),
        travel_s=matrix,
        distance_m=matrix,
    )
    assert cut_tenths(instance).tolist() == [[0.0, 2.2], [0.3, 0.0]]


def result(solver: str, budget_s: float, vehicles: int | None, distance: float | None):
    """Of instance A at the hierarchical objective."""
    key = results.Key(results.SOLOMON, "A", HIERARCHICAL, solver, "1", budget_s, 1)
    return results.Result(key, vehicles, distance, 0.5)


def test_gap_is_taken_only_where_vehicles_are_equal():
    """102 is 2 % above 100 with the best known number of vehicles, and no gap with another."""
    best = {("A", HIERARCHICAL): results.Best(3, 100.0)}
    assert results.gap_pct(result("ruin", 1, 3, 102.0), best) == pytest.approx(2.0)
    assert results.gap_pct(result("ruin", 1, 4, 90.0), best) is None
    assert results.gap_pct(result("ruin", 1, None, None), best) is None


def test_cache_survives_a_cut_line(tmp_path):
    """An interrupted write loses its own result alone."""
    path = tmp_path / "cache.jsonl"
    kept = [result("ruin", 1, 3, 102.0), result("pyvrp", 1, None, None)]
    results.append(path, kept)
    results.append(path, [result("ruin", 10, 3, 101.0)])
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert results.read(path) == {one.key: one for one in kept}


def test_rows_compare_with_the_best_peer(tmp_path):
    """One vehicle more than PyVRP misses the goal; the distance counts at equal vehicles only."""
    best = {("A", HIERARCHICAL): results.Best(3, 100.0)}
    found = [
        result("ruin", 10, 4, 99.0),
        result("pyvrp", 10, 3, 101.0),
        result("vroom", 10, 4, 110.0),
        result("ortools", 10, None, None),
    ]
    by_name = {row["name"]: row for row in rows.rows(found, best, "ruin")}
    base = "static_hierarchical_10s_ruin"
    assert by_name[f"{base}_vehicles"]["value"] == 1
    assert by_name[f"{base}_vehicles_minus_best_peer"]["value"] == 1
    assert by_name[f"{base}_vehicles_minus_best_peer"]["peer"].startswith("pyvrp")
    # Against VROOM alone: 99 / 110 - 1 = -10 %.
    assert by_name[f"{base}_distance_minus_best_peer"]["value"] == pytest.approx(-10.0)
    assert by_name["static_missing_plans"]["value"] == 0


def test_figure_has_a_dot_for_each_budget(tmp_path):
    """Two solvers at two budgets make four dots; a gap of nought is drawn at the floor."""
    gaps = {"ruin": {1.0: 0.5, 10.0: 0.0}, "pyvrp": {1.0: 0.9, 10.0: 0.2}}
    draw.write_figure(tmp_path / "a.svg", [draw.Panel("Gap", " %", gaps, is_log=True)])
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text.count("<circle") == 4
    assert text.count("<g ") == text.count("</g>") == 1
