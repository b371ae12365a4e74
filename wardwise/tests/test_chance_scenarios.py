"""Plans on random days: luck, factors, and the compiled steps beside a plain walk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from wardwise.fleet.chance import evaluate
from wardwise.fleet.chance.factors import fill_factors, normal_scores
from wardwise.fleet.chance.legs import legs_of
from wardwise.fleet.chance.luck import Aim, Purpose, Stream, key_of, uniforms
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.plan import Charge, ChargeVisit, Plan, Stop
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.randomness import Law, Randomness, Spread
from wardwise.fleet.schedule import schedule

LAWS = {
    "gamma": Spread(cv=0.3),
    "lognormal": Spread(law=Law.LOGNORMAL, cv=0.5),
    "normal": Spread(law=Law.NORMAL, cv=0.2),
    "triangular": Spread(law=Law.TRIANGULAR, shape=(0.274, 0.508, 0.63)),
    "empirical": Spread(law=Law.EMPIRICAL, quantiles=(1.0, 2.0, 2.5, 8.0)),
    "certain": Spread(cv=0.0),
}


def day(spread: Spread = LAWS["gamma"], day_cv: float = 0.0) -> Instance:
    """Two robots that share one slot at a station; goods that come late; a transfer."""
    spots = np.random.default_rng(1).uniform(0, 60, (6, 2))
    distance = np.hypot(*(spots[:, None] - spots[None, :]).T).T
    charge = ChargeCurve.linear(1000.0, 2.0)
    battery = Battery(capacity_wh=1000.0, start_wh=800.0, wh_per_m=0.1)
    return Instance(
        name="day",
        places=tuple(Place(id=f"p{i}") for i in range(6)),
        requests=(
            Request(
                id="d", place="p1", kind=Kind.DELIVER, due_s=66, service_s=20, available_s=40
            ),
            Request(
                id="t", place="p2", origin="p3", kind=Kind.TRANSFER, ready_s=190, due_s=260,
                service_s=20,
            ),
            Request(id="c", place="p4", ready_s=395, due_s=410, service_s=30, priority=1),
            Request(id="e", place="p1", due_s=50, tolerance_s=5, service_s=10, priority=2),
        ),
        robots=(
            Robot(id="a", capacity=2.0, end_s=500, battery=battery),
            Robot(id="b", capacity=2.0, start_s=30, end_s=192, battery=battery),
        ),
        stations=(
            Station(id="mid", place="p5", num_slots=1, charge=charge),
            Station(id="home", place="p0", num_slots=1, charge=charge),
        ),
        travel_s=distance,
        distance_m=distance,
        reload_s=15.0,
        randomness=Randomness(travel=spread, service=spread, day=day_cv),
    )  # fmt: skip


def plan_of(instance: Instance) -> Plan:
    """Charges on the way, on the way home, and at the depot while a robot is reloaded."""
    return schedule(
        instance,
        {
            "a": [
                ["d", ChargeVisit(station="mid", charged_wh=12.0), "t", "t"],
                [ChargeVisit(station="home", charged_wh=20.0), "c"],
            ],
            "b": [["e", ChargeVisit(station="mid", charged_wh=25.0)]],
        },
    )


def draw(spread: Spread, stream: Stream, seed: int, count: int) -> np.ndarray:
    """Factors of a stream from the quantile function itself."""
    return spread.quantile(uniforms(key_of(stream, seed), 0, count))


def walk(instance: Instance, plan: Plan, seed: int, count: int):
    """Late days of every request and return, and the mean delay of a day, event by event.

    A slot that another robot leaves when a charge starts is waited for.
    """
    law = instance.randomness
    day_factor = draw(Spread(law=Law.LOGNORMAL, cv=law.day), Stream(Purpose.DAY), seed, count)
    ends = {(c.station, c.end_s): trip.robot for trip in plan.trips for c in trip.charges}
    late, delay = {}, np.zeros(count)
    for robot, trips in plan.trips_by_robot().items():
        now = np.full(count, instance.robot_by_id[robot].start_s)
        for number, trip in enumerate(trips):
            ready = now + (instance.reload_s if number else 0.0)
            goods = max(instance.request_by_id[stop.request].available_s for stop in trip.stops)
            here, has_left, detour = 0, False, 0
            events = list(trip.visits())
            for at, event in enumerate(events):
                ahead = [each for each in events[at:] if isinstance(each, Stop)]
                if isinstance(event, Charge):
                    place = instance.place_index[instance.station_by_id[event.station].place]
                    aim = Aim.HOME if not ahead else aim_of(instance, ahead[0])
                    request = (ahead or trip.stops[-1:])[0].request
                    detour += place != 0 or has_left
                else:
                    request = event.request
                    asked = instance.request_by_id[request]
                    place = instance.place_index[asked.stop_place(is_pickup=event.is_pickup)]
                    aim, detour = aim_of(instance, event), 0
                is_at_depot = isinstance(event, Charge) and place == 0 and not has_left
                if not (is_at_depot or has_left):
                    now, has_left = np.maximum(np.maximum(now, ready), goods), True
                if not is_at_depot:
                    stream = Stream(Purpose.DRIVE, aim, detour, request)
                    factor = draw(law.travel, stream, seed, count) * day_factor
                    now = now + instance.travel_s[here, place] * factor
                here = place
                if isinstance(event, Charge):
                    taken = ends.get((event.station, event.start_s), robot) != robot
                    if taken or event.start_s > event.arrive_s:
                        now = np.maximum(now, event.start_s)
                    now = now + (event.end_s - event.start_s)
                    continue
                if aim is Aim.PICKUP or asked.kind is not Kind.TRANSFER:
                    now = np.maximum(now, asked.earliest_s)
                if aim is Aim.STOP:
                    late[request] = int((now > asked.latest_s + 1e-6).sum())
                    delay += np.maximum(now - asked.due_s, 0.0)
                stream = Stream(Purpose.SERVICE, aim, 0, request)
                now = now + asked.service_s * draw(law.service, stream, seed, count)
            stream = Stream(Purpose.DRIVE, Aim.HOME, 0, trip.stops[-1].request)
            factor = draw(law.travel, stream, seed, count) * day_factor
            now = now + instance.travel_s[here, 0] * factor
        late[robot] = int((now > instance.robot_by_id[robot].end_s + 1e-6).sum())
    return late, delay.mean()


def aim_of(instance: Instance, stop: Stop) -> Aim:
    """What a leg to a stop leads to."""
    is_transfer = instance.request_by_id[stop.request].kind is Kind.TRANSFER
    return Aim.PICKUP if is_transfer and stop.is_pickup else Aim.STOP


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("day_cv", [0.0, 0.2])
def test_compiled_steps_agree_with_a_plain_walk(law, day_cv):
    """Same late days, same delays up to the rounding of factors to float32."""
    instance = day(LAWS[law], day_cv)
    plan = plan_of(instance)
    outcome = evaluate(instance, plan, num_scenarios=5000, seed=3)
    late, delay = walk(instance, plan, 3, 5000)
    assert {**outcome.late, **outcome.late_returns} == late
    assert outcome.lateness_s == pytest.approx(delay, rel=1e-5, abs=1e-9)
    assert law == "certain" or 0 < sum(outcome.late.values()) < 4 * 5000


def test_slots_are_waited_for_where_the_plan_waits():
    """Robot a comes while b is charged; with two slots it is earlier on many days."""
    instance = day()
    plan = plan_of(instance)
    waited, handed = plan.trips[0].charges[0], plan.trips[2].charges[0]
    assert waited.arrive_s < waited.start_s == handed.end_s
    free = replace(
        instance, stations=tuple(replace(each, num_slots=2) for each in instance.stations)
    )
    alone = evaluate(free, plan_of(free), num_scenarios=4000)
    waiting = evaluate(instance, plan, num_scenarios=4000)
    assert waiting.late["t"] > alone.late["t"]
    assert waiting.late_returns["b"] == alone.late_returns["b"]


def test_a_plan_without_luck_takes_its_planned_times():
    """On time and back in the mean, so always; it waits for the windows of t and c alone."""
    instance = day(LAWS["certain"])
    plan = plan_of(instance)
    outcome = evaluate(instance, plan, num_scenarios=1)
    assert not any(outcome.late.values())
    assert not any(outcome.late_returns.values())
    # Robot b serves e at 30 + d(0, 1), past 50 but within the tolerance; urgent costs 3.
    assert outcome.lateness_s == pytest.approx(instance.travel_s[0, 1] - 20)
    assert outcome.lateness_cost == pytest.approx(3 * outcome.lateness_s)
    # Leaving as soon as possible, robot a waits at c for what its planned departure does not.
    planned = sum(stop.start_s - stop.arrive_s for trip in plan.trips for stop in trip.stops)
    hidden = plan.trips[1].depart_s - max(
        plan.trips[0].return_s + 15.0, plan.trips[1].charges[0].end_s
    )
    assert outcome.waiting_s == pytest.approx(planned + hidden)


def test_figures_do_not_depend_on_threads_and_days_go_on():
    """The first 4,096 of 9,000 scenarios are those of a run of 4,096."""
    instance = day(day_cv=0.1)
    plan = plan_of(instance)
    whole = evaluate(instance, plan, num_scenarios=9000, seed=5)
    assert evaluate(instance, plan, num_scenarios=9000, seed=5, jobs=3) == whole
    assert evaluate(instance, plan, num_scenarios=9000, seed=6) != whole
    part = evaluate(instance, plan, num_scenarios=4096, seed=5)
    assert all(part.late[name] <= whole.late[name] for name in whole.late)


def test_a_request_keeps_its_luck_with_another_robot():
    """Alone on either robot, equal but for its name, a request is late on the same days."""
    instance = day()
    twin = replace(instance.robots[0], id="b")
    instance = replace(instance, robots=(instance.robots[0], twin))
    first, second = (
        evaluate(instance, schedule(instance, {robot: [["e"]]}), num_scenarios=3000)
        for robot in "ab"
    )
    assert first.late == second.late
    assert first.lateness_s == second.lateness_s


def test_common_days_tie_the_fates_of_robots_together():
    """Any two of a trip's requests are late together more often on days of one factor."""
    instance = day(Spread(cv=0.05))
    instance = replace(
        instance, requests=tuple(replace(r, tolerance_s=60.0) for r in instance.requests)
    )
    plan = plan_of(instance)
    apart = evaluate(instance, plan, num_scenarios=4000)
    together = evaluate(
        replace(instance, randomness=replace(instance.randomness, day=0.3)),
        plan,
        num_scenarios=4000,
    )
    assert sum(together.late.values()) > sum(apart.late.values())
    for number, ids in enumerate(("dt", "c", "e")):
        counts = [together.late[name] for name in ids]
        assert max(counts) <= together.late_trips[number] <= sum(counts)
    assert together.late_trips[0] < together.late["d"] + together.late["t"] or not all(
        together.late[name] for name in "dt"
    )


