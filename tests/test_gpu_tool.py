"""The one call for everything that needs a GPU, as far as a machine without one allows."""

import json

import pytest
import torch

from tools import gpu, results

ROW = {
    "system": "clla", "name": "gpu_some", "value": 0.5, "unit": "x", "goal": [">=", 0.6],
    "detail": {"gpu": "Some GPU"},
}  # fmt: skip


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty folder in the place of the repository."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(gpu, "FOLDER", tmp_path / "out")
    return tmp_path


def stored(workspace):
    """Rows in the results file of the system."""
    return results.read(workspace / "weightwise/benchmarks/results/clla.jsonl")


@pytest.mark.parametrize(("ending", "is_whole"), [("", True), ("raise SystemExit(3)", False)])
def test_rows_count_however_a_step_ends(workspace, ending, is_whole):
    """What a step printed is stored with GPU and commit, also if it fails afterwards."""
    code = f"print('talk'); print({json.dumps(ROW)!r}); {ending}"
    step = gpu.Step(arguments=("-c", code), limit_s=60)
    rows, was_whole = gpu.run("some", step, "abc1234")
    assert was_whole == is_whole
    assert rows == stored(workspace) == results.read(workspace / "out" / "rows.jsonl")
    assert rows[0].machine.startswith("Some GPU, ")
    assert rows[0].commit == "abc1234"
    assert rows[0].is_met is False


@pytest.mark.slow
def test_a_step_that_hangs_is_ended(workspace):
    """Its rows up to then count."""
    code = f"import time; print({json.dumps(ROW)!r}, flush=True); time.sleep(60)"
    rows, is_whole = gpu.run("some", gpu.Step(arguments=("-c", code), limit_s=1), "abc1234")
    assert (len(rows), is_whole) == (1, False)
    assert len(stored(workspace)) == 1


def test_rows_of_another_machine_are_added(workspace, capsys):
    """They go to the file of their system; a missing file is refused."""
    gpu.run("some", gpu.Step(arguments=("-c", f"print({json.dumps(ROW)!r})"), limit_s=60), "abc")
    assert gpu.main(["--add", str(workspace / "out" / "rows.jsonl")]) == 0
    assert stored(workspace)[0] == stored(workspace)[1]
    assert gpu.main(["--add", str(workspace / "none.jsonl")]) == 2
    assert "expected a file of rows" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_gpu_nothing_is_run(capsys):
    """One clear line and exit code 1."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err


def test_all_steps_take_less_than_eight_minutes():
    """Their limits add up to what the target promises, and what they name exists."""
    assert sum(step.limit_s for step in gpu.STEPS.values()) < 480
    for step in gpu.STEPS.values():
        for argument in step.arguments:
            assert not argument.endswith(".py") or (results.ROOT / argument).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["clla_gpu.py", "moe_gpu.py"])
def test_benchmarks_run_from_end_to_end(start, script):
    """With small sizes every part runs on a CPU as well, and every row can be read."""
    path = results.ROOT / "weightwise" / "benchmarks" / script
    printed = start(path, "--tiny").finish()
    rows = [results.Measurement(**results.parse(line)) for line in printed.splitlines()]
    assert len({row.name for row in rows}) == len(rows) >= 4
    assert all(row.name.startswith("gpu_") and row.detail["gpu"] == "none" for row in rows)
