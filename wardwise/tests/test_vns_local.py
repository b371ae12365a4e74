"""Local search and shaking on routes whose best change is plain to see, and in the search."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_vns_labels import electric, feasible_row
from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.search.undo import touch
from wardwise.fleet.solvers import solve
from wardwise.fleet.vns.cyclic import shake
from wardwise.fleet.vns.edits import make_edit
from wardwise.fleet.vns.insertion import FITS, added, probe, scan
from wardwise.fleet.vns.labels import T, empty_routes, refresh
from wardwise.fleet.vns.local import descend
from wardwise.fleet.vns.model import Model, model
from wardwise.fleet.vns.moves import Move
from wardwise.fleet.vns.reassign import fewer_robots
from wardwise.fleet.vns.ruin import add_absent
from wardwise.fleet.vns.search import Search
from wardwise.fleet.vns.undo import make_work, take_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.vns.labels import Routes

Spot = tuple[float, float]


def plain(
    spots: Sequence[Spot],
    *,
    loads: Sequence[float] = (),
    capacity: float = 9.0,
    stations: Sequence[Spot] = (),
    capacity_wh: float | None = None,
    at_depot: bool = False,
    windows: Sequence[tuple[float, float]] = (),
    reload_s: float = 0.0,
) -> Instance:
    """Requests at given spots around a depot at (0, 0); metres, seconds, watt-hours alike."""
    places = np.array([(0.0, 0.0), *spots, *stations])
    distance = np.hypot(*(places[:, None] - places[None, :]).T).T
    battery = None if capacity_wh is None else Battery(capacity_wh=capacity_wh, wh_per_m=1.0)
    homes = ["0"] if at_depot else []
    charge = ChargeCurve.linear(capacity_wh or 1.0, 1.0)
    return Instance(
        name="plain",
        places=tuple(Place(id=str(i)) for i in range(len(places))),
        requests=tuple(
            Request(
                id=f"r{i}",
                place=str(i),
                kind=Kind.COLLECT,
                load=loads[i - 1] if loads else 1.0,
                ready_s=windows[i - 1][0] if windows else 0.0,
                due_s=windows[i - 1][1] if windows else 5000.0,
            )
            for i in range(1, len(spots) + 1)
        ),
        robots=tuple(
            Robot(id=f"k{k}", capacity=capacity, end_s=9000.0, battery=battery) for k in range(5)
        ),
        stations=tuple(
            Station(id=f"S{place}", place=place, num_slots=None, charge=charge)
            for place in [*homes, *(str(1 + len(spots) + s) for s in range(len(stations)))]
        ),
        travel_s=distance,
        distance_m=distance,
        reload_s=reload_s,
        costs=Costs(per_robot=1000.0, per_metre=1.0),
    )


def put_rows(m: Model, s: Routes, rows: Sequence[Sequence[int]]) -> None:
    """Make feasible rows the routes."""
    for k, row in enumerate(rows):
        s.node[k, : len(row)] = row
        s.length[k] = len(row)
        assert refresh(m, s, k)


FAR, NORTH = (100.0, 0.0), (0.0, 50.0)
CASES = {
    # 20 + 10 + 20 + 30 m: the first stop goes one further.
    "INTRA": (plain([(10, 0), (20, 0), (30, 0)]), [[0, 2, 1, 3, 0]], 60.0),
    # The sides of a square instead of two diagonals.
    "TWO_OPT": (plain([(0, 10), (10, 10), (10, 0)]), [[0, 2, 1, 3, 0]], 40.0),
    # Two stops beside the far one go to its robot, which has room for two.
    "OR_OPT": (
        plain([FAR, NORTH, (101, 0), (102, 0)], capacity=3),
        [[0, 1, 0], [0, 2, 3, 4, 0]],
        204.0 + 100.0,
    ),
    "RELOCATE": (plain([FAR, NORTH, (101, 0)], capacity=2), [[0, 1, 0], [0, 2, 3, 0]], 302.0),
    # Two full robots serve one far and one northern stop each.
    "SWAP_ONE": (
        plain([FAR, NORTH, (101, 0), (0, 51)], capacity=2),
        [[0, 1, 2, 0], [0, 3, 4, 0]],
        202.0 + 102.0,
    ),
    # Two small northern stops for one large far one: 1 + 1 = 2.
    "SWAP_TWO": (
        plain([NORTH, (0, 51), FAR, (101, 0), (0, 52)], loads=(1, 1, 2, 2, 2), capacity=4),
        [[0, 1, 2, 3, 0], [0, 4, 5, 0]],
        202.0 + 104.0,
    ),
    # Near stops stay, far ones change robots.
    "TAILS": (
        plain([(0, 10), (100, 0), (10, 0), (0, 100)], capacity=2),
        [[0, 1, 2, 0], [0, 3, 4, 0]],
        200.0 + 200.0,
    ),
    # 120 m on 100 Wh: the station on the way instead of the one beyond.
    "STATIONS": (
        plain([(60, 0)], stations=[(50, 0), (60, 30)], capacity_wh=100.0),
        [[0, 1, 3, 0]],
        120.0,
    ),
    # The first and the third trip of a robot go to the same place; the second is full.
    "TRIPS": (
        plain([FAR, NORTH, (101, 0)], loads=(1, 2, 1), capacity=2),
        [[0, 1, 0, 2, 0, 3, 0]],
        202.0 + 100.0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_move_is_found(name: str) -> None:
    """The move alone leads from given routes to the length in the comment."""
    instance, rows, metres = CASES[name]
    m = model(instance, Objective.HIERARCHICAL)
    s = empty_routes(m)
    put_rows(m, s, rows)
    w = make_work(m, s, 1)
    for k in range(len(rows)):
        touch(s, w, k)
    assert descend(m, s, w, make_edit(s, len(Move)), int(Move[name])) > 0
    assert s.price.sum() == pytest.approx(metres)


def test_a_trip_sends_a_robot_home() -> None:
    """Two full trips of two robots become those of one, which costs one robot less."""
    m = model(plain([FAR, NORTH], capacity=1), Objective.COST)
    s = empty_routes(m)
    put_rows(m, s, [[0, 1, 0], [0, 2, 0]])
    w = make_work(m, s, 1)
    touch(s, w, 1)
    assert descend(m, s, w, make_edit(s, len(Move)), int(Move.TRIPS)) == 1
    assert sorted(s.length) == [2, 2, 2, 2, 5]
    assert s.price.sum() == pytest.approx(1000.0 + 300.0)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), kappa=st.integers(1, 15))
def test_cyclic_exchanges_leave_sound_routes(seed: int, kappa: int) -> None:
    """What a route cannot take is inserted anew; nobody is lost; undo restores all."""
    m = model(electric(seed, at_depot=True, goods=True), Objective.HIERARCHICAL)
    search = Search(m, seed + 1)
    search.construct({})
    s, w, e = search.routes, search.work, search.edit
    e.tally[1] = kappa
    rows = [list(s.node[k, : s.length[k]]) for k in range(len(s.length))]
    size = add_absent(m, s, w, shake(m, s, w, e))
    placed = [v for k in range(len(s.length)) for v in s.node[k, : s.length[k]]]
    placed = [int(v) for v in placed if 0 < v <= m.num_requests]
    assert sorted([*placed, *w.pool[:size]]) == list(range(1, m.num_requests + 1))
    assert all(refresh(m, s, k) for k in range(len(s.length)))
    take_back(m, s, w, size)
    assert rows == [list(s.node[k, : s.length[k]]) for k in range(len(s.length))]


@pytest.mark.parametrize("method", ["strings", "cyclic"])
def test_plans_pass_the_referee_and_repeat_bit_for_bit(method: str) -> None:
    """Descents after both kinds of shakes; batteries, several trips and late goods."""
    instance = electric(4, num_requests=12, at_depot=True, goods=True)
    first, second = (
        solve(
            instance,
            method="vns",
            local_search=True,
            shake=method,
            max_iterations=300,
            time_limit=60.0,
        )
        for _ in range(2)
    )
    assert first == second
    assert check(instance, first).is_feasible
    assert first.denied == ()


def test_shakes_alone_serve_and_choices_are_checked() -> None:
    """Without descents the plan is sound, too; methods that have none say so."""
    instance = electric(4, num_requests=12)
    plan = solve(instance, method="vns", max_iterations=300, time_limit=60.0)
    assert check(instance, plan).is_feasible
    with pytest.raises(ValueError, match=r"shake: expected one of strings, cyclic, got 'hard'"):
        solve(instance, shake="hard")
    with pytest.raises(ValueError, match=r"local_search: expected False for method ruin"):
        solve(plain([FAR]), method="ruin", local_search=True)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_no_place_is_missed_where_a_scan_stops(seed: int) -> None:
    """Property P3: behind a stop that is too late for a request nothing is, so scans end there."""
    m = model(electric(seed, num_requests=8, max_trips=1), Objective.HIERARCHICAL)
    m = m._replace(near_station=m.near_station[:, :, :0].copy())
    s = empty_routes(m)
    row = feasible_row(m, s, np.random.default_rng(seed), trips=False)
    for u in set(range(1, m.num_requests + 1)) - set(row):
        found = np.array([np.inf, -1.0, 0.0, 0.0, 0.0, 0.0])
        scan(m, s, 0, u, found, np.array([1, 2**62]), 0.0)
        places = [
            added(m, row[p], row[p + 1], u, -1, -1)
            for p in range(len(row) - 1)
            if probe(m, s, 0, p, p + 1, u, -1, -1)[0] == FITS
        ]
        assert found[0] == pytest.approx(min(places, default=np.inf))


def test_charging_during_a_reload_takes_no_time() -> None:
    """Property P8: 40 Wh are charged in a reload of 40 s, and 10 s longer in one of 30 s."""
    starts = []
    for reload_s in (40.0, 30.0):
        # Two trips of 40 and 80 m on 80 Wh: 40 must be charged between them.
        instance = plain(
            [(20, 0), (0, 40)], capacity=1, capacity_wh=80.0, at_depot=True, reload_s=reload_s
        )
        m = model(instance, Objective.HIERARCHICAL)
        s = empty_routes(m)
        put_rows(m, s, [[0, 1, 0, 2, 0]])
        starts.append(s.front[0, 4, T])
    assert starts == pytest.approx([40 + 40 + 80, 40 + 30 + 10 + 80])


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_trips_get_the_fewest_robots(seed: int) -> None:
    """Property P6: four trips at fixed moments, one robot each: no split of them is smaller."""
    rng = np.random.default_rng(seed)
    spots = [tuple(spot) for spot in rng.uniform(1, 30, (4, 2))]
    moments = [(float(t), float(t)) for t in rng.uniform(60, 220, 4)]
    m = model(plain(spots, windows=moments), Objective.HIERARCHICAL)
    s = empty_routes(m)
    rows = {k: [0, k + 1, 0] for k in range(4)}
    found = fewer_robots(m, rows) or rows
    put_rows(m, s, list(found.values()))
    assert sorted(v for row in found.values() for v in row if v) == [1, 2, 3, 4]
    assert len(found) == min(
        len(set(robots))
        for robots in itertools.product(range(4), repeat=4)
        if all(in_time(m, s, [v + 1 for v in range(4) if robots[v] == k]) for k in set(robots))
    )


def in_time(m: Model, s: Routes, requests: list[int]) -> bool:
    """Whether one robot can serve requests at their moments, a trip each."""
    row = [0, *(v for u in sorted(requests, key=lambda u: m.earliest[u]) for v in (u, 0))]
    s.node[0, : len(row)] = row
    s.length[0] = len(row)
    return bool(refresh(m, s, 0))