@given(first=st.integers(0, 500), count=st.integers(1, 300))
def test_blocks_of_luck_are_slices_of_one_draw(first, count):
    """From any multiple of four on."""
    key = key_of(Stream(Purpose.SERVICE, request="meal"), 4)
    whole = uniforms(key, 0, 4 * first + count)
    assert (uniforms(key, 4 * first, count) == whole[4 * first :]).all()
    assert 0 < whole.min() <= whole.max() < 1


def test_luck_differs_by_purpose_aim_detour_request_and_seed():
    """Six streams with nothing in common."""
    base = Stream(Purpose.DRIVE, Aim.STOP, 0, "x")
    streams = [
        base,
        base._replace(purpose=Purpose.WAIT),
        base._replace(aim=Aim.HOME),
        base._replace(detour=1),
        base._replace(request="y"),
    ]
    keys = {tuple(key_of(stream, 0)) for stream in streams} | {tuple(key_of(base, 1))}
    assert len(keys) == 6


@given(first=st.integers(0, 2**40), count=st.integers(1, 50), seed=st.integers(0, 2**64))
def test_luck_is_drawn_as_numpy_draws_it(first, count, seed):
    """Bit for bit, from any place on and to any end."""
    key = key_of(Stream(Purpose.WAIT, request="meal"), seed)
    peer = np.random.Philox(key=key, counter=[first, 0, 0, 0]).random_raw(count)
    expected = ((peer >> np.uint64(12)) + 0.5) * 2.0**-52
    assert (uniforms(key, 4 * first, count) == expected).all()


