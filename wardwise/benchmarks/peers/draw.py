"""The figure of the static comparison, as an SVG file written by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

WIDTH, HEIGHT = 380, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 70, 34, 44
COLOURS = ("#0f62a8", "#c2410c", "#15803d", "#7c3aed", "#a16207", "#475569")
MIDDLE = 'text-anchor="middle"'
FONT = 'font-family="system-ui, sans-serif" font-size="12" fill="#1f2937"'

Lines = dict[str, dict[float, float]]  # solver: budget in seconds: value


class Panel(NamedTuple):
    """One chart: a line for each solver, budgets on a log axis unless said otherwise."""

    title: str
    unit: str
    lines: Lines
    is_log: bool
    x_label: str = "CPU seconds of one thread"
    is_log_x: bool = True


def write_figure(path: Path, panels: list[Panel]) -> None:
    """Write the panels side by side."""
    solvers = sorted({solver for panel in panels for solver in panel.lines})
    colour = {solver: COLOURS[k % len(COLOURS)] for k, solver in enumerate(solvers)}
    width = WIDTH * len(panels)
    label = "; ".join(panel.title for panel in panels)
    space = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}"'
    parts = [
        f'<svg {space} role="img" aria-label="{label}">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for k, panel in enumerate(panels):
        place = f'transform="translate({k * WIDTH} 0)"'
        parts += [f"<g {place} {FONT}>", *_chart(panel, colour), "</g>"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _chart(panel: Panel, colour: Mapping[str, str]) -> list[str]:
    """Axes, grid, lines with a dot at each budget, names at their right ends."""
    budgets = sorted({budget for line in panel.lines.values() for budget in line})
    values = [value for line in panel.lines.values() for value in line.values()]
    ticks = _ticks(values, is_log=panel.is_log)
    x = _scale(budgets[0], budgets[-1], LEFT, WIDTH - RIGHT, is_log=panel.is_log_x)
    y = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP, is_log=panel.is_log)
    floor = ticks[0]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts = [
        _text(LEFT, 16, panel.title, more='font-weight="600"'),
        _text(middle, HEIGHT - 8, panel.x_label, more=MIDDLE),
    ]
    for tick in ticks:
        parts += [
            f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>',
            _text(LEFT - 6, y(tick) + 4, f"{tick:g}{panel.unit}", more='text-anchor="end"'),
        ]
    parts += [_text(x(t), HEIGHT - BOTTOM + 18, f"{t:g}", more=MIDDLE) for t in budgets]
    ends = []
    for solver, line in panel.lines.items():
        points = [(x(budget), y(max(value, floor))) for budget, value in sorted(line.items())]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour[solver]}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour[solver]}"/>'
            for px, py in points
        ]
        ends.append((points[-1][1], solver))
    last = -math.inf
    for height, solver in sorted(ends):
        last = max(height, last + 13)  # names that would cover each other move down
        parts.append(_text(WIDTH - RIGHT + 8, last + 4, solver, more=f'fill="{colour[solver]}"'))
    return parts


def _text(x: float, y: float, text: str, *, more: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{text}</text>'


def _ticks(values: list[float], *, is_log: bool) -> list[float]:
    """Round values that enclose all; a gap below 0.01 is drawn there."""
    highest = max(values)
    if is_log:
        low = math.floor(math.log10(max(0.01, min(values))))
        high = max(low + 1, math.ceil(math.log10(max(highest, 0.01))))
        return [10.0**k for k in range(low, high + 1)]
    ten = 10 ** max(0, math.floor(math.log10(max(1.0, highest / 5))))
    step = next(step for step in (ten, 2 * ten, 5 * ten, 10 * ten) if step >= highest / 5)
    lowest = min(0, math.floor(min(values) / step) * step)
    return [float(t) for t in range(lowest, max(lowest + step, math.ceil(highest)) + step, step)]


def _scale(
    low: float, high: float, start: float, end: float, *, is_log: bool
) -> Callable[[float], float]:
    """Map [low, high] to pixels; a single value stands in the middle."""
    place = math.log10 if is_log else float
    first, last = place(low), place(high)
    if first == last:
        return lambda _value: (start + end) / 2
    return lambda value: start + (place(value) - first) / (last - first) * (end - start)
