"""Charging of robots whose stops are settled: stations, positions and amounts, exactly."""

from wardwise.fleet.charging.sequence import Charged, Obstacle, charge_trips

__all__ = ["Charged", "Obstacle", "charge_trips"]
