"""Linear layers on 8-bit products: against torch's own 8-bit product, torchao and formulas."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from weightwise.numerics import Fp8Config, Fp8Linear, ScaledTensor, fp8_model, update_scales
from weightwise.numerics.fp8_linear import product
from weightwise.numerics.stored import power_of_two_scale

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


@pytest.mark.parametrize("shape", [(7, 13, 5), (64, 48, 32)])
@pytest.mark.parametrize("left", [E4M3, E5M2])
@pytest.mark.parametrize("right", [E4M3, E5M2])
def test_products_are_those_of_torch(shape, left, right):
    """``torch._scaled_mm`` on the same codes and scales, for any pair of types and any shape."""
    rows, inner, columns = shape
    a = ScaledTensor.of(torch.randn(rows, inner), left)
    b = ScaledTensor.of(torch.randn(columns, inner), right)
    wanted = torch._scaled_mm(
        a.payload, b.payload.t(), scale_a=1 / a.scale, scale_b=1 / b.scale,
        out_dtype=torch.float32,
    )  # fmt: skip
    torch.testing.assert_close(product(a, b, torch.float32, is_fast=True), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_three_products_are_the_formulas(dtype):
    """Output and both gradients, written out with the 8-bit operands."""
    layer = Fp8Linear(24, 16, dtype=dtype)
    x = torch.randn(2, 5, 24, dtype=dtype, requires_grad=True)
    dy = torch.randn(2, 5, 16, dtype=dtype)
    y = layer(x)
    y.backward(dy)
    x8 = ScaledTensor.of(x.detach().reshape(10, 24), E4M3).decode(torch.float32)
    w8 = ScaledTensor.of(layer.weight.detach(), E4M3).decode(torch.float32)
    dy8 = ScaledTensor.of(dy.reshape(10, 16), E5M2).decode(torch.float32)
    bias = layer.bias.detach()
    assert torch.equal(y.detach().reshape(10, 16), (x8 @ w8.t()).to(dtype) + bias)
    assert torch.equal(x.grad.reshape(10, 24), (dy8 @ w8).to(dtype))
    assert torch.equal(layer.weight.grad, (dy8.t() @ x8).to(dtype))
    assert torch.equal(layer.bias.grad, dy.reshape(10, 16).sum(0))


def test_gradients_are_as_good_as_those_of_torchao():
    """The same layer in torchao's 8 bits with powers of two: the same numbers."""
    torchao = pytest.importorskip("torchao.float8")
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(256, 128, bias=False))
    ours, theirs = (nn.Sequential(nn.Linear(256, 128, bias=False)) for _ in range(2))
    for one in (ours, theirs):
        one.load_state_dict(plain.state_dict())
    fp8_model(ours)
    config = torchao.Float8LinearConfig(
        round_scales_to_power_of_2=True, emulate=True, pad_inner_dim=False
    )
    torchao.convert_to_float8_training(theirs, config=config)
    x, goal = torch.randn(64, 256), torch.randn(64, 128)
    gradients = []
    for model in (plain, ours, theirs):
        (model(x) - goal).square().sum().backward()
        gradients.append(model[0].weight.grad)
    exact, mine, other = gradients
    error = [((one - exact).norm() / exact.norm()).item() for one in (mine, other)]
    assert error[0] <= error[1] * 1.02
    assert error[0] < 0.08


def test_delayed_scales_follow_the_window():
    """Current while the window fills, then of the largest in it; a bad step starts anew."""
    layer = Fp8Linear(8, 8, config=Fp8Config(scaling="delayed", window=3))
    model = nn.Sequential(layer)
    sizes = [1.0, 8.0, 2.0, 4.0, 1.0, 1.0, 1.0]
    for size in sizes:
        x = torch.full((4, 8), size, requires_grad=True)
        layer(x).sum().backward()
        update_scales(model)
    scaler = layer.input_scaler
    assert scaler.count == len(sizes)
    assert scaler.history.tolist() == [0.0, 1.0, 1.0]
    # The last amax beside an empty place: the window holds what came before the newest, too.
    assert scaler.scale == power_of_two_scale(torch.tensor(1.0), 448.0)
    saturated = layer.input_scaler.cast(torch.full((4, 8), 1000.0))
    assert saturated.decode().max() == 448 / scaler.scale
    layer(torch.full((4, 8), torch.inf))
    update_scales(model)
    assert scaler.count == 0
    copied = Fp8Linear(8, 8, config=layer.config)
    copied.load_state_dict(layer.state_dict())
    assert torch.equal(copied.input_scaler.history, scaler.history)


def test_evaluation_leaves_delayed_scales_alone():
    """Inputs in evaluation mode are not remembered."""
    layer = Fp8Linear(8, 8, config=Fp8Config(scaling="delayed", window=2)).eval()
    layer(torch.full((3, 8), 100.0))
    assert layer.input_scaler.history.tolist() == [0.0, 0.0]


def test_layers_that_saw_nothing_keep_their_scales():
    """Two layers, one of them used: the other's count stays."""
    config = Fp8Config(scaling="delayed", window=2)
    model = nn.ModuleList([Fp8Linear(8, 8, config=config) for _ in range(2)])
    model[0](torch.randn(3, 8)).sum().backward()
    update_scales(model)
    assert [layer.input_scaler.count.item() for layer in model] == [1, 0]


def test_models_are_swapped_in_place():
    """Heads and marked layers stay; parameters are the same objects; shared layers stay shared."""
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict(
        {"a": shared, "b": shared, "c": nn.Linear(4, 4, bias=False), "head": nn.Linear(4, 9)}
    )
    model["c"].use_fp32_linear = True
    weight = shared.weight
    assert fp8_model(model) == ["a", "b"]
    assert model["a"] is model["b"]
    assert model["a"].weight is weight
    assert type(model["head"]) is nn.Linear
    assert type(model["c"]) is nn.Linear
    assert set(model.state_dict()) == {
        "a.weight", "a.bias", "b.weight", "b.bias", "c.weight", "head.weight", "head.bias",
    }  # fmt: skip


def test_autocast_decides_the_type_of_the_output():
    """bfloat16 inside of autocast; gradients of float32 weights in float32."""
    layer = Fp8Linear(16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(3, 16))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_scaled_weights_take_part():
    """A float16 weight with a scale, and one that has 8 bits already."""
    layer = Fp8Linear(16, 16, bias=False)
    plain = layer.weight.detach().clone()
    x = torch.randn(5, 16)
    wanted = layer(x)
    for dtype in (torch.float16, E4M3):
        layer.weight = nn.Parameter(ScaledTensor.of(plain, dtype))
        torch.testing.assert_close(layer(x), wanted, rtol=0.07, atol=0.05)
        layer(x).sum().backward()
        assert layer.weight.grad.shape == (16, 16)
    torch.testing.assert_close(wanted, F.linear(x, plain), rtol=0.2, atol=0.2)


@pytest.mark.parametrize(
    ("settings", "field"), [({"window": 0}, "window"), ({"scaling": "slow"}, "scaling")]
)
def test_settings_out_of_range_are_refused(settings, field):
    """The message names the field."""
    with pytest.raises(ValueError, match=field):
        Fp8Config(**settings)
