"""The compiled layer for a few tokens, and its inner loop, against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weightwise.lm import MoEConfig
from weightwise.lm.few_rows import products
from weightwise.lm.few_tokens import exp
from weightwise.lm.moe import MixtureOfExperts
from weightwise.lm.products import FEW_ROWS

HIDDEN, WIDTH = 251, 301  # no multiples of anything, and large enough for compiled code

pytestmark = pytest.mark.slow  # the first call compiles or loads for seconds


def layer_of(top_k: int, num_shared: int, num_experts: int = 5, **settings) -> MixtureOfExperts:
    """A layer with drawn weights."""
    torch.manual_seed(top_k)
    config = MoEConfig(
        hidden=HIDDEN, num_experts=num_experts, top_k=top_k, num_shared=num_shared, **settings
    )
    layer = MixtureOfExperts(config, WIDTH).eval()
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.06)
    return layer


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("num_shared", [0, 1, 2])
@pytest.mark.parametrize(("top_k", "renormalize"), [(1, None), (1, True), (3, None), (3, False)])
def test_one_call_is_the_layer(top_k, renormalize, num_shared, num_threads) -> None:
    """Answers, choices and losses are those of the parts, which have a gradient."""
    layer = layer_of(top_k, num_shared, renormalize=renormalize)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        for num_tokens in (1, 2, 7, 64):
            x_BTD = torch.randn(1, num_tokens, WIDTH)
            parts_BTD, parts = layer(x_BTD), layer.routing
            assert parts_BTD.requires_grad
            with torch.no_grad():
                assert layer._is_for_few(x_BTD[0])
                whole_BTD, whole = layer(x_BTD), layer.routing
                exact_BTD = layer.double()(x_BTD.double())
            layer.float()
            torch.testing.assert_close(whole_BTD, exact_BTD.float(), rtol=1e-4, atol=1e-5)
            assert torch.equal(whole.experts, parts.experts)
            assert torch.equal(whole.choices, parts.choices)
            for name in ("weights", "logits", "probabilities", "balance_loss", "z_loss"):
                torch.testing.assert_close(
                    getattr(whole, name), getattr(parts, name).detach(), rtol=1e-5, atol=1e-6
                )
            torch.testing.assert_close(whole_BTD, parts_BTD.detach(), rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_equal_scores_take_different_experts() -> None:
    """A token whose scores are all the same, or no numbers, still has ``top_k`` experts."""
    layer = layer_of(3, 1)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer(torch.randn(1, 2, WIDTH))
        assert layer.routing.experts.sort().values.tolist() == [[0, 1, 2]] * 2
        broken = torch.full((1, 2, WIDTH), torch.nan)
        assert layer(broken).isnan().all()
    assert all(len(set(row)) == 3 for row in layer.routing.experts.tolist())
    assert 0 <= int(layer.routing.experts.min()) <= int(layer.routing.experts.max()) < 5


def test_who_goes_another_way() -> None:
    """Hooks, capacities, other types of number: what only the parts do is not left out."""
    layer = layer_of(1, 1)
    x_TD = torch.randn(3, WIDTH)
    with torch.no_grad():
        assert layer._is_for_few(x_TD)
        assert not layer._is_for_few(torch.randn(65, WIDTH))
        assert not layer._is_for_few(x_TD.double())
        assert not layer._is_for_few(torch.randn(WIDTH, 3).T)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not layer._is_for_few(x_TD)
        for part in (layer.router, layer.experts, layer.shared, layer.shared.gate):
            handle = part.register_forward_hook(lambda *_: None)
            assert not layer._is_for_few(x_TD)
            handle.remove()
        assert layer._is_for_few(x_TD)
        limited = layer_of(1, 1, overflow="drop", min_capacity=1)
        assert limited._is_for_few(x_TD)
        assert not limited.train()._is_for_few(x_TD)
        assert not layer.bfloat16()._is_for_few(x_TD.bfloat16())
    assert not layer_of(1, 1)._is_for_few(x_TD)


@given(
    counts=st.lists(st.integers(0, 11), min_size=1, max_size=4),
    width=st.integers(1, 70),
    num_outs=st.integers(1, 11),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_products_are_exact_and_stay_in_their_place(counts, width, num_outs, seed) -> None:
    """All shapes of rest; what lies around matrices and rows changes nothing; rows stand alone."""
    generator = torch.Generator().manual_seed(seed)

    def within_nan(*shape: int) -> torch.Tensor:
        size = int(np.prod(shape))
        room = torch.full((size + 2 * 64,), torch.nan)
        inner = room[64 : 64 + size].view(shape)
        return inner.copy_(torch.randn(shape, generator=generator))

    x_RK, w_ENK = within_nan(sum(counts), width), within_nan(len(counts), num_outs, width)
    got = products(x_RK, w_ENK, counts)
    matrices = [m for m, count in enumerate(counts) for _ in range(count)]
    expected = torch.einsum("rk,rnk->rn", x_RK.double(), w_ENK.double()[matrices])
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-4)
    for row, matrix in enumerate(matrices):
        one = [int(matrix == m) for m in range(len(counts))]
        assert torch.equal(products(x_RK[row : row + 1], w_ENK, one)[0], got[row])


def test_a_token_is_answered_alike_in_any_company() -> None:
    """Bit for bit, alone and among others, up to the most rows of the compiled code."""
    layer = layer_of(2, 1)
    x_TD = torch.randn(FEW_ROWS, WIDTH)
    with torch.no_grad():
        together_TD = layer(x_TD)
        alone_TD = torch.cat([layer(x_D[None]) for x_D in x_TD])
    assert torch.equal(together_TD, alone_TD)


def test_exponential_function() -> None:
    """Within two units of the last place, clipped where results would be no normal numbers."""
    x_N = np.linspace(-87, 88, 40_001).astype(np.float32)
    found = np.array([exp(x) for x in x_N], np.float64)
    assert np.abs(found / np.exp(x_N.astype(np.float64)) - 1).max() < 2 * np.finfo(np.float32).eps
    assert exp(np.float32(-np.inf)) == exp(np.float32(-87))
    assert exp(np.float32(np.inf)) == exp(np.float32(88))
