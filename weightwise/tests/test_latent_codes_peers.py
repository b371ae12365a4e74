"""Codes against optimum-quanto and hqq on the same tensors, at equal bits with scales counted.

Both keep a float16 scale and a zero point per group, which are 32 bits of 32 or 64 features.
"""

from __future__ import annotations

import runpy
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from weightwise.lm.latent.codes import bytes_per_row, fake_quantize
from weightwise.lm.latent.config import CodeConfig

PEERS = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "peers" / "codes.py"))
by_quanto, by_hqq = PEERS["by_quanto"], PEERS["by_hqq"]
pytestmark = pytest.mark.slow  # quanto takes ten seconds to import


@pytest.fixture(scope="module", autouse=True)
def quanto_in_python():
    """Only errors count here: unpacking in Python does, and takes no compiler a minute."""

    def unpack(packed: Tensor, bits: int) -> Tensor:
        return torch.cat([(packed >> first) % 2**bits for first in range(0, 8, bits)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = import_module("optimum.quanto.library.extensions").get_extension("quanto_cpp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_lib", SimpleNamespace(unpack=unpack))
        yield


def bells() -> Tensor:
    """Normed latents: rows of one size."""
    return torch.randn(256, 512, generator=torch.Generator().manual_seed(0))


def uneven() -> Tensor:
    """Features of sizes from 0.2 to 3, some far from 0."""
    return bells() * torch.linspace(0.2, 3, 512) + torch.linspace(-1, 1, 512)


def heavy() -> Tensor:
    """Rows with outliers."""
    return bells() * bells().flip(0).abs()


TENSORS = pytest.mark.parametrize("make", [bells, uneven, heavy])


def error(seen: Tensor, x: Tensor) -> float:
    return float((seen - x).square().mean())


@TENSORS
@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize(("bits", "peer"), [(2, by_quanto), (4, by_quanto), (2, by_hqq),
                                            (3, by_hqq), (4, by_hqq), (8, by_hqq)])  # fmt: skip
def test_no_larger_error_with_the_same_layout(make, group, bits, peer):
    """Asymmetric codes with a scale and a minimum per group, as theirs."""
    x = make()
    config = CodeConfig(bits=bits, group_width=group, is_symmetric=False)
    ours, theirs = error(fake_quantize(x, config), x), error(peer(x, bits, group), x)
    assert ours <= theirs, (ours, theirs)


@TENSORS
@pytest.mark.parametrize("peer", [by_quanto, by_hqq])
def test_the_rule_of_the_sheet_alone_is_quantos(make, peer):
    """Without trying scales we are as good as quanto to 1 in 1000, and behind hqq."""
    x = make()
    config = CodeConfig(group_width=64, is_symmetric=False, scale_rule="range")
    ratio = error(fake_quantize(x, config), x) / error(peer(x, 4, 64), x)
    assert ratio == pytest.approx(1, rel=1e-3) if peer is by_quanto else ratio > 1.05


@pytest.mark.parametrize(("bits", "peer"), [(2, by_quanto), (4, by_quanto), (2, by_hqq),
                                            (3, by_hqq), (4, by_hqq), (8, by_hqq)])  # fmt: skip
def test_the_default_layout_at_equal_bytes(bits, peer):
    """Symmetric codes of 32 features take the bytes of asymmetric ones of 64, and err less."""
    x, config = bells(), CodeConfig(bits=bits)
    theirs = CodeConfig(bits=bits, group_width=64, is_symmetric=False)
    assert bytes_per_row(512, config) == bytes_per_row(512, theirs)
    ours, other = error(fake_quantize(x, config), x), error(peer(x, bits, 64), x)
    assert ours <= other, (ours, other)
