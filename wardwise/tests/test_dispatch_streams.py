"""Random days: whatever happens, in whatever order, the laws of dispatch hold."""

from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.check import Constraint, Timing, check
from wardwise.fleet.dispatch import (
    Advance,
    Breakdown,
    Cancel,
    CancelStatus,
    Delay,
    Dispatcher,
    Journal,
    Policy,
    Return,
    Rule,
    Status,
    Submit,
    relocate,
)
from wardwise.fleet.dispatch.improve import improve_open
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.solvers import solve

OUT = (Status.DENIED, Status.UNSERVABLE, Status.PENDING)


def random_instance(rng):
    """Few wards, few robots of several kinds; every third one without triangle inequality."""
    size = int(rng.integers(3, 7))
    points = rng.integers(0, 30, (size, 2))
    travel = np.abs(points[:, None] - points[None]).sum(axis=2).astype(float)
    if rng.random() < 0.33:
        travel *= rng.integers(1, 3, (size, size))
    np.fill_diagonal(travel, 0.0)
    robots = tuple(
        Robot(
            id=f"R{k}",
            capacity=float(rng.integers(1, 4)),
            start_s=float(rng.choice([0, 0, 20])),
            end_s=float(rng.integers(250, 500)),
            max_trips=rng.choice([None, None, 1, 2]),
        )
        for k in range(int(rng.integers(1, 5)))
    )
    instance = Instance(
        name="random",
        places=tuple(Place(id=f"P{k}") for k in range(size)),
        requests=(),
        robots=robots,
        travel_s=travel,
        distance_m=travel,
        reload_s=float(rng.choice([0, 5])),
        costs=Costs(per_robot=float(rng.choice([10, 100]))),
    )
    known = []
    for k in range(int(rng.integers(0, 5))):
        request = random_request(rng, instance, f"K{k}", 0.0)
        try:
            with_requests(instance, [request])
        except ValueError:
            continue  # nobody could ever serve it
        known.append(request)
    return with_requests(instance, known)


def with_requests(instance, requests):
    """The instance with other requests."""
    fields = {name: getattr(instance, name) for name in Instance.__dataclass_fields__}
    return Instance(**{**fields, "requests": tuple(requests)})


def random_request(rng, instance, id_, now_s):
    """A request of any kind that becomes known now."""
    places = [place.id for place in instance.places]
    kind = rng.choice(["collect", "deliver", "transfer"])
    place = str(rng.choice(places[0 if kind == "transfer" else 1 :]))
    ready_s = now_s + float(rng.choice([0, 0, 30, 100]))
    largest = max(robot.capacity for robot in instance.robots)
    return Request(
        id=id_,
        kind=str(kind),
        place=place,
        origin=str(rng.choice([p for p in places if p != place])) if kind == "transfer" else None,
        load=min(float(rng.choice([0, 1, 1, 2, 0.5])), largest),
        ready_s=ready_s,
        due_s=ready_s + float(rng.integers(0, 150)),
        tolerance_s=float(rng.choice([0, 10, 60])),
        service_s=float(rng.choice([0, 2, 10])),
        release_s=now_s,
        priority=int(rng.integers(1, 4)),
    )


def random_policy(rng):
    """Any rules, some protection."""
    low = int(rng.integers(0, 2))
    return Policy(
        protection=(0, low, low + int(rng.integers(0, 2))),
        may_squeeze=bool(rng.random() < 0.7),
        may_eject=bool(rng.random() < 0.5),
        may_hold=bool(rng.random() < 0.5),
    )


def random_event(rng, dispatcher, instance, number, now_s):
    """Something that can happen now."""
    robot = str(rng.choice([robot.id for robot in instance.robots]))
    kind = rng.choice(
        ["submit", "advance", "cancel", "delay", "robot"], p=[0.5, 0.1, 0.15, 0.12, 0.13]
    )
    is_out = robot in dispatcher.out_of_order()
    if kind == "cancel" and dispatcher.instance().requests:
        ids = [request.id for request in dispatcher.instance().requests]
        return Cancel(now_s=now_s, request=str(rng.choice(ids)))
    if kind == "delay" and not is_out:
        return Delay(now_s=now_s, robot=robot, delay_s=float(rng.integers(1, 60)))
    if kind == "robot":
        if is_out:
            return Return(now_s=now_s, robot=robot)
        place = rng.choice([None, *(place.id for place in instance.places)])
        return Breakdown(now_s=now_s, robot=robot, place=place)
    if kind == "advance":
        return Advance(now_s=now_s)
    return Submit(now_s=now_s, request=random_request(rng, instance, f"D{number}", now_s))


