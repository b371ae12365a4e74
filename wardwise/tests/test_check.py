"""The checker finds every broken rule, names it, and finds nothing in a sound plan."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.check import Constraint, check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot

# Places on a line: depot at 0 m, A at 10, B at 20, C at 30; a robot drives 1 m/s.
X_M = {"depot": 0.0, "A": 10.0, "B": 20.0, "C": 30.0}


def line_travel(x_m):
    """Distances between points on a line."""
    return np.abs(np.subtract.outer(x_m, x_m))


def morning(**changes):
    """One robot collects at A and C and delivers at B, in two trips; d may be denied."""
    travel = line_travel(list(X_M.values()))
    instance = Instance(
        name="morning",
        places=tuple(Place(id=name, x_m=x) for name, x in X_M.items()),
        requests=(
            Request(id="a", place="A", load=2, due_s=100, service_s=5),
            Request(
                id="b", place="B", kind=Kind.DELIVER, load=3, ready_s=30, due_s=60, service_s=5
            ),
            Request(id="c", place="C", load=2, due_s=105, service_s=5, priority=1, tolerance_s=10),
            Request(id="d", place="A", load=4, due_s=100, priority=2),
        ),
        robots=(
            Robot(id="r1", capacity=5, start_s=10, end_s=150, max_trips=2),
            Robot(id="r2", capacity=4, start_s=0, end_s=150),
        ),
        travel_s=travel,
        distance_m=travel,
        reload_s=20,
    )
    return replace(instance, **changes)


# Trip 1: 10 m to A, arrive 20, leave 25; 10 m to B, arrive 35, leave 40; 20 m back: 60.
# Loaded with b's 3, then a's 2 more: exactly the capacity of 5; after B 2 remain.
FIRST = Trip(
    robot="r1",
    depart_s=10,
    stops=(
        Stop(request="a", arrive_s=20, start_s=20),
        Stop(request="b", arrive_s=35, start_s=35),
    ),
    return_s=60,
)
# Trip 2: reloaded at 80; 30 m to C, arrive 110, 5 s late, leave 115; back at 145.
SECOND = Trip(
    robot="r1", depart_s=80, stops=(Stop(request="c", arrive_s=110, start_s=110),), return_s=145
)
PLAN = Plan(instance="morning", trips=(FIRST, SECOND), denied=("d",))


def with_first(**changes):
    """The plan with another first trip."""
    return replace(PLAN, trips=(replace(FIRST, **changes), SECOND))


def with_second(**changes):
    """The plan with another second trip."""
    return replace(PLAN, trips=(FIRST, replace(SECOND, **changes)))


def stop(request, arrive_s, start_s=None):
    """A stop that starts on arrival unless told otherwise."""
    return Stop(
        request=request, arrive_s=arrive_s, start_s=arrive_s if start_s is None else start_s
    )


def found(plan, instance=None):
    """What the checker names: constraint, request, robot."""
    report = check(instance or morning(), plan)
    assert report.is_feasible == (not report.violations)
    return [(v.constraint, v.request, v.robot) for v in report.violations]


def test_sound_plan_passes_and_costs_what_it_costs():
    """100 m (40 + 60), one robot, 5 s late at stat price 10, one urgent denial at 400."""
    report = check(morning(), PLAN)
    assert report.is_feasible
    assert report.cost.num_robots == 1
    assert report.cost.distance_m == 100
    assert (report.cost.num_late, report.cost.lateness_s) == (1, 5)
    assert report.cost.num_denied == 1
    assert report.cost.robot_cost == 100
    assert report.cost.distance_cost == 100
    assert report.cost.lateness_cost == 50
    assert report.cost.denial_cost == 400
    assert report.cost.total == 650


MUTATIONS = {
    "another instance": (replace(PLAN, instance="evening"), [("instance", None, None)]),
    "strange robot": (
        replace(PLAN, trips=(FIRST, replace(SECOND, robot="r9"))),
        [("unknown-robot", None, "r9")],
    ),
    "strange request denied": (
        replace(PLAN, denied=("d", "z")),
        [("unknown-request", "z", None)],
    ),
    # Legs to and from z cannot be judged: 144 would be too early after C, not after z.
    "strange request served": (
        with_second(stops=(*SECOND.stops, stop("z", 116)), return_s=144),
        [("unknown-request", "z", "r1")],
    ),
    "forgotten": (replace(PLAN, denied=()), [("unserved", "d", None)]),
    "forgotten stop": (with_first(stops=FIRST.stops[1:]), [("unserved", "a", None)]),
    "denied twice": (replace(PLAN, denied=("d", "d")), [("denied-twice", "d", None)]),
    "served and denied": (
        replace(PLAN, denied=("d", "c")),
        [("served-and-denied", "c", "r1")],
    ),
    # Again to A at 90, leave 95; 20 m to C: 115, leave 120; 30 m back: 150.
    "served twice": (
        with_second(stops=(stop("a", 90), stop("c", 115)), return_s=150),
        [("served-twice", "a", "r1")],
    ),
    "starts early": (
        with_first(stops=(stop("b", 30, 29), stop("a", 45)), return_s=60),
        [("waiting", "b", "r1"), ("early", "b", "r1")],
    ),
    "starts before it arrives": (
        with_second(stops=(stop("c", 111, 110),)),
        [("waiting", "c", "r1")],
    ),
    "arrives too soon after the depot": (
        with_first(stops=(stop("a", 19.9), FIRST.stops[1])),
        [("travel", "a", "r1")],
    ),
    "arrives too soon after a stop": (
        with_first(stops=(FIRST.stops[0], stop("b", 34.9)), return_s=60),
        [("travel", "b", "r1")],
    ),
    "too late": (
        with_second(stops=(stop("c", 110, 115.1),), return_s=150.0),
        [("late", "c", "r1"), ("return", None, "r1")],
    ),
    "departs before the shift": (with_first(depart_s=9.9), [("shift", None, "r1")]),
    "returns after the shift": (with_second(return_s=150.1), [("shift", None, "r1")]),
    "no time to reload": (with_second(depart_s=79.9), [("reload", None, "r1")]),
    "trips swapped": (replace(PLAN, trips=(SECOND, FIRST)), [("reload", None, "r1")]),
    "back too soon": (with_first(return_s=59.9), [("return", None, "r1")]),
    "not a number": (
        with_first(stops=(FIRST.stops[0], stop("b", math.nan, 35))),
        [("non-finite", "b", "r1")],
    ),
    "never starts": (
        with_second(stops=(stop("c", 110, math.inf),)),
        [("non-finite", "c", "r1")],
    ),
    "never returns": (with_second(return_s=math.inf), [("non-finite", None, "r1")]),
    "departs at minus infinity": (
        with_first(depart_s=-math.inf),
        [("non-finite", None, "r1")],
    ),
}


@pytest.mark.parametrize(("plan", "expected"), MUTATIONS.values(), ids=MUTATIONS)
def test_mutated_plan_breaks_exactly_the_named_rules(plan, expected):
    """Each change is reported once, where it was made, and nothing else is."""
    assert found(plan) == expected


def test_boundaries_pass():
    """A robot may use its shift, window, tolerance and reload time to the last second."""
    last = with_second(stops=(stop("c", 115),), return_s=150)
    assert found(last) == []


@pytest.mark.parametrize(("miss_s", "expected"), [(0.9e-6, []), (1.1e-6, ["travel"])])
def test_tolerance_is_a_microsecond(miss_s, expected):
    """Rounding errors pass, anything larger does not."""
    plan = with_first(stops=(stop("a", 20 - miss_s, 20), FIRST.stops[1]))
    assert [constraint for constraint, _, _ in found(plan)] == expected


def test_tolerance_can_be_chosen():
    """A plan rounded to whole seconds passes at a tolerance of half a second."""
    plan = with_first(stops=(stop("a", 19.6, 20), FIRST.stops[1]))
    assert check(morning(), plan, tolerance_s=0.5).is_feasible
    with pytest.raises(ValueError, match="tolerance_s: expected a finite number of at least 0"):
        check(morning(), plan, tolerance_s=math.nan)


def test_too_many_trips():
    """Two trips where one is allowed."""
    once = replace(morning().robots[0], max_trips=1)
    assert found(PLAN, morning(robots=(once,))) == [("max-trips", None, "r1")]


@pytest.mark.parametrize(
    ("kinds", "capacity", "expected"),
    [
        # a, b, c of loads 2, 3, 2 in this order on one trip; the load on each leg:
        ((Kind.COLLECT, Kind.COLLECT, Kind.COLLECT), 7, []),  # 0 2 5 7
        ((Kind.COLLECT, Kind.COLLECT, Kind.COLLECT), 6, ["c"]),
        ((Kind.COLLECT, Kind.COLLECT, Kind.COLLECT), 4, ["b", "c"]),
        ((Kind.DELIVER, Kind.DELIVER, Kind.DELIVER), 7, []),  # 7 5 2 0
        ((Kind.DELIVER, Kind.DELIVER, Kind.DELIVER), 6, ["a"]),  # named: the first stop
        ((Kind.COLLECT, Kind.DELIVER, Kind.COLLECT), 5, []),  # 3 5 2 4
        ((Kind.COLLECT, Kind.DELIVER, Kind.COLLECT), 4, ["a"]),
        ((Kind.DELIVER, Kind.COLLECT, Kind.DELIVER), 5, []),  # 4 2 5 3
        ((Kind.DELIVER, Kind.COLLECT, Kind.DELIVER), 4, ["b"]),
    ],
)
def test_load_on_every_leg(kinds, capacity, expected):
    """Deliveries are on board from the depot, collections up to it."""
    *wanted, _ = morning().requests
    requests = tuple(replace(r, kind=kind) for r, kind in zip(wanted, kinds, strict=True))
    robot = Robot(id="r1", capacity=capacity, end_s=500)
    stops = (stop("a", 10), stop("b", 30), stop("c", 45))
    trip = Trip(robot="r1", depart_s=0, stops=stops, return_s=80)
    plan = Plan(instance="morning", trips=(trip,))
    result = found(plan, morning(requests=requests, robots=(robot,)))
    assert result == [("capacity", request, "r1") for request in expected]


def test_kind_may_be_plain_text():
    """A request built with "deliver" in place of the enumeration weighs the same."""
    a, b, c, d = morning().requests
    assert found(PLAN, morning(requests=(a, replace(b, kind="deliver"), c, d))) == []
    heavy = replace(b, kind="deliver", load=4)  # 4 from the depot, 4 + 2 after a
    assert found(PLAN, morning(requests=(a, heavy, c, d))) == [("capacity", "a", "r1")]


def test_loads_that_add_up_with_rounding_fit():
    """0.1 + 0.2 is above 0.3 in doubles, but not on a robot."""
    a, b, *_ = morning().requests
    requests = (replace(a, load=0.1), replace(b, load=0.2, kind=Kind.COLLECT))
    robot = Robot(id="r1", capacity=0.3, end_s=150)
    plan = Plan(instance="morning", trips=(replace(FIRST),))
    assert found(plan, morning(requests=requests, robots=(robot,))) == []


def test_service_waits_for_the_release():
    """A request released at 21 cannot be started at 20."""
    first, *others = morning().requests
    instance = morning(requests=(replace(first, release_s=21), *others))
    assert found(PLAN, instance) == [("early", "a", "r1")]


def test_leg_without_a_way_is_a_travel_violation():
    """Where no corridor leads from A to B, no arrival is late enough; its metres do not count."""
    travel = line_travel(list(X_M.values()))
    travel[1, 2] = math.inf
    instance = morning(travel_s=travel, distance_m=travel)
    assert found(PLAN, instance) == [("travel", "b", "r1")]
    assert check(instance, PLAN).cost.distance_m == 90


def test_every_constraint_is_provoked():
    """Each rule stands in a test above; transfers, dispatch, batteries have tests of their own."""
    named = {constraint for _, expected in MUTATIONS.values() for constraint, _, _ in expected}
    energy = {"charging", "battery", "overcharge", "recharge", "unknown-station", "slots", "goods"}
    assert named | {"capacity", "max-trips", "pairing", "foresight"} | energy == set(Constraint)


def test_all_violations_of_a_hopeless_plan_are_reported():
    """Nothing hides behind the first finding."""
    trip = Trip(robot="r9", depart_s=0, stops=(stop("a", 1),), return_s=2)
    assert [constraint for constraint, _, _ in found(Plan(instance="x", trips=(trip,)))] == [
        "instance",
        "unserved",
        "unserved",
        "unserved",
        "unknown-robot",
        "travel",
        "return",
    ]


whole = st.integers(0, 30)


@st.composite
def timed_routes(draw):
    """An instance on a line and one trip through all its requests, timed by a forward pass."""
    x_m = draw(st.lists(whole, min_size=1, max_size=6))
    requests = tuple(
        Request(
            id=f"q{k}",
            place=f"p{k}",
            kind=draw(st.sampled_from([Kind.COLLECT, Kind.DELIVER])),
            load=draw(st.integers(0, 5)),
            ready_s=(ready_s := draw(whole)),
            due_s=ready_s + 40 + draw(whole),
            service_s=draw(st.integers(0, 9)),
        )
        for k in range(len(x_m))
    )
    travel = line_travel([0, *x_m])
    places = (Place(id="depot"), *(Place(id=f"p{k}", x_m=x) for k, x in enumerate(x_m)))
    robots = (Robot(id="r", capacity=draw(st.integers(5, 20)), end_s=draw(st.integers(140, 300))),)
    instance = Instance(
        name="line",
        places=places,
        requests=requests,
        robots=robots,
        travel_s=travel,
        distance_m=travel,
    )
    here, clock_s, stops = 0, 0.0, []
    for request, x in zip(requests, x_m, strict=True):
        arrive_s = clock_s + abs(x - here)
        start_s = max(arrive_s, request.ready_s)
        stops.append(Stop(request=request.id, arrive_s=arrive_s, start_s=start_s))
        here, clock_s = x, start_s + request.service_s
    trip = Trip(robot="r", depart_s=0, stops=tuple(stops), return_s=clock_s + here)
    return instance, trip


@given(timed_routes())
def test_forward_pass_breaks_only_windows_shift_and_capacity(case):
    """Verdict and metres agree with sums written out by hand, leg by leg."""
    instance, trip = case
    late = {
        stop.request
        for stop, request in zip(trip.stops, instance.requests, strict=True)
        if stop.start_s > request.due_s
    }
    loads = [
        sum(r.load for r in instance.requests[k:] if r.kind == "deliver")
        + sum(r.load for r in instance.requests[:k] if r.kind == "collect")
        for k in range(len(trip.stops) + 1)
    ]
    points = [0, *(place.x_m for place in instance.places[1:]), 0]
    report = check(instance, Plan(instance="line", trips=(trip,)))
    constraints = {v.constraint for v in report.violations}
    assert {v.request for v in report.violations if v.constraint == "late"} == late
    assert ("shift" in constraints) == (trip.return_s > instance.robots[0].end_s)
    assert ("capacity" in constraints) == (max(loads) > instance.robots[0].capacity)
    assert constraints <= {"late", "shift", "capacity"}
    assert report.cost.distance_m == sum(abs(b - a) for a, b in pairwise(points))


@given(timed_routes(), st.data())
def test_any_time_moved_forward_is_noticed(case, data):
    """A robot that is a second ahead of the forward pass anywhere is caught there."""
    instance, trip = case
    k = data.draw(st.integers(0, len(trip.stops) - 1))
    early = replace(trip.stops[k], arrive_s=trip.stops[k].arrive_s - 1)
    stops = (*trip.stops[:k], early, *trip.stops[k + 1 :])
    report = check(instance, Plan(instance="line", trips=(replace(trip, stops=stops),)))
    assert ("travel", f"q{k}") in {(v.constraint, v.request) for v in report.violations}
