"""The automatic scaling factor mu of 8-bit gradient sums (arXiv 2310.18313, section 2.1).

Gradients of N processes are summed in 8 bits. Divided by N before the sum (mu = 1/N), small ones
vanish; divided afterwards (mu = 1), large ones leave the format. mu stands between: it multiplies
the scale of each tensor, and is taken back by the scale of the result. Where more than 1e-5 of the
summed entries lie at the largest value, mu is halved; otherwise it grows, to twice as much in
1,000 steps. The paper's wording ("set to 1/2") leaves the rule open; this is the one of its
authors' later code. That it stays within 1/N, at which a sum cannot overflow, and 1 is our choice.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

Scaling = Literal["auto", "sqrt", "pre", "post"]
SCALINGS: tuple[Scaling, ...] = ("auto", "sqrt", "pre", "post")
THRESHOLD = 1e-5
DOUBLING_STEPS = 1000


class AutoScale:
    """mu of some tensors, equal in all processes.

    Parameters
    ----------
    num_tensors
        How many tensors.
    num_processes
        N.
    scaling
        ``"auto"``; or constant: ``"pre"`` 1/N, ``"post"`` 1, ``"sqrt"`` 1/sqrt(N), with which
        ``"auto"`` begins.
    interval
        Steps between two looks at the sums, at least 1.

    Raises
    ------
    ValueError
        If a number is below 1 or the scaling is unknown.
    """

    def __init__(
        self, num_tensors: int, num_processes: int, scaling: Scaling = "auto", interval: int = 10
    ) -> None:
        for name, value in (("num_processes", num_processes), ("interval", interval)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if scaling not in SCALINGS:
            raise ValueError(f"scaling: expected one of {', '.join(SCALINGS)}, got {scaling!r}")
        first = {"pre": 1 / num_processes, "post": 1.0}.get(scaling, 1 / sqrt(num_processes))
        self.scaling, self.interval, self.num_processes = scaling, interval, num_processes
        self.mu = torch.full((num_tensors,), first)
        self.step = torch.zeros((), dtype=torch.int64)

    def is_due(self) -> bool:
        """Whether the sums of this step have to be looked at."""
        return self.scaling == "auto" and int(self.step) % self.interval == 0

    def update(self, full_share: Tensor | None) -> None:
        """Go to the next step.

        Parameters
        ----------
        full_share
            Share of each tensor's summed entries at the largest value, the same in all processes;
            needed if `is_due`.
        """
        if self.is_due():
            assert full_share is not None
            growth = 2.0 ** (self.interval / DOUBLING_STEPS)
            factor = torch.where(full_share > THRESHOLD, 0.5, growth)
            self.mu.mul_(factor.to(self.mu)).clamp_(1 / self.num_processes, 1.0)
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """Mu and the step."""
        return {"mu": self.mu.clone(), "step": self.step.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stood; with other processes within their limits."""
        self.mu.copy_(state["mu"]).clamp_(1 / self.num_processes, 1.0)
        self.step.copy_(torch.as_tensor(state["step"]))