def test_normal_scores_are_those_of_scipy():
    """Within 2e-9 in the middle and in both tails, at powers of two and beside them."""
    powers = 2.0 ** -np.arange(2.0, 54)
    beside = np.nextafter(powers[:-1], 0), np.nextafter(powers, 1)
    tails = np.concatenate([powers, *beside, np.geomspace(2.0**-53, 0.4999, 5000)])
    uniform = np.concatenate([tails, 1 - tails])
    assert np.abs(normal_scores(uniform) - ndtri(uniform)).max() < 2e-9


@pytest.mark.parametrize("cv", [0.01, 0.2, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("law", [Law.GAMMA, Law.LOGNORMAL, Law.NORMAL])
def test_interpolated_factors_are_the_quantiles(law, cv):
    """Within 2e-6 of the factor or of the mean, far out in both tails, too."""
    spread = Spread(law=law)
    tails = np.geomspace(2.0**-53, 0.5, 3000)
    uniform = np.concatenate([tails, 1 - tails[1:]])
    out = np.empty(len(uniform), dtype=np.float32)
    fill_factors(spread, cv, uniform, out)
    exact = spread.quantile(uniform, cv)
    error = np.abs(out - exact) / np.maximum(exact, 1.0)
    assert error.max() < 2e-6


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), cv=st.floats(0.01, 1.0))
def test_variances_of_the_matrix_stretch_the_same_luck(seed, cv):
    """Stated as variances, the deviations of the law give the same days."""
    instance = day(Spread(cv=cv))
    stated = replace(instance, travel_var_s2=legs_of(instance).travel_var_s2)
    plan = schedule(instance, {"a": [["e"]]})
    law = evaluate(instance, plan, num_scenarios=500, seed=seed)
    matrix = evaluate(stated, plan, num_scenarios=500, seed=seed)
    assert matrix.late == law.late
    assert matrix.lateness_s == pytest.approx(law.lateness_s, rel=1e-5, abs=1e-6)


