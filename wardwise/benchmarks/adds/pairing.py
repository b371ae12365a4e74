"""Pairs of storage jobs and retrievals: our call beside the assignment by SciPy that it calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from wardwise.pharmacy.pairing import METHODS, pair_jobs
from wardwise.pharmacy.rack import Machine, Rack

from .common import SEED, medians, peer_of, row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .common import Row

SIZES = (100, 500, 1000)
RACK = Rack(num_columns=100, num_rows=20)


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Times of both, and travel between the cells of a pair by each rule."""
    machine = Machine(rack=RACK)
    _ = machine.between_s, machine.reach_s
    for n in SIZES[:1] if is_quick else SIZES:
        rng = np.random.default_rng(SEED)
        stored, retrieved = rng.permutation(2000)[:n], rng.permutation(2000)[:n]
        between_s = machine.between_s[np.ix_(stored, retrieved)]

        def ours(jobs: tuple[np.ndarray, np.ndarray] = (stored, retrieved)) -> None:
            pair_jobs(machine, *jobs)

        def scipy(cost_s: np.ndarray = between_s) -> None:
            linear_sum_assignment(cost_s)

        taken = medians({"ours": ours, "scipy": scipy}, 7)
        legs = {}
        for method in METHODS:
            pairs = pair_jobs(machine, stored, retrieved, method=method)
            legs[method] = float(machine.between_s[pairs.stored, pairs.retrieved].mean())
        detail = {"between_s": {name: round(value, 4) for name, value in legs.items()}}
        peer = peer_of("scipy")
        yield row(f"pairing_{n}_ours", 1e3 * taken["ours"], "ms", detail=detail)
        yield row(f"pairing_{n}_assignment_alone", 1e3 * taken["scipy"], "ms", peer=peer)
        least_s = float(between_s[linear_sum_assignment(between_s)].mean())
        off_s = abs(legs["optimal"] - least_s)
        yield row(f"pairing_{n}_difference", off_s, "s", ("<=", 1e-6), peer=peer)
