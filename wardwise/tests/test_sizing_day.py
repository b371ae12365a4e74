"""The compiled day against the dispatcher itself, and against the loss system."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import Dispatcher, Policy, Status, Submit, order_events
from wardwise.fleet.loss import erlang_b
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.randomness import Promise, Randomness
from wardwise.fleet.schedule import schedule
from wardwise.fleet.sizing import Day, size
from wardwise.fleet.sizing import replay as r

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.search.chains import Chains


def random_day(rng: np.random.Generator, *, num_requests: int = 14) -> Instance:
    """Travel without triangle inequality; all kinds, priorities and numbers of trips; ties."""
    num_places = 6
    travel = rng.uniform(1, 30, (num_places, num_places))
    np.fill_diagonal(travel, 0)
    robot = Robot(
        id="-", capacity=4.0, start_s=5.0, end_s=400.0, max_trips=(1, 2, None)[rng.integers(3)]
    )
    requests = []
    for i in range(num_requests):
        kind = tuple(Kind)[rng.integers(3)]
        place, ready = int(rng.integers(1, num_places)), rng.uniform(0, 200)
        origin = (place + 1 + int(rng.integers(num_places - 1))) % num_places
        is_transfer = kind is Kind.TRANSFER
        # A third is known beforehand, a third comes in at the same moment.
        release = (0.0, 50.0, rng.uniform(0, ready + 30))[rng.integers(3)]
        requests.append(
            Request(
                id=f"q{i}",
                place=str(place),
                origin=str(origin) if is_transfer else None,
                kind=kind,
                load=float(rng.integers(3)),
                ready_s=ready,
                due_s=ready + (90 if is_transfer else 40) + rng.uniform(0, 60),
                service_s=rng.uniform(0, 9),
                release_s=release,
                priority=int(rng.integers(1, 4)),
                tolerance_s=(0.0, rng.uniform(0, 50))[rng.integers(2)],
            )
        )
    return Instance(
        name="random",
        places=tuple(Place(id=str(i)) for i in range(num_places)),
        requests=tuple(requests),
        robots=robots(robot, int(rng.integers(1, 7))),
        travel_s=travel,
        distance_m=rng.uniform(1, 40, (num_places, num_places)),
        reload_s=rng.uniform(0, 5),
        costs=Costs(per_robot=rng.uniform(0, 150), per_denial=(300.0, 120.0, 60.0)),
    )


def robots(kind: Robot, count: int) -> tuple[Robot, ...]:
    fields = {**vars(kind)}
    return tuple(Robot(**{**fields, "id": str(k)}) for k in range(count))


def routes(instance: Instance, chains: Chains) -> dict[str, list[list[str]]]:
    """Requests of every trip; pickups of transfers stand behind all requests, in their order."""
    ids = [request.id for request in instance.requests]
    ids += [request.id for request in instance.requests if request.kind is Kind.TRANSFER]
    found = {}
    for robot, length in enumerate(chains.length):
        row = chains.node[robot, :length]
        trips = np.split(row, np.flatnonzero(row == 0))[1:-1]
        if length > 2:
            found[str(robot)] = [[ids[node - 1] for node in trip[1:]] for trip in trips]
    return found


def dispatch(instance: Instance, day: Day, protection: tuple[int, int, int]) -> Dispatcher:
    """The same day by the dispatcher, from the same plan."""
    start = day.start(len(instance.robots)).chains
    planned = routes(instance, start)
    denied = [
        request.id
        for node, request in enumerate(instance.requests, start=1)
        if request.release_s == 0 and start.owner[node] < 0
    ]
    dispatcher = Dispatcher(
        instance,
        schedule(instance, planned, denied),
        Policy(protection=protection, may_squeeze=False),
    )
    events = [Submit(now_s=q.release_s, request=q) for q in instance.requests if q.release_s > 0]
    for event in order_events(events):
        dispatcher.handle(event)
    return dispatcher


def served(plan: Plan) -> dict[str, list[list[str]]]:
    return {
        robot: [[stop.request for stop in trip.stops] for trip in trips]
        for robot, trips in plan.trips_by_robot().items()
    }


def compare(seed: int, **terms: object) -> list[int]:
    """Live through one random day both ways; returns the answers."""
    rng = np.random.default_rng(seed)
    instance = replace(random_day(rng), **terms)
    urgent, routine = sorted(rng.integers(0, 3, 2).tolist())
    protection, count = (0, urgent, routine), len(instance.robots)
    day = Day(instance, most_robots=count + 2, iterations=50, seed=seed)
    day.run(count + 1, (0, 0, 0))  # leaves nothing behind
    tally = day.run(count, protection)
    dispatcher = dispatch(instance, day, protection)
    meaning = {r.INSERTED: "D1", r.OPENED: "D2", r.DENIED: "denied", r.UNSERVABLE: "unservable"}
    for id_, answer in day.answers().items():
        decision = dispatcher.decision(id_)
        is_accepted = decision.status is Status.ACCEPTED
        assert meaning[answer] == (decision.rule if is_accepted else decision.status)
    plan = dispatcher.plan()
    assert routes(instance, day.chains(count)) == served(plan)
    report = check(instance, plan, timing=Timing.DISPATCHED)
    assert report.is_feasible
    cost = report.cost
    assert tally[[r.ROBOTS, r.NUM_LATE]].tolist() == [cost.num_robots, cost.num_late]
    assert tally[r.MONEY] == pytest.approx(cost.total)
    assert tally[r.METRES] == pytest.approx(cost.distance_m)
    assert tally[r.LATE_S] == pytest.approx(cost.lateness_s)
    turned_down = tally[r.DENIALS : r.UNSERVABLES + 3].sum() + tally[r.DENIED_BEFOREHAND]
    assert turned_down == cost.num_denied
    assert tally[r.SERVED] + turned_down == len(instance.requests)
    return list(day.answers().values())


def test_compiled_day_gives_the_answers_of_the_dispatcher() -> None:
    """Decision for decision, robot for robot, stop for stop, and the checker's cost."""
    answers = [answer for seed in range(60) for answer in compare(seed)]
    # Each answer is well represented.
    assert (np.bincount(answers, minlength=5)[1:] >= [300, 40, 100, 2]).all()


