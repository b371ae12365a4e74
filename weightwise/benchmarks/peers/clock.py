"""Times of several ways to do one job, taken in turns, and the rows that tell of them."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = 1
LEAST_REPEATS, PATIENCE_S = 3, 5.0


@dataclass
class Times:
    """Times of one way, each with that of the yardstick right before it.

    Parameters
    ----------
    work
        What is timed.
    ratios
        Time over the yardstick's, one a repetition.
    seconds
        Time of each repetition.
    """

    work: Callable[[], object]
    ratios: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median over the repetitions."""
        return statistics.median(self.ratios)

    def detail(self) -> dict[str, object]:
        """What a row says of the repetitions."""
        return {
            "ms": round(statistics.median(self.seconds) * 1e3, 2), "runs": len(self.ratios),
            "lowest": round(min(self.ratios), 3), "highest": round(max(self.ratios), 3),
        }  # fmt: skip


def compare(
    yardstick: Callable[[], object], ways: dict[str, Callable[[], object]], repeats: int
) -> dict[str, Times]:
    """Time all ways in turns, each right behind the yardstick, after one round to warm up.

    With one thread it is the CPU time of the process, which other work on the machine does not
    lengthen; with more, the time on the wall. Slow ways stop after a few repetitions.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = {name: Times(work) for name, work in ways.items()}
    for way in times.values():
        way.work()
    for _ in range(repeats):
        for way in times.values():
            if len(way.ratios) >= LEAST_REPEATS and sum(way.seconds) > PATIENCE_S:
                continue
            start = clock()
            yardstick()
            middle = clock()
            way.work()
            end = clock()
            way.ratios.append((end - middle) / (middle - start))
            way.seconds.append(end - middle)
    return times


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def emit(
    system: str, *, name: str, value: float, unit: str, peer: str | None = None,
    goal: tuple[str, float] | None = None, detail: dict[str, object],
) -> None:  # fmt: skip
    """Print one measurement on stdout."""
    row = {"system": system, "name": name, "value": value, "unit": unit, "peer": peer}
    print(json.dumps(row | {"goal": goal, "detail": detail, "seed": SEED}), flush=True)
