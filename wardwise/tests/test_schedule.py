"""Timed plans from sequences, and the algebra of segments."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.check import check
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.schedule import schedule
from wardwise.fleet.search.segments import Segment, concatenate


def line(*requests: Request, robot: Robot, reload_s: float = 0.0) -> Instance:
    """Depot at 0 and wards a, b, c at 10, 20, 30 on a line; a metre takes a second."""
    x = np.array([0.0, 10.0, 20.0, 30.0])
    distance = np.abs(x[:, None] - x[None, :])
    return Instance(
        name="line",
        places=tuple(Place(id=name, x_m=at) for name, at in zip(("0", *"abc"), x, strict=True)),
        requests=requests,
        robots=(robot,),
        travel_s=distance,
        distance_m=distance,
        reload_s=reload_s,
    )


ROBOT = Robot(id="r", capacity=2.0, end_s=200.0)


def test_service_starts_early_and_the_robot_leaves_late() -> None:
    """Ward a opens at 50: leave at 40; b follows at 50 + 5 + 10 = 65; home at 65 + 0 + 20 = 85."""
    a = Request(id="A", place="a", ready_s=50.0, due_s=60.0, service_s=5.0)
    b = Request(id="B", place="b", due_s=70.0)
    instance = line(a, b, robot=ROBOT)
    plan = schedule(instance, {"r": [["A", "B"]]})
    (trip,) = plan.trips
    assert (trip.depart_s, trip.return_s) == (40.0, 85.0)
    assert [(s.request, s.arrive_s, s.start_s) for s in trip.stops] == [
        ("A", 50.0, 50.0),
        ("B", 65.0, 65.0),
    ]
    assert check(instance, plan).is_feasible


def test_waiting_inside_a_trip_stays_where_it_is() -> None:
    """The robot reaches b at 20 but c, open at 60, at 30: it waits there 30 seconds."""
    b = Request(id="B", place="b", due_s=20.0)
    c = Request(id="C", place="c", ready_s=60.0, due_s=60.0)
    instance = line(b, c, robot=ROBOT)
    (trip,) = schedule(instance, {"r": [["B", "C"]]}).trips
    assert (trip.stops[1].arrive_s, trip.stops[1].start_s, trip.return_s) == (30.0, 60.0, 90.0)


def test_a_second_trip_waits_for_the_reload() -> None:
    """Back at 20, reloaded at 27, at b 47, home 67."""
    a = Request(id="A", place="a", due_s=10.0)
    b = Request(id="B", place="b", due_s=47.0)
    instance = line(a, b, robot=ROBOT, reload_s=7.0)
    plan = schedule(instance, {"r": [["A"], ["B"]]})
    assert [(t.depart_s, t.return_s) for t in plan.trips] == [(0.0, 20.0), (27.0, 67.0)]
    assert check(instance, plan).is_feasible
    late = line(a, replace(b, due_s=46.0), robot=ROBOT, reload_s=7.0)
    with pytest.raises(ValueError, match=r"robot 'r': request 'B': service: .* by 46, got 47"):
        schedule(late, {"r": [["A"], ["B"]]})


def test_tolerance_allows_a_late_start() -> None:
    """A is reached at 10, due at 8: fine with a tolerance of 2, refused with 1."""
    a = Request(id="A", place="a", due_s=8.0, tolerance_s=2.0)
    plan = schedule(line(a, robot=ROBOT), {"r": [["A"]]})
    assert plan.trips[0].stops[0].start_s == 10.0
    roomy = Robot(id="s", capacity=2.0, start_s=1.0, end_s=200.0)
    with pytest.raises(ValueError, match="expected to start by 10, got 11"):
        schedule(replace(line(a, robot=ROBOT), robots=(ROBOT, roomy)), {"s": [["A"]]})


def test_loads_count_on_every_leg() -> None:
    """Two deliveries leave with 2 slots; a collection before the first hand-over makes 3."""
    deliver = [Request(id=f"D{p}", place=p, kind=Kind.DELIVER, load=1.0, due_s=150.0) for p in "ab"]
    collect = Request(id="C", place="c", kind=Kind.COLLECT, load=1.0, due_s=150.0)
    instance = line(*deliver, collect, robot=ROBOT)
    schedule(instance, {"r": [["Da", "C", "Db"]]})
    with pytest.raises(ValueError, match=r"'r': request 'C': load: .* capacity 2, got 3"):
        schedule(instance, {"r": [["C", "Da", "Db"]]})
    heavy = replace(instance, requests=(replace(deliver[0], load=2.0), *instance.requests[1:]))
    with pytest.raises(ValueError, match=r"'r': request 'Da': load: .* capacity 2, got 3"):
        schedule(heavy, {"r": [["Da", "Db"]]})


def test_a_transfer_stops_at_both_ends() -> None:
    """Opens at 30 at c: leave at 0, serve to 35; a at 55, due there; home at 60 + 10 = 70."""
    t = Request(
        id="T", kind=Kind.TRANSFER, origin="c", place="a", ready_s=30.0, due_s=55.0, service_s=5.0
    )
    instance = line(t, robot=ROBOT)
    plan = schedule(instance, {"r": [["T", "T"]]})
    (trip,) = plan.trips
    assert (trip.depart_s, trip.return_s) == (0.0, 70.0)
    assert [(s.start_s, s.is_pickup) for s in trip.stops] == [(30.0, True), (55.0, False)]
    assert check(instance, plan).is_feasible
    # It may be picked up after it is due, as long as the tolerance reaches to the drop.
    late = replace(t, ready_s=0.0, due_s=20.0, tolerance_s=35.0)
    schedule(line(late, robot=ROBOT), {"r": [["T", "T"]]})
    later = Robot(id="s", capacity=2.0, start_s=1.0, end_s=200.0)
    with pytest.raises(ValueError, match=r"'s': request 'T': service: .* by 55, got 56"):
        schedule(replace(line(late, robot=ROBOT), robots=(ROBOT, later)), {"s": [["T", "T"]]})


@pytest.mark.parametrize(
    ("routes", "count"), [([["T"]], 1), ([["T"], ["T"]], 1), ([["T", "A", "T", "T"]], 3)]
)
def test_a_transfer_needs_its_two_stops_on_a_trip(routes: list[list[str]], count: int) -> None:
    """One, or one on each of two trips, is no transfer."""
    t = Request(id="T", kind=Kind.TRANSFER, origin="b", place="c", due_s=90.0)
    instance = line(t, Request(id="A", place="a", due_s=90.0), robot=ROBOT)
    message = f"'r': request 'T': stops: expected a pickup and a drop on one trip, got {count}"
    with pytest.raises(ValueError, match=message):
        schedule(instance, {"r": routes})


def test_transferred_loads_count_between_their_stops() -> None:
    """Two loads of 1 fit beside each other, a third only when one has been dropped."""
    loads = [
        Request(id=i, kind=Kind.TRANSFER, origin="a", place="b", load=1.0, due_s=150.0)
        for i in "TUV"
    ]
    instance = line(*loads, robot=ROBOT)
    schedule(instance, {"r": [["T", "U", "T", "V", "U", "V"]]})
    with pytest.raises(ValueError, match=r"'r': request 'V': load: .* capacity 2, got 3"):
        schedule(instance, {"r": [["T", "U", "V", "T", "U", "V"]]})


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ({"x": [["A"]]}, "robot 'x': no robot of this name in 'line'"),
        ({"r": [["Z"]]}, "robot 'r': request 'Z': no request of this name in 'line'"),
        ({"r": [["A"], []]}, "robot 'r': trip: expected at least one request, got none"),
        ({"r": [["A"], ["A"], ["A"]]}, "robot 'r': trips: expected at most 2, got 3"),
        ({"r": [["A"], ["A"]]}, "request 'A': return: expected by 39, got 40"),
    ],
)
def test_what_cannot_be_driven_is_named(routes: dict[str, list[list[str]]], message: str) -> None:
    """Every refusal names the robot, the request and the bound."""
    a = Request(id="A", place="a", due_s=30.0)
    instance = line(a, robot=Robot(id="r", capacity=1.0, end_s=39.0, max_trips=2))
    with pytest.raises(ValueError, match=message):
        schedule(instance, routes)


def test_denied_requests_are_passed_on() -> None:
    """A plan may deny everything."""
    a = Request(id="A", place="a", due_s=30.0)
    plan = schedule(line(a, robot=ROBOT), {}, ["A"])
    assert plan.trips == ()
    assert plan.denied == ("A",)


stops = st.tuples(
    st.integers(0, 40),  # earliest
    st.integers(0, 20),  # width of the window
    st.integers(0, 9),  # service
    st.integers(0, 15),  # travel from the stop before
    st.integers(0, 5),  # load
    st.booleans(),  # deliver?
)


def segment(stop: tuple[int, int, int, int, int, bool]) -> Segment:
    earliest, width, service, _, load, is_deliver = stop
    return Segment.of(
        Request(
            id="x",
            place="a",
            ready_s=earliest,
            due_s=earliest + width,
            service_s=service,
            load=load,
            kind=Kind.DELIVER if is_deliver else Kind.COLLECT,
        )
    )


def simulate(
    route: list[tuple[int, int, int, int, int, bool]], start: float
) -> tuple[float, float]:
    """Duration and time warp when the robot stands at the first stop at `start`."""
    time, warp = start, 0.0
    for k, (earliest, width, service, travel, _, _) in enumerate(route):
        time = max(time + (travel if k else 0), earliest)
        warp += max(0.0, time - earliest - width)
        time = min(time, earliest + width) + service
    return time - start + warp, warp


@given(st.lists(stops, min_size=2, max_size=7), st.data())
def test_segments_agree_with_driving_for_any_split(
    route: list[tuple[int, int, int, int, int, bool]], data: st.DataObject
) -> None:
    """Least duration and time warp over all starts, reached between earliest and latest."""

    def join(first: int, last: int) -> Segment:
        if last - first == 1:
            return segment(route[first])
        cut = data.draw(st.integers(first + 1, last - 1))
        return concatenate(join(first, cut), join(cut, last), route[cut][3])

    whole = join(0, len(route))
    for start in (whole.earliest_s, whole.latest_s):
        assert simulate(route, start) == (whole.duration_s, whole.time_warp_s)
    # No start in the first window does better.
    for start in range(route[0][0], route[0][0] + route[0][1] + 1):
        duration, warp = simulate(route, start)
        assert duration >= whole.duration_s
        assert warp >= whole.time_warp_s


@given(st.lists(stops, min_size=1, max_size=7))
def test_segments_carry_the_peak_load(
    route: list[tuple[int, int, int, int, int, bool]],
) -> None:
    """The highest load on any leg, with deliveries on board from the start."""
    whole = segment(route[0])
    for _, stop in pairwise(route):
        whole = concatenate(whole, segment(stop), stop[3])
    on_board = [sum(load for *_, load, is_deliver in route if is_deliver)]
    for *_, load, is_deliver in route:
        on_board.append(on_board[-1] + (-load if is_deliver else load))
    assert whole.deliver_load == on_board[0]
    assert whole.collect_load == on_board[-1]
    assert whole.peak_load == max(on_board)
