"""Latents that blocks give to others, where the weights of blocks are spread over processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weightwise.train import read_metrics

IN_TWO = (str(Path(__file__).with_name("launch.py")), "2")
ATTENTION = (
    '{kind="latent",num_heads=4,share_factor=2,latent_norm="layer",rope_key="layer",'
    "outer_scale=false,codes={bits=8}}"
)
SETTINGS = ("train.log_every=1", "train.eval_every=3", "train.save_every=3", "train.steps=3")

pytestmark = pytest.mark.slow


def losses(folder, name, *settings, launcher=()):
    """Train the tiny recipe with latents; returns its losses."""
    environment = {**os.environ, "WEIGHTWISE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *launcher, "-m", "weightwise", "train", "tiny"]
    words += ["--out", str(folder / name), "--set", f"model.attention={ATTENTION}"]
    words += [*SETTINGS, *settings]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = read_metrics(folder / name / "metrics.jsonl")
    return [row[key] for row in rows for key in ("train_loss", "valid_loss") if key in row]


def test_processes_make_the_steps_of_one(tmp_path):
    """Replicated and sharded weights, the latter with blocks that are computed twice."""
    alone = losses(tmp_path, "alone")
    assert len(alone) >= 4
    ddp = losses(tmp_path, "ddp", launcher=IN_TWO)
    sharded = ("train.strategy=fsdp", "train.recompute=true")
    fsdp = losses(tmp_path, "fsdp", *sharded, launcher=IN_TWO)
    # Sums over processes run in another order, which may put a latent on another code.
    assert ddp == pytest.approx(alone, abs=1e-4)
    assert fsdp == pytest.approx(alone, abs=1e-4)
