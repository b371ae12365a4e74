"""Sweeps that are interrupted: by kills at any moment, Ctrl-C, and the death of a worker."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from rich.console import Console

from weightwise.sweep import read_records, read_sweep, run_sweep
from weightwise.train import read_metrics
from weightwise.train.checkpoint import list_checkpoints

QUIET = Console(quiet=True)
SPEC = """
name = "long"
recipe = "tiny"
set = ["train.save_every=8", "train.eval_every=40"]
tokens = [12288, 16384]
formats = ["none", "e1m1"]
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Prepared data for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def path(tmp_path):
    """The file of a sweep of four runs."""
    path = tmp_path / "sweep.toml"
    path.write_text(SPEC)
    return path


def records_of(out):
    """Records by name, without the time, which no two runs share; each name at most once."""
    records = read_records(out / "runs.jsonl")
    assert len({record["name"] for record in records}) == len(records)
    return {record["name"]: record | {"seconds": None} for record in records}


@pytest.fixture
def out(tmp_path):
    """The folder of the sweep."""
    return tmp_path / "out"


@pytest.fixture
def start_sweep(start, path, out, cache):
    """Start the command."""
    words = ("-m", "weightwise", "law", "sweep", path, "--out", out, "--jobs", "2")
    return lambda: start(*words, WEIGHTWISE_CACHE=cache)


def last_written(out):
    """When a run has last written metrics, nanoseconds; 0 if none has."""
    files = Path(out).glob("runs/*/metrics.jsonl")
    return max((path.stat().st_mtime_ns for path in files), default=0)


def any_runs(group):
    """Whether some process of a group has not ended."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group, *_ = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


def wait_for_work(process, out):
    """Until some run writes metrics."""
    before = last_written(out)
    while last_written(out) == before and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_sweeps_lose_and_repeat_nothing(tmp_path, path, out, cache, start_sweep):
    """Two kills of all processes at any moment, then records with the bits of a calm sweep."""
    calm = run_sweep(read_sweep(path), tmp_path / "calm", jobs=1, cache_dir=cache, console=QUIET)
    assert calm.is_complete
    draw = random.Random(7)
    num_kills = 0
    for _ in range(2):
        process = start_sweep()
        wait_for_work(process, out)
        time.sleep(draw.uniform(0, 0.4))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            num_kills += 1
        process.wait()
    assert num_kills >= 1
    process = start_sweep()
    said = process.finish()
    assert said.startswith("long: 4 of 4 runs done; records in ")
    assert records_of(out) == records_of(tmp_path / "calm")


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(out, start_sweep):
    """A kill of that process alone leaves nobody who writes into the folder."""
    process = start_sweep()
    wait_for_work(process, out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any_runs(process.pid):
        time.sleep(0.01)
    before = last_written(out)
    time.sleep(0.5)
    assert last_written(out) == before


@pytest.mark.slow
@pytest.mark.parametrize("to_group", [True, False], ids=["terminal", "process alone"])
def test_ctrl_c_saves_and_says_how_to_go_on(out, start_sweep, to_group):
    """Every run under way saves its last step; one line and exit code 1, no traceback."""
    process = start_sweep()
    wait_for_work(process, out)
    (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
    assert process.wait(60) == 1
    said = process.err
    assert "runs left; the same command goes on with them" in said
    assert "Traceback" not in said
    steps = {
        run: [row["step"] for row in read_metrics(run / "metrics.jsonl")]
        for run in out.glob("runs/*")
    }
    assert any(steps.values())
    for run, made in steps.items():
        if made:
            assert list_checkpoints(run / "checkpoints")[-1].name == f"step-{made[-1]:06d}"


@pytest.mark.slow
def test_a_killed_worker_costs_its_run_only(out, start_sweep):
    """As when memory runs out: the others go on, the run is tried again by the next call."""
    process = start_sweep()
    wait_for_work(process, out)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [
        pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(int(workers[0]), signal.SIGKILL)
    assert process.wait() == 1
    assert "1 runs left, 1 of them failed" in process.err
    (failed,) = read_records(out / "failed.jsonl")
    assert failed["message"] == "its process ended with exit code -9"
    assert len(records_of(out)) == 3
