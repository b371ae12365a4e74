"""The discrete-event twin: what robots do, what the dispatcher believes, what is reported."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import Breakdown, Cancel, Delay, Dispatcher, Journal, Policy, Return
from wardwise.fleet.dispatch.state import clock
from wardwise.fleet.loss import erlang_b
from wardwise.fleet.plan import Plan
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.replay import Reoptimisation, replay_day
from wardwise.fleet.simulate import Deed, Disturbances, Law, simulate
from wardwise.fleet.simulate.disturbances import Luck, Source
from wardwise.fleet.simulate.run import plan_known
from wardwise.generate import generate_hospital

EVERYTHING = Disturbances(
    travel_cv=None,
    service_cv=0.8,
    uses_elevators=True,
    driving_s_per_failure=1800.0,
    repair_s=900.0,
    cancels_per_s=5e-5,
)
NO_PLAN = Plan(instance="corridor", trips=())


@pytest.fixture(scope="module")
def hospital():
    """Two hours of a small hospital, with its plan."""
    instance = generate_hospital(
        num_floors=3, num_wards=10, num_robots=4, hours=2, dynamic=True, transfers=True, seed=1
    )
    return instance, plan_known(instance, 0)


def corridor(requests, **fields):
    """A depot and a ward 10 s away, one robot with one slot."""
    metres = 10.0 * (np.ones((2, 2)) - np.eye(2))
    return Instance(
        name="corridor",
        places=(Place(id="depot"), Place(id="ward")),
        requests=tuple(requests),
        robots=(Robot(id="R", capacity=1.0, end_s=2000.0),),
        travel_s=metres,
        distance_m=metres,
        **fields,
    )


def require_sound(day):
    """The referee accepts the day, every request counts once, and figures agree."""
    report = check(day.instance, day.plan, timing=Timing.EXECUTED)
    assert report.is_feasible, report.violations
    assert report == day.report
    parts = ("on_time", "late", "denied", "unservable", "cancelled", "by_hand", "open")
    for each in day.figures.classes:
        assert each.num_requests == sum(getattr(each, f"num_{part}") for part in parts)
    count = {deed: sum(fact.deed is deed for fact in day.facts) for deed in Deed}
    assert day.figures.num_breakdowns == count[Deed.BREAK_DOWN]
    if day.is_complete:
        assert count[Deed.START] == count[Deed.END] == count[Deed.ARRIVE]
        assert count[Deed.START] == sum(len(trip.stops) for trip in day.plan.trips)
        assert day.outcome.num_open == 0
        assert count[Deed.DEPART] == (
            count[Deed.ARRIVE] + count[Deed.RETURN] + count[Deed.BREAK_DOWN]
        )


def require_true_beliefs(day, believed):
    """The dispatcher's own plan has the measured times, but for arrivals before a window."""
    for driven, planned in zip(day.plan.trips, believed.trips, strict=True):
        assert driven.depart_s == planned.depart_s
        assert driven.return_s == planned.return_s
        for stop, other in zip(driven.stops, planned.stops, strict=True):
            assert stop.arrive_s <= stop.start_s == other.start_s
            assert (stop.request, stop.is_pickup) == (other.request, other.is_pickup)


def live(instance, plan, path, **settings):
    """Simulate a day with a journal; returns it with the day that the journal tells."""
    with Journal(path) as journal:
        day = simulate(instance, plan=plan, journal=journal, **settings)
    again = Dispatcher.replay(path)
    assert again.outcome() == day.outcome
    assert again.instance().requests == day.instance.requests
    assert again.last == day.records[-1]
    return day, again.plan()


