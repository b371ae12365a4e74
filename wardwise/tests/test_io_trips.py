"""Files with several trips and release times: read as PyVRP reads them, planned, written back."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wardwise.fleet.check import check
from wardwise.fleet.problem import Instance, Kind, Request
from wardwise.fleet.schedule import schedule
from wardwise.fleet.solvers import solve
from wardwise.io import (
    InputError,
    Solution,
    read_plan,
    read_solution,
    read_vrplib,
    solution_of,
    write_solution,
    write_vrplib,
)

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan

pyvrp = pytest.importorskip("pyvrp")

DATA = Path(os.environ.get("WARDWISE_DATA") or "absent")
PUBLIC = sorted((DATA / "mtvrptwr").glob("*.vrp"))
FEW = ("--time-limit", "60", "--max-iterations", "300", "--objective", "distance")

# Two customers, 2.236 and 5 away. Their loads do not fit into one trip.
TINY = """NAME: tiny
TYPE: MTVRPTWR
EDGE_WEIGHT_TYPE: EUC_2D
DIMENSION: 3
VEHICLES: 1
CAPACITY: 100
SERVICE_TIME: 9
NODE_COORD_SECTION
1	0	0
2	1	2
3	3	4
DEMAND_SECTION
1	0
2	60
3	70
TIME_WINDOW_SECTION
1	0	200
2	10	60
3	20	90
RELEASE_TIME_SECTION
1	0
2	0
3	25
VEHICLES_RELOAD_DEPOT_SECTION
1	1
DEPOT_SECTION
1
EOF
"""


def made_up(num_customers: int = 14, num_vehicles: int = 3) -> str:
    """Text like that of the published files."""
    rng = np.random.default_rng(1)
    ready = rng.integers(60, 300, num_customers)
    columns = {
        "NODE_COORD_SECTION": rng.integers(0, 60, (num_customers + 1, 2)),
        "DEMAND_SECTION": [[0], *rng.integers(5, 35, (num_customers, 1))],
        "TIME_WINDOW_SECTION": [[0, 800], *np.stack([ready, ready + 250], 1)],
        "RELEASE_TIME_SECTION": [[0], *rng.integers(0, 150, (num_customers, 1))],
        "VEHICLES_RELOAD_DEPOT_SECTION": [[1]] * num_vehicles,
    }
    text = TINY[: TINY.index("NODE_COORD")].replace("ION: 3", f"ION: {num_customers + 1}")
    text = text.replace("VEHICLES: 1", f"VEHICLES: {num_vehicles}")
    for heading, rows in columns.items():
        text += f"{heading}\n"
        for number, row in enumerate(rows, start=1):
            text += "\t".join(map(str, [number, *row])) + "\n"
    return text + TINY[TINY.index("DEPOT_SECTION\n1\nEOF") :]


@pytest.fixture
def write(tmp_path: Path):
    """Write text to a file and return its path."""

    def write_file(text: str, name: str = "trips.vrp") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_file


def timed(instance: Instance, solution: Solution) -> Plan:
    """Drive the routes of a solution."""
    robots = [robot.id for robot in instance.robots]
    return schedule(instance, dict(zip(robots, solution.trips(), strict=False)))


def assert_same_as_pyvrp(path: Path) -> None:
    """Every field, in whole tenths, is what PyVRP makes of a file with DIMACS rounding."""
    instance, data = read_vrplib(path), pyvrp.read(path, round_func="dimacs")
    assert np.array_equal(np.rint(10 * instance.distance_m), data.distance_matrix(0))
    assert np.array_equal(np.rint(10 * instance.travel_s), data.duration_matrix(0))
    for request, client in zip(instance.requests, data.clients(), strict=True):
        ours = (request.ready_s, request.due_s, request.service_s, request.available_s)
        theirs = (client.tw_early, client.tw_late, client.service_duration, client.release_time)
        assert tuple(10 * value for value in ours) == theirs
        assert [10 * request.load] == client.delivery
        assert request.kind is Kind.DELIVER
    (vehicles,) = data.vehicle_types()
    assert len(instance.robots) == vehicles.num_available
    assert vehicles.reload_depots == [0]
    for robot in instance.robots:
        assert robot.max_trips is None
        assert [10 * robot.capacity] == vehicles.capacity
        assert (10 * robot.start_s, 10 * robot.end_s) == (vehicles.tw_early, vehicles.tw_late)


@pytest.mark.parametrize("text", [TINY, made_up()], ids=["tiny", "made up"])
def test_file_is_read_as_pyvrp_reads_it(write, tmp_path: Path, text: str):
    """So is the file that we write of it, which reads back equal."""
    path = write(text)
    assert_same_as_pyvrp(path)
    write_vrplib(read_vrplib(path), tmp_path / "again.vrp")
    assert read_vrplib(tmp_path / "again.vrp") == read_vrplib(path)
    assert_same_as_pyvrp(tmp_path / "again.vrp")


@pytest.mark.parametrize("path", PUBLIC[::9], ids=lambda path: path.stem)
def test_public_file_and_its_solution(path: Path):
    """Read as by PyVRP; the published trips pass the referee at the published cost, in tenths."""
    assert_same_as_pyvrp(path)
    instance, solution = read_vrplib(path), read_solution(path.with_suffix(".sol"))
    report = check(instance, timed(instance, solution))
    assert report.violations == ()
    assert 10 * report.cost.distance_m == pytest.approx(solution.cost, abs=1e-6)


def test_lengths_are_cut_and_goods_come_later(write):
    """The root of 5 is 2.236: cut to 2.2, and 5 stays; all loads are delivered."""
    instance = read_vrplib(write(TINY))
    assert instance.distance_m[0].tolist() == [0.0, 2.2, 5.0]
    assert instance.travel_s.tolist() == instance.distance_m.tolist()
    assert instance.requests[1] == Request(
        id="2", place="2", kind=Kind.DELIVER, load=70, ready_s=20, due_s=90, service_s=9,
        available_s=25,
    )  # fmt: skip
    early = TINY.replace("WR", "W")
    assert read_vrplib(write(early)) == instance
    early = early[: early.index("RELEASE")] + early[early.index("VEHICLES_R") :]
    assert [request.available_s for request in read_vrplib(write(early)).requests] == [0, 0]
    once = early.replace("MT", "")
    once = once[: once.index("VEHICLES_R")] + once[once.index("DEPOT_SECTION\n1\nEOF") :]
    assert read_vrplib(write(once)).distance_m[0, 1] == np.sqrt(5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MTVRPTWR", "VRPTW", "RELEASE_TIME_SECTION: expected none without TYPE MTVRPTW or MTVR"),
        ("RELEASE_TIME", "SERVICE_TIME", "SERVICE_TIME_SECTION: expected none with SERVICE_TIME"),
        ("\n1\t1\n", "\n1\t2\n", "25: VEHICLES_RELOAD_DEPOT_SECTION depot: expected a whole"),
        ("\n1\t1\n", "\n", "24: VEHICLES_RELOAD_DEPOT_SECTION: expected 1 rows as in VEHICLES"),
        ("\n1\t1\n", "\n2\t1\n", "DEPOT_SECTION vehicle: expected a whole number from 1 to 1"),
        ("N\n1\nEOF", "N\n2\nEOF", "26: DEPOT_SECTION: expected the one depot 1"),
        ("E_SECTION\n1\t0\n2\t0", "E_SECTION\n1\t7\n2\t0", "21: RELEASE_TIME_SECTION of the depot"),
        ("3\t25", "3\t86", "15: request '2': unreachable: no robot can start service by 90"),
    ],
)
def test_bad_file_is_refused(write, old: str, new: str, message: str):
    """One line names line, section and range."""
    assert TINY.count(old) == 1
    with pytest.raises(InputError, match=r"^[^\n]*$") as error:
        read_vrplib(write(TINY.replace(old, new)))
    assert message in str(error.value)


def test_solution_file_holds_trips(tmp_path: Path):
    """A 0 is a reload; what others say about optimality is passed over."""
    solution = Solution(routes=(("1", "4", "0", "3"), ("2",)), cost=12.5)
    write_solution(solution, tmp_path / "a.sol")
    text = (tmp_path / "a.sol").read_text()
    assert text == "Route #1: 1 4 0 3\nRoute #2: 2\nCost 12.5\n"
    (tmp_path / "b.sol").write_text(text.replace("Cost", "Cost:") + "Optimal: True\n")
    assert read_solution(tmp_path / "b.sol") == solution
    assert solution.trips() == [[["1", "4"], ["3"]], [["2"]]]
    for route in ("0 1", "1 0", "1 0 0 2", "1 0 1"):
        (tmp_path / "c.sol").write_text(f"Route #1: {route}\n")
        with pytest.raises(InputError, match="1: customer: expected"):
            read_solution(tmp_path / "c.sol")


def test_pyvrps_trips_pass_the_referee_and_ours_are_as_short(write):
    """The same cost in tenths; ours is at most 3 % above."""
    path = write(made_up())
    instance, data = read_vrplib(path), pyvrp.read(path, round_func="dimacs")
    result = pyvrp.solve(data, pyvrp.stop.MaxIterations(300), seed=1, display=False)
    assert result.is_feasible()
    routes = []
    for route in result.best.routes():
        visits = [activity for activity in route.schedule() if activity.is_client()]
        words = [str(visits[0].idx + 1)]
        for before, visit in pairwise(visits):
            words += ["0"] * (visit.trip != before.trip) + [str(visit.idx + 1)]
        routes.append(tuple(words))
    theirs = check(instance, timed(instance, Solution(routes=tuple(routes))))
    assert theirs.violations == ()
    assert 10 * theirs.cost.distance_m == pytest.approx(result.cost())
    plan = solve(instance, objective="distance", time_limit=60.0, max_iterations=600)
    ours = check(instance, plan)
    assert ours.violations == ()
    assert plan.denied == ()
    assert ours.cost.distance_m <= 1.03 * theirs.cost.distance_m


def test_plan_is_written_as_a_solution_and_judged(run, tmp_path: Path):
    """Method vns of itself; the .sol file holds the plan of the JSON file, and is checked."""
    (tmp_path / "trips.vrp").write_text(made_up())
    done = run("plan", "trips.vrp", *FEW)
    assert done.code == 0
    assert "with vns" in done.err
    assert run("plan", "trips.vrp", *FEW, "--output", "trips.sol").code == 0
    plan = read_plan(tmp_path / "trips.plan.json")
    metres = check(read_vrplib(tmp_path / "trips.vrp"), plan).cost.distance_m
    assert read_solution(tmp_path / "trips.sol") == solution_of(plan, metres)
    again = run("check", "trips.vrp", "trips.sol")
    assert again.code == 0
    assert f"{metres:,.1f}" in again.out


def test_solution_that_comes_too_late_is_infeasible(run, tmp_path: Path):
    """The far one's goods come at 25: back at 44, with the near one too late for 40."""
    (tmp_path / "tiny.vrp").write_text(TINY.replace("2\t10\t60", "2\t10\t40"))
    (tmp_path / "good.sol").write_text("Route #1: 1 0 2\n")
    (tmp_path / "late.sol").write_text("Route #1: 2 0 1\n")
    (tmp_path / "many.sol").write_text("Route #1: 1\nRoute #2: 2\n")
    assert run("check", "tiny.vrp", "good.sol").code == 0
    late = run("check", "tiny.vrp", "late.sol")
    assert late.code == 1
    assert late.err.startswith("infeasible: robot '1': request '1'")
    many = run("check", "tiny.vrp", "many.sol")
    assert many.code == 2
    assert "many.sol: Route: expected at most 1 as there are robots, got 2" in many.err


def test_solution_file_is_refused_before_the_search(run, tmp_path: Path):
    """Named requests do not fit into sequences of numbers."""
    assert run("generate", "--floors", "2", "--wards", "10", "--output", "h.json").code == 0
    done = run("plan", "h.json", "--output", "h.sol")
    assert done.code == 2
    assert "expected a whole number above 0 for a .sol file" in done.err
    assert not (tmp_path / "h.sol").exists()
