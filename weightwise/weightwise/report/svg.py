"""Charts as SVG that follows the colours of the page, or of the reader where it stands alone.

Strokes and text take their colour from CSS classes (``s0``, ``s1``, … for series; ``chart.css``),
so the same drawing serves light and dark; a drawing made for its width keeps its text readable.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib.resources import files
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.report.runs import Point

Range = tuple[float, float]
NUM_COLOURS = 7  # and four markers: series differ up to the 28th
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
    x_log, y_log
        Whether equal factors take equal room; the ranges are then above 0.
    left, right, top, bottom
        Room around the area in pixels.
    """

    width: int
    height: int
    x_range: Range
    y_range: Range
    x_log: bool = False
    y_log: bool = False
    left: int = 46
    right: int = 64
    top: int = 12
    bottom: int = 40

    def x(self, value: float) -> float:
        """Horizontal place of a value in pixels."""
        inner = self.width - self.left - self.right
        return self.left + _share(value, self.x_range, self.x_log) * inner

    def y(self, value: float) -> float:
        """Vertical place of a value in pixels, counted from the top."""
        inner = self.height - self.top - self.bottom
        return self.top + (1 - _share(value, self.y_range, self.y_log)) * inner


def _share(value: float, edges: Range, is_log: bool) -> float:
    """How far a value lies between the edges, 0 to 1."""
    low, high, value = map(log10, (*edges, value)) if is_log else (*edges, value)
    return (value - low) / (high - low)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values between two bounds, about ``count`` of them, 1, 2 or 5 times a power of ten."""
    raw = (high - low) / count
    power = 10.0 ** floor(log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two bounds above 0, and over less than three decades 2 and 5 times."""
    decades = log10(high / low)
    stride, factors = ceil(decades / 8), (1, 2, 5) if decades < 3 else (1,)
    exponents = range(floor(log10(low)), ceil(log10(high)) + 1, stride)
    found = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    inside = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return inside if len(inside) > 1 else ticks(low, high)


def power(value: float) -> str:
    """A number above 0 as people write it on an axis: 0.02, 5·10⁹, 10¹²."""
    if 1e-3 <= value < 1e4:
        return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
    lead, _, exponent = f"{value:.1e}".partition("e")
    digits = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return ("" if lead == "1.0" else f"{float(lead):g}·") + f"10{digits}"


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
    parts = [y_axis(frame, y_label), x_axis(frame, "training step")]
    for one in series:
        parts.append(polyline(frame, one.line, f"thin s{one.index}"))
        parts.append(polyline(frame, one.marks, f"thick s{one.index}"))
        parts.extend(
            marker(frame.x(x), frame.y(y), one.index, f"{one.label}, step {x:g}: {y:.4f}")
            for x, y in inside(frame, one.marks)
        )
    parts.append(labels(frame, [(one.label, one.marks, "") for one in series]))
    return element(width, height, title, "".join(parts))


def element(width: int, height: int, title: str, content: str) -> str:
    """Wrap drawing commands into an ``svg`` element that scales down with the page."""
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">{content}</svg>'
    )


