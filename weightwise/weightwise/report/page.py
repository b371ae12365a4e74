"""The demo's page: one self-contained HTML file without anything from a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jinja2

from weightwise.report import figures, svg
from weightwise.train.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from weightwise.report.story import Arm, Story

WIDE, NARROW = 496, 330  # drawn widths in pixels for a desk and for a phone


def gap_percent(arm: Arm, base: Arm) -> float:
    """How much higher the final validation loss is than the base's, in percent."""
    return 100 * (arm.curves.final_loss / base.curves.final_loss - 1)


def shrink(arm: Arm, base: Arm) -> float:
    """How many times smaller the block matrices are stored, scales included."""
    return base.size.quantized / arm.size.quantized


def verdict(arms: Sequence[Arm]) -> list[str]:
    """State loss and size of every format against the base, one sentence each."""
    base, *others = arms
    sentences = []
    for arm in others:
        gap = gap_percent(arm, base)
        side = "above" if gap >= 0 else "below"
        sentences.append(
            f"{arm.name}: loss {abs(gap):.2f} % {side} {base.name}, "
            f"block weights {shrink(arm, base):.1f} times smaller."
        )
    return sentences


def render_page(story: Story) -> str:
    """Write the page.

    Parameters
    ----------
    story
        What to tell.

    Returns
    -------
    str
        A whole HTML document.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("weightwise.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    base = story.arms[0]
    return environment.get_template("page.html").render(
        story=story,
        base=base,
        verdict=verdict(story.arms),
        gaps=[gap_percent(arm, base) for arm in story.arms],
        shrinks=[shrink(arm, base) for arm in story.arms],
        markers=[svg.marker(6, 6, index, arm.name) for index, arm in enumerate(story.arms)],
        charts={
            size: {
                "loss": figures.loss_chart(story.arms, width=width),
                "zoom": figures.zoom_chart(story.arms, width=width),
                "size": figures.size_chart(story.arms, width=width),
                "values": figures.value_chart(story.arms, story.density, width=width),
            }
            for size, width in (("wide", WIDE), ("narrow", NARROW))
        },
    )


def write_page(story: Story, path: Path) -> None:
    """Write the page to a file, whole or not at all."""
    write_text(path, render_page(story))
