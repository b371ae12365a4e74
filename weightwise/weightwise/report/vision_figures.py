"""Figures of distillation: accuracies, and which classes go together."""

from __future__ import annotations

from math import ceil
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from weightwise.report.law_figures import WIDTH, padded, sheet
from weightwise.report.svg import (
    NUM_COLOURS,
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

    from numpy.typing import NDArray

    from weightwise.distill.analysis import Saturation

MOST_CELLS = 50  # along a side: a page should not hold a million squares
_LEVELS = 8  # of a colour, so that squares of one level are a single path
_TOP, _GAP = 34, 24


def correlation_figure(matrices: Mapping[str, NDArray[np.float64]]) -> str:
    """Draw correlations of classes side by side: blue where they go together, orange where not.

    Parameters
    ----------
    matrices
        Correlations of each model by its name, all of shape (C, C), see
        `weightwise.distill.analysis.class_correlation`. Where there are many classes, squares are
        means of neighbouring ones, without the diagonal.

    Returns
    -------
    str
        An SVG file.

    Raises
    ------
    ValueError
        If there is no matrix.
    """
    if not matrices:
        raise ValueError("matrices: expected at least one, got none")
    side = (WIDTH - _GAP * (len(matrices) + 1)) / len(matrices)
    parts = []
    for place, (name, matrix) in enumerate(matrices.items()):
        left = _GAP + place * (side + _GAP)
        parts.append(text(left, _TOP - 12, name, css="label"))
        parts.append(_cells(matrix, left, side))
    words = "blue: predicted together; orange: one instead of the other; full colour is the largest"
    height = ceil(_TOP + side + 34)
    parts.append(text(_GAP, height - 12, words, css="axis"))
    return sheet(height, "Correlations of the predictions of classes", parts)


def _cells(matrix_CC: NDArray[np.float64], left: float, side: float) -> str:
    """Squares of a matrix, a path for each colour and level; those near 0 are left out."""
    mean_GG = grouped(matrix_CC)
    size = side / len(mean_GG)
    top = max(float(np.abs(mean_GG).max()), 1e-12)
    level_GG = np.rint(_LEVELS * mean_GG / top).astype(int)
    parts = [
        f'<path d="{_squares(level_GG == level)}" class="fill s{int(level < 0)}" '
        f'fill-opacity="{abs(level) / _LEVELS:g}"/>'
        for level in np.unique(level_GG[level_GG != 0])
    ]
    place = f"translate({left:.2f} {_TOP}) scale({size:.4f})"
    return f'<g transform="{place}">{"".join(parts)}</g>'


def _squares(chosen_GG: NDArray[np.bool_]) -> str:
    """Path around the chosen squares of side 1, neighbours in a row in one piece."""
    parts = []
    for row, chosen_G in enumerate(chosen_GG):
        edges = np.flatnonzero(np.diff(chosen_G.astype(np.int8), prepend=0, append=0))
        for first, last in edges.reshape(-1, 2).tolist():
            parts.append(f"M{first} {row}h{last - first}v1h{first - last}z")
    return "".join(parts)


def grouped(matrix_CC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over groups of neighbouring classes, at most `MOST_CELLS`; the diagonal is left out."""
    count = len(matrix_CC)
    group_C = np.arange(count) // ceil(count / MOST_CELLS)
    member_GC = (group_C == np.arange(group_C[-1] + 1)[:, None]).astype(np.float64)
    others_CC = 1.0 - np.eye(count)
    pairs_GG = member_GC @ others_CC @ member_GC.T
    sum_GG = member_GC @ (matrix_CC * others_CC) @ member_GC.T
    mean_GG: NDArray[np.float64] = sum_GG / np.maximum(pairs_GG, 1.0)
    return mean_GG


def saturation_figure(curve: Saturation) -> str:
    """Draw the accuracy of models over the share of hardest samples that is left out.

    Parameters
    ----------
    curve
        See `weightwise.distill.analysis.saturation_curve`; at least two shares.

    Returns
    -------
    str
        An SVG file.
    """
    percent = [100 * share for share in curve.removed]
    lines = {
        name: {x: [100 * y] for x, y in zip(percent, of_model, strict=True)}
        for name, of_model in curve.accuracy.items()
    }
    return accuracy_figure(
        lines, x_label="hardest samples left out, percent",
        title="Accuracy without the hardest samples",
    )  # fmt: skip


def accuracy_figure(
    lines: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    x_label: str,
    title: str,
    x_log: bool = False,
) -> str:
    """Draw accuracies over a quantity: means as lines, from the least to the largest as bars.

    Parameters
    ----------
    lines
        Of each line by its name the accuracies in percent at each place, one for each seed; at
        least two places.
    x_label
        What the places are.
    title
        What the figure shows.
    x_log
        Whether equal factors of places take equal room.

    Returns
    -------
    str
        An SVG file.
    """
    places = [x for line in lines.values() for x in line]
    values = [y for line in lines.values() for of_seed in line.values() for y in of_seed]
    frame = Frame(
        width=WIDTH, height=400, top=30, right=200, bottom=44, x_log=x_log,
        x_range=(min(places), max(places)), y_range=padded(min(values), max(values) + 1e-6),
    )  # fmt: skip
    parts = [y_axis(frame, "accuracy, percent"), x_axis(frame, x_label)]
    curves = []
    for index, (name, line) in enumerate(lines.items()):
        css = f"s{index % NUM_COLOURS}"
        means = [(x, mean(of_seed)) for x, of_seed in line.items()]
        parts.append(polyline(frame, means, f"thick {css}"))
        for x, of_seed in line.items():
            low, high = (f"{frame.y(y):.1f}" for y in (min(of_seed), max(of_seed)))
            if low != high:
                where = f'x1="{frame.x(x):.1f}" x2="{frame.x(x):.1f}" y1="{low}" y2="{high}"'
                parts.append(f'<line {where} class="tick {css}"/>')
        parts += [
            marker(frame.x(x), frame.y(y), index, f"{name}, {x:g}: {y:.2f} %") for x, y in means
        ]
        curves.append((name, means, f"named {css}"))
    parts.append(labels(frame, curves))
    return sheet(frame.height, title, parts)
