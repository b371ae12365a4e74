"""The checker on transfers: pairs of stops, loads between them, lateness at the drop."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.check import Timing, check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.schedule import schedule

# Places on a line: depot at 0 m, A at 10, B at 20, C at 30; a robot drives 1 m/s.
X_M = {"depot": 0.0, "A": 10.0, "B": 20.0, "C": 30.0}


def line_travel(x_m):
    """Distances between points on a line."""
    return np.abs(np.subtract.outer(x_m, x_m))


def transfer(id_, origin, place, **fields):
    """A request from ward to ward that takes 5 s at each end."""
    return Request(
        id=id_, origin=origin, place=place, kind=Kind.TRANSFER, service_s=5, load=2, **fields
    )


def rounds(**changes):
    """One robot carries t from A to C around a delivery to B, then u from B to A."""
    travel = line_travel(list(X_M.values()))
    instance = Instance(
        name="rounds",
        places=tuple(Place(id=name, x_m=x) for name, x in X_M.items()),
        requests=(
            transfer("t", "A", "C", ready_s=15, due_s=60, priority=1),
            Request(id="d", place="B", kind=Kind.DELIVER, load=3, due_s=60, service_s=5),
            transfer("u", "B", "A", due_s=105, tolerance_s=20, priority=2),
        ),
        robots=(
            Robot(id="r1", capacity=5, start_s=4, end_s=160),
            Robot(id="r2", capacity=5, end_s=160),
        ),
        travel_s=travel,
        distance_m=travel,
        reload_s=10,
    )
    return replace(instance, **changes)


def stop(request, arrive_s, start_s=None):
    """A stop that starts on arrival unless told otherwise."""
    return Stop(
        request=request, arrive_s=arrive_s, start_s=arrive_s if start_s is None else start_s
    )


def pickup(request, arrive_s, start_s=None):
    """The first stop of a transfer."""
    return replace(stop(request, arrive_s, start_s), is_pickup=True)


# Trip 1: at A 15, leave 20; at B 30, leave 35; at C 45, leave 50; 30 m back: 80.
# Loaded with d's 3, then t's 2 more: exactly the capacity of 5; 2 after B, 0 after C.
FIRST = Trip(
    robot="r1",
    depart_s=5,
    stops=(pickup("t", 15), stop("d", 30), stop("t", 45)),
    return_s=80,
)
# Trip 2: reloaded at 90; at B 110, leave 115; at A 125, 20 s late, leave 130; back at 140.
SECOND = Trip(robot="r1", depart_s=90, stops=(pickup("u", 110), stop("u", 125)), return_s=140)
PLAN = Plan(instance="rounds", trips=(FIRST, SECOND))


def with_first(**changes):
    """The plan with another first trip."""
    return replace(PLAN, trips=(replace(FIRST, **changes), SECOND))


def with_second(**changes):
    """The plan with another second trip."""
    return replace(PLAN, trips=(FIRST, replace(SECOND, **changes)))


def and_by_r2(*stops, depart_s, return_s):
    """The plan with one more trip, of the second robot."""
    trip = Trip(robot="r2", depart_s=depart_s, stops=stops, return_s=return_s)
    return replace(PLAN, trips=(*PLAN.trips, trip))


def found(plan, instance=None, timing=Timing.PLANNED):
    """What the checker names: constraint, request, robot."""
    report = check(instance or rounds(), plan, timing=timing)
    return [(v.constraint, v.request, v.robot) for v in report.violations]


@pytest.mark.parametrize("timing", Timing)
def test_sound_plan_passes_and_is_priced_at_the_drops(timing):
    """100 m (60 + 40); u's pickup is 5 s late, which is free, its drop 20 s, at 3 a second."""
    report = check(rounds(), PLAN, timing=timing)
    assert report.is_feasible
    assert report.cost.distance_m == 100
    assert (report.cost.num_late, report.cost.lateness_s) == (1, 20)
    assert report.cost.lateness_cost == 60


