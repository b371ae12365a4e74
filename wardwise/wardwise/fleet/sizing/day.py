"""One day made ready for replay with any number of robots.

What is known beforehand is planned once, for as many robots as it wants, and again
only for fleets smaller than that. The plan is the construction by cheapest insertion,
improved by a few hundred iterations of ruin and recreate; with half of the requests of
a Solomon instance known, 300 come within 2 to 6 percent of the cost after 20,000.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.fleet.dispatch.events import Submit, order_events
from wardwise.fleet.dispatch.kernels import tighten
from wardwise.fleet.dispatch.policy import Slacks
from wardwise.fleet.dispatch.slacks import Quantiles, has_quantiles
from wardwise.fleet.dispatch.state import clock
from wardwise.fleet.problem import Kind
from wardwise.fleet.search.chains import UNSERVED, Chains, empty_chains, set_chain
from wardwise.fleet.search.construct import cheapest_first
from wardwise.fleet.search.fleet import Fleet
from wardwise.fleet.search.insertion import no_blinks, plan_weights
from wardwise.fleet.search.packed import NOBODY, Objective, pack
from wardwise.fleet.search.ruin import Cooling, Ruin
from wardwise.fleet.search.watch import Watch
from wardwise.fleet.sizing.replay import SIZE, Calls, Scratch, Start, simulate_day

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.dispatch.slack_kernels import Chances
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.search.packed import Floats, Ints, Packed

# An improvement so short is run in few batches: each call of the compiled loop costs
# as much as two iterations.
NUM_BATCHES = 10
NUM_CLASSES = 3


class Day:
    """A day of which the robots are still to be chosen.

    Parameters
    ----------
    instance
        Requests with ``release_s`` 0 are known beforehand. All its robots are alike;
        how many it has does not matter.
    most_robots
        The largest fleet that `run` is asked for.
    iterations
        Of ruin and recreate on the plan of what is known; 0: the construction alone.
    seed
        Of that search.
    slacks
        As in `Policy`.

    Attributes
    ----------
    num_planned
        Robots that the known requests take when there are enough.
    num_known, num_calls
        Requests known beforehand, and requests of each class that come in later.
    last_call_s
        Moment of the last one, 0 without any.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        most_robots: int,
        iterations: int,
        seed: int,
        slacks: Slacks = Slacks.QUANTILE,
    ) -> None:
        self.instance = instance
        self._iterations, self._seed = iterations, seed
        packed = _pack_money(instance)
        self._packed = _with_robots(packed, most_robots)
        self._weights = plan_weights(self._packed)
        self._chains = empty_chains(self._packed)
        self._calls, known = _split(instance)
        self._known = np.array(known, dtype=np.int64)
        self.num_known = len(known)
        came = self._calls.priority[self._calls.order]
        self.num_calls = np.bincount(came - 1, minlength=NUM_CLASSES)
        self.last_call_s = float(self._calls.release.max())
        self._scratch = Scratch(
            blink=no_blinks(),
            away_since=np.empty(most_robots),
            answer=np.zeros(len(packed.place), dtype=np.int64),
            capacity=packed.capacity[:1],
            start=packed.start[:1],
            end=packed.end[:1],
        )
        self._hard = self._packed.latest.copy()
        self._chances = self._promised() if slacks is Slacks.QUANTILE else None
        self._starts: dict[int, Start] = {}
        self._views: dict[int, tuple[Packed, Chains, Start]] = {}
        self.num_planned = len(known)  # no plan takes more
        routes = self._plan(max(1, len(known)))
        self.num_planned = len(routes)
        if self.num_planned <= most_robots:
            self._starts[self.num_planned] = self._begin(routes)

    def run(self, num_robots: int, protection: Sequence[int]) -> Floats:
        """Live through the day with some robots and protection levels; returns its tally."""
        if num_robots not in self._views:
            packed = _first_robots(self._packed, num_robots)
            chains = _first_chains(self._chains, num_robots)
            self._views[num_robots] = packed, chains, self.start(num_robots)
        packed, chains, start = self._views[num_robots]
        levels = np.array(protection, dtype=np.int64)
        tally = np.empty(SIZE)
        simulate_day(
            packed, chains, self._weights, self._chances, start, self._calls, levels,
            self._scratch, tally,
        )  # fmt: skip
        return tally

    def start(self, num_robots: int) -> Start:
        """The day as planned in advance for a fleet."""
        key = min(num_robots, self.num_planned)
        if key not in self._starts:
            self._starts[key] = self._begin(self._plan(key))
        whole = self._starts[key]
        return whole._replace(chains=_first_chains(whole.chains, num_robots))

    def chains(self, num_robots: int) -> Chains:
        """The chains of the first robots; after `run`, of the day that was."""
        return _first_chains(self._chains, num_robots)

    def answers(self) -> dict[str, int]:
        """What became of each request that came in, after `run`."""
        requests = self.instance.requests
        return {
            requests[node - 1].id: int(self._scratch.answer[node]) for node in self._calls.order
        }

    def _promised(self) -> Chances | None:
        """What is random and promised, where the instance says so."""
        if not has_quantiles(self.instance):
            return None
        priority = self._calls.priority.copy()
        priority[0] = 0
        quantiles = Quantiles(self.instance, self._packed.end.copy())
        width = self._chains.node.shape[1]
        return quantiles.chances(self._packed, priority, self._hard, width)

    def _plan(self, num_robots: int) -> list[list[int]]:
        """Routes of the known requests, each the nodes from depot to depot."""
        if len(self._known) == 0 or num_robots == 0:
            return []
        nodes = self._known_nodes()
        known = _select(self._packed, nodes)
        rows = _rows(cheapest_first(_with_robots(known, num_robots)))
        if self._iterations > 0:
            # A search hardly ever opens more robots, and fewer idle ones make it faster.
            count = min(num_robots, 2 * len(rows) + 1)
            fleet = Fleet.from_chains(_with_robots(known, count), dict(enumerate(rows)))
            rows = _rows(self._improve(fleet))
        return [[int(node) for node in nodes[row]] for row in rows]

    def _improve(self, fleet: Fleet) -> Fleet:
        watch = _Batches(
            time_limit=math.inf, max_iterations=self._iterations, on_improvement=_say_nothing
        )
        watch.improve(fleet)
        Ruin(fleet, np.random.default_rng(self._seed), watch).shorten(Cooling())
        assert watch.best is not None
        return watch.best

    def _begin(self, routes: Sequence[Sequence[int]]) -> Start:
        """Give the first robots their routes, and promise the starts."""
        packed = self._packed
        packed.latest[:], packed.end[:] = self._hard, self._scratch.end[0]
        chains = empty_chains(packed)
        for robot, row in enumerate(routes):
            set_chain(packed, chains, robot, np.array(row, dtype=np.int64), len(row))
            tighten(packed, chains, robot, self._scratch.end[0])
        denied = self._known[chains.owner[self._known] == UNSERVED]
        return Start(
            chains=chains,
            latest=packed.latest.copy(),
            end=packed.end.copy(),
            num_denied=float(len(denied)),
            loss=float(packed.denial_price[denied].sum()),
        )

    def _known_nodes(self) -> Ints:
        """The depot and the known requests, then the pickups of transfers among them."""
        partner = self._packed.partner[self._known]
        depot = np.zeros(1, dtype=np.int64)
        return np.concatenate([depot, self._known, partner[partner != NOBODY]])


