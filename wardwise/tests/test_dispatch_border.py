"""Which events come first, which are refused, and which routes are adopted."""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import (
    Advance,
    Breakdown,
    Cancel,
    Delay,
    Dispatcher,
    Policy,
    Return,
    Submit,
    order_events,
    relocate,
)
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.schedule import schedule

# The depot at 0 m, wards a and b at 10 and 20 m; 1 m/s.
AT = np.array([0.0, 10.0, 20.0])
METRES = np.abs(AT[:, None] - AT[None])
TO_A = Request(id="da", kind="deliver", place="a", load=1, due_s=100, service_s=2)
TO_B = Request(id="db", kind="deliver", place="b", load=1, due_s=100, service_s=2)


def corridor(num_robots=1, requests=()):
    """The corridor with robots of capacity 2."""
    return Instance(
        name="corridor",
        places=tuple(Place(id=name) for name in ("depot", "a", "b")),
        requests=tuple(requests),
        robots=tuple(Robot(id=str(k + 1), capacity=2.0, end_s=300.0) for k in range(num_robots)),
        travel_s=METRES,
        distance_m=METRES,
    )


def test_order_of_events_at_one_instant():
    """Robots report first, then cancellations, then requests: stat, release, id."""
    requests = [
        Request(id=id_, place="a", due_s=99, priority=priority, release_s=release_s)
        for id_, priority, release_s in (("d", 3, 1), ("c", 1, 7), ("b", 1, 7), ("a", 1, 8))
    ]
    events = [Advance(now_s=9), *(Submit(now_s=9, request=request) for request in requests)]
    events += [Cancel(now_s=9, request="x"), Delay(now_s=9, robot="1", delay_s=3)]
    events += [Submit(now_s=8, request=TO_A), Return(now_s=9, robot="1")]
    ordered = order_events(events)
    names = [e.request.id if isinstance(e, Submit) else type(e).__name__ for e in ordered]
    assert names == ["da", "Delay", "Return", "Cancel", "b", "c", "a", "d", "Advance"]


def test_reoptimisation_moves_what_is_open():
    """Each on a robot of its own because it came first; on one robot they save 100 + 20."""
    policy = Policy(may_squeeze=False)
    first = Request(id="p", place="a", ready_s=40, due_s=60)
    second = Request(id="q", place="b", ready_s=20, due_s=200)
    instance = corridor(2, [first, second])
    plan = schedule(instance, {"1": [["p"]], "2": [["q"]]})
    dispatcher = Dispatcher(instance, plan, policy)
    rng = np.random.default_rng(0)
    # One request moves, for a saving of 120.
    assert not dispatcher.reoptimise(0.0, rng, max_iterations=20, stability=120.0)
    assert dispatcher.last is None
    assert dispatcher.reoptimise(0.0, rng, max_iterations=20, stability=119.0)
    assert dispatcher.last.cost_delta == -120.0
    report = check(dispatcher.instance(), dispatcher.plan(), timing=Timing.DISPATCHED)
    assert report.is_feasible
    assert report.cost.num_robots == 1


def test_reoptimisation_leaves_the_committed_alone():
    """Both robots are under way at 20."""
    first = Request(id="p", place="a", ready_s=15, due_s=60)
    second = Request(id="q", place="b", ready_s=30, due_s=200)
    instance = corridor(2, [first, second])
    dispatcher = Dispatcher(instance, schedule(instance, {"1": [["p"]], "2": [["q"]]}))
    assert not dispatcher.reoptimise(20.0, np.random.default_rng(0), improver=relocate)


BAD_EVENTS = {
    "now_s: expected at least 10": Advance(now_s=9),
    "now_s: expected at least 10, got nan": Advance(now_s=float("nan")),
    "request 'da': id": Submit(now_s=10, request=TO_A),
    "request 'x': place": Submit(now_s=10, request=Request(id="x", place="z", due_s=99)),
    "request 'x': origin": Submit(
        now_s=10, request=Request(id="x", kind="transfer", origin="z", place="a", due_s=99)
    ),
    "request 'x': load: expected at most the largest capacity 2": Submit(
        now_s=10, request=Request(id="x", place="a", load=3, due_s=99)
    ),
    "request 'x': release_s": Submit(
        now_s=10, request=Request(id="x", place="a", due_s=99, release_s=11)
    ),
    "request 'x': no request": Cancel(now_s=10, request="x"),
    "robot '9': no robot": Delay(now_s=10, robot="9", delay_s=1),
    "robot '1': delay_s": Delay(now_s=10, robot="1", delay_s=float("inf")),
    "robot '1': place": Breakdown(now_s=10, robot="1", place="z"),
    "robot '1': expected one that broke down": Return(now_s=10, robot="1"),
    "robot '2': expected one in service": Breakdown(now_s=10, robot="2"),
}


@pytest.mark.parametrize("message", BAD_EVENTS)
def test_impossible_events_are_refused_and_change_nothing(message):
    """One line says what is wrong; the day goes on."""
    dispatcher = Dispatcher(corridor(2))
    dispatcher.submit(TO_A, 0.0)
    dispatcher.breakdown("2", 10.0)
    before = (dispatcher.plan(), dispatcher.outcome(), dispatcher.last)
    with pytest.raises(ValueError, match=message.replace("(", "\\(")):
        dispatcher.handle(BAD_EVENTS[message])
    assert (dispatcher.plan(), dispatcher.outcome(), dispatcher.last) == before


def test_an_unsound_plan_is_refused():
    """A plan that forgets a known request, or is infeasible."""
    instance = corridor(1, [TO_A, TO_B])
    with pytest.raises(ValueError, match="plan: request 'db'"):
        Dispatcher(instance, schedule(instance, {"1": [["da"]]}))
    plan = schedule(instance, {"1": [["da", "db"]]})
    early = replace(plan, trips=(replace(plan.trips[0], depart_s=5.0),))
    with pytest.raises(ValueError, match="plan: expected a feasible plan: request 'da'"):
        Dispatcher(instance, early)