def random_settings(seed):
    """Any policy, with and without re-optimisation, and everything that can go wrong."""
    rng = np.random.default_rng(seed)
    policy = Policy(
        protection=(0, int(rng.integers(2)), 1 + int(rng.integers(2))),
        may_squeeze=bool(rng.random() < 0.7),
        may_eject=bool(rng.random() < 0.5),
        may_hold=bool(rng.random() < 0.5),
    )
    disturbances = replace(
        EVERYTHING,
        law=Law.LOGNORMAL if rng.random() < 0.5 else Law.GAMMA,
        travel_cv=rng.choice([None, 0.0, 0.3, 2.0]),
        uses_elevators=bool(rng.random() < 0.5),
        driving_s_per_failure=float(rng.choice([300.0, 3000.0])),
        cancels_per_s=float(rng.choice([0.0, 5e-5, 5e-4])),
    )
    searches = rng.random() < 0.3
    return {
        "policy": policy,
        "disturbances": disturbances,
        "reoptimisation": Reoptimisation(max_iterations=50) if searches else None,
        "seed": seed,
    }


def test_without_disturbances_the_day_is_the_dispatchers_plan(hospital, tmp_path):
    """Driven to the bit as planned, and as the replay of the instance has it."""
    instance, plan = hospital
    day, believed = live(instance, plan, tmp_path / "day.jsonl")
    require_sound(day)
    assert day.plan == believed
    assert day.plan == replay_day(instance, first_plan=plan).plan
    assert day.figures.cost == pytest.approx(day.outcome.cost)
    assert not any(isinstance(record.event, Delay) for record in day.records)


def test_without_disturbances_pending_requests_are_retried_as_in_a_replay(hospital, tmp_path):
    """With few robots and rule D5 the driven day is still the dispatcher's own plan."""
    instance, _ = hospital
    instance = replace(instance, robots=instance.robots[:2])
    policy = Policy(may_hold=True)
    day, believed = live(instance, None, tmp_path / "day.jsonl", policy=policy)
    require_sound(day)
    assert day.plan == believed
    assert day.outcome.num_pending == 0
    pending = [d for r in day.records for d in r.decisions if d.status == "pending"]
    assert pending


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, pytest.param(12, marks=pytest.mark.slow)])
def test_laws_hold_on_days_on_which_everything_goes_wrong(hospital, tmp_path, first):
    """Accepted by the referee, believed as it was, the same again from the journal."""
    instance, plan = hospital
    num_days = 12 if first == 0 else 50
    for seed in range(first, first + num_days):
        day, believed = live(instance, plan, tmp_path / f"{seed}.jsonl", **random_settings(seed))
        require_sound(day)
        require_true_beliefs(day, believed)
        num_requests = sum(each.num_requests for each in day.figures.classes)
        assert num_requests == len(instance.requests)


def test_the_same_seed_gives_the_same_day(hospital):
    """Bit for bit, answers included; another seed gives another."""
    instance, plan = hospital
    settings = {"disturbances": EVERYTHING, "reoptimisation": Reoptimisation(max_iterations=50)}
    day = simulate(instance, plan=plan, seed=3, **settings)
    assert simulate(instance, plan=plan, seed=3, **settings) == day
    assert simulate(instance, plan=plan, seed=4, **settings).facts != day.facts


def test_policies_meet_the_same_luck(hospital):
    """With and without re-optimisation services take as long, and robots drive as far to fail."""
    instance, plan = hospital
    disturbances = replace(EVERYTHING, uses_elevators=False)
    days = [
        simulate(instance, plan=plan, reoptimisation=search, disturbances=disturbances, seed=2)
        for search in (None, Reoptimisation(max_iterations=300))
    ]
    assert days[0].plan != days[1].plan
    services, drives = zip(*map(measured, days), strict=True)
    common = services[0].keys() & services[1].keys()
    assert len(common) > 20
    for id_ in common:
        assert services[0][id_] == pytest.approx(services[1][id_], abs=1e-6)
    for robot in drives[0].keys() & drives[1].keys():
        assert drives[0][robot] == pytest.approx(drives[1][robot], abs=1e-5)


