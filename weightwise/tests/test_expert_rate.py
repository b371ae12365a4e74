"""Learning rates of experts and their annealing: published points, limits, estimates from runs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig
from weightwise.optim import (
    OptimizerConfig,
    ScheduleConfig,
    best_rate,
    expert_ratio,
    highest_rate,
    learning_rate,
    make_optimizer,
    noise_batch,
)
from weightwise.optim.expert_rate import relative_batch


def test_published_ratio() -> None:
    """0.31 with sixteen experts is a batch of 0.26 noise batches; its limits are 1/4 and 4."""
    assert relative_batch(16, 0.31) == pytest.approx(0.2602, abs=5e-5)
    assert expert_ratio(16, 0.2602) == pytest.approx(0.31, abs=5e-5)
    assert expert_ratio(16, 1e-9) == pytest.approx(0.25)
    assert expert_ratio(16, 1e9) == pytest.approx(4.0)
    # Read the other way round, the printed ratio would ask for a rate 3.2 times as high.
    assert expert_ratio(16, 61.5) == pytest.approx(1 / 0.31, rel=1e-3)


@given(
    st.floats(1.5, 200), st.floats(1e-3, 1e3), st.floats(1e3, 1e8), st.floats(1e-5, 1e-1)
)  # fmt: skip
def test_ratio_is_that_of_two_best_rates(n: float, u: float, noise: float, highest: float) -> None:
    """The closed form is the best rate of the expert's batch over that of the whole batch."""
    batch = u * noise
    ratio = best_rate(batch / n, noise, highest) / best_rate(batch, noise, highest)
    assert expert_ratio(n, u) == pytest.approx(ratio, rel=1e-9)
    assert 1 / np.sqrt(n) - 1e-12 <= expert_ratio(n, u) <= np.sqrt(n) + 1e-12
    assert best_rate(noise, noise, highest) == pytest.approx(highest)


def test_noise_batch_comes_back_from_runs() -> None:
    """Runs that follow the law give its noise batch, and the highest rate behind best ones."""
    least_steps, least_tokens = 900.0, 3e7
    batches = np.array([4e3, 1.6e4, 6.4e4, 2.56e5])
    steps = least_steps + least_tokens / batches
    found, fit = noise_batch(steps, batches)
    assert found == pytest.approx(least_tokens / least_steps, rel=1e-9)
    assert fit == pytest.approx(1.0)
    rates = [best_rate(batch, found, 2e-3) for batch in batches]
    assert highest_rate(rates, batches, found) == pytest.approx(2e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expert_ratio(0.5, 1.0), "tokens_per_choice: expected at least 1, got 0.5"),
        (lambda: expert_ratio(4, 0.0), "relative_batch: expected a finite number above 0"),
        (lambda: relative_batch(16, 0.2), "ratio: expected between 0.25 and 4, got 0.2"),
        (lambda: noise_batch([10.0], [4.0]), "at least 2 runs"),
        (lambda: noise_batch([10.0, 20.0], [4.0, 8.0]), "show no noise batch"),
        (lambda: OptimizerConfig(expert_lr="auto"), "noise_batch: expected tokens"),
        (lambda: OptimizerConfig(expert_lr=-1.0), "expert_lr"),
    ],
)
def test_wrong_values_are_named(call, message: str) -> None:
    """A value out of range is named with the range."""
    with pytest.raises(ValueError, match=message):
        call()


def test_experts_have_a_group_of_their_own() -> None:
    """Stacked experts get the ratio, everything else 1; without a ratio there is no third group."""
    model = LanguageModel(
        ModelConfig(
            vocab_size=9,
            width=8,
            num_layers=2,
            max_length=4,
            attention=GQAConfig(num_heads=2, qk_norm=True),
            ffn=MoEConfig(hidden=4, num_experts=4, top_k=2),
        )
    )
    config = OptimizerConfig(expert_lr="auto", noise_batch=1000.0)
    ratio = config.expert_ratio(500.0, 4 / 2)
    assert ratio == expert_ratio(2.0, 0.5)
    groups = make_optimizer(config, model, ratio).param_groups
    assert [group["lr_ratio"] for group in groups] == [1.0, 1.0, ratio]
    experts = [weight for block in model.blocks for weight in block.ffn.experts.parameters()]
    assert {id(w) for w in groups[2]["params"]} == {id(w) for w in experts}
    routers = {id(block.ffn.router.weight) for block in model.blocks}
    assert routers <= {id(w) for w in groups[0]["params"]}
    assert len(make_optimizer(OptimizerConfig(), model).param_groups) == 2
    assert len(make_optimizer(config, nn.Linear(2, 2), ratio).param_groups) == 2


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_three_phases(kind: str) -> None:
    """Warm-up, decay to the rate at which annealing begins, a straight line to a tenth."""
    config = ScheduleConfig(
        kind=kind, peak_lr=2.0, warmup_steps=20, min_lr_ratio=0.1, anneal_from=0.95
    )
    rates = [learning_rate(config, step, 10_000) for step in range(1, 10_001)]
    assert rates[9] == pytest.approx(1.0)
    assert rates[19] == pytest.approx(2.0)
    assert rates[(20 + 9500) // 2 - 1] == pytest.approx((2.0 + 0.6) / 2)
    assert rates[9499] == pytest.approx(0.6)
    assert rates[9749] == pytest.approx((0.6 + 0.2) / 2)
    assert rates[9999] == pytest.approx(0.2)
    assert learning_rate(config, 12_000, 10_000) == pytest.approx(0.2)
    falling = list(pairwise(rates[19:]))
    assert all(before >= after for before, after in falling)
    assert max(before - after for before, after in falling) < 0.001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anneal_ratio": 0.05}, "anneal_ratio: expected min_lr_ratio 0.1 to 1, got 0.05"),
        ({"anneal_from": 1.0}, "anneal_from"),
        ({"kind": "constant"}, "anneal_from: expected none with kind constant"),
    ],
)
def test_wrong_annealing_is_named(change, message: str) -> None:
    """A field out of range is named with the range."""
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**{"min_lr_ratio": 0.1, "anneal_from": 0.95, **change})
