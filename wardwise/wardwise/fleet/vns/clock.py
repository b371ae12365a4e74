"""Time, iterations, and the best plan of a search that runs in several threads."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

# Length of a batch: a small share of the time, and no longer than a person waits for Ctrl-C.
MOST_BATCHES, SHORTEST_S, LONGEST_S = 300, 0.001, 0.05


@dataclass(kw_only=True)
class Clock:
    """What is granted to each search of a team.

    Parameters
    ----------
    time_limit
        Seconds from now.
    max_iterations
        Iterations of each search; `None` for any number.
    """

    time_limit: float
    max_iterations: int | None
    is_stopped: bool = False
    _start: float = field(default_factory=time.perf_counter)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def spent(self, iteration: int) -> float:
        """Share of the time or of the iterations that is used up, whichever is more.

        With a limit on iterations the time counts only once it is over, so that the
        answer does not depend on the pace.
        """
        if self.is_stopped:
            return math.inf
        of_time = self.elapsed_s / self.time_limit if self.time_limit else 1.0
        if self.max_iterations is None or of_time >= 1.0:
            return of_time
        return iteration / self.max_iterations

    def batch(self, iteration: int, per_second: float) -> int:
        """Iterations to run before the clock is looked at again, at a given pace."""
        if self.max_iterations is not None:
            left = self.max_iterations - iteration
            return max(1, min(left, self.max_iterations // MOST_BATCHES + 1))
        seconds = min(max(self.time_limit / MOST_BATCHES, SHORTEST_S), LONGEST_S)
        return max(1, int(seconds * per_second))
