"""The running day of a dispensing machine: priorities, expiry, refills, defects.

`Scheduler` decides, `Session` keeps its journal; the other names are what they take and return.
"""

from wardwise.pharmacy.online.events import (
    Ask,
    Block,
    Cancel,
    Decision,
    Down,
    Event,
    HandDone,
    Kind,
    Recall,
    Refill,
    Sorted,
    Submit,
    Unblock,
    Up,
)
from wardwise.pharmacy.online.policy import Policy
from wardwise.pharmacy.online.scheduler import Scheduler
from wardwise.pharmacy.online.session import Session
from wardwise.pharmacy.online.state import Setup
from wardwise.pharmacy.online.stock import StockRules

__all__ = [
    "Ask",
    "Block",
    "Cancel",
    "Decision",
    "Down",
    "Event",
    "HandDone",
    "Kind",
    "Policy",
    "Recall",
    "Refill",
    "Scheduler",
    "Session",
    "Setup",
    "Sorted",
    "StockRules",
    "Submit",
    "Unblock",
    "Up",
]
