"""What was measured on a day that was driven: what robots did, and their rides.

The twin writes it down, and so may the robots of a hospital: `wardwise.io` has the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Deed(StrEnum):
    """What a robot did. ``return``: it is back at the depot."""

    DEPART = "depart"
    ARRIVE = "arrive"
    START = "start"
    END = "end"
    RETURN = "return"
    BREAK_DOWN = "break-down"
    REPAIRED = "repaired"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that a robot did.

    `place` is where it was, on departure and breakdown where it was under way to;
    `request` is the one it was for, if any, under the name it then had.
    """

    now_s: float
    robot: str
    deed: Deed
    place: str
    request: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ride:
    """A robot in an elevator: it came, had its turn, the cabin was there, it left."""

    robot: str
    elevator: str
    floor: int
    target: int
    come_s: float
    turn_s: float
    board_s: float
    leave_s: float

    @property
    def wait_s(self) -> float:
        """Time before the door."""
        return self.board_s - self.come_s

    @property
    def queue_s(self) -> float:
        """The part of it in which other robots had their turn."""
        return self.turn_s - self.come_s


@dataclass(frozen=True, kw_only=True)
class DrivenDay:
    """All that was measured on one day.

    Attributes
    ----------
    day
        Its number.
    seed
        Of a simulated day.
    facts, rides
        Of each robot in the order in which they happened.
    unserved
        Requests that were accepted and never served.
    is_complete
        Whether the day was written down to its end.
    """

    day: int
    seed: int | None = None
    facts: tuple[Fact, ...]
    rides: tuple[Ride, ...] = ()
    unserved: tuple[str, ...] = ()
    is_complete: bool = True
