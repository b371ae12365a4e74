"""Stacks of matrices in 8 bits, and the experts that are made of them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.fp8 import prepare
from weightwise.lm import LanguageModel
from weightwise.lm.products import LEAST_ELEMENTS, linear
from weightwise.numerics import Fp8Linear, ScaledTensor
from weightwise.numerics.fp8_stack import Fp8Stack
from weightwise.recipes import moe

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def test_a_stack_of_one_is_a_linear_layer():
    """The same bits forwards and backwards."""
    layer = Fp8Linear(24, 40, bias=False)
    x = torch.randn(17, 24, requires_grad=True)
    y = layer(x)
    dy = torch.randn_like(y)
    wanted = (y, *torch.autograd.grad(y, (x, layer.weight), dy))
    stack = layer.weight.detach()[None].requires_grad_()
    y = Fp8Stack()(x, stack, [17])
    dx, d_stack = torch.autograd.grad(y, (x, stack), dy)
    for found, one in zip((y, dx, d_stack[0]), wanted, strict=True):
        assert torch.equal(found, one)


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    seed=st.integers(0, 1000),
    is_stored=st.booleans(),
)
def test_blocks_are_products_of_8_bit_numbers(counts, seed, is_stored):
    """Against float64 products of the operands cast by hand; empty blocks have no gradient."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(counts), 6, generator=generator, requires_grad=True)
    values = torch.randn(len(counts), 3, 6, generator=generator)
    stack = torch.nn.Parameter(ScaledTensor.of(values, E4M3) if is_stored else values)
    y = Fp8Stack()(x, stack, counts)
    dy = torch.randn(y.shape, generator=generator)
    dx, d_stack = torch.autograd.grad(y, (x, stack), dy)
    x8 = ScaledTensor.of(x.detach(), E4M3).decode().double().split(counts)
    w8 = ScaledTensor.of(values, E4M3).decode().double()
    dy8 = ScaledTensor.of(dy, E5M2).decode().double().split(counts)
    close = {"rtol": 1e-5, "atol": 1e-5, "check_dtype": False}
    blocks = list(zip(x8, w8, dy8, strict=True))
    torch.testing.assert_close(y, torch.cat([a @ w.T for a, w, _ in blocks]), **close)
    torch.testing.assert_close(dx, torch.cat([g @ w for _, w, g in blocks]), **close)
    torch.testing.assert_close(d_stack, torch.stack([g.T @ a for a, _, g in blocks]), **close)


def test_an_infinite_row_makes_all_answers_nan():
    """No 8-bit payload tells of it, so the step must be one that is left out."""
    x = torch.ones(2, 4)
    x[0, 0] = torch.inf
    assert Fp8Stack()(x, torch.ones(2, 3, 4), [1, 1]).isnan().all()


@pytest.mark.parametrize("rows", [3, 100])
def test_large_stored_weights_take_no_way_past_their_scale(rows):
    """The loops for large plain weights read memory; these are multiplied by their values."""
    values = torch.randn(LEAST_ELEMENTS // 256, 256)
    weight = ScaledTensor.of(values, torch.float16)
    x = torch.randn(rows, 256)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), x @ weight.decode().T, rtol=1e-4, atol=1e-4)


def losses(level):
    """A small mixture of experts for some steps on one batch; the model."""
    torch.manual_seed(0)
    config = replace(moe().model, num_layers=2, vocab_size=64)
    model = LanguageModel(config)
    model.initialize(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    if level:
        model, optimizer = prepare(model, optimizer, level)
    tokens = torch.randint(64, (2, 33))
    found = []
    for _ in range(12):
        logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found, model


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_experts_learn_in_8_bits(level):
    """Stacks have the level's types, and losses stay within 3 % of float32's."""
    plain, _ = losses(None)
    found, model = losses(level)
    assert found[-1] < 0.8 * found[0]
    assert found == pytest.approx(plain, rel=0.03)
    experts = next(one for name, one in model.named_modules() if name.endswith("experts"))
    kept = E4M3 if level == "O3" else torch.float16
    for weight in (experts.gate_up, experts.down):
        assert weight.payload.dtype == kept
        # With O3 they went to the owner and are gone.
        assert weight.grad is None if level == "O3" else weight.grad.payload.dtype == E4M3
    model.eval()
    with torch.no_grad():  # few rows take another way
        assert model(torch.randint(64, (1, 3))).isfinite().all()
