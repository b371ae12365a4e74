"""`prepare`: any model, two lines; settings and moments taken over; misuse refused."""

import pytest
import torch
from torch import nn

from weightwise.fp8 import Fp8Training, ZeroAdamW8, clip_grad_norm_, prepare
from weightwise.numerics import Fp8Config, Fp8Linear, ScaledTensor
from weightwise.optim import AdamW8

BYTES = {"O1": 11, "O2": 6}


def model_of():
    """Two linear layers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128, bias=False), nn.GELU(), nn.Linear(128, 64, bias=False))


def step(model, optimizer, seed=0):
    """A step on random input; its loss."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 64, generator=generator)
    loss = (model(x) - x.flip(1)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(model, optimizer, 1.0)
    optimizer.step()
    return loss.item()


def size_of(x):
    """Bytes of elements."""
    return x.payload.nbytes if isinstance(x, ScaledTensor) else x.nbytes


@pytest.mark.parametrize("level", BYTES)
def test_bytes_of_a_weight_are_those_of_the_level(level):
    """Weight, gradient and moments in live buffers after a step: 11 or 6 of 16."""
    model, optimizer = _prepared(level)
    step(model, optimizer)
    count = sum(one.numel() for one in model.parameters())
    held = [x for one in model.parameters() for x in (one, one.grad)]
    held += [x for state in optimizer.state.values() for x in state.values() if x.dim()]
    assert sum(map(size_of, held)) == BYTES[level] * count


def _prepared(level):
    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    return prepare(model, optimizer, level)


def test_the_third_level_has_two_bytes_and_a_share():
    """Alone, its share of masters and moments is all of them: 2 + 5 bytes."""
    model, optimizer = _prepared("O3")
    assert isinstance(optimizer, ZeroAdamW8)
    step(model, optimizer)
    count = sum(one.numel() for one in model.parameters())
    held = [*model.parameters(), *optimizer.whole.masters.values()]
    held += [x for state in optimizer.state.values() for x in state.values() if x.dim()]
    assert sum(map(size_of, held)) == 6 * count  # and a byte of the gradient until it is sent


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
@pytest.mark.parametrize("scaling", ["current", "delayed"])
def test_levels_learn_like_float32(level, scaling):
    """The loss after 40 steps within 3 %."""
    plain = model_of()
    reference = torch.optim.AdamW(plain.parameters(), lr=3e-3, weight_decay=0.0)
    linear = Fp8Config(scaling=scaling, window=4)
    model, optimizer = _prepared(Fp8Training(level=level, linear=linear))
    for seed in range(40):
        wanted, found = step(plain, reference, seed), step(model, optimizer, seed)
    assert found == pytest.approx(wanted, rel=0.03)
    assert wanted < 0.9


@pytest.mark.parametrize("weight", ["float32", "bfloat16", "float16", "e4m3"])
@pytest.mark.parametrize("gradient", ["float32", "e5m2"])
@pytest.mark.parametrize(("first", "second"), [("e5m2", "bfloat16"), ("float16", "e4m3")])
def test_every_combination_trains(weight, gradient, first, second):
    """Weights, gradients and moments in any types, with and without 8-bit products: losses fall."""
    for products in (True, False):
        model, optimizer = _prepared(
            Fp8Training(
                weight=weight, gradient=gradient, exp_avg=first, exp_avg_sq=second,
                products=products,
            )
        )  # fmt: skip
        losses = [step(model, optimizer, seed) for seed in range(25)]
        assert losses[-1] < 0.95 * losses[0]


def test_the_third_level_has_one_form():
    """Weights and gradients of O3 are what they are; the message names the field."""
    with pytest.raises(ValueError, match="weight: expected float16 with level O3, got e4m3"):
        Fp8Training(level="O3", weight="e4m3")


def test_accumulated_gradients_are_the_sum():
    """Two passes of half a batch are one of the whole, within roundings of 8 bits."""
    model, optimizer = _prepared("O2")
    x = torch.randn(32, 64)
    model(x).square().sum().backward()
    whole = model[0].weight.grad.decode()
    optimizer.zero_grad()
    for half in x.chunk(2):
        model(half).square().sum().backward()
    assert isinstance(model[0].weight.grad, ScaledTensor)
    error = (model[0].weight.grad.decode() - whole).norm() / whole.norm()
    assert error < 0.08


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_settings_and_moments_are_taken_over(level):
    """In the middle of a run: groups, rates and steps go on."""
    model = model_of()
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters(), "lr": 1e-2}, {"params": model[2].parameters()}],
        lr=3e-3, betas=(0.8, 0.9),
    )  # fmt: skip
    for seed in range(5):
        step(model, optimizer, seed)
    model, made = prepare(model, optimizer, level)
    assert [group["lr"] for group in made.param_groups] == [1e-2, 3e-3]
    assert all(group["betas"] == (0.8, 0.9) for group in made.param_groups)
    assert all(state["step"] == 5 for state in made.state.values())
    before = step(model, made, 4)
    assert step(model, made, 4) < before


