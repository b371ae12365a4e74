"""Slacks of a running day: by mean times, or by quantiles where punctuality is promised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.chance.legs import legs_of
from wardwise.fleet.chance.normal import z_of
from wardwise.fleet.dispatch.slack_kernels import Chances
from wardwise.fleet.search.insertion import no_blinks

if TYPE_CHECKING:
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.search.packed import Floats, Ints, Packed


class Quantiles:
    """What is random in an instance and promised, as arrays for the kernels.

    A promise by trip is taken as one by request, with the same share.

    Parameters
    ----------
    instance
        One with a promise.
    end
        Of the shifts of robots, in s.
    aim
        Part of each promised late share to use up.
    """

    def __init__(self, instance: Instance, end: Floats, aim: float = 1.0) -> None:
        assert instance.promise is not None
        law, promise = instance.randomness, instance.promise
        assert law is not None
        self._travel_var = np.ascontiguousarray(legs_of(instance).travel_var_s2)
        self._service_cv = float(law.service.cv)
        shares = (promise.return_share, *promise.late_share)
        self._z = np.array([z_of(aim * share) for share in shares])
        self._end = end
        self._chances: Chances | None = None

    def chances(self, packed: Packed, priority: Ints, hard: Floats, width: int) -> Chances:
        """Arrays for chains of `width` positions; those of the last call where they still fit."""
        last = self._chances
        if last is not None and last.hard is hard and len(last.kept) >= width:
            return last
        # An insertion adds at most three positions.
        size = width + 3
        self._chances = Chances(
            travel_var=self._travel_var,
            service_cv=self._service_cv,
            z=self._z,
            priority=priority,
            hard=hard,
            end=self._end,
            limit=np.zeros(len(hard)),
            limit_end=np.zeros(len(packed.capacity)),
            row=np.zeros(size, dtype=np.int64),
            mean=np.zeros(size),
            var=np.zeros(size),
            kept=np.zeros(width),
            blink=no_blinks(),
        )
        return self._chances


def has_quantiles(instance: Instance) -> bool:
    """Whether an instance states both what is random and what is promised."""
    return instance.randomness is not None and instance.promise is not None
