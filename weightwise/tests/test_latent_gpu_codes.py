"""The GPU kernel of codes against plain operations, in Triton's interpreter without a GPU."""

from __future__ import annotations

import os
import re
from itertools import product

import pytest
import torch
from torch import Tensor

from weightwise.lm.latent import code_kernels
from weightwise.lm.latent.codes import decode, encode, fake_quantize
from weightwise.lm.latent.config import CodeConfig

triton = pytest.importorskip("triton")

from weightwise.lm.latent import codes, triton_encode  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# What saturates is infinite on purpose; numpy, in the interpreter, remarks on it.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
runs = pytest.mark.skipif(
    DEVICE == "cpu" and not IS_INTERPRETED, reason="no GPU; runs in the interpreter, see the first"
)
compiles = pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")
CONFIGS = [
    CodeConfig(bits=bits, group_width=group, is_symmetric=is_symmetric, scale_rule=rule)
    for bits, group, is_symmetric, rule in product(
        (2, 3, 4, 8), (16, 64), (True, False), ("range", "error")
    )
]


def rows(width: int) -> Tensor:
    """Bells of many sizes, zeros, few elements, a shifted row, infinities and a NaN."""
    make = torch.Generator().manual_seed(width)
    x = torch.randn(16, width, generator=make)
    x *= torch.logspace(-6, 5, 16).unsqueeze(1)
    x[3], x[4] = 0, torch.where(torch.rand(width, generator=make) < 0.1, x[4], 0)
    x[5] += 60
    x[6], x[7] = x[6].round(), -x[7].abs()
    x[13, width // 2], x[14, 0], x[15, -1] = torch.inf, -torch.inf, torch.nan
    return x


@compiles
@pytest.mark.skipif(DEVICE == "cuda", reason="runs on the GPU itself")
@pytest.mark.slow
def test_all_of_this_in_the_interpreter(said_in_the_interpreter: str) -> None:
    """Without a GPU the tests below pass in Triton's interpreter, in a process of their own."""
    assert re.search(r"\d\d passed", said_in_the_interpreter), said_in_the_interpreter


@runs
@pytest.mark.parametrize("width", [7, 128, 200])
@pytest.mark.parametrize("config", CONFIGS)
def test_the_bits_are_those_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, config: CodeConfig, width: int
) -> None:
    """Bytes, scales, minima and numbers, of odd widths and of what is not finite as well."""
    x = rows(width)
    wanted, seen = encode(x, config), fake_quantize(x, config)
    if DEVICE == "cpu":
        monkeypatch.setattr(codes, "_kernels", lambda _: triton_encode)
    got = encode(x.to(DEVICE), config)
    # Codes of a group with a NaN mean nothing.
    is_number = torch.arange(16, device=DEVICE) < 15
    for part in ("code", "scale", "minimum"):
        ours, theirs = getattr(got, part), getattr(wanted, part)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert torch.equal(
                ours[is_number].cpu().view(torch.uint8), theirs[:15].view(torch.uint8)
            )
    got_seen = fake_quantize(x.to(DEVICE), config).cpu()
    for ours in (got_seen, decode(got, config, width, torch.float32).cpu()):
        assert torch.equal(ours.isnan(), seen.isnan())
        assert torch.equal(ours.nan_to_num(7.0), seen.nan_to_num(7.0))


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("is_fake", [False, True])
@pytest.mark.parametrize("config", [CodeConfig(), CodeConfig(bits=3, is_symmetric=False)])
def test_divisions_are_rounded_correctly(config: CodeConfig, is_fake: bool) -> None:
    """Compiled for the newest GPUs, no division is one of the fast and rough ones."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = triton_encode.quantize
    names = ("x_ptr", "out_ptr", "scale_ptr", "minimum_ptr")
    kinds = ("*fp32", "*fp32", "*fp32", "*fp32") if is_fake else ("*fp32", "*u8", "*fp16", "*fp16")
    types = dict(zip(names, kinds, strict=True))
    types |= dict.fromkeys(("num_groups", "per_row", "width"), "i32")
    values = {
        "BITS": config.bits, "GROUP": config.group_width, "IS_SYMMETRIC": config.is_symmetric,
        "IS_TRIED": True, "IS_FAKE": is_fake, "BLOCK": 64,
    }  # fmt: skip
    source = ASTSource(kernel, types | dict.fromkeys(values, "constexpr"), constexprs=values)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True}
    )
    text = compiled.asm["ptx"]
    assert "div.rn.f32" in text
    assert "div.full" not in text
    assert "div.approx" not in text


def test_the_grids_are_those_of_the_cpu() -> None:
    """Both lists have as many trials as the kernel makes."""
    from weightwise.lm.latent import code_grids

    assert len(code_grids.SYMMETRIC_GRIDS) == 5
    assert len(code_grids.ASYMMETRIC_GRIDS) == 8
    assert not code_kernels.fits(torch.zeros(1, device="meta"))
