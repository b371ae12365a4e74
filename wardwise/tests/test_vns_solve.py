"""The variable neighbourhood search from an instance to a checked plan."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.solvers import solve
from wardwise.io.evrptw import read_evrptw

# Fewest vehicles, then shortest distance with full recharge: proven by enumeration
# (Schneider, Stenger and Goeke 2014, table 3, agrees).
OPTIMA = {
    "5/c101C5": (2, 257.75),
    "5/c206C5": (1, 242.56),
    "5/r104C5": (2, 136.69),
    "5/rc105C5": (2, 241.30),
    "10/c101C10": (3, 393.76),
    "10/r102C10": (3, 249.19),
    "10/rc205C10": (2, 325.98),
    "15/c103C15": (3, 384.29),
    "15/r105C15": (4, 336.15),
}


def day(
    *,
    num_wards: int = 8,
    num_robots: int = 3,
    capacity_wh: float | None = 60.0,
    max_trips: int | None = None,
    capacity: float = 3.0,
    seed: int = 1,
    num_slots: int | None = None,
    base_w: float = 0.0,
    window_s: float = 200.0,
    recharge: Recharge = Recharge.PARTIAL,
) -> Instance:
    """Wards on a disc of radius 20, a charger at the depot and one in the middle of the east."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, num_wards), rng.uniform(5, 20, num_wards)
    spots = np.vstack(
        [[0, 0], [10, 0], np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]]
    )
    distance = np.hypot(*(spots[:, None] - spots[None, :]).T).T
    curve = ChargeCurve(points=((0.0, 0.0), (40.0, 20.0), (200.0, 180.0)))
    battery = None
    if capacity_wh is not None:
        battery = Battery(capacity_wh=capacity_wh, reserve_wh=1.0, wh_per_m=1.0, base_w=base_w)
    requests = [random_request(rng, ward, window_s) for ward in range(num_wards)]
    return Instance(
        name="day",
        places=tuple(Place(id=f"p{i}") for i in range(len(spots))),
        requests=tuple(requests),
        robots=tuple(
            Robot(id=f"k{k}", capacity=capacity, end_s=900.0, max_trips=max_trips, battery=battery)
            for k in range(num_robots)
        ),
        stations=(
            Station(id="home", place="p0", num_slots=num_slots, charge=curve),
            Station(id="east", place="p1", num_slots=num_slots, charge=curve),
        ),
        travel_s=distance,
        distance_m=distance,
        reload_s=5.0,
        recharge=recharge,
    )


def random_request(rng: np.random.Generator, ward: int, window_s: float) -> Request:
    """Of three wards one gets goods that come later, one is collected from, one gets others."""
    ready = float(rng.uniform(20, 250))
    return Request(
        id=f"r{ward}",
        place=f"p{2 + ward}",
        kind=Kind.DELIVER if ward % 3 != 1 else Kind.COLLECT,
        load=1.0,
        ready_s=ready,
        due_s=ready + window_s,
        service_s=5.0,
        available_s=float(rng.uniform(0, ready)) if ward % 3 == 0 else 0.0,
    )


@pytest.mark.parametrize("objective", ["hierarchical", "distance", "cost"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"recharge": Recharge.FULL},
        {"base_w": 100.0},
        {"capacity_wh": None},
        {"num_slots": 1},
        {"max_trips": 1, "num_robots": 6},
    ],
)
def test_plans_pass_the_referee(options: dict[str, object], objective: str) -> None:
    """Batteries with bent curves, several trips, late goods: no fault, and nobody is denied."""
    instance = day(**options)  # type: ignore[arg-type]
    plan = solve(instance, objective=objective, max_iterations=300, time_limit=60.0)
    assert check(instance, plan).violations == ()
    assert plan.denied == ()


def test_same_seed_gives_the_same_plan_with_two_threads() -> None:
    """Sixty wards make a team of two searches; with a limit on iterations they agree."""
    instance = day(num_wards=60, num_robots=9)
    first, second = (
        solve(instance, max_iterations=120, time_limit=300.0, seed=3) for _ in range(2)
    )
    assert first == second
    assert check(instance, first).is_feasible


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMA)
def test_small_electric_instances_are_solved_to_the_optimum(name: str) -> None:
    """Full recharge: proven vehicles and distance."""
    if "WARDWISE_DATA" not in os.environ:
        pytest.skip("needs WARDWISE_DATA")
    path = Path(os.environ["WARDWISE_DATA"]) / "evrptw" / f"{name}.txt"
    instance = replace(read_evrptw(path), recharge=Recharge.FULL)
    report = check(instance, solve(instance, max_iterations=20_000, time_limit=60.0))
    assert report.is_feasible
    assert (report.cost.num_robots, round(report.cost.distance_m, 2)) == OPTIMA[name]


def test_who_cannot_be_served_is_denied() -> None:
    """One robot and two wards on opposite sides at the same moment."""
    instance = day(num_wards=2, num_robots=1)
    requests = tuple(
        replace(request, kind=Kind.COLLECT, available_s=0.0, ready_s=50.0, due_s=50.0)
        for request in instance.requests
    )
    plan = solve(replace(instance, requests=requests), max_iterations=50, time_limit=60.0)
    assert len(plan.denied) == 1


@pytest.mark.parametrize("method", ["ruin", "tabu", "insertion", "pyvrp"])
def test_other_methods_send_batteries_and_late_goods_here(method: str) -> None:
    """The reason is named, and what to do."""
    with pytest.raises(ValueError, match=r"robot 'k0': battery: expected none .* --method vns"):
        solve(day(), method=method)
    with pytest.raises(ValueError, match=r"request 'r0': available_s: .* --method vns"):
        solve(day(capacity_wh=None), method=method)


def test_transfers_are_refused() -> None:
    """Its routes know deliveries and collections alone."""
    instance = day(num_wards=2)
    transfer = replace(instance.requests[0], kind=Kind.TRANSFER, origin="p3", available_s=0.0)
    with pytest.raises(ValueError, match=r"request 'r0': kind: expected collect or deliver"):
        solve(replace(instance, requests=(transfer, instance.requests[1])), method="vns")
