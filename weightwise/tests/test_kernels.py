"""The compiled CPU path against the reference: same bits whatever the layout, type and threads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weightwise.numerics import (
    ScaledFormat,
    fake_quantize,
    kernels,
    parse,
    reference,
    round_to_format,
)
from weightwise.numerics.kernels import cpu, loops, team
from weightwise.numerics.philox import random_words

if TYPE_CHECKING:
    from collections.abc import Iterator

ELEMENTS = ["e0m3", "e1m1", "e2m0", "e2m1", "e3m2", "e4m3", "e4m3fn", "e5m2ieee", "e2m21", "e7m8"]
ELEMENTS += ["int4", "int8"]
SHARING = ["tensor", "channel", "1", "3", "16", "32", "64", "128"]
SCALES = ["", "/bfloat16", "/e4m3", "/e4m3-subnormal"]
SCALES += [f"/e8m0-{rule}" for rule in ("floor", "ceil", "even", "rceil")]
NAMES = st.builds("{}@{}{}".format, *map(st.sampled_from, (ELEMENTS, SHARING, SCALES)))
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
ROUNDINGS = st.sampled_from(["even", "away", "stochastic"])
LENGTHS = st.integers(1, 12) | st.sampled_from([16, 31, 32, 33, 100, 257])
SHAPES = st.lists(LENGTHS, min_size=1, max_size=3).map(tuple).filter(lambda s: prod(s) < 40_000)
SEEDS = st.integers(0, 2**64 - 1)


@dataclass(frozen=True)
class Case:
    """One call: a tensor of some layout, and the other arguments."""

    x: Tensor
    fmt: ScaledFormat
    axis: int
    rounding: str
    seed: int

    def fast(self, x: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """Result of the public function, which takes the compiled path."""
        return fake_quantize(
            self.x if x is None else x, self.fmt, axis=self.axis, rounding=self.rounding,
            seed=self.seed, non_finite="propagate", out=out,
        )  # type: ignore[arg-type] # fmt: skip

    def slow(self) -> Tensor:
        """Result of the reference."""
        x = self.x.contiguous()
        out = torch.empty_like(x)
        reference.quantize_into(
            x, out, self.fmt, self.axis, self.rounding, self.seed, "propagate"
        )  # type: ignore[arg-type] # fmt: skip
        return out


@st.composite
def numbers(draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random values of one of several kinds: their size, ties, zeros and largest magnitudes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["normal", "wide", "ties", "tiny", "huge"]))
    x = torch.randn(shape, generator=generator)
    if kind == "wide":
        x = x * 2.0 ** torch.randint(-60, 60, shape, generator=generator)
    elif kind == "ties":
        x = torch.randint(-48, 49, shape, generator=generator) / 8
    elif kind == "tiny":
        x = x * 2.0 ** torch.randint(-148, -110, shape, generator=generator)
    elif kind == "huge":
        x = x * 2.0**125
    largest = torch.finfo(dtype).max
    x = x.clamp(-largest, largest).to(dtype)
    zeros = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return torch.where(zeros, torch.zeros_like(x).copysign(x), x)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw tensors of up to three dimensions, as they lie, turned, with gaps, or repeated."""
    shape = draw(SHAPES)
    layout = draw(st.sampled_from(["plain", "turned", "gaps", "repeated"]))
    if layout == "repeated":
        repeated = draw(st.integers(0, len(shape) - 1))
        inner = tuple(1 if dim == repeated else n for dim, n in enumerate(shape))
        x = draw(numbers(inner, draw(DTYPES))).expand(shape)
    else:
        x = draw(numbers(shape, draw(DTYPES)))
    if layout == "turned":
        order = draw(st.permutations(range(len(shape))))
        back = sorted(range(len(order)), key=order.__getitem__)
        x = x.permute(order).contiguous().permute(back)
    elif layout == "gaps":
        wide = x.new_full([2 * n for n in shape], 7.0)
        part = wide[tuple(slice(draw(st.integers(0, 1)), None, 2) for _ in shape)]
        x = part.copy_(x)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return Case(x, ScaledFormat.parse(draw(NAMES)), axis, draw(ROUNDINGS), draw(SEEDS))


def assert_same_bits(a: Tensor, b: Tensor) -> None:
    """Compare values including the sign of zero; NaN equals NaN."""
    integer = torch.int32 if a.dtype == torch.float32 else torch.int16
    is_nan = a.isnan() & b.isnan()
    differs = (a.contiguous().view(integer) != b.contiguous().view(integer)) & ~is_nan
    assert not differs.any(), (int(differs.sum()), a[differs][:5], b[differs][:5])