def document(width: int, height: int, title: str, content: str) -> str:
    """Wrap drawing commands into an SVG file of its own, light or dark as its reader is."""
    style = files("weightwise.report").joinpath("chart.css").read_text(encoding="utf-8")
    font = 'svg { font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }'
    sheet = f'<rect width="{width}" height="{height}" class="sheet"/>'
    drawing = element(
        width, height, title, f"<style>{style}{font}</style><title>{escape(title)}</title>{sheet}"
        + content,
    )  # fmt: skip
    return drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def text(x: float, y: float, content: str, *, anchor: str = "start", css: str = "") -> str:
    """Place text; ``anchor`` is start, middle or end."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">'
        f"{escape(content)}</text>"
    )


def marker(
    x: float, y: float, index: int, hint: str, *, shape: int | None = None, css: str = ""
) -> str:
    """Draw the marker of a series: circle, square, triangle or diamond, with a hover text.

    `shape` and `css` take the place of the series' own shape (0 to 3) and colour.
    """
    css = css or f"s{index % NUM_COLOURS}"
    name, place = (
        ("circle", f'cx="{x:.1f}" cy="{y:.1f}" r="3.6"'),
        ("rect", f'x="{x - 3.3:.1f}" y="{y - 3.3:.1f}" width="6.6" height="6.6"'),
        ("path", f'd="M{x:.1f} {y - 4.4:.1f}l4.4 7.6h-8.8z"'),
        ("path", f'd="M{x:.1f} {y - 4.8:.1f}l4.8 4.8l-4.8 4.8l-4.8 -4.8z"'),
    )[(index if shape is None else shape) % 4]
    return f'<{name} {place} class="mark {css}"><title>{escape(hint)}</title></{name}>'


def inside(frame: Frame, points: Sequence[Point]) -> list[Point]:
    """The points that lie in the ranges of a frame."""
    (x_low, x_high), (y_low, y_high) = frame.x_range, frame.y_range
    return [(x, y) for x, y in points if x_low <= x <= x_high and y_low <= y <= y_high]


def polyline(frame: Frame, points: Sequence[Point], css: str) -> str:
    """Draw a line through the points inside of a frame."""
    kept = inside(frame, points)
    places = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in kept)
    return f'<polyline points="{places}" class="{css}"/>'


def y_axis(frame: Frame, label: str) -> str:
    """Draw lines at round values, the values, and above them what they are."""
    right = frame.width - frame.right
    parts = [text(0, 12, label, css="axis")]
    values = log_ticks(*frame.y_range) if frame.y_log else ticks(*frame.y_range)
    digits = max(0, -floor(log10(values[1] - values[0]) + 1e-9))
    for value in values:
        y = frame.y(value)
        name = power(value) if frame.y_log else f"{value:.{digits}f}"
        parts.append(f'<line x1="{frame.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(frame.left - 6, y + 4, name, anchor="end", css="axis"))
    return "".join(parts)


def x_axis(frame: Frame, label: str, *, has_lines: bool = False, drop: int = 34) -> str:
    """Draw the base, round values below it, and `drop` pixels below what they are.

    On demand there are lines at the values.
    """
    right, base = frame.width - frame.right, frame.height - frame.bottom
    count = max(2, (right - frame.left) // 90)
    values = log_ticks(*frame.x_range) if frame.x_log else ticks(*frame.x_range, count=count)
    parts = []
    for value in values:
        x, name = frame.x(value), power(value) if frame.x_log else f"{value:g}"
        if has_lines:
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top}" y2="{base}"/>')
        parts.append(text(x, base + 17, name, anchor="middle", css="axis"))
    parts.append(f'<line x1="{frame.left}" x2="{right}" y1="{base}" y2="{base}" class="base"/>')
    parts.append(text(right, base + drop, label, anchor="end", css="axis"))
    return "".join(parts)


def labels(frame: Frame, curves: Sequence[tuple[str, Sequence[Point], str]]) -> str:
    """Names at the right ends of curves, moved apart where they would touch.

    Each curve has a name, points, and the class of its name beside that of all labels.
    """
    ends = sorted(
        (frame.y(kept[-1][1]), name, css)
        for name, points, css in curves
        if (kept := inside(frame, points))
    )
    places: list[float] = []
    for y, *_ in ends:
        places.append(max(y, places[-1] + GAP) if places else y)
    # Pushed down only, the labels would drift; centre the group on where it belongs.
    drift = sum(place - y for place, (y, *_) in zip(places, ends, strict=True)) / max(1, len(ends))
    right = frame.width - frame.right + 8
    return "".join(
        text(right, place - drift + 4, name, css=f"label {css}".strip())
        for place, (_, name, css) in zip(places, ends, strict=True)
    )
