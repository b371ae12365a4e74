"""What a robot is told to do next, and what a search between events gets to work with."""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.dispatch import CancelStatus, Dispatcher, Step
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.schedule import schedule

# The depot at 0 m, wards a and b at 10 and 20 m; 1 m/s.
AT = np.array([0.0, 10.0, 20.0])
METRES = np.abs(AT[:, None] - AT[None])
AT_A = Request(id="a", place="a", ready_s=30, due_s=90, service_s=4)
AT_B = Request(id="b", place="b", due_s=90, service_s=2)
FROM_A_TO_B = Request(
    id="ab", kind=Kind.TRANSFER, origin="a", place="b", due_s=200, service_s=10, load=1
)


def planned(*trips, **robot):
    """A dispatcher whose only robot serves these requests, trip by trip."""
    requests = {request.id: request for trip in trips for request in trip}
    instance = Instance(
        name="corridor",
        places=(Place(id="depot"), Place(id="a"), Place(id="b")),
        requests=tuple(requests.values()),
        robots=(Robot(id="R", capacity=1.0, end_s=300.0, **robot),),
        travel_s=METRES,
        distance_m=METRES,
        reload_s=5.0,
    )
    stops = [
        [r.id for r in trip for _ in range(2 if r.kind is Kind.TRANSFER else 1)] for trip in trips
    ]
    return Dispatcher(instance, schedule(instance, {"R": stops}))


def step(request, place, *times, is_pickup=False):
    """A step with its four times."""
    names = ("depart_s", "earliest_s", "start_s", "end_s")
    moments = dict(zip(names, times, strict=True))
    return Step(request=request, place=place, is_pickup=is_pickup, **moments)


def test_steps_tell_when_to_leave_and_what_to_do():
    """To a by 30, not earlier than needed, then home at once, 5 s to reload, and on to b."""
    dispatcher = planned([AT_A], [AT_B])
    assert [dispatcher.step("R", k) for k in range(1, 6)] == [
        step("a", "a", 20, 30, 30, 34),
        step(None, "depot", 34, 0, 44, 49),
        step("b", "b", 49, 0, 69, 71),
        step(None, "depot", 71, 0, 91, 96),
        None,
    ]
    assert dispatcher.committed() == {}
    dispatcher.advance(20.0)
    assert dispatcher.step("R", 1) == step("a", "a", 20, 30, 30, 34)
    dispatcher.delay("R", 3.0, 25.0)
    assert dispatcher.step("R", 1) == step("a", "a", 23, 30, 33, 37)
    assert dispatcher.step("R", 2) == step(None, "depot", 37, 0, 47, 52)


def test_a_robot_at_home_without_a_plan_has_no_step():
    """Nothing was ever planned for it."""
    assert planned().step("R", 1) is None


def test_a_robot_on_its_only_trip_stays_out_as_long_as_it_can():
    """Home from a takes 10 s and its shift ends at 300."""
    dispatcher = planned([AT_A], max_trips=1)
    assert dispatcher.step("R", 2) == step(None, "depot", 290, 0, 300, 305)
    dispatcher.advance(290.0)
    assert dispatcher.step("R", 2) == step(None, "depot", 290, 0, 300, 305)


def test_a_cancelled_pickup_takes_as_long_as_it_was_said_to():
    """Loading at a from 10 takes 10 s and then 30 more; cancelled at 15, the robot leaves at 50."""
    dispatcher = planned([FROM_A_TO_B, AT_B])
    dispatcher.delay("R", 30.0, 12.0)
    assert dispatcher.step("R", 1).end_s == 50.0
    assert dispatcher.cancel("ab", 15.0).status is CancelStatus.RETURNED
    assert dispatcher.step("R", 1).end_s == 50.0
    assert dispatcher.step("R", 2).depart_s == 50.0


@pytest.mark.parametrize("kind", [Kind.COLLECT, Kind.TRANSFER])
def test_a_search_has_room_for_a_trip_per_request(kind):
    """Nine stops or pairs, a depot behind each and one before: kernels check no bounds."""
    origin = "a" if kind is Kind.TRANSFER else None
    ids = [f"r{k}" for k in range(9)]
    request = replace(AT_B, kind=kind, origin=origin, due_s=250.0, service_s=0.0)
    dispatcher = planned([replace(request, id=id_) for id_ in ids])
    room = []

    def look(packed, chains, rng, iterations, freedom):
        room.append(chains.node.shape[1])

    dispatcher.reoptimise(0.0, np.random.default_rng(0), improver=look)
    assert room[0] >= 9 * (3 if origin else 2) + 1
