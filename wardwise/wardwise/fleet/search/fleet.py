"""A partial plan that a search works on: all chains, and who is not served yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search import insertion
from wardwise.fleet.search.chains import UNSERVED, Chains, empty_chains
from wardwise.fleet.search.insertion import plan_weights
from wardwise.fleet.search.packed import is_request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wardwise.fleet.search.packed import Ints, Packed

# Two prices closer than this are the same; ten times the rounding of a day's sum.
EPSILON = 1e-6

IDLE: Ints = np.zeros(2, dtype=np.int64)
"""The chain of a robot that stays at home."""

Trips = dict[int, list[list[int]]]
"""Robot index to its trips, each the nodes of its stops."""


class Fleet:
    """Chains of all robots with the changes a search makes to them.

    Parameters
    ----------
    packed
        The instance; shared, never changed.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.chains: Chains = empty_chains(packed)
        self._weights = plan_weights(packed)

    @classmethod
    def from_trips(cls, packed: Packed, trips: Mapping[int, Sequence[Sequence[int]]]) -> Fleet:
        """Build the chains of given trips, feasible or not."""
        chains = {}
        for robot, sequences in trips.items():
            nodes = [0]
            for sequence in sequences:
                nodes += [*sequence, 0]
            chains[robot] = np.array(nodes, dtype=np.int64)
        return cls.from_chains(packed, chains)

    @classmethod
    def from_chains(cls, packed: Packed, chains: Mapping[int, Ints]) -> Fleet:
        """Build a fleet of given chains by robot, depots included."""
        fleet = cls(packed)
        for robot, nodes in chains.items():
            fleet.set_chain(robot, nodes)
        return fleet

    def copy(self) -> Fleet:
        """Independent copy."""
        other = object.__new__(Fleet)
        other.packed, other._weights = self.packed, self._weights
        other.chains = Chains._make(array.copy() for array in self.chains)
        return other

    def assign(self, other: Fleet) -> None:
        """Become equal to another fleet of the same instance."""
        for mine, theirs in zip(self.chains, other.chains, strict=True):
            mine[:] = theirs

    def serve(self, nodes: Sequence[int] | Ints) -> None:
        """Insert the unserved of these nodes in this order, each where it is cheapest.

        What fits nowhere, or where the objective is money costs more than its
        denial, stays unserved.
        """
        insertion.serve(self.packed, self.chains, self._weights, np.asarray(nodes, dtype=np.int64))

    def release(self, nodes: Sequence[int] | Ints) -> None:
        """Make nodes unserved; the unserved among them stay so."""
        kernels.release(self.packed, self.chains, np.asarray(nodes, dtype=np.int64))

    def set_chain(self, robot: int, nodes: Ints) -> None:
        """Give a robot a whole chain, depots included."""
        kernels.set_chain(self.packed, self.chains, robot, nodes, len(nodes))

    def stops(self, robot: int) -> list[int]:
        """Requests that a robot serves, in the order in which they are done."""
        row = self.chains.node[robot, : self.chains.length[robot]]
        return [int(node) for node in row if node != 0 and not self.packed.is_pickup[node]]

    def unserved(self) -> list[int]:
        """Requests that nobody serves, in the order of the instance."""
        waiting = (self.chains.owner == UNSERVED) & is_request(self.packed)
        return [int(node) for node in np.flatnonzero(waiting)]

    def used(self) -> list[int]:
        """Robots that leave home."""
        return [int(robot) for robot in np.flatnonzero(self.chains.length > 2)]

    def is_feasible(self) -> bool:
        """Whether every chain keeps windows, shifts, loads and the number of trips."""
        for robot in self.used():
            row = self.chains.node[robot, : self.chains.length[robot]]
            if np.count_nonzero(row == 0) - 1 > self.packed.max_trips[robot]:
                return False
            if not kernels.refresh(self.packed, self.chains, robot):
                return False
        return True

    def score(self) -> tuple[float, float]:
        """Loss by denials that outweighs driving, and price; compared in this order."""
        loss = float(self.packed.denial_price[self.unserved()].sum())
        price = float(self.chains.price.sum())
        return (0.0, price + loss) if self.packed.is_money else (loss, price)

    def trips(self) -> Trips:
        """Trips of the robots that leave home."""
        trips: Trips = {}
        for robot in self.used():
            row = self.chains.node[robot, : self.chains.length[robot]]
            runs = np.split(row, np.flatnonzero(row == 0))[1:-1]
            trips[robot] = [[int(node) for node in run[1:]] for run in runs]
        return trips


def is_better(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether a score beats another by more than rounding."""
    return (first[0], first[1] + EPSILON) < second
