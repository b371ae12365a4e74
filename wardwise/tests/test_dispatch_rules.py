"""Each decision rule by itself, in a hospital along one corridor.

The depot is at 0 m, wards a and b at 10 and 20 m, ward c at -10 m; robots drive 1 m/s.
Prices are the defaults: 100 a robot, 1 a metre, 10/3/1 a second late, 1000/400/150 a denial.
"""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import Dispatcher, Policy, Rule, Status
from wardwise.fleet.problem import Costs, Instance, Place, Request, Robot

AT = np.array([0.0, 10.0, 20.0, -10.0])
METRES = np.abs(AT[:, None] - AT[None])

# Waits at the depot until 20 to be at b at 40; promised for 40, and may be 10 late.
ROUTINE = Request(id="r", place="b", ready_s=40, due_s=40, tolerance_s=10, release_s=0.0, load=1)
# Over c, where it takes 5 s, a robot comes to b at 10 + 5 + 30 = 45.
AT_C = Request(id="u", place="c", due_s=30, service_s=5, load=1)


def corridor(num_robots=1, costs=None, **robot):
    """The corridor, nothing known yet."""
    fields = {"capacity": 2.0, "end_s": 1000.0, **robot}
    return Instance(
        name="corridor",
        places=tuple(Place(id=name) for name in ("depot", "a", "b", "c")),
        requests=(),
        robots=tuple(Robot(id=str(k + 1), **fields) for k in range(num_robots)),
        travel_s=METRES,
        distance_m=METRES,
        costs=costs or Costs(),
    )


def day(*requests, num_robots=1, policy=None, costs=None, **robot):
    """A dispatcher that has accepted some requests at time 0."""
    dispatcher = Dispatcher(corridor(num_robots, costs, **robot), None, policy)
    for request in requests:
        assert dispatcher.submit(request, 0.0).status is Status.ACCEPTED
    return dispatcher


def require_sound(dispatcher):
    """The referee accepts the plan, at the dispatcher's own cost."""
    report = check(dispatcher.instance(), dispatcher.plan(), timing=Timing.DISPATCHED)
    assert report.is_feasible, report.violations
    assert report.cost.total == pytest.approx(dispatcher.outcome().cost)


def test_insert_takes_the_cheapest_place_in_service():
    """D1: ward a lies on the way to b, so stopping there costs no metre."""
    dispatcher = day(ROUTINE, num_robots=2)
    decision = dispatcher.submit(Request(id="x", place="a", due_s=100), 5.0)
    assert (decision.rule, decision.status, decision.robot) == (Rule.INSERT, Status.ACCEPTED, "1")
    # From the depot, which it may leave at 5, to a.
    assert (decision.cost_delta, decision.eta_s, decision.lateness_s) == (0.0, 15.0, 0.0)
    # A spare costs 100 + 2 * 10.
    (other,) = decision.alternatives
    assert (other.robot, other.rule, other.cost_delta, other.eta_s) == ("2", Rule.SPARE, 120, 15)
    require_sound(dispatcher)


def test_insert_costs_at_most_a_denial():
    """D1: the detour over c costs 20; with denials at 20 it is driven, at 19 it is not."""
    late_enough = replace(AT_C, service_s=0.0)
    for price, status in ((20.0, Status.ACCEPTED), (19.0, Status.DENIED)):
        costs = Costs(per_denial=(1000.0, 400.0, price), per_robot=0.0)
        dispatcher = day(replace(ROUTINE, priority=2), costs=costs)
        decision = dispatcher.submit(late_enough, 0.0)
        assert (decision.status, decision.cost_delta) == (status, price)


def test_a_new_request_may_be_late_at_its_price():
    """D1: due at 12 at a, reached at 15: 3 s late cost 3; without tolerance it is denied."""
    request = Request(id="x", place="a", due_s=12, tolerance_s=3)
    dispatcher = day(ROUTINE)
    assert dispatcher.quote(replace(request, tolerance_s=2), 5.0).status is Status.UNSERVABLE
    decision = dispatcher.submit(request, 5.0)
    assert (decision.eta_s, decision.lateness_s, decision.cost_delta) == (15.0, 3.0, 3.0)
    require_sound(dispatcher)