MUTATIONS = {
    "forgotten": (replace(PLAN, trips=(FIRST,)), [("unserved", "u", None)]),
    "drop missing": (with_second(stops=SECOND.stops[:1]), [("pairing", "u", "r1")]),
    "pickup missing": (with_second(stops=SECOND.stops[1:]), [("pairing", "u", "r1")]),
    # Drop at A at 100, leave 105; pickup at B at 115, leave 120; 20 m back: 140.
    "reversed": (
        with_second(stops=(stop("u", 100), pickup("u", 115))),
        [("pairing", "u", "r1")],
    ),
    # u from B at 35, leave 40; t to C at 50, leave 55, back at 85; reloaded 95; u to A at 105.
    "split over two trips": (
        replace(
            PLAN,
            trips=(
                replace(
                    FIRST,
                    stops=(*FIRST.stops[:2], pickup("u", 35), stop("t", 50)),
                    return_s=85,
                ),
                replace(SECOND, depart_s=95, stops=(stop("u", 105),)),
            ),
        ),
        [("pairing", "u", "r1")],
    ),
    "split over two robots": (
        replace(
            PLAN,
            trips=(
                FIRST,
                replace(SECOND, stops=SECOND.stops[:1]),
                Trip(robot="r2", depart_s=0, stops=(stop("u", 124),), return_s=139),
            ),
        ),
        [("pairing", "u", "r2")],
    ),
    # Both stops count as at B then: no way to drive in between.
    "picked up twice": (
        with_second(stops=(pickup("u", 110), pickup("u", 115))),
        [("pairing", "u", "r1")],
    ),
    # Both stops count as at A then.
    "dropped twice": (
        with_second(stops=(stop("u", 100), stop("u", 105))),
        [("served-twice", "u", "r1"), ("pairing", "u", "r1")],
    ),
    "delivery picked up": (
        with_first(stops=(FIRST.stops[0], pickup("d", 30), FIRST.stops[2])),
        [("pairing", "d", "r1")],
    ),
    # A mark does not hide what holds for all stops: out of turn, d is 0.1 s too late.
    "late delivery picked up": (
        replace(
            PLAN,
            trips=(
                replace(
                    FIRST,
                    stops=(FIRST.stops[0], stop("t", 40), pickup("d", 55, 60.1)),
                    return_s=86,
                ),
            ),
            denied=("u",),
        ),
        [("pairing", "d", "r1"), ("late", "d", "r1")],
    ),
    "delivery picked up and delivered": (
        and_by_r2(pickup("d", 20), depart_s=0, return_s=45),
        [("served-twice", "d", "r2"), ("pairing", "d", "r2")],
    ),
    "two pairs": (
        and_by_r2(pickup("u", 20), stop("u", 35), depart_s=0, return_s=50),
        [("served-twice", "u", "r2")],
    ),
    "a pair and a drop": (
        and_by_r2(stop("u", 35), depart_s=0, return_s=50),
        [("served-twice", "u", "r2"), ("pairing", "u", "r2")],
    ),
    "served and denied": (replace(PLAN, denied=("u",)), [("served-and-denied", "u", "r1")]),
    "half served and denied": (
        replace(with_second(stops=SECOND.stops[:1]), denied=("u",)),
        [("served-and-denied", "u", "r1"), ("pairing", "u", "r1")],
    ),
    "picked up early": (
        with_first(depart_s=4, stops=(pickup("t", 14), *FIRST.stops[1:])),
        [("early", "t", "r1")],
    ),
    "dropped late": (
        with_second(stops=(SECOND.stops[0], stop("u", 125.1)), return_s=141),
        [("late", "u", "r1")],
    ),
    # At B at 126, leave 131; at A 141, leave 146; back at 156. Only the drop has a latest start.
    "picked up and dropped late": (
        with_second(depart_s=106, stops=(pickup("u", 126), stop("u", 141)), return_s=156),
        [("late", "u", "r1")],
    ),
    "reaches the origin too soon": (
        with_second(stops=(pickup("u", 109.9, 110), SECOND.stops[1])),
        [("travel", "u", "r1")],
    ),
    "reaches the place too soon": (
        with_second(stops=(SECOND.stops[0], stop("u", 124.9, 125))),
        [("travel", "u", "r1")],
    ),
    "leaves no time to take the load on board": (
        with_second(stops=(pickup("u", 110, 110.1), SECOND.stops[1])),
        [("travel", "u", "r1")],
    ),
}


@pytest.mark.parametrize(("plan", "expected"), MUTATIONS.values(), ids=MUTATIONS)
def test_mutated_plan_breaks_exactly_the_named_rules(plan, expected):
    """Each change is reported once, and nothing else is."""
    assert found(plan) == expected


def test_only_the_pickup_waits_for_the_window():
    """A drop before the ward opens is no earlier than its pickup, or else out of order."""
    t, d, u = rounds().requests
    instance = rounds(requests=(t, d, replace(u, ready_s=105)))
    assert found(PLAN, instance) == []
    assert found(MUTATIONS["reversed"][0], instance) == [("pairing", "u", "r1")]


def test_pairing_names_what_is_wrong():
    """A transfer and another request are told apart."""
    half = check(rounds(), MUTATIONS["drop missing"][0]).violations
    assert half[0].message == "request 'u' is not picked up and then dropped on one trip"
    strange = check(rounds(), MUTATIONS["delivery picked up"][0]).violations
    assert strange[0].message == "request 'd' is picked up, but is no transfer"


@pytest.mark.parametrize(
    ("capacity", "expected"),
    [(5, []), (4.9, ["t"]), (3, ["t"]), (2.9, ["t", "t"])],
)
def test_a_transfer_is_on_board_between_its_stops(capacity, expected):
    """The legs carry 3, 5, 2, 0, then 0, 2, 0; the first is named after its first stop, t."""
    robot = Robot(id="r1", capacity=capacity, end_s=150)
    big = Robot(id="r2", capacity=9, end_s=150)
    result = found(PLAN, rounds(robots=(robot, big)))
    assert result == [("capacity", request, "r1") for request in expected]


