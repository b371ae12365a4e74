"""The GPU kernels against the reference, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from weightwise.numerics import ScaledFormat, kernels, philox, reference

if TYPE_CHECKING:
    from torch import Tensor

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from weightwise.numerics.kernels import constants, gpu, tiles  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Infinities are divided and multiplied on purpose; numpy, in the interpreter, remarks on it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.usefixtures("bfloat16_of_gpus"),
]
runs = pytest.mark.skipif(
    DEVICE == "cpu" and not IS_INTERPRETED, reason="no GPU; runs in the interpreter, see the first"
)
compiles = pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")

NAMES = [
    "e4m3@tensor", "e4m3@channel", "e2m1@32", "e3m2@16/bfloat16", "e2m0@7", "e7m8@3", "int8@1",
    "e5m21@channel/bfloat16", "mxfp4", "mxfp6_e3m2-ceil", "mxfp8-even", "mxint8-rceil",
    "e0m3@5/e8m0-even", "e1m2@tensor/e8m0", "nvfp4", "nvfp4-subnormal", "e2m1@channel/e4m3",
]  # fmt: skip
PLACES = [((6, 64), -1), ((40, 6), 0), ((3, 37, 5), 1), ((33,), 0)]
BIG_SEED = 2**63 + 12345


def both(
    x: Tensor, name: str, axis: int = -1, rounding: Any = "even", non_finite: Any = "propagate"
) -> tuple[Tensor, Tensor]:
    """What the reference and the GPU make of a tensor."""
    expected, got = torch.empty_like(x), torch.empty_like(x)
    fmt = ScaledFormat.parse(name)
    reference.quantize_into(x, expected, fmt, axis, rounding, BIG_SEED, non_finite)
    gpu.quantize_into(x, got, fmt, axis, rounding, BIG_SEED, non_finite)
    return expected, got


def assert_same_bits(expected: Tensor, got: Tensor) -> None:
    """Compare values including the sign of zero; one NaN is as good as another."""
    integer = torch.int32 if expected.dtype == torch.float32 else torch.int16
    same = (expected.view(integer) == got.view(integer)) | (expected.isnan() & got.isnan())
    assert same.all(), (expected[~same][:3], got[~same][:3])


def spread_out(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Random numbers of very different magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return (x * torch.exp(3 * torch.randn(shape, generator=generator))).to(DEVICE)


@compiles
@pytest.mark.skipif(DEVICE == "cuda", reason="runs on the GPU itself")
@pytest.mark.slow
def test_all_of_this_in_the_interpreter(said_in_the_interpreter: str) -> None:
    """Without a GPU the tests below pass in Triton's interpreter, in a process of their own."""
    assert re.search(r"\d\d passed", said_in_the_interpreter), said_in_the_interpreter


@runs
@pytest.mark.parametrize("rounding", ["even", "away", "stochastic"])
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_as_the_reference(name: str, rounding: str) -> None:
    """Every kind of scale, rounding, dtype, axis and ragged block gives the reference's bits."""
    scalar = [((), 0)] if "@tensor" in name else []  # without an axis there is one group
    for shape, axis in [*PLACES, *scalar]:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            assert_same_bits(*both(spread_out(shape).to(dtype), name, axis, rounding))


@runs
@pytest.mark.parametrize("rounding", ["even", "stochastic"])
@pytest.mark.parametrize("name", ["e4m3@tensor", "e4m3@channel", "mxint8", "e3m2@9000", "nvfp4"])
def test_groups_longer_than_a_tile(name: str, rounding: str) -> None:
    """Groups cut into several tiles, along memory and across it, are scaled as one."""
    for shape, axis in [((2, 20000), 1), ((9001, 5), 0), ((2, 9002, 3), 1)]:
        assert_same_bits(*both(spread_out(shape), name, axis, rounding))


@runs
def test_positions_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels for huge tensors, compiled for small ones, give the same bits."""
    monkeypatch.setattr(gpu, "WIDE", 0)
    for shape, axis in PLACES:
        assert_same_bits(*both(spread_out(shape), "nvfp4", axis, "stochastic"))
        assert_same_bits(*both(spread_out(shape), "e4m3@7", axis))


@triton.jit
def words_at(out_ptr, seed, start, IN_FOURS: tl.constexpr, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store the random words of neighbouring positions."""
    lanes = tl.arange(0, COUNT)[None, :]
    words = tiles.random_words(seed, start + lanes.to(tl.int64), IN_FOURS, 1, COUNT, True)
    tl.store(out_ptr + lanes, words.to(tl.int64))


@runs
@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, BIG_SEED])
@pytest.mark.parametrize("in_fours", [True, False])
def test_random_words_beyond_32_bits(seed: int, in_fours: bool) -> None:
    """Random bits of positions beyond 2^34, whose counters need two words, are the reference's."""
    start, count = 2**35 + 2**34 + 8, 64
    got = torch.empty(count, dtype=torch.int64, device=DEVICE)
    words_at[(1,)](got, seed, start, IN_FOURS=in_fours, COUNT=count)
    positions = torch.arange(start, start + count)
    assert torch.equal(got.cpu(), philox.random_words(seed, positions))


