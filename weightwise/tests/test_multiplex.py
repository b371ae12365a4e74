"""Multiplexed models of many makers compute what models with equal weights in each block do."""

import copy
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from weightwise.multiplex import (
    Plan,
    StagePlan,
    Transforms,
    differences,
    find_stages,
    multiplex,
    num_unique_parameters,
)

SHARED = runpy.run_path(str(Path(__file__).with_name("multiplex_models.py")))
FAMILIES, Block, Plain = (SHARED[name] for name in ("FAMILIES", "Block", "Plain"))
batch_of, made, output_of = (SHARED[name] for name in ("batch_of", "made", "output_of"))
ALL = Transforms(mixes=True, mix_bias=True, kernel=3, rank=2, delta="zero")
QUICK = ["plain", "encoder", "tiny vit", "dense", "moe"]  # ours and torch's


def untied(original, model, plan):
    """The original with the weights of the other model copied into each block."""
    for stage in plan.stages:
        pairs = (one.get_submodule(stage.name).children() for one in (original, model))
        for target, source in zip(*pairs, strict=True):
            weights, known = source.state_dict(), target.state_dict()
            target.load_state_dict({name: weights[name] for name in known})
    return original


def plain(seed=0):
    """Four blocks, and tokens."""
    torch.manual_seed(seed)
    return Plain().eval(), batch_of("tokens 8")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]
)
def test_multiplexed_models_are_tied_models(name, monkeypatch):
    """Outputs at the start, and gradients: those of shared weights are sums over executions."""
    model, batch, transforms = made(name, monkeypatch)
    original, total = copy.deepcopy(model), num_unique_parameters(model)
    plan = multiplex(model, 0.95, transforms=transforms, batches=[batch])
    assert num_unique_parameters(model) <= 0.95 * total
    wanted = untied(original, model, plan)
    found, other = output_of(model, batch), output_of(wanted, batch)
    torch.testing.assert_close(found, other, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(output_of(model, batch), other, atol=1e-5, rtol=1e-5)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    for one in (found, other):
        (one * weight).sum().backward()
    sums = {}
    for key, one in model.named_parameters(remove_duplicate=False):
        if key in dict(wanted.named_parameters()) and one.grad is not None:
            total_grad = sums.setdefault(one, torch.zeros_like(one))
            total_grad += wanted.get_parameter(key).grad
    assert len(sums) < len(list(wanted.parameters()))
    for one, total_grad in sums.items():
        torch.testing.assert_close(one.grad, total_grad, atol=1e-4, rtol=1e-3)
    # Transforms are in use. A zero factor hides the other one; a softmax hides biases before it.
    known = dict(wanted.named_parameters())
    ends = ".up", "before.weight", "after.weight", "after.bias", "conv.weight", "conv.bias"
    for key, one in model.named_parameters():
        # From the last convolution over the map no way leads to a class token.
        if key not in known and key.endswith(ends) and ".3.local_mix" not in key:
            assert one.grad is not None, key
            assert one.grad.abs().max() > 0, key


def test_norms_and_single_blocks_stay_each_ones_own():
    """Groups of three and one: one set of weights less than blocks, norms and block 3 apart."""
    model, batch = plain()
    plan = multiplex(model, plan=Plan(
        stages=(StagePlan(name="blocks", first=0, groups=(3, 1)),), transforms=Transforms()
    ))  # fmt: skip
    first, second, third, fourth = model.blocks
    assert first.fc1.weight is second.fc1.weight is third.fc1.weight
    assert first.fc1.bias is third.fc1.bias
    assert fourth.fc1.weight is not first.fc1.weight
    assert first.norm1.weight is not second.norm1.weight
    assert model.multiplex_plan == plan
    # A block has 8 * 24 + 24 + 8 * 8 + 8 + 8 * 16 + 16 + 16 * 8 + 8 = 568 shared and 32 own
    # numbers; the head has 27.
    assert num_unique_parameters(model) == 2 * 568 + 4 * 32 + 27
    assert output_of(model, batch).shape == (2, 3)


@pytest.mark.parametrize(("start", "wanted"), [("first", 1.0), ("mean", 2.0)])
def test_groups_start_from_the_first_block_or_the_mean(start, wanted):
    """Weights of 1, 1.5, 2.5 and 3: the mean is 2."""
    model, _ = plain()
    for block, value in zip(model.blocks, (1.0, 1.5, 2.5, 3.0), strict=True):
        nn.init.constant_(block.fc1.weight, value)
    stage = StagePlan(name="blocks", first=0, groups=(4,))
    multiplex(model, plan=Plan(stages=(stage,), transforms=Transforms()), start=start)
    assert torch.equal(model.blocks[2].fc1.weight, torch.full((16, 8), wanted))


@pytest.mark.parametrize("start", ["first", "mean"])
def test_full_rank_restores_the_original(start):
    """Where only matrices differ, W + (W_i - W) is W_i."""
    model, batch = plain()
    for block in model.blocks:
        for layer in (block.qkv, block.proj, block.fc1, block.fc2):
            nn.init.constant_(layer.bias, 0.5)
    wanted = output_of(model, batch)
    multiplex(model, 10**6, plan=None, start=start, transforms=Transforms(rank=8))
    assert torch.equal(output_of(model, batch), wanted)  # the budget needs no sharing
    model, _ = plain()
    for block in model.blocks:
        for layer in (block.qkv, block.proj, block.fc1, block.fc2):
            nn.init.constant_(layer.bias, 0.5)
    names = "qkv", "proj", "fc1", "fc2"
    stage = StagePlan(name="blocks", first=0, groups=(4,), deltas=names)
    multiplex(model, plan=Plan(stages=(stage,), transforms=Transforms(rank=8)), start=start)
    torch.testing.assert_close(output_of(model, batch), wanted)


def test_data_start_keeps_outputs_better_than_the_mean():
    """Squared error at the output of a layer that merges two, on inputs of unequal size."""
    errors = {}
    for start in ("mean", "data"):
        model, batch = plain()
        with torch.no_grad():
            model.blocks[1].norm1.weight *= 10  # the second block's inputs weigh more
        kept = {}
        for index in (0, 1):
            model.blocks[index].qkv.register_forward_hook(
                lambda _, args, out, index=index, kept=kept: kept.update({index: (args[0], out)})
            )
        output_of(model, batch)
        stage = StagePlan(name="blocks", first=0, groups=(2, 2))
        plan = Plan(stages=(stage,), transforms=Transforms())
        multiplex(model, plan=plan, start=start, batches=[batch])
        weight = model.blocks[0].qkv.weight
        bias = [plain()[0].blocks[index].qkv.bias for index in (0, 1)]
        errors[start] = sum(
            (x @ weight.T + bias[index] - out).square().sum().item()
            for index, (x, out) in kept.items()
        )
    assert errors["data"] < 0.5 * errors["mean"]


def test_maps_and_convolutions_change_what_a_block_computes():
    """The block by hand: mixed logits and shares, then the convolution, then the rest."""
    model, batch = plain()
    multiplex(model, 0.99, transforms=replace(ALL, rank=0), batches=[batch])
    block = model.blocks[0]
    with torch.no_grad():
        for one in (*block.attend.parameters(), *block.local_mix.parameters()):
            one += 0.1 * torch.randn(one.shape)
        q, k, v = block.qkv(block.norm1(batch)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        shares = block.attend.before(q @ k.mT / 2.0).softmax(-1)  # heads of four channels
        a = block.proj((block.attend.after(shares) @ v).transpose(1, 2).flatten(2))
        x = block.local_mix.mix((batch + a).unflatten(1, (4, 4))).flatten(1, 2)
        wanted = x + block.fc2(nn.functional.gelu(block.fc1(block.norm2(x))))
        torch.testing.assert_close(block(batch), wanted)


def test_copies_stand_on_their_own():
    """Maps of the copy do not reach the first model, and hooks go to the copy's."""
    model, batch = plain()
    multiplex(model, 0.99, transforms=ALL, batches=[batch])
    other, before = copy.deepcopy(model), output_of(model, batch)
    with torch.no_grad():
        for name, one in other.named_parameters():
            if name.endswith(("after.weight", ".up", "conv.weight")):
                one += 0.1
    assert torch.equal(output_of(model, batch), before)
    assert not torch.allclose(output_of(other, batch), before, atol=1e-3)
    assert other.blocks[0].fc1.weight is other.blocks[1].fc1.weight


@pytest.mark.slow
def test_blocks_can_be_computed_again_in_the_backward_pass():
    """Checkpointing runs hooks a second time; gradients are the same."""
    model, batch = plain()
    multiplex(model, 0.99, transforms=ALL, batches=[batch])
    gradients = []
    for again in (False, True):
        model.zero_grad()
        x = batch
        for block in model.blocks:
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        x.square().sum().backward()
        gradients.append({name: one.grad for name, one in model.named_parameters()})
    del gradients[0]["head.weight"], gradients[0]["head.bias"]
    for name, one in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], one)


