"""Plans of each named format: why requests are denied, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from wardwise.cli.shortcomings import SENTENCES, reasons_of
from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.randomness import Promise
from wardwise.fleet.schedule import schedule
from wardwise.io import read_instance, read_plan, write_json

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--time-limit", "60", "--max-iterations", "20", "--json")

# Two customers 10 away on opposite sides, both due at 10, and one vehicle: one stays out, and
# neither is punctual on more than half of the days.
SOLOMON = """TINY

VEHICLE
NUMBER     CAPACITY
  1          10

CUSTOMER
CUST NO.  XCOORD.  YCOORD.  DEMAND  READY TIME  DUE DATE  SERVICE TIME

    0      0   0   0     0   200   0
    1     10   0   4     0    10   5
    2    -10   0   4     0    10   5
"""

TRIPS = """NAME: tiny
TYPE: MTVRPTWR
EDGE_WEIGHT_TYPE: EUC_2D
DIMENSION: 3
VEHICLES: 1
CAPACITY: 10
SERVICE_TIME: 5
NODE_COORD_SECTION
1 0 0
2 10 0
3 -10 0
DEMAND_SECTION
1 0
2 4
3 4
TIME_WINDOW_SECTION
1 0 200
2 0 12
3 0 12
RELEASE_TIME_SECTION
1 0
2 1
3 2
VEHICLES_RELOAD_DEPOT_SECTION
1 1
DEPOT_SECTION
1
EOF
"""

# The far one takes 30 there and back, of 20, and a charge of 10 at 100 a unit before 500.
ELECTRIC = """StringID Type x y demand ReadyTime DueDate ServiceTime
D0 d 0 0 0 0 500 0
S1 f 10 0 0 0 500 0
C1 c 15 0 1 0 400 0
C2 c 0 5 1 0 400 0

