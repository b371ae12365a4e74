"""Prescriptions of a hospital's wards, drawn from a seed.

All rates and sizes below are ours, chosen to look like a working day; none is taken from a
publication. Replace them by what is counted on site.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.rack import Machine
from wardwise.site import NodeKind

if TYPE_CHECKING:
    from wardwise.fleet.problem import Instance
    from wardwise.pharmacy.problem import PharmacyDay
    from wardwise.pharmacy.service_time import ServiceTime

PHARMACY = "pharmacy"
# What a generated hospital carries of medicine without a dispensing machine.
MEDICINE_FLOWS = ("stat-medicine", "medicine", "dispensed")
TWO_POINTS = Machine(points_m=((0.0, 0.0), (0.0, 0.0)))
WRITTEN_UNTIL_S = 7200.0  # before the robots' shifts end: a routine order has two hours


def wards_of(hospital: Instance, pharmacy: str = PHARMACY) -> tuple[str, ...]:
    """Places that prescriptions come from: wards, or without a building all but two places.

    Raises
    ------
    ValueError
        If the hospital has no place called `pharmacy`, or no ward.
    """
    if pharmacy not in hospital.place_index:
        raise ValueError(f"hospital: places: expected one called {pharmacy!r}, got none")
    if hospital.site is None:
        wards = [place.id for place in hospital.places[1:] if place.id != pharmacy]
    else:
        points = hospital.site.points
        wards = [p.id for p in hospital.places if points[p.id].kind == NodeKind.WARD]
    if not wards:
        raise ValueError("hospital: places: expected at least one ward, got none")
    return tuple(wards)


def without_medicine(hospital: Instance) -> Instance:
    """The hospital without the flows of medicine that its dispensing machine replaces."""
    kept = (r for r in hospital.requests if r.id.rpartition("-")[0] not in MEDICINE_FLOWS)
    return replace(hospital, requests=tuple(kept))


def draw_prescriptions(
    hospital: Instance,
    *,
    seed: int = 1,
    per_hour: float = 20.0,
    max_lines: int = 8,
    machine: Machine = TWO_POINTS,
    service: ServiceTime | None = None,
    zipf: float = 0.8,
) -> PharmacyDay:
    """Prescriptions of all wards, and a machine that holds every drug of them.

    They come at random from the start until two hours before the last shift of a robot ends, from
    every ward alike, with priorities and due times as `generate_pharmacy` draws them.

    Parameters
    ----------
    hospital
        With a place called ``pharmacy``.
    seed
        The same seed gives the same day.
    per_hour
        Mean number of prescriptions in an hour, 0.01 to 100,000.
    max_lines, machine, service, zipf
        As `generate_pharmacy` takes them; the machine has two points at one end.

    Raises
    ------
    ValueError
        Naming the parameter and its range; or if the day is too short for any prescription.
    """
    wards = wards_of(hospital)
    if not 0.01 <= per_hour <= 1e5:
        raise ValueError(f"per_hour: expected 0.01 to 100000, got {per_hour}")
    until_s = max(robot.end_s for robot in hospital.robots) - WRITTEN_UNTIL_S
    expected = per_hour * max(until_s, 0.0) / 3600.0
    enough = math.ceil(expected + 10 * math.sqrt(expected) + 10)
    day = generate_pharmacy(
        seed, num_orders=enough, max_lines=max_lines, machine=machine, service=service, zipf=zipf,
        arrivals_per_hour=per_hour,
    )  # fmt: skip
    written = [order for order in day.orders if order.release_s <= until_s]
    if not written:
        raise ValueError(f"hospital: robots: expected shifts with prescriptions by {until_s:g}")
    ward = np.random.default_rng([seed, 1]).integers(len(wards), size=len(written)).tolist()
    orders = (replace(order, destination=wards[w]) for order, w in zip(written, ward, strict=True))
    return replace(day, orders=tuple(orders))
