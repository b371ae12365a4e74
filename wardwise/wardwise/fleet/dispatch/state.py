"""The fleet as arrays: what every robot has done, does and will do.

Requests get nodes when they become known and give them back when they are denied
or cancelled; arrays grow when they are full. Three things in the arrays differ
from a plan made in advance. `Packed.latest` of a node is its promise: no later
change may start its service later. `Packed.service` of a stop at which a robot was
held up includes the delay. A robot that is out of order has no capacity.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.dispatch import kernels, slack_kernels
from wardwise.fleet.problem import Kind
from wardwise.fleet.search import chains as search
from wardwise.fleet.search.chains import UNSERVED, Chains
from wardwise.fleet.search.insertion import best_per_robot, plan_weights
from wardwise.fleet.search.packed import (
    NOBODY,
    QUANTA_PER_UNIT,
    Objective,
    pack,
    reserve,
    write_request,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.dispatch.slack_kernels import Chances
    from wardwise.fleet.dispatch.slacks import Quantiles
    from wardwise.fleet.problem import Instance, Request
    from wardwise.fleet.search.packed import Bools, Floats, Ints, Packed

FIRST_NODES, FIRST_WIDTH = 256, 32
# An insertion adds at most the two stops of a transfer and a depot.
MOST_ADDED = 3
OUT_OF_ORDER = -1.0


class Offers(NamedTuple):
    """Best place of one request on every robot, as `best_per_robot` fills it."""

    prices: Floats
    positions: Ints
    drops: Ints
    opens: Bools


class Saved(NamedTuple):
    """What a decision can change in the arrays."""

    packed: Packed
    chains: Chains
    latest: Floats
    end: Floats


class State:
    """Chains of a running day.

    Parameters
    ----------
    instance
        Places, robots and prices; its requests are not looked at.

    Attributes
    ----------
    requests
        Request of each node in use; of a transfer under both its nodes.
    nodes
        Node of each request that has one, by id.
    priority, hard
        Class of each node, and its last start with the tolerance.
    returned
        Moments at which robots really came back or broke down, by robot and position, where
        the arrays hold the moment at which they can go on.
    departed
        Moments at which robots really left the depot, where they were late afterwards.
    broken_off
        Robots and positions where a trip was broken off.
    quantiles
        What insertions must leave besides mean slacks; `None`: nothing.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        packed = pack(replace(instance, requests=()), Objective.COST)
        self.packed: Packed = reserve(packed, FIRST_NODES)
        # Loads are whole billionths: this lets in nothing but the trace in `write`.
        self.packed.capacity[:] += 0.5
        self.weights = plan_weights(packed)
        self.capacity, self.start = packed.capacity.copy(), packed.start.copy()
        self.end = packed.end.copy()
        self.chains: Chains = _wide(search.empty_chains(packed), FIRST_NODES, FIRST_WIDTH)
        self.requests: dict[int, Request] = {}
        self.nodes: dict[str, int] = {}
        self.priority = np.zeros(FIRST_NODES, dtype=np.int64)
        self.hard = np.zeros(FIRST_NODES)
        self.returned: dict[tuple[int, int], float] = {}
        self.departed: dict[tuple[int, int], float] = {}
        self.broken_off: set[tuple[int, int]] = set()
        self.quantiles: Quantiles | None = None
        self._free = list(range(FIRST_NODES - 1, 0, -1))
        self._spare: Chains | None = None
        num_robots = len(instance.robots)
        self.offers = Offers(
            np.empty(num_robots),
            np.empty(num_robots, dtype=np.int64),
            np.empty(num_robots, dtype=np.int64),
            np.empty(num_robots, dtype=np.bool_),
        )

    def add(self, request: Request) -> int:
        """Give a request its node."""
        if len(self._free) < 2:
            self._grow_nodes()
        node = self._free.pop()
        pickup = self._free.pop() if request.kind is Kind.TRANSFER else NOBODY
        self.write(node, pickup, request)
        return node

    def write(self, node: int, pickup: int, request: Request) -> None:
        """Fill a node, and for a transfer that of its pickup."""
        write_request(
            self.packed, node, pickup, request, self.instance.place_index, self.instance.costs
        )
        if request.kind is Kind.DELIVER and request.load == 0:
            # A trace that tells the kernels that it is loaded at the depot.
            self.packed.at_depot[node] = np.finfo(np.float64).tiny
        for each in (node, pickup) if request.kind is Kind.TRANSFER else (node,):
            self.requests[each] = request
            self.priority[each] = request.priority
            self.hard[each] = self.packed.latest[each]
        self.nodes[request.id] = node
        if request.tolerance_s > 0:
            self.count_lateness()

    def count_lateness(self, *, is_soft: bool = True) -> None:
        """Tell the kernels whether services may be late, so that they add it up."""
        self.packed = self.packed._replace(is_soft=is_soft)

    def free(self, node: int) -> None:
        """Take back the node of a request that no chain serves."""
        partner = int(self.packed.partner[node])
        del self.nodes[self.requests[node].id]
        for each in (node,) if partner == NOBODY else (partner, node):
            self._free.append(each)
            del self.requests[each]

    def rewrite(self, node: int, request: Request) -> None:
        """Give a node that is no part of a transfer to another request that is none."""
        del self.nodes[self.requests[node].id]
        self.write(node, NOBODY, request)

    def keep_pickup(self, drop: int, request: Request) -> None:
        """Turn a transfer whose drop no chain serves into a collection at its pickup."""
        pickup = int(self.packed.partner[drop])
        service_s = self.packed.service[pickup]  # as long as it really takes
        self.free(drop)
        self._free.remove(pickup)
        self.write(pickup, NOBODY, request)
        self.packed.service[pickup] = service_s

    def scan(self, node: int) -> Offers:
        """Find the best place on every robot; the arrays are those of the last call."""
        chances = self.chances()
        if chances is None:
            best_per_robot(self.packed, self.chains, self.weights, node, *self.offers)
        else:
            slack_kernels.best_kept_per_robot(
                self.packed, self.chains, self.weights, chances, node, *self.offers
            )
        return self.offers

    def chances(self, chains: Chains | None = None) -> Chances | None:
        """Arrays of what is random and promised, for some chains or its own."""
        if self.quantiles is None:
            return None
        width = (chains or self.chains).node.shape[1]
        return self.quantiles.chances(self.packed, self.priority, self.hard, width)

    def starts(self, node: int, robots: Ints, offers: Offers) -> tuple[Floats, Floats | None]:
        """Starts of service at the places offered on some robots, planned and promised."""
        places = robots, offers.positions[robots], offers.drops[robots]
        etas, chances = np.empty(len(robots)), self.chances()
        kernels.starts(self.packed, self.chains, *places, node, etas)
        if chances is None:
            return etas, None
        promised = np.empty(len(robots))
        opens = offers.opens[robots]
        slack_kernels.quantiles(self.packed, self.chains, chances, *places, opens, node, promised)
        return etas, promised

    def margin_from_depot_s(self, node: int) -> float:
        """Seconds that a robot at the depot must plan to spare for a request, to be as promised."""
        chances, packed = self.chances(), self.packed
        if chances is None:
            return 0.0
        pickup, place = int(packed.partner[node]), packed.place
        stops = [0, node] if pickup == NOBODY else [0, pickup, node]
        variance = sum(
            chances.travel_var[place[before], place[after]] for before, after in pairwise(stops)
        )
        if pickup != NOBODY:
            variance += (chances.service_cv * packed.service[pickup]) ** 2
        return float(chances.z[self.priority[node]] * np.sqrt(variance))

    def promised_s(self, node: int) -> float | None:
        """By when service at a node that is served starts as surely as promised, if it is."""
        chances = self.chances()
        if chances is None:
            return None
        found, nowhere = np.array([self.eta(node)]), np.array([slack_kernels.NOWHERE])
        robots, opens = self.chains.owner[[node]], np.zeros(1, dtype=np.bool_)
        slack_kernels.quantiles(
            self.packed, self.chains, chances, robots, nowhere, nowhere, opens, node, found
        )
        return float(found[0])

    def commit(self, now_s: float) -> None:
        """Commit every departure up to now."""
        search.commit(self.packed, self.chains, now_s)

    def is_out_of_order(self, robot: int) -> bool:
        """Whether a robot broke down and is not back yet."""
        return bool(self.packed.capacity[robot] == OUT_OF_ORDER)

    def in_service(self) -> Bools:
        """Robots that have, had or will have a trip; those out of order among them."""
        return self.chains.length > 2

    def spares(self, now_s: float) -> Ints:
        """Robots that stand at the depot unused and can still leave."""
        is_spare = (self.chains.length == 2) & (self.packed.capacity >= 0)
        return np.flatnonzero(is_spare & (self.packed.end > now_s))

    def num_spares(self, now_s: float) -> int:
        """How many spares there are."""
        return len(self.spares(now_s))

    def put(self, node: int, robot: int, position: int, drop: int, opens: bool) -> float:
        """Insert a request and promise the new starts; returns the change of the chain's price."""
        before = float(self.chains.price[robot])
        if self.chains.length[robot] + MOST_ADDED > self.chains.node.shape[1]:
            self._widen(int(self.chains.length[robot]) + MOST_ADDED)
        search.put(self.packed, self.chains, robot, position, drop, opens, node)
        self.tighten(robot)
        return float(self.chains.price[robot]) - before

    def remove(self, node: int) -> bool:
        """Take a request out of its chain; returns whether the chain is feasible."""
        self.release_promise(node)
        return bool(search.remove(self.packed, self.chains, node))

    def release_promise(self, node: int) -> None:
        """Let a request that is on no chain be as late as it tolerates."""
        partner = self.packed.partner[node]
        for each in (node,) if partner == NOBODY else (node, partner):
            self.packed.latest[each] = self.hard[each]

    def tighten(self, robot: int) -> bool:
        """Promise the starts of a chain; returns whether it is feasible."""
        return bool(kernels.tighten(self.packed, self.chains, robot, self.end[robot]))

    def refresh(self, robot: int) -> bool:
        """Recompute a chain; returns whether it is feasible."""
        return bool(search.refresh(self.packed, self.chains, robot))

    def set_row(self, robot: int, row: Sequence[int]) -> bool:
        """Give a robot another chain; returns whether it is feasible."""
        if len(row) > self.chains.node.shape[1]:
            self._widen(len(row))
        nodes = np.array(row, dtype=np.int64)
        return bool(search.set_chain(self.packed, self.chains, robot, nodes, len(nodes)))

    def row(self, robot: int) -> list[int]:
        """Nodes of a chain, depots included."""
        nodes: list[int] = self.chains.node[robot, : self.chains.length[robot]].tolist()
        return nodes

    def request_node(self, node: int) -> int:
        """Node that stands for the request of a stop: of a pickup, that of the drop."""
        return int(self.packed.partner[node]) if self.packed.is_pickup[node] else node

    def note_departure(self, robot: int, position: int) -> None:
        """Keep the moment at which a robot left a depot, before its arrival is changed."""
        chains = self.chains
        if chains.node[robot, position] == 0:
            places = chains.place[robot, position], chains.place[robot, position + 1]
            left_s = float(chains.begin[robot, position + 1] - self.packed.travel[places])
            self.departed.setdefault((robot, position), left_s)

    def position(self, node: int) -> int:
        """Where in its robot's chain a node stands."""
        robot = self.chains.owner[node]
        return int(np.flatnonzero(self.chains.node[robot, : self.chains.length[robot]] == node)[0])

    def reached_s(self, robot: int, position: int) -> float:
        """When a robot starts at a position; at the depot, when it is back."""
        begin_s = float(self.chains.begin[robot, position])
        return self.returned.get((robot, position), begin_s)

    def eta(self, node: int) -> float:
        """Planned start of service at a node that is served."""
        return float(self.chains.begin[self.chains.owner[node], self.position(node)])

    def is_open(self, node: int) -> bool:
        """Whether a request is on a chain and can still be taken off."""
        return bool(kernels.is_open(self.packed, self.chains, node))

    def save(self) -> Saved:
        """Go on with copies of the arrays, and keep the originals for `restore`."""
        if self._spare is None or any(
            mine.shape != theirs.shape
            for mine, theirs in zip(self._spare, self.chains, strict=True)
        ):
            self._spare = Chains._make(np.empty_like(array) for array in self.chains)
        saved = Saved(self.packed, self.chains, self.packed.latest.copy(), self.packed.end.copy())
        kernels.copy_chains(self.chains, self._spare)
        self.chains = self._spare
        return saved

    def restore(self, saved: Saved) -> None:
        """Undo all that changed since `save`."""
        self.packed, self.chains = saved.packed, saved.chains
        self.packed.latest[:] = saved.latest
        self.packed.end[:] = saved.end

    def mark_twins(self) -> None:
        """Find anew which idle robots are alike, after one of them changed."""
        packed = self.packed
        last_of_kind: dict[tuple[float, ...], int] = {}
        fields = (packed.capacity, packed.start, packed.end, packed.max_trips)
        for robot, kind in enumerate(zip(*fields, strict=True)):
            packed.twin[robot] = last_of_kind.get(kind, NOBODY)
            last_of_kind[kind] = robot

    def roomy_chains(self, num_more: int) -> Chains:
        """Copy in which all stops, and more requests, fit on one robot, each on its own trip."""
        width = 2 * int(self.chains.length.sum()) + MOST_ADDED * num_more
        return Chains._make(array.copy() for array in _wide(self.chains, len(self.priority), width))

    def _grow_nodes(self) -> None:
        """Room for twice as many nodes."""
        size = len(self.priority)
        self.packed = reserve(self.packed, 2 * size)
        self.chains = _wide(self.chains, 2 * size, self.chains.node.shape[1])
        self.priority = np.concatenate([self.priority, np.zeros(size, dtype=np.int64)])
        self.hard = np.concatenate([self.hard, np.zeros(size)])
        self._free = [*range(2 * size - 1, size - 1, -1), *self._free]

    def _widen(self, width: int) -> None:
        """Room for chains of `width` positions, and as many again."""
        self.chains = _wide(self.chains, len(self.priority), 2 * width)


def clock(time_s: float) -> float:
    """Nearest moment that the arrays can hold, a multiple of 2^-30 s."""
    return round(time_s * QUANTA_PER_UNIT) / QUANTA_PER_UNIT


def _wide(chains: Chains, num_nodes: int, width: int) -> Chains:
    """Copy with room for `num_nodes` nodes and chains of `width` positions."""
    fields = {}
    for name, array in chains._asdict().items():
        if array.ndim == 2:
            wide = np.zeros((len(array), width), dtype=array.dtype)
            columns = min(width, array.shape[1])
            wide[:, :columns] = array[:, :columns]
            fields[name] = wide
    owner = np.full(num_nodes, UNSERVED, dtype=np.int64)
    owner[: len(chains.owner)] = chains.owner[:num_nodes]
    return chains._replace(**fields, owner=owner)
