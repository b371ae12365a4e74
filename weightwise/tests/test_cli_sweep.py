"""The command `weightwise law sweep` as people call it."""

import json

import pytest

from weightwise.cli import main
from weightwise.sweep import read_sweep
from weightwise.sweep.journal import Journal
from weightwise.sweep.work import Task, work

SPEC = """
name = "two"
recipe = "tiny"
set = ["train.eval_every=8", "schedule.warmup_steps=2"]
tokens = [2048]
formats = ["none", "e4m3"]
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Prepared data for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def call(monkeypatch, capsys, cache, tmp_path):
    """Run a command in a folder with a spec; gives code, stdout and stderr."""
    monkeypatch.setenv("WEIGHTWISE_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.toml").write_text(SPEC)

    def run(*words):
        code = main(("law", "sweep", *words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def make_runs(tmp_path, cache, count):
    """Make some of the runs beforehand, in this process."""
    out = tmp_path / "out" / "two"
    out.mkdir(parents=True)
    journal = Journal(out / "runs.jsonl")
    for run in read_sweep(tmp_path / "two.toml").runs[:count]:
        journal.append(work(Task(recipe=run, run_dir=out / "runs" / run.name, cache_dir=cache)))


@pytest.mark.slow
def test_dry_run_lists_the_grid(call, tmp_path, cache):
    """N, D, FLOP and a time for each run; what is made is marked and not counted."""
    make_runs(tmp_path, cache, 1)
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = call("two.toml", "--dry-run", "--jobs", "1")
    assert code == 0
    assert "base-d2048-none-s1 " in out
    assert "base-d2048-e4m3-channel-P246-s1 " in out
    # 2 layers of width 32: queries and output 32 x 32, keys and values 16 x 32, 3 of 32 x 64.
    assert f"{6 * 18432 * 2048:.3g}" in out
    assert "two: 2 runs, 1 of them made; the others take about " in out
    code, out, _ = call("two.toml", "--dry-run", "--json")
    made, left = json.loads(out)["runs"]
    assert (made["num_params"], made["num_tokens"], made["status"]) == (18432, 2048, "done")
    assert left["status"] == ""
    assert json.loads(out)["seconds"] == pytest.approx(left["seconds"])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_finished_sweep_tells_its_counts(call, tmp_path, cache):
    """One line, or one JSON object; then the table can be fitted."""
    make_runs(tmp_path, cache, 2)
    assert call("two.toml") == (0, "two: 2 of 2 runs done; records in out/two/runs.jsonl\n", "")
    code, out, err = call("two.toml", "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert (result["num_done"], result["num_runs"], result["is_complete"]) == (2, 2, True)
    assert result["records"] == str(tmp_path / "out/two/runs.jsonl")


@pytest.mark.slow
def test_sweep_runs_and_its_records_are_a_table_of_runs(call, tmp_path):
    """Trained with two processes, told line by line, and read by `law fit`, which wants more."""
    code, out, err = call("two.toml", "--jobs", "2", "--out", "here")
    assert (code, out) == (0, "two: 2 of 2 runs done; records in here/runs.jsonl\n")
    first, second = err.splitlines()
    assert (first[:3], second[:3]) == ("1/2", "2/2")
    assert "loss 5." in first
    code = main(("law", "fit", "here/runs.jsonl", "--law", "chinchilla"))
    assert code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none.toml",), "weightwise: none.toml: expected a readable file, got No such file"),
        (("two.toml", "--jobs", "0"), "weightwise: jobs: expected at least 1, got 0"),
        (("two.toml", "--dry-run", "--jobs", "0"), "weightwise: jobs: expected at least 1, got 0"),
        (("bad.toml",), "weightwise: bad.toml: formats.0: unknown number format 'e9'"),
    ],
)
def test_wrong_use_gets_one_line(call, tmp_path, words, message):
    """Exit code 2, nothing on standard output, no folder made."""
    (tmp_path / "bad.toml").write_text(SPEC.replace('"none"', '"e9"'))
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