def test_promises_hold_against_later_requests():
    """D1 may use slack up to due time or promise, not the tolerance of others."""
    dispatcher = day(ROUTINE)
    # Promised for 40; over c it would be 45, without service there 40.
    assert dispatcher.quote(AT_C, 0.0).status is Status.DENIED
    assert dispatcher.quote(replace(AT_C, service_s=0.0), 0.0).rule is Rule.INSERT


def test_spare_is_opened_where_its_price_is_below_a_denial():
    """D2: to b and back costs 100 + 40; for 150 it is worth it, for 139 it is not."""
    for price, status in ((140.0, Status.ACCEPTED), (139.0, Status.DENIED)):
        dispatcher = day(costs=Costs(per_denial=(1000.0, 400.0, price)))
        decision = dispatcher.submit(ROUTINE, 0.0)
        assert decision.status is status
        if status is Status.ACCEPTED:
            assert (decision.rule, decision.cost_delta) == (Rule.SPARE, 140.0)


def test_stat_requests_open_a_spare_at_any_price():
    """D2: 5040 for a robot is more than the 1000 of a denial; stat goes first."""
    dispatcher = day(costs=Costs(per_robot=5000.0))
    assert dispatcher.quote(replace(ROUTINE, priority=2), 0.0).status is Status.DENIED
    decision = dispatcher.submit(replace(ROUTINE, priority=1), 0.0)
    assert (decision.rule, decision.cost_delta) == (Rule.SPARE, 5040.0)


def test_protected_spares_are_left_to_higher_classes():
    """D2: of two spares routine requests must leave two, urgent ones one, stat none."""
    policy = Policy(protection=(0, 1, 2), may_squeeze=False)
    dispatcher = day(num_robots=2, policy=policy)
    routine = dispatcher.submit(ROUTINE, 0.0)
    assert (routine.status, routine.remedy.less_protection) == (Status.DENIED, 1)
    urgent = replace(AT_C, priority=2)
    assert dispatcher.submit(urgent, 0.0).rule is Rule.SPARE
    # Robot 1 is at c from 10 to 15 and at b at 45: one more urgent request needs the last spare.
    second = replace(ROUTINE, id="s", priority=2, tolerance_s=0)
    assert dispatcher.quote(second, 0.0).remedy.less_protection == 1
    assert dispatcher.submit(replace(second, priority=1), 0.0).rule is Rule.SPARE
    assert dispatcher.outcome().num_spares == 0
    require_sound(dispatcher)


def test_squeeze_makes_lower_classes_late():
    """D3: over c costs 10 + 30 - 20 m, and 5 s for the routine request at b."""
    dispatcher = day(ROUTINE)
    decision = dispatcher.submit(replace(AT_C, priority=2), 0.0)
    assert (decision.rule, decision.cost_delta) == (Rule.SQUEEZE, 25.0)
    assert (decision.eta_s, decision.moved) == (10.0, ("r",))
    assert dispatcher.plan().trips[0].stops[1].start_s == 45.0
    # 45 is promised now: a, on the way at 35, may not take a second of it.
    request = Request(id="x", place="a", due_s=40)
    assert dispatcher.quote(request, 0.0).rule is Rule.INSERT
    assert dispatcher.quote(replace(request, service_s=1), 0.0).status is Status.DENIED
    require_sound(dispatcher)


def test_squeeze_spares_equals_and_can_be_forbidden():
    """D3 needs a strictly lower class, tolerance enough, and the policy's leave."""
    urgent = replace(AT_C, priority=2)
    assert day(ROUTINE).quote(AT_C, 0.0).status is Status.DENIED
    assert day(replace(ROUTINE, tolerance_s=4)).quote(urgent, 0.0).status is Status.DENIED
    assert day(replace(ROUTINE, tolerance_s=5)).quote(urgent, 0.0).rule is Rule.SQUEEZE
    dispatcher = day(ROUTINE, policy=Policy(may_squeeze=False))
    assert dispatcher.quote(urgent, 0.0).status is Status.DENIED


