"""The page of promises: what each of them costs, and a picture of robots and metres."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wardwise.io.files import write_text
from wardwise.report.curve import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    STYLE,
    TOP,
    WIDTH,
    tick_label,
    ticks,
)
from wardwise.report.html import environment
from wardwise.report.service import PRIORITIES

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from wardwise.fleet.sizing.levels import Confidence, Level

LABEL = 'role="img" aria-label="Robots, distance, late share and lateness by percent on time"'
# Above the highest dot, for its number.
ROOM = 14
# So many names fit beside each other on an axis, and so many numbers above the dots.
MOST_NAMES, MOST_NUMBERS = 4, 6
MORE_STYLE = """
.curve .open { fill: var(--card, #fff); stroke-width: 2; stroke-dasharray: 3 2; }
.curve .tick { paint-order: stroke; stroke: var(--card, #fff); stroke-width: 4px; }
"""


class _Panel(NamedTuple):
    """A value of each level, with what it may reach up to and where it is promised to end."""

    title: str
    unit: str
    digits: int
    values: list[float]
    uppers: list[float] | None = None
    promised: list[float] | None = None
    is_whole: bool = False


def write_confidence_report(
    found: Confidence, path: str | os.PathLike[str], reasons: Mapping[str, str]
) -> None:
    """Write the page; an existing file is replaced only by a whole new one.

    Parameters
    ----------
    reasons
        What stands in the way of promises that are not kept, by the name of their level.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    write_text(path, render_confidence_report(found, reasons))


def render_confidence_report(found: Confidence, reasons: Mapping[str, str]) -> str:
    """Text of the page that `write_confidence_report` writes."""
    ranks = [
        rank
        for rank in PRIORITIES
        if any(level.classes[rank - 1].num_requests for level in found.levels)
    ]
    return (
        environment()
        .get_template("confidence.html.j2")
        .render(
            found=found,
            reasons=reasons,
            curve=draw_confidence(found),
            lateness=[late_span(found, level) for level in found.levels],
            classes={rank - 1: PRIORITIES[rank] for rank in ranks if len(ranks) > 1},
        )
    )


def late_span(found: Confidence, level: Level) -> str:
    """Expected lateness of a day: in minutes in a building, else in the instance's unit."""
    late_s = level.certificate.expected_lateness_s
    return f"{late_s / 60:,.1f} min" if found.instance.site else f"{late_s:,.1f}"


def draw_confidence(found: Confidence) -> str:
    """SVG of robots, distance, late share and lateness against percent on time."""
    levels, in_building = found.levels, found.instance.site is not None
    lateness = [level.certificate.expected_lateness_s for level in levels]
    panels = (
        _Panel("Robots", "", 0, [level.num_robots for level in levels], is_whole=True),
        _Panel("Distance", " m" if in_building else "", 0, [level.distance_m for level in levels]),
        _Panel(
            "Late share of the worst request",
            " %",
            2,
            [100 * level.largest_late_share for level in levels],
            [100 * level.largest_upper for level in levels],
            [
                100 * max(level.promise.late_share) if level.promise else float("nan")
                for level in levels
            ],
        ),
        _Panel(
            "Expected lateness of a day",
            " min" if in_building else "",
            1,
            [late_s / 60 if in_building else late_s for late_s in lateness],
        ),
    )
    box = f"0 0 {2 * WIDTH} {2 * HEIGHT}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curve" viewBox="{box}" {LABEL}>',
        f"<style>{STYLE}{MORE_STYLE}</style>",
    ]
    for k, panel in enumerate(panels):
        row, column = divmod(k, 2)
        parts.append(f'<g transform="translate({column * WIDTH} {row * HEIGHT})">')
        parts += [*_chart(panel, levels, k), "</g>"]
    return "\n".join([*parts, "</svg>"])


class _Scale(NamedTuple):
    """Where a chart has its levels and values, in units of the drawing."""

    num_levels: int
    most: float

    def x(self, k: int) -> float:
        return LEFT + (k + 0.5) / self.num_levels * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.most * (HEIGHT - BOTTOM - TOP - ROOM)


def _chart(panel: _Panel, levels: tuple[Level, ...], colour: int) -> list[str]:
    """Axes, grid, a dot for each level, and a line through those that are kept."""
    uppers = panel.uppers or panel.values
    marks = [mark for mark in ticks(0.0, max(uppers)) if not panel.is_whole or mark == round(mark)]
    scale, paint = _Scale(len(levels), marks[-1]), f"var(--c{colour})"
    parts = [f'<text x="{LEFT}" y="20" class="name">{panel.title}</text>']
    for mark in marks:
        at = scale.y(mark)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(tick_label(LEFT - 7, at + 4, f"{mark:,.10g}{panel.unit}", "end"))
    for k, level in enumerate(levels):
        lower = 16 * (k % 2) if len(levels) > MOST_NAMES else 0
        parts.append(tick_label(scale.x(k), HEIGHT - BOTTOM + 18 + lower, level.name, "middle"))
    shown = [k for k, level in enumerate(levels) if level.is_kept is not False]
    path = "L".join(f"{scale.x(k):.1f} {scale.y(panel.values[k]):.1f}" for k in shown)
    parts.append(f'<path d="M{path}" class="line" style="stroke:{paint}"/>')
    for k, level in enumerate(levels):
        parts += _dot(panel, k, level, scale, paint)
    return parts


def _dot(panel: _Panel, k: int, level: Level, scale: _Scale, paint: str) -> list[str]:
    """A level with its number, the bound above it, and what is promised."""
    value, x = panel.values[k], scale.x(k)
    y, upper_y = scale.y(value), scale.y(panel.uppers[k] if panel.uppers else value)
    number = f"{value:,.{panel.digits}f}{panel.unit}"
    above_y, parts = upper_y, []
    if panel.promised is not None and panel.promised[k] <= scale.most:
        at = scale.y(panel.promised[k])
        parts.append(f'<path class="best" d="M{x - 13:.1f} {at:.1f}h26"/>')
        if 0 < upper_y - at < ROOM + 9:
            above_y = at  # where the number would be crossed out
    is_open = level.is_kept is False
    look = f'class="open" style="stroke:{paint}"' if is_open else f'style="fill:{paint}"'
    tip = f"<title>{level.name}: {number}</title>"
    parts += [
        f'<path class="reach" d="M{x:.1f} {y:.1f}V{upper_y:.1f}" style="stroke:{paint}"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {look}>{tip}</circle>',
    ]
    if scale.num_levels <= MOST_NUMBERS:
        parts.append(tick_label(x, above_y - 9, number, "middle"))
    return parts