def starts(plan):
    """Planned start of each request, and its robot."""
    return {
        stop.request: (stop.start_s, trip.robot)
        for trip in plan.trips
        for stop in trip.stops
        if not stop.is_pickup
    }


def require_sound_plan(dispatcher):
    """The referee accepts the plan, but for lateness that the dispatcher owns up to."""
    instance, plan, outcome = dispatcher.instance(), dispatcher.plan(), dispatcher.outcome()
    report = check(instance, plan, timing=Timing.DISPATCHED)
    for violation in report.violations:
        is_owned = (
            violation.constraint is Constraint.LATE and violation.request in outcome.overdue
        ) or (violation.constraint is Constraint.SHIFT and violation.robot in outcome.overrun)
        assert is_owned, violation.message
    pending = sum(
        instance.costs.per_denial[request.priority - 1]
        for request in instance.requests
        if dispatcher.status(request.id) is Status.PENDING
    )
    assert report.cost.total - pending == pytest.approx(outcome.cost, abs=1e-4)
    assert report.cost.num_robots == outcome.num_robots


def require_loads(dispatcher):
    """Slots on board, counted stop by stop, fit into every robot."""
    instance = dispatcher.instance()
    for trip in dispatcher.plan().trips:
        capacity = instance.robot_by_id[trip.robot].capacity + 1e-9
        requests = [instance.request_by_id[stop.request] for stop in trip.stops]
        on_board = sum(r.load for r in requests if r.kind is Kind.DELIVER)
        assert on_board <= capacity
        for request, stop in zip(requests, trip.stops, strict=True):
            grows = request.kind is Kind.COLLECT or stop.is_pickup
            on_board += request.load if grows else -request.load
            assert on_board <= capacity


def require_conservation(dispatcher):
    """Every revealed request is in exactly one state."""
    outcome = dispatcher.outcome()
    parts = ("served", "open", "pending", "denied", "unservable", "cancelled", "replaced")
    total = sum(getattr(outcome, f"num_{part}") for part in parts)
    assert total == outcome.num_revealed


def require_history(before, after, event, now_s, renamed):
    """What has started stays; the stop that a robot is under way to stays its next."""
    for robot, stops in before.items():
        now = after.get(robot, ())
        broke = isinstance(event, Breakdown) and event.robot == robot
        for old, new in zip(stops, now, strict=False):
            assert renamed.get(old.request, old.request) == new.request
            if old.start_s <= now_s:
                assert (old.arrive_s, old.start_s) == (new.arrive_s, new.start_s)
        num_started = sum(stop.start_s <= now_s for stop in stops)
        assert len(now) >= (num_started if broke else len(stops))


def require_promises(before, dispatcher, record):
    """No accepted request starts later than promised, but for those named as moved.

    A robot that is late, broken or holds withdrawn goods may break its promises.
    """
    event = record.event
    robot = getattr(event, "robot", None)
    if isinstance(event, Cancel):
        robot = before.get(event.request, (0.0, None))[1]
    moved = {id_ for decision in record.decisions for id_ in decision.moved}
    redone = {decision.request for decision in record.decisions}
    after = starts(dispatcher.plan())
    for request in dispatcher.instance().requests:
        start_s, driver = before.get(request.id, (0.0, robot))
        if driver != robot and request.id not in moved | redone:
            assert after[request.id][0] <= max(request.due_s, start_s) + 1e-6


def require_honest_remedy(dispatcher, request, now_s, quote):
    """With the window or the slots that an answer names, it would have been another."""
    if quote.remedy is not None and quote.remedy.window_s is not None:
        later = replace(request, due_s=request.due_s + quote.remedy.window_s + 1e-6)
        assert dispatcher.quote(later, now_s).rule in (Rule.INSERT, Rule.SPARE)
    if quote.remedy is not None and quote.remedy.slots is not None:
        smaller = replace(request, load=request.load - quote.remedy.slots)
        assert dispatcher.quote(smaller, now_s).rule in (Rule.INSERT, Rule.SPARE)


