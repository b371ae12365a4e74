"""The checker on days that were dispatched or driven, and on trips that were broken off."""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.check import Timing, check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot

# Places on a line: depot at 0 m, A at 10, B at 20, C at 30; a robot drives 1 m/s.
X_M = {"depot": 0.0, "A": 10.0, "B": 20.0, "C": 30.0}
NOT_PLANNED = [Timing.DISPATCHED, Timing.EXECUTED]


def shift(**changes):
    """One robot brings d to A, collects c at C, and on a second trip carries t from B to A."""
    travel = np.abs(np.subtract.outer(list(X_M.values()), list(X_M.values())))
    instance = Instance(
        name="shift",
        places=tuple(Place(id=name, x_m=x) for name, x in X_M.items()),
        requests=(
            Request(id="d", place="A", kind=Kind.DELIVER, load=1, ready_s=14, due_s=60),
            Request(id="c", place="C", load=2, due_s=40, service_s=5, tolerance_s=10),
            Request(
                id="t", origin="B", place="A", kind=Kind.TRANSFER, load=3, ready_s=112, due_s=130
            ),
        ),
        robots=(Robot(id="r1", capacity=3, start_s=5, end_s=150, max_trips=2),),
        travel_s=travel,
        distance_m=travel,
        reload_s=10,
    )
    return replace(instance, **changes)


def stop(request, arrive_s, start_s=None, **fields):
    """A stop that starts on arrival unless told otherwise."""
    start_s = arrive_s if start_s is None else start_s
    return Stop(request=request, arrive_s=arrive_s, start_s=start_s, **fields)


# Trip 1: at A 15; at C 35, waits to 40, leave 45; 30 m back: 75.
FIRST = Trip(robot="r1", depart_s=5, stops=(stop("d", 15), stop("c", 35, 40)), return_s=75)
# Trip 2: reloaded at 85; at B 110, waits to 112; at A 122; back at 132.
SECOND = Trip(
    robot="r1",
    depart_s=90,
    stops=(stop("t", 110, 112, is_pickup=True), stop("t", 122)),
    return_s=132,
)
PLAN = Plan(instance="shift", trips=(FIRST, SECOND))


def with_first(**changes):
    """The plan with another first trip."""
    return replace(PLAN, trips=(replace(FIRST, **changes), SECOND))


def with_second(**changes):
    """The plan with another second trip."""
    return replace(PLAN, trips=(FIRST, replace(SECOND, **changes)))


def found(plan, timing, instance=None):
    """What the checker names: constraint and request."""
    report = check(instance or shift(), plan, timing=timing)
    return [(v.constraint, v.request) for v in report.violations]


def released(request_id, release_s):
    """The instance with one request that becomes known during the day."""
    return shift(
        requests=tuple(
            replace(r, release_s=release_s) if r.id == request_id else r for r in shift().requests
        )
    )


@pytest.mark.parametrize("timing", Timing)
def test_sound_plan_passes(timing):
    """What was known beforehand can be planned, dispatched and driven."""
    assert found(PLAN, timing) == []


@pytest.mark.parametrize(
    ("timing", "request_id", "latest_release_s"),
    [
        # The goods for d are loaded before the robot leaves at 5, whatever is measured later.
        (Timing.DISPATCHED, "d", 5),
        (Timing.EXECUTED, "d", 5),
        # C is reached at 35 after a drive of 20 s, which thus began at 15.
        (Timing.DISPATCHED, "c", 15),
        # B is reached at 110 after 20 s; the drop was not left for any earlier.
        (Timing.DISPATCHED, "t", 90),
        # How long a driven leg took is not known: it ended at 35 and at 110.
        (Timing.EXECUTED, "c", 35),
        (Timing.EXECUTED, "t", 110),
    ],
)
def test_no_robot_leaves_for_what_nobody_knows(timing, request_id, latest_release_s):
    """The last release that can be met passes, a later one is foresight, planned or not."""
    assert found(PLAN, timing, released(request_id, latest_release_s)) == []
    # In time for the service, which waits or is a drive away; but nobody knew where to drive.
    late = released(request_id, latest_release_s + 0.1)
    assert found(PLAN, timing, late) == [("foresight", request_id)]
    assert found(PLAN, Timing.PLANNED, late) == []


def test_waiting_at_the_stop_before_gives_time_to_learn():
    """A robot that stays at A for 5 s reaches C at 40, and may have heard of c at 20."""
    plan = with_first(stops=(FIRST.stops[0], stop("c", 40)))
    assert found(plan, Timing.DISPATCHED, released("c", 20)) == []
    assert found(plan, Timing.DISPATCHED, released("c", 20.1)) == [("foresight", "c")]


@pytest.mark.parametrize("timing", NOT_PLANNED)
def test_foresight_has_the_tolerance_of_all_times(timing):
    """Rounding errors pass, anything larger does not."""
    assert found(PLAN, timing, released("d", 5 + 0.9e-6)) == []
    assert found(PLAN, timing, released("d", 5 + 1.1e-6)) == [("foresight", "d")]


# What may happen on the way, with what the checker says where it was planned so.
OUTCOMES = {
    "drives quickly": (with_first(stops=(stop("d", 14), FIRST.stops[1])), [("travel", "d")]),
    "serves and returns quickly": (with_first(return_s=44), [("return", None)]),
    "starts late": (
        with_first(stops=(FIRST.stops[0], stop("c", 35, 50.1)), return_s=85.1),
        [("reload", None), ("late", "c")],
    ),
    "overruns its shift": (with_second(return_s=150.1), [("shift", None)]),
    "reloads quickly": (with_first(return_s=90), [("reload", None)]),
}


