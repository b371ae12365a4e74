"""Recipes that train in 8 bits: levels, exact continuation, kills, other numbers of processes."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.nn.modules.module import register_module_forward_hook

from weightwise.numerics.fp8_linear import Fp8Linear
from weightwise.recipes import tiny
from weightwise.train import DivergedError, load_model, read_metrics, to_toml, train

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


@contextmanager
def products_that_fail(first, last):
    """Outputs of one linear layer are NaN in forward passes of training from first to last."""
    count = 0

    def spoil(module, _inputs, output):
        nonlocal count
        if isinstance(module, Fp8Linear) and module.training and module.in_features == 64:
            count += 1
            return output * torch.nan if first <= count <= last else None
        return None

    handle = register_module_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_a_run_goes_on_after_a_product_that_failed(cache, tmp_path, level):
    """Its step is left out and counted; later losses are finite."""
    with products_that_fail(30, 30):
        result = train(recipe_of(level), tmp_path / "run", cache_dir=cache, console=QUIET)
    rows = {row["step"]: row for row in rows_of(tmp_path / "run") if "skipped_steps" in row}
    assert result.is_complete
    left_out = [step for step, row in rows.items() if "train_loss" not in row]
    assert len(left_out) == 1
    assert rows[8]["skipped_steps"] == 1
    assert rows[8]["train_loss"] < rows[1]["train_loss"]


@pytest.mark.slow
def test_a_run_in_which_all_products_fail_ends(cache, tmp_path):
    """After ten steps in a row, with the checkpoint from which to go on."""
    with products_that_fail(1, 10_000), pytest.raises(DivergedError, match="step 11"):
        train(recipe_of("O2", 20), tmp_path / "run", cache_dir=cache, console=QUIET)


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
def test_a_killed_process_costs_steps_only(runs, cache, tmp_path):
    """One of four is killed at random; two go on from the last checkpoint: the losses of one."""
    level = "O3"  # whose optimizer is shared over the processes
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
