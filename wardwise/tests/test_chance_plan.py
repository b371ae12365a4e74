"""Plans by the normal chain, its errors beside scenarios, and what plans cost on average."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from wardwise.fleet.chance import evaluate, expected_cost, forecast
from wardwise.fleet.check import check
from wardwise.fleet.plan import Plan
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.randomness import Law, Randomness, Spread
from wardwise.fleet.schedule import schedule
from wardwise.fleet.simulate.plan_days import simulate_plan_days


def line(law: Law = Law.NORMAL, cv: float = 0.2, num_wards: int = 4) -> Instance:
    """Wards in a row 100 s apart, one robot with two trips; the last trip waits for goods."""
    travel_s = np.abs(np.subtract.outer(np.arange(num_wards), np.arange(num_wards))) * 100.0
    return Instance(
        name="line",
        places=tuple(Place(id=f"p{i}") for i in range(num_wards)),
        requests=(
            Request(id="near", place="p1", due_s=130, service_s=50),
            Request(id="far", place="p2", due_s=300, ready_s=260, service_s=50, priority=1),
            Request(
                id="goods", place="p3", kind=Kind.DELIVER, due_s=920, available_s=560, service_s=9
            ),
        ),
        robots=(Robot(id="r", capacity=1.0, end_s=1280),),
        travel_s=travel_s,
        distance_m=travel_s,
        reload_s=30.0,
        costs=Costs(per_robot=50.0, per_metre=0.1, lateness_per_s=(10.0, 3.0, 1.0)),
        randomness=Randomness(travel=Spread(law=law, cv=cv), service=Spread(law=law, cv=cv)),
    )


def plan_of(instance: Instance) -> Plan:
    """Near and far, then the goods."""
    return schedule(instance, {"r": [["near", "far"], ["goods"]]})


def test_the_chain_of_a_plan_is_that_of_the_book():
    """Arrivals by hand: sums up to the wait at 260 s, which matters at the second ward."""
    found = forecast(line(), plan_of(line()))
    near, far, goods = (found.requests[name] for name in ("near", "far", "goods"))
    # 100 s with deviation 20: late by more than 30 s.
    assert (near.arrival_s, near.deviation_s) == pytest.approx((100.0, 20.0))
    assert near.late_share == pytest.approx(norm.sf(1.5), rel=1e-6)
    assert near.lateness_s == pytest.approx(20 * (norm.pdf(1.5) - 1.5 * norm.sf(1.5)))
    # 100 + 50 + 100 s, variance 400 + 100 + 400.
    assert (far.arrival_s, far.deviation_s) == pytest.approx((250.0, 30.0))
    # Start of the second service by Clark: d = -10, s = 30, a = -1/3.
    first = 260 - 10 * norm.cdf(-1 / 3) + 30 * norm.pdf(1 / 3)
    second = (100 + 900) * norm.cdf(-1 / 3) - 10 * 30 * norm.pdf(1 / 3)
    var = second - (first - 260) ** 2
    # Back after 50 + 200 s, reloaded after 30 more, variance 100 + 1600; goods from 560 s on.
    mean, var = first + 280, var + 1700
    d, s = mean - 560, np.sqrt(var)
    depart = 560 + d * norm.cdf(d / s) + s * norm.pdf(d / s)
    var = (d * d + var) * norm.cdf(d / s) + d * s * norm.pdf(d / s) - (depart - 560) ** 2
    assert goods.arrival_s == pytest.approx(depart + 300)
    assert goods.deviation_s == pytest.approx(np.sqrt(var + 3600))
    back = found.returns["r"]
    assert back.arrival_s == pytest.approx(depart + 609)
    assert back.late_share == pytest.approx(
        norm.sf((1280 - back.arrival_s) / back.deviation_s), rel=1e-6
    )
    assert found.lateness_s == pytest.approx(near.lateness_s + far.lateness_s + goods.lateness_s)


@pytest.mark.parametrize(("law", "error"), [(Law.NORMAL, 0.004), (Law.GAMMA, 0.03)])
def test_the_chain_agrees_with_scenarios_where_times_are_normal(law, error):
    """Within 0.004 of 100,000 days, as starts after a wait are not normal; skewed times 0.03."""
    instance = line(law)
    plan = plan_of(instance)
    found = forecast(instance, plan)
    outcome = evaluate(instance, plan, num_scenarios=100_000)
    for name, num_late in outcome.late.items():
        assert found.requests[name].late_share == pytest.approx(num_late / 1e5, abs=error)
    assert found.returns["r"].late_share == pytest.approx(
        outcome.late_returns["r"] / 1e5, abs=error
    )
    assert found.lateness_s == pytest.approx(
        outcome.lateness_s, rel=0.05 if law is Law.NORMAL else 0.5
    )


def test_a_certain_plan_is_forecast_as_planned():
    """Without randomness arrivals are the planned ones and risks are 0 or 1."""
    instance = line(cv=0.0)
    plan = plan_of(instance)
    found = forecast(instance, plan)
    for trip in plan.trips:
        for stop in trip.stops:
            each = found.requests[stop.request]
            assert (each.deviation_s, each.late_share, each.lateness_s) == (0.0, 0.0, 0.0)
            assert each.arrival_s <= stop.arrive_s
    assert found.returns["r"].arrival_s == plan.trips[-1].return_s
    assert forecast(instance, Plan(instance="line", trips=())).requests == {}


def test_costs_are_those_of_the_plan_but_for_late_and_waiting_time():
    """Certain days cost what the referee says; random ones more, priced by priority."""
    instance = line(cv=0.0)
    plan = plan_of(instance)
    assert expected_cost(instance, plan).total == pytest.approx(check(instance, plan).cost.total)
    random = line()
    cost = expected_cost(random, plan_of(random), waiting_per_s=2.0)
    outcome = evaluate(random, plan_of(random))
    assert cost.lateness_cost == outcome.lateness_cost > 0
    assert cost.waiting_cost == 2.0 * outcome.waiting_s > 0
    assert cost.total == pytest.approx(
        50 + 0.1 * 1000 + outcome.lateness_cost + 2.0 * outcome.waiting_s
    )
    # All at the price of routine requests, delays cost their sum.
    flat = replace(random, costs=replace(random.costs, lateness_per_s=(1.0, 1.0, 1.0)))
    assert expected_cost(flat, plan_of(flat)).lateness_cost == pytest.approx(outcome.lateness_s)
    with pytest.raises(ValueError, match="waiting_per_s"):
        expected_cost(random, plan, waiting_per_s=-1.0)


def test_the_twin_finds_the_same_shares_with_other_luck():
    """400 simulated days of a robot without queues: late shares within four deviations."""
    instance = line(Law.GAMMA)
    plan = plan_of(instance)
    outcome = evaluate(instance, plan, num_scenarios=100_000)
    days = simulate_plan_days(instance, plan, num_days=400, seed=3)
    shares = {name: num_late / 1e5 for name, num_late in outcome.late.items()}
    assert min(shares.values()) > 0.02
    for name, share in shares.items():
        error = 4 * np.sqrt(share * (1 - share) / 400)
        assert days.late_by_request[name] == pytest.approx(share, abs=error)
