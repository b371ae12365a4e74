"""Sweeps: every run made once, whatever comes in between, and specs that say what is wrong."""

import json
import os
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from weightwise.laws import fit, read_runs
from weightwise.lm import num_parameters
from weightwise.sweep import Sweep, estimate, read_records, read_sweep, run_sweep, time_left
from weightwise.sweep.grid import block_of, num_flop, num_tokens
from weightwise.sweep.journal import Journal, locked
from weightwise.sweep.work import Task, work
from weightwise.train import DivergedError, from_dict, to_dict, train
from weightwise.train.recipe import override

QUIET = Console(quiet=True)
SPEC = """
name = "small"
recipe = "tiny"
set = ["train.save_every=4", "train.eval_every=8", "schedule.warmup_steps=2"]
tokens = [2048, 4096]
formats = ["none", "e1m1"]

[[sizes]]
name = "narrow"

[[sizes]]
name = "wide"
width = 48
ffn = 96

[[exclude]]
size = "wide"
format = "e1m1"
tokens = 2048

[[extra]]
size = "narrow"
tokens = 2048
format = "e4m3"
block = 16
targets = ["P2", "P6"]
rounding = "away"
axis = "last"
seed = 3
"""


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from a second thread, and other jobs may need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Prepared data for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


def spec_of(folder, text=SPEC):
    """A file with the text of a sweep."""
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The sweep above, eight runs."""
    return read_sweep(spec_of(tmp_path_factory.mktemp("spec")))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, sweep, cache):
    """The folder of that sweep, made run by run in this process; copy it before use."""
    out = tmp_path_factory.mktemp("finished")
    journal = Journal(out / "runs.jsonl")
    before = torch.get_num_threads()
    for run in sweep.runs:
        task = Task(recipe=run, run_dir=out / "runs" / run.name, cache_dir=cache)
        journal.append(work(task))
    torch.set_num_threads(before)
    return out


def records_of(out):
    """Records by name, without the time, which no two runs share; each name at most once."""
    records = read_records(out / "runs.jsonl")
    assert len({record["name"] for record in records}) == len(records)
    return {record["name"]: record | {"seconds": None} for record in records}


def test_the_grid_is_the_product_without_exclusions_and_with_extras(sweep):
    """Two sizes, two budgets, two formats, less one, and a single run with settings of its own."""
    assert [run.name for run in sweep.runs] == [
        "narrow-d2048-none-s1",
        "narrow-d2048-e1m1-channel-P246-s1",
        "narrow-d4096-none-s1",
        "narrow-d4096-e1m1-channel-P246-s1",
        "wide-d2048-none-s1",
        "wide-d4096-none-s1",
        "wide-d4096-e1m1-channel-P246-s1",
        "narrow-d2048-e4m3-b16-P26-away-last-s3",
    ]
    extra = sweep.runs[-1]
    assert (extra.seed, extra.precision.block_size, extra.precision.rounding) == (3, 16, "away")
    # A step of the recipe has 8 sequences of 32 tokens.
    assert [run.train.steps for run in sweep.runs[:3]] == [8, 8, 16]
    assert {num_tokens(run) for run in sweep.runs} == {2048, 4096}
    # 2 layers; queries and output 48 x 48, keys and values 24 x 48; three matrices 48 x 96.
    wide = 2 * (2 * 48 * 48 + 2 * 24 * 48 + 3 * 48 * 96)
    assert num_parameters(sweep.runs[-2].model) == wide
    assert num_flop(sweep.runs[-2]) == 6 * wide * 4096


def test_a_named_size_counts_as_the_paper_does(tmp_path):
    """Shapes come from a built-in recipe; 12 (4 d^2 + 3 d d_ff) weights for the 41M model."""
    text = 'name = "x"\nrecipe = "demo"\ntokens = [1e6]\n'
    path = spec_of(tmp_path, text + '[[sizes]]\nname = "41m"\nrecipe = "fp-41m"\n')
    (run,) = read_sweep(path).runs
    assert num_parameters(run.model) == 12 * (4 * 512**2 + 3 * 512 * 1536) == 40_894_464
    assert run.model.vocab_size == 1024


def test_formats_that_name_their_scales_have_one_run_for_all_blocks(tmp_path):
    """MXFP4 has blocks of 32 in any case, 16 bits have none; E4M3 comes with each."""
    text = 'name = "x"\nrecipe = "tiny"\ntokens = [256]\nblocks = ["tensor", 8]\n'
    runs = read_sweep(spec_of(tmp_path, text + 'formats = ["bf16", "MXFP4", "e4m3@16"]\n')).runs
    assert [run.name for run in runs] == [
        "base-d256-none-s1", "base-d256-mxfp4-P246-s1", "base-d256-e4m3.16-P246-s1",
    ]  # fmt: skip
    assert [run.precision.format for run in runs] == [None, "mxfp4", "e4m3@16"]
    runs = read_sweep(spec_of(tmp_path, text + 'formats = ["fp8"]\n')).runs
    assert [block_of(run.precision) for run in runs] == ["tensor", 8]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('name = "small"', "", "sweep.toml: name: expected a value, got none"),
        ("tokens = [2048", "tokens = [0", "sweep.toml: tokens.0: expected more than 0, got 0"),
        ("tokens = [2048", "tokens = [5", "tokens.0: expected at least one step of 256 tokens"),
        ("tokens = [2048", "tokens = [4100", "tokens.1: expected another number of steps"),
        ("tokens = [2048", "token = [2048", "sweep.toml: token: expected one of name, recipe"),
        ('"none", "e1m1"', '"none", "e9"', "formats.1: unknown number format 'e9'"),
        ('"none", "e1m1"', '"fp8", "e4m3"', "formats.1: expected each value once"),
        ('"tiny"', '"tinny"', "recipe: recipe: expected a TOML file or one of demo, tiny"),
        ("width = 48", "width = 46", "sizes.1: model.width: expected a multiple of"),
        ("width = 48", "depth = 48", "sizes.1.depth: expected one of name, recipe, width"),
        ("width = 48", "width = 4.5", "sizes.1.width: expected a valid integer, got 4.5"),
        ('name = "wide"', 'name = "a b"', "sizes.1.name: expected pattern"),
        ('name = "wide"', 'name = "narrow"', "sizes.1: expected each value once, got 'narrow'"),
        ("block = 16", "block = 0", "extra.0.block: expected a number of at least 1, 'channel'"),
        ("seed = 3", "seed = -1", "extra.0.seed: expected at least 0, got -1"),
        ('"P2", "P6"', '"P2", "P7"', "extra.0.targets.1: expected 'P1', 'P2'"),
        ('"P2", "P6"', '"P2", "P2"', "extra.0.targets: expected each target at most once"),
        ('rounding = "away"', 'rounding = "up"', "extra.0.rounding: expected 'even', 'away'"),
        ('size = "narrow"', 'size = "big"', "extra.0.size: expected one of narrow, wide"),
        ('size = "wide"', 'size = "big"', "exclude.0.size: expected one of narrow, wide"),
        ('size = "wide"', "seed = 2", "exclude.0: expected to fit a run of the product"),
        ("train.save_every=4", "train.steps=4", "set.0: expected no train.steps, the sweep"),
        ("train.save_every=4", "train.save_ever=4", "set: train.save_ever: expected one of"),
    ],
)  # fmt: skip
def test_wrong_specs_are_refused_in_a_line(tmp_path, before, after, message):
    """File, field, what was expected and what was found."""
    assert before in SPEC
    with pytest.raises(ValueError) as caught:
        read_sweep(spec_of(tmp_path, SPEC.replace(before, after)))
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "sweep.toml"))
    assert message in text
    assert "\n" not in text


def test_runs_of_one_name_are_refused(sweep):
    """Names are folders."""
    with pytest.raises(ValueError, match="expected different names, got 'narrow-d2048-none-s1'"):
        Sweep(name="x", runs=(sweep.runs[0], sweep.runs[0]))


@pytest.mark.slow
def test_records_hold_what_laws_need(finished, sweep):
    """A law can be fitted at once; losses are those of the trainer called by hand."""
    runs = read_runs(finished / "runs.jsonl")
    assert len(runs.losses) == 8
    assert sorted(set(runs.settings.granularity)) == ["block", "channel", "none"]
    assert fit("chinchilla", runs.settings, runs.losses).rmse < 0.2
    records = records_of(finished)
    for run in sweep.runs:
        record = records[run.name]
        assert record["num_params"] == num_parameters(run.model)
        assert record["num_tokens"] == num_tokens(run)
        assert (record["status"], record["seed"], record["steps"]) == (
            "done", run.seed, run.train.steps,
        )  # fmt: skip
        assert from_dict(record["recipe"], origin="record") == run
    assert records["narrow-d2048-e4m3-b16-P26-away-last-s3"]["targets"] == ["P2", "P6"]
    assert all(record["seconds"] > 0 for record in read_records(finished / "runs.jsonl"))


def test_one_run_is_what_train_makes_of_its_recipe(finished, sweep, cache, tmp_path):
    """The loss of a run of the sweep has the bits of the same recipe trained by itself."""
    run = sweep.runs[1]
    result = train(run, tmp_path / "alone", cache_dir=cache, console=QUIET)
    assert records_of(finished)[run.name]["loss"] == result.valid_loss


def test_a_finished_sweep_is_left_alone(finished, sweep, tmp_path, cache):
    """The same call again makes nothing, even without the folders of the runs."""
    out = shutil.copytree(finished, tmp_path / "copy")
    shutil.rmtree(out / "runs")
    before = (out / "runs.jsonl").read_bytes()
    result = run_sweep(sweep, out, cache_dir=cache, console=QUIET)
    assert (result.num_done, result.is_complete, result.num_others) == (8, True, 0)
    assert (out / "runs.jsonl").read_bytes() == before
    assert not (out / "runs").exists()


def test_a_torn_line_is_repaired_and_its_run_recorded_again(finished, sweep, tmp_path, cache):
    """Half a record goes, a record without its line end stays, and no run is trained twice."""
    out = shutil.copytree(finished, tmp_path / "copy")
    path = out / "runs.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines)[:-1])
    assert len(Journal(path).records) == 8
    assert path.read_bytes() == b"".join(lines)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:100])
    assert len(Journal(path).records) == 7
    assert path.read_bytes() == b"".join(lines[:-1])
    # The run's own folder still has its end: the record comes back without a step made.
    name = json.loads(lines[-1])["name"]
    metrics = out / "runs" / name / "metrics.jsonl"
    before = metrics.stat().st_mtime_ns
    (task,) = [
        Task(recipe=run, run_dir=out / "runs" / name, cache_dir=cache)
        for run in sweep.runs
        if run.name == name
    ]
    assert work(task) == json.loads(lines[-1])
    assert metrics.stat().st_mtime_ns == before


def test_a_broken_line_in_the_middle_is_named(finished, tmp_path):
    """Repair is for the last line only; anything else is not ours to remove."""
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b'{"name": 3}\n' + (finished / "runs.jsonl").read_bytes())
    with pytest.raises(ValueError, match=r"runs.jsonl, line 1: expected the record of a run"):
        Journal(path)


@pytest.mark.slow
def test_two_sweeps_do_not_share_a_folder(start, sweep, tmp_path):
    """The second is told who is at work; when that process is dead, the folder is free again."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time; from pathlib import Path; from weightwise.sweep.journal import locked\n"
        "with locked(Path(sys.argv[1])): print('held', file=sys.stderr); time.sleep(60)"
    )
    with start(program, tmp_path / "out") as holder:
        holder.until("held")
        with pytest.raises(
            ValueError, match=f"no other process at work there, process {holder.pid}"
        ):
            run_sweep(sweep, tmp_path / "out", console=QUIET)
    with locked(tmp_path / "out"):
        text = (tmp_path / "out" / "lock").read_text()
    assert text.startswith(f"process {os.getpid()} on ")