def test_compiled_day_gives_the_answers_of_the_dispatcher_with_quantile_slacks() -> None:
    """The same where times are random and punctuality is promised; more is denied then."""
    terms = {"randomness": Randomness(), "promise": Promise(late_share=(0.01, 0.05, 0.2))}
    by_quantile = [answer for seed in range(30) for answer in compare(seed, **terms)]
    by_mean = [answer for seed in range(30) for answer in compare(seed)]
    assert by_quantile.count(r.DENIED) > by_mean.count(r.DENIED)


@pytest.mark.slow
def test_compiled_day_gives_the_answers_of_the_dispatcher_in_a_thousand_days() -> None:
    """The same at length."""
    for seed in range(1000, 2000):
        compare(seed)


def loss_day(rng: np.random.Generator, *, num: int, load: float, cv: float) -> Instance:
    """Requests that each fill a robot and cannot wait, served for a log-normal time.

    Times are in units of the mean service, so that arrivals come at rate `load`. The
    ward is at no distance; whoever is called leaves at once or not at all.
    """
    arrivals = np.cumsum(rng.exponential(1 / load, num))
    sigma = np.sqrt(np.log(1 + cv**2))
    services = rng.lognormal(-(sigma**2) / 2, sigma, num)
    return Instance(
        name="loss",
        places=(Place(id="depot"), Place(id="ward")),
        requests=tuple(
            Request(
                id=str(i),
                place="ward",
                load=1.0,
                ready_s=arrival,
                due_s=arrival + 1e-6,
                release_s=arrival,
                service_s=service,
                priority=1 if rng.random() < 0.2 else 3,
            )
            for i, (arrival, service) in enumerate(zip(arrivals, services, strict=True))
        ),
        robots=(Robot(id="1", capacity=1.0, end_s=10 * num / load),),
        travel_s=np.zeros((2, 2)),
        distance_m=np.zeros((2, 2)),
    )


class LossDays:
    """Days of a pure loss system."""

    name = "loss"

    def __init__(self, *, num: int, load: float, cv: float) -> None:
        self._make = {"num": num, "load": load, "cv": cv}

    def day(self, seed: int) -> Instance:
        """One day."""
        return loss_day(np.random.default_rng(seed), **self._make)


@pytest.mark.parametrize("cv", [0.5, 2.0])
def test_denials_of_a_loss_system_are_erlang_b(cv: float) -> None:
    """B(8, 5) = 0.0700 and B(5, 5) = 0.2849, whatever the distribution of the times.

    Every robot belongs to the spares, and the demand for them is measured to be 5.
    """
    sizing = size(
        LossDays(num=400, load=5.0, cv=cv), days=25, seed=1, spares=(0, 5, 8, 20),
        protection=(), jobs=1,
    )  # fmt: skip
    none, few, some, many = sizing.outcomes
    assert sizing.num_planned == 0
    assert [none.num_robots, few.num_robots, some.num_robots] == [0, 5, 8]
    assert none.denied[0].mean == none.denied[2].mean == 1.0
    assert sum(sizing.calls.loads) == pytest.approx(5.0, rel=0.08)
    for outcome, expected in ((few, erlang_b(5, 5.0)), (some, erlang_b(8, 5.0))):
        for interval in (outcome.denied[0], outcome.denied[2], outcome.lost_calls[2]):
            # Three half-widths: about one miss in 10^8.
            reach = 1.5 * (interval.high - interval.low)
            assert interval.mean == pytest.approx(expected, abs=reach)
        assert outcome.erlang_b == pytest.approx(expected, rel=0.2)
    assert many.denied[2].mean == 0.0 < many.denied[2].high


