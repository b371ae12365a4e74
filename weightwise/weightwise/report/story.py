"""What the demo's page tells: its runs and the facts around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weightwise.report.runs import Curves
    from weightwise.report.size import WeightBytes


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One format and what its run gave.

    Parameters
    ----------
    name
        Short name of the format.
    curves
        Losses and speed.
    size
        Stored bytes of the model.
    levels
        Zero and the positive values of the format, rising; empty for the base.
    sample
        Text that the trained model wrote after the prompt.
    """

    name: str
    curves: Curves
    size: WeightBytes
    levels: tuple[float, ...]
    sample: str


@dataclass(frozen=True, kw_only=True)
class Story:
    """Everything that the page tells.

    Parameters
    ----------
    arms
        The unquantized base first, then the formats.
    density
        See `figures.value_chart`.
    prompt
        Start of all samples.
    settings
        Names and values for the table of settings.
    command
        What to type to get the page again.
    """

    arms: tuple[Arm, ...]
    density: tuple[float, ...]
    prompt: str
    settings: tuple[tuple[str, str], ...]
    command: str
