"""A plan on many random days: what is late how often, compiled.

Scenarios are drawn and driven in blocks: for each robot a table of factors, one row for
each random time and one column for each scenario, then all steps of the robot over it.
The table of one robot stays in the cache, so that memory does not grow with the number
of scenarios. Blocks run on threads; their sums are added in fixed order, so that figures
do not depend on the number of threads.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from wardwise.fleet.chance.normal import TOLERANCE_S
from wardwise.fleet.chance.steps import itinerary_of
from wardwise.fleet.chance.tables import Tables
from wardwise.fleet.check import Timing
from wardwise.fleet.randomness import Randomness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from wardwise.fleet.chance.steps import Itinerary
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

loop = njit(cache=True, nogil=True)

BLOCK = 4096
# Numba compiles it into the kernel: so many scenarios of all running sums fit in L1.
STRIP = 512
MOST_SCENARIOS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened on the scenarios.

    Attributes
    ----------
    late
        Number of scenarios in which each request that the plan serves is late.
    late_returns
        The same for the last return of each robot.
    late_trips
        Number of scenarios in which any request of a trip is late, in the plan's order.
    lateness_s, lateness_cost
        Mean sum of a day's delays past `due_s`, and its price.
    waiting_s
        Mean time that robots wait at stops for service to begin.
    """

    num_scenarios: int
    late: dict[str, int]
    late_returns: dict[str, int]
    late_trips: tuple[int, ...]
    lateness_s: float
    lateness_cost: float
    waiting_s: float


class Tally(NamedTuple):
    """Running sums of a block of B scenarios; `late` over steps, `trips` over trips."""

    now_s: NDArray[np.float64]
    lateness_s: NDArray[np.float64]
    cost: NDArray[np.float64]
    waiting_s: NDArray[np.float64]
    is_late: NDArray[np.uint8]
    late: NDArray[np.int64]
    trips: NDArray[np.int64]

    @staticmethod
    def empty(num_scenarios: int, num_steps: int, num_trips: int) -> Tally:
        """All sums 0."""
        return Tally(
            now_s=np.zeros(num_scenarios),
            lateness_s=np.zeros(num_scenarios),
            cost=np.zeros(num_scenarios),
            waiting_s=np.zeros(num_scenarios),
            is_late=np.zeros(num_scenarios, dtype=np.uint8),
            late=np.zeros(num_steps, dtype=np.int64),
            trips=np.zeros(num_trips, dtype=np.int64),
        )


def evaluate(
    instance: Instance,
    plan: Plan,
    *,
    num_scenarios: int = 20_000,
    seed: int = 0,
    jobs: int | None = 1,
    timing: Timing = Timing.PLANNED,
) -> Outcome:
    """Drive a plan on random days; the same seed gives every plan the same luck.

    Parameters
    ----------
    num_scenarios
        1 to 100,000,000. More of them continue the same days.
    seed
        At least 0.
    jobs
        Threads; `None`: one for each core. The result does not depend on it.
    timing
        `Timing.DISPATCHED`: no robot leaves for a request before its release, and up to
        the last call on the way to a request the day has gone as planned. Returns and
        trips are random from the start.

    Raises
    ------
    ValueError
        If a parameter is out of range, or as `wardwise.fleet.chance.steps.itinerary_of`.
    """
    if not 1 <= num_scenarios <= MOST_SCENARIOS:
        raise ValueError(f"num_scenarios: expected 1 to {MOST_SCENARIOS:,}, got {num_scenarios}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs: expected at least 1, got {jobs}")
    itinerary = itinerary_of(instance, plan, timing=timing)
    blocks = [
        (first, min(BLOCK, num_scenarios - first)) for first in range(0, num_scenarios, BLOCK)
    ]
    drive_block = _Block(itinerary, instance.randomness or Randomness(), seed)
    num_late = np.zeros(len(itinerary.steps.trip), dtype=np.int64)
    num_trips = np.zeros(len(itinerary.trips), dtype=np.int64)
    sums = np.zeros(3)
    for tally in _in_order(drive_block, blocks, jobs or os.cpu_count() or 1):
        num_late += tally.late
        num_trips += tally.trips
        sums += [tally.lateness_s.sum(), tally.cost.sum(), tally.waiting_s.sum()]
    lateness_s, cost, waiting_s = map(float, sums / num_scenarios)
    return Outcome(
        num_scenarios=num_scenarios,
        late={name: int(num_late[step]) for name, step in itinerary.requests.items()},
        late_returns={name: int(num_late[step]) for name, step in itinerary.returns.items()},
        late_trips=tuple(map(int, num_trips)),
        lateness_s=lateness_s,
        lateness_cost=cost,
        waiting_s=waiting_s,
    )


def _in_order(
    drive_block: Callable[[tuple[int, int]], Tally], blocks: list[tuple[int, int]], jobs: int
) -> Iterator[Tally]:
    if jobs == 1 or len(blocks) == 1:
        yield from map(drive_block, blocks)
        return
    with ThreadPoolExecutor(min(jobs, len(blocks))) as pool:
        yield from pool.map(drive_block, blocks)