def test_what_cannot_be_driven_is_refused():
    """Broken trips, names the instance does not know, ways that do not exist, bad numbers."""
    instance = day()
    plan = plan_of(instance)
    trip = plan.trips[0]
    for broken, message in (
        (replace(trip, is_broken_off=True), "is_broken_off"),
        (replace(trip, robot="z"), "robot 'z'"),
        (replace(trip, stops=(replace(trip.stops[0], request="z"),), charges=()), "request 'z'"),
        (replace(trip, charges=(replace(trip.charges[0], station="z"),)), "station 'z'"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(instance, replace(plan, trips=(broken,)))
    cut = np.array(instance.travel_s)
    cut[1, 5] = np.inf
    with pytest.raises(ValueError, match="travel"):
        evaluate(replace(instance, travel_s=cut), plan)
    for wrong in ({"num_scenarios": 0}, {"seed": -1}, {"jobs": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            evaluate(instance, plan, **wrong)


def test_an_empty_plan_has_no_risks():
    """All requests denied: nothing is late, nobody is back."""
    instance = day()
    outcome = evaluate(instance, schedule(instance, {}, denied=["d", "t", "c", "e"]))
    assert (outcome.late, outcome.late_returns, outcome.late_trips) == ({}, {}, ())
    assert outcome.lateness_s == 0