@pytest.mark.slow
@settings(max_examples=300)
@given(cases())
def test_compiled_path_equals_the_reference(case: Case) -> None:
    """Any shape, layout, type, format and rounding gives the bits of the slow way."""
    assert kernels.choose(case.x, case.x, case.fmt) is cpu.quantize_into
    assert_same_bits(case.fast(), case.slow())


@settings(max_examples=100)
@given(cases(), st.data())
def test_targets_receive_the_same_bits(case: Case, data: st.DataObject) -> None:
    """Results go into any tensor of the right shape, or over the input, and nowhere else."""
    expected = case.slow()
    order = data.draw(st.permutations(range(case.x.dim())))
    back = sorted(range(len(order)), key=order.__getitem__)
    wide = case.x.new_full([2 * case.x.shape[dim] for dim in order], 7.0)
    out = wide[tuple(slice(None, None, 2) for _ in order)].permute(back)
    before = case.x.clone()
    assert case.fast(out=out) is out
    assert_same_bits(out, expected)
    assert_same_bits(case.x, before)
    assert int((wide != 7.0).sum()) <= out.numel()
    own = torch.empty_strided(case.x.shape, torch.empty_like(case.x).stride(), dtype=case.x.dtype)
    own.copy_(case.x)
    assert case.fast(own, out=own) is own
    assert_same_bits(own, expected)


@settings(max_examples=100)
@given(cases(), st.sampled_from([torch.inf, -torch.inf, torch.nan]), st.data())
def test_what_is_not_finite(case: Case, value: float, data: st.DataObject) -> None:
    """A group with it turns NaN and no other does; or it is refused with nothing written over."""
    x = case.x.clone()
    place = tuple(data.draw(st.integers(0, n - 1)) for n in x.shape)
    x[place] = value
    poisoned = Case(x, case.fmt, case.axis, case.rounding, case.seed)
    got = poisoned.fast()
    assert_same_bits(got, poisoned.slow())
    assert got[place].isnan()
    options = {"axis": case.axis, "rounding": case.rounding, "seed": case.seed}
    before = x.clone()
    for out in (None, torch.empty_like(x), x):
        with pytest.raises(ValueError, match="Expected finite x, got infinite or NaN elements"):
            fake_quantize(x, case.fmt, out=out, **options)  # type: ignore[arg-type]
    assert_same_bits(x, before)