class _Block:
    """Draws and drives one block of scenarios after the other; safe on several threads."""

    def __init__(self, itinerary: Itinerary, law: Randomness, seed: int) -> None:
        self._itinerary = itinerary
        self._tables = Tables(itinerary, law.day, seed)

    def __call__(self, block: tuple[int, int]) -> Tally:
        itinerary = self._itinerary
        tally = Tally.empty(block[1], len(itinerary.steps.trip), len(itinerary.trips))
        day = self._tables.day(*block)
        late: list[tuple[int, NDArray[np.float64]]] = []
        for number, row in enumerate(itinerary.rows):
            table = self._tables.table(number, *block)
            drive(itinerary.steps, row.first, row.last, row.start_s, table, day, tally)
            names = [name for name in itinerary.since if row.first <= self._step(name) < row.last]
            late.extend(self._judge(name, table, day) for name in names)
        if itinerary.since:
            tally.lateness_s[:] = tally.cost[:] = 0.0
        for step, start_s in late:
            delay_s = np.maximum(start_s - itinerary.steps.due_s[step], 0.0)
            tally.late[step] = (start_s > itinerary.steps.latest_s[step] + TOLERANCE_S).sum()
            tally.lateness_s[:] += delay_s
            tally.cost[:] += itinerary.steps.price_per_s[step] * delay_s
        return tally

    def _step(self, name: str) -> int:
        return self._itinerary.requests[name]

    def _judge(
        self, name: str, table: NDArray[np.float32], day: NDArray[np.float32]
    ) -> tuple[int, NDArray[np.float64]]:
        """Step of a request that became known on the way, and when it is done in each scenario."""
        steps, last = self._itinerary.steps, self._step(name)
        first, begin_s = self._itinerary.since[name]
        tally = Tally.empty(len(day), len(steps.trip), len(self._itinerary.trips))
        drive(steps, first, last + 1, begin_s, table, day, tally)
        return last, tally.now_s


@loop
def drive(steps, first, last, start_s, table, day, tally):  # type: ignore[no-untyped-def]
    """Do the steps `first` to `last` - 1 of one robot on all scenarios.

    Parameters
    ----------
    table, day
        Factors of shape (rows, B) and (B,), float32.
    tally
        Sums to add to.
    """
    for low in range(0, len(day), STRIP):
        high = min(low + STRIP, len(day))
        now, is_late = tally.now_s[low:high], tally.is_late[low:high]
        now[:] = start_s
        is_late[:] = 0
        for k in range(first, last):
            _arrive(
                now,
                steps.serve_s[k],
                table[steps.serve_row[k], low:high],
                steps.drive_s[k],
                table[steps.drive_row[k], low:high],
                day[low:high],
                steps.wait_s[k],
                table[steps.wait_row[k], low:high],
                steps.fixed_s[k],
            )
            earliest_s, trip = steps.earliest_s[k], steps.trip[k]
            if earliest_s > 0.0:
                if steps.waits[k] == 1:
                    _count_wait(now, earliest_s, tally.waiting_s[low:high])
                _wait(now, earliest_s)
            if steps.latest_s[k] < np.inf:
                latest_s = steps.latest_s[k] + TOLERANCE_S
                if trip >= 0:
                    tally.late[k] += _count(now, latest_s)
                else:
                    tally.late[k] += _count_late(now, latest_s, is_late)
                    lateness_s, cost = tally.lateness_s[low:high], tally.cost[low:high]
                    _delay(now, steps.due_s[k], steps.price_per_s[k], lateness_s, cost)
            if trip >= 0:
                tally.trips[trip] += is_late.sum()
                is_late[:] = 0


# One array an argument: compiled to vector instructions, which arrays in tuples are not.
@loop
def _arrive(now, serve, by_service, drive, by_drive, day, wait, by_wait, fixed):  # type: ignore[no-untyped-def]
    for s in range(len(now)):
        leg = drive * by_drive[s] * day[s] + wait * by_wait[s]
        now[s] += serve * by_service[s] + leg + fixed


@loop
def _wait(now, earliest_s):  # type: ignore[no-untyped-def]
    for s in range(len(now)):
        now[s] = max(now[s], earliest_s)


@loop
def _count_wait(now, earliest_s, waiting_s):  # type: ignore[no-untyped-def]
    for s in range(len(now)):
        waiting_s[s] += max(earliest_s - now[s], 0.0)


@loop
def _count(now, latest_s):  # type: ignore[no-untyped-def]
    count = 0
    for s in range(len(now)):
        count += now[s] > latest_s
    return count


@loop
def _count_late(now, latest_s, is_late):  # type: ignore[no-untyped-def]
    count = 0
    for s in range(len(now)):
        late = now[s] > latest_s
        count += late
        is_late[s] |= late
    return count


@loop
def _delay(now, due_s, price_per_s, lateness_s, cost):  # type: ignore[no-untyped-def]
    for s in range(len(now)):
        late_s = now[s] - due_s
        late_s = late_s if late_s > TOLERANCE_S else 0.0
        lateness_s[s] += late_s
        cost[s] += price_per_s * late_s
