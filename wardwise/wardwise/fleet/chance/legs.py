"""Means and variances of all legs and services of an instance under its randomness.

A leg is ``drive * F * D + wait * G + fixed``: driving with its factor ``F`` and the
factor ``D`` of the day, waits for elevators with theirs, and rides and elevator doors,
which are certain. Waits are told apart where the instance has a building with all its
places and takes no variances from its matrix; elsewhere a leg is all driving.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.randomness import Randomness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wardwise.fleet.problem import Instance
    from wardwise.site import Site

    Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Legs:
    """Matrices of shape (P, P) over places, row = from, and services of shape (N,) over requests.

    Parameters
    ----------
    drive_s, wait_s, fixed_s
        Mean parts of each leg; they sum to `travel_s` of the instance.
    drive_cv, wait_cv
        Standard deviations of the factors of driving and waiting.
    travel_var_s2
        Variance of each leg, the factor of the day included; 0 where there is no way.
    service_s, service_var_s2
        Mean and variance of each service.
    """

    drive_s: Matrix = field(repr=False)
    wait_s: Matrix = field(repr=False)
    fixed_s: Matrix = field(repr=False)
    drive_cv: Matrix = field(repr=False)
    wait_cv: Matrix = field(repr=False)
    travel_var_s2: Matrix = field(repr=False)
    service_s: Matrix = field(repr=False)
    service_var_s2: Matrix = field(repr=False)


def legs_of(instance: Instance) -> Legs:
    """Legs and services of an instance; without stated randomness, of the default one."""
    law = instance.randomness or Randomness()
    travel_s = instance.travel_s
    wait_s, fixed_s, wait_cv = (np.zeros_like(travel_s) for _ in range(3))
    drive_s, drive_cv = travel_s, np.full_like(travel_s, law.travel.cv)
    if instance.travel_var_s2 is not None and law.uses_matrix:
        # A law without spread is certain whatever the matrix states, as in its quantiles.
        if law.travel.cv > 0:
            drive_cv = _ratio(np.sqrt(instance.travel_var_s2), travel_s)
    elif instance.site is not None and _holds_all(instance, instance.site):
        drive_s, wait_s, squares_s2 = _parts(instance, instance.site)
        fixed_s = np.maximum(travel_s - drive_s - wait_s, 0.0)
        wait_cv = law.elevator.cv * _ratio(np.sqrt(squares_s2), wait_s)
    has_way = np.isfinite(travel_s)
    drive_var = (1 + drive_cv**2) * (1 + law.day**2) - 1
    variance = np.where(has_way, drive_s, 0.0) ** 2 * drive_var + (wait_s * wait_cv) ** 2
    service_s = np.array([request.service_s for request in instance.requests], dtype=np.float64)
    return Legs(
        drive_s=drive_s,
        wait_s=wait_s,
        fixed_s=fixed_s,
        drive_cv=drive_cv,
        wait_cv=wait_cv,
        travel_var_s2=variance,
        service_s=service_s,
        service_var_s2=(law.service.cv * service_s) ** 2,
    )


def _holds_all(instance: Instance, site: Site) -> bool:
    return all(place.id in site.points for place in instance.places)


def _parts(instance: Instance, site: Site) -> tuple[Matrix, Matrix, Matrix]:
    """Driving, mean waits and sum of the squares of mean waits on each quickest path.

    A building in which a corridor is as many metres long as it takes seconds has the
    same quickest paths; its metres are seconds of driving, and waits of variance w or
    w * w add up to the sums of waits and of their squares.
    """
    corridors = tuple(
        replace(
            corridor,
            length_m=site.length_m(corridor) / (site.speed_m_per_s * corridor.speed_factor)
            + corridor.door_s,
            speed_factor=1.0,
            door_s=0.0,
        )
        for corridor in site.corridors
    )
    found = [
        replace(
            site,
            corridors=corridors,
            speed_m_per_s=1.0,
            drive_cv=0.0,
            elevators=tuple(replace(e, wait_sd_s=e.wait_mean_s**power) for e in site.elevators),
        ).travel([place.id for place in instance.places])
        for power in (0.5, 1.0)
    ]
    return found[0].distance_m, found[0].travel_var_s2, found[1].travel_var_s2


def _ratio(part: Matrix, whole: Matrix) -> Matrix:
    """Quotient, and 0 where the denominator is 0 or not finite."""
    fits = np.isfinite(whole) & (whole > 0) & np.isfinite(part)
    return np.divide(part, whole, out=np.zeros_like(whole), where=fits)
