"""Charging of robots whose stops are settled: exactly, or whenever they stand idle."""

from wardwise.fleet.charging.idle import charge_while_idle
from wardwise.fleet.charging.sequence import Charged, Obstacle, charge_trips

__all__ = ["Charged", "Obstacle", "charge_trips", "charge_while_idle"]
