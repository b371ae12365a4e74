"""Held requests that find their place when the routes around them change."""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import Dispatcher, Journal, Policy, Rule, Status
from wardwise.fleet.dispatch.improve import improve_open
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.schedule import schedule

# The depot at 0 m, wards a, b and c at 10, 20 and 30 m; 1 m/s. A robot costs 100.
AT = np.array([0.0, 10.0, 20.0, 30.0])
METRES = np.abs(AT[:, None] - AT[None])
# Robot 1 is full with p and q, robot 2 has room and is at c at 30.
P = Request(id="p", place="a", load=1, ready_s=10, due_s=10)
Q = Request(id="q", place="b", load=1, ready_s=35, due_s=100)
R = Request(id="r", place="c", load=1, ready_s=30, due_s=30)
# At a at 11: only robot 1, which is there at 10, and only if robot 2 collects q.
X = Request(id="x", place="a", load=1, ready_s=11, due_s=11, priority=2)


def corridor(*requests, num_robots=2):
    """The corridor with robots of capacity 2 and one trip each."""
    return Instance(
        name="corridor",
        places=tuple(Place(id=name) for name in ("depot", "a", "b", "c")),
        requests=requests,
        robots=tuple(
            Robot(id=str(k + 1), capacity=2.0, end_s=300.0, max_trips=1) for k in range(num_robots)
        ),
        travel_s=METRES,
        distance_m=METRES,
    )


def improve(dispatcher, now_s):
    """Re-optimise at a moment; returns whether anything changed."""
    rng = np.random.default_rng(0)
    return dispatcher.reoptimise(now_s, rng, max_iterations=200, improver=improve_open)


def require_sound(dispatcher):
    """The referee accepts the plan, at the dispatcher's own cost."""
    report = check(dispatcher.instance(), dispatcher.plan(), timing=Timing.DISPATCHED)
    assert report.is_feasible, report.violations
    assert report.cost.total == pytest.approx(dispatcher.outcome().cost)


def test_room_is_made_for_a_held_request(tmp_path):
    """Robot 2 collects q on its way home, so that robot 1 has room for x: 20 m less in all."""
    instance = corridor(P, Q, R)
    plan = schedule(instance, {"1": [["p", "q"]], "2": [["r"]]})
    path = tmp_path / "day.jsonl"
    with Journal(path) as journal:
        dispatcher = Dispatcher(instance, plan, Policy(may_hold=True), journal)
        # Too late for the depot, which is 10 s from a; but robot 1 will be there.
        assert dispatcher.submit(X, 5.0).status is Status.PENDING
        assert improve(dispatcher, 5.0)
    (decision,) = dispatcher.last.decisions
    assert (decision.request, decision.status, decision.rule) == ("x", Status.ACCEPTED, Rule.HOLD)
    # Robot 1 is at a in any case.
    assert (decision.robot, decision.eta_s, decision.cost_delta) == ("1", 11.0, 0.0)
    assert decision.explain().startswith("Request 'x' was held and joins robot '1'")
    # Ways before: to b and back, to c and back; now to a and back, to c and back.
    assert dispatcher.last.cost_delta == -20.0
    assert dispatcher.next_moment_s() == np.inf
    require_sound(dispatcher)
    assert Dispatcher.replay(path).plan() == dispatcher.plan()


def test_without_hold_the_same_request_is_unservable():
    """Who must answer at once cannot wait for better routes."""
    instance = corridor(P, Q, R)
    dispatcher = Dispatcher(instance, schedule(instance, {"1": [["p", "q"]], "2": [["r"]]}))
    assert dispatcher.submit(X, 5.0).status is Status.UNSERVABLE


@pytest.mark.parametrize(
    ("protection", "status"), [((0, 0, 0), Status.ACCEPTED), ((0, 0, 1), Status.PENDING)]
)
def test_a_spare_makes_room_if_no_class_protects_it(protection, status):
    """The spare takes q for 100 + 40, robot 1 drives 20 m less: 120 for x, whose denial is 400."""
    instance = corridor(P, Q)
    plan = schedule(instance, {"1": [["p", "q"]]})
    dispatcher = Dispatcher(instance, plan, Policy(may_hold=True, protection=protection))
    assert dispatcher.submit(X, 5.0).status is Status.PENDING
    is_better = improve(dispatcher, 5.0)
    assert dispatcher.status("x") is status
    assert is_better == (status is Status.ACCEPTED)
    if is_better:
        assert dispatcher.last.cost_delta == 120.0
        require_sound(dispatcher)


def test_a_spare_leaves_home_for_the_sake_of_held_requests_alone():
    """Two robots would save 300 m for 100, but nobody is held: the spare stays."""
    far = replace(corridor(num_robots=2), travel_s=METRES, distance_m=METRES * 20)
    requests = (replace(P, id="near"), replace(Q, id="far", place="c", ready_s=50))
    instance = replace(far, requests=requests)
    plan = schedule(instance, {"1": [["near", "far"]]})
    dispatcher = Dispatcher(instance, plan, Policy(may_hold=True))
    improve(dispatcher, 0.0)
    assert dispatcher.outcome().num_spares == 1


def test_a_held_request_that_never_fits_is_denied_at_its_last_moment():
    """Robot 2 has no room either: from a, where robot 1 is at 10, x is out of reach after 11."""
    instance = corridor(P, Q, R, replace(R, id="s"))
    plan = schedule(instance, {"1": [["p", "q"]], "2": [["r", "s"]]})
    dispatcher = Dispatcher(instance, plan, Policy(may_hold=True))
    assert dispatcher.submit(X, 5.0).status is Status.PENDING
    improve(dispatcher, 5.0)
    assert dispatcher.status("x") is Status.PENDING
    (decision,) = dispatcher.advance(dispatcher.next_moment_s())
    assert (decision.request, decision.status) == ("x", Status.DENIED)
    require_sound(dispatcher)
