"""Dispatch of a running day: requests answered at once, by rules, with reasons.

`Dispatcher` is the entry; the other names are what it takes and returns.
"""

from wardwise.fleet.dispatch.decision import (
    Alternative,
    Cancellation,
    CancelStatus,
    Decision,
    Remedy,
    Rule,
    Status,
)
from wardwise.fleet.dispatch.dispatcher import Dispatcher
from wardwise.fleet.dispatch.events import (
    Advance,
    Breakdown,
    Cancel,
    Delay,
    Event,
    Reoptimise,
    Return,
    Submit,
    order_events,
)
from wardwise.fleet.dispatch.outlook import Outcome, Step
from wardwise.fleet.dispatch.policy import Policy, Slacks
from wardwise.fleet.dispatch.record import Record
from wardwise.fleet.dispatch.reoptimise import Improver, relocate
from wardwise.fleet.dispatch.warm import warm_up
from wardwise.journal import Journal

__all__ = [
    "Advance",
    "Alternative",
    "Breakdown",
    "Cancel",
    "CancelStatus",
    "Cancellation",
    "Decision",
    "Delay",
    "Dispatcher",
    "Event",
    "Improver",
    "Journal",
    "Outcome",
    "Policy",
    "Record",
    "Remedy",
    "Reoptimise",
    "Return",
    "Rule",
    "Slacks",
    "Status",
    "Step",
    "Submit",
    "order_events",
    "relocate",
    "warm_up",
]
