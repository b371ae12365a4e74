"""The moving average over two real processes: the weights that a single one would give away."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

from weightwise.lm import MoEConfig
from weightwise.recipes import tiny
from weightwise.train import read_metrics, to_toml, train

IN_TWO = (str(Path(__file__).with_name("launch.py")), "2")
STEPS = 6


def recipe_of(steps=STEPS, strategy="ddp", expert_parallel=1):
    """Half of every step's weights go into the average, so that it is far from the weights."""
    base = tiny()
    return replace(
        base,
        model=replace(base.model, ffn=MoEConfig(hidden=32, num_experts=4)),
        optimizer=replace(base.optimizer, average_decay=0.5),
        schedule=replace(base.schedule, decay_steps=60, peak_lr=1e-2),
        train=replace(
            base.train, steps=steps, save_every=3, eval_every=3, micro_batch_size=2,
            strategy=strategy, expert_parallel=expert_parallel,
        ),
    )  # fmt: skip


def run_of_two(start, recipe, run_dir, folder):
    """Train in two processes."""
    path = folder / f"{run_dir.name}.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    words = (*IN_TWO, "-m", "weightwise", "train", path, "--out", run_dir)
    start(*words, WEIGHTWISE_CACHE=folder / "cache").finish()


def run_of_one(_start, recipe, run_dir, folder):
    """Train in this process."""
    train(recipe, run_dir, cache_dir=folder / "cache", console=Console(quiet=True))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder with the run of a single process."""
    folder = tmp_path_factory.mktemp("averages")
    run_of_one(None, recipe_of(), folder / "alone", folder)
    return folder


def check(run_dir, alone):
    """Averages and what they are worth are those of a single process, and they moved."""
    weights, given = (
        load_file(run / f"checkpoints/step-{STEPS:06}/model.safetensors")
        for run in (alone / "alone", run_dir)
    )
    assert weights.keys() == given.keys()
    for name, weight in weights.items():
        assert (weight - given[name]).abs().max() < 2e-5, name
    earlier = load_file(alone / "alone" / "checkpoints/step-000003/model.safetensors")
    assert max((weights[name] - earlier[name]).abs().max() for name in weights) > 1e-3
    ours, theirs = (read_metrics(run / "metrics.jsonl") for run in (run_dir, alone / "alone"))
    for mine, other in zip(ours, theirs, strict=True):
        for name in mine.keys() & {"train_loss", "valid_loss", "grad_norm"}:
            assert mine[name] == pytest.approx(other[name], abs=2e-5), (mine["step"], name)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "expert_parallel"), [("fsdp", 1), ("ddp", 2)])
def test_two_processes_give_away_what_one_does(
    start, alone, tmp_path, strategy, expert_parallel
) -> None:
    """Weights sharded or experts spread: evaluations and files hold the same averages."""
    run_dir = tmp_path / "two"
    run_of_two(start, recipe_of(STEPS, strategy, expert_parallel), run_dir, alone)
    check(run_dir, alone)


@pytest.mark.slow
def test_averages_move_between_layouts(start, alone, tmp_path) -> None:
    """Three steps with sharded weights and spread experts, the rest alone, and the other way."""
    for name, first, second in (
        ("there", run_of_two, run_of_one),
        ("back", run_of_one, run_of_two),
    ):
        run_dir = tmp_path / name
        layouts = {run_of_two: ("fsdp", 2), run_of_one: ("ddp", 1)}
        first(start, recipe_of(3, *layouts[first]), run_dir, alone)
        second(start, recipe_of(STEPS, *layouts[second]), run_dir, alone)
        check(run_dir, alone)
