"""The command line with real files: output, exit codes, one-line errors, Ctrl-C."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import jsonschema
import pytest

import wardwise
from wardwise.cli import COMMANDS
from wardwise.fleet.check import check
from wardwise.io import read_instance, read_plan

if TYPE_CHECKING:
    from pathlib import Path


def test_plan_writes_a_plan_that_the_check_accepts(run, tmp_path: Path):
    """Default names stand in the current folder; the table goes to stdout."""
    done = run("plan", "small.txt", "--max-iterations", "5", "--time-limit", "2")
    assert done.code == 0
    assert "feasible" in done.out
    assert "of 2" in done.out
    instance = read_instance(tmp_path / "small.txt")
    assert check(instance, read_plan(tmp_path / "small.plan.json")).is_feasible
    again = run("check", "small.txt", "small.plan.json")
    assert again.code == 0
    assert again.err == ""


def test_json_answer_stands_alone_on_stdout(run, tmp_path: Path):
    """Machine output parses as a whole and tells the same as the check."""
    done = run(
        "plan", "small.txt", "--json", "--method", "insertion", "--output", "p.json",
        "--report", "r.html", "--time-limit", "2", "--seed", "3",
    )  # fmt: skip
    answer = json.loads(done.out)
    assert answer["is_feasible"] is True
    assert answer["written"] == {"plan": "p.json", "report": "r.html"}
    assert (tmp_path / "r.html").read_text("utf-8").startswith("<!doctype html>")
    checked = json.loads(run("check", "small.txt", "p.json", "--json").out)
    assert {**checked, "written": answer["written"]} == answer


def test_same_seed_same_plan(run, tmp_path: Path):
    """With an iteration limit the file is the same, byte for byte."""
    for name in ("a.json", "b.json"):
        args = ("--max-iterations", "20", "--time-limit", "60", "--seed", "5", "--output", name)
        assert run("plan", "small.txt", *args).code == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_check_fails_on_a_broken_plan(run, tmp_path: Path):
    """A plan whose robot arrives before it can be there: exit code 1 and the reason."""
    run("plan", "small.txt", "--method", "insertion", "--time-limit", "1")
    plan = json.loads((tmp_path / "small.plan.json").read_text())
    plan["trips"][0]["stops"][0]["arrive_s"] = 0.5
    (tmp_path / "broken.json").write_text(json.dumps(plan))
    done = run("check", "small.txt", "broken.json")
    assert done.code == 1
    assert "not feasible" in done.out
    assert "travel" in done.out
    answer = json.loads(run("check", "small.txt", "broken.json", "--json").out)
    assert answer["num_violations"] == len(answer["violations"]) > 0


def test_generate_writes_an_instance_that_reads_back(run, tmp_path: Path):
    """The file holds what the generator gives, building included."""
    done = run("generate", "--floors", "3", "--wards", "12", "--robots", "4", "--seed", "9")
    assert done.code == 0
    instance = read_instance(tmp_path / "hospital-3x12-seed9.json")
    assert instance == wardwise.generate_hospital(num_floors=3, num_wards=12, num_robots=4, seed=9)


@pytest.mark.slow
def test_demo_writes_its_files_and_says_what_next(run, tmp_path: Path):
    """The demo lives through a feasible morning and ends with what to open."""
    done = run("demo", "--out", "d", "--time-limit", "1", "--seed", "1")
    assert done.code == 0
    names = {file.name for file in (tmp_path / "d").iterdir()}
    assert names == {
        "wardwise.html",
        "wardwise-hospital.json",
        "wardwise-pharmacy.json",
        "wardwise-hospital.day.json",
        "wardwise-hospital.journal.jsonl",
    }
    assert "Open d/wardwise.html" in done.out
    assert "Next: wardwise generate" in done.out
    assert "On 20,000 random days, stat requests are late on at most " in done.out
    day = read_plan(tmp_path / "d" / "wardwise-hospital.day.json")
    assert day.certificate is not None
    assert any(trip.charges for trip in day.trips)


@pytest.mark.parametrize(("kind", "title"), [("instance", "requests"), ("plan", "trips")])
def test_schema_describes_our_own_files(run, tmp_path: Path, kind: str, title: str):
    """What we write is valid under the schema that we print."""
    schema = json.loads(run("schema", kind).out)
    assert title in schema["properties"]
    run("generate", "--wards", "10", "--floors", "2", "--output", "instance.json")
    if kind == "plan":
        run("plan", "instance.json", "--method", "insertion", "--time-limit", "1", "--output",
            "plan.json")  # fmt: skip
    jsonschema.validate(json.loads((tmp_path / f"{kind}.json").read_text()), schema)


@pytest.mark.slow
def test_version_and_help(run):
    """Both go to stdout and end well."""
    assert run("--version").out == f"wardwise {wardwise.__version__}\n"
    for command in COMMANDS:
        assert command in run("--help").out
        assert run(command, "--help").code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "Missing command"),
        ("bogus", "No such command 'bogus'"),
        ("plan", "Missing argument 'FILE'"),
        ("plan none.txt", "none.txt: expected a readable file"),
        ("plan .", "expected a readable file"),
        ("plan empty.txt", "empty.txt: expected some text"),
        ("plan cut.json", "cut.json"),
        ("plan small.txt --method best", "--method: expected one of ruin, tabu, insertion, pyvrp"),
        ("plan small.txt --objective fun", "--objective"),
        ("plan small.txt --time-limit soon", "--time-limit"),
        ("plan small.txt --time-limit -1", "--time-limit"),
        ("plan small.txt --time-limit nan", "--time-limit"),
        ("plan small.txt --max-iterations 0", "--max-iterations"),
        ("plan small.txt --seed -1", "--seed"),
        ("plan small.txt --start-h 24", "--start-h"),
        ("plan small.txt --bogus", "No such option: --bogus"),
        ("plan small.txt --output none/p.json", "none/p.json: no folder is called 'none'"),
        ("plan small.txt --output .", "expected a file to write, got a folder"),
        ("plan small.txt --report none/r.html", "none/r.html: no folder is called 'none'"),
        ("check small.txt none.json", "none.json: expected a readable file"),
        ("check small.txt cut.json", "cut.json"),
        ("generate --floors 1", "--floors"),
        ("generate --wards 81", "--wards"),
        ("generate --robots 0", "--robots"),
        ("generate --start-h 20 --hours 5", "hours: expected 1 to 4, got 5"),
        ("generate --output none/i.json", "none/i.json: no folder is called 'none'"),
        ("demo --out small.txt", "small.txt"),
        ("schema robot", "KIND"),
    ],
)
def test_bad_input_gets_one_line(run, tmp_path: Path, args: str, message: str):
    """Exit code 2, one line on stderr that names the trouble, nothing on stdout, no new file."""
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "cut.json").write_text('{"name": "cut", ')
    before = sorted(tmp_path.iterdir())
    done = run(*args.split())
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_control_c_writes_the_best_plan_so_far(start, monkeypatch, tmp_path: Path):
    """A real process: interrupted in the middle of a long search, it still writes a sound plan."""
    monkeypatch.chdir(tmp_path)
    start("-m", "wardwise", "generate", "--output", "h.json").finish()
    with start("-m", "wardwise", "plan", "h.json", "--time-limit", 200, "--json") as process:
        process.until("Ctrl-C")  # the line that opens the search
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        answer = json.loads(process.finish(60))
    assert "best plan so far" in process.err
    assert "Traceback" not in process.err
    assert answer["is_feasible"] is True
    plan = read_plan(tmp_path / "h.plan.json")
    assert check(read_instance(tmp_path / "h.json"), plan).is_feasible
