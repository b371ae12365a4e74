"""Line charts as inline SVG that follows the colours of the page.

Strokes and text take their colour from CSS classes (``s0``, ``s1``, … for series), so the same
drawing serves light and dark pages; a drawing made for its width keeps its text readable.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.report.runs import Point

Range = tuple[float, float]
GAP = 15.0  # least distance of two labels beside the curves, in pixels


@dataclass(frozen=True, kw_only=True)
class Series:
    """One run in a chart.

    Parameters
    ----------
    label
        Name beside the curve.
    index
        Which colour and marker of the page it has.
    line
        Points of the thin line.
    marks
        Points of the thick line with markers.
    """

    label: str
    index: int
    line: tuple[Point, ...]
    marks: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The drawing area and what it shows.

    Parameters
    ----------
    width, height
        Size of the whole drawing in pixels.
    x_range, y_range
        Values at the edges of the area.
    left, right, top, bottom
        Room around the area in pixels.
    """

    width: int
    height: int
    x_range: Range
    y_range: Range
    left: int = 46
    right: int = 64
    top: int = 12
    bottom: int = 40

    def x(self, value: float) -> float:
        """Horizontal place of a value in pixels."""
        low, high = self.x_range
        inner = self.width - self.left - self.right
        return self.left + (value - low) / (high - low) * inner

    def y(self, value: float) -> float:
        """Vertical place of a value in pixels, counted from the top."""
        low, high = self.y_range
        inner = self.height - self.top - self.bottom
        return self.top + (high - value) / (high - low) * inner


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values between two bounds, about ``count`` of them, 1, 2 or 5 times a power of ten."""
    raw = (high - low) / count
    power = 10.0 ** floor(log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def line_chart(
    series: Sequence[Series],
    *,
    width: int,
    height: int,
    x_range: Range,
    y_range: Range,
    title: str,
    y_label: str = "nats per token",
) -> str:
    """Draw losses over steps.

    Parameters
    ----------
    series
        Runs to draw; points outside the ranges are left out.
    width, height
        Size in pixels.
    x_range, y_range
        Values at the edges.
    title
        What a screen reader says.
    y_label
        Text above the vertical axis.

    Returns
    -------
    str
        An ``svg`` element.
    """
    frame = Frame(width=width, height=height, x_range=x_range, y_range=y_range, top=26)
    parts = [_axes(frame, y_label)]
    for one in series:
        parts.append(_polyline(frame, one.line, f"thin s{one.index}"))
        parts.append(_polyline(frame, one.marks, f"thick s{one.index}"))
        parts.extend(
            marker(frame.x(x), frame.y(y), one.index, f"{one.label}, step {x:g}: {y:.4f}")
            for x, y in _inside(frame, one.marks)
        )
    parts.append(_labels(frame, series))
    return element(width, height, title, "".join(parts))


def element(width: int, height: int, title: str, content: str) -> str:
    """Wrap drawing commands into an ``svg`` element that scales down with the page."""
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">{content}</svg>'
    )


def text(x: float, y: float, content: str, *, anchor: str = "start", css: str = "") -> str:
    """Place text; ``anchor`` is start, middle or end."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">'
        f"{escape(content)}</text>"
    )


def marker(x: float, y: float, index: int, hint: str) -> str:
    """Draw the marker of a series: circle, square, triangle or diamond, with a hover text."""
    name, place = (
        ("circle", f'cx="{x:.1f}" cy="{y:.1f}" r="3.6"'),
        ("rect", f'x="{x - 3.3:.1f}" y="{y - 3.3:.1f}" width="6.6" height="6.6"'),
        ("path", f'd="M{x:.1f} {y - 4.4:.1f}l4.4 7.6h-8.8z"'),
        ("path", f'd="M{x:.1f} {y - 4.8:.1f}l4.8 4.8l-4.8 4.8l-4.8 -4.8z"'),
    )[index % 4]
    return f'<{name} {place} class="mark s{index}"><title>{escape(hint)}</title></{name}>'


def _inside(frame: Frame, points: Sequence[Point]) -> list[Point]:
    (x_low, x_high), (y_low, y_high) = frame.x_range, frame.y_range
    return [(x, y) for x, y in points if x_low <= x <= x_high and y_low <= y <= y_high]


def _polyline(frame: Frame, points: Sequence[Point], css: str) -> str:
    kept = _inside(frame, points)
    places = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in kept)
    return f'<polyline points="{places}" class="{css}"/>'


def _axes(frame: Frame, y_label: str) -> str:
    right, base = frame.width - frame.right, frame.height - frame.bottom
    parts = [text(0, 12, y_label, css="axis")]
    y_ticks = ticks(*frame.y_range)
    digits = max(0, -floor(log10(y_ticks[1] - y_ticks[0]) + 1e-9))
    for value in y_ticks:
        y = frame.y(value)
        parts.append(f'<line x1="{frame.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(frame.left - 6, y + 4, f"{value:.{digits}f}", anchor="end", css="axis"))
    parts.extend(
        text(frame.x(value), base + 17, f"{value:g}", anchor="middle", css="axis")
        for value in ticks(*frame.x_range, count=max(2, (right - frame.left) // 90))
    )
    parts.append(f'<line x1="{frame.left}" x2="{right}" y1="{base}" y2="{base}" class="base"/>')
    parts.append(text(right, base + 34, "training step", anchor="end", css="axis"))
    return "".join(parts)


def _labels(frame: Frame, series: Sequence[Series]) -> str:
    """Names at the right ends of the thick lines, moved apart where they would touch."""
    ends = sorted(
        (frame.y(kept[-1][1]), one.label) for one in series if (kept := _inside(frame, one.marks))
    )
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + GAP) if places else y)
    # Pushed down only, the labels would drift; centre the group on where it belongs.
    drift = sum(place - y for place, (y, _) in zip(places, ends, strict=True)) / max(1, len(ends))
    right = frame.width - frame.right + 8
    return "".join(
        text(right, place - drift + 4, label, css="label")
        for place, (_, label) in zip(places, ends, strict=True)
    )
