"""Table of all days and the two figures of the study."""

from __future__ import annotations

import csv
from statistics import mean
from typing import TYPE_CHECKING

from benchmarks.peers.draw import Panel, write_figure

from .days import DEGREES, LIMITED, PLAIN, REOPTIMISED, SPARES, Day, denied_pct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Measure = Callable[[Sequence[Day]], float]


def write_table(path: Path, days: Sequence[Day]) -> None:
    """Write a line for each day."""
    fields = list(Day.__dataclass_fields__)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(fields)
        for day in days:
            writer.writerow([_cell(getattr(day, name)) for name in fields])


def _cell(value: object) -> object:
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else value


def draw_degrees(
    path: Path, days: Sequence[Day], measures: Mapping[str, Measure],
    study_values: Mapping[int, Sequence[float]],
) -> None:  # fmt: skip
    """Draw robots and distance above the reference plan, by degree of dynamism."""
    panels = []
    for k, (what, measure) in enumerate(measures.items()):
        lines = {
            label: {
                float(degree): 100
                * measure([d for d in days if (d.arm, d.degree) == (arm, degree)])
                - 100
                for degree in DEGREES
            }
            for arm, label in ((PLAIN, "plain"), (REOPTIMISED, "improved"))
        }
        lines["reference study"] = {
            float(degree): 100 * values[k] - 100 for degree, values in study_values.items()
        }
        title = f"{what.capitalize()} above the reference plan"
        panels.append(Panel(title, " %", lines, False, "dynamic requests, %", False))
    write_figure(path, panels)


def draw_spares(path: Path, days: Sequence[Day]) -> None:
    """Draw denials and cost by spares: one line for each protection level."""
    parts: dict[str, tuple[Measure, str]] = {
        "Stat requests denied": (lambda chosen: denied_pct(chosen, [0]), " %"),
        "Other requests denied": (lambda chosen: denied_pct(chosen, [1, 2]), " %"),
        "Cost of a day, thousands, every robot paid": (
            lambda chosen: mean(day.money for day in chosen) / 1000,
            "",
        ),
    }
    panels = [
        Panel(title, unit, _by_spares(days, measure), False, "spare robots", False)
        for title, (measure, unit) in parts.items()
    ]
    write_figure(path, panels)


def _by_spares(days: Sequence[Day], measure: Measure) -> dict[str, dict[float, float]]:
    def of(spares: int, level: int) -> list[Day]:
        fleet = (LIMITED, spares, level)
        return [day for day in days if (day.arm, day.spares, day.protection) == fleet]

    return {
        f"R = {level}": {float(n): measure(of(n, level)) for n in SPARES if n >= level}
        for level in (0, 1, 2)
    }
