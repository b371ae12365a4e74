"""Expert parallelism: a layer's experts are spread over processes, and tokens travel to them.

Each of the P processes of a group routes tokens of its own and holds L = E / P experts, the first
process the first ones (GShard, arXiv 2006.16668). Rows that are sorted by expert are sorted by
process, so that one all-to-all brings every row to its expert:

    counts   how many rows come from each process for each expert
    there    rows travel, and are then sorted by expert instead of by sender
    answers  one call for the rows of all senders
    back     the same way in the opposite direction

Such a way is a permutation of all processes' rows, so its gradient is the way back. The gradient
of an expert's weights is the sum over the tokens of all processes.

All processes of a group must come here equally often, in the forward pass and in the backward
one. Those that have no rows to send, or get none, take part all the same.
"""

# Shapes: P processes, L experts of each, E = P L experts, R rows sent, S rows received, D width

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable


def answers_of_group(
    answers: Callable[[Tensor, Tensor], Tensor],
    x_RD: Tensor,
    count_E: Tensor,
    group: dist.ProcessGroup,
) -> Tensor:
    """Let the experts of all processes answer; every process of the group must call this.

    Parameters
    ----------
    answers
        What this process's experts answer to rows that are sorted by expert, given rows and the
        number of rows of each of its L experts.
    x_RD
        Rows of this process, sorted by expert.
    count_E
        Rows for each expert of all processes, int64, on the device of ``x_RD``.
    group
        The processes; their number divides E.

    Returns
    -------
    Tensor
        Answers in the order of ``x_RD``.
    """
    if torch.is_autocast_enabled(x_RD.device.type):
        # The experts' products would round to this type; rounded first, less has to travel.
        x_RD = x_RD.to(torch.get_autocast_dtype(x_RD.device.type))
    way = _plan(count_E, group)
    x_SD: Tensor = _There.apply(x_RD, way)  # type: ignore[no-untyped-call]
    answer_SD = answers(x_SD, way.counts)
    answer_RD: Tensor = _Back.apply(answer_SD, way)  # type: ignore[no-untyped-call]
    return answer_RD


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How the rows of one layer travel.

    Parameters
    ----------
    group
        The processes.
    sent, received
        Rows that go to each process and come from it.
    counts
        Rows that came for each expert of this process.
    order
        Which received row is in which place once they are sorted by expert.
    """

    group: dist.ProcessGroup
    sent: list[int]
    received: list[int]
    counts: Tensor
    order: Tensor

    def there(self, x_RD: Tensor) -> Tensor:
        """Rows of all processes for the experts of this one, sorted by expert."""
        return self._exchange(x_RD, self.sent, self.received)[self.order]

    def back(self, x_SD: Tensor) -> Tensor:
        """Rows that came, or what became of them, sent back to where they came from."""
        by_sender_SD = torch.empty_like(x_SD)
        by_sender_SD[self.order] = x_SD
        return self._exchange(by_sender_SD, self.received, self.sent)

    def _exchange(self, x_RD: Tensor, leaving: list[int], coming: list[int]) -> Tensor:
        out_SD = x_RD.new_empty(sum(coming), *x_RD.shape[1:])
        dist.all_to_all_single(out_SD, x_RD.contiguous(), coming, leaving, group=self.group)
        return out_SD


def _plan(count_E: Tensor, group: dist.ProcessGroup) -> _Way:
    """Tell all processes how many rows will come for which expert."""
    leaving_PL = count_E.view(group.size(), -1)
    coming_PL = torch.empty_like(leaving_PL)
    dist.all_to_all_single(coming_PL, leaving_PL, group=group)
    sent, received = torch.stack((leaving_PL.sum(1), coming_PL.sum(1))).tolist()
    expert_PL = torch.arange(coming_PL.shape[1], device=count_E.device).expand_as(coming_PL)
    expert_S = expert_PL.flatten().repeat_interleave(coming_PL.flatten(), output_size=sum(received))
    return _Way(
        group=group,
        sent=sent,
        received=received,
        counts=coming_PL.sum(0),
        order=expert_S.argsort(stable=True),
    )


class _There(torch.autograd.Function):
    """Rows on their way to the experts; gradients go back."""

    @staticmethod
    def forward(ctx: Any, x_RD: Tensor, way: _Way) -> Tensor:
        ctx.way = way
        return way.there(x_RD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_SD: Tensor) -> tuple[Tensor, None]:
        return ctx.way.back(grad_SD), None


class _Back(torch.autograd.Function):
    """Answers on their way home; gradients go to the experts."""

    @staticmethod
    def forward(ctx: Any, x_SD: Tensor, way: _Way) -> Tensor:
        ctx.way = way
        return way.back(x_SD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor, None]:
        return ctx.way.there(grad_RD), None
