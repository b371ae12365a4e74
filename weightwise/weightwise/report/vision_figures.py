"""Figures of distillation: which classes go together, and what hard samples cost."""

from __future__ import annotations

from html import escape
from math import ceil
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
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from weightwise.distill.analysis import Saturation

MOST_CELLS = 50  # along a side: a page should not hold a million squares
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
    """Squares of a matrix; those near 0 are left out."""
    mean_GG = grouped(matrix_CC)
    size = side / len(mean_GG)
    top = max(float(np.abs(mean_GG).max()), 1e-12)
    parts = []
    for row, column in zip(*np.nonzero(np.abs(mean_GG) > 0.02 * top), strict=True):
        value = float(mean_GG[row, column])
        parts.append(
            f'<rect x="{left + column * size:.1f}" y="{_TOP + row * size:.1f}" '
            f'width="{size:.2f}" height="{size:.2f}" class="fill s{int(value < 0)}" '
            f'fill-opacity="{abs(value) / top:.2f}"><title>{escape(f"{value:.3f}")}</title></rect>'
        )
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
        name: [(x, 100 * y) for x, y in zip(percent, of_model, strict=True)]
        for name, of_model in curve.accuracy.items()
    }
    values = [y for line in lines.values() for _, y in line]
    frame = Frame(
        width=WIDTH, height=400, top=30, right=130, bottom=44,
        x_range=(min(percent), max(percent)), y_range=padded(min(values), max(values) + 1e-6),
    )  # fmt: skip
    parts = [y_axis(frame, "accuracy, percent"), x_axis(frame, "hardest samples left out, percent")]
    curves = []
    for index, (name, line) in enumerate(lines.items()):
        css = f"s{index % NUM_COLOURS}"
        parts.append(polyline(frame, line, f"thick {css}"))
        for x, y in line:
            hint = f"{name}, {x:g} % left out: {y:.2f} %"
            parts.append(marker(frame.x(x), frame.y(y), index, hint))
        curves.append((name, line, f"named {css}"))
    parts.append(labels(frame, curves))
    return sheet(frame.height, "Accuracy without the hardest samples", parts)