def changed(run, *changes):
    """A recipe with some of its settings changed."""
    return from_dict(override(to_dict(run), changes), origin="test")


def test_other_settings_under_a_known_name_are_refused(finished, sweep, tmp_path, cache):
    """Of recorded runs and of those under way, with the field; rhythms of saving may change."""
    out = shutil.copytree(finished, tmp_path / "copy")
    first, *rest = sweep.runs
    faster = Sweep(name="x", runs=(changed(first, "schedule.peak_lr=0.5"), *rest))
    message = r"runs.jsonl: narrow-d2048-none-s1: schedule.peak_lr: expected 0.01 as in the run"
    with pytest.raises(ValueError, match=message):
        run_sweep(faster, out, cache_dir=cache, console=QUIET)
    (out / "runs.jsonl").unlink()
    message = r"step-000008/recipe.toml: narrow-d2048-none-s1: schedule.peak_lr: expected 0.01"
    with pytest.raises(ValueError, match=message):
        run_sweep(faster, out, cache_dir=cache, console=QUIET)
    shutil.copy(finished / "runs.jsonl", out / "runs.jsonl")
    rhythm = Sweep(name="x", runs=tuple(changed(run, "train.save_every=2") for run in rest))
    result = run_sweep(rhythm, out, cache_dir=cache, console=QUIET)
    assert (result.num_done, result.num_others) == (7, 1)


