"""Batteries, charging curves, and which places a battery reaches at all.

Energy is in watt-hours. A leg takes ``wh_per_m`` for each metre and ``base_w`` for as
long as it lasts; whatever else a robot does but charge (wait, serve, reload at the
depot) takes ``base_w``, too. With ``base_w = 0`` and one watt-hour a unit of distance
this is the model of the electric VRPTW (Schneider, Stenger and Goeke 2014,
Transportation Science 48(4)).

A charging curve states the time from empty to a level. Chargers slow down towards the
full battery, so the time for one watt-hour never falls with the level; the time from
one level to another is the difference of two values of the curve (Montoya, Gueret,
Mendoza and Villegas 2017, Transportation Research Part B 103).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.require import require_non_negative

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HOUR_S = 3600.0
# Slopes that are equal on paper may differ in the last bits.
SLOPE_TOLERANCE = 1e-9


class Recharge(StrEnum):
    """How much a visit to a station charges: always to the full battery, or any amount."""

    FULL = "full"
    PARTIAL = "partial"


@dataclass(frozen=True, kw_only=True)
class Battery:
    """What a robot's battery holds and what driving and being switched on take from it.

    Parameters
    ----------
    capacity_wh
        Above 0.
    reserve_wh
        The level never falls below it; below `capacity_wh`.
    start_wh
        Level at the start of the shift, `reserve_wh` to `capacity_wh`; `None`: full.
    wh_per_m
        Taken by each metre driven.
    base_w
        Drawn at all times from the start of the shift, but when the robot charges.
    """

    capacity_wh: float
    reserve_wh: float = 0.0
    start_wh: float | None = None
    wh_per_m: float = 0.0
    base_w: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.capacity_wh) and self.capacity_wh > 0):
            raise ValueError(
                f"battery: capacity_wh: expected a finite number above 0, got {self.capacity_wh}"
            )
        require_non_negative("battery", wh_per_m=self.wh_per_m, base_w=self.base_w)
        if not 0 <= self.reserve_wh < self.capacity_wh:
            raise ValueError(
                f"battery: reserve_wh: expected at least 0 and below capacity_wh = "
                f"{self.capacity_wh:g}, got {self.reserve_wh}"
            )
        if self.start_wh is not None and not self.reserve_wh <= self.start_wh <= self.capacity_wh:
            raise ValueError(
                f"battery: start_wh: expected reserve_wh = {self.reserve_wh:g} to capacity_wh = "
                f"{self.capacity_wh:g}, got {self.start_wh}"
            )

    @property
    def first_wh(self) -> float:
        """Level at the start of the shift."""
        return self.capacity_wh if self.start_wh is None else self.start_wh

    def leg_wh(self, distance_m: float, travel_s: float) -> float:
        """Energy that a leg takes."""
        return self.wh_per_m * distance_m + self.base_w * travel_s / HOUR_S


# deliveryRobot of the Open-RMF clinic world: 24 V x 40 Ah, 105.8 W of friction at 0.7 m/s,
# 20 W of computer and lights, back to the charger at 10 % (rmf_demos, config/clinic).
DELIVERY_ROBOT = Battery(capacity_wh=960.0, reserve_wh=96.0, wh_per_m=0.042, base_w=20.0)


@dataclass(frozen=True, kw_only=True)
class ChargeCurve:
    """Time to charge from empty, piecewise linear in the level.

    Parameters
    ----------
    points
        Pairs (level_wh, time_s), the first (0, 0); both strictly rising, and the time
        for one watt-hour never falling.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.points) < 2 or tuple(self.points[0]) != (0.0, 0.0):
            raise ValueError(
                f"charge: points: expected (0, 0) and at least one more, got {self.points}"
            )
        slope = 0.0
        for (level, time_s), (next_level, next_time_s) in pairwise(self.points):
            rises = level < next_level < math.inf and time_s < next_time_s < math.inf
            if not rises or (next_time_s - time_s) / (next_level - level) < slope:
                raise ValueError(
                    f"charge: points: expected rising levels and times, the time for one "
                    f"watt-hour never falling, got ({next_level:g}, {next_time_s:g}) "
                    f"after ({level:g}, {time_s:g})"
                )
            slope = (next_time_s - time_s) / (next_level - level) * (1 - SLOPE_TOLERANCE)

    @staticmethod
    def linear(capacity_wh: float, s_per_wh: float) -> ChargeCurve:
        """Charging at one rate up to a capacity; both above 0."""
        return ChargeCurve(points=((0.0, 0.0), (capacity_wh, capacity_wh * s_per_wh)))

    @property
    def last_wh(self) -> float:
        """Level at which the curve ends."""
        return self.points[-1][0]

    def time_s(self, level_wh: float, target_wh: float) -> float:
        """Time from one level to another; levels off the curve count as its nearer end."""
        levels, times = zip(*self.points, strict=True)
        return float(np.interp(target_wh, levels, times) - np.interp(level_wh, levels, times))

    def level_after(self, level_wh: float, time_s: float) -> float:
        """Level after some time on the charger, at most the last of the curve."""
        levels, times = zip(*self.points, strict=True)
        start_s = np.interp(level_wh, levels, times)
        return float(np.interp(start_s + time_s, times, levels))