Q Vehicle fuel tank capacity /20.0/
C Vehicle load capacity /200.0/
r fuel consumption rate /1.0/
g inverse refueling rate /100.0/
v average Velocity /1.0/
"""


@pytest.fixture
def planned(run, tmp_path: Path):
    """Plan a text or an instance; exit code, answer in JSON and what is said."""

    def plan(content: str | Instance, name: str, *args: str) -> tuple[int, Any, str]:
        if isinstance(content, Instance):
            write_json(content, tmp_path / name)
        else:
            (tmp_path / name).write_text(content)
        done = run("plan", name, *QUICK, *args)
        return done.code, json.loads(done.out), done.err

    return plan


@pytest.mark.parametrize(
    ("content", "name", "args", "found", "code"),
    [
        (SOLOMON, "tiny.txt", (), {"fleet"}, 0),
        (SOLOMON, "tiny.txt", ("--promise", "95"), {"promise"}, 1),
        (TRIPS, "tiny.vrp", (), {"fleet"}, 1),
        (TRIPS, "tiny.vrp", ("--promise", "99"), {"promise"}, 1),
        (ELECTRIC, "tiny.txt", (), {"battery"}, 1),
    ],
)
def test_files_of_the_literature(
    planned, content: str, name: str, args: tuple[str, ...], found: set[str], code: int
):
    """Each denied request has its constraint and a sentence; the terminal names the same."""
    done, answer, said = planned(content, name, *args)
    assert done == code
    assert [reason["request"] for reason in answer["reasons"]] == answer["denied"] != []
    assert {reason["constraint"] for reason in answer["reasons"]} == found
    for reason in answer["reasons"]:
        assert reason["sentence"].startswith(SENTENCES[reason["constraint"]] + ": ")
        line = f"{reason['constraint']}: request"
        assert (line in said) == (code == 1)


def test_a_request_that_no_full_battery_reaches_is_bad_input(run, tmp_path: Path):
    """Without the station nothing is planned: the line names the request."""
    (tmp_path / "far.txt").write_text(ELECTRIC.replace("S1 f 10 0", "S1 f 0 10"))
    done = run("plan", "far.txt", *QUICK)
    assert done.code == 2
    assert done.out == ""
    assert "request 'C1': unreachable on a full battery: the way between two" in done.err


def hospital() -> Instance:
    """A dock, a charger 10 behind it, wards 15 and 5 away; requests that fail in all ways."""
    spots = (0.0, 10.0, 15.0, -5.0)
    way = [[abs(a - b) for b in spots] for a in spots]
    battery = Battery(capacity_wh=20.0, wh_per_m=1.0)
    charge = ChargeCurve.linear(20.0, 100.0)
    return Instance(
        name="ward",
        places=tuple(Place(id=name, x_m=x) for name, x in zip("dcfn", spots, strict=True)),
        requests=(
            Request(id="served", place="n", due_s=100, kind=Kind.DELIVER, available_s=10),
            Request(id="late call", place="n", due_s=200, release_s=300),
            Request(id="last call", place="n", due_s=499, release_s=498),
            Request(id="far", place="f", due_s=400),
        ),
        robots=(Robot(id="R1", capacity=4, end_s=500, battery=battery),),
        stations=(Station(id="S", place="c", charge=charge),),
        travel_s=way,  # type: ignore[arg-type]
        distance_m=way,  # type: ignore[arg-type]
    )


def test_hospital_day_and_its_check(planned, run):
    """Window, shift and battery; the check of the written plan gives the same reasons."""
    code, answer, said = planned(hospital(), "day.json")
    assert code == 1
    assert {reason["request"]: reason["constraint"] for reason in answer["reasons"]} == {
        "late call": "window",
        "last call": "shift",
        "far": "battery",
    }
    sentences = {reason["request"]: reason["sentence"] for reason in answer["reasons"]}
    assert sentences["far"].startswith("unreachable on a full battery: no choice of stations")
    assert sentences["late call"].endswith("expected to be there by 200, is at 300")
    assert "window: request 'late call' not served" in said
    again = run("check", "day.json", "day.plan.json", "--json")
    assert json.loads(again.out)["reasons"] == answer["reasons"]


def test_denials_for_money_are_a_choice(planned):
    """With the objective cost there is nothing to explain, and no failure."""
    code, answer, _ = planned(TRIPS, "tiny.vrp", "--objective", "cost")
    assert code == 0
    assert len(answer["denied"]) == 1
    assert answer["reasons"] == []


def test_the_robot_that_comes_furthest_says_what_is_missing():
    """The small robot cannot carry it, the strong one can, but is too late after its release."""
    day = hospital()
    request = Request(id="heavy", place="n", load=3, due_s=10, release_s=20)
    robots = (replace(day.robots[0], id="small", capacity=1), day.robots[0])
    mixed = replace(day, requests=(request,), robots=robots)
    denied = schedule(mixed, {}, ["heavy"])
    (found,) = reasons_of(mixed, denied)
    assert found.constraint == "window"
    weak = replace(mixed, requests=(replace(request, release_s=0.0),), promise=Promise())
    (found,) = reasons_of(weak, denied)
    assert found.constraint == "fleet"
    strict = replace(weak, promise=Promise(late_share=(1e-3, 1e-3, 1e-3)))
    tight = replace(strict, requests=(replace(weak.requests[0], due_s=5.5),))
    (found,) = reasons_of(tight, denied)
    assert found.constraint == "promise"
    assert "late on up to" in found.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "name"),
    [
        (SOLOMON.replace("  1          10", "  2          10"), "tiny.txt"),
        (TRIPS.replace("S: 1", "S: 2").replace("\n1 1\n", "\n1 1\n2 1\n"), "tiny.vrp"),
        (ELECTRIC.replace("/100.0/", "/1.0/"), "tiny.txt"),
        (replace(hospital(), requests=hospital().requests[:1], promise=Promise()), "tiny.json"),
    ],
    ids=["Solomon", "MTVRPTWR", "E-VRPTW", "hospital"],
)
def test_control_c_leaves_the_best_plan_so_far(
    start, monkeypatch, content: str | Instance, name: str, tmp_path: Path
):
    """A real process and a real signal: exit code 0, the usual message, a plan that is sound."""
    if isinstance(content, Instance):
        write_json(content, tmp_path / name)
    else:
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    words = ("plan", name, "--method", "vns", "--time-limit", 300, "--json")
    with start("-m", "wardwise", *words) as process:
        process.until("Ctrl-C")  # the line that opens the search
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        answer = json.loads(process.finish(60))
    assert "stopped: this is the best plan so far" in process.err
    assert "Traceback" not in process.err
    assert answer["denied"] == answer["reasons"] == []
    stem = name.partition(".")[0]
    found = check(read_instance(tmp_path / name), read_plan(tmp_path / f"{stem}.plan.json"))
    assert found.is_feasible
    assert answer["distance_m"] == pytest.approx(found.cost.distance_m)
    if name.endswith(".json"):
        assert answer["service"]["holds"]