def test_other_documents_are_refused(finished, sweep, tmp_path, cache):
    """A sweep whose text has changed would compare losses of different texts."""
    out = shutil.copytree(finished, tmp_path / "copy")
    path = out / "runs.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    data = json.loads(lines[0])["data"]
    path.write_text("".join(lines[:-1]).replace(data, "0123456789abcdef"))
    with pytest.raises(ValueError, match="data: expected documents 0123456789abcdef as in the"):
        run_sweep(sweep, out, cache_dir=cache, console=QUIET)


def test_divergence_and_failure_end_one_run_only(sweep, cache, tmp_path):
    """A rate beyond reason is recorded with its step; an error of another kind with its words."""
    first = sweep.runs[0]
    wild = changed(first, "schedule.peak_lr=1e30", "train.save_every=1")
    record = work(Task(recipe=wild, run_dir=tmp_path / "wild", cache_dir=cache))
    with pytest.raises(DivergedError) as caught:
        train(wild, tmp_path / "alone", cache_dir=cache, console=QUIET)
    assert (record["status"], record["loss"]) == ("diverged", None)
    assert record["step"] == caught.value.step > 1
    assert record["message"].startswith(f"step {record['step']}: loss is ")
    long = replace(first, train=replace(first.train, batch_size=6, micro_batch_size=None))
    long = changed(long, "data.source.max_bytes=1")
    record = work(Task(recipe=long, run_dir=tmp_path / "long", cache_dir=cache))
    assert record["status"] == "failed"
    assert record["message"].startswith("ValueError: data.")


