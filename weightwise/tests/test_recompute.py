"""Activations that are computed again give the same steps and keep less."""

from dataclasses import replace

import pytest
import torch

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.numerics import PrecisionConfig
from weightwise.recipes import tiny
from weightwise.train import train

EXPERTS = MoEConfig(
    hidden=24, num_experts=4, top_k=2, overflow="recycle", min_capacity=1, keep_rule="random"
)


@pytest.fixture(params=[EXPERTS, SwiGLUConfig(hidden=24)], ids=["moe", "swiglu"])
def model(request):
    """Four layers, keys shared by two; with experts, some of them overflow."""
    attention = GQAConfig(num_heads=4, num_kv_heads=2, qk_norm=True, share_factor=2)
    built = LanguageModel(
        ModelConfig(
            vocab_size=50,
            width=32,
            num_layers=4,
            max_length=64,
            attention=attention,
            ffn=request.param,
        )
    )
    built.initialize(torch.Generator().manual_seed(0))
    return built


def tokens():
    """Two sequences."""
    return torch.randint(50, (2, 64), generator=torch.Generator().manual_seed(1))


def loss_of(model):
    """A loss with draws in every layer."""
    torch.manual_seed(2)
    return model(tokens()).logsumexp(-1).mean() + model.auxiliary_loss()


def gradients(model):
    """Gradients by name; the model has none afterwards."""
    model.zero_grad()
    loss_of(model).backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def test_gradients_and_routing_are_the_same_bits(model):
    """With recycling, random keeping and shared keys; statistics are those of the first time."""
    wanted, statistics = gradients(model), model.routing_statistics()
    model.recompute_activations()
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, wanted[name]), name
    assert model.routing_statistics() == statistics
    assert not statistics or statistics["overflow"] > 0


def test_blocks_run_twice_and_draws_go_on_as_before(model):
    """Once more in the backward pass only; afterwards the generator stands where it would."""
    calls = []
    model.blocks[1].ffn.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(model)
    assert len(calls) == 1
    after = torch.rand(())
    model.recompute_activations()
    loss = loss_of(model)
    assert len(calls) == 2
    loss.backward()
    assert len(calls) == 3
    assert torch.rand(()) == after
    with torch.no_grad():
        model(tokens())
    assert len(calls) == 4


def test_less_is_kept_for_the_backward_pass(model):
    """Of what a block computes nothing stays, and nothing of what is computed again either."""
    kept = {}
    for is_wanted in (False, True):
        model.recompute_activations(is_wanted)
        kept[is_wanted] = 0

        def count(tensor, is_wanted=is_wanted):
            kept[is_wanted] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = loss_of(model)
    assert kept[True] < kept[False] / 3
    routing = [getattr(block.ffn, "routing", None) for block in model.blocks]
    loss.backward()
    assert all(
        getattr(block.ffn, "routing", None) is first
        for block, first in zip(model.blocks, routing, strict=True)
    )


@pytest.mark.slow
def test_run_with_recomputation_is_the_same_run(tmp_path):
    """Rounding by chance draws in the forward and in the backward pass, and a run may switch."""
    base = tiny()
    base = replace(
        base,
        model=replace(base.model, ffn=replace(EXPERTS, hidden=32)),
        precision=PrecisionConfig(format="e4m3", rounding="stochastic"),
        schedule=replace(base.schedule, decay_steps=10),
    )
    for run, recomputes in (("plain", (False, False)), ("switched", (False, True))):
        for steps, recompute in zip((2, 4), recomputes, strict=True):
            settings = replace(base.train, steps=steps, recompute=recompute)
            train(replace(base, train=settings), tmp_path / run)
    ours, theirs = (
        tmp_path / run / "checkpoints/step-000004/model.safetensors"
        for run in ("plain", "switched")
    )
    assert ours.read_bytes() == theirs.read_bytes()
