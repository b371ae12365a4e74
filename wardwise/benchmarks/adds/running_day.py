"""How long an answer of the online scheduler takes, over busy simulated days.

The whole public call, `Session.handle` with its journal, for every time that the arm asks: each is
a re-solve of the look-ahead from what stands at the points. Orders of three classes come at a rate
that keeps the machine at 90 % of its capacity. The journal is forced to its file before each
answer; where the file lies in memory that costs nothing, and the row has a goal; on a disk the row
tells what the disk takes. CPU time of the thread stands beside: other work on the machine does not
lengthen it.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.online import Ask, Policy, Session, Setup
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.running_day import live_day

from .common import LAYOUTS, SEED, row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.pharmacy.online import Decision, Event

    from .common import Row

GOAL_MS = 1.0
MEMORY = Path("/dev/shm")  # noqa: S108  # a folder in memory, where there is one
# Nine tenths of the capacity of a machine with three lines an order and 15 s of sorting.
ORDERS_PER_HOUR = {"one_point": 31.0, "same_end": 51.0, "opposite_ends": 38.0}
NUM_ORDERS, PACKS = 600, 500


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Each layout with a journal in memory and on the disk."""
    num_orders = 60 if is_quick else NUM_ORDERS
    places = {"": MEMORY if MEMORY.is_dir() else None, "_disk": None}
    for name in LAYOUTS:
        lived(name, 5, None, Policy())  # loads what is compiled
        for place, folder in places.items():
            yield from _place_rows(name, place, folder, num_orders)
    far = lived("same_end", num_orders, places[""], Policy(horizon=8))
    yield row("online_same_end_8_orders_ahead_p99", p99_ms(far.asked), "ms")


def _place_rows(name: str, place: str, folder: Path | None, num_orders: int) -> Iterator[Row]:
    day = lived(name, num_orders, folder, Policy())
    wall_s = [taken.wall_s for taken in day.asked]
    detail = {
        "asked": len(day.asked), "orders": num_orders, "horizon": Policy().horizon,
        "p50_ms": round(1e3 * float(np.median(wall_s)), 4), "most_ms": round(1e3 * max(wall_s), 3),
        "others": len(day.others), "others_p99_ms": round(p99_ms(day.others), 4), **day.busy,
    }  # fmt: skip
    is_goal = not place and folder is not None
    goal = ("<=", GOAL_MS) if is_goal else None
    yield row(f"online_{name}{place}_p99", p99_ms(day.asked), "ms", goal, detail=detail)
    if is_goal:
        cpu_ms = 1e3 * float(np.quantile([taken.cpu_s for taken in day.asked], 0.99))
        yield row(f"online_{name}_p99_cpu", cpu_ms, "ms", goal)


def p99_ms(calls: list[Taken]) -> float:
    """99th percentile of the time on the wall."""
    return 1e3 * float(np.quantile([taken.wall_s for taken in calls], 0.99))


class Taken(NamedTuple):
    """Seconds of one call, on the wall and of its thread."""

    wall_s: float
    cpu_s: float


class Lived(NamedTuple):
    """Calls in which the arm asks, all others, and how busy arm and pharmacist were."""

    asked: list[Taken]
    others: list[Taken]
    busy: dict[str, float]


def lived(layout: str, num_orders: int, folder: Path | None, policy: Policy) -> Lived:
    """Live through a day with a journal in a folder; None: where temporary files are."""
    day = generate_pharmacy(
        SEED, num_orders=num_orders, machine=Machine(points_m=LAYOUTS[layout]),
        arrivals_per_hour=ORDERS_PER_HOUR[layout],
    )  # fmt: skip
    bins = tuple(replace(bin_, quantity=PACKS) for bin_ in day.bins)
    setup = Setup(machine=day.machine, bins=bins, policy=policy)
    asked: list[Taken] = []
    others: list[Taken] = []
    with (
        tempfile.TemporaryDirectory(dir=folder) as place,
        Session(setup, Path(place) / "journal.jsonl") as session,
    ):

        def handle(event: Event) -> tuple[Decision, ...]:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            decisions = session.handle(event)
            taken = Taken(time.perf_counter() - wall_s, time.thread_time() - cpu_s)
            (asked if isinstance(event, Ask) else others).append(taken)
            return decisions

        found = live_day(setup, day.orders, handle=handle)
    busy = {"arm_busy": round(found.arm_busy, 3), "people_busy": round(found.people_busy, 3)}
    return Lived(asked, others, busy)
