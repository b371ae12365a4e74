"""How long orders take against how many come, one line for each layout, as SVG written by hand.

Where a line turns upwards the layout is full. What comes today and what was promised are marked.
The drawing brings its own colours, light and dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from wardwise.report.curve import STYLE, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 880, 430
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 56, 46
KEY_ROW, KEY_COLUMN, KEY_COLUMNS = 20, 430, 2
NUM_COLOURS = 5
TALLEST = 5.0  # the axis ends at so many times the quickest order

OWN = """
.curve .paper { fill: #ffffff; } .curve .today { stroke: var(--mark); stroke-dasharray: 3 4; }
@media (prefers-color-scheme: dark) { .curve .paper { fill: #19222b; } }
"""


@dataclass(frozen=True, kw_only=True)
class FlowCurve:
    """A layout's line.

    Parameters
    ----------
    name
        In words.
    place
        Number of its arrangement of points, which gives the colour; from 0.
    num_pharmacists
        With more than one the line is dashed.
    points
        Orders an hour and minutes, rates rising.
    """

    name: str
    place: int
    num_pharmacists: int
    points: tuple[tuple[float, float], ...]

    @property
    def stroke(self) -> str:
        """How the line is drawn."""
        dash = "none" if self.num_pharmacists == 1 else "7 4"
        colour = self.place % NUM_COLOURS
        return f'class="line" style="stroke:var(--c{colour});stroke-dasharray:{dash}"'


def draw_flow(
    curves: Sequence[FlowCurve],
    *,
    title: str,
    orders_per_hour: float,
    promise_min: float | None = None,
) -> str:
    """SVG of the lines, complete with its key.

    Parameters
    ----------
    curves
        At least one, with at least one point each.
    title
        What minutes are shown.
    orders_per_hour
        What comes today.
    promise_min
        Minutes that were promised; None: nothing was.
    """
    key = 6 - (-len(curves) // KEY_COLUMNS) * KEY_ROW
    label = f'role="img" aria-label="{escape(title)}"'
    view = f"0 0 {WIDTH} {HEIGHT + key}"
    frame = _Frame.around(curves, orders_per_hour, promise_min)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curve" viewBox="{view}" {label}>',
        f"<style>{STYLE}{OWN}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        f'<text x="{LEFT}" y="22" class="name">{escape(title)}</text>',
        *frame.axes(),
        *(frame.line(curve) for curve in curves),
        *frame.marks(orders_per_hour, promise_min),
    ]
    for k, curve in enumerate(curves):
        row, column = divmod(k, KEY_COLUMNS)
        x, y = 12 + column * KEY_COLUMN, HEIGHT + 8 + row * KEY_ROW
        parts.append(f'<path d="M{x} {y - 4}h34" {curve.stroke}/>')
        parts.append(f'<text x="{x + 42}" y="{y}">{escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Axes with their round numbers."""

    rates: list[float]
    minutes: list[float]

    @classmethod
    def around(
        cls, curves: Sequence[FlowCurve], rate: float, promise_min: float | None
    ) -> _Frame:  # fmt: skip
        quickest = min(curve.points[0][1] for curve in curves)
        fastest = max(curve.points[-1][0] for curve in curves)
        return cls(
            rates=ticks(0.0, max(fastest, rate)),
            minutes=ticks(0.0, max(TALLEST * quickest, 1.2 * (promise_min or 0.0))),
        )

    def x(self, rate: float) -> float:
        """Where a rate stands."""
        return LEFT + rate / self.rates[-1] * (WIDTH - LEFT - RIGHT)

    def y(self, minutes: float) -> float:
        """Where minutes stand."""
        return HEIGHT - BOTTOM - minutes / self.minutes[-1] * (HEIGHT - BOTTOM - TOP)

    def axes(self) -> list[str]:
        """Grid and numbers."""
        parts = []
        for minutes in self.minutes:
            at = self.y(minutes)
            parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(_text(LEFT - 8, at + 4, f"{minutes:g} min", "end"))
        parts += [
            _text(self.x(rate), HEIGHT - BOTTOM + 18, f"{rate:g}", "middle") for rate in self.rates
        ]
        middle = (LEFT + WIDTH - RIGHT) / 2
        return [*parts, _text(middle, HEIGHT - BOTTOM + 36, "orders an hour", "middle")]

    def line(self, curve: FlowCurve) -> str:
        """Line of a layout, up to where it leaves the axis."""
        top = self.minutes[-1]
        inside = [point for point in curve.points if point[1] <= top]
        if inside and len(inside) < len(curve.points):
            (x0, y0), (x1, y1) = inside[-1], curve.points[len(inside)]
            inside.append((x0 + (x1 - x0) * (top - y0) / (y1 - y0), top))
        path = "L".join(f"{self.x(rate):.1f} {self.y(minutes):.1f}" for rate, minutes in inside)
        tip = f"<title>{escape(curve.name)}</title>"
        return f'<path d="M{path}" {curve.stroke}>{tip}</path>' if inside else ""

    def marks(self, rate: float, promise_min: float | None) -> list[str]:
        """What comes today, and the promise."""
        at = self.x(rate)
        anchor = "end" if at > WIDTH - 140 else "start"
        parts = [
            f'<path class="today" d="M{at:.1f} {TOP - 12}V{HEIGHT - BOTTOM}"/>',
            _text(at + (-6 if anchor == "end" else 6), TOP - 8, f"{rate:.3g} come", anchor),
        ]
        if promise_min is not None:
            y = self.y(promise_min)
            parts.append(f'<path class="today" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(_text(WIDTH - RIGHT, y - 6, f"promised {promise_min:g} min", "end"))
        return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
