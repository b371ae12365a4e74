"""Checkpoints: exact continuation, and nothing lost to kills, damage or wrong use."""

import io
import json
import os
import random
import runpy
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from weightwise.lm import LanguageModel
from weightwise.numerics import PrecisionConfig
from weightwise.recipes import tiny
from weightwise.train import CheckpointError, FileSource, load_model, read_metrics, train
from weightwise.train.checkpoint import (
    CheckpointFolder,
    find_checkpoint,
    list_checkpoints,
    verify,
)
from weightwise.train.parallel import World

QUIET = Console(quiet=True)
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "resume.py"


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


def recipe_of(steps, **train_settings):
    """The tiny recipe with a schedule that does not depend on the number of steps."""
    base = tiny()
    settings = {"steps": steps, "eval_every": 4, "save_every": 2, **train_settings}
    schedule = replace(base.schedule, warmup_steps=2, decay_steps=12)
    return replace(base, schedule=schedule, train=replace(base.train, **settings))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A run of four steps with checkpoints at steps 2 and 4; copy it before use."""
    run_dir = tmp_path_factory.mktemp("finished")
    train(recipe_of(4), run_dir, cache_dir=cache, console=QUIET)
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def untimed(run_dir):
    """All rows of a run without the speed, which no two runs share."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in rows]


def continued(recipe, run_dir, cache):
    """Go on with a run; returns the result and what was said."""
    text = io.StringIO()
    result = train(recipe, run_dir, cache_dir=cache, console=Console(file=text))
    return result, text.getvalue()


def test_continued_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, run_dir, cache):
    """Four steps, then four more: rows, weights and optimizer state as from eight at once."""
    train(recipe_of(8), tmp_path / "whole", cache_dir=cache, console=QUIET)
    result, said = continued(recipe_of(8), run_dir, cache)
    assert "going on from step 4" in said
    assert result.is_complete
    assert untimed(run_dir) == untimed(tmp_path / "whole")
    for name in ("model.safetensors", "tokenizer.json", "recipe.toml"):
        ours = (result.checkpoint / name).read_bytes()
        assert ours == (tmp_path / "whole" / "checkpoints/step-000008" / name).read_bytes()


@pytest.mark.slow
def test_stochastic_rounding_continues_bit_for_bit(tmp_path, cache):
    """A run that rounds by chance, stopped and continued, makes the same choices."""
    precision = PrecisionConfig(format="e2m1", rounding="stochastic")
    runs = [tmp_path / "whole", tmp_path / "parts"]
    for run_dir, stops in zip(runs, ([4], [2, 4]), strict=True):
        for steps in stops:
            recipe = replace(recipe_of(steps), precision=precision)
            train(recipe, run_dir, cache_dir=cache, console=QUIET)
    assert untimed(runs[0])[-1]["step"] == 4
    ours, theirs = (run_dir / "checkpoints/step-000004/model.safetensors" for run_dir in runs)
    assert ours.read_bytes() == theirs.read_bytes()


def test_finished_run_is_left_as_it_is(run_dir, cache):
    """The same call again makes no step and gives the same result."""
    before = (run_dir / "metrics.jsonl").read_bytes()
    result, _ = continued(recipe_of(4), run_dir, cache)
    assert (result.step, result.is_complete) == (4, True)
    assert result.valid_loss == read_metrics(run_dir / "metrics.jsonl")[-1]["valid_loss"]
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_newest_checkpoints_are_kept_and_half_written_ones_removed(run_dir, cache):
    """Two stay; what a crash left behind under a temporary name goes."""
    (run_dir / "checkpoints" / ".partial-step-000006").mkdir()
    continued(recipe_of(8), run_dir, cache)
    names = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert names == ["step-000006", "step-000008"]


def test_rows_after_the_checkpoint_are_made_again(run_dir, cache):
    """Rows of lost steps and a line cut short do not appear twice."""
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "tokens": 1, "train_loss": 9.9}) + '\n{"step": 6, "to')
    continued(recipe_of(6), run_dir, cache)
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert [row["step"] for row in rows if "train_loss" in row] == [1, 2, 3, 4, 5, 6]
    assert all(row.get("train_loss") != 9.9 for row in rows)


def damage_end(path):
    """Cut the last byte off."""
    os.truncate(path, path.stat().st_size - 1)


