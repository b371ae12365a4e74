"""Products of experts: every path against a loop over rows, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from weightwise.lm import MoEConfig
from weightwise.lm.expert_products import BlockAnswers, answers, grouped_answers
from weightwise.lm.experts import Experts
from weightwise.lm.products import is_fast, linear

WIDTH, HIDDEN = 8, 6


def stacks(num_experts: int, dtype: torch.dtype = torch.float64, *, scale: int = 1):
    """Weights of experts; widths times ``scale``."""
    generator = torch.Generator().manual_seed(num_experts)
    gate_up = torch.randn(num_experts, 2 * HIDDEN * scale, WIDTH * scale, generator=generator)
    down = torch.randn(num_experts, WIDTH * scale, HIDDEN * scale, generator=generator)
    return [(0.3 * weight).to(dtype).requires_grad_() for weight in (gate_up, down)]


def row_by_row(x_RD, gate_up, down, counts) -> torch.Tensor:
    """The definition, one row after the other."""
    experts = [expert for expert, count in enumerate(counts) for _ in range(count)]
    out = [torch.zeros(0, x_RD.shape[1], dtype=x_RD.dtype)]
    for x_D, expert in zip(x_RD, experts, strict=True):
        gate_F, up_F = (gate_up[expert] @ x_D).chunk(2)
        out.append((down[expert] @ (F.silu(gate_F) * up_F))[None])
    return torch.cat(out)


@given(
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    needs=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
@settings(max_examples=60, deadline=None)
def test_blocks_are_their_rows(counts, needs) -> None:
    """Answers and all gradients that are asked for; experts without rows have a gradient of 0."""
    generator = torch.Generator().manual_seed(sum(counts))
    x_RD = torch.randn(sum(counts), WIDTH, generator=generator, dtype=torch.float64)
    aim_RD = torch.randn(sum(counts), WIDTH, generator=generator, dtype=torch.float64)
    inputs = [x_RD, *stacks(len(counts))]
    inputs = [a.detach().requires_grad_(need) for a, need in zip(inputs, needs, strict=True)]
    got = answers(*inputs, torch.tensor(counts))
    expected = row_by_row(*inputs, counts)
    torch.testing.assert_close(got, expected)
    with torch.no_grad():
        torch.testing.assert_close(answers(*inputs, torch.tensor(counts)), expected)
    wanted = [a for a, need in zip(inputs, needs, strict=True) if need]
    if wanted and sum(counts):
        found = torch.autograd.grad((got * aim_RD).sum(), wanted)
        torch.testing.assert_close(found, torch.autograd.grad((expected * aim_RD).sum(), wanted))
        assert all(gradient.is_contiguous() for gradient in found)


def test_gradient_is_the_slope() -> None:
    """Finite differences agree, with an expert that has nothing to do."""
    x_RD = torch.randn(6, WIDTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *inputs: BlockAnswers.apply(*inputs, [1, 0, 3, 2]), (x_RD, *stacks(4))
    )


@given(
    seed=st.integers(0, 2**31),
    num_tokens=st.integers(1, 20),
    num_experts=st.integers(1, 5),
    top_k=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_tokens_get_what_their_experts_say(seed, num_tokens, num_experts, top_k) -> None:
    """The layer against the sum over a token's experts; an expert E says nothing."""
    torch.manual_seed(seed)
    layer = Experts(MoEConfig(hidden=HIDDEN, num_experts=max(2, num_experts)), WIDTH).double()
    num_experts = len(layer.down)
    x_TD = torch.randn(num_tokens, WIDTH, dtype=torch.float64, requires_grad=True)
    expert_TK = torch.randint(num_experts + 1, (num_tokens, top_k))
    weight_TK = torch.rand(num_tokens, top_k, requires_grad=True)
    parts = [torch.zeros(num_tokens, WIDTH, dtype=torch.float64)]
    for t, k in torch.cartesian_prod(torch.arange(num_tokens), torch.arange(top_k)).tolist():
        expert = int(expert_TK[t, k])
        if expert < num_experts:
            one = [int(expert == e) for e in range(num_experts)]
            part = torch.zeros_like(parts[0]).index_put(
                (torch.tensor([t]),),
                weight_TK[t, k] * row_by_row(x_TD[t : t + 1], layer.gate_up, layer.down, one),
            )
            parts.append(part)
    expected = torch.stack(parts).sum(0)
    got = layer(x_TD, expert_TK, weight_TK)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(layer(x_TD, expert_TK, weight_TK), got, rtol=1e-6, atol=1e-9)
    inputs = [x_TD, weight_TK, *layer.parameters()]
    if (expert_TK < num_experts).any():
        found = torch.autograd.grad(got.square().sum(), inputs)
        wanted = torch.autograd.grad(expected.square().sum(), inputs)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("is_autocast", [False, True])