@dataclass(frozen=True, kw_only=True)
class Range:
    """How far a battery carries: least energy between the chargers and every place.

    Parameters
    ----------
    out_wh
        Shape (P,): least energy of a direct way to a place from the depot, left with a
        full battery, or from a charger that can be reached from there.
    home_wh
        Shape (P,): least energy of a direct way from a place to the depot or to a charger
        from which it can be reached.
    """

    battery: Battery
    leg_wh: NDArray[np.float64]
    out_wh: NDArray[np.float64]
    home_wh: NDArray[np.float64]

    @staticmethod
    def of(
        battery: Battery,
        chargers: Sequence[int],
        distance_m: NDArray[np.float64],
        travel_s: NDArray[np.float64],
    ) -> Range:
        """Range over `chargers` (rows of the matrices) and the depot, row 0."""
        with np.errstate(invalid="ignore", over="ignore"):
            leg_wh = battery.wh_per_m * distance_m + battery.base_w * travel_s / HOUR_S
        leg_wh = np.where(np.isfinite(leg_wh), leg_wh, np.inf)
        stops = np.unique([0, *chargers])
        joined = leg_wh[np.ix_(stops, stops)] <= _most_wh(battery)
        out, home = _linked(joined), _linked(joined.T)
        return Range(
            battery=battery,
            leg_wh=leg_wh,
            out_wh=leg_wh[stops[out]].min(axis=0),
            home_wh=leg_wh[:, stops[home]].min(axis=1),
        )

    def shortfall(self, visits: Sequence[int], service_s: float) -> str | None:
        """Why no full battery serves these places one after the other, or nothing.

        The test is necessary, not sufficient: each place is reached from a full charge
        and left for another, or, of two, both are visited between two charges.
        """
        base_wh = self.battery.base_w * service_s / HOUR_S
        first, last = visits[0], visits[-1]
        between_wh = float(sum(self.leg_wh[leg] for leg in pairwise(visits)))
        whole_wh = self.out_wh[first] + between_wh + self.home_wh[last] + len(visits) * base_wh
        if first != last:
            # A charger between pickup and drop splits the way in two.
            halves_wh = (
                self.out_wh[first] + self.home_wh[first] + base_wh,
                self.out_wh[last] + self.home_wh[last] + base_wh,
            )
            whole_wh = min(whole_wh, max(halves_wh))
        if whole_wh <= _most_wh(self.battery):
            return None
        return (
            f"unreachable on a full battery: the way between two charges takes {whole_wh:g} Wh, "
            f"usable are {self.battery.capacity_wh - self.battery.reserve_wh:g}"
        )


def _most_wh(battery: Battery) -> float:
    """Usable energy, with room for rounding."""
    return (battery.capacity_wh - battery.reserve_wh) * (1 + SLOPE_TOLERANCE)


def _linked(joined: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which nodes can be reached from node 0 along the given links."""
    reached = np.zeros(len(joined), dtype=bool)
    reached[0] = True
    while True:
        more = reached | joined[reached].any(axis=0)
        if (more == reached).all():
            return reached
        reached = more
