"""Fleet sizing: how many robots to own, and how many to keep back for urgent requests.

`size` is the entry; the other names are what it takes and returns.
"""

from wardwise.fleet.sizing.day import Day
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
    "Day",
    "DaySource",
    "HospitalDays",
    "Interval",
    "Outcome",
    "PastDays",
    "RedrawnDays",
    "Sizing",
    "days_of",
    "size",
]
