"""What a solver has found by which second, in the same form for all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .numbers import Routes

DISTANCE = "distance"
HIERARCHICAL = "hierarchical"


class Found(NamedTuple):
    """Routes, and the CPU seconds after which the solver had them."""

    cpu_s: float
    routes: Routes
    distance: int


class Log:
    """Feasible solutions of one run with the CPU time of its thread.

    VROOM works in threads of its own, so the time of the whole process is taken there.
    """

    def __init__(self, *, is_process: bool = False) -> None:
        self._clock = time.process_time if is_process else time.thread_time
        self._start = self._clock()
        self.found: list[Found] = []

    @property
    def cpu_s(self) -> float:
        """CPU seconds since the start."""
        return self._clock() - self._start

    def add(self, routes: Routes, distance: int) -> None:
        """Note a solution as found now."""
        self.found.append(Found(self.cpu_s, routes, distance))


def best_within(found: Sequence[Found], budget_s: float, objective: str) -> Found | None:
    """The best solution that was there in time."""
    in_time = [one for one in found if one.cpu_s <= budget_s]

    def rank(one: Found) -> tuple[int, int]:
        return (len(one.routes) if objective == HIERARCHICAL else 0, one.distance)

    return min(in_time, key=rank, default=None)
