"""`weightwise distill contract` as a user calls it: a recipe out, a kill, bad input."""

import json
import runpy
import signal
import time
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import tyro

from weightwise.cli.contract import (
    ShortTraining,
    contract_command,
    held_out,
    shortened,
    trainings_by_score,
    with_model,
)
from weightwise.recipes.vision import load_vision_recipe
from weightwise.train import read_metrics
from weightwise.train.vision import train_vision
from weightwise.train.vision_config import StartConfig
from weightwise.train.vision_images import FolderSource, ImagesConfig
from weightwise.train.vision_recipe import read_vision_recipe, vision_to_toml
from weightwise.vision import Candidate, TinyViTConfig, num_parameters

SHARED = runpy.run_path(str(Path(__file__).with_name("vision_runs.py")))
QUIET, RECIPE = SHARED["QUIET"], SHARED["RECIPE"]
START = RECIPE.model.build()
SPACE = ("--width-step", "16", "--width-reach", "1", "--depth-reach", "0", "--windows", "1",
         "--expansions", "2", "4")  # fmt: skip
PARAMS = ("--params", str(num_parameters(START) * 0.9))
RUN = """
import sys
import tyro
from weightwise.cli.contract import contract_command
if __name__ == "__main__":
    raise SystemExit(tyro.cli(contract_command, args=sys.argv[1:]))
"""


@pytest.fixture
def recipe(tmp_path):
    """File of a recipe whose epoch has three steps."""
    path = tmp_path / "tiny.toml"
    path.write_text(vision_to_toml(RECIPE))
    return path


def run(*words):
    """Call the command in this process."""
    return tyro.cli(contract_command, args=[str(one) for one in words])


@pytest.mark.slow
def test_the_result_is_a_recipe_that_trains(recipe, tmp_path, capsys):
    """Bounds hold, trainings are counted and leave no weights, and a second call makes none."""
    words = (recipe, *PARAMS, *SPACE, "--limit", "3", "--steps", "1", "--epochs", "1", "2",
             "--out", tmp_path / "out", "--json")  # fmt: skip
    assert run(*words) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    # three candidates and the better two of them again
    assert said["trainings"] == 3 + 2
    assert "step 1/1: 5 trainings" in captured.err
    found = read_vision_recipe(tmp_path / "out" / "recipe.toml")
    assert found == with_model(RECIPE, found.model.build(), "tiny-contracted")
    assert num_parameters(found.model.build()) == said["num_params"] <= 0.9 * num_parameters(START)
    assert said["latency_ms"] is None
    assert not list((tmp_path / "out" / "runs").rglob("*.safetensors"))
    # the score is that of a training of the same recipe, model and length
    again = train_vision(shortened(found, 2), tmp_path / "run", console=QUIET)
    assert again.valid_loss == said["valid_loss"]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").rglob("*.*")}
    assert run(*words) == 0
    assert json.loads(capsys.readouterr().out) == said
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.slow
def test_a_killed_search_goes_on(recipe, tmp_path, start):
    """Killed between two of four trainings; what was measured and scored stays as it is."""
    program = tmp_path / "run.py"
    program.write_text(RUN)
    words = (program, recipe, *PARAMS, *SPACE, "--limit", "4", "--steps", "1", "--latency-ms",
             "1e4", "--rounds", "1", "--out", tmp_path / "out")  # fmt: skip
    journal = tmp_path / "out" / "journal.jsonl"
    with start(*words) as killed:
        while not (journal.exists() and '"name": "score"' in journal.read_text()):
            assert killed.poll() is None, killed.err
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    kept = journal.read_text().rpartition("\n")[0]
    out = start(*words).finish()
    assert journal.read_text().startswith(kept)
    assert journal.read_text().count('"name": "score"') == 4
    assert "ms, validation loss" in out
    assert "after 4 trainings" in out
    with pytest.raises(ValueError, match="another bounds"):
        run(*words[1:], "--macs", "1e9")


