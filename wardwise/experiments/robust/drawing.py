"""Robots against risk: one small chart for each instance, one line for each method."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.peers.draw import COLOURS, FONT, MIDDLE

from .plans import LATE_SHARE, OURS
from .rows import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .judge import Judged

WIDTH, HEIGHT = 300, 230
LEFT, RIGHT, TOP, BOTTOM = 40, 14, 30, 42
LEGEND = 26
PER_LINE = 3
# Risks below are drawn at the left edge.
LEAST, MOST = 1e-3, 1.0
RISKS = {1e-3: "≤ 0.1 %", 1e-2: "1 %", LATE_SHARE: "5 %", 0.2: "20 %", 1.0: "100 %"}
DASHES = 'stroke-dasharray="4 3"'
END, MUTED = 'text-anchor="end"', 'fill="#6b7280"'


def write_figure(path: Path, verdicts: Sequence[Judged]) -> None:
    """Write a chart for each instance; nothing where there are no plans."""
    drawn = [one for one in verdicts if one.robots]
    names = list(dict.fromkeys(one.instance for one in drawn))
    if not names:
        return
    methods = sorted({one.method for one in drawn}, key=lambda method: (method != OURS, method))
    colour = dict(zip(methods, COLOURS, strict=False))
    width = WIDTH * PER_LINE
    height = LEGEND + HEIGHT * math.ceil(len(names) / PER_LINE)
    size = f'viewBox="0 0 {width} {height}"'
    label = "Robots and largest probability of being late at a stop, by method and instance"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f"<g {FONT}>",
        *_legend(colour),
        "</g>",
    ]
    for k, name in enumerate(names):
        x, y = WIDTH * (k % PER_LINE), LEGEND + HEIGHT * (k // PER_LINE)
        chosen = [one for one in drawn if one.instance == name]
        parts += [f'<g transform="translate({x} {y})" {FONT}>', *_chart(name, chosen, colour)]
        parts.append("</g>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _legend(colour: Mapping[str, str]) -> list[str]:
    parts, x = [], LEFT
    for method, fill in colour.items():
        name = NAMES.get(method, method)
        parts += [
            f'<circle cx="{x}" cy="14" r="4" fill="{fill}"/>',
            _text(x + 8, 18, name, more=f'fill="{fill}"'),
        ]
        x += 30 + 7 * len(name)
    return parts


def _chart(name: str, plans: Sequence[Judged], colour: Mapping[str, str]) -> list[str]:
    """Axes, the promised risk, and a line for each method through its margins."""
    counts = [one.robots for one in plans]
    low, high = min(counts) - 1, max(counts) + 1
    step = max(1, math.ceil((high - low) / 6))
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    log_x = _scale(math.log10(LEAST), math.log10(MOST), LEFT, WIDTH - RIGHT)
    parts = [
        _text(LEFT, 18, name, more='font-weight="600"'),
        _text(WIDTH / 2, HEIGHT - 6, "largest P(late) of a stop", more=f"{MIDDLE} {MUTED}"),
        _text(6, TOP - 2, "robots", more=MUTED),
    ]
    for tick in range(low, high + 1, step):
        parts += [
            f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>',
            _text(LEFT - 6, y(tick) + 4, str(tick), more=END),
        ]
    for risk, words in RISKS.items():
        parts.append(_text(log_x(math.log10(risk)), HEIGHT - BOTTOM + 16, words, more=MIDDLE))
    at = log_x(math.log10(LATE_SHARE))
    parts.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#b91c1c" {DASHES}/>')
    for method, fill in reversed(colour.items()):  # ours on top
        chosen = [one for one in plans if one.method == method]
        chosen.sort(key=lambda one: one.inflation or 0.0)
        points = [(log_x(math.log10(max(one.max_late, LEAST))), y(one.robots)) for one in chosen]
        way = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        if len(points) > 1:
            parts.append(f'<path d="M{way}" fill="none" stroke="{fill}" stroke-width="1.5"/>')
        radius = 5 if method == OURS else 3
        parts += [
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius}" fill="{fill}"/>' for px, py in points
        ]
    return parts


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _text(x: float, y: float, text: str, *, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{text}</text>'
