"""Sums over processes of tensors that travel in 8 bits.

Every process has codes of the same format and scale. Three ways to add them:

``"exact"``  each process gets the codes of its part of the buffer from all others, adds them in
             float32, rounds the sum once to 8 bits with a scale of its own, and gives it to all.
``"shared"`` the same, but the sum keeps the scale of what was added and saturates there.
``"ring"``   partial sums go round; every hop rounds to 8 bits. This is what a collective of a
             library that adds in 8 bits does, and what the paper had.

All send 2 (N - 1) / N bytes for each element. Rounding at every hop costs most of the signal as N
grows (28.7 dB at 2 processes, 4.5 at 128), which is why ``"exact"`` is the default.

8-bit types travel as bytes: not every backend knows them.
"""

# Shapes: N processes, E elements of the buffer, C = E / N elements of a part

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.distributed as dist

from weightwise.numerics.scaled_tensor import amax_of
from weightwise.numerics.stored import LARGEST, dequantize, power_of_two_scale, quantize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Arithmetic = Literal["exact", "shared", "ring"]
ARITHMETICS: tuple[Arithmetic, ...] = ("exact", "shared", "ring")


class Layout(NamedTuple):
    """Where tensors lie in a buffer that is cut into parts of equal size.

    Parameters
    ----------
    starts, stops
        First element of each tensor and the one behind its last.
    num_elements
        Length of the buffer, a multiple of the number of processes.
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    num_elements: int


def layout_of(sizes: Sequence[int], num_processes: int) -> Layout:
    """Tensors of these sizes one behind the other, and zeros up to a multiple of N."""
    stops, total = [], 0
    for size in sizes:
        total += size
        stops.append(total)
    starts = [stop - size for stop, size in zip(stops, sizes, strict=True)]
    return Layout(tuple(starts), tuple(stops), total + -total % num_processes)


def pieces_of(layout: Layout, first: int, last: int) -> list[tuple[int, slice]]:
    """Tensors within a stretch of the buffer: number, and where it lies in the stretch."""
    found = []
    for number, (start, stop) in enumerate(zip(layout.starts, layout.stops, strict=True)):
        low, high = max(start, first), min(stop, last)
        if low < high:
            found.append((number, slice(low - first, high - first)))
    return found


class Summed(NamedTuple):
    """A sum over processes.

    Parameters
    ----------
    codes
        8-bit type, shape (E,), the same in all processes.
    scales
        Of each tensor: values are codes over scale. float32, shape (tensors,).
    amaxes
        Largest magnitude of each tensor's sum.
    full_share
        Share of entries at the largest value of the format before a scale of the sum's own.
    """

    codes: Tensor
    scales: Tensor
    amaxes: Tensor
    full_share: Tensor


def sum_codes(
    codes: Tensor,
    scales: Tensor,
    layout: Layout,
    group: dist.ProcessGroup | None = None,
    arithmetic: Arithmetic = "exact",
) -> Summed:
    """Add codes over all processes of a group, which must all call this.

    Parameters
    ----------
    codes
        8-bit type, shape (E,).
    scales
        Scale of each tensor, the same in all processes; float32 of shape (tensors,).
    layout
        Where the tensors lie.
    group
        The processes; all of them by default.
    arithmetic
        See the module's text.

    Raises
    ------
    ValueError
        If the arithmetic is unknown, or the buffer's length differs from the layout's.
    """
    if arithmetic not in ARITHMETICS:
        raise ValueError(
            f"arithmetic: expected one of {', '.join(ARITHMETICS)}, got {arithmetic!r}"
        )
    if codes.numel() != layout.num_elements:
        raise ValueError(f"codes: expected {layout.num_elements} elements, got {codes.numel()}")
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    part = layout.num_elements // size
    adder = _ring if arithmetic == "ring" else _exchange
    sum_C = adder(codes, part, group)
    pieces = pieces_of(layout, rank * part, (rank + 1) * part)
    limit = LARGEST[codes.dtype]
    # In units of the codes: largest magnitude and number of entries at the limit of each tensor.
    found = torch.zeros(2, len(layout.starts), device=codes.device)
    for number, where in pieces:
        found[0, number] = amax_of(sum_C[where])
        found[1, number] = (sum_C[where].abs() >= limit).sum()
    amaxes, full = found
    dist.all_reduce(amaxes, dist.ReduceOp.MAX, group=group)
    dist.all_reduce(full, group=group)
    own = power_of_two_scale(amaxes, limit) if arithmetic == "exact" else torch.ones_like(amaxes)
    out_C = codes.new_zeros(part)
    for number, where in pieces:
        out_C[where] = quantize(sum_C[where], codes.dtype, own[number])
    gathered = torch.empty_like(codes, dtype=torch.uint8)
    dist.all_gather_into_tensor(gathered, out_C.view(torch.uint8), group=group)
    numel = torch.tensor(
        [stop - start for start, stop in zip(layout.starts, layout.stops, strict=True)],
        device=codes.device,
    )
    return Summed(
        gathered.view(codes.dtype), scales * own, amaxes / scales, full / numel.clamp(min=1)
    )


def _exchange(codes: Tensor, part: int, group: dist.ProcessGroup | None) -> Tensor:
    """Sum of this process's part in float32, in units of the codes."""
    size = dist.get_world_size(group)
    coming = torch.empty_like(codes, dtype=torch.uint8)
    dist.all_to_all_single(coming, codes.view(torch.uint8), group=group)
    one = torch.ones((), device=codes.device)
    total_C = torch.zeros(part, device=codes.device)
    for row in coming.view(codes.dtype).view(size, part):
        total_C += dequantize(row, one)
    return total_C