def measured(day):
    """Seconds of each service, and of driving until the first breakdown of each robot."""
    begun, services, driven, until_failure = {}, {}, {}, {}
    for fact in day.facts:
        robot = fact.robot
        if fact.deed in (Deed.DEPART, Deed.START):
            begun[robot] = fact.now_s
        elif fact.deed is Deed.END:
            services[fact.request] = fact.now_s - begun[robot]
        elif fact.deed is not Deed.REPAIRED:
            driven[robot] = driven.get(robot, 0.0) + fact.now_s - begun[robot]
            if fact.deed is Deed.BREAK_DOWN:
                until_failure.setdefault(robot, driven[robot])
    return services, until_failure


def test_a_late_robot_says_so_before_anyone_counts_on_it():
    """The ward is left after a service that takes longer or shorter than 60 s."""
    requests = [Request(id="r", place="ward", load=1, due_s=20, service_s=60)]
    instance = corridor(requests)
    for seed in range(6):
        day = simulate(instance, disturbances=Disturbances(service_cv=1.0), seed=seed)
        service_s = clock(Luck(seed, Law.GAMMA).duration(60.0, 3600.0, Source.SERVICE, "r", 0))
        (trip,) = day.plan.trips
        # 10 s out, the service, 10 s home.
        assert (trip.depart_s, trip.stops[0].start_s) == (0.0, 10.0)
        assert trip.return_s == 10.0 + service_s + 10.0
        (delay,) = [r.event for r in day.records if isinstance(r.event, Delay)]
        assert delay.delay_s == service_s - 60.0
        # Early at its end, late in the last instant before it should have ended.
        told_s = 10.0 + service_s if service_s < 60 else 70.0 - 2.0**-30
        assert delay.now_s == told_s


def test_a_breakdown_day():
    """A robot that breaks down stands still until it is repaired, and others bring its goods."""
    requests = [
        Request(
            id=f"r{k}", kind="deliver", place="ward", load=1, due_s=1500, service_s=5, priority=1
        )
        for k in range(6)
    ]
    instance = corridor(requests)
    robots = tuple(replace(instance.robots[0], id=f"R{k}") for k in range(3))
    instance = replace(instance, robots=robots)
    disturbances = Disturbances(driving_s_per_failure=30.0, repair_s=100.0)
    day = simulate(instance, disturbances=disturbances, seed=1)
    require_sound(day)
    breakdowns = [r.event for r in day.records if isinstance(r.event, Breakdown)]
    returns = [r.event for r in day.records if isinstance(r.event, Return)]
    assert len(breakdowns) == len(returns) == day.figures.num_breakdowns > 2
    luck = Luck(1, Law.GAMMA)
    number = dict.fromkeys(instance.robot_by_id, 0)
    for event in breakdowns:
        robot = event.robot
        repair_s = luck.exponential(100.0, Source.REPAIR, robot, number[robot])
        number[robot] += 1
        back_s = event.now_s + clock(repair_s)
        assert back_s in [other.now_s for other in returns if other.robot == robot]
        during = [f for f in day.facts if f.robot == robot and event.now_s < f.now_s < back_s]
        assert during == []
    _, until_failure = measured(day)
    for robot, seconds in until_failure.items():
        assert seconds == pytest.approx(luck.exponential(30.0, Source.FAILURE, robot, 0), abs=1e-6)
    # A delivery never changes anything at the depot, so every breakdown with goods on
    # board comes before its stop: the goods never left, and no rescue is ever needed.
    assert {request.id for request in day.instance.requests} == {r.id for r in requests}


def test_goods_of_a_broken_robot_are_counted_under_their_own_name():
    """Some day the robot breaks down between two wards: what it carries comes by another."""
    at_m = np.array([0.0, 100.0, 200.0])
    metres = np.abs(at_m[:, None] - at_m[None])
    request = Request(id="far", kind="deliver", place="b", load=1, due_s=1900, priority=1)
    instance = Instance(
        name="wards",
        places=(Place(id="depot"), Place(id="a"), Place(id="b")),
        requests=(request, replace(request, id="near", place="a")),
        robots=tuple(Robot(id=f"R{k}", capacity=2.0, end_s=2000.0) for k in range(2)),
        travel_s=metres,
        distance_m=metres,
    )
    disturbances = Disturbances(driving_s_per_failure=300.0, repair_s=600.0)
    days = [simulate(instance, disturbances=disturbances, seed=seed) for seed in range(20)]
    rescued = [day for day in days if "far/rescue" in day.instance.request_by_id]
    assert rescued
    for day in days:
        require_sound(day)
        assert day.figures.classes[0].num_requests == 2
    assert any(day.figures.classes[0].num_on_time == 2 for day in rescued)


