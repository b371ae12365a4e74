"""What it is worth to keep bins, to let orders change places, and to mix their lines."""

from __future__ import annotations

from itertools import pairwise
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.pharmacy.baselines import at_random
from wardwise.pharmacy.chain import best_chain, pack
from wardwise.pharmacy.costs import costs_of
from wardwise.pharmacy.free_orders import free_orders
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.interleaved import free_sequence
from wardwise.pharmacy.paths import shortest_path
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.sequence import sequence
from wardwise.pharmacy.service_time import Lognormal

from .sequences import day_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.pharmacy.chain import Packed
    from wardwise.pharmacy.costs import Costs

# Reference study: one day of 871 lines.
KEPT_ORDERS, KEPT_LINES, ZIPF = 290, 871, 0.8
TRIES_AN_ORDER, KICKS, MOVES, SHUFFLES = 500, 20_000, 1_000_000, 100
MIXED_BINS = 100
FOREVER_S = 1e9


class Kept(NamedTuple):
    """Cycles saved of 871, by chance and sought, and arm time saved in per cent."""

    by_chance: float
    sought: float
    arm_pct: float


def keep_bins(seeds: Sequence[int]) -> tuple[Kept, Kept]:
    """Bins that the next line wants stay at the point: means and deviations of the days."""
    found = []
    for seed in seeds:
        day = generate_pharmacy(seed, num_orders=KEPT_ORDERS, zipf=ZIPF)
        stored, kept = (
            sequence(day, keep_bins=keep, replications=1).steps for keep in (False, True)
        )
        by_chance, sought = (
            sum(a.bin == b.bin for a, b in pairwise(steps)) for steps in (stored, kept)
        )
        arm_s, kept_s = (sum(step.arm_s for step in steps) for steps in (stored, kept))
        scale = KEPT_LINES / len(stored)
        found.append((scale * by_chance, scale * sought, 100 * (1 - kept_s / arm_s)))
    columns = list(zip(*found, strict=True))
    return Kept(*map(mean, columns)), Kept(*map(stdev, columns))


def freedom_gains_pct(window: int, seeds: Sequence[int]) -> tuple[float, float, float]:
    """Saved against random sequences, one point: orders as they came, free, and lines mixed."""
    gains = []
    for seed in seeds:
        rng = np.random.default_rng([seed, window])
        day = day_of(seed, Machine(), num_orders=window)
        packed = pack([[[int(cell)] for cell in day.cells_of(order)] for order in day.orders])
        costs = costs_of(day.machine, day.service, packed.node)
        packed = packed._replace(node=costs.nodes_of(packed.node))
        shuffled = [at_random(packed, rng) for _ in range(SHUFFLES)]
        at_random_s = mean(costs.expected_s(packed.node[way]) for way in shuffled)
        ways = (
            best_chain(costs, packed)[0],
            free_orders(costs, packed, tries=TRIES_AN_ORDER * window, seed=seed)[1],
            mixed(costs, packed, seed),
        )
        gains.append([100 * (1 - costs.expected_s(packed.node[w]) / at_random_s) for w in ways])
    came, free, all_mixed = (mean(column) for column in zip(*gains, strict=True))
    return came, free, all_mixed


def mixed(costs: Costs, packed: Packed, seed: int) -> np.ndarray:
    """Shortest path through all lines, from the better end."""
    cells = costs.cells[packed.node]
    between_s = costs.machine.between_s[np.ix_(cells, cells)]
    path = shortest_path(between_s, max_kicks=KICKS, time_limit=FOREVER_S, seed=seed)
    return min((path, path[::-1]), key=lambda way: costs.expected_s(packed.node[way]))


def two_paths_gain_pct(mean_s: float, seeds: Sequence[int]) -> float:
    """Saved against random sequences: a hundred bins, two points at one end, lines mixed."""
    gains = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        cells = rng.permutation(600)[:MIXED_BINS]
        costs = costs_of(Machine(points_m=((0.0, 0.0),) * 2), Lognormal(mean_s), cells)
        nodes = costs.nodes_of(cells)
        at_random_s = mean(costs.expected_s(rng.permutation(nodes)) for _ in range(SHUFFLES))
        found = free_sequence(costs, nodes, moves=MOVES, seed=seed)
        gains.append(100 * (1 - costs.expected_s(found) / at_random_s))
    return mean(gains)