def test_ejection_is_a_recorded_denial():
    """D4: a stat request at c takes the robot; 40 m to b become 20 m to c, r is lost."""
    policy = Policy(may_eject=True)
    dispatcher = day(replace(ROUTINE, tolerance_s=0), policy=policy)
    stat = replace(AT_C, priority=1)
    assert day(replace(ROUTINE, tolerance_s=0)).quote(stat, 0.0).status is Status.DENIED
    decision = dispatcher.submit(stat, 0.0)
    assert (decision.rule, decision.cost_delta, decision.ejected) == (Rule.EJECT, -20.0, ("r",))
    lost = dispatcher.last.decisions[1]
    assert (lost.request, lost.status, lost.cost_delta) == ("r", Status.DENIED, 150.0)
    assert dispatcher.last.cost_delta == 130.0
    require_sound(dispatcher)


def test_ejection_takes_routine_before_urgent():
    """D4: both hinder the stat request; the urgent one stays though it would save more."""
    urgent = replace(ROUTINE, id="v", priority=2, tolerance_s=0)
    routine = Request(id="r", place="b", ready_s=60, due_s=60, load=1, service_s=10)
    stat = Request(id="s", place="a", ready_s=62, due_s=66, load=1, priority=1)
    dispatcher = day(urgent, routine, policy=Policy(may_eject=True))
    # From b, left at 70, it is 80 at a; left at 40, it is 50, and it waits until 62.
    assert dispatcher.submit(stat, 0.0).ejected == ("r",)
    assert {request.id for request in dispatcher.instance().requests} == {"v", "r", "s"}
    assert dispatcher.status("v") is Status.ACCEPTED


def test_hold_waits_for_the_last_useful_moment():
    """D5: c must be left for at 30 - 10 = 20; then the robot goes to b and the answer is no."""
    dispatcher = day(ROUTINE, policy=Policy(may_hold=True))
    decision = dispatcher.submit(AT_C, 0.0)
    assert (decision.rule, decision.status, decision.cost_delta) == (Rule.HOLD, Status.PENDING, 0)
    assert dispatcher.next_moment_s() == 20.0
    assert dispatcher.advance(19.0) == ()
    (final,) = dispatcher.advance(20.0)
    assert (final.rule, final.status, final.cost_delta) == (Rule.DENY, Status.DENIED, 150.0)
    assert dispatcher.next_moment_s() == np.inf


def test_hold_finds_a_place_that_becomes_free():
    """D5: the other request is cancelled at 10, and the robot goes to c, 120 for both ways."""
    dispatcher = day(ROUTINE, policy=Policy(may_hold=True))
    dispatcher.submit(AT_C, 0.0)
    dispatcher.cancel("r", 10.0)
    decision = dispatcher.decision("u")
    assert (decision.rule, decision.eta_s, decision.cost_delta) == (Rule.SPARE, 20.0, 120.0)
    assert dispatcher.last.cost_delta == 120.0 - 140.0
    require_sound(dispatcher)


def test_unservable_is_not_the_policys_fault():
    """D6: b is 20 s away; a request due in 19 s could not be served by any number of robots."""
    dispatcher = day(num_robots=2)
    decision = dispatcher.submit(Request(id="x", place="b", due_s=24), 5.0)
    assert (decision.status, decision.rule) == (Status.UNSERVABLE, Rule.DENY)
    assert dispatcher.quote(Request(id="y", place="b", due_s=25), 5.0).status is Status.ACCEPTED
    outcome = dispatcher.outcome()
    assert (outcome.num_unservable, outcome.num_denied) == (1, 0)


def test_a_robot_under_way_keeps_its_next_stop():
    """No diversion: at 25 the robot is 5 m on its way to b; c comes after it."""
    dispatcher = day(ROUTINE)
    late = replace(AT_C, due_s=100)
    # Waiting at the depot it can still go to c first: 5 + 10 + 5 + 30 = 50 > 40, so after b anyhow.
    assert dispatcher.quote(late, 5.0).eta_s == 40 + 30
    decision = dispatcher.submit(replace(late, place="a"), 25.0)
    assert decision.eta_s == 40 + 10
    assert [stop.request for stop in dispatcher.committed()["1"]] == ["r"]


