"""Talking to dispensing machines: a client that loses nothing, a robot to test it with, MLLP.

`RobotClient` speaks WWKS 2 to a storage robot, `Robot` is one that exists in memory only, and
`wardwise.dispenser.mllp` takes and sends HL7 messages.
"""

from wardwise.dispenser.client import RobotClient
from wardwise.dispenser.faults import Faults
from wardwise.dispenser.orders import Outcome, Timing, criteria_of
from wardwise.dispenser.robot import Robot
from wardwise.dispenser.stock import Stock

__all__ = ["Faults", "Outcome", "Robot", "RobotClient", "Stock", "Timing", "criteria_of"]