def test_an_error_inside_leaves_attention_as_it_was():
    """The next call of the fused attention outside of the model is the plain one."""
    model, batch = plain()
    multiplex(model, 0.99, transforms=ALL, batches=[batch])
    with pytest.raises(RuntimeError):
        model(batch[..., :3])
    three = torch.randn(3, 1, 3, 4, 4).unbind()  # heads that the maps would refuse
    assert nn.functional.scaled_dot_product_attention(*three).shape == (1, 3, 4, 4)


@pytest.mark.slow
def test_compiled_and_exported_models_are_the_same():
    """With transforms that do something."""
    model, batch = plain()
    multiplex(model, 0.99, transforms=ALL, batches=[batch])
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name.endswith(("after.weight", ".up", "conv.weight")):
                one += 0.1
        wanted = model(batch)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(batch), wanted)
        program = torch.export.export(model, (batch,))
        torch.testing.assert_close(program.module()(batch), wanted)


def test_language_models_generate_with_their_cache():
    """The cache has a place for each execution: scores are those of a pass without cache."""
    torch.manual_seed(0)
    model = SHARED["language"]().eval()
    multiplex(model, 0.8, transforms=Transforms(rank=2))
    token = batch_of("text")
    cache = model.new_cache(2, 16)
    with torch.no_grad():
        step = [model(token[:, i : i + 1], cache) for i in range(token.shape[1])]
        torch.testing.assert_close(torch.cat(step, 1), model(token), atol=1e-5, rtol=1e-4)