@runs
@pytest.mark.parametrize("name", ["e4m3@channel", "e2m1@16/bfloat16", "mxfp4", "nvfp4", "int8@4"])
def test_extreme_magnitudes(name: str) -> None:
    """Zeros, subnormal numbers and the largest ones give the reference's bits."""
    large, tiny = 3.4e38, 1e-45
    rows = [[0.0, -0.0], [tiny, -0.0], [3e-39, -1e-39], [1e-37, 9e-38], [large, -1.0], [1, -large]]
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.tensor(rows, device=DEVICE).to(dtype)
        x = x[x.isfinite().all(dim=1)].repeat(1, 9)
        assert_same_bits(*both(x, name))
        for row in x:
            assert_same_bits(*both(row, name))


@runs
@pytest.mark.parametrize("name", ["e4m3@tensor", "e4m3@channel", "e2m1@4", "mxfp4-rceil", "nvfp4"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_groups_that_are_not_finite(name: str, value: float) -> None:
    """They become NaN and leave the others alone, or are refused; in place, before all else."""
    for shape in [(3, 50), (3, 20000)]:
        x = spread_out(shape)
        x[1, 33] = -value
        expected, got = both(x, name)
        assert_same_bits(expected, got)
        assert got[1, 33].isnan()
        with pytest.raises(ValueError, match="Expected finite x"):
            both(x, name, non_finite="raise")
        before, fmt = x.clone(), ScaledFormat.parse(name)
        with pytest.raises(ValueError, match="Expected finite x"):
            gpu.quantize_into(x, x, fmt, -1, "even", 0, "raise")
        assert_same_bits(before, x)
        x[1, 33] = 1.0
        assert_same_bits(*both(x, name, non_finite="raise"))


@runs
@pytest.mark.parametrize("rounding", ["even", "stochastic"])
@pytest.mark.parametrize("name", ["e4m3@tensor", "e4m3@channel", "mxfp4", "nvfp4"])
def test_strides_do_not_matter(name: str, rounding: Any) -> None:
    """Turned tensors, views with gaps, and work in place give the bits of a dense tensor."""
    x, fmt = spread_out((6, 7, 40)), ScaledFormat.parse(name)
    for axis in range(3):
        expected = torch.empty_like(x)
        reference.quantize_into(x, expected, fmt, axis, rounding, BIG_SEED, "raise")
        gapped = torch.zeros(12, 14, 80, device=DEVICE)[::2, ::2, ::2]
        turned = torch.empty(40, 7, 6, device=DEVICE).permute(2, 1, 0)
        for target in (gapped, turned):
            target.copy_(x)
            gpu.quantize_into(target, target, fmt, axis, rounding, BIG_SEED, "raise")
            assert_same_bits(expected, target)
            target.zero_()
            gpu.quantize_into(x, target, fmt, axis, rounding, BIG_SEED, "raise")
            assert_same_bits(expected, target)


@compiles
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_the_path_of_tensors_on_a_gpu() -> None:
    """Tensors on a GPU take its kernels, except the formats that need float64."""
    x = torch.ones(4, device="cuda")
    assert kernels.choose(x, x, ScaledFormat.parse("e4m3@32")) is gpu.quantize_into
    assert kernels.choose(x, x, ScaledFormat.parse("bf16")) is None


def machine_code(name: str, rounding: Any, shape: tuple[int, int, int], dtype: str) -> str:
    """Assembler text of the rounding kernel for GPUs of compute capability 9.0."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    fmt = ScaledFormat.parse(name)
    c = constants.constants_of(fmt, rounding)
    tiling = gpu.Tiling.of(shape, fmt.scaling.block_size or shape[1])
    options = gpu.options_of(tiling, c, is_checked=True)
    compiler = {key: options.pop(key) for key in list(options) if key.islower()}
    types = dict.fromkeys(tiles.quantize_tiles.arg_names, "i32")
    types |= dict.fromkeys(options, "constexpr") | {"limit": "fp32", "least": "fp32"}
    types |= {"seed": "i64", "tops_ptr": "*i32", "worst_ptr": "*i32"}
    types |= {"x_ptr": f"*{dtype}", "out_ptr": f"*{dtype}"}
    source = ASTSource(tiles.quantize_tiles, types, constexprs=options)
    target = GPUTarget("cuda", 90, 32)
    return str(triton.compile(source, target=target, options=compiler).asm["ptx"])


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["even", "away", "stochastic"])
@pytest.mark.parametrize("name", NAMES)
def test_compiled_code_rounds_as_written(name: str, rounding: str) -> None:
    """Machine code for GPUs fuses no product with a sum, divides correctly, keeps subnormals."""
    whole, cut = ((64, 32, 1), "bf16"), ((1, 20000, 6), "fp32")
    for shape, dtype in [whole, cut] if rounding == "even" else [whole]:
        code = machine_code(name, rounding, shape, dtype)
        # Correct division is an instruction of its own, div.rn.
        assert not re.search(r"\b(fma|mad)\.\S*f32|div\.(full|approx)|rcp\.|\.ftz", code)
        assert "mul.rn.f32" in code
        if rounding == "even":
            assert re.search(r"add\.(rn\.)?f32", code)
        if dtype == "bf16":
            assert "cvt.rn.bf16" in code
