"""Transfers in the problem: where they may go, and whether anybody can serve them."""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot

# From the depot 10 to A, from A 20 to B, from B 30 home; the other way round 9 each.
TRAVEL = np.array([[0.0, 10.0, 9.0], [9.0, 0.0, 20.0], [30.0, 9.0, 0.0]])
T = Request(
    id="t", origin="A", place="B", kind=Kind.TRANSFER, load=2, ready_s=5, due_s=36, service_s=5
)
ROBOT = Robot(id="r", capacity=2, start_s=1, end_s=71)


def instance(request=T, travel=TRAVEL, **changes):
    """One transfer and one robot that can just serve it: see the test below."""
    values = {
        "name": "pair",
        "places": (Place(id="depot"), Place(id="A"), Place(id="B")),
        "requests": (request,),
        "robots": (ROBOT,),
        "travel_s": travel,
        "distance_m": travel,
    }
    return Instance(**{**values, **changes})


def test_a_transfer_is_servable_to_the_last_second():
    """Out at 1, at A 11, leave 16, at B 36, leave 41, home at 71."""
    instance()
    late = r"request 't': unreachable: no robot can start service by 35.9 \(travel 30\)"
    with pytest.raises(ValueError, match=late):
        instance(replace(T, due_s=35.9))
    instance(replace(T, due_s=35.9, tolerance_s=0.1))
    with pytest.raises(ValueError, match="no robot can start service by 36"):
        instance(robots=(replace(ROBOT, end_s=70.9),))
    # Opening at 11.1, a tenth of a second after the robot has come.
    with pytest.raises(ValueError, match="no robot can start service by 36"):
        instance(replace(T, ready_s=11.1))


def test_another_robot_may_be_the_one():
    """One is too small and one too late, the third can do it."""
    small, late = replace(ROBOT, id="s", capacity=1), replace(ROBOT, id="l", start_s=2)
    with pytest.raises(ValueError, match="unreachable"):
        instance(robots=(small, late))
    instance(robots=(small, late, ROBOT))


def test_what_is_released_late_may_be_out_of_reach():
    """Then it is for the dispatcher to turn it down."""
    instance(replace(T, due_s=20, release_s=15))


@pytest.mark.parametrize("leg", [(0, 1), (1, 2), (2, 0)])
def test_a_transfer_needs_the_way_round(leg):
    """From the depot to A, to B and home; the other legs may be missing."""
    travel = TRAVEL.copy()
    for other in ((1, 0), (2, 1), (0, 2)):
        travel[other] = np.inf
    instance(travel=travel)
    travel[leg] = np.inf
    with pytest.raises(ValueError, match="unreachable: no way between the depot and 'A' and 'B'"):
        instance(travel=travel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": None}, "request 't': origin: expected another place than 'B', got None"),
        ({"origin": "B"}, "request 't': origin: expected another place than 'B', got 'B'"),
        ({"kind": "collect"}, "request 't': origin: expected none for kind collect, got 'A'"),
        ({"kind": Kind.DELIVER}, "request 't': origin: expected none for kind deliver, got 'A'"),
        ({"origin": "X"}, "request 't': origin: no place is called 'X'"),
        ({"place": "X"}, "request 't': place: no place is called 'X'"),
        ({"load": 3}, "request 't': load: expected at most the largest capacity 2, got 3"),
    ],
)
def test_bad_transfers_are_refused(change, message):
    """The message names request, field and what was expected."""
    with pytest.raises(ValueError, match=message):
        instance(replace(T, **change))


def test_either_end_may_be_the_depot():
    """A transfer from the depot is a delivery that is loaded at a stop, and so on."""
    instance(replace(T, origin="depot"))
    instance(replace(T, place="depot", due_s=50))


def test_stops_of_requests():
    """Only the pickup of a transfer is elsewhere than at `place`."""
    assert T.stop_place(is_pickup=True) == "A"
    assert T.stop_place(is_pickup=False) == "B"
    assert Request(id="c", place="B", due_s=9).stop_place(is_pickup=True) == "B"