class _Batches(Watch):
    """Watch that looks up only a few times."""

    def batch(self, per_second: float) -> int:  # noqa: ARG002
        """Iterations of the next batch."""
        assert self._max_iterations is not None
        left = self._max_iterations - self.iteration
        return max(1, min(left, math.ceil(self._max_iterations / NUM_BATCHES)))


def _say_nothing(*_: object) -> None:
    pass


def _rows(fleet: Fleet) -> list[Ints]:
    """Chains of the robots that leave home."""
    chains = fleet.chains
    return [chains.node[robot, : chains.length[robot]] for robot in fleet.used()]


def _pack_money(instance: Instance) -> Packed:
    packed = pack(instance, Objective.COST)
    for node, request in enumerate(instance.requests, start=1):
        if request.kind is Kind.DELIVER and request.load == 0:
            # As the dispatcher does: without weight, but loaded at the depot.
            packed.at_depot[node] = np.finfo(np.float64).tiny
    return packed


def _split(instance: Instance) -> tuple[Calls, list[int]]:
    """Requests that come in, in the dispatcher's order, and the nodes of the known ones."""
    node_of = {request.id: node for node, request in enumerate(instance.requests, start=1)}
    num_transfers = sum(request.kind is Kind.TRANSFER for request in instance.requests)
    release = np.zeros(1 + len(node_of) + num_transfers)
    priority = np.ones(len(release), dtype=np.int64)
    for request in instance.requests:
        node = node_of[request.id]
        priority[node], release[node] = request.priority, clock(request.release_s)
    events = order_events(
        Submit(now_s=request.release_s, request=request)
        for request in instance.requests
        if request.release_s > 0
    )
    order = [node_of[event.request.id] for event in events if isinstance(event, Submit)]
    known = [node_of[request.id] for request in instance.requests if request.release_s == 0]
    return Calls(np.array(order, dtype=np.int64), release, priority), known


def _select(packed: Packed, nodes: Ints) -> Packed:
    """The arrays of some nodes, in their order; partners among them stay partners."""
    fields = ("place", "is_pickup", "service", "earliest", "latest", "due", "load",
              "at_depot", "delta", "late_price", "denial_price")  # fmt: skip
    index = np.full(len(packed.place) + 1, NOBODY, dtype=np.int64)
    index[nodes] = np.arange(len(nodes))
    chosen: dict[str, Any] = {field: getattr(packed, field)[nodes] for field in fields}
    return packed._replace(
        **chosen,
        partner=index[packed.partner[nodes]],
    )


def _with_robots(packed: Packed, count: int) -> Packed:
    """As many robots as wanted, all like the first."""
    return packed._replace(
        capacity=np.repeat(packed.capacity[:1], count),
        start=np.repeat(packed.start[:1], count),
        end=np.repeat(packed.end[:1], count),
        max_trips=np.repeat(packed.max_trips[:1], count),
        twin=np.arange(-1, count - 1),
    )


def _first_robots(packed: Packed, count: int) -> Packed:
    """The first robots, in the same memory."""
    return packed._replace(
        capacity=packed.capacity[:count],
        start=packed.start[:count],
        end=packed.end[:count],
        max_trips=packed.max_trips[:count],
        twin=packed.twin[:count],
    )


def _first_chains(chains: Chains, count: int) -> Chains:
    """The chains of the first robots, in the same memory."""
    *of_robots, owner = chains
    return Chains._make([*(array[:count] for array in of_robots), owner])
