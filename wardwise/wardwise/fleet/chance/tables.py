"""Tables of factors: one for each robot and block of scenarios.

A table has a row for each random time of the robot's day and a column for each scenario;
row 0 holds ones, for all that is certain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.chance.factors import (
    SMOOTH,
    factor_pieces,
    fill_factors,
    fill_smooth,
    score_pieces,
)
from wardwise.fleet.chance.luck import NUMBERS_PER_COUNT, Purpose, Stream, key_of, uniforms
from wardwise.fleet.randomness import Law, Spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wardwise.fleet.chance.steps import Draw, Itinerary

BY_QUANTILE = -1


class Tables:
    """Draws the tables of an itinerary; safe on several threads.

    Parameters
    ----------
    day_cv
        Deviation over the mean of the log-normal factor that a day's legs share.
    """

    def __init__(self, itinerary: Itinerary, day_cv: float, seed: int) -> None:
        self._draws = [row.draws for row in itinerary.rows]
        self._keys = [
            np.array([key_of(draw.stream, seed) for draw in draws], dtype=np.uint64).reshape(-1, 2)
            for draws in self._draws
        ]
        kinds = {
            (draw.spread.law, draw.cv): None
            for draws in self._draws
            for draw in draws
            if draw.spread.law in SMOOTH
        }
        order = {kind: number for number, kind in enumerate(kinds)}
        self._which = [
            np.array(
                [order.get((draw.spread.law, draw.cv), BY_QUANTILE) for draw in draws],
                dtype=np.int64,
            )
            for draws in self._draws
        ]
        pieces = [factor_pieces(*kind) for kind in kinds]
        self._pieces = np.stack(pieces) if pieces else np.empty((0, 0, 0))
        self._day = Spread(law=Law.LOGNORMAL, cv=day_cv)
        self._day_key = key_of(Stream(Purpose.DAY), seed)

    def day(self, first: int, count: int) -> NDArray[np.float32]:
        """Factors of the day on `count` scenarios from `first` on, a multiple of 4."""
        out = np.ones(count, dtype=np.float32)
        if self._day.cv > 0:
            fill_factors(self._day, self._day.cv, uniforms(self._day_key, first, count), out)
        return out

    def table(self, row: int, first: int, count: int) -> NDArray[np.float32]:
        """Factors of one robot, shape (1 + number of its draws, `count`)."""
        draws: tuple[Draw, ...] = self._draws[row]
        keys, which = self._keys[row], self._which[row]
        out = np.empty((1 + len(draws), count), dtype=np.float32)
        out[0] = 1.0
        counted = first // NUMBERS_PER_COUNT
        fill_smooth(keys, which, self._pieces, score_pieces(), counted, out[1:])
        for number in np.flatnonzero(which == BY_QUANTILE):
            draw = draws[number]
            out[1 + number] = draw.spread.quantile(uniforms(keys[number], first, count), draw.cv)
        return out
