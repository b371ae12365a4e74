"""How evenly experts are chosen over a run, drawn from the rows of its ``metrics.jsonl``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from weightwise.report.law_figures import WIDTH, sheet
from weightwise.report.runs import smooth
from weightwise.report.svg import NUM_COLOURS, Frame, polyline, text, x_axis, y_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weightwise.report.runs import Point

    Loads = dict[int, dict[int, list[Point]]]

LOAD = re.compile(r"load_(\d+)_(\d+)")
MOST_LAYERS = 4
PANEL_HEIGHT, HEADING = 190, 32


def expert_loads(rows: Sequence[Mapping[str, float]]) -> Loads:
    """Step and load of every expert.

    Parameters
    ----------
    rows
        Rows of ``metrics.jsonl``; those without loads are passed over.

    Returns
    -------
    dict
        By layer and expert: pairs of step and load over the mean of the layer.
    """
    found: Loads = {}
    for row in rows:
        for name, value in row.items():
            match = LOAD.fullmatch(name)
            if match:
                layer, expert = map(int, match.groups())
                of_layer = found.setdefault(layer, {})
                of_layer.setdefault(expert, []).append((row["step"], value))
    return found


def load_figure(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Draw the load of every expert: a row of panels for each run, a panel for each layer.

    Of many layers four are drawn, from the first to the last.

    Parameters
    ----------
    runs
        Rows of ``metrics.jsonl`` by the name of the run.

    Returns
    -------
    str
        An SVG file.

    Raises
    ------
    ValueError
        If a run has no rows with loads.
    """
    loads = {name: expert_loads(rows) for name, rows in runs.items()}
    for name, found in loads.items():
        if not found:
            raise ValueError(f"{name}: expected rows with loads of experts, got none")
    lines = [
        line for found in loads.values() for layer in found.values() for line in layer.values()
    ]
    edges = (0.0, max(x for line in lines for x, _ in line))
    most = max(y for line in lines for _, y in smoothed(line))
    parts = []
    for place, (name, found) in enumerate(loads.items()):
        top = place * (PANEL_HEIGHT + HEADING)
        parts.append(text(0, top + 20, name, css="label"))
        shown = _shown(sorted(found))
        width = WIDTH // len(shown)
        for column, layer in enumerate(shown):
            frame = Frame(
                width=width, height=PANEL_HEIGHT, left=30, right=14, top=24, bottom=38,
                x_range=edges, y_range=(0.0, 1.05 * most),
            )  # fmt: skip
            parts.append(
                f'<g transform="translate({column * width} {top + HEADING})">'
                f"{_panel(frame, layer, found[layer])}</g>"
            )
    height = len(loads) * (PANEL_HEIGHT + HEADING)
    return sheet(height, "Load of every expert over the mean of its layer", parts)


def smoothed(line: Sequence[Point]) -> tuple[Point, ...]:
    """A line without the noise of single batches."""
    return smooth(tuple(line), max(1, len(line) // 20))


def _panel(frame: Frame, layer: int, experts: Mapping[int, Sequence[Point]]) -> str:
    y = frame.y(1.0)
    parts = [
        y_axis(frame, f"layer {layer + 1}: load over the mean"),
        x_axis(frame, "step"),
        (
            f'<line x1="{frame.left}" x2="{frame.width - frame.right}" y1="{y:.1f}" '
            f'y2="{y:.1f}" class="guide"/>'
        ),
    ]
    for expert, line in sorted(experts.items()):
        parts.append(polyline(frame, smoothed(line), f"thin s{expert % NUM_COLOURS}"))
    return "".join(parts)


def _shown(layers: list[int]) -> list[int]:
    if len(layers) <= MOST_LAYERS:
        return layers
    last = len(layers) - 1
    return [layers[round(i * last / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]
