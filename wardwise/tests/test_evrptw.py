"""E-VRPTW text: read, refused with line and field, told apart from other formats."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Kind, Request, Robot, Station
from wardwise.io import (
    InputError,
    read_evrptw,
    read_instance,
    read_json,
    read_solomon,
    write_json,
)

if TYPE_CHECKING:
    from wardwise.fleet.problem import Instance

DATA = Path(os.environ.get("WARDWISE_DATA") or "absent")
FILES = sorted(DATA.glob("evrptw/*/*.txt"))

TEXT = """StringID   Type       x          y          demand     ReadyTime  DueDate    ServiceTime
D0         d          0.0        0.0        0.0        0.0        100.0      0.0
S0         f          0.0        0.0        0.0        0.0        100.0      0.0
S1         f          6.0        8.0        0.0        0.0        100.0      0.0
C7         c          3.0        4.0        2.5        10.0       50.0       4.0
C2         c          0.0        8.0        2.0        0.0        60.0       4.0

Q Vehicle fuel tank capacity /20.0/
C Vehicle load capacity /5.0/
r fuel consumption rate /1.5/
g inverse refueling rate /3.47/
v average Velocity /2.0/
"""


@pytest.fixture
def read(tmp_path: Path):
    """Read a text as an instance from a file called tiny.txt."""

    def call(text: str) -> Instance:
        (tmp_path / "tiny.txt").write_text(text, encoding="utf-8")
        return read_evrptw(tmp_path / "tiny.txt")

    return call


def test_every_number_of_the_file_arrives(read) -> None:
    """The way to C7 is 5 long: 2.5 at speed 2, 7.5 units of energy at 1.5 each."""
    instance = read(TEXT)
    battery = Battery(capacity_wh=20.0, wh_per_m=1.5)
    assert instance.name == "tiny"
    assert [place.id for place in instance.places] == ["D0", "S1", "C7", "C2"]
    assert instance.requests == (
        Request(id="C7", place="C7", load=2.5, ready_s=10.0, due_s=50.0, service_s=4.0),
        Request(id="C2", place="C2", load=2.0, ready_s=0.0, due_s=60.0, service_s=4.0),
    )
    assert {request.kind for request in instance.requests} == {Kind.COLLECT}
    assert instance.robots == tuple(
        Robot(id=id_, capacity=5.0, end_s=100.0, max_trips=1, battery=battery) for id_ in "12"
    )
    charge = ChargeCurve.linear(20.0, 3.47)
    assert instance.stations == (
        Station(id="S0", place="D0", num_slots=None, charge=charge),
        Station(id="S1", place="S1", num_slots=None, charge=charge),
    )
    assert (instance.distance_m[0, 2], instance.travel_s[0, 2]) == (5.0, 2.5)
    assert battery.leg_wh(instance.distance_m[0, 2], instance.travel_s[0, 2]) == 7.5
    assert instance.recharge is Recharge.PARTIAL


def test_recharge_is_the_readers_choice(tmp_path: Path) -> None:
    """Files do not say whether stations may charge less than the full battery."""
    (tmp_path / "tiny.txt").write_text(TEXT)
    instance = read_evrptw(tmp_path / "tiny.txt", Recharge.FULL)
    assert instance.recharge is Recharge.FULL
    write_json(instance, tmp_path / "copy.json")
    assert read_json(tmp_path / "copy.json") == instance


def test_columns_are_found_by_name(read) -> None:
    """Any order, any case of the names."""
    rows = [line.split() for line in TEXT.splitlines()[:6]]
    order = [7, 2, 0, 1, 3, 6, 5, 4]
    table = "\n".join(" ".join(row[k] for k in order) for row in rows)
    text = table.upper().replace("D ", "d ").replace(" F ", " f ").replace(" C ", " c ")
    assert read(text + "\n" + TEXT.split("\n\n")[1]) == read(TEXT)


def test_the_format_is_known_by_its_columns(tmp_path: Path, read) -> None:
    """Whatever the file is called; a Solomon reader refuses it."""
    instance = read(TEXT)
    (tmp_path / "tiny").write_text("\n \n" + TEXT)
    assert read_instance(tmp_path / "tiny") == read_instance(tmp_path / "tiny.txt") == instance
    with pytest.raises(InputError):
        read_solomon(tmp_path / "tiny.txt")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("DueDate    Serv", "DueDate  Due Serv", "tiny.txt:1: column names: expected 'StringID T"),
        ("demand  ", "load  ", "tiny.txt:1: column names: expected 'StringID"),
        ("8.0        2.0 ", "nan        2.0 ", "tiny.txt:6: y: expected a number from -1e"),
        ("2.5        10.0", "2.5 10.0 1", "tiny.txt:5: node: expected 8 values, got 9"),
        ("2.5        10.0", "-2.5 10.0", "tiny.txt:5: demand: expected a number from 0 to 1e"),
        ("2.5        10.0", "5.5 10.0", "tiny.txt:5: demand: expected at most C = 5, got 5.5"),
        ("10.0       50.0", "60 50", "tiny.txt:5: DueDate: expected at least ReadyTime = 60, g"),
        ("C7         c", "C7 x", "tiny.txt:5: Type: expected d, f or c, got 'x'"),
        ("C2         c", "C7 c", "tiny.txt:6: StringID: expected each once, got 'C7' again"),
        ("C7         c", "C\x077 c", "tiny.txt:5: StringID: expected printable text, got 'C"),
        ("D0         d", "C9 c", "tiny.txt: Type: expected 1 of d, got 0"),
        ("S0         f", "D1 d", "tiny.txt: Type: expected 1 of d, got 2"),
        ("S1         f          6.0        8.0        0.0", "S1 f 6 8 1", "tiny.txt:4: demand: e"),
        (
            "6.0        8.0        0.0        0.0        100",
            "6 8 0 0 99",
            "tiny.txt:4: ReadyTime, DueDate: expected the depot's hours, 0 to 100, or lon",
        ),
        ("/20.0/", "/20.0", "tiny.txt:8: Q: expected a number between slashes, got '/20.0'"),
        ("/20.0/", "/0/", "tiny.txt:8: Q: expected a number from 1e-06 to 1e+12, got '0'"),
        ("/3.47/", "/inf/", "tiny.txt:11: g: expected a number from 1e-09 to 1e+12, got 'inf'"),
        ("v average", "w average", "tiny.txt:12: parameter: expected one of Q C r g v, got 'w'"),
        ("v average", "g average", "tiny.txt:12: g: expected once, got it again"),
        ("v average Velocity /2.0/\n", "", "tiny.txt: v: expected a line 'v ... /number/', got n"),
        ("10.0       50.0", "0 2", "tiny.txt:5: request 'C7': unreachable: no robot can start se"),
        ("/20.0/", "/9/", "tiny.txt:5: request 'C7': unreachable on a full battery: the way betw"),
    ],
)
def test_refusals_name_line_and_field(read, old: str, new: str, message: str) -> None:
    """One line each, and nothing but an `InputError`."""
    assert old in TEXT
    with pytest.raises(InputError) as error:
        read(TEXT.replace(old, new, 1))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_customer_is_no_problem_to_solve(read) -> None:
    """Depot and stations alone are refused."""
    lines = [line for line in TEXT.splitlines() if not line.startswith(("C7", "C2"))]
    with pytest.raises(InputError, match="Type: expected up to 10000 of c, got 0"):
        read("\n".join(lines))


@pytest.mark.skipif(not FILES, reason="WARDWISE_DATA is not set")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_public_files_agree_with_their_tables(path: Path, tmp_path: Path) -> None:
    """Numbers as numpy reads them; a copy in JSON reads back equal."""
    lines = [line.split() for line in path.read_text().splitlines()]
    table = [line for line in lines[1:] if len(line) == 8 and line[1] in "dfc"]
    last = {line[0]: float(line[-1].strip("/")) for line in lines if line and "/" in line[-1]}
    instance = read_instance(path)
    customers = np.array([line[2:] for line in table if line[1] == "c"], dtype=float)
    found = [(r.load, r.ready_s, r.due_s, r.service_s) for r in instance.requests]
    assert np.array_equal(found, customers[:, 2:])
    assert [s.id for s in instance.stations] == [line[0] for line in table if line[1] == "f"]
    assert {s.place for s in instance.stations if s.id == "S0"} == {"D0"}
    battery = instance.robots[0].battery
    assert battery is not None
    assert (battery.capacity_wh, battery.wh_per_m) == (last["Q"], last["r"])
    assert instance.robots[0].capacity == last["C"]
    for place in instance.places:
        (row,) = (line for line in table if line[0] == place.id)
        assert (place.x_m, place.y_m) == (float(row[2]), float(row[3]))
    write_json(instance, tmp_path / "copy.json")
    assert read_json(tmp_path / "copy.json") == instance


def test_a_round_trip_out_of_range_is_refused_by_the_referee(read) -> None:
    """To C7 and C2 and home: 5 + 5 + 8 = 18 long takes 27 of 20 units; C7 alone takes 15."""
    instance = read(TEXT)

    def verdict(*visits: tuple[str, float, float], return_s: float):
        stops = tuple(Stop(request=r, arrive_s=a, start_s=s) for r, a, s in visits)
        trip = Trip(robot="1", depart_s=0.0, stops=stops, return_s=return_s)
        served = {stop.request for stop in stops}
        denied = tuple(r.id for r in instance.requests if r.id not in served)
        return check(instance, Plan(instance="tiny", trips=(trip,), denied=denied))

    assert verdict(("C7", 2.5, 10.0), return_s=16.5).is_feasible
    both = verdict(("C7", 2.5, 10.0), ("C2", 16.5, 16.5), return_s=24.5)
    assert [v.constraint for v in both.violations] == ["battery"]
