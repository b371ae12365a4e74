"""Believable days of a dispensing machine, from a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.problem import Bin, Line, Order, PharmacyDay, Priority
from wardwise.pharmacy.rack import Machine

if TYPE_CHECKING:
    from wardwise.pharmacy.service_time import ServiceTime

PRIORITY_SHARES = {Priority.STAT: 0.03, Priority.URGENT: 0.17, Priority.ROUTINE: 0.80}
DUE_S = {Priority.STAT: 600.0, Priority.URGENT: 1800.0, Priority.ROUTINE: 7200.0}
PACK_SHARES = (0.7, 0.2, 0.1)  # of one, two and three packs


def generate_pharmacy(
    seed: int = 1,
    *,
    num_orders: int = 100,
    max_lines: int = 5,
    machine: Machine | None = None,
    service: ServiceTime | None = None,
    zipf: float = 0.0,
    packs_per_bin: int | None = None,
    arrivals_per_hour: float | None = None,
) -> PharmacyDay:
    """Fill a rack with one bin a cell and draw prescriptions.

    Parameters
    ----------
    seed
        The same seed gives the same day.
    num_orders
        At least 1.
    max_lines
        Lines of an order are uniform from 1 to this, at least 1.
    machine, service
        The default ones if None.
    zipf
        Demand for the drug of rank r goes as ``r^-zipf``, at least 0; 0 makes all alike.
    packs_per_bin
        Packs of each bin, at least 1; None: more than a day can want.
    arrivals_per_hour
        Orders come at random at this rate, above 0, with priorities and due times; None: all are
        known at the start, routine, without due times.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    machine = machine or Machine()
    num_drugs = machine.rack.num_cells
    if num_orders < 1:
        raise ValueError(f"num_orders: expected at least 1, got {num_orders}")
    if not 1 <= max_lines <= num_drugs:
        raise ValueError(f"max_lines: expected 1 to {num_drugs}, got {max_lines}")
    if not 0 <= zipf < 10:
        raise ValueError(f"zipf: expected 0 to 10, got {zipf}")
    if arrivals_per_hour is not None and not 0 < arrivals_per_hour < 1e6:
        raise ValueError(f"arrivals_per_hour: expected a number above 0, got {arrivals_per_hour}")
    if packs_per_bin is not None and packs_per_bin < 1:
        raise ValueError(f"packs_per_bin: expected at least 1, got {packs_per_bin}")
    rng = np.random.default_rng(seed)
    cell = rng.permutation(num_drugs)
    bins = tuple(
        Bin(id=f"B{rank + 1:04d}", drug=f"D{rank + 1:04d}", cell=int(cell[rank]))
        for rank in range(num_drugs)
    )
    if packs_per_bin is not None:
        bins = tuple(replace(bin_, quantity=packs_per_bin) for bin_ in bins)
    popularity = np.arange(1, num_drugs + 1, dtype=np.float64) ** -zipf
    popularity /= popularity.sum()
    orders = []
    for number in range(num_orders):
        size = int(rng.integers(1, max_lines + 1))
        ranks = rng.choice(num_drugs, size, replace=False, p=popularity)
        packs = rng.choice(len(PACK_SHARES), size, p=PACK_SHARES) + 1
        lines = tuple(
            Line(drug=bins[rank].drug, quantity=int(count))
            for rank, count in zip(ranks, packs, strict=True)
        )
        orders.append(Order(id=f"RX{number + 1:05d}", lines=lines))
    day = PharmacyDay(machine=machine, bins=bins, orders=tuple(orders))
    if service is not None:
        day = replace(day, service=service)
    return day if arrivals_per_hour is None else _with_arrivals(day, arrivals_per_hour, rng)


def _with_arrivals(
    day: PharmacyDay, arrivals_per_hour: float, rng: np.random.Generator
) -> PharmacyDay:
    """The same orders with times and priorities."""
    gaps_s = rng.exponential(3600.0 / arrivals_per_hour, len(day.orders))
    kinds = list(PRIORITY_SHARES)
    chosen = rng.choice(len(kinds), len(day.orders), p=list(PRIORITY_SHARES.values()))
    orders = [
        replace(
            order, release_s=float(release_s), priority=kinds[kind],
            due_s=float(release_s) + DUE_S[kinds[kind]],
        )
        for order, release_s, kind in zip(day.orders, np.cumsum(gaps_s), chosen, strict=True)
    ]  # fmt: skip
    return replace(day, orders=tuple(orders))
