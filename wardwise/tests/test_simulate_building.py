"""Robots in a building: ways in pieces, and elevators that take one robot at a time."""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.dispatch import Delay
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.simulate import Disturbances, simulate
from wardwise.fleet.simulate.ways import Drive, Lift, Ways
from wardwise.generate import generate_hospital
from wardwise.site import Corridor, Elevator, Floor, Node, Site

# Ten metres to the elevator at 1 m/s, a floor up, ten metres to the ward.
LIFT = Elevator(
    id="lift", floors=(0, 1), ride_s_per_floor=4.0, door_s=3.0, wait_mean_s=20.0, wait_sd_s=0.0
)
TOWER = Site(
    name="tower",
    floors=(Floor(level=0, name="0"), Floor(level=1, name="1")),
    nodes=(Node(id="depot", name="Depot", x_m=-10), Node(id="ward", name="Ward", floor=1, x_m=10)),
    corridors=(Corridor(start="depot", end="lift@0"), Corridor(start="lift@1", end="ward")),
    elevators=(LIFT,),
    speed_m_per_s=1.0,
    drive_cv=0.0,
)
BUILDING = Disturbances(travel_cv=None, uses_elevators=True)


def tower(num_robots=1, **request):
    """The tower; every robot has a delivery to the ward."""
    places = ("depot", "ward")
    travel = TOWER.travel(places)
    fields = {"kind": "deliver", "place": "ward", "load": 1, "due_s": 500, "service_s": 30}
    return Instance(
        name="tower",
        places=tuple(Place(id=id_) for id_ in places),
        requests=tuple(Request(id=f"r{k}", **{**fields, **request}) for k in range(num_robots)),
        robots=tuple(
            Robot(id=f"R{k}", capacity=1, end_s=1000, max_trips=None) for k in range(num_robots)
        ),
        travel_s=travel.travel_s,
        distance_m=travel.distance_m,
        travel_var_s2=travel.travel_var_s2,
        site=TOWER,
    )


def test_ways_add_up_to_the_matrices():
    """Mean and variance of the pieces of every way are those of the quickest path."""
    instance = generate_hospital(num_floors=3, num_wards=10, dynamic=True, seed=2)
    ways = Ways(instance, BUILDING)
    num_lifts = 0
    for row, start in enumerate(instance.places):
        for column, end in enumerate(instance.places):
            pieces = ways.pieces(start.id, end.id)
            lifts = [piece for piece in pieces if isinstance(piece, Lift)]
            num_lifts += len(lifts)
            floors = [start.floor, *(lift.target for lift in lifts)]
            assert [lift.floor for lift in lifts] == floors[:-1]
            assert floors[-1] == end.floor
            variance_s2 = sum(
                p.elevator.wait_sd_s**2 if isinstance(p, Lift) else p.variance_s2 for p in pieces
            )
            mean_s = sum(piece.mean_s for piece in pieces)
            assert mean_s == pytest.approx(instance.travel_s[row, column])
            assert variance_s2 == pytest.approx(instance.travel_var_s2[row, column])
    assert num_lifts > 100


def test_a_way_is_cut_at_the_elevator():
    """Drive, ride, drive; a coefficient of variation applies to what is driven."""
    ways = Ways(tower(), replace(BUILDING, travel_cv=0.5))
    assert ways.pieces("depot", "ward") == (Drive(10, 25), Lift(LIFT, 0, 1), Drive(10, 25))
    assert ways.pieces("ward", "ward") == ()
    assert Lift(LIFT, 0, 1).mean_s == 20 + 2 * 3 + 4
    assert Lift(LIFT, 0, 1).ride_s == 2 * 3 + 4


def test_without_elevators_a_way_is_one_drive():
    """As the matrices have it: 10 + 30 + 10 s, with the variance asked for."""
    instance = tower()
    assert Ways(instance, Disturbances()).pieces("depot", "ward") == (Drive(50, 0),)
    assert Ways(instance, Disturbances(travel_cv=0.1)).pieces("depot", "ward") == (Drive(50, 25),)