def test_requests_are_withdrawn_at_their_rate(hospital):
    """Moments by hand from the luck; served ones are left alone, all others get an answer."""
    instance, plan = hospital
    day = simulate(instance, plan=plan, disturbances=Disturbances(cancels_per_s=2e-4), seed=5)
    require_sound(day)
    cancels = {r.event.request: r.event.now_s for r in day.records if isinstance(r.event, Cancel)}
    luck = Luck(5, Law.GAMMA)
    started = {f.request: f.now_s for f in day.facts if f.deed is Deed.START}
    end_s = max(robot.end_s for robot in instance.robots)
    for request in instance.requests:
        moment_s = request.release_s + luck.exponential(5000.0, Source.CANCEL, request.id)
        if request.id in cancels:
            assert cancels[request.id] == pytest.approx(moment_s, abs=1e-6)
        elif moment_s < end_s and request.kind != "transfer":
            assert started.get(request.id, np.inf) <= moment_s or request.id in day.plan.denied
    assert sum(each.num_cancelled for each in day.figures.classes) > 3


@pytest.mark.slow
@pytest.mark.parametrize(("num_robots", "load", "cv"), [(2, 1.0, 0.5), (4, 3.0, 2.0)])
def test_requests_with_a_trip_of_their_own_are_lost_as_erlang_says(num_robots, load, cv):
    """M/G/s/s: a delivery a trip, away for 10 + 80 + 10 s, at once or never; B by `loss`.

    Over 4,000 requests the standard error is below 0.01.
    """
    denied = total = 0
    for seed in range(4):
        rng = np.random.default_rng([seed, num_robots])
        gaps_s = np.round(1024 * rng.exponential(100.0 / load, 1000)) / 1024
        requests = [
            Request(
                id=f"r{k}", kind="deliver", place="ward", load=1, service_s=80,
                release_s=now_s, ready_s=now_s, due_s=now_s + 10,
            )
            for k, now_s in enumerate((1.0 + np.cumsum(gaps_s)).tolist())
        ]  # fmt: skip
        robots = tuple(Robot(id=f"R{k}", capacity=1.0, end_s=2.0**20) for k in range(num_robots))
        day = simulate(
            replace(corridor([]), requests=tuple(requests), robots=robots),
            plan=NO_PLAN,
            disturbances=Disturbances(law=Law.LOGNORMAL, service_cv=cv),
            seed=seed,
        )
        assert day.report.is_feasible
        routine = day.figures.classes[2]
        assert routine.num_denied + routine.num_on_time == routine.num_requests == 1000
        denied += routine.num_denied
        total += routine.num_requests
    assert denied / total == pytest.approx(erlang_b(num_robots, load), abs=0.025)


def test_ctrl_c_keeps_the_day_so_far(hospital):
    """Interrupted within an event, the day stops behind it; what was to come is open."""
    instance, plan = hospital
    seen = []

    def interrupt(record):
        seen.append(record)
        if len(seen) == 30:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    day = simulate(instance, plan=plan, disturbances=EVERYTHING, on_progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not day.is_complete
    assert day.records == tuple(seen)
    require_sound(day)
    assert sum(each.num_open for each in day.figures.classes) > 0


def test_a_negative_seed_is_refused(hospital):
    """In one line, with the range."""
    with pytest.raises(ValueError, match=r"^seed: expected at least 0, got -1$"):
        simulate(hospital[0], plan=hospital[1], seed=-1)