def test_a_transfer_may_start_or_end_at_the_depot():
    """From the depot at 5 s, at C 40, leave 45; from C at 50 to the depot, there at 80."""
    out = transfer("out", "depot", "C", due_s=60)
    back = transfer("back", "C", "depot", due_s=100)
    trip = Trip(
        robot="r1",
        depart_s=5,
        stops=(pickup("out", 5), stop("out", 40), pickup("back", 45), stop("back", 80)),
        return_s=85,
    )
    instance = rounds(requests=(out, back))
    plan = Plan(instance="rounds", trips=(trip,))
    assert found(plan, instance) == []
    assert check(instance, plan).cost.distance_m == 60
    timed = schedule(instance, {"r1": [["out", "out", "back", "back"]]})
    # The shift starts at 4: all is a second earlier.
    assert timed.trips[0].return_s == 84


whole = st.integers(0, 30)


@st.composite
def mixed_routes(draw):
    """An instance on a line, an order of all its stops, and one trip timed by a forward pass."""
    x_m = draw(st.lists(whole, min_size=2, max_size=5))
    requests, order = [], []
    for k, ward in enumerate(draw(st.lists(st.integers(0, len(x_m) - 1), min_size=1, max_size=6))):
        kind = draw(st.sampled_from(Kind))
        request = Request(
            id=f"q{k}",
            place=f"p{ward}",
            origin=f"p{(ward + 1) % len(x_m)}" if kind is Kind.TRANSFER else None,
            kind=kind,
            load=draw(st.integers(0, 5)),
            ready_s=(ready_s := draw(whole)),
            due_s=ready_s + 90 + draw(whole),
            service_s=draw(st.integers(0, 9)),
        )
        requests.append(request)
        order += [request] * (2 if kind is Kind.TRANSFER else 1)
    order = draw(st.permutations(order))
    travel = line_travel([0, *x_m])
    instance = Instance(
        name="line",
        places=(Place(id="depot"), *(Place(id=f"p{k}", x_m=x) for k, x in enumerate(x_m))),
        requests=tuple(requests),
        robots=(Robot(id="r", capacity=draw(st.integers(5, 20)), end_s=draw(whole) + 400),),
        travel_s=travel,
        distance_m=travel,
    )
    at = {"depot": 0, **{f"p{k}": x for k, x in enumerate(x_m)}}
    points, clock_s, stops = [0], 0.0, []
    for k, request in enumerate(order):
        is_pickup = request.kind is Kind.TRANSFER and request not in order[:k]
        points.append(at[request.origin if is_pickup else request.place])
        arrive_s = clock_s + abs(points[-1] - points[-2])
        start_s = max(arrive_s, request.ready_s)
        stops.append(
            Stop(request=request.id, arrive_s=arrive_s, start_s=start_s, is_pickup=is_pickup)
        )
        clock_s = start_s + request.service_s
    trip = Trip(robot="r", depart_s=0, stops=tuple(stops), return_s=clock_s + points[-1])
    return instance, trip, [*points, 0]


def is_on_board(instance, stops, request, leg):
    """Whether a load is on the robot after `leg` stops, by the definition of its kind."""
    visits = [k for k, stop in enumerate(stops) if stop.request == request.id]
    begin = visits[0] + 1 if request.kind is not Kind.DELIVER else 0
    end = visits[-1] if request.kind is not Kind.COLLECT else len(stops)
    return begin <= leg <= end


@given(mixed_routes())
def test_verdict_agrees_with_definitions(case):
    """Late drops, overfull legs and metres are those written out by hand, leg by leg."""
    instance, trip, points = case
    report = check(instance, Plan(instance="line", trips=(trip,)))
    constraints = {v.constraint for v in report.violations}
    late = {
        stop.request
        for stop in trip.stops
        if not stop.is_pickup and stop.start_s > instance.request_by_id[stop.request].due_s
    }
    loads = [
        sum(r.load for r in instance.requests if is_on_board(instance, trip.stops, r, leg))
        for leg in range(len(trip.stops) + 1)
    ]
    assert {v.request for v in report.violations if v.constraint == "late"} == late
    assert ("capacity" in constraints) == (max(loads) > instance.robots[0].capacity)
    assert constraints <= {"late", "capacity"}
    assert report.cost.distance_m == sum(abs(b - a) for a, b in pairwise(points))
    assert report.cost.num_late == len(late)


@given(mixed_routes())
def test_schedule_refuses_exactly_what_the_checker_finds(case):
    """A sequence is timed to a feasible plan, or not at all if the checker objects to it."""
    instance, trip, _ = case
    routes = {"r": [[stop.request for stop in trip.stops]]}
    if check(instance, Plan(instance="line", trips=(trip,))).is_feasible:
        plan = schedule(instance, routes)
        assert check(instance, plan).is_feasible
        assert plan.trips[0].return_s == trip.return_s
        assert [s.start_s for s in plan.trips[0].stops] == [s.start_s for s in trip.stops]
    else:
        with pytest.raises(ValueError, match="robot 'r': request"):
            schedule(instance, routes)