@pytest.mark.slow
def test_failed_runs_are_tried_again(sweep, cache, tmp_path):
    """A run that could not write leaves no record, and the next call makes it."""
    pair = Sweep(name="x", runs=(sweep.runs[0], changed(sweep.runs[2], "schedule.peak_lr=1e30")))
    blocked = tmp_path / "runs" / pair.runs[0].name
    blocked.mkdir(parents=True)
    (blocked / "recipe.toml").mkdir()
    result = run_sweep(pair, tmp_path, jobs=1, cache_dir=cache, console=QUIET)
    assert (result.num_done, result.num_diverged, result.num_failed) == (0, 1, 1)
    assert not result.is_complete
    (failed,) = read_records(tmp_path / "failed.jsonl")
    assert failed["message"].startswith("IsADirectoryError: ")
    (blocked / "recipe.toml").rmdir()
    result = run_sweep(pair, tmp_path, jobs=1, cache_dir=cache, console=QUIET)
    assert (result.num_done, result.num_diverged, result.num_failed) == (1, 1, 0)
    assert result.is_complete
    assert (tmp_path / "failed.jsonl").read_bytes() == b""
    assert read_runs(tmp_path / "runs.jsonl").num_diverged == 1


@pytest.mark.slow
def test_the_estimate_lists_every_run(finished, sweep, cache, tmp_path):
    """N, D and 6 N D of each, a time, and which ones are made; nothing is written."""
    rows = estimate(sweep, tmp_path / "none", cache_dir=cache)
    assert [row.name for row in rows] == [run.name for run in sweep.runs]
    assert rows[0].flop == 6 * rows[0].num_params * 2048
    assert all(row.seconds > 0 and not row.status for row in rows)
    # Twice the steps and twice the evaluations of the same kind of run.
    assert rows[2].seconds == pytest.approx(2 * rows[0].seconds)
    assert time_left(rows, 2) == pytest.approx(sum(row.seconds for row in rows) / 2)
    assert not (tmp_path / "none").exists()
    made = estimate(sweep, finished, cache_dir=cache)
    assert {row.status for row in made} == {"done"}
    assert time_left(made, 2) == 0


@pytest.mark.slow
@pytest.mark.parametrize("ray_address", ["local"])
def test_all_ways_to_run_make_the_same_records(finished, sweep, cache, tmp_path, ray_address):
    """Two processes, and a Ray cluster of one machine, have the bits of this process alone."""
    out = tmp_path / "out"
    result = run_sweep(sweep, out, jobs=2, ray_address=ray_address, cache_dir=cache, console=QUIET)
    assert (result.num_done, result.num_runs, result.is_complete) == (8, 8, True)
    assert records_of(out) == records_of(finished)


def test_ray_is_asked_for_by_name(sweep, cache, tmp_path, monkeypatch):
    """Without the extra, the message says how to get it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"ray: .*pip install 'weightwise\[ray\]'"):
        run_sweep(sweep, tmp_path, ray_address="local", cache_dir=cache, console=QUIET)
