"""Figures of laws of loss, each an SVG file of its own: fit, comparison, prediction and plan."""

from __future__ import annotations

from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from weightwise.laws import Settings, biases
from weightwise.report.svg import (
    NUM_COLOURS,
    Frame,
    document,
    inside,
    labels,
    marker,
    polyline,
    power,
    text,
    x_axis,
    y_axis,
)
from weightwise.train.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from weightwise.laws import Law, Optimum
    from weightwise.laws.law import Floats
    from weightwise.report.svg import Range

LOSS = "loss, nats a token"
WIDTH = 860
MAX_CURVES = 16
_MARGIN = 14
_ROW = 24  # height of a row of names and bars
_ERRORS = {
    "rmse": "runs of the fit",
    "rmse_cross_validated": "unseen runs",
    "rmse_largest_size": "largest size unseen",
}


def check_figure(path: Path | None) -> None:
    """Refuse a figure that is not SVG, before any work is done.

    Raises
    ------
    ValueError
        If the name of the file does not end in ``.svg``.
    """
    if path is not None and path.suffix.lower() != ".svg":
        raise ValueError(f"figure: expected a file name that ends in .svg, got {path.name!r}")


def write_figure(path: Path, drawing: str) -> None:
    """Write a figure to a file, whole or not at all, with the folders that it needs."""
    check_figure(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, drawing)


def fit_figure(law: Law, settings: Settings, losses: Floats) -> str:
    """Draw predicted against observed losses, and the mean error of each number format.

    Parameters
    ----------
    law
        The fitted law.
    settings, losses
        Its runs, R of them.

    Returns
    -------
    str
        An SVG file.
    """
    predicted, bias = law.loss(settings), biases(law, settings, losses)
    both = np.concatenate([predicted, losses])
    edges = padded(float(both.min()), float(both.max()))
    is_wide = edges[0] > 0 and edges[1] / edges[0] > 10
    height = max(430, 70 + _ROW * len(bias))
    frame = Frame(
        width=480, height=430, x_range=edges, y_range=edges, x_log=is_wide, y_log=is_wide,
        left=50, right=12, top=30, bottom=44,
    )  # fmt: skip
    parts = [y_axis(frame, f"predicted {LOSS}"), x_axis(frame, f"observed {LOSS}", has_lines=True)]
    parts.append(
        f'<line x1="{frame.x(edges[0]):.1f}" y1="{frame.y(edges[0]):.1f}" '
        f'x2="{frame.x(edges[1]):.1f}" y2="{frame.y(edges[1]):.1f}" class="guide"/>'
    )
    order = {name: index for index, name in enumerate(bias)}
    for name, observed, value in zip(settings.format_names, losses, predicted, strict=True):
        hint = f"{name}: observed {observed:.4f}, predicted {value:.4f}"
        parts.append(marker(frame.x(observed), frame.y(value), order[str(name)], hint))
    parts.append(_bias_bars(bias, left=510, width=WIDTH - 510))
    title = f"{law.title}: predicted against observed losses of {len(losses)} runs"
    return sheet(height, title, parts)


