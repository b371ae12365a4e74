"""A battery in the twin: its level, and the books that must always balance.

What was there at the start and what was charged is what was used and what is left
(energy identity). It is checked at every draw and every charge, from sums that are
kept apart from the level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardwise.fleet.energy import Battery

# Of the capacity: rounding of sums; an empty battery may be missing so much.
ENERGY_TOLERANCE = 1e-7


class BatteryTwin:
    """Level of one robot's battery.

    Attributes
    ----------
    level_wh
        What is left now.
    used_wh, charged_wh
        Sums since the start of the shift.
    least_wh
        Lowest level so far.
    """

    def __init__(self, battery: Battery) -> None:
        self.battery = battery
        self.slack_wh = ENERGY_TOLERANCE * battery.capacity_wh
        self.level_wh = self.least_wh = battery.first_wh
        self.used_wh = self.charged_wh = 0.0

    def draw(self, energy_wh: float) -> None:
        """Take energy out; at least 0, and at most what is left but for rounding."""
        assert -self.slack_wh <= energy_wh <= self.level_wh + self.slack_wh
        self.level_wh -= energy_wh
        self.used_wh += energy_wh
        self.least_wh = min(self.least_wh, self.level_wh)
        self._require_balance()

    def charge(self, energy_wh: float) -> None:
        """Put energy in; at least 0, and at most what fits but for rounding."""
        assert 0 <= energy_wh <= self.battery.capacity_wh - self.level_wh + self.slack_wh
        self.level_wh += energy_wh
        self.charged_wh += energy_wh
        self._require_balance()

    def _require_balance(self) -> None:
        gap_wh = self.battery.first_wh + self.charged_wh - self.used_wh - self.level_wh
        assert abs(gap_wh) <= self.slack_wh, f"energy: expected a balance of 0, got {gap_wh} Wh"
