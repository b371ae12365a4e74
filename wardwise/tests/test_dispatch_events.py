"""What happens to robots and requests after they are planned, in the corridor of wards."""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.check import Constraint, Timing, check
from wardwise.fleet.dispatch import (
    CancelStatus,
    Dispatcher,
    Status,
)
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.schedule import schedule

# The depot at 0 m, wards a and b at 10 and 20 m, ward c at -10 m; 1 m/s.
AT = np.array([0.0, 10.0, 20.0, -10.0])
METRES = np.abs(AT[:, None] - AT[None])
TO_A = Request(id="da", kind="deliver", place="a", load=1, due_s=100, service_s=2)
TO_B = Request(id="db", kind="deliver", place="b", load=1, due_s=100, service_s=2)


def corridor(num_robots=1, requests=(), **robot):
    """The corridor with robots of capacity 2."""
    fields = {"capacity": 2.0, "end_s": 300.0, **robot}
    return Instance(
        name="corridor",
        places=tuple(Place(id=name) for name in ("depot", "a", "b", "c")),
        requests=tuple(requests),
        robots=tuple(Robot(id=str(k + 1), **fields) for k in range(num_robots)),
        travel_s=METRES,
        distance_m=METRES,
    )


def day(*requests, num_robots=1, policy=None, **robot):
    """A dispatcher that has accepted some requests at time 0."""
    dispatcher = Dispatcher(corridor(num_robots, **robot), None, policy)
    for request in requests:
        assert dispatcher.submit(request, 0.0).status is Status.ACCEPTED
    return dispatcher


def require_sound(dispatcher, *, allowed=()):
    """The referee accepts the plan, at the dispatcher's own cost."""
    report = check(dispatcher.instance(), dispatcher.plan(), timing=Timing.DISPATCHED)
    assert [v.constraint for v in report.violations] == list(allowed), report.violations
    assert report.cost.total == pytest.approx(dispatcher.outcome().cost)
    return report.cost


def times(dispatcher):
    """Stops of all trips with their starts."""
    return [(stop.request, stop.start_s) for trip in dispatcher.plan().trips for stop in trip.stops]


def planned(*requests, num_robots=1, **robot):
    """A dispatcher with a plan: robot 1 serves the requests in this order."""
    instance = corridor(num_robots, requests, **robot)
    stops = [r.id for r in requests for _ in range(2 if r.kind is Kind.TRANSFER else 1)]
    return Dispatcher(instance, schedule(instance, {"1": [stops]}))


def both_wards(**robot):
    """Robot 1 leaves at 1 with goods for both wards: a at 11, b at 23, back at 45."""
    dispatcher = planned(replace(TO_A, ready_s=11), TO_B, **robot)
    assert times(dispatcher) == [("da", 11.0), ("db", 23.0)]
    return dispatcher


def test_degree_zero_gives_the_plan_back():
    """Without events the day is the plan made in advance, and stays so when time passes."""
    instance = corridor(2, [TO_A, TO_B, Request(id="late", place="c", due_s=10)])
    plan = schedule(instance, {"1": [["da", "db"]]}, ["late"])
    dispatcher = Dispatcher(instance, plan)
    assert dispatcher.instance() == instance
    for now_s in (0.0, 15.0, 300.0):
        dispatcher.advance(now_s)
        (trip,) = dispatcher.plan().trips
        assert (trip.robot, trip.depart_s, trip.return_s) == ("1", 0.0, 44.0)
        assert times(dispatcher) == [("da", 10.0), ("db", 22.0)]
        assert dispatcher.plan().denied == ("late",)
    assert require_sound(dispatcher).total == check(instance, plan).cost.total
    assert dispatcher.initial_cost == dispatcher.outcome().cost == 100 + 40 + 150


