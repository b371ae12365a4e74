"""The neighbourhood of a vector of contraction factors (TinyViT, arXiv 2207.10666, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.vision.config import TinyViTConfig


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a neighbour may have.

    Parameters
    ----------
    width_step
        Widths change by multiples of this, at least 1.
    width_reach
        Largest multiple, at least 0.
    windows
        Sides that attention windows may have.
    expansions
        What hidden over outer channels may be.
    head_widths
        What the channels of a head may be; empty to leave them alone.
    depth_reach
        How much the depth of a stage may change, at least 0.
    max_changed
        How many factors may change at a time, at least 1.
    keep_widening
        Leave out models of which a stage is narrower than the one before it.
    """

    width_step: int = 32
    width_reach: int = 4
    windows: tuple[int, ...] = (7, 14)
    expansions: tuple[float, ...] = (2.0, 3.0, 4.0)
    head_widths: tuple[int, ...] = ()
    depth_reach: int = 1
    max_changed: int = 2
    keep_widening: bool = True

    def __post_init__(self) -> None:
        least = {"width_step": 1, "width_reach": 0, "depth_reach": 0, "max_changed": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name}: expected at least {low}, got {getattr(self, name)}")
        for name in ("windows", "expansions", "head_widths"):
            if any(value < 1 for value in getattr(self, name)):
                raise ValueError(f"{name}: expected at least 1 each, got {getattr(self, name)}")


class _Factor(NamedTuple):
    """A field, its place where there are several, and other values for it."""

    name: str
    place: int | None
    options: Sequence[float]


def neighbours(config: TinyViTConfig, space: Space) -> list[TinyViTConfig]:
    """Models that differ from one in at most ``max_changed`` factors, itself first.

    Vectors of factors that are no model are left out: widths that heads do not divide, say.
    """
    factors = _factors(config, space)
    found = {config: None}  # a set that keeps its order
    for count in range(1, space.max_changed + 1):
        for chosen in combinations(factors, count):
            for values in product(*(factor.options for factor in chosen)):
                changed = config
                try:
                    for factor, value in zip(chosen, values, strict=True):
                        changed = _with(changed, factor.name, factor.place, value)
                except ValueError:
                    continue
                if not space.keep_widening or list(changed.widths) == sorted(changed.widths):
                    found[changed] = None
    return list(found)


def _factors(config: TinyViTConfig, space: Space) -> list[_Factor]:
    """The factors that may change, with the values that they do not have yet."""
    found: list[tuple[str, int | None, Sequence[float]]] = []
    for place, width in enumerate(config.widths):
        reach = range(-space.width_reach, space.width_reach + 1)
        found.append(("widths", place, [width + space.width_step * k for k in reach]))
    for place, depth in enumerate(config.depths):
        reach = range(-space.depth_reach, space.depth_reach + 1)
        found.append(("depths", place, [depth + k for k in reach]))
    found += [("windows", stage, space.windows) for stage in range(3)]
    found += [(name, None, space.expansions) for name in ("conv_expansion", "mlp_expansion")]
    found.append(("head_width", None, space.head_widths))
    others = []
    for name, where, options in found:
        now = getattr(config, name) if where is None else getattr(config, name)[where]
        others.append(_Factor(name, where, [value for value in options if value != now]))
    return others


def _with(config: TinyViTConfig, name: str, place: int | None, value: float) -> TinyViTConfig:
    new: Any = value
    if place is not None:
        old = getattr(config, name)
        new = (*old[:place], value, *old[place + 1 :])
    return replace(config, **{name: new})
