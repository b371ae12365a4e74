"""Latents that blocks give to others, where the weights of blocks are spread over processes."""

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


def losses(start, folder, name, *settings, launcher=()):
    """Train the tiny recipe with latents; returns its losses."""
    words = [*launcher, "-m", "weightwise", "train", "tiny"]
    words += ["--out", folder / name, "--set", f"model.attention={ATTENTION}"]
    words += [*SETTINGS, *settings]
    start(*words, WEIGHTWISE_CACHE=folder / "cache").finish()
    rows = read_metrics(folder / name / "metrics.jsonl")
    return [row[key] for row in rows for key in ("train_loss", "valid_loss") if key in row]


def test_processes_make_the_steps_of_one(start, tmp_path):
    """Replicated and sharded weights, the latter with blocks that are computed twice."""
    alone = losses(start, tmp_path, "alone")
    assert len(alone) >= 4
    ddp = losses(start, tmp_path, "ddp", launcher=IN_TWO)
    sharded = ("train.strategy=fsdp", "train.recompute=true")
    fsdp = losses(start, tmp_path, "fsdp", *sharded, launcher=IN_TWO)
    # Sums over processes run in another order, which may put a latent on another code.
    assert ddp == pytest.approx(alone, abs=1e-4)
    assert fsdp == pytest.approx(alone, abs=1e-4)
