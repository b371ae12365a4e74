"""Distances in the plane, for formats that give coordinates only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

# Lengths that come out of decimal input, like 0.3 = 0.2999... in binary, stay what they are.
_FUZZ = 1e-6

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.problem import Matrix, Place


@np.errstate(over="ignore", invalid="ignore")
def euclidean(places: Sequence[Place]) -> Matrix:
    """Straight-line distances between P places, shape (P, P), in double precision."""
    x_m = np.array([place.x_m for place in places])
    y_m = np.array([place.y_m for place in places])
    distance_m: Matrix = np.hypot(x_m[:, None] - x_m[None, :], y_m[:, None] - y_m[None, :])
    return distance_m


def cut_to_tenths(lengths: Matrix) -> Matrix:
    """Cut, not round, to one decimal: the convention of the DIMACS challenge on routing."""
    cut: Matrix = np.floor(lengths * 10 + _FUZZ) / 10
    return cut
