"""Trained models whose blocks are brought to share weights, and go on beside their originals."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from weightwise.cli import main
from weightwise.multiplex import Transforms, num_unique_parameters
from weightwise.recipes import tiny
from weightwise.recipes.uptrain import uptrain
from weightwise.train import load_model, train
from weightwise.train.calibration import calibration_text, text_loss
from weightwise.train.shrink_language import shrink_language
from weightwise.train.shrink_vision import shrink_vision
from weightwise.train.shrinking import ShrinkConfig, parse_params
from weightwise.train.vision import train_vision
from weightwise.train.vision_models import DeiTStudent
from weightwise.train.vision_start import load_vision_model

VISION = runpy.run_path(str(Path(__file__).with_name("vision_runs.py")))["RECIPE"]
QUIET = Console(quiet=True)
HALF = ShrinkConfig(params=0.8, transforms=Transforms(rank=2))
VIT = DeiTStudent(
    width=16, num_heads=2, groups=(1, 1, 1, 1), patch=8, image_size=32, num_classes=100
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Folder of prepared data."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    """Run of a language model with four blocks."""
    base = tiny()
    recipe = replace(
        base, model=replace(base.model, num_layers=4), train=replace(base.train, steps=20)
    )
    return train(recipe, tmp_path_factory.mktemp("run"), cache_dir=cache, console=QUIET).run_dir


@pytest.fixture(scope="module")
def vision_run(tmp_path_factory):
    """Run of a small vision transformer."""
    recipe = replace(VISION, model=VIT)
    return train_vision(recipe, tmp_path_factory.mktemp("vision"), console=QUIET).run_dir


@pytest.fixture
def call(cache, monkeypatch, capsys):
    """Run a command: exit code, standard output, standard error."""
    monkeypatch.setenv("WEIGHTWISE_CACHE", str(cache))

    def command(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


@pytest.mark.parametrize(
    ("text", "value"),
    [("50%", 0.5), ("12.5%", 0.125), ("3M", 3e6), ("3_000_000", 3e6), ("1.5k", 1500.0)],
)
def test_sizes_are_shares_or_numbers(text, value):
    """Per cent, or a number with or without its unit."""
    assert parse_params(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "half", "0", "-3M", "100%", "0.5", "nan", "inf", "%"])
def test_other_sizes_are_refused(text):
    """The message has both ways to say it."""
    with pytest.raises(ValueError, match=r"params: expected a share below 100% such as 50%"):
        parse_params(text)


def test_a_shrunk_language_model_is_what_was_measured(run, cache, tmp_path):
    """Its file has each weight once, and its loss, by the report, is that of the loaded model."""
    found = shrink_language(run, tmp_path / "small", HALF, num_tokens=512, cache_dir=cache)
    model, _, recipe = load_model(tmp_path / "small")
    held_out = calibration_text(recipe, tmp_path / "small", cache_dir=cache).held_out()
    assert recipe.sharing == found.plan
    assert text_loss(model, *held_out) == pytest.approx(found.after, abs=1e-5)
    stored = load_file(tmp_path / "small" / "model.safetensors")
    assert sum(one.numel() for one in stored.values()) == found.params_after
    assert num_unique_parameters(model) == found.params_after <= 0.8 * found.params_before
    assert found.before == pytest.approx(text_loss(load_model(run)[0], *held_out), abs=1e-5)


def test_a_shrunk_run_goes_on_bit_for_bit(run, cache, tmp_path):
    """Three and three steps beside the original are six, and none of them unties a weight."""
    shrink_language(run, tmp_path / "small", HALF, num_tokens=512, cache_dir=cache)
    constant = ["schedule.kind=constant"]
    whole, part = (
        uptrain(tmp_path / "small", steps=6, overrides=[*constant, f"train.steps={steps}"])
        for steps in (6, 3)
    )
    train(whole, tmp_path / "a", cache_dir=cache, console=QUIET)
    train(part, tmp_path / "b", cache_dir=cache, console=QUIET)
    train(whole, tmp_path / "b", cache_dir=cache, console=QUIET)
    one, two = (
        load_file(tmp_path / name / "checkpoints/step-000006/model.safetensors") for name in "ab"
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    model, _, recipe = load_model(tmp_path / "a")
    assert recipe.sharing is not None
    first, second = model.blocks[0], model.blocks[1]
    groups = recipe.sharing.stages[0].groups
    assert (first.attention.output.weight is second.attention.output.weight) == (groups[0] > 1)
    assert sum(one.numel() for one in one.values()) == num_unique_parameters(model)


def test_the_command_for_language_models(run, call, tmp_path):
    """Parameters, groups and losses; then uptrain knows the original by itself."""
    small = tmp_path / "small"
    code, out, _ = call("shrink", run, "--out", small, "--params", "80%", "--tokens", 512, "--json")
    table = json.loads(out)
    assert code == 0
    assert table["params_after"] < 0.8 * table["params_before"]
    assert table["plan"]["stages"][0]["name"] == "blocks"
    words = ("uptrain", small, "--steps", 2, "--out", tmp_path / "run")
    code, out, _ = call(*words)
    assert code == 0
    assert out.startswith("tiny-shrunk-uptrained: 2 steps")
    code, _, err = call("shrink", small, "--out", tmp_path / "again", "--params", "50%")
    assert (code, "expected a model without" in err) == (2, True)
    code, _, err = call("shrink", run, "--out", tmp_path / "none", "--params", "10%")
    assert (code, "budget: expected at least" in err) == (2, True)
    assert not (tmp_path / "none").exists()
    assert call("uptrain", small, "--epochs", 2)[0] == 2


def test_a_shrunk_vision_model_is_what_was_measured(vision_run, tmp_path):
    """The loaded model has the counted weights and is tied as the plan says."""
    config = ShrinkConfig(params=0.7, transforms=Transforms(kernel=3, mixes=True))
    found = shrink_vision(vision_run, tmp_path / "small", config, num_images=32)
    model, recipe = load_vision_model(tmp_path / "small")
    stored = load_file(tmp_path / "small" / "model.safetensors")
    assert num_unique_parameters(model) == found.params_after < found.params_before
    assert sum(one.numel() for one in stored.values()) >= found.params_after
    assert recipe.sharing == found.plan
    assert recipe.start is None
    assert np.isfinite(found.before)


def test_the_command_for_vision_models(vision_run, call, tmp_path):
    """Shrink, then uptrain beside the original, told apart from language models by the recipe."""
    small = tmp_path / "small"
    words = ("--params", "70%", "--images", 32)
    code, out, _ = call("shrink", vision_run, "--out", small, *words)
    assert code == 0
    assert "blocks that share: blocks " in out
    assert f"weightwise uptrain {small}" in out
    code, out, _ = call("uptrain", small, "--epochs", 1, "--out", tmp_path / "run")
    assert code == 0
    assert "top-1" in out
    assert call("uptrain", small, "--steps", 2)[0] == 2
    assert call("shrink", vision_run, "--out", tmp_path / "x", *words, "--text", small)[0] == 2
