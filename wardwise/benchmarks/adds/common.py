"""Rows, CPU time, and machines that all parts share."""

from __future__ import annotations

import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Row = dict[str, Any]

SEED = 1
LAYOUTS: dict[str, tuple[tuple[float, float], ...]] = {
    "one_point": ((0.0, 0.0),),
    "same_end": ((0.0, 0.0), (0.0, 0.0)),
    "opposite_ends": ((0.0, 0.0), (12.0, 0.0)),
}


def row(
    name: str,
    value: float,
    unit: str,
    goal: tuple[str, float] | None = None,
    *,
    peer: str | None = None,
    detail: dict[str, Any] | None = None,
) -> Row:
    """One measurement."""
    return {
        "name": name, "value": float(f"{value:.6g}"), "unit": unit,
        "goal": goal, "peer": peer, "detail": detail or {}, "seed": SEED,
    }  # fmt: skip


def peer_of(package: str) -> str:
    """Name and version of a package."""
    return f"{package} {metadata.version(package)}"


def cpu_s(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of the process in a call, and what it gave."""
    begun = time.process_time()
    found = call()
    return time.process_time() - begun, found


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of calls that take turns, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            seconds = cpu_s(call)[0]
            if number:
                times[name].append(seconds)
    return {name: float(np.median(taken)) for name, taken in times.items()}


def draw_orders(sizes: list[int], seed: int = SEED, num_cells: int = 600) -> list[list[list[int]]]:
    """Orders of these sizes at uniformly random cells, one bin a line."""
    rng = np.random.default_rng(seed)
    return [rng.choice(num_cells, size, replace=False)[:, None].tolist() for size in sizes]
