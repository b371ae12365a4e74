"""Labels of routes with batteries, several trips and goods that come later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.vns.charges import drive
from wardwise.fleet.vns.insertion import FITS, probe, put
from wardwise.fleet.vns.labels import C, D, E, N, T, X, empty_routes, reaches, refresh
from wardwise.fleet.vns.model import Model, model
from wardwise.fleet.vns.stations import make_placing, place, restation, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.vns.labels import Routes


def electric(
    seed: int,
    *,
    num_requests: int = 7,
    recharge: Recharge = Recharge.PARTIAL,
    base_w: float = 0.0,
    at_depot: bool = False,
    max_trips: int | None = None,
    goods: bool = False,
    tolerance_s: float = 0.0,
) -> Instance:
    """Random places on a square of 40, two or three stations, a battery of 130 to 160 metres."""
    rng = np.random.default_rng(seed)
    num_stations = int(rng.integers(2, 4))
    spots = rng.uniform(0, 40, (1 + num_requests + num_stations, 2))
    distance = np.hypot(*(spots[:, None] - spots[None, :]).T).T
    battery = Battery(
        capacity_wh=float(rng.uniform(130, 160)), reserve_wh=2.0, wh_per_m=1.0, base_w=base_w
    )
    requests = [
        random_request(rng, str(i), goods=goods, tolerance_s=tolerance_s)
        for i in range(1, num_requests + 1)
    ]
    stations = [
        Station(
            id=f"S{s}",
            place="0" if at_depot and s == 0 else str(1 + num_requests + s),
            num_slots=None,
            charge=ChargeCurve.linear(battery.capacity_wh, 0.8),
        )
        for s in range(num_stations)
    ]
    return Instance(
        name="electric",
        places=tuple(Place(id=str(i)) for i in range(len(spots))),
        requests=tuple(requests),
        robots=tuple(
            Robot(id=f"R{k}", capacity=8.0, end_s=900.0, max_trips=max_trips, battery=battery)
            for k in range(num_requests)
        ),
        stations=tuple(stations),
        travel_s=distance,
        distance_m=distance,
        recharge=recharge,
        reload_s=10.0 if max_trips != 1 else 0.0,
    )


def random_request(
    rng: np.random.Generator, name: str, *, goods: bool, tolerance_s: float
) -> Request:
    """A delivery or a collection of one to three slots with a window of 120 to 400."""
    ready = float(rng.uniform(0, 200))
    kind = Kind.DELIVER if rng.random() < 0.5 else Kind.COLLECT
    known = float(rng.uniform(0, 60)) if goods and kind is Kind.DELIVER else 0.0
    return Request(
        id=name,
        place=name,
        kind=kind,
        load=float(rng.integers(1, 4)),
        ready_s=ready,
        due_s=ready + float(rng.uniform(120, 400)),
        service_s=5.0,
        available_s=known,
        tolerance_s=tolerance_s,
    )


KINDS = (
    {"max_trips": 1},
    {"max_trips": 1, "recharge": Recharge.FULL},
    {"at_depot": True, "goods": True},
    {"at_depot": True, "recharge": Recharge.FULL},
    {"base_w": 200.0, "at_depot": True},
    {"goods": True, "tolerance_s": 50.0},
)


def random_row(m: Model, rng: np.random.Generator, *, trips: bool) -> list[int]:
    """Some requests in random order with stations and depots strewn in."""
    requests = rng.permutation(m.num_requests)[: rng.integers(1, m.num_requests + 1)] + 1
    row = [0]
    for v in requests:
        if rng.random() < 0.3:
            row.append(int(rng.integers(m.num_requests + 1, len(m.service))))
        row.append(int(v))
        if trips and rng.random() < 0.2 and v != requests[-1]:
            row.append(0)
    return [*row, 0]


def set_row(m: Model, s: Routes, row: Sequence[int]) -> bool:
    """Make `row` the route of robot 0; returns whether it is feasible."""
    s.node[0, : len(row)] = row
    s.length[0] = len(row)
    return bool(refresh(m, s, 0))


def is_load_fine(m: Model, row: Sequence[int]) -> bool:
    """Whether no leg is overfull, trip by trip."""
    trips = [[]]
    for v in row[1:]:
        trips.append([]) if v == 0 else trips[-1].append(v)
    for trip in trips:
        load = m.deliver[trip].sum()
        peak = load
        for v in trip:
            load += m.collect[v] - m.deliver[v]
            peak = max(peak, load)
        if peak > m.capacity[0] + 0.5:
            return False
    return True


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_labels_are_those_of_the_plain_drive(kind: dict[str, object], seed: int) -> None:
    """Starts, feasibility and loads of a random route: compiled and in plain Python."""
    m = model(electric(seed, **kind), Objective.HIERARCHICAL)  # type: ignore[arg-type]
    s, rng = empty_routes(m), np.random.default_rng(seed)
    row = random_row(m, rng, trips=kind.get("max_trips") != 1)
    is_fine = set_row(m, s, row)
    way = drive(m, 0, row)
    assert s.front[0, : len(row), T] == pytest.approx(way.starts, abs=1e-6)
    assert s.front[0, len(row) - 1, [E, X]] == pytest.approx([way.e, way.x], abs=1e-6)
    assert is_fine == (way.late_s == way.short_wh == 0 and is_load_fine(m, row))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_an_insertion_fits_if_the_route_is_feasible(kind: dict[str, object], seed: int) -> None:
    """Verdict in constant time or through the tail = driving the whole new route."""
    m = model(electric(seed, **kind), Objective.HIERARCHICAL)  # type: ignore[arg-type]
    s, rng = empty_routes(m), np.random.default_rng(seed)
    row = feasible_row(m, s, rng, trips=kind.get("max_trips") != 1)
    rest = [v for v in range(1, m.num_requests + 1) if v not in row]
    if not rest:
        return
    u, station = int(rng.choice(rest)), int(rng.integers(m.num_requests + 1, len(m.service)))
    extras = [(u, -1, -1), (station, u, -1), (u, station, -1), (station, u, station)]
    for p in range(len(row) - 1):
        if m.max_trips[0] > 1 and 0 < row[p] <= m.num_requests:
            extras.append((0, u, -1))
        for option in extras:
            set_row(m, s, row)
            price = s.price[0]
            verdict, money = probe(m, s, 0, p, p + 1, *option)
            put(s, 0, p, np.array(option, dtype=float))
            is_fine = refresh(m, s, 0)
            assert (verdict == FITS) == is_fine
            if is_fine:
                new = [*row[: p + 1], *(v for v in option if v >= 0), *row[p + 1 :]]
                metres = m.distance[new[:-1], new[1:]].sum() - m.distance[row[:-1], row[1:]].sum()
                assert s.price[0] - price == pytest.approx(metres + money, abs=1e-6)


def feasible_row(m: Model, s: Routes, rng: np.random.Generator, *, trips: bool) -> list[int]:
    """A random feasible route: stops of a random one, each kept while all stays feasible."""
    row = [0, 0]
    for v in random_row(m, rng, trips=trips)[1:-1]:
        if v == 0 and row[-2] == 0:
            continue
        longer = [*row[:-1], v, 0]
        if set_row(m, s, longer):
            row = longer
    while len(row) > 2 and not 0 < row[-2] <= m.num_requests:
        row = [*row[:-2], 0]
    return row if set_row(m, s, row) else [0, 0]


@settings(max_examples=100)
@given(seed=st.integers(0, 10**6))
def test_both_ends_of_a_route_agree(seed: int) -> None:
    """A feasible route is accepted by the labels from its back at every vertex."""
    m = model(electric(seed, at_depot=True, goods=True), Objective.HIERARCHICAL)
    s, rng = empty_routes(m), np.random.default_rng(seed)
    row = feasible_row(m, s, rng, trips=True)
    for p in range(1, len(row)):
        t, e, x = s.front[0, p, [T, E, X]]
        assert reaches(m, t, e, x, *s.back[0, p, [C, D, N]]) == 0


@pytest.mark.slow
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_stations_are_placed_no_worse_than_by_enumeration(seed: int) -> None:
    """Four stops, at most one station on each leg: the cheapest of all combinations."""
    m = model(electric(seed, num_requests=4, max_trips=1), Objective.HIERARCHICAL)
    m = m._replace(capacity=10 * m.capacity)
    s, w = empty_routes(m), make_placing(m, 40)
    stops = [0, *(np.random.default_rng(seed).permutation(4) + 1), 0]
    w.stop[: len(stops)] = stops
    best = np.inf
    options = [-1, *range(m.num_requests + 1, len(m.service))]
    for vias in np.stack(np.meshgrid(*[options] * 5), axis=-1).reshape(-1, 5):
        row = [0]
        for stop, via in zip(stops[1:], vias, strict=True):
            row += [int(v) for v in (via, stop) if v >= 0]
        if set_row(m, s, row):
            best = min(best, float(s.price[0]))
    assert place(m, w, 0, len(stops), np.inf) == pytest.approx(best, abs=1e-6)


def test_useless_stations_go() -> None:
    """A station on every leg of a route that needs none."""
    instance = electric(3, num_requests=1, max_trips=1)
    m = model(instance, Objective.HIERARCHICAL)
    s, w = empty_routes(m), make_placing(m, 40)
    assert set_row(m, s, [0, 2, 1, 3, 0])
    tidy(m, s, 0)
    assert list(s.node[0, : s.length[0]]) == [0, 1, 0]
    assert not restation(m, s, w, 0)
