"""The curve of a sized fleet, as SVG written by hand.

Cost of a day and denials of each class against the spare robots, one line for each
protection level. The drawing brings its own colours, light and dark, so that it looks
the same in a page and as a file of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardwise.fleet.sizing import Interval, Outcome, Sizing

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 34, 44
KEY_ROW, KEY_COLUMN = 20, 200
TICKS = 5
LABEL = 'role="img" aria-label="Cost of a day and share denied of each class by spare robots"'
DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 5", "5 2")

STYLE = """
.curve { --ink: #16202a; --muted: #5a6773; --line: #d9dfe5; --mark: #16202a;
  --c0: #0072b2; --c1: #d55e00; --c2: #00805e; --c3: #a8467e; --c4: #8a6100; --c5: #5a6773; }
@media (prefers-color-scheme: dark) { .curve { --ink: #e8edf2; --muted: #9eabb7;
  --line: #303c48; --mark: #e8edf2; --c0: #56b4e9; --c1: #ff9a4d; --c2: #3fc79d;
  --c3: #e79cc4; --c4: #e0b13c; --c5: #b4bfc9; } }
.curve text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  fill: var(--ink); }
.curve .name { font-weight: 600; } .curve .tick { fill: var(--muted); }
.curve .grid { stroke: var(--line); fill: none; }
.curve .line { fill: none; stroke-width: 2; } .curve .reach { stroke-width: 1.5; }
.curve .best { fill: none; stroke: var(--mark); stroke-width: 2; }
"""


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One chart: a value of every fleet, scaled to percent where it is a share."""

    title: str
    unit: str
    scale: float
    values: tuple[Interval, ...]


def draw_sizing(sizing: Sizing) -> str:
    """SVG of the curve, complete with its key; the recommended fleet is ringed."""
    outcomes = sizing.outcomes
    panels = [
        _Panel(
            title="Cost of a day, robots owned included",
            unit="",
            scale=1.0,
            values=tuple(outcome.cost_owned for outcome in outcomes),
        )
    ]
    for rank, name in enumerate(("Stat", "Urgent", "Routine")):
        denied = tuple(outcome.denied[rank] for outcome in outcomes)
        panels.append(_Panel(title=f"{name} denied", unit=" %", scale=100.0, values=denied))
    levels = sorted({outcome.protection for outcome in outcomes})
    key_rows = math.ceil(len(levels) / (2 * WIDTH // KEY_COLUMN))
    top = (key_rows + 1) * KEY_ROW
    box = f"0 0 {2 * WIDTH} {top + 2 * HEIGHT}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curve" viewBox="{box}" {LABEL}>',
        f"<style>{STYLE}</style>",
        *_key(levels),
    ]
    for k, panel in enumerate(panels):
        row, column = divmod(k, 2)
        parts.append(f'<g transform="translate({column * WIDTH} {top + row * HEIGHT})">')
        parts += [*_chart(panel, sizing, levels), "</g>"]
    return "\n".join([*parts, "</svg>"])


def level_name(protection: tuple[int, ...]) -> str:
    """Protection levels in words, short."""
    _, urgent, routine = protection
    return f"{urgent} / {routine} kept back" if routine else "no protection"


def _key(levels: list[tuple[int, int, int]]) -> list[str]:
    """What each line stands for."""
    note = "Spares kept back from urgent / from routine requests:"
    parts = [f'<text x="8" y="15" class="tick">{note}</text>']
    per_row = 2 * WIDTH // KEY_COLUMN
    for k, level in enumerate(levels):
        row, column = divmod(k, per_row)
        x, y = 8 + column * KEY_COLUMN, (row + 1) * KEY_ROW + 15
        parts.append(f'<path d="M{x} {y - 4}h34" {_stroke(k)}/>')
        parts.append(f'<text x="{x + 42}" y="{y}">{level_name(level)}</text>')
    return parts


def _chart(panel: _Panel, sizing: Sizing, levels: list[tuple[int, int, int]]) -> list[str]:
    """Axes, grid, and a line with a dot at each fleet."""
    outcomes = sizing.outcomes
    spares = sorted({outcome.num_spares for outcome in outcomes})
    lows = [panel.scale * value.low for value in panel.values]
    highs = [panel.scale * value.high for value in panel.values]
    marks = ticks(0.0 if panel.unit else min(lows), max(highs))

    def x(value: float) -> float:
        span = max(spares) - min(spares)
        share = (value - min(spares)) / span if span else 0.5
        return LEFT + 12 + share * (WIDTH - LEFT - RIGHT - 24)

    def y(value: float) -> float:
        share = (panel.scale * value - marks[0]) / (marks[-1] - marks[0])
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    parts = [f'<text x="{LEFT}" y="20" class="name">{panel.title}</text>']
    for tick in marks:
        at = y(tick / panel.scale)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        label = f"{tick:,.10g}{panel.unit}"
        parts.append(tick_label(LEFT - 7, at + 4, label, "end"))
    parts += [tick_label(x(count), HEIGHT - BOTTOM + 18, f"{count}", "middle") for count in spares]
    parts.append(tick_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "spare robots", "middle"))
    for k, level in enumerate(levels):
        fleets = [i for i, outcome in enumerate(outcomes) if outcome.protection == level]
        points = [(x(outcomes[i].num_spares), panel.values[i]) for i in fleets]
        path = "L".join(f"{at:.1f} {y(value.mean):.1f}" for at, value in points)
        parts.append(f'<path d="M{path}" {_stroke(k)}/>')
        for i, (at, value) in zip(fleets, points, strict=True):
            parts.append(
                f'<path class="reach" d="M{at:.1f} {y(value.low):.1f}V{y(value.high):.1f}" '
                f'style="stroke:var(--c{k % len(DASHES)})"/>'
                f'<circle cx="{at:.1f}" cy="{y(value.mean):.1f}" r="3.5" '
                f'style="fill:var(--c{k % len(DASHES)})">'
                f"<title>{_tip(outcomes[i], value, panel)}</title></circle>"
            )
    at, best = x(sizing.best.num_spares), panel.values[sizing.recommended]
    parts.append(f'<circle class="best" cx="{at:.1f}" cy="{y(best.mean):.1f}" r="8"/>')
    return parts


def _tip(outcome: Outcome, value: Interval, panel: _Panel) -> str:
    """What hovering over a dot tells."""
    mean, low, high = (panel.scale * v for v in (value.mean, value.low, value.high))
    fleet = f"{outcome.num_robots} robots, {level_name(outcome.protection)}"
    return f"{fleet}: {mean:,.1f}{panel.unit} ({low:,.1f} to {high:,.1f})"


def _stroke(k: int) -> str:
    colour, dash = k % len(DASHES), DASHES[k % len(DASHES)]
    return f'class="line" style="stroke:var(--c{colour});stroke-dasharray:{dash or "none"}"'


def tick_label(x: float, y: float, text: str, anchor: str) -> str:
    """Text beside an axis."""
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, at most seven, that enclose a range."""
    span = high - low if high > low else max(abs(high), 1.0)
    rough = span / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 10) for k in range(first, max(last, first + 1) + 1)]
