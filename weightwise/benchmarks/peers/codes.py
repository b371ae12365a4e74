"""Quantisers to compare codes with: optimum-quanto and hqq, asymmetric, groups along features."""

from __future__ import annotations

import warnings
from importlib.metadata import version

import torch
from torch import Tensor

NAMES = {"quanto": "optimum-quanto", "hqq": "hqq"}
BITS = {"quanto": (2, 4), "hqq": (2, 3, 4, 8)}


def named(peer: str) -> str:
    """A peer with its version."""
    return f"{NAMES[peer]} {version(NAMES[peer])}"


def seen_by(peer: str, x_NW: Tensor, bits: int, group: int) -> Tensor:
    """What a peer's codes of some rows stand for, a scale and a zero point per group.

    Both quantise as their caches in transformers do: quanto by the range, hqq by its solver.
    """
    return by_quanto(x_NW, bits, group) if peer == "quanto" else by_hqq(x_NW, bits, group)


def by_quanto(x_NW: Tensor, bits: int, group: int) -> Tensor:
    """Range of the group, 2 or 4 bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optimum.quanto import MaxOptimizer, qint2, qint4, quantize_weight
    kind = {2: qint2, 4: qint4}[bits]
    scale, shift = MaxOptimizer()(x_NW, kind, 0, group)
    seen: Tensor = quantize_weight(
        x_NW, qtype=kind, axis=0, scale=scale, shift=shift, group_size=group
    ).dequantize()
    return seen


def by_hqq(x_NW: Tensor, bits: int, group: int) -> Tensor:
    """Half-quadratic search of the zero point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from hqq.core.quantize import Quantizer
    packed, settings = Quantizer.quantize(
        x_NW, nbits=bits, group_size=group, axis=1, optimize=True, device="cpu",
        compute_dtype=torch.float32,
    )  # fmt: skip
    seen: Tensor = Quantizer.dequantize(packed, settings)
    return seen