def test_bfloat16_is_float32_rounded(is_autocast: bool) -> None:
    """Weights in bfloat16, or float32 ones under autocast: within 2 % of float32, in their type."""
    counts = [5, 0, 40, 19]
    plain = stacks(4, torch.float32, scale=4)
    x_RD = torch.randn(64, 4 * WIDTH, generator=torch.Generator().manual_seed(0))
    dtype = torch.float32 if is_autocast else torch.bfloat16
    rounded = [weight.detach().to(dtype).requires_grad_() for weight in plain]
    found = []
    for weights, low in ((plain, False), (rounded, True)):
        x = x_RD.to(weights[0].dtype).detach().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_autocast and low):
            answer_RD = answers(x, *weights, torch.tensor(counts))
        assert answer_RD.dtype == (torch.bfloat16 if low else torch.float32)
        answer_RD.float().square().sum().backward()
        assert [a.grad.dtype for a in (x, *weights)] == [a.dtype for a in (x, *weights)]
        found.append([answer_RD.float(), *(a.grad.float() for a in (x, *weights))])
    for exact, low in zip(*found, strict=True):
        assert (low - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("is_autocast", [False, True])
def test_recomputed_activations_give_the_same_gradient(is_autocast: bool) -> None:
    """Bit for bit, and with nothing kept from the forward pass but the input."""
    x_RD = torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(0))
    gradients = []
    for recompute in (False, True):
        weights = stacks(3, torch.float32)
        inputs = (x_RD.clone().requires_grad_(), *weights, torch.tensor([4, 0, 5]))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_autocast):
            got = checkpoint(answers, *inputs, use_reentrant=False) if recompute else None
            answer_RD = answers(*inputs) if got is None else got
        answer_RD.float().square().sum().backward()
        gradients.append([a.grad for a in inputs[:3]])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_one_tensor_takes_the_gradient_of_a_stack() -> None:
    """Between the forward and the end of the backward pass only one gradient per stack is made."""
    num_experts = 64
    weights = stacks(num_experts, torch.float32, scale=8)
    x_RD = torch.randn(2 * num_experts, 8 * WIDTH, requires_grad=True)
    answer_RD = answers(x_RD, *weights, torch.full((num_experts,), 2))
    with torch.profiler.profile(profile_memory=True) as profile:
        answer_RD.sum().backward()
    taken = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
    assert sum(weight.nbytes for weight in weights) < taken
    assert taken < 1.5 * sum(weight.nbytes for weight in weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_products_are_the_same(dtype: torch.dtype) -> None:
    """What GPUs do, tried on a CPU: answers and gradients of the blocks."""
    x_RD = torch.randn(31, 4 * WIDTH, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([7, 0, 16, 8])
    found = []
    for way in (answers, grouped_answers):
        weights = stacks(4, torch.float32, scale=4)
        x = x_RD.to(dtype).detach().requires_grad_()
        answer_RD = way(x, *weights, counts)
        answer_RD.float().square().sum().backward()
        found.append([answer_RD.float(), *(a.grad.float() for a in (x, *weights))])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < (1e-5 if dtype == torch.float32 else 0.02) * ours.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_experts_on_a_gpu_under_autocast() -> None:
    """The layer in bfloat16 on a GPU is within 2 % of the same on the CPU, gradients too."""
    torch.manual_seed(0)
    layer = Experts(MoEConfig(hidden=64, num_experts=4), 64)
    x_TD, weight_T1 = torch.randn(40, 64), torch.rand(40, 1)
    expert_T1 = torch.randint(5, (40, 1))
    found = []
    for device in ("cpu", "cuda"):
        layer = layer.to(device)
        layer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            out_TD = layer(x_TD.to(device), expert_T1.to(device), weight_T1.to(device))
        out_TD.float().square().sum().backward()
        found.append([a.float().cpu() for a in (out_TD, layer.gate_up.grad, layer.down.grad)])
    for exact, low in zip(*found, strict=True):
        assert (low - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("counts", [[1, 0, 0], [3, 0, 5], [0, 8, 9], [40, 1, 0]])
def test_large_experts_take_faster_ways(counts: list[int], num_threads: int) -> None:
    """Few rows and many: the same as in float64, with widths that are no multiple of 4."""
    generator = torch.Generator().manual_seed(0)
    gate_up = torch.randn(3, 2 * 251, 301, generator=generator) / 17
    down = torch.randn(3, 301, 251, generator=generator) / 16
    x_RD = torch.randn(sum(counts), 301, generator=generator)
    assert is_fast(x_RD, gate_up)
    inputs = [a.requires_grad_() for a in (x_RD, gate_up, down)]
    exact = [a.detach().double().requires_grad_() for a in inputs]
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with torch.no_grad():
            few_RD = answers(*inputs, torch.tensor(counts))
        answer_RD = answers(*inputs, torch.tensor(counts))
        found = torch.autograd.grad(answer_RD.square().sum(), inputs)
    finally:
        torch.set_num_threads(before)
    expected = row_by_row(*exact, counts)
    torch.testing.assert_close(few_RD, expected.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer_RD, expected.float(), rtol=1e-4, atol=1e-5)
    for got, wanted in zip(found, torch.autograd.grad(expected.square().sum(), exact), strict=True):
        assert (got - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize("num_tokens", [1, 5, 33])
def test_large_projections_are_plain_ones(num_tokens: int) -> None:
    """`linear` against torch's own: answers and gradients, with and without a record of them."""
    generator = torch.Generator().manual_seed(0)
    weight_NK = torch.randn(515, 300, generator=generator).requires_grad_()
    x_BTK = torch.randn(2, num_tokens, 300, generator=generator).transpose(0, 1).requires_grad_()
    for is_recorded in (False, True):
        with torch.set_grad_enabled(is_recorded):
            got, expected = linear(x_BTK, weight_NK), F.linear(x_BTK, weight_NK)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    found = torch.autograd.grad(got.square().sum(), (x_BTK, weight_NK))
    wanted = torch.autograd.grad(expected.square().sum(), (x_BTK, weight_NK))
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()
