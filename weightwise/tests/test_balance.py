"""Over which tokens the loads of experts are balanced: a micro-batch, or the batch of all."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from weightwise.lm import MoEConfig
from weightwise.lm.moe import MixtureOfExperts
from weightwise.recipes import tiny
from weightwise.train import read_metrics, to_toml, train

IN_TWO = (str(Path(__file__).with_name("launch.py")), "2")


def recipe_of(micro_batch_size, balance_over):
    """A run whose routers learn from little but the balance."""
    base = tiny()
    ffn = MoEConfig(hidden=32, num_experts=4, balance_coef=20.0, balance_over=balance_over)
    return replace(
        base,
        model=replace(base.model, ffn=ffn),
        train=replace(base.train, steps=3, micro_batch_size=micro_batch_size),
        schedule=replace(base.schedule, decay_steps=60),
    )


def norms(run_dir):
    """Norm of the gradient of every step."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    return [row["grad_norm"] for row in rows if "grad_norm" in row]


@pytest.mark.slow
def test_two_processes_balance_the_batch_of_one(start, tmp_path) -> None:
    """Steps of two processes with half of the batch each: equal only if shares are of the batch."""
    half = tiny().train.batch_size // 2
    found = {}
    for rule in ("micro_batch", "batch"):
        train(
            recipe_of(2 * half, rule), tmp_path / f"one-{rule}", cache_dir=tmp_path / "cache",
            console=Console(quiet=True),
        )  # fmt: skip
        path = tmp_path / f"{rule}.toml"
        path.write_text(to_toml(recipe_of(half, rule)), encoding="utf-8")
        words = (*IN_TWO, "-m", "weightwise", "train", path, "--out", tmp_path / f"two-{rule}")
        start(*words, WEIGHTWISE_CACHE=tmp_path / "cache").finish()
        found[rule] = [norms(tmp_path / f"{kind}-{rule}") for kind in ("one", "two")]
    assert found["batch"][1] == pytest.approx(found["batch"][0], abs=1e-4)
    assert found["micro_batch"][0] == found["batch"][0]
    assert found["micro_batch"][1] != pytest.approx(found["batch"][1], abs=1e-3)


def test_shares_are_those_of_the_batch_up_to_now() -> None:
    """E * sum of shares over all passes since the first, times the last pass's probabilities."""
    torch.manual_seed(0)
    config = MoEConfig(hidden=4, num_experts=3, top_k=2, balance_coef=1.0, balance_over="batch")
    layer = MixtureOfExperts(config, 5)
    torch.nn.init.normal_(layer.router.weight)
    for _ in range(2):  # a second batch starts anew
        chosen_E, num_tokens = torch.zeros(3), 0
        for number, count in enumerate((7, 4, 9)):
            layer(torch.randn(1, count, 5))
            chosen_E += layer.routing.chosen
            num_tokens += count
            expected = 3 * (chosen_E / num_tokens * layer.routing.probabilities.mean(0)).sum()
            found = layer.auxiliary_loss(is_first=number == 0)
            torch.testing.assert_close(found, expected)
            assert torch.autograd.grad(found, layer.router.weight)[0].abs().max() > 0


def test_an_unknown_rule_is_refused() -> None:
    """The message names the field and what it may be."""
    with pytest.raises(ValueError, match="balance_over"):
        MoEConfig(hidden=4, num_experts=2, balance_over="run")