@pytest.mark.slow
def test_trainings_go_on_and_diverge(tmp_path, monkeypatch):
    """A training that was asked to stop interrupts the search; one that diverges is the worst."""
    score = ShortTraining(recipe=RECIPE, epochs=1, folder=tmp_path)
    model = replace(START, widths=(16, 32, 32, 64))

    def stopped(*_, console):
        return replace(result, step=1)

    result = train_vision(shortened(RECIPE, 1), tmp_path / "other", console=QUIET)
    monkeypatch.setattr("weightwise.cli.contract.train_vision", stopped)
    with pytest.raises(KeyboardInterrupt):
        score(model)
    monkeypatch.undo()
    hot = replace(RECIPE, schedule=replace(RECIPE.schedule, base_lr=1e30))
    assert ShortTraining(recipe=hot, epochs=1, folder=tmp_path / "hot")(model) == -inf
    value = score(model)
    assert value == -read_metrics(score.run_dir(model) / "metrics.jsonl")[-1]["valid_loss"]
    monkeypatch.setattr("weightwise.cli.contract.train_vision", stopped)
    assert score(model) == value  # kept


def test_scores_are_known_by_what_they_do(tmp_path):
    """Names and folders make no difference, settings and lengths do."""
    score = ShortTraining(recipe=RECIPE, epochs=1, folder=tmp_path)
    same = ShortTraining(recipe=replace(RECIPE, name="b"), epochs=1, folder=tmp_path / "b")
    other = ShortTraining(recipe=replace(RECIPE, seed=2), epochs=1, folder=tmp_path)
    assert score.identity == same.identity
    assert len({one.identity for one in (score, other, replace(score, epochs=2))}) == 3


def test_schedules_are_compressed():
    """A tenth of 20 epochs with 5 of warm-up: 2 epochs with half a one."""
    base = load_vision_recipe("composites-teacher", ["train.epochs=20", "schedule.warmup_epochs=5"])
    short = shortened(base, 2)
    assert (short.train.epochs, short.schedule.warmup_epochs) == (2, 0.5)
    assert short.optimizer == base.optimizer


def test_candidates_are_judged_on_a_part_of_the_training_images():
    """Where images are files; built-in ones, and recipes that split anyway, stay as they are."""
    files = replace(RECIPE, images=ImagesConfig(source=FolderSource(path="train", valid="test")))
    judged = held_out(files, 0.1).images
    assert (judged.source, judged.valid_share) == (FolderSource(path="train"), 0.1)
    own = replace(files, images=judged)
    assert held_out(own, 0.5) == own
    assert held_out(RECIPE, 0.5) == RECIPE
    with pytest.raises(ValueError, match="held_out"):
        held_out(files, 1.0)


def test_a_variant_gives_way_to_factors():
    """The found model is spelt out, whatever the recipe called its own."""
    base = load_vision_recipe("tinyvit-21m")
    config = replace(base.model.build(), widths=(64, 128, 160, 320))
    found = with_model(base, config, "small")
    assert (found.name, found.model.variant, found.model.build()) == ("small", None, config)
    assert replace(found, name=base.name, model=base.model) == base


def test_trainings_are_counted_once():
    """Two steps share a model: four trainings by the first score, two by the second."""

    def candidate(width, rung):
        config = TinyViTConfig(widths=(32, 64, 96, width))
        return Candidate(config=config, num_params=1, macs=1, latency_s=None, score=0.0, rung=rung)

    steps = [[candidate(96, 1), candidate(128, 0), candidate(160, 0)],
             [candidate(192, 1), candidate(96, 0)]]  # fmt: skip
    assert trainings_by_score(steps) == [4, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "bounds: expected at least one of --latency-ms"),
        (("--params", "-1"), "params: expected a finite number above 0"),
        ((*PARAMS, "--epochs", "3"), "epochs: expected 1 to train.epochs 2 each"),
        ((*PARAMS, "--epochs", "0"), "epochs: expected 1"),
        ((*PARAMS, "--limit", "0"), "limit: expected at least 1"),
        ((*PARAMS, "--jobs", "0"), "jobs: expected at least 1"),
        ((*PARAMS, "--survivors", "2"), "survivors: expected above 0"),
        ((*PARAMS, "--set", "train.stepz=1"), "train.stepz"),
        (("--params", "10", *SPACE), "bounds: expected a model within"),
    ],
)
def test_bad_input_is_refused(recipe, tmp_path, words, message):
    """The message names what is wrong."""
    with pytest.raises(ValueError, match=message):
        run(recipe, *words, "--out", tmp_path / "out")


def test_starts_are_refused(recipe, tmp_path):
    """Weights of another model cannot be taken over by candidates."""
    begun = replace(RECIPE, start=StartConfig(path="weights.pth"))
    recipe.write_text(vision_to_toml(begun))
    with pytest.raises(ValueError, match=r"start: expected none, .* got weights.pth"):
        run(recipe, *PARAMS, "--out", tmp_path / "out")
