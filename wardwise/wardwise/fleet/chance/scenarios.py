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

from wardwise.fleet.chance.factors import fill_factors
from wardwise.fleet.chance.luck import Purpose, Stream, key_of, uniforms
from wardwise.fleet.chance.normal import TOLERANCE_S
from wardwise.fleet.chance.steps import itinerary_of
from wardwise.fleet.randomness import Law, Randomness, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from wardwise.fleet.chance.steps import Itinerary, Row
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

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
    itinerary = itinerary_of(instance, plan)
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
        self._keys = [[key_of(draw.stream, seed) for draw in row.draws] for row in itinerary.rows]
        self._day = Spread(law=Law.LOGNORMAL, cv=law.day)
        self._day_key = key_of(Stream(Purpose.DAY), seed)

    def __call__(self, block: tuple[int, int]) -> Tally:
        first, count = block
        itinerary = self._itinerary
        tally = Tally.empty(count, len(itinerary.steps.trip), len(itinerary.trips))
        day = np.ones(count, dtype=np.float32)
        if self._day.cv > 0:
            fill_factors(self._day, self._day.cv, uniforms(self._day_key, first, count), day)
        for row, keys in zip(itinerary.rows, self._keys, strict=True):
            table = table_of(row, keys, first, count)
            drive(itinerary.steps, row.first, row.last, row.start_s, table, day, tally)
        return tally


def table_of(
    row: Row, keys: list[NDArray[np.uint64]], first: int, count: int
) -> NDArray[np.float32]:
    """Factors of a robot on `count` scenarios from `first` on; ones in row 0."""
    table = np.empty((1 + len(row.draws), count), dtype=np.float32)
    table[0] = 1.0
    for number, (draw, key) in enumerate(zip(row.draws, keys, strict=True)):
        fill_factors(draw.spread, draw.cv, uniforms(key, first, count), table[number + 1])
    return table


@njit(cache=True, _nrt=False, nogil=True)  # type: ignore[call-overload]
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
        for s in range(low, high):
            tally.now_s[s] = start_s
            tally.is_late[s] = 0
        for k in range(first, last):
            _step(steps, k, low, high, table, day, tally)


@njit(cache=True, _nrt=False, nogil=True, forceinline=True)  # type: ignore[call-overload]
def _step(steps, k, low, high, table, day, tally):  # type: ignore[no-untyped-def]
    serve, drive_s, wait, fixed = (
        steps.serve_s[k],
        steps.drive_s[k],
        steps.wait_s[k],
        steps.fixed_s[k],
    )
    f, g, h = steps.serve_row[k], steps.drive_row[k], steps.wait_row[k]
    earliest, latest, trip = steps.earliest_s[k], steps.latest_s[k], steps.trip[k]
    for s in range(low, high):
        more = serve * table[f, s] + drive_s * table[g, s] * day[s] + wait * table[h, s] + fixed
        tally.now_s[s] += more
    if steps.waits[k] == 1 and earliest > 0.0:
        for s in range(low, high):
            tally.waiting_s[s] += max(earliest - tally.now_s[s], 0.0)
    for s in range(low, high):
        tally.now_s[s] = max(tally.now_s[s], earliest)
    if latest < np.inf:
        count = 0
        for s in range(low, high):
            late = tally.now_s[s] > latest + TOLERANCE_S
            count += late
            if trip < 0:
                tally.is_late[s] |= late
        tally.late[k] += count
        due, price = steps.due_s[k], steps.price_per_s[k]
        for s in range(low, high):
            delay = tally.now_s[s] - due
            delay = delay if delay > TOLERANCE_S else 0.0
            tally.lateness_s[s] += delay
            tally.cost[s] += price * delay
    if trip >= 0:
        count = 0
        for s in range(low, high):
            count += tally.is_late[s]
            tally.is_late[s] = 0
        tally.trips[trip] += count