@pytest.mark.slow
def test_warm_up_compiles_every_kernel_of_a_day(start, tmp_path):
    """In a fresh process: afterwards no answer waits for a compilation."""
    script = """
from wardwise.fleet.dispatch import kernels, reoptimise, warm_up
from numba.core.dispatcher import Dispatcher
warm_up()
for module in (kernels, reoptimise):
    for name, value in vars(module).items():
        is_own = isinstance(value, Dispatcher) and value.py_func.__module__ == module.__name__
        if is_own and not value.signatures:
            print(name)
"""
    program = tmp_path / "program.py"
    program.write_text(script)
    assert start(program).finish() == ""


def test_only_requests_of_the_plan_are_known():
    """A request with a release is unknown until it is submitted."""
    later = Request(id="later", place="b", due_s=90, release_s=5.0)
    instance = corridor(1, [TO_A, later])
    plan = schedule(replace(instance, requests=(TO_A,)), {"1": [["da"]]})
    dispatcher = Dispatcher(instance, plan)
    assert [request.id for request in dispatcher.instance().requests] == ["da"]
    assert dispatcher.submit(later, 5.0).eta_s == 22.0
    assert [request.id for request in dispatcher.instance().requests] == ["da", "later"]


def test_a_request_that_is_not_committed_is_removed():
    """Cancelled at 0, the robot does not even leave; its price is saved."""
    dispatcher = both_wards()
    assert dispatcher.cancel("db", 0.0).status is CancelStatus.REMOVED
    assert dispatcher.cancel("da", 0.0).status is CancelStatus.REMOVED
    assert dispatcher.outcome().cost == 0.0
    assert dispatcher.outcome().num_cancelled == 2
    assert dispatcher.plan() == Plan(instance="corridor", trips=())
    assert dispatcher.cancel("da", 1.0).status is CancelStatus.NOT_OPEN


def test_cancelled_too_late_or_served():
    """At 5 the robot is under way to a; at 11 it has started there."""
    dispatcher = both_wards()
    assert dispatcher.cancel("da", 5.0).status is CancelStatus.TOO_LATE
    assert dispatcher.cancel("da", 11.0).status is CancelStatus.SERVED
    assert dispatcher.status("da") is Status.ACCEPTED


def test_a_cancelled_delivery_rides_home_and_keeps_its_slot():
    """The goods for b are on board until the depot: back at 23, and only one slot is free."""
    dispatcher = both_wards()
    cancellation = dispatcher.cancel("db", 5.0)
    assert cancellation.status is CancelStatus.RETURNED
    assert cancellation.explain() == (
        "Request 'db' is cancelled; its goods are on board and ride back to the depot "
        "as 'db/return'."
    )
    assert times(dispatcher) == [("da", 11.0), ("db/return", 23.0)]
    assert require_sound(dispatcher).distance_m == 20
    two = Request(id="two", place="a", load=2, due_s=14)
    assert dispatcher.quote(two, 5.0).robot is None
    assert dispatcher.quote(replace(two, load=1), 5.0).eta_s == 13.0


def test_a_cancelled_transfer_rides_home_as_a_collection():
    """Picked up at b at 21, not dropped at c but brought to the depot."""
    transfer = replace(TO_A, id="t", kind="transfer", origin="b", place="c", ready_s=21)
    dispatcher = planned(transfer)
    assert times(dispatcher) == [("t", 21.0), ("t", 53.0)]
    assert dispatcher.cancel("t", 15.0).status is CancelStatus.TOO_LATE
    assert dispatcher.cancel("t", 21.0).status is CancelStatus.RETURNED
    (request,) = dispatcher.instance().requests
    assert (request.id, request.kind, request.place) == ("t/return", Kind.COLLECT, "b")
    # 20 m out and 20 m back instead of 20 + 30 + 10.
    assert dispatcher.last.cost_delta == -20.0
    require_sound(dispatcher)


def test_a_small_delay_slips_within_the_slack():
    """Five seconds late under way to a: what has not begun begins later."""
    dispatcher = both_wards()
    assert dispatcher.delay("1", 5.0, 5.0) == ()
    assert times(dispatcher) == [("da", 16.0), ("db", 28.0)]
    assert dispatcher.plan().trips[0].depart_s == 1.0  # a fact
    require_sound(dispatcher)


