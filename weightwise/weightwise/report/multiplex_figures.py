"""Figure of shared weights in training: gradients of executions, and likeness of features."""

from __future__ import annotations

from math import ceil
from statistics import fmean
from typing import TYPE_CHECKING

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

    from weightwise.report.svg import Range

_HEIGHT, _HEADING, _GAP = 280, 26, 22


def stability_figure(
    norms: Mapping[str, Mapping[int, Sequence[float]]], alike: Mapping[str, Sequence[float]]
) -> str:
    """Draw gradients over the steps above, and the likeness of features over the blocks below.

    Parameters
    ----------
    norms
        Of each model by its name, by step, the norm of the gradient that each execution gives,
        above 0: a line is their mean, thin lines are the first and the last execution. At least
        two steps.
    alike
        Of each model by its name, how much alike the features of each block are to those of
        another model, 0 to 1; at least two blocks.

    Returns
    -------
    str
        An SVG file.

    Raises
    ------
    ValueError
        If there is no model, or too little of one.
    """
    lengths = [len(one) for one in (*norms.values(), *alike.values())]
    if not norms or not alike or min(lengths) < 2:
        raise ValueError("norms, alike: expected at least two steps and blocks of each model")
    lower = f'<g transform="translate(0 {_HEADING + _HEIGHT + _GAP})">{_alike(alike)}</g>'
    upper = f'<g transform="translate(0 {_HEADING})">{_norms(norms)}</g>'
    words = "gradients of the shared weights: thick the mean, thin the first and last execution"
    parts = [text(0, 12, words, css="label"), upper, lower]
    height = ceil(_HEADING + 2 * _HEIGHT + _GAP)
    return sheet(height, "Gradients of executions, and likeness of features", parts)


def _norms(norms: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    places = [step for of_model in norms.values() for step in of_model]
    values = [one for of_model in norms.values() for row in of_model.values() for one in row]
    edges = (min(values) / 1.3, max(values) * 1.3)
    frame = _frame((min(places), max(places)), edges, y_log=True)
    parts = [y_axis(frame, "gradient norm"), x_axis(frame, "training step")]
    curves = []
    for place, (name, of_model) in enumerate(norms.items()):
        css = f"s{place % NUM_COLOURS}"
        means = [(float(step), fmean(row)) for step, row in of_model.items()]
        parts.append(polyline(frame, means, f"thick {css}"))
        for execution in (0, -1):
            line = [(float(step), row[execution]) for step, row in of_model.items()]
            parts.append(polyline(frame, line, f"thin {css}"))
        curves.append((name, means, f"named {css}"))
    return "".join([*parts, labels(frame, curves)])


def _alike(alike: Mapping[str, Sequence[float]]) -> str:
    values = [one for of_model in alike.values() for one in of_model]
    longest = max(len(of_model) for of_model in alike.values())
    frame = _frame((1, longest), padded(min(values), max(values)))
    parts = [
        y_axis(frame, "likeness to features of the unshared model (linear CKA)"),
        x_axis(frame, "block"),
    ]
    curves = []
    for place, (name, of_model) in enumerate(alike.items()):
        css = f"s{place % NUM_COLOURS}"
        points = [(float(block), one) for block, one in enumerate(of_model, start=1)]
        parts.append(polyline(frame, points, f"thick {css}"))
        parts += [
            marker(frame.x(x), frame.y(y), place, f"{name}, block {x:g}: {y:.3f}")
            for x, y in points
        ]
        curves.append((name, points, f"named {css}"))
    return "".join([*parts, labels(frame, curves)])


def _frame(x_range: Range, y_range: Range, *, y_log: bool = False) -> Frame:
    return Frame(
        width=WIDTH, height=_HEIGHT, top=26, right=130, bottom=44, x_range=x_range,
        y_range=y_range, y_log=y_log,
    )  # fmt: skip
