"""What a conversion loses in each group of layers, as an SVG file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightwise.report.law_figures import WIDTH, sheet
from weightwise.report.svg import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.lm.latent.conversion import GroupReport

PARTS = ("sharing", "rotation", "rank", "output, plain", "output, in codes")
_ROW, _GAP, _NAMES, _ROOM = 16, 14, 118, 56  # pixels


def conversion_figure(groups: Sequence[GroupReport]) -> str:
    """Draw shares that are lost, a block of bars for each group of layers.

    Parameters
    ----------
    groups
        From `weightwise.lm.latent.conversion.convert_to_latent`.

    Returns
    -------
    str
        An SVG file.
    """
    values = [_values(group) for group in groups]
    largest = max(max(row) for row in values) or 1.0
    per_share = (WIDTH - _NAMES - _ROOM) / largest
    parts, y = [text(0, 12, "share that is lost, percent", css="axis")], 30
    parts += _legend()
    y += 20
    for group, row in zip(groups, values, strict=True):
        name = f"layer {group.first}"
        if group.end - group.first > 1:
            name = f"layers {group.first} to {group.end - 1}"
        parts.append(text(0, y + 12, name, css="label"))
        parts.append(text(0, y + 28, f"{group.bits} bits", css="axis"))
        for index, value in enumerate(row):
            top = y + index * _ROW
            parts.append(
                f'<rect x="{_NAMES}" y="{top + 2}" width="{value * per_share:.1f}" height="11" '
                f'class="fill s{index}"/>'
            )
            place = _NAMES + value * per_share + 5
            parts.append(text(place, top + 12, f"{100 * value:.1f}", css="axis"))
        y += len(row) * _ROW + _GAP
    return sheet(y, f"What the conversion of {len(groups)} groups of layers loses", parts)


def _values(group: GroupReport) -> tuple[float, ...]:
    """Shares of a group; of its layers' outputs the mean."""
    outputs = (group.output_error, group.coded_error)
    means = tuple(sum(errors) / len(errors) for errors in outputs)
    return group.sharing_error, group.rope_error, group.rank_error, *means


def _legend() -> list[str]:
    parts, x = [], float(_NAMES)
    for index, name in enumerate(PARTS):
        parts.append(
            f'<rect x="{x:.1f}" y="22" width="10" height="10" class="fill s{index}"/>'
            + text(x + 15, 31, name, css="axis")
        )
        x += 35 + 7 * len(name)
    return parts
