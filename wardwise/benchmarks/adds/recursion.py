"""How fast the exact recursion runs: line-updates a second on one thread.

A thousand replications wide, float64, the whole public call with its checks and its new arrays.
Beside it: the event-by-event twin in SimPy, and a recursion in plain numpy, a line of all
replications at a time, with the same results. The floor is memory: a compiled loop that reads every
service time and writes both results, and does nothing else, held against the compiled recursion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.service_time import Lognormal
from wardwise.pharmacy.timing import arm_times, recur, simulate
from wardwise.pharmacy.twin import replay

from .common import SEED, cpu_s, medians, peer_of, row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.pharmacy.rack import Floats

    from .common import Row

GOAL_LINES_PER_S = 2e7
REPLICATIONS, LINES = 1000, 3000
TWIN_REPLICATIONS = 4


def rows(*, is_quick: bool) -> Iterator[Row]:
    """One and two points, one and two pharmacists."""
    rng = np.random.default_rng(SEED)
    lines = LINES // 10 if is_quick else LINES
    cells = rng.integers(0, 600, lines)
    service_s = Lognormal().sample((REPLICATIONS, lines), rng)
    for m in (1, 2):
        for q in (1, 2):
            machine = Machine(points_m=((0.0, 0.0),) * m, num_pharmacists=q)
            yield from _machine_rows(machine, cells, service_s, 3 if is_quick else 7)


def _machine_rows(machine: Machine, cells: Any, service_s: Floats, rounds: int) -> Iterator[Row]:
    m, q, size = machine.num_points, machine.num_pharmacists, service_s.size
    times = arm_times(machine, cells)
    out = np.empty_like(service_s), np.empty_like(service_s)
    taken = medians(
        {
            "ours": lambda: simulate(machine, cells, service_s),
            "recursion": lambda: recur(*times, service_s, m, q, *out),
            "numpy": lambda: by_columns(*times, service_s, m, q),
            "memory": lambda: stream(service_s, *out),
        },
        rounds,
    )
    twin_s, twin = cpu_s(lambda: replay(machine, cells, service_s[:TWIN_REPLICATIONS]))
    taken["simpy"] = twin_s / TWIN_REPLICATIONS * REPLICATIONS
    rate = {name: float(f"{size / seconds:.4g}") for name, seconds in taken.items()}
    name = f"recursion_m{m}_q{q}"
    detail = {
        "replications": REPLICATIONS, "lines": len(cells), "threads": 1, "lines_per_s": rate,
        "rounds": rounds,
    }  # fmt: skip
    yield row(f"{name}_lines_per_s", size / taken["ours"], "1/s", (">=", GOAL_LINES_PER_S),
              detail=detail)  # fmt: skip
    for peer in ("simpy", "numpy"):
        yield row(f"{name}_times_faster_than_{peer}", taken[peer] / taken["ours"], "x", (">=", 1.0),
                  peer=peer_of(peer))  # fmt: skip
    yield row(f"{name}_over_memory_floor", taken["recursion"] / taken["memory"], "x")
    ours = simulate(machine, cells, service_s).sorted_s
    off = max(
        float(abs(ours[:TWIN_REPLICATIONS] - twin.sorted_s).max()),
        float(abs(ours - by_columns(*times, service_s, m, q)[1]).max()),
    )
    yield row(f"{name}_difference", off, "s", ("<=", 1e-6), peer="simpy and numpy")


def by_columns(
    cycle_s: Floats, shift_s: Floats, service_s: Floats, m: int, q: int
) -> tuple[Floats, Floats]:
    """When each line is delivered and sorted: the recursion in numpy, line by line."""
    delivered, done = np.empty((2, *service_s.T.shape))  # lines by replications: rows are written
    at = np.zeros(len(service_s))
    for k, times_s in enumerate(service_s.T):
        start = at + shift_s[k]
        if k >= m:
            start = np.maximum(start, done[k - m])
        at = np.add(start, cycle_s[k], out=delivered[k])
        begin = at if k < q else np.maximum(at, done[k - q])
        np.add(begin, times_s, out=done[k])
    return delivered.T, done.T


@njit(cache=True)
def stream(service_s: Any, delivered_s: Any, sorted_s: Any) -> None:
    """Read once and write twice."""
    for r in range(service_s.shape[0]):
        for k in range(service_s.shape[1]):
            delivered_s[r, k] = sorted_s[r, k] = service_s[r, k]
