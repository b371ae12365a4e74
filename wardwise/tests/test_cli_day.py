"""The commands of a running day with real files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import Dispatcher
from wardwise.io import read_instance, read_log, read_plan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def dynamic(run, tmp_path: Path) -> Path:
    """`small.txt` with all of its requests dynamic where that is possible."""
    assert run("lackner", "small.txt", "--degree", "100", "--max-iterations", "20").code == 0
    (path,) = tmp_path.glob("*.csv")
    return path


def test_lackner_writes_a_dynamic_instance(dynamic: Path):
    """Same requests; only the one whose window opens at 40 can appear later than the day."""
    instance = read_instance(dynamic)
    assert [request.id for request in instance.requests] == ["1", "2", "3"]
    assert [request.release_s > 0 for request in instance.requests] == [False, False, True]


def test_dispatch_answers_and_writes_the_day(run, dynamic: Path, tmp_path: Path):
    """The day is feasible as dispatched, and its journal replays to the same plan."""
    done = run(
        "dispatch", dynamic.name, "--max-iterations", "20", "--journal", "day.jsonl", "--json"
    )
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert answer["is_feasible"]
    assert answer["outcome"]["num_revealed"] == 3
    plan = read_plan(answer["written"]["plan"])
    assert check(read_instance(dynamic), plan, timing=Timing.DISPATCHED).is_feasible
    assert Dispatcher.replay(tmp_path / "day.jsonl").plan() == plan


def test_dispatch_takes_a_plan_and_slices(run, dynamic: Path):
    """With two slices of 100 the third request is heard at 100 and can still be served by 120."""
    first = run("dispatch", dynamic.name, "--max-iterations", "20", "--slices", "2")
    assert first.code == 0, first.err
    assert "3 requests, 1 during the day" in first.out
    assert "answer time" in first.out


def test_denials_are_explained_on_the_terminal(run, tmp_path: Path):
    """A request that is heard when its window is about to close names what it would take."""
    (tmp_path / "late.txt").write_text(
        "LATE\n\nVEHICLE\nNUMBER CAPACITY\n1 10\n\nCUSTOMER\n"
        "CUST NO. XCOORD. YCOORD. DEMAND READY TIME DUE DATE SERVICE TIME AVAIL. TIME\n"
        "0 0 0 0 0 200 0 0\n1 90 0 1 0 95 5 0\n2 0 30 1 0 95 5 60\n"
    )
    done = run("dispatch", "late.txt", "--max-iterations", "5")
    assert done.code == 0, done.err
    assert "Request '2' is denied (D6" in done.out
    assert "it would take" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protection", "2,1"], "--protection: expected three whole numbers as in 0,1,2"),
        (["--protection", "0,2,1"], "policy: protection: expected 0 for stat and no fewer"),
        (["--fsync", "often", "--journal", "j"], "fsync: expected"),
        (["--journal", "nowhere/j"], "no folder is called"),
        (["--slices", "0"], "--slices"),
        (["--method", "magic"], "method: expected one of"),
    ],
)
def test_bad_options_get_one_line(run, arguments: list[str], message: str):
    """Exit code 2, one line that names the option, and nothing written."""
    done = run("dispatch", "small.txt", "--max-iterations", "5", *arguments)
    assert done.code == 2
    assert message in done.err.strip().splitlines()[-1]
    assert done.out == ""


def test_size_recommends_a_fleet(run, tmp_path: Path):
    """The table, the advice in words, the page, and the same as JSON."""
    options = ("--days", "6", "--spares", "0,1", "--protection", "0:0,0:1", "--degree", "60")
    done = run("size", "small.txt", *options, "--jobs", "1", "--report", "size.html")
    assert done.code == 0, done.err
    assert "Own " in done.out
    assert "routine" in done.out
    assert "<svg" in (tmp_path / "size.html").read_text()
    answer = json.loads(run("size", "small.txt", *options, "--jobs", "1", "--json").out)
    # Nobody to keep back without spares: one fleet without, two with one spare.
    assert len(answer["outcomes"]) == 3
    assert answer["num_days"] == 6


def test_size_ends_with_1_when_no_fleet_keeps_the_service_level(run, tmp_path: Path):
    """Two requests at once on opposite sides, due at once: one robot must deny one of them."""
    (tmp_path / "tight.txt").write_text(
        "TIGHT\n\nVEHICLE\nNUMBER CAPACITY\n2 10\n\nCUSTOMER\n"
        "CUST NO. XCOORD. YCOORD. DEMAND READY TIME DUE DATE SERVICE TIME AVAIL. TIME\n"
        "0 0 0 0 0 200 0 0\n1 50 0 1 60 61 5 5\n2 -50 0 1 60 61 5 5\n"
    )
    done = run(
        "size", "tight.txt", "--days", "4", "--spares", "1", "--protection", "0:0",
        "--max-denial", "stat=1,urgent=1,routine=1", "--jobs", "1",
    )  # fmt: skip
    assert done.code == 1
    assert "No fleet tried keeps to the service level" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--spares", "x"], "--spares: expected whole numbers as in 0,1,2"),
        (["--protection", "0,1"], "--protection: expected pairs as in 0:0,0:1,1:2"),
        (["--protection", "2:1"], "protection: expected 0 or more for urgent and no fewer"),
        (["--max-denial", "stat"], "--max-denial: expected per cents as in stat=1,urgent=5"),
        (["--days", "1"], "--days"),
    ],
)
def test_bad_sizing_options_get_one_line(run, arguments: list[str], message: str):
    """Exit code 2 and one line that names the option."""
    done = run("size", "small.txt", "--jobs", "1", *arguments)
    assert done.code == 2
    assert message in done.err.strip().splitlines()[-1]


def test_simulate_prints_intervals(run):
    """Two days with noise, breakdowns, cancellations; the same as JSON, without infinity."""
    options = ("--days", "2", "--jobs", "1", "--failure-h", "0.05", "--cancelled", "20")
    done = run("simulate", "small.txt", *options, "--log", "days.jsonl")
    assert done.code == 0, done.err
    first, second = read_log("days.jsonl").days()
    assert (first.seed, second.seed) == (0, 1)
    assert all(day.is_complete and day.facts for day in (first, second))
    assert "stat on time" in done.out
    assert "breakdowns" in done.out
    answer = json.loads(run("simulate", "small.txt", "--days", "2", "--jobs", "1", "--json").out)
    assert len(answer["days"]) == 2
    assert answer["disturbances"]["driving_s_per_failure"] is None


def test_simulate_needs_a_building_for_elevators(run):
    """A Solomon file has none: one line says so."""
    done = run("simulate", "small.txt", "--elevators", "--days", "2", "--jobs", "1")
    assert done.code == 2
    assert "site" in done.err.strip().splitlines()[-1]
