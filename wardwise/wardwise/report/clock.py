"""How a report writes moments and spans of time."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Writes seconds of the horizon as people read them.

    Parameters
    ----------
    start_h
        Hour of the day at second 0, for clock times such as ``07:35``; `None`
        writes hours and minutes since the start, as ``+1:35``.
    is_plain
        Literature instances have no unit of time: numbers are written as they are.
    """

    start_h: float | None = None
    is_plain: bool = False

    def moment(self, time_s: float, *, with_seconds: bool = False) -> str:
        """`time_s` after the start of the horizon."""
        if self.is_plain or not math.isfinite(time_s):
            return _short(time_s)
        total = round(time_s + (self.start_h or 0.0) * 3600)
        sign = "-" if total < 0 else "+"
        hours, seconds = divmod(abs(total), 3600)
        tail = f"{seconds // 60:02d}" + (f":{seconds % 60:02d}" if with_seconds else "")
        return f"{sign}{hours}:{tail}" if self.start_h is None else f"{hours % 24:02d}:{tail}"

    def span(self, time_s: float) -> str:
        """Length of time."""
        if self.is_plain or not math.isfinite(time_s):
            return _short(time_s)
        minutes, seconds = divmod(round(time_s), 60)
        return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"

    def ticks(self, end_s: float) -> list[tuple[float, str]]:
        """Moments at which an axis from 0 to `end_s` is marked, with their labels."""
        step_s = 3600.0
        if self.is_plain:
            step_s = next((s for s in _steps() if end_s / s <= 12), end_s)
        else:
            while end_s / step_s > 13:
                step_s *= 2
        first_s = 0.0 if self.is_plain else -((self.start_h or 0.0) * 3600) % step_s
        count = int((end_s - first_s) // step_s) + 1
        return [(first_s + k * step_s, self.moment(first_s + k * step_s)) for k in range(count)]


def _steps() -> list[float]:
    return [factor * 10.0**power for power in range(-2, 9) for factor in (1, 2, 5)]


def _short(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")
