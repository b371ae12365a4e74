"""What a second and a third I/O point are worth, and the figures of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from wardwise.pharmacy.layout import Demand, Layout, LayoutFigures, analyse
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.service_time import Lognormal
from wardwise.pharmacy.timing import simulate

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the benchmarks' drawings serve here

from benchmarks.peers.draw import Panel, write_figure

CORNER = (0.0, 0.0)
CV = 0.4
BINS, DAYS = 20_000, 8
FINE_S = np.arange(2.0, 40.01, 0.25)  # mean service times among which the peak is sought
DRAWN_S = tuple(float(mean_s) for mean_s in range(5, 41, 5))
PLACES = (1, 2, 3, 4, 8)


def figures(mean_s: float, num_points: int, cv: float = CV) -> LayoutFigures:
    """Layout with points at one end by exact enumeration."""
    machine = Machine(points_m=(CORNER,) * num_points)
    return analyse(Layout(name="", machine=machine), Lognormal(mean_s, cv), Demand())


def saving_pct(mean_s: float, cv: float = CV) -> float:
    """What a second point at the same end saves of the seconds a bin."""
    one, two = (figures(mean_s, num_points, cv).cycle_s for num_points in (1, 2))
    return 100 * (1 - two / one)


def peak() -> tuple[float, float]:
    """Mean service time where a second point saves most, and what it saves."""
    savings = [saving_pct(mean_s) for mean_s in FINE_S.tolist()]
    best = int(np.argmax(savings))
    return float(FINE_S[best]), savings[best]


def simulated_cycle_s(mean_s: float, num_points: int, cv: float = CV) -> float:
    """Seconds a bin of long days with bins in random sequence."""
    rng = np.random.default_rng(1)
    machine = Machine(points_m=(CORNER,) * num_points)
    cells = rng.integers(0, machine.rack.num_cells, BINS)
    service_s = Lognormal(mean_s, cv).sample((DAYS, BINS), rng)
    return float(simulate(machine, cells, service_s).makespan_s.mean()) / BINS


def draw_savings(path: Path, reference: dict[float, float]) -> None:
    """Draw what a second point saves by the mean service time."""
    lines = {
        f"cv {cv:g}": {mean_s: saving_pct(mean_s, cv) for mean_s in DRAWN_S}
        for cv in (0.1, CV, 1.0)
    }
    lines["study"] = {mean_s: pct for mean_s, pct in reference.items() if mean_s in DRAWN_S}
    title = "Saved by a second point"
    write_figure(path, [Panel(title, " %", lines, False, "mean service time, s", False)])


def draw_places(path: Path, cycles_s: dict[tuple[float, float], dict[int, float]]) -> None:
    """Draw seconds a bin by the number of places."""
    lines = {
        f"{mean_s:g} s, {cv:g}": {float(m): seconds for m, seconds in found.items()}
        for (mean_s, cv), found in cycles_s.items()
    }
    title = "Seconds a bin: mean service time, cv"
    write_figure(path, [Panel(title, "", lines, False, "places for bins", False)])
