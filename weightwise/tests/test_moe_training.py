"""Training with experts: capacity and recycling in the loop, resuming, and the balance loss."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from weightwise.lm import LanguageModel, MoEConfig
from weightwise.recipes import tiny
from weightwise.train import train
from weightwise.train.checkpoint import load_weights
from weightwise.train.log import read_metrics

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.train import Recipe


def recipe(steps: int, **changes: object) -> Recipe:
    """A tiny model with experts that overflow, and keys shared by both layers."""
    base = tiny()
    attention = replace(base.model.attention, qk_norm=True, share_factor=2)
    ffn = MoEConfig(hidden=32, num_experts=4, overflow="recycle", min_capacity=1)
    return replace(
        base,
        model=replace(base.model, attention=attention, ffn=replace(ffn, **changes)),
        train=replace(base.train, steps=steps, save_every=4, eval_every=4, eval_batches=2),
        schedule=replace(base.schedule, decay_steps=60),
    )


def weights(wanted: Recipe, checkpoint: Path) -> dict[str, torch.Tensor]:
    model = LanguageModel(wanted.model)
    load_weights(model, checkpoint)
    return model.state_dict()


@pytest.mark.slow
def test_a_run_that_goes_on_routes_as_one_that_never_stopped(tmp_path: Path) -> None:
    """Weights are the same to the last bit, recycled tokens included."""
    whole = train(recipe(12), tmp_path / "whole")
    train(recipe(4), tmp_path / "parts")
    parts = train(recipe(12), tmp_path / "parts")
    first = weights(recipe(12), whole.checkpoint)
    for name, weight in weights(recipe(12), parts.checkpoint).items():
        assert torch.equal(weight, first[name]), name
    assert whole.valid_loss == parts.valid_loss
    rows = [row for row in read_metrics(tmp_path / "parts" / "metrics.jsonl") if "lr" in row]
    assert len(rows) == 12
    assert all(1 <= row["busiest_expert"] <= 4 for row in rows)
    assert all(0 < row["overflow"] < 1 and row["dropped"] == 0 for row in rows)


@pytest.mark.slow
def test_the_balance_loss_spreads_the_tokens(tmp_path: Path) -> None:
    """With its coefficient all experts are used about equally, without it they are not."""
    uneven = {}
    for coef in (0.0, 0.05):
        wanted = recipe(60, overflow="keep", balance_coef=coef)
        done = train(wanted, tmp_path / str(coef))
        assert done.valid_loss is not None
        assert done.valid_loss < 5.2
        model = LanguageModel(wanted.model).eval()
        load_weights(model, done.checkpoint)
        with torch.no_grad():
            model(torch.randint(384, (16, 32), generator=torch.Generator().manual_seed(0)))
        loads = torch.stack([block.ffn.routing.chosen for block in model.blocks]).float()
        uneven[coef] = (loads.max(1).values / loads.mean(1)).max().item()
    assert uneven[0.05] < uneven[0.0]
