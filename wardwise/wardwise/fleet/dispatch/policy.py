"""What the operator lets the dispatcher do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from wardwise.fleet.problem import NUM_PRIORITIES


class Slacks(StrEnum):
    """What an insertion must leave to all stops behind it.

    ``mean``: that they start in time if all goes as planned. ``quantile``: that they also do
    so as surely as promised, where an instance states both what is random and what is
    promised; elsewhere it is ``mean``.
    """

    MEAN = "mean"
    QUANTILE = "quantile"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Which decision rules apply, and how many spare robots each class must leave.

    Rules D1 (insert), D2 (open a spare) and D6 (deny) always apply.

    Parameters
    ----------
    protection
        Spares that a stat, urgent, routine request may not use: a request of
        class ``p`` opens a spare only while more than ``protection[p - 1]`` are
        left. Stat requests may use all of them.
    may_squeeze
        Rule D3: requests of lower classes may be made late, within their tolerance.
    may_eject
        Rule D4: a stat request may push out a request of a lower class.
    may_hold
        Rule D5: what cannot be placed now is answered "pending" and tried again, and
        may find a place by re-optimisation.
    slacks
        What an insertion must leave to the stops behind it.
    aim
        Part of each promised late share that quantile slacks use up, above 0, at most 1.
        They reckon with normal times; real ones have longer tails.
    """

    protection: tuple[int, int, int] = (0, 0, 0)
    may_squeeze: bool = True
    may_eject: bool = False
    may_hold: bool = False
    slacks: Slacks = Slacks.QUANTILE
    aim: float = 1.0

    def __post_init__(self) -> None:
        if self.slacks not in list(Slacks):
            raise ValueError(
                f"policy: slacks: expected one of {', '.join(Slacks)}, got {self.slacks!r}"
            )
        object.__setattr__(self, "slacks", Slacks(self.slacks))
        if not 0 < self.aim <= 1:
            raise ValueError(f"policy: aim: expected above 0 and at most 1, got {self.aim}")
        if len(self.protection) != NUM_PRIORITIES:
            raise ValueError(
                f"policy: protection: expected {NUM_PRIORITIES} numbers, got {self.protection}"
            )
        stat, urgent, routine = self.protection
        if not 0 == stat <= urgent <= routine:
            raise ValueError(
                "policy: protection: expected 0 for stat and no fewer for lower classes, "
                f"got {self.protection}"
            )
