"""The figures of the demo's page: losses, sizes and the values that each format has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightwise.report.runs import smooth
from weightwise.report.svg import Series, element, line_chart, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.report.story import Arm

ZOOM_SHARE = 0.4  # the zoomed figure shows this last share of the steps
BAR_HEIGHT = 22


def loss_chart(arms: Sequence[Arm], *, width: int) -> str:
    """Draw smoothed training loss and validation loss over the whole run."""
    series = _series(arms)
    steps = [x for one in series for x, _ in one.line + one.marks]
    losses = [y for one in series for _, y in one.line + one.marks]
    return line_chart(
        series,
        width=width,
        height=300,
        x_range=(0, max(steps)),
        y_range=_padded(min(losses), max(losses)),
        title="Training and validation loss of every format over the whole run",
    )


def zoom_chart(arms: Sequence[Arm], *, width: int) -> str:
    """Draw the validation loss of the last part of the run, where the formats differ."""
    last = max(step for arm in arms for step, _ in arm.curves.valid)
    first = (1 - ZOOM_SHARE) * last
    series = [
        Series(label=arm.name, index=index, line=(), marks=arm.curves.valid)
        for index, arm in enumerate(arms)
    ]
    losses = [y for one in series for x, y in one.marks if x >= first]
    return line_chart(
        series,
        width=width,
        height=300,
        x_range=(first, last),
        y_range=_padded(min(losses), max(losses)),
        title=f"Validation loss in the last {ZOOM_SHARE:.0%} of the run",
    )


def size_chart(arms: Sequence[Arm], *, width: int) -> str:
    """Draw stored bytes per format: elements, scales, and what stays in float32."""
    largest = max(arm.size.total for arm in arms)
    left, right = 52, 76
    per_byte = (width - left - right) / largest
    parts = []
    for index, arm in enumerate(arms):
        y = 6 + index * (BAR_HEIGHT + 14)
        parts.append(text(left - 8, y + 15, arm.name, anchor="end", css="label"))
        x = float(left)
        for count, css, what in (
            (arm.size.blocks, f"fill s{index}", "block matrices"),
            (arm.size.scales, "fill scale", "scales"),
            (arm.size.rest, f"fill rest s{index}", "embedding and norms, float32"),
        ):
            length = count * per_byte
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{BAR_HEIGHT}" '
                f'class="{css}"><title>{arm.name}: {what}, {count:,} bytes</title></rect>'
            )
            x += length
        parts.append(text(x + 8, y + 15, f"{arm.size.total / 1e6:.2f} MB", css="label"))
    height = 6 + len(arms) * (BAR_HEIGHT + 14)
    return element(width, height, "Stored weight bytes of every format", "".join(parts))


def value_chart(arms: Sequence[Arm], density: Sequence[float], *, width: int) -> str:
    """Draw the values that each format has between minus and plus its largest.

    Parameters
    ----------
    arms
        Runs; the levels of those that are quantized are drawn.
    density
        Shares of the trained weights, each divided by the largest of its row, in equal bins
        from -1 to 1.
    width
        Width in pixels.

    Returns
    -------
    str
        An ``svg`` element: the weights on top, one line of ticks per format below.
    """
    left, right, hill = 52.0, 14.0, 84.0
    inner = width - left - right

    def place(value: float) -> float:
        return left + (value + 1) / 2 * inner

    step, top = 2 / len(density), max(density)
    corners = [
        f"{place(-1 + (index + 0.5) * step):.1f},{hill - 72 * share / top:.1f}"
        for index, share in enumerate(density)
    ]
    parts = [
        (
            f'<polygon points="{place(-1):.1f},{hill} {" ".join(corners)} {place(1):.1f},{hill}" '
            'class="hill"/>'
        ),
        text(left - 8, hill - 4, "weights", anchor="end", css="axis"),
    ]
    y = hill + 14
    for index, arm in enumerate(arms):
        if not arm.levels:
            continue
        parts.append(text(left - 8, y + 16, arm.name, anchor="end", css="label"))
        largest = arm.levels[-1]
        signed = sorted({sign * level / largest for level in arm.levels for sign in (-1, 1)})
        marks = "".join(f"M{place(value):.1f} {y}v22" for value in signed)
        parts.append(f'<path d="{marks}" class="tick s{index}"/>')
        y += 36
    for value, label in ((-1, "− row's largest"), (0, "0"), (1, "+ row's largest")):
        anchor = {-1: "start", 0: "middle", 1: "end"}[value]
        parts.append(text(place(value), y + 8, label, anchor=anchor, css="axis"))
    return element(
        width, round(y + 14), "Values of each format and trained weights", "".join(parts)
    )


def _series(arms: Sequence[Arm]) -> list[Series]:
    return [
        Series(
            label=arm.name,
            index=index,
            line=smooth(arm.curves.train, max(1, len(arm.curves.train) // 25)),
            marks=arm.curves.valid,
        )
        for index, arm in enumerate(arms)
    ]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low) or 0.01
    return low - room, high + room