def plain_day(requests: tuple[Request, ...], num_robots: int = 2) -> Instance:
    """Four wards in a row, one unit of time and distance apart."""
    position = np.arange(5.0)
    travel = np.abs(position[:, None] - position)
    return Instance(
        name="plain",
        places=tuple(Place(id=str(k)) for k in range(5)),
        requests=requests,
        robots=robots(Robot(id="-", capacity=1.0, end_s=100.0), num_robots),
        travel_s=travel,
        distance_m=travel,
        costs=Costs(per_robot=10.0),
    )


def call(id_: str, ward: int, release: float, priority: int) -> Request:
    return Request(
        id=id_,
        place=str(ward),
        load=1.0,
        due_s=release + ward,
        release_s=release,
        priority=priority,
    )


def test_of_requests_at_one_instant_the_stat_one_gets_the_last_robot() -> None:
    """Both fill the robot; the routine one stands first in the instance and is denied."""
    day = Day(
        plain_day((call("a", 2, 5.0, 3), call("b", 2, 5.0, 1))), most_robots=1, iterations=0, seed=0
    )
    tally = day.run(1, (0, 0, 0))
    assert day.answers() == {"b": r.OPENED, "a": r.DENIED}
    # A robot for 10, 4 units of distance, and 150 for the denied one.
    assert tally[r.MONEY] == 10 + 4 + 150
    # Called at 5, back at 5 + 2 + 2.
    assert tally[r.AWAY_S] == 4.0
    assert tally[r.CALLS : r.CALLS + 3].tolist() == [1, 0, 0]
    assert tally[r.LOST : r.LOST + 3].tolist() == [0, 0, 1]


def test_a_robot_that_is_back_is_called_again() -> None:
    """Away from 5 to 7 and from 50 to 58; only the first call costs a robot."""
    day = Day(
        plain_day((call("a", 1, 5.0, 2), call("b", 4, 50.0, 2))),
        most_robots=1,
        iterations=0,
        seed=0,
    )
    tally = day.run(1, (0, 0, 0))
    assert day.answers() == {"a": r.OPENED, "b": r.INSERTED}
    assert tally[r.CALLS + 1] == 2
    assert tally[r.AWAY_S] == 2.0 + 8.0
    assert tally[r.MONEY] == 10 + 2 + 8


def test_a_spare_that_is_kept_back_waits_for_a_stat_request() -> None:
    """The urgent request is denied although a robot stands idle; the stat one then gets it."""
    day = Day(
        plain_day((call("a", 1, 5.0, 2), call("b", 1, 5.5, 1))), most_robots=1, iterations=0, seed=0
    )
    day.run(1, (0, 1, 1))
    assert day.answers() == {"a": r.DENIED, "b": r.OPENED}


def test_a_fleet_too_small_for_what_is_known_plans_with_what_it_has() -> None:
    """Two known requests at one moment need two robots; one robot serves the stat one."""
    known = [call(name, 2, 0.0, priority) for name, priority in (("a", 3), ("b", 1))]
    day = Day(plain_day(tuple(known)), most_robots=2, iterations=20, seed=0)
    assert day.num_planned == 2
    assert day.run(2, (0, 0, 0))[r.MONEY] == 2 * (10 + 4)
    tally = day.run(1, (0, 0, 0))
    assert tally[r.MONEY] == 10 + 4 + 150
    assert tally[r.DENIED_BEFOREHAND] == 1
    assert routes(day.instance, day.chains(1)) == {"0": [["b"]]}


def test_what_comes_too_late_for_any_robot_is_not_denied() -> None:
    """Ward 4 is four units away, and the window closes three units after the release."""
    late = Request(id="a", place="4", due_s=8.0, release_s=5.0, priority=1)
    for count in (0, 1):
        day = Day(plain_day((late,)), most_robots=1, iterations=0, seed=0)
        tally = day.run(count, (0, 0, 0))
        assert tally[r.UNSERVABLES] == 1
        assert tally[r.DENIALS] == tally[r.LOST] == 0