def test_a_delay_at_a_stop_or_at_the_depot():
    """Held up at a from 11 on, the robot leaves at 16 instead of 13; at the depot likewise."""
    dispatcher = both_wards()
    dispatcher.delay("1", 3.0, 12.0)
    assert times(dispatcher) == [("da", 11.0), ("db", 26.0)]
    assert dispatcher.plan().trips[0].return_s == 48.0
    require_sound(dispatcher)
    idle = day(num_robots=2)
    idle.delay("1", 50.0, 4.0)
    # Robot 2 is free now, robot 1 at 54.
    assert idle.submit(Request(id="x", place="a", due_s=30), 5.0).robot == "2"
    assert idle.submit(Request(id="y", place="c", due_s=80), 5.0).robot == "2"


def test_a_delay_uses_tolerances_before_it_moves_requests():
    """12 s late, b is served at 35, 5 s after its window, for 5; at 13 s it is too late."""
    dispatcher = planned(replace(TO_A, ready_s=11), replace(TO_B, due_s=30, tolerance_s=5))
    dispatcher.delay("1", 12.0, 5.0)
    assert times(dispatcher)[1] == ("db", 35.0)
    assert dispatcher.last.cost_delta == 5.0
    assert dispatcher.outcome().overdue == {}
    require_sound(dispatcher)


def test_goods_on_board_stay_and_are_late():
    """40 s late, b is served at 63, 28 s after all tolerance: that is recorded and priced."""
    dispatcher = planned(replace(TO_A, ready_s=11), replace(TO_B, due_s=30, tolerance_s=5))
    assert dispatcher.delay("1", 40.0, 5.0) == ()
    assert dispatcher.last.overdue == {"db": 28.0}
    assert dispatcher.last.cost_delta == 33.0
    require_sound(dispatcher, allowed=[Constraint.LATE])


def test_what_can_be_taken_off_a_late_robot_is_placed_anew():
    """A collection at b due at 30 goes to the other robot, from the depot at 5, at b at 25."""
    collect = Request(id="cb", place="b", load=1, due_s=30)
    dispatcher = planned(replace(TO_A, ready_s=11), collect, num_robots=2)
    assert times(dispatcher) == [("da", 11.0), ("cb", 23.0)]
    (decision,) = dispatcher.delay("1", 12.0, 5.0)
    assert (decision.request, decision.robot, decision.eta_s) == ("cb", "2", 25.0)
    # 20 m less for robot 1, a robot and 40 m more.
    assert dispatcher.last.cost_delta == 120.0
    require_sound(dispatcher)


def test_a_late_robot_overruns_its_shift():
    """Back at 145 of 120, nothing can be taken off any more."""
    dispatcher = both_wards(end_s=120.0)
    dispatcher.advance(23.0)
    dispatcher.delay("1", 100.0, 24.0)
    assert dispatcher.outcome().overrun == {"1": 25.0}
    require_sound(dispatcher, allowed=[Constraint.SHIFT])


def test_an_early_robot_is_a_fact():
    """Three seconds early at a: b is earlier, too, and no planner could have known."""
    dispatcher = planned(TO_A, TO_B)
    dispatcher.delay("1", -3.0, 5.0)
    assert times(dispatcher) == [("da", 7.0), ("db", 19.0)]
    executed = check(dispatcher.instance(), dispatcher.plan(), timing=Timing.EXECUTED)
    assert executed.is_feasible


def test_goods_of_a_broken_robot_are_rescued():
    """Robot 1 breaks down at a with the goods for b: robot 2 takes them, 10 to a, 2 s, 10 to b."""
    dispatcher = both_wards(num_robots=2)
    (decision,) = dispatcher.breakdown("1", 14.0)
    assert (decision.request, decision.robot, decision.eta_s) == ("db/rescue", "2", 36.0)
    broken, rescue = dispatcher.plan().trips
    assert broken == Trip(
        robot="1",
        depart_s=1.0,
        stops=(Stop(request="da", arrive_s=11.0, start_s=11.0),),
        return_s=14.0,
        is_broken_off=True,
    )
    assert [stop.request for stop in rescue.stops] == ["db/rescue", "db/rescue"]
    assert dispatcher.status("db") is Status.REPLACED
    # 10 m by robot 1, which drives no way home; a robot and 40 m by robot 2.
    assert require_sound(dispatcher).total == 200 + 10 + 40
    outcome = dispatcher.outcome()
    assert (outcome.num_revealed, outcome.num_served, outcome.num_replaced) == (3, 1, 1)