def damage_middle(path):
    """Turn one bit over."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "optimizer/__0_0.distcp"])
@pytest.mark.parametrize("damage", [damage_end, damage_middle, Path.unlink])
def test_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, finished, name, damage):
    """A file cut short, changed in one bit, or gone: said clearly, set aside, step 2 remains."""
    run_dir = shutil.copytree(finished, tmp_path / "run")
    damage(run_dir / "checkpoints/step-000004" / name)
    world = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
    said = []
    newest = CheckpointFolder(run_dir, 2, world).newest(said.append)
    assert newest == run_dir / "checkpoints/step-000002"
    assert len(said) == 1
    assert f"step-000004/{name}: expected " in said[0]
    assert (run_dir / "checkpoints/damaged-step-000004").is_dir()


def test_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, run_dir, cache):
    """The lost steps are made again and the end is the same."""
    train(recipe_of(6), tmp_path / "whole", cache_dir=cache, console=QUIET)
    damage_end(run_dir / "checkpoints/step-000004/model.safetensors")
    _, said = continued(recipe_of(6), run_dir, cache)
    assert "model.safetensors: expected" in said
    assert "going on from step 2" in said
    assert untimed(run_dir) == untimed(tmp_path / "whole")


def test_all_checkpoints_damaged_is_an_error(run_dir, cache):
    """Starting over without being told to would hide the loss."""
    for checkpoint in list_checkpoints(run_dir / "checkpoints"):
        damage_middle(checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match="expected a whole checkpoint, all 2 are damaged"):
        continued(recipe_of(6), run_dir, cache)


def test_continuing_under_other_conditions_is_refused(tmp_path, run_dir, cache):
    """Another recipe or other documents: the field is named and nothing is touched."""
    before = sorted((run_dir / "checkpoints").rglob("*"))
    with pytest.raises(ValueError, match=r"recipe\.toml: seed: expected 1 as in the run so far"):
        continued(replace(recipe_of(8), seed=2), run_dir, cache)
    state_file = run_dir / "checkpoints/step-000004/state.json"
    state = json.loads(state_file.read_text())
    state_file.write_text(json.dumps({**state, "data": "0123"}))
    with pytest.raises(ValueError, match=r"state\.json: data: expected documents 0123"):
        continued(recipe_of(8), run_dir, cache)
    assert sorted((run_dir / "checkpoints").rglob("*")) == before


def test_new_run_refuses_a_folder_with_checkpoints(run_dir, cache):
    """resume=False never writes over a run."""
    with pytest.raises(ValueError, match="expected a folder without checkpoints"):
        train(recipe_of(4), run_dir, resume=False, cache_dir=cache, console=QUIET)


def test_model_loads_from_run_and_checkpoint_without_optimizer(run_dir):
    """The folder of a run means its newest checkpoint; a published copy needs three files."""
    newest = run_dir / "checkpoints/step-000004"
    assert find_checkpoint(run_dir) == newest
    shutil.rmtree(newest / "optimizer")
    model, tokenizer, recipe = load_model(run_dir)
    assert isinstance(model, LanguageModel)
    assert not model.training
    assert tokenizer.decode(tokenizer.encode("x = 1")) == "x = 1"
    assert recipe == recipe_of(4)


def test_unusable_model_folders_are_refused(tmp_path, run_dir):
    """No checkpoint, a damaged file, weights of another shape: each in one line."""
    with pytest.raises(CheckpointError, match="found none"):
        load_model(tmp_path / "nothing")
    damage_end(run_dir / "checkpoints/step-000004/tokenizer.json")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: expected \d+ bytes, got \d+"):
        load_model(run_dir)


def test_documents_that_changed_are_noticed(tmp_path, cache):
    """A run on files does not go on when a file has changed."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i}.txt").write_text(f"{i} green bottles hanging on the wall, " * 20)
    base = recipe_of(2)
    data = replace(base.data, source=FileSource(paths=(str(folder),)), valid_fraction=0.3)
    recipe = replace(base, data=data)
    train(recipe, tmp_path / "run", cache_dir=cache, console=QUIET)
    (folder / "3.txt").write_text("three blue bottles " * 40)
    longer = replace(recipe, train=replace(recipe.train, steps=4))
    with pytest.raises(ValueError, match=r"data: expected documents [0-9a-f]{16} as in the run"):
        continued(longer, tmp_path / "run", cache)


def test_checkpoint_survives_verification(finished):
    """What has just been written is whole, and knows how far the run was."""
    state = verify(finished / "checkpoints/step-000004")
    assert (state.step, state.tokens) == (4, 4 * 8 * 32)
    assert state.best_valid_loss == state.valid_loss
    assert set(state.files) >= {"model.safetensors", "recipe.toml", "tokenizer.json"}


@pytest.mark.slow
def test_five_kills_change_nothing(start, tmp_path, cache):
    """The command of the benchmark, killed at five random steps: every row as without kills."""
    tools = SimpleNamespace(**runpy.run_path(str(BENCHMARK)))

    def begin(run_dir):
        _, *words = tools.command(run_dir, (), [])
        return start(*words, WEIGHTWISE_CACHE=cache)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begin(whole).finish()
    steps = []
    for target in sorted(random.Random(7).sample(range(2, tools.STEPS), 5)):
        with begin(killed) as process:
            while tools.last_step(killed) < target:
                assert process.poll() is None, process.err
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        steps.append(tools.last_step(killed))
    assert steps[-1] < tools.STEPS
    begin(killed).finish()
    ours, theirs = ([tools.untimed(row) for row in tools.read_rows(run)] for run in (killed, whole))
    assert ours == theirs
    assert [row["step"] for row in ours if "train_loss" in row][-1] == tools.STEPS