def _bias_bars(bias: Mapping[str, float], *, left: int, width: int) -> str:
    """One row for each format: marker, name, and a bar from 0 to its bias."""
    largest = max(map(abs, bias.values())) or 1.0
    names_end, room = left + 78, 52  # a number beside a bar needs that room
    middle = (names_end + left + width) / 2
    per_nat = (left + width - names_end - 2 * room) / 2 / largest
    parts = [text(left, 12, "mean of predicted − observed loss, nats a token", css="axis")]
    for index, (name, value) in enumerate(bias.items()):
        y = 30 + index * _ROW
        x, length = middle + min(value, 0.0) * per_nat, abs(value) * per_nat
        parts.append(marker(left + 6, y + 8, index, name))
        parts.append(text(left + 18, y + 12, name, css="label"))
        parts.append(
            f'<rect x="{x:.1f}" y="{y + 2}" width="{length:.1f}" height="12" '
            f'class="fill s{index % NUM_COLOURS}"/>'
        )
        side, anchor = (x + length + 5, "start") if value >= 0 else (x - 5, "end")
        parts.append(text(side, y + 12, f"{value:+.4f}", anchor=anchor, css="axis"))
    base = 30 + len(bias) * _ROW
    parts.append(f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="26" y2="{base}" class="base"/>')
    return "".join(parts)


def compare_figure(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw the errors of laws, the best on unseen runs first.

    Parameters
    ----------
    rows
        For each law its root mean squared errors ``rmse``, ``rmse_cross_validated`` and
        ``rmse_largest_size``, which may be None.

    Returns
    -------
    str
        An SVG file.
    """
    ranked = sorted(rows.items(), key=lambda item: item[1]["rmse_cross_validated"])
    values = [row[key] for row in rows.values() for key in _ERRORS if row[key] is not None]
    low, high = min(values), max(values)
    is_wide = low > 0 and high / low > 10
    height = 96 + 34 * len(ranked)
    frame = Frame(
        width=WIDTH, height=height, left=100, right=30, top=34, bottom=44, x_log=is_wide,
        x_range=(low / 1.2, high * 1.2) if is_wide else (0.0, 1.08 * high or 1.0), y_range=(0, 1),
    )  # fmt: skip
    parts = [x_axis(frame, "root mean squared error, nats a token", has_lines=True)]
    for index, name in enumerate(_ERRORS.values()):
        x = frame.left + 150 * index
        parts += [marker(x + 5, 12, index, name), text(x + 16, 16, name)]
    for place, (name, row) in enumerate(ranked):
        y = frame.top + 20 + 34 * place
        parts.append(text(frame.left - 14, y + 4, name, anchor="end", css="label"))
        found = [(key, row[key]) for key in _ERRORS if row[key] is not None]
        ends = [frame.x(value) for _, value in found]
        parts.append(
            f'<line x1="{min(ends):.1f}" x2="{max(ends):.1f}" y1="{y}" y2="{y}" class="base"/>'
        )
        for key, value in found:
            hint = f"{name}, {_ERRORS[key]}: {value:.4f}"
            parts.append(marker(frame.x(value), y, list(_ERRORS).index(key), hint))
    return sheet(height, "Errors of laws on seen and unseen runs", parts)


def predict_figure(law: Law, settings: Settings) -> str:
    """Draw losses against tokens for the sizes, formats and blocks of some settings.

    What was asked is marked, and so is where more tokens make the model worse, if the law tells.

    Parameters
    ----------
    law
        The law to ask.
    settings
        What was asked.

    Returns
    -------
    str
        An SVG file.

    Raises
    ------
    ValueError
        If there are too many curves to tell apart.
    """
    keys = _keys(settings)
    curves = {key: keys.index(key) for key in dict.fromkeys(keys)}
    if len(curves) > MAX_CURVES:
        raise ValueError(
            f"figure: expected at most {MAX_CURVES} different sizes, formats and blocks, "
            f"got {len(curves)}"
        )
    critical = _critical(law, settings)
    edges = _token_edges(settings, critical)
    tokens = np.geomspace(*edges, 160)
    asked = law.loss(settings)
    drawn = {key: _at_tokens(law, settings, row, tokens) for key, row in curves.items()}
    # Far beyond its turn a curve leaves the figure, which shows where the formats differ.
    least = min(float(loss.min()) for loss in drawn.values())
    most = max(float(asked.max()), *(float(loss[0]) for loss in drawn.values()))
    names = {
        key: key + (f", turns at {power(critical[row])}" if isfinite(critical[row]) else "")
        for key, row in curves.items()
    }
    frame = Frame(
        width=WIDTH, height=430, x_range=edges, x_log=True, left=50, top=52, bottom=44,
        right=round(20 + 8.2 * max(map(len, names.values()))), y_range=padded(least, most),
    )  # fmt: skip
    parts = [_fitted_band(frame, law), y_axis(frame, LOSS), x_axis(frame, "training tokens")]
    points = {key: list(zip(tokens, loss, strict=True)) for key, loss in drawn.items()}
    for index, key in enumerate(points):
        parts.append(polyline(frame, points[key], f"thick s{index % NUM_COLOURS}"))
    for index, (key, row) in enumerate(curves.items()):
        parts.append(_turn(frame, law, settings, row, float(critical[row]), index, names[key]))
    for key, x, y in zip(keys, settings.num_tokens, asked, strict=True):
        hint = f"{key}: {y:.4f} at {power(x)} tokens"
        parts.append(marker(frame.x(x), frame.y(y), list(curves).index(key), hint, shape=0))
    parts.append(
        labels(frame, [
            (names[key], line, f"named s{index % NUM_COLOURS}")
            for index, (key, line) in enumerate(points.items())
        ])
    )  # fmt: skip
    parts.append(_predict_legend(frame, has_turns=bool(np.isfinite(critical).any())))
    title = f"{law.title}: loss against training tokens"
    return sheet(frame.height, title, parts)


def _turn(
    frame: Frame, law: Law, settings: Settings, row: int, tokens: float, index: int, name: str
) -> str:
    """A mark where more tokens begin to hurt, with a line down to their number."""
    if not isfinite(tokens):
        return ""
    loss = float(_at_tokens(law, settings, row, np.array([tokens]))[0])
    if not inside(frame, [(tokens, loss)]):
        return ""
    x, y, base = frame.x(tokens), frame.y(loss), frame.height - frame.bottom
    guide = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{base}" class="guide"/>'
    return guide + marker(x, y, index, name, shape=3)


def _predict_legend(frame: Frame, *, has_turns: bool) -> str:
    x, y = frame.left + 5, 32
    parts = [
        f'<rect x="{x - 4}" y="{y - 6}" width="14" height="12" class="band"/>',
        text(x + 16, y + 4, "tokens of the law's runs"),
        marker(x + 196, y, 0, "asked", shape=0, css="scale"),
        text(x + 207, y + 4, "asked"),
    ]
    if has_turns:
        parts.append(marker(x + 272, y, 0, "turn", shape=3, css="scale"))
        parts.append(text(x + 283, y + 4, "beyond, more tokens hurt"))
    return "".join(parts)


def _fitted_band(frame: Frame, law: Law) -> str:
    """The tokens that the law's runs had."""
    if law.hull is None:
        return ""
    low, high = (min(max(x, frame.x_range[0]), frame.x_range[1]) for x in law.hull.num_tokens)
    left, right, base = frame.x(low), frame.x(high), frame.height - frame.bottom
    return (
        f'<rect x="{left:.1f}" y="{frame.top}" width="{right - left:.1f}" '
        f'height="{base - frame.top}" class="band"/>'
    )


def _keys(settings: Settings) -> list[str]:
    """Name of the curve of each row: format and block, with N where there are several."""
    has_sizes = len(np.unique(settings.num_params)) > 1
    names = []
    for i, name in enumerate(settings.format_names):
        sharing = str(settings.granularity[i])
        block = f"/{settings.block_size[i]:g}" if sharing == "block" else f" {sharing}"
        key = str(name) + ("" if sharing == "none" else block)
        names.append(f"{power(settings.num_params[i])} {key}" if has_sizes else key)
    return names


def _at_tokens(law: Law, settings: Settings, row: int, tokens: Floats) -> Floats:
    """Losses of one row at other tokens."""
    rows = settings[np.full(len(tokens), row)]
    columns = {name: getattr(rows, name) for name in rows.__dataclass_fields__}
    return law.loss(Settings(**(columns | {"num_tokens": tokens})))


def _critical(law: Law, settings: Settings) -> Floats:
    """Critical tokens of each row, infinite where the law knows none.

    With one scale a tensor the law's answer moves with the tokens asked, so it is no point of a
    curve.
    """
    found = getattr(law, "critical_tokens", None)
    if found is None:
        return np.full(len(settings), np.inf)
    return np.where(settings.granularity == "tensor", np.inf, found(settings))


def _token_edges(settings: Settings, critical: Floats) -> Range:
    """Tokens from a tenth to ten times those asked, and farther where a curve turns."""
    low, high = settings.num_tokens.min() / 10, settings.num_tokens.max() * 10
    turns = critical[np.isfinite(critical)]
    if len(turns):
        low = min(low, max(turns.min() / 3, low / 100))
        high = max(high, min(turns.max() * 3, high * 100))
    return float(low), float(high)


def plan_figure(curve: Sequence[Optimum], best: Optimum, compute: float) -> str:
    """Draw the least loss at each number of bits, and the chosen one.

    Parameters
    ----------
    curve
        Optima by their bits.
    best
        The optimum that was chosen.
    compute
        FLOP that all of them cost.

    Returns
    -------
    str
        An SVG file.
    """
    points = [(one.bits, one.loss) for one in curve]
    least = min(best.loss, *(loss for _, loss in points))
    most = points[-1][1] if points[-1][1] > least else max(loss for _, loss in points)
    edges = [*(bits for bits, _ in points), best.bits]
    frame = Frame(
        width=WIDTH, height=400, left=58, right=24, top=30, bottom=62,
        x_range=padded(min(edges), max(edges), share=0.02),
        y_range=(least - 0.12 * (most - least or 0.01), most + 0.35 * (most - least or 0.01)),
    )  # fmt: skip
    base, place = frame.height - frame.bottom, frame.x(best.bits)
    parts = [y_axis(frame, LOSS), x_axis(frame, "bits, and the best format of each", drop=52)]
    for one in curve:
        if one.bits == round(one.bits):
            name, x = "E{}M{}".format(*one.layouts[0]), frame.x(one.bits)
            parts.append(text(x, base + 33, name, anchor="middle", css="axis"))
    if len(points) > MAX_CURVES:
        parts.append(polyline(frame, points, "thick s0"))
    else:
        parts += [
            marker(frame.x(x), frame.y(y), 0, f"{x:g} bits: {y:.4f}") for x, y in
            inside(frame, points)
        ]  # fmt: skip
    if inside(frame, [(best.bits, best.loss)]):
        parts.append(
            f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{frame.top}" y2="{base}" class="guide"/>'
        )
        parts.append(
            marker(place, frame.y(best.loss), 1, f"{best.bits:.3f} bits: {best.loss:.4f}", shape=3)
        )
    is_left = place < sqrt(0.5) * WIDTH
    for line, words in enumerate((
        f"{best.bits:.3g} bits: loss {best.loss:.4f}",
        f"{power(best.num_params)} parameters, {power(best.num_tokens)} tokens",
    )):  # fmt: skip
        x, anchor = (place + 10, "start") if is_left else (place - 10, "end")
        css = "label" if line == 0 else ""
        parts.append(text(x, frame.top + 14 + 18 * line, words, anchor=anchor, css=css))
    title = f"Loss against bits at {power(compute)} FLOP"
    return sheet(frame.height, title, parts)


def padded(low: float, high: float, share: float = 0.05) -> Range:
    """Edges a little outside of two values; they stay above 0 where the values are."""
    room = share * (high - low) or 0.01
    return (low - room if low - room > 0 else low), high + room


def sheet(height: int, title: str, parts: Sequence[str]) -> str:
    """A file with a drawing of the common width, and a margin around it."""
    content = f'<g transform="translate({_MARGIN} {_MARGIN})">{"".join(parts)}</g>'
    return document(WIDTH + 2 * _MARGIN, height + 2 * _MARGIN, title, content)