def happen(rng, dispatcher, event):
    """Let an event happen, asking first where it is a request; returns what came of it."""
    if isinstance(event, Advance) and rng.random() < 0.5:
        stability, improver = float(rng.choice([0, 5])), rng.choice([relocate, improve_open])
        dispatcher.reoptimise(
            event.now_s, rng, max_iterations=20, stability=stability, improver=improver
        )
        return dispatcher.last
    if not isinstance(event, Submit):
        return dispatcher.handle(event)
    state = (dispatcher.plan(), dispatcher.outcome())
    quote = dispatcher.quote(event.request, event.now_s)
    require_honest_remedy(dispatcher, event.request, event.now_s, quote)
    assert (dispatcher.plan(), dispatcher.outcome()) == state
    record = dispatcher.handle(event)
    assert record.decisions[0] == quote
    return record


def run_day(seed, num_events=25, journal=None):
    """One random day with all laws checked after every event."""
    rng = np.random.default_rng(seed)
    instance, policy = random_instance(rng), random_policy(rng)
    plan = solve(instance, method="insertion", objective="cost") if instance.requests else None
    dispatcher = Dispatcher(instance, plan, policy, journal)
    require_sound_plan(dispatcher)
    total, now_s, number = dispatcher.initial_cost, 0.0, 0
    for step in range(num_events):
        now_s += float(rng.choice([0, 1, 7, 25, 60]) * rng.choice([1, 1, 0.3]))
        event = random_event(rng, dispatcher, instance, step, now_s)
        committed, before = dispatcher.committed(), starts(dispatcher.plan())
        record = happen(rng, dispatcher, event)
        if record is None or record.number == number:
            continue  # no better routes
        number = record.number
        total += record.cost_delta
        assert total == pytest.approx(dispatcher.outcome().cost, abs=1e-6)
        require_sound_plan(dispatcher)
        require_loads(dispatcher)
        require_conservation(dispatcher)
        cancellation, renamed = record.cancellation, {}
        if cancellation is not None and cancellation.status is CancelStatus.RETURNED:
            renamed[cancellation.request] = cancellation.return_request
        require_history(committed, dispatcher.committed(), event, now_s, renamed)
        require_promises(before, dispatcher, record)
    return dispatcher


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 60, 20))
def test_laws_hold_on_random_days(first, tmp_path):
    """Sound plans, conserved requests, kept history and promises, exact money, honest quotes.

    And the journal of the day gives the same day again.
    """
    for seed in range(first, first + 20):
        path = tmp_path / f"{seed}.jsonl"
        with Journal(path) as journal:
            dispatcher = run_day(seed, journal=journal)
        replayed = Dispatcher.replay(path)
        assert replayed.plan() == dispatcher.plan()
        assert replayed.outcome() == dispatcher.outcome()
        assert replayed.last == dispatcher.last


def test_arrays_grow_with_the_day(tmp_path):
    """Hundreds of stops on one robot, quoted and submitted; quotes leave no trace."""
    metres = np.abs(np.arange(4.0)[:, None] - np.arange(4.0)[None])
    instance = Instance(
        name="long",
        places=tuple(Place(id=f"P{k}") for k in range(4)),
        requests=(),
        robots=(Robot(id="R0", capacity=1000.0, end_s=5000.0),),
        travel_s=metres,
        distance_m=metres,
    )
    dispatcher = Dispatcher(instance, journal=Journal(tmp_path / "day.jsonl"))
    for number in range(350):
        kind = Kind.TRANSFER if number % 3 == 0 else Kind.COLLECT
        request = Request(
            id=f"D{number}",
            kind=kind,
            place="P1",
            origin="P3" if kind is Kind.TRANSFER else None,
            load=1.0,
            ready_s=1000.0,
            due_s=4000.0,
        )
        dispatcher.quote(request, 0.0)
        assert dispatcher.submit(request, 0.0).status is Status.ACCEPTED
    require_sound_plan(dispatcher)
    assert Dispatcher.replay(tmp_path / "day.jsonl").plan() == dispatcher.plan()
