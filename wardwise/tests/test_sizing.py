"""Sizing a fleet: days, statistics, comparison, and the directions that must come out."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from wardwise.fleet.loss import erlang_b, protected_denial
from wardwise.fleet.problem import Costs, Instance, Place, Request, Robot
from wardwise.fleet.sizing import (
    Day,
    HospitalDays,
    PastDays,
    RedrawnDays,
    Sizing,
    days_of,
    replay,
    size,
    stats,
)
from wardwise.fleet.sizing.compare import conclude
from wardwise.fleet.sizing.run import Fleet, Results, Task, simulate
from wardwise.fleet.solvers import solve
from wardwise.io import read_instance

DATA = Path(os.environ.get("WARDWISE_DATA", ""))
SOLOMON = ("C101", "C201", "R101", "R110", "R202", "R211", "RC101", "RC106", "RC201", "RC207")


def plane(seed: int = 0, *, num_requests: int = 40, horizon: float = 200.0) -> Instance:
    """Requests scattered over a square around the depot, with windows all day long."""
    rng = np.random.default_rng(seed)
    at = np.vstack([[50.0, 50.0], rng.uniform(0, 100, (num_requests, 2))])
    distance = np.linalg.norm(at[:, None] - at, axis=2)
    ready = distance[0, 1:] + rng.uniform(1, horizon - 180, num_requests)
    requests = tuple(
        Request(
            id=f"q{i}",
            place=str(i + 1),
            load=float(rng.integers(5, 30)),
            ready_s=float(ready[i]),
            due_s=float(ready[i]) + 25.0,
            service_s=5.0,
        )
        for i in range(num_requests)
    )
    return Instance(
        name=f"plane{seed}",
        places=tuple(Place(id=str(i)) for i in range(num_requests + 1)),
        requests=requests,
        robots=tuple(
            Robot(id=str(k), capacity=120.0, end_s=horizon, max_trips=1) for k in range(25)
        ),
        travel_s=distance,
        distance_m=distance,
    )


@pytest.fixture(scope="module")
def redrawn() -> RedrawnDays:
    base = plane()
    plan = solve(base, method="insertion", time_limit=60.0)
    return RedrawnDays(base=base, reference_plan=plan, degree=0.5)


@pytest.fixture(scope="module")
def sizing(redrawn: RedrawnDays) -> Sizing:
    return size(redrawn, days=75, seed=1, spares=range(6), jobs=1)


def outcome(sizing: Sizing, spares: int, protection: tuple[int, int, int]):
    (found,) = [o for o in sizing.outcomes if (o.num_spares, o.protection) == (spares, protection)]
    return found


@pytest.mark.slow
def test_more_spares_deny_less_with_falling_returns(sizing: Sizing) -> None:
    """Each spare saves denials of all classes together, and two fewer than the two before."""
    denied = [
        sum(i.mean * n for i, n in zip(o.denied, sizing.num_calls, strict=True))
        for o in (outcome(sizing, spares, (0, 0, 0)) for spares in range(6))
    ]
    saved = [before - after for before, after in pairwise(denied)]
    assert min(saved) > 0
    assert sum(saved[:2]) > sum(saved[2:4]) > saved[4]


@pytest.mark.parametrize("spares", [2, 3, 4])
def test_protection_shifts_denials_to_lower_classes(sizing: Sizing, spares: int) -> None:
    """The higher the levels, the fewer stat and the more urgent requests are denied."""
    levels = [outcome(sizing, spares, level) for level in ((0, 0, 0), (0, 1, 1), (0, 2, 2))]
    stat, urgent = ([o.denied[rank].mean for o in levels] for rank in (0, 1))
    assert stat == sorted(stat, reverse=True)
    assert urgent == sorted(urgent)
    assert stat[0] > stat[2]
    assert urgent[0] < urgent[2]


def test_outcomes_add_up(sizing: Sizing) -> None:
    """Every request is served, denied or came too late; idle robots cost what they cost."""
    total = sizing.num_known + sum(sizing.num_calls)
    for o in sizing.outcomes:
        turned_down = sum(
            (a.mean + b.mean) * n
            for a, b, n in zip(o.denied, o.unservable, sizing.num_calls, strict=True)
        )
        assert o.served.mean * total + turned_down + o.denied_beforehand.mean == pytest.approx(
            total
        )
        idle = o.num_robots - o.robots_used.mean
        assert o.cost_owned.mean == pytest.approx(o.cost_used.mean + 100 * idle)
        assert o.extra_cost.mean == pytest.approx(o.cost_owned.mean - sizing.best.cost_owned.mean)
        assert o.extra_cost.mean >= 0
        assert o.late.mean == o.lateness_s.mean == 0  # hard windows


def test_common_days_make_differences_sharp(sizing: Sizing) -> None:
    """The paired interval is narrower than that of the cost itself."""
    assert sizing.second is not None
    extra, cost = sizing.second.extra_cost, sizing.second.cost_owned
    assert extra.high - extra.low < cost.high - cost.low


def test_results_depend_on_the_seed_alone(redrawn: RedrawnDays, sizing: Sizing) -> None:
    """Days are the same whatever else is simulated, whoever simulates them."""
    fleets = tuple(Fleet(num_robots=k, protection=(0, 0, 1)) for k in (5, 8))
    task = Task(source=redrawn, seed=1, iterations=50, fleets=fleets)
    whole = simulate(task, range(6))
    halves = [simulate(task, range(3)), simulate(task, range(3, 6))]
    for column, parts in zip(whole, zip(*halves, strict=True), strict=True):
        assert np.array_equal(column, np.concatenate(parts))
    alone = simulate(replace(task, fleets=fleets[1:]), range(6))
    assert np.array_equal(alone.tally[:, 0], whole.tally[:, 1])
    assert not np.array_equal(simulate(replace(task, seed=2), range(6)).tally, whole.tally)


@pytest.mark.slow
def test_result_does_not_depend_on_the_number_of_processes(
    redrawn: RedrawnDays, sizing: Sizing
) -> None:
    """Two processes give the bits of one, and progress in order."""
    done: list[tuple[int, int]] = []
    again = size(
        redrawn, days=75, seed=1, spares=range(6), jobs=2,
        on_progress=lambda *progress: done.append(progress),
    )  # fmt: skip
    assert again == sizing
    assert done == [(25, 75), (50, 75), (75, 75)]


@pytest.mark.slow
def test_ray_gives_the_same_result(redrawn: RedrawnDays, sizing: Sizing) -> None:
    """A cluster of one machine."""
    assert size(redrawn, days=75, seed=1, spares=range(6), ray_address="local") == sizing


def test_ray_is_asked_for_by_name(redrawn: RedrawnDays, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the message says how to get it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"ray_address: .*pip install 'wardwise\[ray\]'"):
        size(redrawn, days=2, spares=(0,), ray_address="local")


def test_an_interrupt_keeps_the_days_done(redrawn: RedrawnDays) -> None:
    """Ctrl-C after the first chunk of 25 days; before it, there is nothing to keep."""

    def stop(done: int, _days: int) -> None:
        if done >= 25:
            raise KeyboardInterrupt

    found = size(redrawn, days=60, seed=1, spares=(1,), jobs=1, on_progress=stop)
    assert (found.num_days, found.is_complete) == (25, False)

    with pytest.raises(KeyboardInterrupt):
        size(_Interrupting(), days=2, jobs=1)


class _Interrupting:
    name = "never"

    def day(self, seed: int) -> Instance:
        """Ctrl-C at once."""
        raise KeyboardInterrupt(seed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"days": 1}, "days: expected at least 2, got 1"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"jobs": 0}, "jobs: expected at least 1, got 0"),
        ({"plan_iterations": -1}, "plan_iterations: expected at least 0"),
        ({"spares": ()}, "spares: expected at least one number"),
        ({"spares": (-1,)}, "spares: expected 0 to 500, got -1"),
        ({"protection": ((2, 1),)}, "protection: expected 0 or more .* got 2, 1"),
        ({"max_denial": {4: 0.1}}, "max_denial: .* got 0.1 for 4"),
        ({"max_denial": {1: 0.0}}, "max_denial: .* got 0.0 for 1"),
    ],
)
def test_bad_parameters_are_refused(redrawn: RedrawnDays, options: dict, message: str) -> None:
    """One line that names the parameter and its range."""
    with pytest.raises(ValueError, match=message):
        size(redrawn, **options)


def test_robots_of_two_kinds_are_refused() -> None:
    """A number of robots says nothing where robots differ."""
    base = plane()
    mixed = replace(base, robots=(base.robots[0], replace(base.robots[1], capacity=99.0)))
    with pytest.raises(ValueError, match=r"robots: expected all alike .* got 2 kinds"):
        size(PastDays(days=(mixed,)), days=2, jobs=1)


# Comparison of made-up tallies.


def results(money: list[list[float]], stat_denied: list[list[float]], used: int = 3) -> Results:
    """Days by fleets; each day ten stat requests come in."""
    tally = np.zeros((len(money), len(money[0]), replay.SIZE))
    tally[:, :, replay.MONEY], tally[:, :, replay.DENIALS] = money, stat_denied
    tally[:, :, replay.ROBOTS] = used
    return Results(
        tally=tally,
        num_planned=np.array([2, 3, 2, 3]),
        num_known=np.full(4, 20),
        num_calls=np.tile([10.0, 0.0, 0.0], (4, 1)),
        last_call_s=np.full(4, 500.0),
    )


def concluded(found: Results, max_denial: dict[int, float]) -> Sizing:
    columns = found.tally.shape[1]
    fleets = tuple(Fleet(num_robots=3 + k, protection=(0, 0, 0)) for k in range(columns))
    task = Task(source=_Interrupting(), seed=0, iterations=0, fleets=fleets)
    return conclude(task, found, Costs(per_robot=10.0), 2, 4, max_denial)


def test_the_cheapest_fleet_is_recommended_with_idle_robots_paid() -> None:
    """Fleets of 3, 4 and 5 robots of which 3 are used: idle ones cost 0, 10 and 20 more.

    Money 104, 95, 90 on average becomes 104, 105, 110.
    """
    money = [[100, 91, 88], [108, 99, 92], [100, 97, 86], [108, 93, 94]]
    sizing = concluded(results(money, [[4, 1, 0]] * 4), {})
    assert [o.cost_owned.mean for o in sizing.outcomes] == [104, 105, 110]
    assert (sizing.recommended, sizing.runner_up) == (0, 1)
    # Differences to the first by day: 1, 1, 7, -5.
    extra = sizing.outcomes[1].extra_cost
    interval = ttest_1samp([1, 1, 7, -5], 0).confidence_interval(0.95)
    assert (extra.low, extra.high) == pytest.approx((interval.low, interval.high))
    assert not extra.excludes_zero
    assert "within chance" in sizing.advice()[-1]


def test_a_service_level_rules_out_cheaper_fleets() -> None:
    """40 and 10 % denied are too many for 8 %; none of 40 requests denied has 0 to 8.8 %."""
    money = [[100, 91, 88], [108, 99, 92], [100, 97, 86], [108, 93, 94]]
    found = results(money, [[4, 1, 0]] * 4)
    sizing = concluded(found, {1: 0.09})
    assert (sizing.recommended, sizing.runner_up, sizing.is_met) == (2, None, True)
    assert sizing.advice()[-1].startswith("It is the largest fleet tried")
    missed = concluded(found, {1: 0.05})
    assert (missed.recommended, missed.is_met) == (2, False)
    assert "keeps to the service level" in missed.advice()[2]


def test_fleets_that_cost_the_same_every_day_are_no_rivals() -> None:
    """Of equals the smallest is taken; next best is one that differs."""
    money = [[100, 90, 95], [108, 98, 95], [100, 90, 95], [108, 98, 95]]
    sizing = concluded(results(money, [[0, 0, 0]] * 4), {})
    # 104, 94 + 10, 95 + 20; the first two are equal on every day.
    assert (sizing.recommended, sizing.runner_up) == (0, 2)


def test_closed_forms_use_the_spares_that_days_begin_with() -> None:
    """Calls of 2 stat and 1 routine a day in 500 s, away for 100 s each: 0.4 + 0.2 erlangs."""
    found = results([[0, 0]] * 4, [[0, 0]] * 4)
    found.tally[:, :, replay.CALLS] = 2
    found.tally[:, :, replay.CALLS + 2] = 1
    found.tally[:, :, replay.AWAY_S] = 300
    sizing = concluded(found, {})
    assert sizing.calls.per_day == (2, 0, 1)
    assert sizing.calls.away_s == 100
    assert sizing.calls.loads == pytest.approx((0.4, 0.0, 0.2))
    # Of four robots 2 or 1 are spare, each on half of the days.
    four = sizing.outcomes[1]
    assert four.erlang_b == pytest.approx((erlang_b(2, 0.6) + erlang_b(1, 0.6)) / 2)
    both = [protected_denial(s, (0.4, 0.0, 0.2), (0, 0, 0)) for s in (1, 2)]
    assert four.protected_denial == pytest.approx(np.mean(both, axis=0))
    # P(Poisson(0.4) > 0) = 0.33 is above 0.15 = 150 / 1000, P(> 1) = 0.06 is not.
    assert sizing.calls.protection == (0, 0, 1)


def test_intervals_are_those_of_the_textbook() -> None:
    """Student's t; the ratio's residuals by hand; Wilson at zero of ten."""
    values = np.array([3.0, 5.0, 4.0, 8.0])
    found = stats.mean(values)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    # 6 of 20; residuals 1 - 0.3 * 4, 2 - 0.3 * 6, 3 - 0.3 * 10 over a mean of 20 / 3.
    found = stats.share(np.array([1.0, 2.0, 3.0]), np.array([4.0, 6.0, 10.0]))
    reach = 4.302653 * np.sqrt((0.04 + 0.04) / 2 / 3) / (20 / 3)
    assert (found.mean, found.high - found.mean) == pytest.approx((0.3, reach))
    none = stats.share(np.zeros(2), np.full(2, 5.0))
    assert (none.low, none.high) == pytest.approx((0.0, 0.2775), abs=1e-4)
    every = stats.share(np.full(2, 5.0), np.full(2, 5.0))
    assert (every.low, every.high) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert stats.share(np.zeros(2), np.zeros(2)).high == 0.0


def test_hospital_of_transfers_and_several_trips_is_sized() -> None:
    """The whole way on a morning with all kinds of requests; it prints as JSON."""
    sizing = size(
        HospitalDays(num_wards=10, hours=3.0, transfers=True), days=6, spares=(0, 2), jobs=1
    )
    assert sizing.best.num_robots >= sizing.num_planned
    assert json.loads(json.dumps(asdict(sizing)))["num_days"] == 6


@pytest.mark.slow
@pytest.mark.skipif(not DATA.name, reason="WARDWISE_DATA is not set")
def test_directions_on_solomon_days() -> None:
    """Half of the requests dynamic, ten bases, two days each, spares beyond the plan.

    Section 4.3 of the method: each spare reduces denials with falling returns, and
    protection shifts denials from stat requests to lower classes.
    """
    denied = {(s, level): np.zeros(3) for s in (0, 1, 2, 3, 5) for level in range(min(s, 2) + 1)}
    came = np.zeros(3)
    for name in SOLOMON:
        source = days_of(read_instance(DATA / "solomon" / f"{name}.txt"), degree=0.5)
        for seed in range(10):
            day = Day(source.day(seed), most_robots=40, iterations=300, seed=seed)
            came += day.num_calls
            for (spares, level), sums in denied.items():
                tally = day.run(day.num_planned + spares, (0, level, level))
                sums += tally[replay.DENIALS : replay.DENIALS + 3]
                sums += tally[replay.UNSERVABLES : replay.UNSERVABLES + 3]
    share = {key: sums / came for key, sums in denied.items()}
    for key, values in share.items():
        print(key, (100 * values).round(1))
    free = [denied[spares, 0].sum() for spares in (0, 1, 2, 3)]
    saved = [before - after for before, after in pairwise(free)]
    assert saved == sorted(saved, reverse=True)
    assert saved[-1] > (denied[3, 0] - denied[5, 0]).sum() / 2 > 0
    for spares in (1, 2, 3, 5):
        for level in range(1, min(spares, 2) + 1):
            change = share[spares, level] - share[spares, level - 1]
            assert change[0] < 0
            assert change[1] > 0
