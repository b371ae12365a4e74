"""The moving average of the weights: its formula, changing places, and what a run gives away."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from weightwise.optim import OptimizerConfig, make_optimizer
from weightwise.optim.averaging import averaged
from weightwise.recipes import tiny
from weightwise.train import load_model, read_metrics, train

QUIET = Console(quiet=True)


def model_of(seed=0):
    """A small module with two kinds of weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))


def steps(model, optimizer, count):
    """Make steps and give the weights after each."""
    history = []
    for number in range(count):
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        model(torch.full((2, 4), float(number + 1))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append([w.detach().clone() for w in model.parameters()])
    return history


def test_average_follows_its_formula_and_leaves_the_steps_alone():
    """From the weights before the first step; the weights move as without an average."""
    decay, model = 0.7, model_of()
    wanted = [w.detach().clone() for w in model.parameters()]
    optimizer = make_optimizer(OptimizerConfig(average_decay=decay), model)
    history = steps(model, optimizer, 5)
    other = model_of()
    plain = steps(other, make_optimizer(OptimizerConfig(), other), 5)
    for now in history:
        wanted = [decay * mean + (1 - decay) * w for mean, w in zip(wanted, now, strict=True)]
    for ours, theirs in zip(history[-1], plain[-1], strict=True):
        assert torch.equal(ours, theirs)
    with averaged(optimizer):
        for mean, w in zip(wanted, model.parameters(), strict=True):
            torch.testing.assert_close(w.detach(), mean)
    for now, w in zip(history[-1], model.parameters(), strict=True):
        assert torch.equal(w, now)


def test_places_are_given_back_after_an_error():
    """Whatever goes wrong in between; and without an average nothing changes places."""
    model = model_of()
    optimizer = make_optimizer(OptimizerConfig(average_decay=0.5), model)
    (now,) = steps(model, optimizer, 1)
    with pytest.raises(ZeroDivisionError), averaged(optimizer):
        raise ZeroDivisionError
    assert all(torch.equal(a, b) for a, b in zip(now, model.parameters(), strict=True))
    plain = make_optimizer(OptimizerConfig(), model)
    with averaged(plain):
        assert all(torch.equal(a, b) for a, b in zip(now, model.parameters(), strict=True))


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_decay_is_checked(decay):
    """No average at all and one that never moves are refused."""
    with pytest.raises(ValueError, match="average_decay"):
        OptimizerConfig(average_decay=decay)


@pytest.mark.slow
def test_runs_give_the_average_away_and_go_on_with_the_weights(tmp_path):
    """Stopped and continued: same rows and files, bit for bit; losses of training as without."""
    base = tiny()

    def recipe(num_steps, decay):
        return replace(
            base,
            optimizer=replace(base.optimizer, average_decay=decay),
            schedule=replace(base.schedule, decay_steps=60),
            train=replace(base.train, steps=num_steps, save_every=3, eval_every=3),
        )

    cache = tmp_path / "cache"
    for name, stops, decay in [
        ("whole", [6], 0.8), ("parts", [3, 6], 0.8), ("plain", [6], None),
    ]:  # fmt: skip
        for stop in stops:
            train(recipe(stop, decay), tmp_path / name, cache_dir=cache, console=QUIET)
    rows = {
        name: [
            {k: v for k, v in row.items() if k != "tokens_per_s"}
            for row in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("whole", "parts", "plain")
    }
    assert rows["whole"] == rows["parts"]
    losses = {name: [r["train_loss"] for r in rows[name] if "train_loss" in r] for name in rows}
    assert losses["whole"] == losses["plain"]
    assert rows["whole"][-1]["valid_loss"] != rows["plain"][-1]["valid_loss"]
    files = [tmp_path / n / "checkpoints/step-000006/model.safetensors" for n in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    given, plain = (load_model(tmp_path / name)[0] for name in ("whole", "plain"))
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(given.parameters(), plain.parameters(), strict=True)
    ]
    assert max(moved) > 1e-4
