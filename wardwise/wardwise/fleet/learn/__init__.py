"""Learn laws of times from logs of driven days, and hear when a promise is broken."""

from wardwise.fleet.learn.drift import Lateness, Worst
from wardwise.fleet.learn.fit import Candidate, DayFactor, Fit
from wardwise.fleet.learn.learn import Cell, Door, Learnt, learn

__all__ = [
    "Candidate",
    "Cell",
    "DayFactor",
    "Door",
    "Fit",
    "Lateness",
    "Learnt",
    "Worst",
    "learn",
]