def test_layers_that_differ_are_refused_with_the_place():
    """Shapes, names and classes."""
    uneven = Plain(depth=1)
    uneven.blocks.append(Block(12))
    with pytest.raises(
        ValueError, match=r"blocks.0 and blocks.1 differ: norm1.weight is \(8,\) and \(12,\)"
    ):
        find_stages(uneven)
    other = Plain(depth=2)
    other.blocks[1].fc2.bias = None
    with pytest.raises(ValueError, match="bias is only in blocks"):
        multiplex(other, 0.5)
    with pytest.raises(ValueError, match="it has no list of blocks"):
        find_stages(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="there is no list of blocks layers, only blocks"):
        find_stages(Plain(), only=["layers"])


def test_runs_are_found_within_a_list():
    """Two, one and three equal blocks: two stages, and the two places where a run ends."""
    model = Plain(depth=2)
    for width in (12, 8, 8, 8):
        model.blocks.append(Block(width))
    assert [(one.first, one.length) for one in find_stages(model)] == [(0, 2), (3, 3)]
    assert len(differences(model)) == 2
    assert find_stages(model)[1].block_names(model) == ["blocks.3", "blocks.4", "blocks.5"]


def test_what_is_kept_is_not_shared():
    """Names of layers."""
    model, _ = plain()
    multiplex(model, 0.9, keep=("proj",))
    assert model.blocks[0].fc1.weight is model.blocks[1].fc1.weight
    assert model.blocks[0].proj.weight is not model.blocks[1].proj.weight


class NoMap(Plain):
    """Three tokens."""

    def forward(self, x):
        """Leave tokens out."""
        return super().forward(x[:, :3])


class Products(Block):
    """Attention without the fused kernel, and no residual around it."""

    def forward(self, x):
        """One branch of everything."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        return self.fc2(self.fc1(self.norm2(self.proj((q @ k.mT).softmax(-1) @ v))))


def test_models_that_cannot_take_a_transform_are_refused():
    """Nothing has changed afterwards."""
    batch = batch_of("tokens 8")
    model = Plain()
    model.blocks = nn.Sequential(Products(8), Products(8))
    before = list(model.parameters())
    with pytest.raises(ValueError, match="does not call torch"):
        multiplex(model, 0.9, transforms=Transforms(mixes=True), batches=[batch])
    with pytest.raises(ValueError, match="gives what is added to the block"):
        multiplex(model, 0.9, transforms=Transforms(kernel=3), batches=[batch])
    with pytest.raises(ValueError, match="batches: expected one at least"):
        multiplex(model, 0.9, transforms=Transforms(kernel=3))
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(ValueError, match="are no square map, prefix or not"):
        multiplex(NoMap(), 0.9, transforms=Transforms(kernel=3), batches=[batch[:, :3]])


def test_settings_out_of_range_are_named():
    """One message for each."""
    model, _ = plain()
    for settings, message in [
        ({}, "budget: expected either a budget or a plan"),
        ({"budget": 0}, "budget: expected a share or a number above 0, got 0"),
        ({"budget": 0.5, "by": "size"}, "by: expected even or sensitivity, got 'size'"),
        ({"budget": 0.5, "start": "last"}, "start: expected first, mean or data, got 'last'"),
        ({"budget": 0.5, "start": "data"}, "batches: expected some for start data, got none"),
        ({"budget": 0.1}, "budget: expected at least 723 parameters, the smallest choice; got 242"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            multiplex(model, **settings)
    # 568 + 4 * 32 + 27 = 723 numbers are the least, and can be had.
    multiplex(model, 723)
    assert num_unique_parameters(model) == 723
    with pytest.raises(ValueError, match="expected one that is not multiplexed"):
        multiplex(model, 0.5)
    for settings, message in [
        ({"kernel": 2}, "kernel: expected 0 or an odd number above it, got 2"),
        ({"rank": -1}, "rank: expected at least 0, got -1"),
        ({"delta": "svd"}, "delta: expected fit or zero, got 'svd'"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            Transforms(**settings)