@pytest.mark.parametrize(("plan", "planned"), OUTCOMES.values(), ids=OUTCOMES)
def test_facts_are_no_violations(plan, planned):
    """Where it was planned so, each of them is one."""
    assert found(plan, Timing.PLANNED) == planned
    assert found(plan, Timing.EXECUTED) == []


def test_lateness_is_priced_when_it_happens():
    """Service at c starts at 50.1, due at 40, at the routine price of 1 a second."""
    cost = check(shift(), OUTCOMES["starts late"][0], timing=Timing.EXECUTED).cost
    assert cost.num_late == 1
    assert cost.lateness_cost == pytest.approx(10.1)


VIOLATIONS = {
    "arrives before it leaves the depot": (
        with_first(depart_s=15.1),
        [("travel", "d")],
    ),
    "arrives before the stop before has started": (
        with_first(stops=(stop("d", 15, 35.1), FIRST.stops[1])),
        [("travel", "c")],
    ),
    "starts before it arrives": (
        with_first(stops=(stop("d", 15.1, 15), FIRST.stops[1])),
        [("waiting", "d")],
    ),
    "starts before the ward opens": (
        with_first(stops=(stop("d", 13.9), FIRST.stops[1])),
        [("early", "d")],
    ),
    "returns before the last start": (with_first(return_s=39.9), [("return", None)]),
    "leaves before it is back": (with_first(return_s=90.1), [("reload", None)]),
    "leaves before its shift": (with_first(depart_s=4.9), [("shift", None)]),
    "is never back": (with_second(return_s=np.inf), [("non-finite", None)]),
    "forgets a request": (with_first(stops=FIRST.stops[:1]), [("unserved", "c")]),
    "forgets a drop": (with_second(stops=SECOND.stops[:1]), [("pairing", "t")]),
    "serves a strange request": (
        with_second(stops=(*SECOND.stops, stop("z", 125))),
        [("unknown-request", "z")],
    ),
    "serves twice": (
        with_second(stops=(*SECOND.stops, stop("c", 125))),
        [("served-twice", "c")],
    ),
    "serves and denies": (replace(PLAN, denied=("c",)), [("served-and-denied", "c")]),
    "is a strange robot": (
        replace(PLAN, trips=(FIRST, replace(SECOND, robot="r9"))),
        [("unknown-robot", None)],
    ),
    "makes too many trips": (
        replace(
            PLAN,
            trips=(
                replace(FIRST, stops=FIRST.stops[:1], return_s=25),
                replace(FIRST, stops=FIRST.stops[1:], depart_s=25),
                SECOND,
            ),
        ),
        [("max-trips", None)],
    ),
}


@pytest.mark.parametrize(("plan", "expected"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_facts_must_still_be_possible(plan, expected):
    """Order, completeness, loads and names are judged whatever was measured."""
    assert found(plan, Timing.EXECUTED) == expected


def test_loads_of_a_driven_day_are_judged():
    """The robot may hold 2.9 and carries 3."""
    instance = shift(
        robots=(Robot(id="r1", capacity=2.9, end_s=150), Robot(id="r2", capacity=3, end_s=150))
    )
    assert found(PLAN, Timing.EXECUTED, instance) == [("capacity", "t")]


def test_nobody_drives_where_there_is_no_way():
    """A corridor that does not exist is no quick drive."""
    travel = np.array(shift().travel_s)
    travel[1, 3] = np.inf
    assert found(PLAN, Timing.EXECUTED, shift(travel_s=travel)) == [("travel", "c")]


# The robot breaks down at 50 on its way home from C.
BROKEN = replace(FIRST, return_s=50, is_broken_off=True)


@pytest.mark.parametrize("timing", Timing)
def test_a_broken_off_trip_has_no_way_home(timing):
    """It counts 30 m to C and nothing after; the second trip has its 40."""
    plan = replace(PLAN, trips=(BROKEN, SECOND))
    report = check(shift(), plan, timing=timing)
    assert report.is_feasible
    assert report.cost.distance_m == 70
    whole = replace(PLAN, trips=(replace(BROKEN, is_broken_off=False), SECOND))
    expected = [] if timing is Timing.EXECUTED else [("return", None)]
    assert found(whole, timing) == expected


BREAKDOWNS = {
    "after the last start": (replace(BROKEN, return_s=40), SECOND, []),
    "before the last start": (replace(BROKEN, return_s=39.9), SECOND, [("return", None)]),
    # Whoever repairs the robot loads it, too.
    "out again at once": (replace(BROKEN, return_s=90), SECOND, []),
    "out again before": (replace(BROKEN, return_s=90.1), SECOND, [("reload", None)]),
    "with half a transfer": (
        FIRST,
        replace(SECOND, stops=SECOND.stops[:1], return_s=115, is_broken_off=True),
        [("pairing", "t")],
    ),
    "before handing over": (
        replace(BROKEN, stops=FIRST.stops[1:]),
        SECOND,
        [("unserved", "d")],
    ),
}


@pytest.mark.parametrize("timing", Timing)
@pytest.mark.parametrize(("first", "second", "expected"), BREAKDOWNS.values(), ids=BREAKDOWNS)
def test_breakdowns(first, second, expected, timing):
    """The end of a broken-off trip is judged by its last start and the next departure."""
    assert found(replace(PLAN, trips=(first, second)), timing) == expected


def test_breakdown_after_the_shift():
    """Within the shift or not is judged as of any return."""
    late = replace(SECOND, return_s=150.1, is_broken_off=True)
    assert found(replace(PLAN, trips=(FIRST, late)), Timing.DISPATCHED) == [("shift", None)]
    assert found(replace(PLAN, trips=(FIRST, late)), Timing.EXECUTED) == []