def _ring(codes: Tensor, part: int, group: dist.ProcessGroup | None) -> Tensor:
    """Sum of this process's part, rounded to 8 bits at every hop, as float32."""
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    one = torch.ones((), device=codes.device)
    rows = codes.view(size, part)
    after, before = ((rank + step) % size for step in (1, -1))
    members = dist.get_process_group_ranks(group)
    there, from_there = members[after], members[before]
    # The part that ends here starts at the next process.
    moving = rows[before].contiguous()
    for hop in range(2, size + 1):
        coming = torch.empty_like(moving, dtype=torch.uint8)
        works = dist.batch_isend_irecv([
            dist.P2POp(dist.isend, moving.view(torch.uint8), there, group),
            dist.P2POp(dist.irecv, coming, from_there, group),
        ])  # fmt: skip
        for work in works:
            work.wait()
        total = dequantize(coming.view(codes.dtype), one) + dequantize(rows[rank - hop], one)
        moving = quantize(total, codes.dtype, one)
    return dequantize(moving, one)


def simulated_sum(codes_NE: Tensor, arithmetic: Arithmetic) -> tuple[Tensor, Tensor]:
    """What `sum_codes` makes of the codes of N processes, in this one.

    Parameters
    ----------
    codes_NE
        8-bit type, shape (N, E): one tensor, of each process. ``"ring"`` adds rows in their order.
    arithmetic
        See the module's text.

    Returns
    -------
    tuple
        The sum in units of the codes, float32 of shape (E,), and the share of its entries at the
        largest value of the format.
    """
    dtype, one = codes_NE.dtype, torch.ones(())
    total_E = dequantize(codes_NE[0], one)
    for row_E in codes_NE[1:]:
        total_E = total_E + dequantize(row_E, one)
        if arithmetic == "ring":
            total_E = dequantize(quantize(total_E, dtype, one), one)
    full = (total_E.abs() >= LARGEST[dtype]).float().mean()
    scale = power_of_two_scale(amax_of(total_E), LARGEST[dtype]) if arithmetic == "exact" else one
    return dequantize(quantize(total_E, dtype, scale), scale), full
