"""One self-contained HTML page: no network, no fonts or scripts from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from wardwise.io.files import write_text
from wardwise.report.clock import Clock
from wardwise.report.service import PRIORITIES, service_line
from wardwise.report.view import build_view

if TYPE_CHECKING:
    import os

    from wardwise.fleet.check import Report
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance
    from wardwise.report.view import View


def write_report(
    instance: Instance,
    plan: Plan,
    report: Report,
    path: str | os.PathLike[str],
    *,
    start_h: float | None = None,
) -> None:
    """Write the page of a plan; an existing file is replaced only by a whole new one.

    Parameters
    ----------
    report
        What `wardwise.fleet.check.check` says about the same instance and plan.
    start_h
        Hour of the day at second 0; `None` writes times since the start.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    page = render_report(instance, plan, report, start_h=start_h)
    write_text(path, page)


def render_report(
    instance: Instance, plan: Plan, report: Report, *, start_h: float | None = None
) -> str:
    """Text of the page that `write_report` writes."""
    clock = Clock(start_h=start_h, is_plain=instance.site is None)
    view = build_view(instance, plan, report, clock)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            instance=instance,
            report=report,
            view=view,
            facts=table_facts(view),
            lateness=clock.span(view.service.expected_lateness_s) if view.service else "",
            headline=service_line(view.service) if view.service else "",
            has_chargers=any(station.charge is not None for station in instance.stations),
            has_charges=any(trip.charges for trip in plan.trips),
            priorities=list(PRIORITIES.values()),
        )
    )


def environment() -> Environment:
    """Where the templates of all pages are found; text of users is always escaped."""
    return Environment(
        loader=PackageLoader("wardwise", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def table_facts(view: View) -> list[dict[str, Any]]:
    """What the script knows about the rows of the table of requests."""
    return [
        {
            "facts": row.facts,
            "sort": row.sort,
            "window": [row.window_bar.left, row.window_bar.width],
        }
        for row in view.rows
    ]
