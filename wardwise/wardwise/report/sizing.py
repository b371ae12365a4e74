"""The page of a sized fleet: recommendation, curve, table, closed forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.io.files import write_text
from wardwise.report.curve import draw_sizing, level_name
from wardwise.report.html import environment

if TYPE_CHECKING:
    import os

    from wardwise.fleet.sizing import Interval, Outcome, Sizing


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fleet of the table; cells are pairs of a value and the bounds below it."""

    robots: int
    spares: int
    level: str
    mark: str
    cells: tuple[tuple[str, str], ...]


COLUMNS = (
    "Cost a day, owned",
    "Cost a day, used",
    "Dearer than best",
    "Stat denied",
    "Urgent denied",
    "Routine denied",
    "Served",
    "Late",
    "Robots used",
    "Distance",
    "Calls lost: stat",
    "urgent",
    "routine",
    "By formula: stat",
    "urgent",
    "routine",
)


def write_sizing_report(sizing: Sizing, path: str | os.PathLike[str]) -> None:
    """Write the page; an existing file is replaced only by a whole new one.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    write_text(path, render_sizing_report(sizing))


def render_sizing_report(sizing: Sizing) -> str:
    """Text of the page that `write_sizing_report` writes."""
    return (
        environment()
        .get_template("sizing.html.j2")
        .render(
            sizing=sizing,
            best=sizing.best,
            level_name=level_name,
            columns=COLUMNS,
            rows=[_row(sizing, k) for k in range(len(sizing.outcomes))],
            curve=draw_sizing(sizing),
        )
    )


def _row(sizing: Sizing, index: int) -> Row:
    outcome = sizing.outcomes[index]
    marks = {sizing.recommended: "recommended", sizing.runner_up: "next best"}
    return Row(
        robots=outcome.num_robots,
        spares=outcome.num_spares,
        level=level_name(outcome.protection),
        mark=marks.get(index, ""),
        cells=_cells(outcome),
    )


def _cells(outcome: Outcome) -> tuple[tuple[str, str], ...]:
    money = (outcome.cost_owned, outcome.cost_used, outcome.extra_cost)
    shares = (*outcome.denied, outcome.served, outcome.late)
    return (
        *(_number(value) for value in money),
        *(_percent(value) for value in shares),
        _number(outcome.robots_used),
        _number(outcome.distance_m),
        *(_percent(value) for value in outcome.lost_calls),
        *((f"{100 * value:.1f} %", "") for value in outcome.protected_denial),
    )


def _number(value: Interval) -> tuple[str, str]:
    return f"{value.mean:,.1f}", f"{value.low:,.1f} – {value.high:,.1f}"


def _percent(value: Interval) -> tuple[str, str]:
    return f"{100 * value.mean:.1f} %", f"{100 * value.low:.1f} – {100 * value.high:.1f}"
