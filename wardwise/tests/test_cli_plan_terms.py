"""`wardwise plan` with batteries and promises: options, figures, exit codes, on public files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wardwise.cli.shortcomings import reason_of, reasons_of, shortcomings
from wardwise.cli.terms import with_terms
from wardwise.fleet.chance import certify
from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.randomness import Promise, Scope
from wardwise.fleet.schedule import schedule
from wardwise.fleet.solvers import default_method, solve
from wardwise.generate import generate_hospital
from wardwise.io import read_instance, read_plan, write_json

DATA = Path(os.environ.get("WARDWISE_DATA") or "absent")
ELECTRIC, SOLOMON = DATA / "evrptw" / "5" / "c101C5.txt", DATA / "solomon" / "R101.txt"
needs_data = pytest.mark.skipif(not SOLOMON.exists(), reason="WARDWISE_DATA is not set")
FEW = ("--time-limit", "60", "--max-iterations", "300")

# Depot and a ward 100 s away. The first request leaves 100 s of slack, the second none.
TINY = Instance(
    name="tiny",
    places=(Place(id="depot"), Place(id="ward")),
    requests=(
        Request(id="wide", place="ward", due_s=200),
        Request(id="tight", place="ward", due_s=100, priority=1),
    ),
    robots=(Robot(id="R1", capacity=1, end_s=1000),),
    travel_s=[[0, 100], [100, 0]],  # type: ignore[arg-type]
    distance_m=[[0, 100], [100, 0]],  # type: ignore[arg-type]
)

# Station 10 s from the depot, ward 10 s behind it: 40 Wh there and back, and 30 in a battery,
# so that each robot stands at the station for 10 s. Before the ward both together may spend 5 s
# there, behind it they come at 30 at the earliest and must leave by 41: one slot is too few.
ONE_SLOT = Instance(
    name="one-slot",
    places=(Place(id="depot"), Place(id="corner"), Place(id="ward")),
    requests=tuple(Request(id=f"q{k}", place="ward", load=1, due_s=25) for k in (1, 2)),
    robots=tuple(
        Robot(
            id=f"R{k}", capacity=1, end_s=51, max_trips=1,
            battery=Battery(capacity_wh=30.0, wh_per_m=1.0),
        )
        for k in (1, 2)
    ),
    stations=(Station(id="S", place="corner", charge=ChargeCurve.linear(30.0, 1.0)),),
    travel_s=[[0, 10, 20], [10, 0, 10], [20, 10, 0]],  # type: ignore[arg-type]
    distance_m=[[0, 10, 20], [10, 0, 10], [20, 10, 0]],  # type: ignore[arg-type]
)  # fmt: skip


@pytest.fixture(scope="module")
def hospital() -> Instance:
    return generate_hospital(num_floors=2, num_wards=10, hours=1, batteries=True, seed=1)


@needs_data
def test_partial_charges_need_fewer_metres_than_full_ones(run, tmp_path: Path):
    """The optima of c101C5: 257.75 with full charges, which other tests prove; no more without."""
    metres = {}
    for recharge in Recharge:
        done = run("plan", str(ELECTRIC), *FEW, "--recharge", recharge, "--json")
        assert done.code == 0
        answer = json.loads(done.out)
        assert answer["robots_used"] == 2
        assert answer["service"] is None
        assert answer["energy"]["num_charges"] > 0
        assert answer["energy"]["energy_wh"] == pytest.approx(answer["distance_m"])
        metres[recharge] = answer["distance_m"]
        found = read_plan(tmp_path / "c101C5.plan.json")
        instance = replace(read_instance(ELECTRIC), recharge=recharge)
        assert check(instance, found).is_feasible
    assert metres[Recharge.FULL] == pytest.approx(257.75, abs=0.005)
    assert metres[Recharge.PARTIAL] <= metres[Recharge.FULL] + 1e-6


@needs_data
def test_promise_of_an_electric_day_is_certified_and_shown(run, tmp_path: Path):
    """Table, certificate in the plan, service level in the report; check tells it, too."""
    done = run("plan", str(ELECTRIC), *FEW, "--promise", "95", "--report", "page.html")
    assert done.code == 0
    for word in ("largest late share", "energy charged", "promise by request", "kept (20,000"):
        assert word in done.out
    assert "infeasible" not in done.err
    found = read_plan(tmp_path / "c101C5.plan.json")
    assert found.certificate is not None
    assert found.certificate.holds
    assert max(risk.upper for risk in found.certificate.requests) <= 0.05
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "Promise kept" in page
    again = run("check", str(ELECTRIC), "c101C5.plan.json")
    assert again.code == 0
    assert "largest late share" in again.out


@pytest.mark.slow
@needs_data
def test_a_promise_that_cannot_be_kept_ends_with_one(run):
    """R101 has requests that no robot reaches punctually: one line names them."""
    done = run("plan", str(SOLOMON), "--time-limit", "60", "--max-iterations", "50",
               "--promise", "stat=99,routine=95", "--json")  # fmt: skip
    assert done.code == 1
    answer = json.loads(done.out)
    assert answer["is_feasible"]
    assert answer["energy"] is None
    assert answer["service"]["classes"][0]["promised"] == 0.05
    (line,) = (line for line in done.err.splitlines() if line.startswith("infeasible: "))
    assert "promise: requests '" in line
    assert "'63'" in line
    assert set(answer["denied"]) >= {"63"}


@needs_data
def test_without_a_promise_nothing_is_certified(run, tmp_path: Path):
    """A plain file is planned by ruin and recreate, and told as before."""
    done = run("plan", str(SOLOMON), "--time-limit", "60", "--max-iterations", "5", "--json")
    assert done.code == 0
    assert "with ruin" in done.err
    answer = json.loads(done.out)
    assert "energy" not in answer
    assert "service" not in answer
    assert read_plan(tmp_path / "R101.plan.json").certificate is None


def test_a_promise_for_whole_trips(run, tmp_path: Path, hospital: Instance):
    """The scope of a promise that stands in the file can be another one."""
    promised = replace(hospital, promise=Promise(late_share=(0.2, 0.2, 0.2)))
    write_json(promised, tmp_path / "hospital.json")
    done = run("plan", "hospital.json", "--time-limit", "60", "--max-iterations", "60",
               "--scope", "trip", "--json")  # fmt: skip
    answer = json.loads(done.out)
    assert answer["service"]["scope"] == "trip"
    assert {level["promised"] for level in answer["service"]["classes"]} == {0.2}
    assert done.code == (0 if answer["service"]["holds"] and not answer["denied"] else 1)


def test_want_of_free_slots_denies_and_ends_with_one(run, tmp_path: Path):
    """Two robots cannot both be charged at the only slot: one request waits in vain."""
    write_json(ONE_SLOT, tmp_path / "one.json")
    done = run("plan", "one.json", "--time-limit", "60", "--max-iterations", "20", "--json")
    assert done.code == 1
    (line,) = (line for line in done.err.splitlines() if line.startswith("infeasible: "))
    assert line.startswith("infeasible: fleet: request 'q")
    answer = json.loads(done.out)
    assert answer["is_feasible"]
    assert len(answer["denied"]) == 1
    assert "more slots" in done.out
    write_json(
        replace(ONE_SLOT, stations=(replace(ONE_SLOT.stations[0], num_slots=2),)),
        tmp_path / "two.json",
    )
    assert run("plan", "two.json", "--time-limit", "60", "--max-iterations", "20").code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--promise 100", "--promise: expected 50 to below 100 percent on time, got '100'"),
        ("--promise 49.9", "--promise: expected 50 to below 100"),
        ("--promise soon", "--promise: expected 50 to below 100"),
        ("--promise nan", "--promise: expected 50 to below 100"),
        ("--promise 95,90", "--promise: expected 50 to below 100"),
        ("--promise stat=99,bulk=90", "--promise: expected each of stat, urgent, routine"),
        ("--promise stat=99,stat=90", "--promise: expected each of stat, urgent, routine"),
        ("--promise stat=", "--promise: expected 50 to below 100"),
        ("--promise 99.9999999", "scenarios, expected at most"),
        ("--scope trip", "--scope: expected a promise, by --promise or in FILE, got none"),
        ("--scope day", "--scope"),
        ("--recharge full", "--recharge: expected robots with batteries, got none"),
        ("--recharge half", "--recharge"),
        ("--promise 95 --method tabu", "promise: expected none for this method"),
    ],
)
def test_bad_terms_get_one_line(run, tmp_path: Path, args: str, message: str):
    """Exit code 2 before any search, and no file."""
    done = run("plan", "small.txt", *args.split())
    assert done.code == 2
    assert done.out == ""
    assert message in done.err.splitlines()[-1]
    assert not (tmp_path / "small.plan.json").exists()


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("95", (0.05, 0.05, 0.05)),
        ("50", (0.5, 0.5, 0.5)),
        ("99.9", (0.001, 0.001, 0.001)),
        ("stat=99", (0.01, 0.05, 0.05)),
        (" routine = 90 , stat=99,urgent=95 ", (0.01, 0.05, 0.1)),
    ],
)
def test_percent_on_time_become_late_shares(text: str, shares: tuple[float, float, float]):
    """Decimal numbers stay what they are; classes that are not named keep theirs."""
    promise = with_terms(TINY, recharge=None, promise=text, scope=None).promise
    assert promise == Promise(late_share=shares)


def test_terms_of_the_file_stay_where_nothing_is_said():
    """A class by name and another scope change nothing else."""
    given = replace(TINY, promise=Promise(late_share=(0.1, 0.2, 0.3), return_share=0.4))
    assert with_terms(given, recharge=None, promise=None, scope=None) == given
    changed = with_terms(given, recharge=None, promise="urgent=90", scope=Scope.TRIP).promise
    expected = Promise(late_share=(0.1, 0.1, 0.3), return_share=0.4, scope=Scope.TRIP)
    assert changed == expected


def _late_goods() -> Instance:
    deliver = replace(TINY.requests[0], kind=Kind.DELIVER, available_s=10.0)
    return replace(TINY, requests=(deliver,))


@pytest.mark.parametrize(
    ("change", "method"),
    [
        (lambda _: replace(TINY, requests=TINY.requests[:1]), "ruin"),
        (lambda _: replace(TINY, promise=Promise()), "vns"),
        (lambda _: _late_goods(), "vns"),
        (lambda hospital: hospital, "vns"),
    ],
)
def test_method_is_the_one_that_serves(change: Any, method: str, hospital: Instance):
    """`ruin` unless it refuses the instance."""
    instance = change(hospital)
    assert default_method(instance) == method
    if method == "vns":
        with pytest.raises(ValueError, match="--method vns"):
            solve(instance, method="ruin")
    else:
        assert solve(instance, method="ruin", time_limit=0.0, max_iterations=1).trips


def test_line_names_requests_and_constraints():
    """No slack keeps no promise; enough slack, but no robot left, is a matter of the fleet."""
    promised = replace(TINY, promise=Promise())
    assert reason_of(promised, "tight").constraint == "promise"
    assert reason_of(promised, "wide").constraint == "fleet"
    plan = schedule(promised, {}, ["wide", "tight"])
    line = shortcomings(promised, plan, reasons_of(promised, plan))
    assert line == "fleet: request 'wide' not served; promise: request 'tight' not served"
    assert shortcomings(promised, plan, ()) is None


def test_line_names_what_is_late_too_often():
    """By request only the tight one; by trip all that are aboard; a shift that is too short."""
    promised = replace(TINY, promise=Promise(), robots=(replace(TINY.robots[0], capacity=2),))
    plan = schedule(promised, {"R1": [["tight", "wide"]]})
    found = certify(promised, plan, num_scenarios=2000)
    line = shortcomings(promised, found, ())
    assert line == "promise: request 'tight' late too often"
    joint = replace(promised, promise=Promise(scope=Scope.TRIP))
    found = certify(joint, plan, num_scenarios=2000)
    line = shortcomings(joint, found, ())
    assert line == "promise by trip: requests 'tight', 'wide' late too often"
    short = replace(
        promised,
        requests=(replace(TINY.requests[0], due_s=190), replace(TINY.requests[1], due_s=190)),
        robots=(replace(promised.robots[0], end_s=201),),
    )
    found = certify(short, schedule(short, {"R1": [["tight", "wide"]]}), num_scenarios=2000)
    line = shortcomings(short, found, ())
    assert line == "promised return: robot 'R1' late too often"
    kept = replace(short, robots=(replace(promised.robots[0], end_s=900),))
    found = certify(kept, schedule(kept, {"R1": [["tight", "wide"]]}), num_scenarios=2000)
    assert shortcomings(kept, found, ()) is None
