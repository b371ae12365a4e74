"""AdamW8 over masters that every process has a share of (FP8-LM level O3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from weightwise.distributed.fp8_gradients import average_plain
from weightwise.optim import AdamW8

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from weightwise.distributed.fp8_zero import WholeTensors


class ZeroAdamW8(AdamW8):
    """AdamW8 whose 8-bit weights are moved by their owners, see `WholeTensors`.

    Parameters
    ----------
    params
        Parameter groups as for AdamW8. Weights that ``whole`` keeps stand for their masters.
    whole
        The 8-bit weights.
    settings
        As in AdamW8.
    """

    def __init__(self, params: list[dict[str, Any]], whole: WholeTensors, **settings: Any) -> None:
        self.whole = whole
        self._amax: Tensor | None = None
        place_of = {id(one): place for place, one in enumerate(whole.weights)}
        self._others = [
            one for group in params for one in group["params"] if id(one) not in place_of
        ]
        # A group may be empty in this process: its settings still follow schedules.
        super().__init__([{"params": []}], **settings)
        self.param_groups.clear()
        for group in params:
            places = [place_of.get(id(one)) for one in group["params"]]
            members = [
                one if place is None else whole.masters[place]
                for one, place in zip(group["params"], places, strict=True)
                if place is None or place in whole.masters
            ]
            self.add_param_group({**group, "params": members})

    @torch.no_grad()
    def reduce(self) -> None:
        """Average the gradients of all processes; owners of weights have them afterwards."""
        if self._amax is not None:
            return
        self._amax = self.whole.collect()
        others = [one for one in self._others if one.grad is not None]
        if self.whole.size > 1 and others:
            means = average_plain([one.grad for one in others], self.whole.group)
            for parameter, mean in zip(others, means, strict=True):
                parameter.grad = mean

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Clip the gradient of all processes to a norm; returns what the norm was."""
        self.reduce()
        masters = [one.grad for one in self.whole.masters.values() if one.grad is not None]
        others = [one.grad for one in self._others if one.grad is not None]
        device = self.whole.buffer.device
        owned = torch.zeros((), device=device)
        for gradient in masters:
            owned += torch.linalg.vector_norm(gradient).square()
        if self.whole.size > 1:
            dist.all_reduce(owned, group=self.whole.group)
        for gradient in others:
            owned = owned + torch.linalg.vector_norm(gradient.float()).square()
        norm = owned.sqrt()
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in (*masters, *others):
            gradient.mul_(factor)
        return norm

    def _are_finite(self, amaxes: list[Tensor]) -> bool:
        """Also of the gradients that other processes have."""
        assert self._amax is not None
        return super()._are_finite([*amaxes, *self._amax.unbind()])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Average gradients, move the masters, and give the weights to all processes."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.reduce()
        super().step()
        self._amax = None
        self.whole.publish()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of parameters, weights and masters."""
        super().zero_grad(set_to_none)
        self._amax = None
        for weight in self.whole.weights:
            weight.grad = None
