"""Fleet sizing: how many robots to own, and how many to keep back for urgent requests.

`size` is the entry for spares, `size_for_promises` for what promises of one day cost; the
other names are what they take and return.
"""

from wardwise.fleet.sizing.confidence import size_for_promises
from wardwise.fleet.sizing.day import Day
from wardwise.fleet.sizing.levels import Confidence, Level
from wardwise.fleet.sizing.result import Calls, Outcome, Sizing
from wardwise.fleet.sizing.size import size
from wardwise.fleet.sizing.source import (
    DaySource,
    HospitalDays,
    PastDays,
    RedrawnDays,
    days_of,
)
from wardwise.fleet.sizing.stats import Interval

__all__ = [
    "Calls",
    "Confidence",
    "Day",
    "DaySource",
    "HospitalDays",
    "Interval",
    "Level",
    "Outcome",
    "PastDays",
    "RedrawnDays",
    "Sizing",
    "days_of",
    "size",
    "size_for_promises",
]
