"""A step of Adam over parameters, gradients and moments as they are stored, on a GPU, in Triton.

Each tensor goes through memory once; nothing waits for the device. A tile whose new weights are
beyond the format under the guessed scale is left as it was. A second kernel, which otherwise reads
no more than a mark for each tile, moves it under the scale that all weights then get. The results
have the bits of `weightwise.optim.low_bit_step.move`.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from weightwise.numerics.kernels.adam_tiles import NUM_PLACES, move_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

TILE = 2048  # elements
KINDS = {
    torch.float32: 0,
    torch.float16: 1,
    torch.bfloat16: 2,
    torch.float8_e4m3fn: 3,
    torch.float8_e5m2: 4,
}
BITS = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}


class Constants(NamedTuple):
    """Numbers of a step that no tensor holds, see `weightwise.numerics.kernels.numbers.Numbers`.

    Parameters
    ----------
    sign
        -1 where the gradient is climbed.
    beta1, beta2, take_first, take_second
        Shares of the old and the new in both moments.
    step, eps, shrink, pull
        As of `Numbers`; ``shrink`` without the weight's scale.
    """

    sign: float
    beta1: float
    beta2: float
    take_first: float
    take_second: float
    step: float
    eps: float
    shrink: float
    pull: float


def move_tensors(
    payloads: Sequence[Sequence[Tensor]],
    scales: Sequence[Sequence[Tensor]],
    ups: Tensor,
    constants: Sequence[Constants],
    largest: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Move tensors in place; everything is queued.

    Parameters
    ----------
    payloads, scales
        Of each tensor's weight, gradient and moments; contiguous, scales of shape ().
    ups
        Scales of new weights (a guess) and moments, float32 of shape (tensors, 3).
    constants
        Of each tensor.
    largest
        Largest value of what each weight is stored in; infinite if there is none.

    Returns
    -------
    Largest magnitudes of new weights and moments, float32 of shape (tensors, 3), and the scales of
    new weights, shape (tensors,).
    """
    device = ups.device
    found = torch.zeros(len(payloads), NUM_PLACES, dtype=torch.int32, device=device)
    tiles = [ceil(parts[0].numel() / TILE) for parts in payloads]
    refused = torch.zeros(sum(tiles), dtype=torch.int8, device=device)
    start = 0
    for index, parts in enumerate(payloads):
        arguments: list[Any] = [*map(_bits, parts), *scales[index], ups[index], found[index]]
        arguments += [refused[start:], parts[0].numel(), *constants[index], largest[index]]
        options: dict[str, Any] = {
            name: KINDS[part.dtype] for name, part in zip("WGMV", parts, strict=True)
        }
        options |= {"HAS_PULL": constants[index].pull != 0, "TILE": TILE, "enable_fp_fusion": False}
        for is_second in (False, True):
            move_tiles[(tiles[index],)](*arguments, **options, IS_SECOND=is_second)
        start += tiles[index]
    return found[:, :3].view(torch.float32), found[:, 4].view(torch.float32)


def _bits(payload: Tensor) -> Tensor:
    """The memory as Triton takes it."""
    flat = payload.view(-1)
    return flat.view(BITS[payload.dtype]) if payload.dtype in BITS else flat
