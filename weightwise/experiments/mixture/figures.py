"""Figures of the study, each an SVG file of its own."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from weightwise.report.law_figures import WIDTH, padded, sheet
from weightwise.report.runs import smooth
from weightwise.report.svg import (
    Frame,
    labels,
    marker,
    polyline,
    text,
    x_axis,
    y_axis,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weightwise.report.runs import Point

LOSS = "validation loss, nats a byte"


def overflow_figure(
    loss: Mapping[str, Sequence[float]], shares: Mapping[str, Sequence[Point]]
) -> str:
    """Draw losses of the arms seed by seed, and how many tokens were beyond the capacity.

    Parameters
    ----------
    loss
        Losses of each arm, one a seed.
    shares
        Share of the tokens by step, of the arms with a capacity.
    """
    height, half = 320, WIDTH // 2 - 10
    values = [value for of_arm in loss.values() for value in of_arm]
    left = Frame(
        width=half, height=height, top=30, right=12, x_range=(-0.5, len(loss) - 0.5),
        y_range=padded(min(values), max(values), share=0.08),
    )  # fmt: skip
    parts = [y_axis(left, LOSS), _base(left)]
    for place, (arm, of_arm) in enumerate(loss.items()):
        x, y = left.x(place), left.y(mean(of_arm))
        parts.append(text(x, height - left.bottom + 19, arm, anchor="middle", css="label"))
        parts.append(
            f'<line x1="{x - 26:.1f}" x2="{x + 26:.1f}" y1="{y:.1f}" y2="{y:.1f}" class="base"/>'
        )
        for seed, value in enumerate(of_arm):
            hint = f"{arm}, seed {seed + 1}: {value:.4f}"
            drift = 10 * (seed - (len(of_arm) - 1) / 2)
            parts.append(marker(x + drift, left.y(value), place, hint, shape=seed % 4))
    parts.append(
        text(half - 12, height - 6, "markers are seeds, lines their means", anchor="end",
             css="axis")
    )  # fmt: skip
    lines = {arm: smooth(tuple(points), 9) for arm, points in shares.items()}
    most = max(y for points in lines.values() for _, y in points)
    last = max(x for points in lines.values() for x, _ in points)
    right = Frame(
        width=half, height=height, top=30, x_range=(0, last), y_range=(0.0, 1.08 * most or 1.0)
    )
    others = [y_axis(right, "share of the tokens over the capacity"), x_axis(right, "step")]
    index = {arm: place for place, arm in enumerate(loss)}
    others += [polyline(right, line, f"thick s{index[arm]}") for arm, line in lines.items()]
    others.append(
        labels(right, [(arm, line, f"named s{index[arm]}") for arm, line in lines.items()])
    )
    drawing = "".join(parts) + _moved(WIDTH - half, "".join(others))
    return sheet(height, "Loss with recycled, dropped and kept tokens", [drawing])


def rates_figure(grids: Mapping[str, Mapping[float, float]], ratios: Mapping[str, float]) -> str:
    """Draw losses over the learning rate, a line for each ratio.

    Parameters
    ----------
    grids
        Losses by rate, of each ratio.
    ratios
        Values of ratios by their names; ``x1`` may be left out.
    """
    rates = [rate for grid in grids.values() for rate in grid]
    losses = [loss for grid in grids.values() for loss in grid.values()]
    frame = Frame(
        width=WIDTH, height=340, top=30, right=176, bottom=44, x_log=True,
        x_range=(min(rates) / 1.15, max(rates) * 1.15),
        y_range=padded(min(losses), max(losses), share=0.08),
    )  # fmt: skip
    parts = [y_axis(frame, LOSS), x_axis(frame, "peak learning rate of all other weights")]
    curves = []
    for index, (name, grid) in enumerate(grids.items()):
        line, ratio = sorted(grid.items()), ratios.get(name, 1.0)
        words = f"{ratio:g}" + (" (auto)" if name == "auto" else "")
        parts.append(polyline(frame, line, f"thick s{index}"))
        parts += [
            marker(frame.x(x), frame.y(y), index, f"experts x {words}, {x:g}: {y:.4f}")
            for x, y in line
        ]
        curves.append((f"experts × {words}", line, f"named s{index}"))
    parts.append(labels(frame, curves))
    return sheet(frame.height, "Loss over the learning rate, by the ratio of experts", parts)


def _base(frame: Frame) -> str:
    y = frame.height - frame.bottom
    return (
        f'<line x1="{frame.left}" x2="{frame.width - frame.right}" y1="{y}" y2="{y}" class="base"/>'
    )


def _moved(x: float, content: str) -> str:
    return f'<g transform="translate({x:g} 0)">{content}</g>'