def test_deliveries_join_only_trips_that_have_not_left():
    """At 10 the trip to b waits at the depot; at 20 it leaves, and a needs a trip of its own."""
    request = Request(id="x", place="a", kind="deliver", load=1, due_s=200)
    assert day(ROUTINE).submit(request, 10.0).eta_s == 20.0
    dispatcher = day(ROUTINE)
    decision = dispatcher.submit(request, 20.0)
    # Back from b at 60, then 10 m to a; 20 m for both ways.
    assert (decision.eta_s, decision.cost_delta) == (70.0, 20.0)
    assert len(dispatcher.plan().trips) == 2
    require_sound(dispatcher)
    assert day(ROUTINE, max_trips=1).submit(request, 20.0).status is Status.DENIED


def test_transfers_are_pairs_on_one_robot():
    """From a to c by the robot that comes back from b: 10 to a, 20 to c, 10 home for 20 m more."""
    dispatcher = day(ROUTINE)
    request = Request(id="t", kind="transfer", origin="a", place="c", load=1, due_s=200)
    decision = dispatcher.submit(request, 20.0)
    assert (decision.eta_s, decision.cost_delta) == (70.0, 20.0)
    stops = dispatcher.plan().trips[0].stops
    assert [(stop.request, stop.is_pickup) for stop in stops] == [
        ("r", False),
        ("t", True),
        ("t", False),
    ]
    require_sound(dispatcher)


def test_remedy_names_the_missing_window():
    """At 20 the robot leaves for b, so it is at c at 40 + 30 = 70, 20 s after the window."""
    dispatcher = day(ROUTINE)
    request = replace(AT_C, due_s=50, load=0)
    remedy = dispatcher.quote(request, 20.0).remedy
    assert (remedy.window_s, remedy.slots, remedy.price) == (20.0, None, None)
    assert remedy.more_robots == 1
    assert dispatcher.quote(replace(request, due_s=70), 20.0).status is Status.ACCEPTED
    assert dispatcher.quote(replace(request, due_s=69), 20.0).remedy.window_s == 1.0


def test_remedy_names_the_missing_slots():
    """Robot 1 holds one slot and collects one at b; there is no room for half a slot at a."""
    dispatcher = day(ROUTINE, capacity=1.0, max_trips=1)
    decision = dispatcher.quote(Request(id="x", place="a", load=0.5, due_s=200), 5.0)
    assert (decision.remedy.slots, decision.remedy.slots_robot) == (0.5, "1")
    assert "0.5 more free slots on robot '1'" in decision.explain()
    assert "1 more spare robot" in decision.explain()


def test_remedy_names_the_price():
    """The detour over c costs 20 and its denial 19."""
    costs = Costs(per_denial=(1000.0, 400.0, 19.0), per_robot=0.0)
    dispatcher = day(replace(ROUTINE, priority=2), costs=costs)
    remedy = dispatcher.quote(replace(AT_C, service_s=0.0), 0.0).remedy
    assert (remedy.price, remedy.window_s, remedy.slots) == (20.0, None, None)


def test_explanations_are_one_sentence():
    """Rule, robot, time and money stand in every answer."""
    dispatcher = day(ROUTINE, num_robots=2, policy=Policy(may_hold=True))
    assert dispatcher.quote(Request(id="x", place="a", due_s=100), 5.0).explain() == (
        "Request 'x' joins robot '1': service starts at 15 s, for 0 (D1); "
        "next best is robot '2' at 15 s for 120."
    )
    assert dispatcher.quote(Request(id="x", place="b", due_s=5), 5.0).explain() == (
        "Request 'x' came too late: no robot at the depot could serve it (D6, 150 lost)."
    )


@pytest.mark.parametrize("protection", [(1, 1, 1), (0, 2, 1), (0, 0), (0, -1, 0)])
def test_policy_refuses_unnested_protection(protection):
    """Stat is never held back, and no class less than a higher one."""
    with pytest.raises(ValueError, match="policy: protection"):
        Policy(protection=protection)
