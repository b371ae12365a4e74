"""Public benchmark files parse, agree with another reader, and hold their best-known solutions.

Needs the environment variable WARDWISE_DATA; without it every test here is skipped.
"""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import vrplib

from wardwise.fleet.check import check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.io import (
    read_instance,
    read_json,
    read_solomon,
    read_solution,
    read_vrplib,
    write_json,
    write_solomon,
    write_vrplib,
)

DATA = Path(os.environ.get("WARDWISE_DATA") or "absent")
SOLOMON = sorted([*DATA.glob("solomon/*.txt"), *DATA.glob("gehring_homberger/*.txt")])
DYNAMIC = sorted(DATA.glob("dvrptw/*.txt"))
ORTEC = sorted(DATA.glob("ortec/*-n*.txt"))

pytestmark = pytest.mark.skipif(not ORTEC, reason="WARDWISE_DATA is not set")


def forward_pass(instance, routes):
    """Leave at the start of the shift and never wait longer than needed."""
    trips = []
    for robot, route in zip(instance.robots, routes, strict=False):
        here, clock_s, stops = 0, robot.start_s, []
        for request in (instance.request_by_id[str(id_)] for id_ in route):
            place = instance.place_index[request.place]
            arrive_s = clock_s + instance.travel_s[here, place]
            start_s = max(arrive_s, request.ready_s)
            stops.append(Stop(request=request.id, arrive_s=arrive_s, start_s=start_s))
            here, clock_s = place, start_s + request.service_s
        return_s = clock_s + instance.travel_s[here, 0]
        trip = Trip(robot=robot.id, depart_s=robot.start_s, stops=tuple(stops), return_s=return_s)
        trips.append(trip)
    return Plan(instance=instance.name, trips=tuple(trips))


def best_known():
    """Vehicles and value of the fleet-first objective by instance."""
    with (DATA / "best_known.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["objective"] == "hier"]
    return {row["instance"].upper(): (int(row["vehicles"]), float(row["value"])) for row in rows}


@pytest.mark.parametrize("path", SOLOMON, ids=lambda path: path.stem)
def test_best_known_routes_pass_the_checker(path):
    """The stored routes are feasible and as long as published, to 1e-2."""
    solutions = {
        name.upper(): found
        for name, found in json.loads((DATA / "solutions.json").read_text()).items()
    }
    instance = read_solomon(path)
    found = solutions.get(instance.name.upper(), {}).get("hier")
    if found is None:
        pytest.skip("no routes are stored for this instance")
    report = check(instance, forward_pass(instance, found["routes"]))
    vehicles, value = best_known()[instance.name.upper()]
    assert report.violations == ()
    assert report.cost.num_robots == vehicles
    assert report.cost.distance_m == pytest.approx(value, abs=1e-2)


@pytest.mark.parametrize("path", ORTEC, ids=lambda path: path.stem[-18:])
def test_organisers_routes_cost_what_they_state(path):
    """The .sol files are feasible; their cost is the driving time, in whole seconds."""
    instance = read_instance(path)
    solution = read_solution(path.with_suffix(".sol"))
    report = check(instance, forward_pass(instance, solution.routes))
    assert report.violations == ()
    assert report.cost.num_robots == len(solution.routes)
    assert report.cost.distance_m == solution.cost


def assert_same_numbers(instance, other):
    """An instance holds what the vrplib package has read."""
    coords = [(place.x_m, place.y_m) for place in instance.places]
    windows = [(r.ready_s, r.due_s) for r in instance.requests]
    robot = instance.robots[0]
    assert np.array_equal(coords, other["node_coord"])
    assert [r.load for r in instance.requests] == list(other["demand"][1:])
    assert np.array_equal(windows, other["time_window"][1:])
    assert (robot.start_s, robot.end_s) == tuple(other["time_window"][0])
    assert [r.service_s for r in instance.requests] == list(other["service_time"][1:])
    assert (len(instance.robots), robot.capacity) == (other["vehicles"], other["capacity"])
    # The other reader takes the root of squares, which may differ in the last bit.
    assert np.allclose(instance.distance_m, other["edge_weight"], rtol=1e-14, atol=0)
    assert np.array_equal(instance.travel_s, instance.distance_m)


@pytest.mark.parametrize("path", SOLOMON[::3], ids=lambda path: path.stem)
def test_solomon_agrees_with_vrplib(path):
    """Two readers, one content."""
    other = vrplib.read_instance(path, instance_format="solomon")
    instance = read_solomon(path)
    assert instance.name == other["name"]
    assert_same_numbers(instance, other)


@pytest.mark.parametrize("path", ORTEC, ids=lambda path: path.stem[-18:])
def test_vrplib_agrees_with_vrplib(path):
    """Two readers, one content, asymmetric matrix included."""
    other = vrplib.read_instance(path)
    instance = read_vrplib(path)
    assert instance.name == other["name"]
    assert_same_numbers(instance, other)
    assert not np.array_equal(instance.travel_s, instance.travel_s.T)
    solution = vrplib.read_solution(path.with_suffix(".sol"))
    assert [
        [int(id_) for id_ in route] for route in read_solution(path.with_suffix(".sol")).routes
    ] == solution["routes"]


@pytest.mark.parametrize("path", DYNAMIC, ids=lambda path: path.stem)
def test_dynamic_files_have_release_times(path):
    """The eighth column, as numpy reads it, is the release; it never exceeds the ready time."""
    table = np.loadtxt(path, skiprows=9)
    instance = read_instance(path)
    assert [r.release_s for r in instance.requests] == list(table[1:, 7])
    assert 0 < sum(r.release_s > 0 for r in instance.requests) < len(instance.requests)
    assert all(r.release_s <= r.ready_s for r in instance.requests)


@pytest.mark.parametrize("path", [*SOLOMON[:1], *DYNAMIC[:1], *ORTEC[:1]], ids=lambda p: p.stem)
def test_public_files_survive_every_writer(path, tmp_path):
    """Read, write, read again: equal, in the file's own format and in JSON."""
    instance = read_instance(path)
    write = write_vrplib if path in ORTEC else write_solomon
    write(instance, tmp_path / "copy.txt")
    write_json(instance, tmp_path / "copy.json")
    assert read_instance(tmp_path / "copy.txt") == instance
    assert read_json(tmp_path / "copy.json") == instance
