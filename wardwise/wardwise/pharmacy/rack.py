"""The machine: a rack of bins, an arm, places where bins are handed over, and pharmacists.

Cells are numbered row by row from the lower left: cell ``row * num_columns + column``. Coordinates
are metres from the lower left corner of the rack, times seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Floats = NDArray[np.float64]
Cells = NDArray[np.int64]


def _require(owner: str, *, above_zero: bool = False, **values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
            expected = "above 0" if above_zero else "of at least 0"
            raise ValueError(f"{owner}: {name}: expected a finite number {expected}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Rack:
    """One face of cells, each with room for one bin.

    Parameters
    ----------
    num_columns, num_rows
        At least 1; at most 100,000 cells.
    column_pitch_m, row_pitch_m
        Width and height of a cell, above 0.

    Raises
    ------
    ValueError
        Naming the field and its range.
    """

    num_columns: int = 40
    num_rows: int = 15
    column_pitch_m: float = 0.30
    row_pitch_m: float = 0.25

    def __post_init__(self) -> None:
        for name in ("num_columns", "num_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"rack: {name}: expected at least 1, got {getattr(self, name)}")
        if self.num_cells > 100_000:
            raise ValueError(f"rack: cells: expected at most 100000, got {self.num_cells}")
        _require(
            "rack", above_zero=True, column_pitch_m=self.column_pitch_m,
            row_pitch_m=self.row_pitch_m,
        )  # fmt: skip

    @property
    def num_cells(self) -> int:
        """Cells of the face."""
        return self.num_columns * self.num_rows

    @property
    def width_m(self) -> float:
        """Width of the face."""
        return self.num_columns * self.column_pitch_m

    @property
    def height_m(self) -> float:
        """Height of the face."""
        return self.num_rows * self.row_pitch_m

    @cached_property
    def centre_m(self) -> Floats:
        """Centres of the cells, shape (cells, 2)."""
        row, column = np.divmod(np.arange(self.num_cells), self.num_columns)
        return np.stack(
            [(column + 0.5) * self.column_pitch_m, (row + 0.5) * self.row_pitch_m], axis=1
        )


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How fast the arm moves.

    Parameters
    ----------
    speed_x_mps, speed_y_mps
        Top speeds along and up the rack, above 0.
    acceleration_x_mps2, acceleration_y_mps2
        Above 0; None: the top speed is there at once.
    handling_s
        One pick-up or deposit of a bin, at least 0.
    is_sequential
        One axis after the other; both at once otherwise (Chebyshev).
    capacity
        Bins that the arm holds, at least 1.
    """

    speed_x_mps: float = 1.5
    speed_y_mps: float = 0.8
    acceleration_x_mps2: float | None = None
    acceleration_y_mps2: float | None = None
    handling_s: float = 2.0
    is_sequential: bool = False
    capacity: int = 1

    def __post_init__(self) -> None:
        _require("arm", above_zero=True, speed_x_mps=self.speed_x_mps, speed_y_mps=self.speed_y_mps)
        _require("arm", handling_s=self.handling_s)
        for name in ("acceleration_x_mps2", "acceleration_y_mps2"):
            value = getattr(self, name)
            if value is not None:
                _require("arm", above_zero=True, **{name: value})
        if self.capacity < 1:
            raise ValueError(f"arm: capacity: expected at least 1, got {self.capacity}")

    def travel_s(self, x_m: ArrayLike, y_m: ArrayLike) -> Floats:
        """Seconds for distances along both axes; arrays of equal shape."""
        x_s = axis_time_s(x_m, self.speed_x_mps, self.acceleration_x_mps2)
        y_s = axis_time_s(y_m, self.speed_y_mps, self.acceleration_y_mps2)
        return x_s + y_s if self.is_sequential else np.maximum(x_s, y_s)


def axis_time_s(distance_m: ArrayLike, speed_mps: float, acceleration_mps2: float | None) -> Floats:
    """Seconds that one axis takes, starting and ending at rest.

    With an acceleration the speed rises, stays and falls (trapezoid), or rises and falls where the
    distance is too short for the top speed.
    """
    distance = np.abs(np.asarray(distance_m, dtype=np.float64))
    if acceleration_mps2 is None:
        return distance / speed_mps
    short = 2.0 * np.sqrt(distance / acceleration_mps2)
    long = distance / speed_mps + speed_mps / acceleration_mps2
    return np.where(distance < speed_mps**2 / acceleration_mps2, short, long)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A dispensing machine with its people.

    Parameters
    ----------
    rack, arm
        Where bins are and how they move.
    points_m
        Input/output (I/O) points, where a pharmacist takes packs from a bin: (x, y) in metres,
        anywhere; each holds one bin. Bins use them in turn.
    num_pharmacists
        At least 1.

    Raises
    ------
    ValueError
        Naming the field and its range.
    """

    rack: Rack = field(default_factory=Rack)
    arm: Arm = field(default_factory=Arm)
    points_m: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    num_pharmacists: int = 1

    def __post_init__(self) -> None:
        if not self.points_m:
            raise ValueError("machine: points_m: expected at least one point, got none")
        for number, point in enumerate(self.points_m, start=1):
            if len(point) != 2 or not all(map(math.isfinite, point)):
                raise ValueError(
                    f"machine: points_m: point {number}: expected two finite numbers, got {point}"
                )
        if self.num_pharmacists < 1:
            raise ValueError(
                f"machine: num_pharmacists: expected at least 1, got {self.num_pharmacists}"
            )

    @property
    def num_points(self) -> int:
        """Places m for bins at pharmacists."""
        return len(self.points_m)

    @cached_property
    def between_s(self) -> Floats:
        """Travel from cell to cell, shape (cells, cells)."""
        x_m, y_m = self.rack.centre_m.T
        return self.arm.travel_s(x_m[:, None] - x_m, y_m[:, None] - y_m)

    @cached_property
    def reach_s(self) -> Floats:
        """Travel between each point and each cell, shape (points, cells)."""
        point_m = np.array(self.points_m)
        x_m, y_m = self.rack.centre_m.T
        return self.arm.travel_s(point_m[:, :1] - x_m, point_m[:, 1:] - y_m)

    @cached_property
    def shift_s(self) -> Floats:
        """Travel from point to point, shape (points, points)."""
        x_m, y_m = np.array(self.points_m).T
        return self.arm.travel_s(x_m[:, None] - x_m, y_m[:, None] - y_m)

    def cycle_s(self, point: int, stored: ArrayLike, retrieved: ArrayLike) -> Floats:
        """Seconds of a dual command at a point: store one bin, fetch another to the same point.

        Parameters
        ----------
        point
            Number of the I/O point, from 0.
        stored, retrieved
            Cells, arrays of shapes that go together.
        """
        stored, retrieved = np.asarray(stored), np.asarray(retrieved)
        reach_s = self.reach_s[point]
        travel_s = reach_s[stored] + self.between_s[stored, retrieved] + reach_s[retrieved]
        return np.asarray(travel_s + 4 * self.arm.handling_s)

    def fetch_s(self, point: int, cells: ArrayLike) -> Floats:
        """Seconds of a single command from and to a point: fetch a bin, nothing to store."""
        return np.asarray(2 * self.reach_s[point][np.asarray(cells)] + 2 * self.arm.handling_s)
