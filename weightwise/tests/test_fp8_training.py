"""Recipes that train in 8 bits: levels, exact continuation, kills, other numbers of processes."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from weightwise.recipes import tiny
from weightwise.train import load_model, read_metrics, to_toml, train

HERE = Path(__file__).parent
QUIET = Console(quiet=True)
LEVELS = ("O1", "O2", "O3")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Prepared data for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


def recipe_of(level, steps=8, **settings):
    """The tiny recipe at a level, with a schedule that does not depend on the steps."""
    base = tiny()
    changes = {"steps": steps, "eval_every": 4, "save_every": 2, "log_every": 1, "fp8": level}
    changes |= {"micro_batch_size": 2}
    schedule = replace(base.schedule, warmup_steps=2, decay_steps=12)
    return replace(base, schedule=schedule, train=replace(base.train, **changes | settings))


def rows_of(run_dir):
    """All rows without the speed, which no two runs share."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in rows]


def losses(run_dir):
    """Training and validation losses."""
    return [v for row in rows_of(run_dir) for k, v in row.items() if k.endswith("_loss")]


@pytest.fixture(scope="module")
def runs(cache, tmp_path_factory):
    """A run of one process at every level, and one in float32."""
    folder = tmp_path_factory.mktemp("runs")
    for level in (None, *LEVELS):
        train(recipe_of(level), folder / str(level), cache_dir=cache, console=QUIET)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_levels_follow_float32(runs, level):
    """Losses within half a per cent, step by step; the model is a plain one again when loaded."""
    assert losses(runs / level) == pytest.approx(losses(runs / "None"), rel=0.005)
    model, _, recipe = load_model(runs / level)
    assert recipe.train.fp8 == level
    assert all(type(one).__name__ == "Parameter" for one in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_a_continued_run_has_the_bits_of_a_whole_one(runs, cache, tmp_path, level):
    """Four steps, then four more: weights, scales, moments and factors come back."""
    for steps in (4, 8):
        train(recipe_of(level, steps), tmp_path / "run", cache_dir=cache, console=QUIET)
    assert rows_of(tmp_path / "run") == rows_of(runs / level)
    names = [
        run / "checkpoints/step-000008/model.safetensors"
        for run in (tmp_path / "run", runs / level)
    ]
    assert names[0].read_bytes() == names[1].read_bytes()


def start(num_processes, recipe, run_dir, cache):
    """The command in so many processes."""
    path = run_dir.with_suffix(".toml")
    path.write_text(to_toml(recipe), encoding="utf-8")
    words = [sys.executable]
    if num_processes > 1:
        words += ["-m", "torch.distributed.run", "--standalone"]
        words += [f"--nproc-per-node={num_processes}"]
    words += ["-m", "weightwise", "train", str(path), "--out", str(run_dir)]
    environment = {**os.environ, "WEIGHTWISE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
@pytest.mark.parametrize("level", LEVELS)
def test_a_killed_process_costs_steps_only(runs, cache, tmp_path, level):
    """One of four is killed at random; two go on from the last checkpoint: the losses of one."""
    run_dir = tmp_path / "run"
    process = start(4, recipe_of(level), run_dir, cache)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not list(run_dir.glob("checkpoints/step-*")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    workers = children.read_text().split()
    os.kill(int(random.Random(level).choice(workers)), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0, said
    process = start(2, recipe_of(level), run_dir, cache)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert losses(run_dir) == pytest.approx(losses(runs / level), rel=0.005)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"strategy": "fsdp"}, r"train\.strategy: expected ddp with train\.fp8"),
        ({"fp8": "O4"}, "fp8"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, field):
    """The message names the field."""
    with pytest.raises(ValueError, match=field):
        recipe_of("O2", **settings)
