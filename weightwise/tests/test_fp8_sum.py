"""Sums of 8-bit gradients: mu, simulated processes, whole-tensor partitions, estimates."""

import itertools
from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.distributed import AutoScale, greedy_partition
from weightwise.distributed.fp8_sum import layout_of, pieces_of, simulated_sum
from weightwise.fp8 import Layout
from weightwise.numerics.scaled_tensor import amax_of
from weightwise.numerics.stored import power_of_two_scale, quantize

E4M3 = torch.float8_e4m3fn


def gradients(num_processes, count=20_000):
    """Log-normal entries with a mean that all processes share."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(count, generator=generator) * torch.exp(
        torch.randn(count, generator=generator)
    )
    noise = torch.randn(num_processes, count, generator=generator)
    return mean + noise * mean.abs()


def decibels(num_processes, arithmetic, mu):
    """Signal over error of the mean."""
    g_NE = gradients(num_processes)
    scale = power_of_two_scale(amax_of(g_NE), 448.0) * mu
    codes = torch.stack([quantize(g_E, E4M3, scale) for g_E in g_NE])
    total, _ = simulated_sum(codes, arithmetic)
    exact = g_NE.double().mean(0)
    error = total.double() / scale / num_processes - exact
    return 10 * torch.log10(exact.square().sum() / error.square().sum()).item()


@pytest.mark.parametrize("size", [2, 8, 128])
def test_one_rounding_keeps_the_signal(size):
    """At least 28 dB whatever the number of processes; rounding at every hop loses most of it."""
    exact = decibels(size, "exact", 1.0)
    assert exact >= 28
    assert exact > decibels(size, "ring", 1 / size)
    if size == 128:
        assert decibels(size, "ring", 1 / sqrt(size)) < 12


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 8, 1024])
def test_exact_sums_are_better_than_scaling_before_or_after(size):
    """Division by N before the sum loses small entries, afterwards large ones."""
    ours = decibels(size, "exact", 1.0)
    assert ours >= decibels(size, "shared", 1 / size) - 0.1
    assert ours >= decibels(size, "shared", 1.0) - 0.1
    assert ours > min(decibels(size, "shared", 1 / size), decibels(size, "shared", 1.0)) + 1


def test_mu_halves_on_overflow_and_doubles_in_a_thousand_steps():
    """From 1/sqrt(N), between 1/N and 1, looked at every tenth step."""
    scaler = AutoScale(2, 16)
    assert scaler.mu.tolist() == [0.25, 0.25]
    for _ in range(1000):
        scaler.update(torch.tensor([0.0, 1e-5]) if scaler.is_due() else None)
    torch.testing.assert_close(scaler.mu, torch.tensor([0.5, 0.5]))
    scaler.update(torch.tensor([2e-5, 0.0]))
    assert scaler.mu[0] == pytest.approx(0.25, rel=1e-5)
    for _ in range(200):
        scaler.update(torch.tensor([1.0, 0.0]) if scaler.is_due() else None)
    assert scaler.mu[0] == 1 / 16
    again = AutoScale(2, 4)
    again.load_state_dict(scaler.state_dict())
    assert again.mu[0] == 1 / 4
    assert again.step == scaler.step


@pytest.mark.parametrize(("scaling", "mu"), [("pre", 1 / 9), ("post", 1.0), ("sqrt", 1 / 3)])
def test_constant_factors_stay(scaling, mu):
    """Whatever the sums are."""
    scaler = AutoScale(1, 9, scaling)
    for _ in range(30):
        scaler.update(None)
    assert scaler.mu.item() == pytest.approx(mu)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1, 0), "num_processes"), ((1, 2, "auto", 0), "interval"), ((1, 2, "never"), "scaling")],
)
def test_settings_out_of_range_are_refused(arguments, message):
    """The message names the field."""
    with pytest.raises(ValueError, match=message):
        AutoScale(*arguments)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=10), st.integers(1, 7))
def test_pieces_cover_all_tensors_once(sizes, num_processes):
    """Every element of every tensor lies in exactly one part."""
    layout = layout_of(sizes, num_processes)
    part = layout.num_elements // num_processes
    assert part * num_processes == layout.num_elements
    seen = [0] * len(sizes)
    for rank in range(num_processes):
        for number, where in pieces_of(layout, rank * part, (rank + 1) * part):
            seen[number] += where.stop - where.start
    assert seen == sizes


@given(st.lists(st.integers(1, 100), min_size=1, max_size=9), st.integers(1, 4))
def test_the_greedy_partition_keeps_its_bound(sizes, num_parts):
    """Within 4/3 - 1/(3N) of the best of all partitions, and within the largest tensor of even."""
    owner = greedy_partition(sizes, num_parts)
    loads = [sum(s for s, o in zip(sizes, owner, strict=True) if o == p) for p in range(num_parts)]
    assert sum(loads) == sum(sizes)
    assert max(loads) - min(loads) <= max(sizes)
    if num_parts ** len(sizes) <= 1024:
        best = min(
            max(sum(s for s, o in zip(sizes, owners, strict=True) if o == p)
                for p in range(num_parts))
            for owners in itertools.product(range(num_parts), repeat=len(sizes))
        )  # fmt: skip
        assert max(loads) <= best * (4 / 3 - 1 / (3 * num_parts)) + 1e-9


def test_a_real_model_is_spread_evenly():
    """The linear weights of GPT-7B over 32 processes: no more than 2 % above the mean."""
    d = 4096
    sizes = [3 * d * d, d * d, 4 * d * d, 4 * d * d] * 32
    owner = greedy_partition(sizes, 32)
    loads = [sum(s for s, o in zip(sizes, owner, strict=True) if o == p) for p in range(32)]
    assert max(loads) <= 1.02 * sum(sizes) / 32


PUBLISHED = {
    "7B": (Layout(layers=32, width=4096, data=32, micro_batch=2), (37.2, 13.9), None, (40.7, 15.4)),
    "13B": (
        Layout(layers=40, width=5120, tensor=2, data=16, micro_batch=2), (34.3, 12.4), (4.7, 3.1),
        (41.2, 15.2),
    ),
    "175B": (
        Layout(layers=96, width=12288, tensor=8, pipeline=4, data=4), (23.4, 8.2), (5.9, 3.9),
        (46.9, 17.8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_estimates_are_the_published_tables(name):
    """Traffic of weights and activations (tables 5 and 7), and states as derived from them."""
    layout, weights, activations, states = PUBLISHED[name]
    for kind, index in (("bf16", 0), ("fp8", 1)):
        assert layout.weight_traffic_gib(kind) == pytest.approx(weights[index], abs=0.11)
        assert layout.state_gib(kind) == pytest.approx(states[index], abs=0.06)
        if activations:
            assert layout.activation_traffic_gib(kind) == pytest.approx(
                activations[index], abs=0.05
            )


@pytest.mark.parametrize(
    ("name", "gpus", "samples", "tflops"),
    [("7B", 32, 159.2, 445), ("13B", 32, 79.3, 420), ("175B", 128, 22.4, 386)],
)
def test_operations_are_those_of_the_published_speeds(name, gpus, samples, tflops):
    """Samples a second times operations of a sample: the TFLOPS of table 5."""
    found = samples * PUBLISHED[name][0].flops_per_sample() / gpus / 1e12
    assert found == pytest.approx(tflops, abs=0.6)


def test_impossible_layouts_are_refused():
    """The message names the field."""
    with pytest.raises(ValueError, match="tensor"):
        Layout(layers=1, width=1, tensor=0)
