"""ZeRO with whole tensors and 8-bit weights (FP8-LM level O3, arXiv 2310.18313, algorithm 1).

ZeRO cuts tensors into equal parts; the one scale of a tensor would then belong to several
processes. Here every tensor has one owner, which keeps its master weight in float16 with a scale
and its moments, and all processes keep the weight in E4M3:

    backward   gradients in E4M3, a byte an element
    step       codes of each tensor go to its owner, which adds them in float32; the owner moves
               its masters and casts them to E4M3; all weights go to all processes as bytes

A process then has 2 bytes for each linear weight and 5 / N for its share of masters and moments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from weightwise.numerics.scaled_tensor import ScaledTensor, amax_of
from weightwise.numerics.stored import LARGEST, dequantize, power_of_two_scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

E4M3 = torch.float8_e4m3fn


def greedy_partition(sizes: Sequence[int], num_parts: int) -> list[int]:
    """Owner of each tensor: the largest first, each to the part that has least.

    Parameters
    ----------
    sizes
        Elements of each tensor.
    num_parts
        Number of owners, at least 1.

    Returns
    -------
    list
        Part of each tensor. The largest part has at most 4/3 - 1/(3 N) of what the best partition
        would give it (Graham 1969), and no more than the least one and the largest tensor.
    """
    if num_parts < 1:
        raise ValueError(f"num_parts: expected at least 1, got {num_parts}")
    loads = [0] * num_parts
    owner = [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        owner[place] = loads.index(min(loads))
        loads[owner[place]] += sizes[place]
    return owner


class WholeTensors:
    """8-bit weights in all processes, and a float16 master of each in one of them.

    Parameters
    ----------
    weights
        Plain parameters, the same in all processes. They become E4M3 views of one buffer.
    group
        The processes; all by default.

    Attributes
    ----------
    weights
        The new parameters, in the order given.
    masters
        By place in that order, parameters of this process's share, for an optimizer.
    """

    def __init__(self, weights: Sequence[Tensor], group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        is_shared = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size(group) if is_shared else 1
        self.rank = dist.get_rank(group) if is_shared else 0
        self.shapes = [one.shape for one in weights]
        sizes = [one.numel() for one in weights]
        self.owner = greedy_partition(sizes, self.size)
        loads = [0] * self.size
        self.starts = []
        for size, owner in zip(sizes, self.owner, strict=True):
            self.starts.append(loads[owner])
            loads[owner] += size
        self.slot = max(loads) + -max(loads) % 4
        device = weights[0].device if weights else torch.device("cpu")
        self.buffer = torch.zeros(self.size * self.slot, dtype=torch.uint8, device=device)
        self.scales = torch.ones(len(weights), device=device)
        self.amaxes = torch.zeros(len(weights), device=device)
        self.masters: dict[int, torch.nn.Parameter] = {}
        for place, weight in enumerate(weights):
            if self.owner[place] == self.rank:
                values = weight.detach().float()
                master = ScaledTensor.of(values, torch.float16)
                self.masters[place] = torch.nn.Parameter(master)
        self.weights = [
            torch.nn.Parameter(
                ScaledTensor(self._view(place), self.scales[place], self.amaxes[place], one.dtype)
            )
            for place, one in enumerate(weights)
        ]
        self.publish()

    def _place(self, place: int) -> slice:
        first = self.owner[place] * self.slot + self.starts[place]
        return slice(first, first + self.shapes[place].numel())

    def _view(self, place: int, buffer: Tensor | None = None) -> Tensor:
        """Codes of a tensor within a buffer of all."""
        codes = (self.buffer if buffer is None else buffer)[self._place(place)]
        return codes.view(E4M3).view(self.shapes[place])

    @torch.no_grad()
    def collect(self) -> Tensor:
        """Give the masters the mean of the gradients of all processes.

        Returns
        -------
        Tensor
            Largest magnitude of each gradient over all processes, infinite where one was not
            finite; shape (weights,), the same in all processes.
        """
        gradients = [one.grad for one in self.weights]
        zero = torch.zeros((), device=self.buffer.device)
        amax = torch.stack([zero, *(zero if g is None else amax_of(g) for g in gradients)])[1:]
        if self.size > 1:
            dist.all_reduce(amax, dist.ReduceOp.MAX, group=self.group)
        scales = power_of_two_scale(amax, LARGEST[E4M3])
        codes = torch.zeros_like(self.buffer)
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                made = ScaledTensor.of(gradient, E4M3, scale=scales[place], amax=amax[place])
                self._view(place, codes).copy_(made.payload)
            self.weights[place].grad = None
        coming = codes
        if self.size > 1:
            coming = torch.empty_like(codes)
            dist.all_to_all_single(coming, codes, group=self.group)
        rows = coming.view(self.size, self.slot)
        for place, master in self.masters.items():
            start, numel = self.starts[place], self.shapes[place].numel()
            total = torch.zeros(numel, device=rows.device)
            for row in rows:
                total += dequantize(row[start : start + numel].view(E4M3), scales[place])
            mean = ScaledTensor.of(total.view(self.shapes[place]).div_(self.size), E4M3)
            mean.amax.copy_(torch.where(amax[place].isfinite(), mean.amax, torch.inf))
            master.grad = mean
        return amax

    @torch.no_grad()
    def publish(self) -> None:
        """Cast the masters to 8 bits and give them to all processes."""
        slot = self.buffer[self.rank * self.slot : (self.rank + 1) * self.slot].clone()
        news = torch.zeros(2, len(self.weights), device=self.buffer.device)
        for place, master in self.masters.items():
            made = ScaledTensor.of(master, E4M3)
            start, numel = self.starts[place], self.shapes[place].numel()
            slot[start : start + numel] = made.payload.reshape(-1).view(torch.uint8)
            news[0, place], news[1, place] = made.scale, made.amax
        if self.size > 1:
            dist.all_gather_into_tensor(self.buffer, slot, group=self.group)
            dist.all_reduce(news, group=self.group)
        else:
            self.buffer.copy_(slot)
        self.scales.copy_(news[0])
        self.amaxes.copy_(news[1])

    def state_dict(self) -> dict[str, Tensor]:
        """Masters of this process by place: payload, scale and amax as plain tensors."""
        table: dict[str, Any] = {}
        for place, master in self.masters.items():
            data = master.data
            assert isinstance(data, ScaledTensor)
            table |= {
                f"{place}.payload": data.payload, f"{place}.scale": data.scale,
                f"{place}.amax": data.amax,
            }  # fmt: skip
        return table
