"""The clock, the counter and the best plan so far, shared by all methods."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.fleet.search.fleet import Fleet, is_better

if TYPE_CHECKING:
    from collections.abc import Callable


# Length of a batch: a small share of the time, and no longer than a person waits for Ctrl-C.
MOST_BATCHES, SHORTEST_S, LONGEST_S = 300, 0.001, 0.05


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a running search has found; `cost` is money of `Costs`, denials included."""

    elapsed_s: float
    num_robots: int
    distance_m: float
    cost: float
    iteration: int


class Watch:
    """Keeps the best plan of a method, and tells it when to stop.

    Parameters
    ----------
    time_limit
        Seconds from now.
    max_iterations
        Calls of `advance` that are granted; `None` for any number.
    on_improvement
        Called with every plan that beats all before, elapsed seconds and iteration.
    """

    def __init__(
        self,
        *,
        time_limit: float,
        max_iterations: int | None,
        on_improvement: Callable[[Fleet, float, int], None],
    ) -> None:
        self._start = time.perf_counter()
        self._time_limit = time_limit
        self._max_iterations = max_iterations
        self._on_improvement = on_improvement
        self.iteration = 0
        self.best: Fleet | None = None
        self._best_score = (float("inf"), float("inf"))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def spent(self) -> float:
        """Share of the granted time or iterations that is used up, whichever is more."""
        of_time = self.elapsed_s / self._time_limit if self._time_limit else 1.0
        return max(of_time, self.iteration / (self._max_iterations or math.inf))

    def is_late(self) -> bool:
        """Whether the time is used up, once there is a plan."""
        return self.best is not None and self.elapsed_s >= self._time_limit

    def batch(self, per_second: float) -> int:
        """Iterations to run before the clock is looked at again, at a given pace.

        With a limit on iterations the answer does not depend on the pace, so that
        the same seed gives the same plan.
        """
        if self._max_iterations is not None:
            left = self._max_iterations - self.iteration
            return max(1, min(left, self._max_iterations // MOST_BATCHES + 1))
        seconds = min(max(self._time_limit / MOST_BATCHES, SHORTEST_S), LONGEST_S)
        return max(1, int(seconds * per_second))

    def left(self, per_second: float) -> float:
        """Iterations that are left, at a given pace where only time is limited."""
        if self._max_iterations is not None:
            return self._max_iterations - self.iteration
        return max(0.0, self._time_limit - self.elapsed_s) * per_second

    def advance(self, count: int = 1) -> bool:
        """Count iterations; returns whether the method may go on."""
        self.iteration += count
        if self._max_iterations is not None and self.iteration >= self._max_iterations:
            return False
        return not self.is_late()

    def improve(self, fleet: Fleet) -> None:
        """Keep a copy of a feasible plan if it is the best so far."""
        score = fleet.score()
        if is_better(score, self._best_score):
            self.best, self._best_score = fleet.copy(), score
            self._on_improvement(self.best, self.elapsed_s, self.iteration)
