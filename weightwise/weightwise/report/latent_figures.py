"""Figures of attention with a small cache: loss over bytes, loss over bits, retrieval by length."""

from __future__ import annotations

from statistics import mean
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

    LossesByCode = Mapping[tuple[int, bool], Sequence[float]]

LOSS = "validation loss, nats a token"
WORDS = {True: "symmetric", False: "asymmetric"}


def variants_figure(loss: Mapping[str, Sequence[float]], share: Mapping[str, float]) -> str:
    """Draw losses over the bytes of a cached token, seed by seed.

    Parameters
    ----------
    loss
        Losses of each arm, one a seed.
    share
        Bytes of a cached token over those of multi-head attention, of each arm.

    Returns
    -------
    str
        An SVG file.
    """
    values = [value for of_arm in loss.values() for value in of_arm]
    percent = {arm: 100 * share[arm] for arm in loss}
    edges = (min(percent.values()) / 1.5, max(percent.values()) * 2.2)
    frame = Frame(
        width=WIDTH, height=400, top=30, right=20, bottom=44, x_log=True, x_range=edges,
        y_range=padded(min(values), max(values), share=0.1),
    )  # fmt: skip
    words = "bytes of a cached token, percent of multi-head attention"
    parts = [y_axis(frame, LOSS), x_axis(frame, words, has_lines=True)]
    for place, (arm, of_arm) in enumerate(loss.items()):
        x, css = frame.x(percent[arm]), f"s{place % NUM_COLOURS}"
        ends = frame.y(min(of_arm)), frame.y(max(of_arm))
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}" class="base"/>'
        )
        for seed, value in enumerate(of_arm, start=1):
            hint = f"{arm}, {percent[arm]:.3g} %, seed {seed}: {value:.4f}"
            parts.append(marker(x, frame.y(value), place, hint))
        parts.append(text(x + 9, frame.y(mean(of_arm)) + 4, arm, css=f"label named {css}"))
    return sheet(frame.height, "Loss over the bytes of the cache", parts)


def bits_figure(plain: Sequence[float], later: LossesByCode, trained: LossesByCode) -> str:
    """Draw mean losses over the bits of the cache.

    Parameters
    ----------
    plain
        Losses of models whose cache is not quantised, one a seed.
    later
        Losses of the same models with codes, by bits and whether these are symmetric.
    trained
        Losses of models that were trained with their codes.

    Returns
    -------
    str
        An SVG file.
    """
    curves = {
        f"{WORDS[is_symmetric]}, {when}": sorted(
            (bits, mean(values)) for (bits, sign), values in table.items() if sign == is_symmetric
        )
        for table, when in ((later, "after training"), (trained, "in training"))
        for is_symmetric in (True, False)
    }
    curves = {name: line for name, line in curves.items() if line}
    base = mean(plain)
    bits = [x for line in curves.values() for x, _ in line]
    losses = [base, *(y for line in curves.values() for _, y in line)]
    frame = Frame(
        width=WIDTH, height=360, top=30, right=20, bottom=44,
        x_range=(min(bits) - 0.3, max(bits) + 0.3), y_range=padded(min(losses), max(losses)),
    )  # fmt: skip
    y, right = frame.y(base), frame.width - frame.right
    parts = [y_axis(frame, LOSS), x_axis(frame, "bits of a code")]
    parts.append(f'<line x1="{frame.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="guide"/>')
    parts.append(text(right - 4, y - 6, "not quantised", anchor="end", css="axis"))
    for index, (name, line) in enumerate(curves.items()):
        parts.append(polyline(frame, line, f"thick s{index}"))
        parts += [
            marker(frame.x(x), frame.y(y), index, f"{name}, {x} bits: {y:.4f}") for x, y in line
        ]
        # Losses fall with the bits, so the upper right is free.
        x, y = frame.x(mean([min(bits), max(bits)])), frame.top + 14 + 20 * index
        parts.append(marker(x, y - 4, index, name))
        parts.append(text(x + 12, y, name, css=f"label named s{index}"))
    return sheet(frame.height, "Loss over the bits of the cache", parts)


def needle_figure(accuracy: Mapping[str, Mapping[int, float]]) -> str:
    """Draw shares of right answers over the length of the text.

    Parameters
    ----------
    accuracy
        By arm and tokens of a text.

    Returns
    -------
    str
        An SVG file.
    """
    lengths = sorted({length for line in accuracy.values() for length in line})
    x_range: Range = (lengths[0] / 1.2, lengths[-1] * 1.2)
    frame = Frame(
        width=WIDTH, height=340, top=30, right=150, bottom=44, x_log=True, x_range=x_range,
        y_range=(0.0, 1.04),
    )  # fmt: skip
    parts = [y_axis(frame, "share of right answers"), x_axis(frame, "tokens of the text")]
    curves = []
    for index, (arm, line) in enumerate(accuracy.items()):
        points = sorted(line.items())
        parts.append(polyline(frame, points, f"thick s{index % NUM_COLOURS}"))
        parts += [
            marker(frame.x(x), frame.y(y), index, f"{arm}, {x} tokens: {y:.3f}") for x, y in points
        ]
        curves.append((arm, points, f"named s{index % NUM_COLOURS}"))
    parts.append(labels(frame, curves))
    return sheet(frame.height, "Right answers by the length of the text", parts)