@pytest.fixture
def thread_counts() -> Iterator[tuple[int, ...]]:
    """Numbers of threads to set; the number from before comes back."""
    before = torch.get_num_threads()
    yield (1, 2, 4)
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["even", "stochastic"])
@pytest.mark.parametrize("name", ["e4m3@tensor", "e2m1@channel", "e4m3@48", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_change_a_bit(
    name: str, rounding: str, dtype: torch.dtype, thread_counts: tuple[int, ...]
) -> None:
    """One, two and four threads share large tensors along rows, columns and the middle axis."""
    x = torch.randn(6, 173, 331, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert x.numel() > 2 * team.LEAST_SHARED
    for axis in (0, 1, 2):
        case = Case(x, ScaledFormat.parse(name), axis, rounding, 2**63 + 5)
        expected = case.slow()
        for count in thread_counts:
            torch.set_num_threads(count)
            assert_same_bits(case.fast(), expected)
            own = x.clone()
            assert_same_bits(case.fast(own, out=own), expected)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in plain whole numbers (Salmon et al., SC 2011)."""
    c, k, word = list(counter), list(key), 2**32
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b // word ^ c[1] ^ k[0], b % word, a // word ^ c[3] ^ k[1], a % word]
        k = [(k[0] + 0x9E3779B9) % word, (k[1] + 0xBB67AE85) % word]
    return c


def test_known_random_words() -> None:
    """The published answers of the generator, of which ours use counters of two words."""
    ones = 0xFFFFFFFF
    known = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([0] * 4, [0] * 2) == known
    assert philox([ones] * 4, [ones] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert random_words(0, torch.arange(4)).tolist() == known


@given(SEEDS, st.integers(0, 2**62))
def test_random_words(seed: int, position: int) -> None:
    """Both implementations give the words of the published generator at any seed and position."""
    keys = [seed % 2**32, seed // 2**32]
    counter = position // 4
    words = philox([counter % 2**32, counter // 2**32, 0, 0], keys)
    assert random_words(seed, torch.tensor(position)).item() == words[position % 4]
    assert loops.philox_word(position, *keys) == words[position % 4]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.77])
@pytest.mark.parametrize("name", ["e1m1@tensor", "e4m3@channel", "mxfp4", "nvfp4-subnormal"])
def test_stochastic_rounding_is_right_in_the_mean(name: str, share: float) -> None:
    """What lies a share of the way to the next level goes there that often, within five sigma."""
    levels = ScaledFormat.parse(name).element.levels(torch.float32)
    below, above = levels[:-1, None], levels[1:, None]
    x = (below + share * (above - below)).repeat(1, 4096)
    x[:, ::16] = levels[-1]  # in every group, so that the levels stay what they are
    for sign, seed in ((1, 3), (-1, 4)):
        got = sign * fake_quantize(sign * x, name, rounding="stochastic", seed=seed)
        steps = ((got - below) / (above - below))[:, torch.arange(4096) % 16 > 0]
        # Both scales of NVFP4 are rounded: levels come back but for a few ulp.
        assert (steps - steps.round()).abs().max() < 1e-5
        assert set(steps.round().unique().tolist()) == {0, 1}
        sigma = (share * (1 - share) / steps.shape[1]) ** 0.5
        assert (steps.mean(1) - share).abs().max() < 5 * sigma


def test_seeds_and_positions_alone_decide() -> None:
    """The same seed gives the same bits for any layout, other seeds and places give others."""
    x = torch.full((96, 64), 0.3)
    x[0, 0] = 6.0
    options = {"rounding": "stochastic", "seed": 9}
    first = fake_quantize(x, "e2m1@tensor", **options)  # type: ignore[arg-type]
    turned = fake_quantize(x.t().contiguous().t(), "e2m1@tensor", **options)  # type: ignore[arg-type]
    assert torch.equal(first, turned)
    part = fake_quantize(x[:, :32], "e2m1@tensor", **options)  # type: ignore[arg-type]
    assert torch.equal(part[0], first[0, :32])
    other = fake_quantize(x, "e2m1@tensor", rounding="stochastic", seed=9 + 2**32)
    assert 0.3 < (first != other).float().mean() < 0.6
    # 0.3 goes to 0.5 in six of ten cases, no matter what happens next to it.
    up = (first == 0.5).double()[1:]
    assert up.mean().item() == pytest.approx(0.6, abs=5 * 0.49 / up.numel() ** 0.5)
    neighbours = np.corrcoef(up[:, 1:].flatten(), up[:, :-1].flatten())[0, 1]
    assert abs(neighbours) < 5 / up.numel() ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_stays_resizable(dtype: torch.dtype) -> None:
    """Sharded training frees the memory of parameters in between: no array may hold on to it."""
    x = torch.randn(64, 64).to(dtype)
    out = torch.empty_like(x)
    for axis in (0, 1):
        fake_quantize(x, "mxfp4", axis=axis, out=out)
        fake_quantize(x, "e4m3@tensor", axis=axis, out=x)
    for tensor in (x, out):
        tensor.untyped_storage().resize_(0)
        assert tensor.untyped_storage().size() == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("offset", [0, 3])
def test_large_tensors_past_the_caches(num_threads: int, offset: int) -> None:
    """Results that stream to memory, and such that start between two lines, have the same bits."""
    x = torch.randn((1 << 23) + 100, generator=torch.Generator().manual_seed(0))[offset:]
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        out = torch.empty((1 << 23) + 100)[offset:]
        got = fake_quantize(x, "e4m3@tensor", out=out)
    finally:
        torch.set_num_threads(before)
    scale = (torch.tensor(480.0) / x.abs().max()).reshape(1)
    expected = round_to_format(x * scale, parse("e4m3")) / scale
    assert torch.equal(got.view(torch.int32), expected.view(torch.int32))


FORKING = """
import os, sys, torch
from weightwise.numerics import fake_quantize
torch.set_num_threads(2)
x = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
names = ("e4m3@32", "e2m1@channel", "e4m3@tensor", "nvfp4")
before = [fake_quantize(x, name, axis=axis) for name in names for axis in (0, 1)]
child = os.fork()
after = [fake_quantize(x, name, axis=axis) for name in names for axis in (0, 1)]
# torch itself waits for ever in a child of a process that ran it on several threads.
is_same = all((a.numpy() == b.numpy()).all() for a, b in zip(before, after))
if child == 0:
    os._exit(0 if is_same else 1)
status = os.waitpid(child, 0)[1]
sys.exit(0 if is_same and status == 0 else 1)
"""


@pytest.mark.slow
def test_forked_processes_quantize_on_their_own() -> None:
    """A child of a process that used several threads gets the same bits, and does not die."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_without_openmp_other_threads_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no team of OpenMP can be had the bits are the same."""
    x = torch.randn(600, 500, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for name in ("e4m3@32", "e2m1@channel", "e4m3@tensor", "mxfp4"):
            for axis in (0, 1):
                shared = fake_quantize(x, name, axis=axis)
                with monkeypatch.context() as patch:
                    patch.setattr(team, "is_ready", lambda _: False)
                    alone = fake_quantize(x, name, axis=axis)
                assert torch.equal(shared.view(torch.int32), alone.view(torch.int32))
    finally:
        torch.set_num_threads(before)