def test_a_place_outside_the_building_is_refused():
    """In one line."""
    instance = replace(tower(), site=replace(TOWER, nodes=TOWER.nodes[:1], corridors=()))
    with pytest.raises(ValueError, match=r"uses_elevators: expected all places .* 'ward' is not$"):
        simulate(instance, disturbances=BUILDING)


def test_a_single_robot_in_a_building_without_luck_keeps_to_the_plan():
    """Waits of no variance and no one in the way: out 50 s, 30 s there, 50 s back."""
    day = simulate(tower(), disturbances=BUILDING)
    (trip,) = day.plan.trips
    assert (trip.depart_s, trip.stops[0].arrive_s, trip.return_s) == (0, 50, 130)
    assert [record for record in day.records if isinstance(record.event, Delay)] == []
    out, back = day.rides
    assert (out.come_s, out.turn_s, out.board_s, out.leave_s) == (10, 10, 30, 40)
    assert (back.floor, back.come_s, back.leave_s) == (1, 90, 120)


def test_robots_queue_for_the_elevator():
    """Both come at 10; the second has its turn at 40, when the first is up, and is 30 s late.

    It did not know: before its planned start at 50 it expects 30 s of elevator from
    then on and 10 s of driving, and corrects itself on arrival at 80.
    """
    day = simulate(tower(2, due_s=55, priority=1, tolerance_s=100), disturbances=BUILDING)
    first, second = day.rides[:2]
    assert (first.robot, first.turn_s, first.leave_s) == ("R0", 10, 40)
    assert (second.come_s, second.turn_s, second.board_s, second.leave_s) == (10, 40, 60, 70)
    assert (second.queue_s, second.wait_s) == (30, 50)
    starts = {stop.request: stop.start_s for trip in day.plan.trips for stop in trip.stops}
    assert sorted(starts.values()) == [50, 80]
    late = [record.event for record in day.records if isinstance(record.event, Delay)]
    tick = 2.0**-30
    assert (late[0].now_s, late[0].delay_s) == (50 - tick, 40 - tick)
    assert (late[1].now_s, late[1].delay_s) == (80, -10 + tick)
    assert day.report.is_feasible
    (ground, floor) = day.figures.elevators
    assert (ground.floor, ground.num_rides, ground.wait_s, ground.queue_s) == (0, 2, 35, 15)
    assert ground.longest_s == 50
    # On the way back they come at 90 and 120: nobody queues.
    assert (floor.floor, floor.num_rides, floor.wait_s, floor.queue_s) == (1, 2, 20, 0)
    assert (day.figures.classes[0].num_on_time, day.figures.classes[0].num_late) == (1, 1)


def test_elevators_serve_robots_in_the_order_in_which_they_come():
    """One robot a cabin, first come, first served, on a full day with random waits."""
    instance = generate_hospital(dynamic=True, transfers=True, seed=1, hours=3)
    day = simulate(instance, disturbances=replace(BUILDING, service_cv=0.5), seed=1)
    assert len(day.rides) > 100
    assert any(ride.queue_s > 0 for ride in day.rides)
    for elevator in {ride.elevator for ride in day.rides}:
        rides = sorted(
            (ride for ride in day.rides if ride.elevator == elevator), key=lambda ride: ride.come_s
        )
        free_s = 0.0
        for ride in rides:
            assert ride.come_s <= ride.turn_s <= ride.board_s < ride.leave_s
            assert ride.turn_s == max(ride.come_s, free_s)
            free_s = ride.leave_s


def test_congestion_grows_with_the_fleet():
    """Twelve robots before one elevator wait longer for each other than three."""
    waits = []
    for num_robots in (3, 12):
        instance = tower(num_robots, due_s=55, priority=1, tolerance_s=900)
        day = simulate(instance, disturbances=BUILDING)
        waits.append(np.mean([ride.queue_s for ride in day.rides]))
    assert waits[1] > 2 * waits[0] > 0
