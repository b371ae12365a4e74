"""The optimizer's kernels for GPUs, in Triton's interpreter where there is no GPU."""

import copy
import os
import re

import pytest
import torch

from weightwise.numerics import ScaledTensor
from weightwise.numerics.stored import LARGEST
from weightwise.optim import low_bit_step as steps
from weightwise.optim.low_bit_step import Settings, Slot, step_all

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
KINDS = [
    (torch.float16, E4M3, E4M3, torch.float16),
    (torch.float32, torch.float32, E4M3, torch.float16),
    (torch.float32, E5M2, E5M2, torch.bfloat16),
    (E4M3, torch.bfloat16, torch.float16, E5M2),
    (torch.bfloat16, torch.float16, E4M3, E4M3),
]
# Infinities are made on purpose; numpy, in the interpreter, remarks on it.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
runs = pytest.mark.skipif(
    DEVICE == "cpu" and not IS_INTERPRETED, reason="no GPU; runs in the interpreter, see the first"
)


def stored(x, dtype):
    """Plain or scaled, as the optimizer keeps it."""
    return x.to(dtype) if dtype in (torch.float32, torch.bfloat16) else ScaledTensor.of(x, dtype)


def slots_of(kinds, size):
    """Two equal slots of given types."""
    generator = torch.Generator().manual_seed(size)

    def draw(scale=1.0):
        x = scale * torch.randn(size, generator=generator)
        return (x * torch.exp(torch.randn(size, generator=generator))).to(DEVICE)

    values = (draw(), draw(0.1), draw(0.05), draw(0.01).square())
    tensors = [stored(x, dtype) for x, dtype in zip(values, kinds, strict=True)]
    return [Slot(*map(copy.deepcopy, tensors), 3, steps.amax_of(tensors[1])) for _ in range(2)]


def moved_both_ways(monkeypatch, ours, theirs, settings):
    """Slots after a step by the kernels, and by the definition."""
    monkeypatch.setattr(steps, "is_compiled", lambda _: False)
    monkeypatch.setattr(steps, "is_for_triton", lambda _: True)
    step_all(ours, settings)
    monkeypatch.setattr(steps, "is_for_triton", lambda _: False)
    step_all(theirs, settings)


def assert_same_bits(ours, theirs):
    """Payloads, scales and largest magnitudes."""
    for mine, other in zip(ours[:4], theirs[:4], strict=True):
        if isinstance(mine, ScaledTensor):
            assert (mine.scale, mine.amax) == (other.scale, other.amax)
            assert torch.equal(mine.payload.view(torch.uint8), other.payload.view(torch.uint8))
        else:
            assert torch.equal(mine, other)


@pytest.mark.skipif(IS_INTERPRETED, reason="starts the interpreter")
@pytest.mark.skipif(DEVICE == "cuda", reason="runs on the GPU itself")
@pytest.mark.slow
def test_all_of_this_in_the_interpreter(said_in_the_interpreter):
    """Without a GPU the tests below pass in Triton's interpreter, in a process of their own."""
    assert re.search(r"\d passed", said_in_the_interpreter), said_in_the_interpreter


@runs
@pytest.mark.parametrize("rule", ["bound", "exact"])
@pytest.mark.parametrize("is_decoupled", [True, False])
def test_the_kernels_have_the_bits_of_the_definition(monkeypatch, rule, is_decoupled):
    """Tensors of every type, of one element to several tiles, together in one step."""
    pairs = [slots_of(kinds, size) for kinds in KINDS for size in (1, 2047, 5000)]
    ours, theirs = zip(*pairs, strict=True)
    settings = Settings(
        lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, scale_rule=rule,
        is_decoupled=is_decoupled, maximizes=not is_decoupled,
    )  # fmt: skip
    moved_both_ways(monkeypatch, ours, theirs, settings)
    for mine, other in zip(ours, theirs, strict=True):
        assert_same_bits(mine, other)


@runs
@pytest.mark.parametrize("kind", [torch.float16, E4M3])
def test_tiles_that_grow_beyond_the_guess_are_moved_later(monkeypatch, kind):
    """Weights from zero with 16 rates: the last tile fits the guess, is stored, and scaled anew."""
    size = 7000
    weight = ScaledTensor.of(torch.zeros(size, device=DEVICE), kind)
    gradient = torch.linspace(1, 0, size, device=DEVICE)
    gradient[-1000:] = 0.0
    zeros = torch.zeros(size, device=DEVICE)
    slot = Slot(
        weight, gradient, ScaledTensor.of(zeros, E4M3), ScaledTensor.of(zeros, torch.float16), 1,
        gradient.amax(),
    )  # fmt: skip
    settings = Settings(
        lr=1e-2, beta1=0.5, beta2=0.999, eps=1e-8, weight_decay=0.0, is_corrected=False
    )
    ours, theirs = copy.deepcopy(slot), copy.deepcopy(slot)
    moved_both_ways(monkeypatch, [ours], [theirs], settings)
    assert ours.weight.amax > steps.USUAL_CHANGE * settings.lr
    assert ours.weight.amax * ours.weight.scale <= LARGEST[kind]
    assert_same_bits(ours, theirs)


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.slow
@pytest.mark.parametrize("is_second", [False, True])
@pytest.mark.parametrize("kinds", KINDS)
def test_compiled_code_has_exact_roots_and_quotients(kinds, is_second):
    """Machine code for capability 9.0 fuses no product with a sum and approximates nothing."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from weightwise.numerics.kernels import adam_tiles, gpu_adam

    names = adam_tiles.move_tiles.arg_names
    constants = {"HAS_PULL": True, "IS_SECOND": is_second, "TILE": gpu_adam.TILE}
    constants |= {letter: gpu_adam.KINDS[kind] for letter, kind in zip("WGMV", kinds, strict=True)}
    types = dict.fromkeys(names, "fp32") | dict.fromkeys(constants, "constexpr")
    types |= dict.fromkeys([one for one in names if one.endswith("_scale")], "*fp32")
    types |= {"ups_ptr": "*fp32", "found_ptr": "*i32", "refused_ptr": "*i8", "size": "i32"}
    bits = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "i16"}
    types |= {
        f"{letter}_ptr": "*" + bits.get(kind, "u8")
        for letter, kind in zip("wgmv", kinds, strict=True)
    }
    source = ASTSource(adam_tiles.move_tiles, types, constexprs=constants)
    target = GPUTarget("cuda", 90, 32)
    code = triton.compile(source, target=target, options={"enable_fp_fusion": False}).asm["ptx"]
    assert not re.search(r"\b(fma|mad)\.\S*f32|div\.(full|approx)|sqrt\.approx|rcp\.|\.ftz", code)
    assert "sqrt.rn.f32" in code
    assert "div.rn.f32" in code