def test_rescue_starts_where_people_say():
    """They push the robot to c: 10 to c, 2 s, 30 to b. At b itself nobody is needed."""
    urgent = replace(TO_B, priority=2)  # for 160 a routine request would be denied
    dispatcher = planned(replace(TO_A, ready_s=11), urgent, num_robots=2)
    (decision,) = dispatcher.breakdown("1", 14.0, "c")
    assert decision.eta_s == 14 + 10 + 2 + 30
    dispatcher = both_wards(num_robots=2)
    assert dispatcher.breakdown("1", 14.0, "b") == ()
    assert dispatcher.status("db") is Status.REPLACED
    require_sound(dispatcher)
    # Back at the depot, the goods are simply delivered from there.
    (decision,) = both_wards(num_robots=2).breakdown("1", 14.0, "depot")
    assert (decision.request, decision.robot, decision.eta_s) == ("db", "2", 34.0)


def test_collected_goods_of_a_broken_robot_are_brought_home():
    """Collected at b, the robot breaks down on its way home at 30."""
    dispatcher = day(Request(id="cb", place="b", load=1, due_s=50), num_robots=2)
    (decision,) = dispatcher.breakdown("1", 30.0)
    rescue = dispatcher.instance().request_by_id["cb/rescue"]
    assert (rescue.kind, rescue.origin, rescue.place) == (Kind.TRANSFER, "b", "depot")
    assert (decision.request, decision.robot, decision.eta_s) == ("cb/rescue", "2", 70.0)
    require_sound(dispatcher)


def test_a_transfer_on_board_leaves_its_pickup_in_history():
    """Picked up at a at 10, broken down at 15: from a to c by robot 2, at a at 25, at c at 45."""
    transfer = Request(id="t", kind="transfer", origin="a", place="c", load=1, due_s=90)
    dispatcher = day(transfer, num_robots=2)
    (decision,) = dispatcher.breakdown("1", 15.0)
    assert (decision.request, decision.eta_s) == ("t/rescue", 45.0)
    assert times(dispatcher) == [("t", 10.0), ("t/rescue", 25.0), ("t/rescue", 45.0)]
    assert dispatcher.instance().request_by_id["t"].kind is Kind.COLLECT
    require_sound(dispatcher)


def test_a_robot_comes_back_with_the_trips_that_remain():
    """Out from 14 to 50; of two trips one is left, and its price is paid already."""
    dispatcher = both_wards(max_trips=2)
    assert [d.status for d in dispatcher.breakdown("1", 14.0)] == [Status.DENIED]
    request = Request(id="x", place="a", due_s=100)
    assert dispatcher.quote(request, 20.0).status is Status.DENIED
    assert dispatcher.out_of_order() == ("1",)
    dispatcher.return_to_service("1", 50.0)
    decision = dispatcher.submit(request, 50.0)
    assert (decision.eta_s, decision.cost_delta) == (60.0, 20.0)
    assert dispatcher.quote(replace(request, id="y", kind="deliver"), 65.0).robot is None
    require_sound(dispatcher)


def test_a_breakdown_before_the_first_stop_undoes_the_trip():
    """On its way to a the robot has served nobody: all goods go back to the depot."""
    dispatcher = both_wards(num_robots=2)
    decisions = dispatcher.breakdown("1", 5.0)
    assert [(d.request, d.robot) for d in decisions] == [("da", "2"), ("db", "2")]
    assert len(dispatcher.plan().trips) == 1
    assert require_sound(dispatcher).num_robots == 1
