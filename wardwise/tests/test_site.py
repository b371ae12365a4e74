"""Buildings: travel times against slow oracles, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.site import Corridor, Elevator, Floor, Node, NodeKind, Site

# Two floors, one lift in the middle: a --7 m-- lift@0 | lift@1 --14 m-- b
TWO_FLOORS = Site(
    name="two floors",
    floors=(Floor(level=0, name="ground"), Floor(level=1, name="first")),
    nodes=(
        Node(id="a", name="A", kind=NodeKind.DOCK),
        Node(id="b", name="B", kind=NodeKind.WARD, floor=1, x_m=21.0),
    ),
    corridors=(
        Corridor(start="a", end="lift@0"),
        Corridor(start="lift@1", end="b", door_s=5.0, speed_factor=0.5),
    ),
    elevators=(
        Elevator(
            id="lift", floors=(0, 1), x_m=7.0, ride_s_per_floor=4.0, door_s=3.0,
            wait_mean_s=20.0, wait_sd_s=10.0,
        ),
    ),
    speed_m_per_s=0.7,
    drive_cv=0.2,
)  # fmt: skip


def test_mean_variance_and_metres_of_one_ride():
    """Every term of the sum, worked out by hand."""
    travel = TWO_FLOORS.travel(["a", "b"])
    # 7 / 0.7 = 10 s; wait 20 + doors 2 * 3 + one floor 4 = 30 s; 14 / 0.35 = 40 s and a
    # door of 5 s: together 85 s.
    assert travel.travel_s[0, 1] == pytest.approx(85.0)
    # (0.2 * 10)^2 + 10^2 + (0.2 * 40)^2 = 4 + 100 + 64
    assert travel.travel_var_s2[0, 1] == pytest.approx(168.0)
    assert travel.distance_m[0, 1] == pytest.approx(21.0)
    assert travel.travel_s[0, 0] == travel.distance_m[1, 1] == travel.travel_var_s2[0, 0] == 0


def test_mean_and_variance_agree_with_a_simulated_path():
    """Sampled corridors and waits give the stated moments within four standard errors."""
    rng = np.random.default_rng(7)
    num = 200_000

    def positive(mean: float, sd: float) -> np.ndarray:
        shape = (mean / sd) ** 2
        return rng.gamma(shape, mean / shape, size=num)

    total = positive(10, 2) + positive(20, 10) + 2 * 3 + 4 + positive(40, 8) + 5
    travel = TWO_FLOORS.travel(["a", "b"])
    assert abs(total.mean() - travel.travel_s[0, 1]) < 4 * math.sqrt(168 / num)
    # A gamma's kurtosis is above a normal's, so the variance of the variance is generous.
    assert abs(total.var() - travel.travel_var_s2[0, 1]) < 4 * 168 * math.sqrt(5 / num)


def test_a_ride_over_many_floors_waits_once():
    """From floor 0 to 4 the wait of 20 s and both doors count once: 20 + 6 + 16 = 42 s."""
    site = Site(
        name="tower",
        floors=tuple(Floor(level=k, name=str(k)) for k in range(5)),
        nodes=(),
        corridors=(),
        elevators=(
            Elevator(
                id="e", floors=(0, 1, 2, 3, 4), ride_s_per_floor=4.0, door_s=3.0,
                wait_mean_s=20.0, wait_sd_s=10.0,
            ),
        ),
    )  # fmt: skip
    travel = site.travel(["e@0", "e@4"])
    assert travel.travel_s[0, 1] == 42.0
    assert travel.travel_var_s2[0, 1] == 100.0
    assert site.path("e@0", "e@4") == ("e@0", "e@4")


@pytest.mark.parametrize(("far_wait_s", "chosen"), [(29.0, "far"), (31.0, "near")])
def test_robots_take_the_elevator_that_is_quicker_in_all(far_wait_s: float, chosen: str):
    """The far elevator costs 2 * 7 m = 20 s more driving, so it must wait 20 s less than 50 s."""
    near = Elevator(id="near", floors=(0, 1), wait_mean_s=50.0)
    site = Site(
        name="choice",
        floors=TWO_FLOORS.floors,
        nodes=(
            Node(id="a", name="A"),
            Node(id="b", name="B", floor=1),
        ),
        corridors=tuple(
            Corridor(start=place, end=f"{lift}@{level}", length_m=length_m)
            for level, place in enumerate("ab")
            for lift, length_m in (("near", 7.0), ("far", 14.0))
        ),
        elevators=(near, replace(near, id="far", wait_mean_s=far_wait_s)),
    )
    assert site.path("a", "b") == ("a", f"{chosen}@0", f"{chosen}@1", "b")


def test_one_way_doors_make_the_way_back_longer():
    """Out through the door 7 m = 10 s, back around two sides 14 m = 20 s."""
    site = Site(
        name="sluice",
        floors=(Floor(level=0, name="0"),),
        nodes=tuple(Node(id=k, name=k) for k in "abc"),
        corridors=(
            Corridor(start="a", end="b", length_m=7.0, one_way=True),
            Corridor(start="b", end="c", length_m=7.0),
            Corridor(start="c", end="a", length_m=7.0),
        ),
    )
    travel = site.travel(["a", "b"])
    assert travel.travel_s == pytest.approx(np.array([[0.0, 10.0], [20.0, 0.0]]))
    assert site.path("b", "a") == ("b", "c", "a")


def test_of_two_corridors_between_the_same_points_the_quicker_counts():
    """A longer corridor without a door beats a short one behind a slow door."""
    site = Site(
        name="parallel",
        floors=(Floor(level=0, name="0"),),
        nodes=(Node(id="a", name="A"), Node(id="b", name="B")),
        corridors=(
            Corridor(start="a", end="b", length_m=7.0, door_s=15.0),
            Corridor(start="b", end="a", length_m=14.0),
        ),
    )
    travel = site.travel(["a", "b"])
    assert travel.travel_s[0, 1] == pytest.approx(20.0)
    assert travel.distance_m[0, 1] == 14.0


@st.composite
def sites(draw: st.DrawFn) -> Site:
    """Draw one to three floors, each with a ring of nodes, shortcuts, and one or two elevators."""
    num_floors = draw(st.integers(1, 3))
    num_nodes = draw(st.integers(2, 4))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    nodes, corridors = [], []
    lifts = () if num_floors == 1 else ("x", "y")[: draw(st.integers(1, 2))]
    for level in range(num_floors):
        ids = [f"{level}.{k}" for k in range(num_nodes)]
        nodes += [Node(id=i, name=i, floor=level) for i in ids]
        ring = [*ids, *(f"{lift}@{level}" for lift in lifts)]
        for start, end in pairwise([*ring, ring[0]]):
            corridors.append(_corridor(start, end, rng, one_way=bool(rng.random() < 0.3)))
        corridors.append(_corridor(ring[0], ring[-1], rng, one_way=False))
    return Site(
        name="random",
        floors=tuple(Floor(level=k, name=str(k)) for k in range(num_floors)),
        nodes=tuple(nodes),
        corridors=tuple(corridors),
        elevators=tuple(
            Elevator(
                id=lift,
                floors=tuple(range(num_floors)),
                wait_mean_s=float(rng.uniform(0, 40)),
                wait_sd_s=float(rng.uniform(0, 40)),
            )
            for lift in lifts
        ),
    )


def _corridor(start: str, end: str, rng: np.random.Generator, *, one_way: bool) -> Corridor:
    return Corridor(
        start=start,
        end=end,
        length_m=float(rng.uniform(1, 50)),
        door_s=float(rng.choice([0.0, 6.0])),
        speed_factor=float(rng.uniform(0.5, 1.0)),
        one_way=one_way,
    )


def _edges(site: Site) -> dict[tuple[str, str], list[tuple[float, float, float]]]:
    """Mean, metres and variance of all edges, written down from the definition again."""
    edges: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for c in site.corridors:
        assert c.length_m is not None
        drive_s = c.length_m / (site.speed_m_per_s * c.speed_factor)
        edge = (drive_s + c.door_s, c.length_m, (site.drive_cv * drive_s) ** 2)
        edges.setdefault((c.start, c.end), []).append(edge)
        if not c.one_way:
            edges.setdefault((c.end, c.start), []).append(edge)
    for lift in site.elevators:
        for a in lift.floors:
            for b in set(lift.floors) - {a}:
                mean = lift.wait_mean_s + 2 * lift.door_s + abs(a - b) * lift.ride_s_per_floor
                edge = (mean, 0.0, lift.wait_sd_s**2)
                edges.setdefault((f"{lift.id}@{a}", f"{lift.id}@{b}"), []).append(edge)
    return edges


@settings(max_examples=40, deadline=None)
@given(sites())
def test_travel_equals_floyd_warshall(site: Site):
    """Mean, metres and variance agree with all-pairs shortest paths done the slow way."""
    points = list(site.points)
    best = {(a, b): (math.inf, 0.0, 0.0) for a in points for b in points}
    best |= {pair: min(found) for pair, found in _edges(site).items()}
    best |= {(a, a): (0.0, 0.0, 0.0) for a in points}
    for via in points:
        for a in points:
            for b in points:
                first, second = best[a, via], best[via, b]
                joined = tuple(x + y for x, y in zip(first, second, strict=True))
                if joined[0] < best[a, b][0] - 1e-9:
                    best[a, b] = joined
    travel = site.travel(points)
    for i, a in enumerate(points):
        for j, b in enumerate(points):
            mean, metres, variance = best[a, b]
            assert travel.travel_s[i, j] == pytest.approx(mean)
            assert travel.distance_m[i, j] == pytest.approx(metres)
            assert travel.travel_var_s2[i, j] == pytest.approx(variance)


@settings(max_examples=40, deadline=None)
@given(sites())
def test_means_obey_the_triangle_inequality_and_paths_add_up(site: Site):
    """No detour is quicker, and the edges along a path sum up to the matrix entry."""
    points = list(site.points)
    mean = site.travel(points).travel_s
    assert (mean[:, None, :] <= mean[:, :, None] + mean[None, :, :] + 1e-9).all()
    edges = _edges(site)
    for i, a in enumerate(points):
        for j, b in enumerate(points):
            path = site.path(a, b)
            assert (path[0], path[-1]) == (a, b)
            total = sum(min(edges[step])[0] for step in pairwise(path))
            assert total == pytest.approx(mean[i, j])


@settings(max_examples=20, deadline=None)
@given(sites(), st.randoms(use_true_random=False))
def test_order_and_choice_of_places_do_not_matter(site: Site, random: Any):
    """Rows of a shuffled subset are the rows of the full matrices."""
    points = list(site.points)
    chosen = random.sample(points, k=random.randint(1, len(points)))
    full, part = site.travel(points), site.travel(chosen)
    index = np.ix_([points.index(p) for p in chosen], [points.index(p) for p in chosen])
    for name in ("travel_s", "distance_m", "travel_var_s2"):
        assert np.array_equal(getattr(full, name)[index], getattr(part, name))


def test_unconnected_places_are_named():
    """Without a corridor there is no way, and the message says between which places."""
    site = replace(TWO_FLOORS, corridors=TWO_FLOORS.corridors[:1])
    for call in (lambda: site.travel(["a", "b"]), lambda: site.path("a", "b")):
        with pytest.raises(ValueError, match="no way from 'a' to 'b'"):
            call()


def test_unknown_places_are_named():
    """A place that the site does not know is refused by name."""
    for call in (lambda: TWO_FLOORS.travel(["zz"]), lambda: TWO_FLOORS.path("a", "zz")):
        with pytest.raises(ValueError, match="called 'zz'"):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed_m_per_s": 0.0}, "site: speed_m_per_s: expected a finite number above 0, got 0.0"),
        ({"drive_cv": -0.1}, "site: drive_cv: expected a finite number of at least 0"),
        ({"floors": ()}, "floors: expected levels 0, 1, 2"),
        ({"floors": (Floor(level=1, name="1"),)}, "floors: expected levels 0, 1, 2"),
        ({"floors": (Floor(level=0, name="0"),)}, "node 'b': floor: no floor has level 1"),
        ({"nodes": TWO_FLOORS.nodes + TWO_FLOORS.nodes[:1]}, "id: 'a' stands 2 times"),
        (
            {"nodes": (*TWO_FLOORS.nodes, Node(id="lift@0", name=""))},
            "id: 'lift@0' stands 2 times",
        ),
        (
            {"elevators": (Elevator(id="lift", floors=(0, 1, 7)),)},
            "elevator 'lift': floors: no floor has level 7",
        ),
        (
            {"corridors": (Corridor(start="a", end="c"),)},
            "corridor 'a' to 'c': no node or landing is called 'c'",
        ),
        (
            {"corridors": (Corridor(start="a", end="b"),)},
            "expected both ends on one floor, got 0 and 1",
        ),
        (
            {
                "nodes": (*TWO_FLOORS.nodes, Node(id="a2", name="")),
                "corridors": (Corridor(start="a", end="a2"),),
            },
            "length_m: expected above 0",
        ),
    ],
)
def test_unsound_sites_are_refused(change: dict[str, Any], message: str):
    """Each message names the object, the field and what was expected."""
    with pytest.raises(ValueError, match=message):
        replace(TWO_FLOORS, **change)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Node(id=" a", name=""), "node: id"),
        (lambda: Node(id="a", name="", x_m=math.nan), "node 'a': x_m"),
        (lambda: Corridor(start="a", end="a"), "end: expected another point than start"),
        (lambda: Corridor(start="a", end="b", length_m=0.0), "length_m"),
        (lambda: Corridor(start="a", end="b", speed_factor=0.0), "speed_factor"),
        (lambda: Corridor(start="a", end="b", door_s=-1.0), "door_s"),
        (lambda: Elevator(id="e", floors=(0,)), "floors: expected at least 2"),
        (lambda: Elevator(id="e", floors=(0, 0)), "floors: expected at least 2"),
        (lambda: Elevator(id="e", floors=(0, 1), ride_s_per_floor=0.0), "ride_s_per_floor"),
        (lambda: Elevator(id="e", floors=(0, 1), wait_sd_s=-1.0), "wait_sd_s"),
    ],
)
def test_unsound_parts_are_refused(build: Any, message: str):
    """Parts are checked when they are built."""
    with pytest.raises(ValueError, match=message):
        build()