def test_heads_and_other_parameters_keep_float32():
    """Skipped layers, biases and norms."""
    model = nn.ModuleDict({"a": nn.Linear(8, 8), "norm": nn.LayerNorm(8), "head": nn.Linear(8, 9)})
    model, _ = prepare(model, torch.optim.Adam(model.parameters()), "O2")
    assert isinstance(model["a"], Fp8Linear)
    kinds = {name: isinstance(one, ScaledTensor) for name, one in model.named_parameters()}
    assert [name for name, scaled in kinds.items() if scaled] == ["a.weight"]


@pytest.mark.parametrize("products", [True, False])
def test_layers_that_ask_for_float32_keep_it(products):
    """The mark counts whether products have 8 bits or not."""
    model = model_of()
    model[0].use_fp32_linear = True
    optimizer = torch.optim.AdamW(model.parameters())
    model, _ = prepare(model, optimizer, Fp8Training(products=products))
    assert [isinstance(model[i].weight, ScaledTensor) for i in (0, 2)] == [False, True]


def test_misuse_is_refused():
    """Unknown levels and optimizers, wrapped models, foreign parameters, nothing to change."""
    model = model_of()
    good = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match="level: expected one of O1, O2, O3, got 'O4'"):
        prepare(model, good, "O4")
    with pytest.raises(ValueError, match="optimizer: expected AdamW, Adam or AdamW8, got SGD"):
        prepare(model, torch.optim.SGD(model.parameters()), "O2")
    with pytest.raises(ValueError, match="optimizer: expected parameters of the model only"):
        prepare(model, torch.optim.AdamW(model_of().parameters()), "O2")
    with pytest.raises(ValueError, match="model: expected linear layers outside of skip"):
        prepare(model, good, "O2", skip=lambda _: True)
    with pytest.raises(ValueError, match="optimizer: expected amsgrad=False"):
        prepare(model, torch.optim.AdamW(model.parameters(), amsgrad=True), "O2")


def test_a_bad_gradient_changes_nothing_and_training_goes_on():
    """An infinite input: the step is skipped, the next one is made."""
    model, optimizer = _prepared("O2")
    step(model, optimizer)
    before = [one.detach() + 0.0 for one in model.parameters()]
    optimizer.zero_grad()
    model(torch.full((4, 64), torch.inf)).sum().backward()
    optimizer.step()
    assert optimizer.num_skipped == 1
    after = [one.detach() + 0.0 for one in model.parameters()]
    assert all(map(torch.equal, before, after))
    step(model, optimizer)
    assert optimizer.num_skipped == 1


def test_an_adamw8_may_be_prepared_too():
    """Its groups keep their settings; moments are those of the level."""
    model = model_of()
    model, made = prepare(model, AdamW8(model.parameters(), lr=1e-2, exp_avg="e5m2"), "O2")
    assert made.param_groups[0]["exp_avg"] == "e4m3"
    assert made.param_groups[0]["lr"] == 1e-2
