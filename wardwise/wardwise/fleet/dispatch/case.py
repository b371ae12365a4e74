"""One request to be decided, with what the rules ask about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.dispatch import kernels

if TYPE_CHECKING:
    from wardwise.fleet.dispatch.policy import Policy
    from wardwise.fleet.dispatch.state import State
    from wardwise.fleet.search.packed import Bools, Floats

STAT, URGENT, ROUTINE = 1, 2, 3


class Case(NamedTuple):
    """A request that stands in the arrays but on no chain; `is_new` when it was just revealed."""

    state: State
    policy: Policy
    node: int
    now_s: float
    is_new: bool

    @property
    def loss(self) -> float:
        """Price of denying it."""
        return float(self.state.packed.denial_price[self.node])

    @property
    def priority(self) -> int:
        """Its class."""
        return int(self.state.priority[self.node])

    def num_usable_spares(self) -> int:
        """Spares beyond those that its class must leave; negative where some are lacking."""
        return self.state.num_spares(self.now_s) - self.policy.protection[self.priority - 1]

    def is_worth(self, price: float, *, opens_spare: bool) -> bool:
        """Whether rules D1 and D2 pay a price for it; for a stat request D2 pays any."""
        return price <= self.loss or (opens_spare and self.priority == STAT and price < np.inf)

    def allowed(self, prices: Floats) -> Bools:
        """Robots that rules D1 and D2 may use at these prices, as things stand."""
        in_service = self.state.in_service()
        most = np.where(in_service, self.loss, -np.inf)
        if self.num_usable_spares() > 0:
            is_stat = self.priority == STAT
            most[~in_service] = np.finfo(np.float64).max if is_stat else self.loss
        return np.less_equal(prices, most)

    def price_from_depot(self) -> float:
        """Price at which one more robot, empty and at the depot now, could serve it."""
        state = self.state
        return float(
            kernels.from_depot(
                state.packed, state.capacity, state.start, state.end, self.node, self.now_s
            )
        )
