"""A hospital's day end to end: prescriptions, dispensing machine, robots, wards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.check import Report, check
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital
from wardwise.hospital.deliveries import Delivery, Status, with_deliveries
from wardwise.hospital.dispensing import Dispensing, Run, dispense, live_rounds
from wardwise.hospital.lived import LivedDay, live
from wardwise.hospital.prescriptions import draw_prescriptions, without_medicine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance
    from wardwise.pharmacy.problem import PharmacyDay, Priority

QUANTILES = (0.5, 0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of deliveries over lived days; those of none are 0.

    Parameters
    ----------
    num_delivered
        Prescriptions that robots bring on a day.
    mean_s, p95_s
        Seconds from writing to bedside: mean, and what 95 % of the deliveries keep.
    machine_s, pickup_s, ride_s
        Parts of the mean: until complete, until picked up, until at the bedside.
    late_share
        Share of orders that are complete after their release, 0 to 1.
    wait_s
        Seconds of a day that robots stand at the pharmacy for them.
    on_promise_share
        Share at the bedside by the due time of the prescription, of those with one; 0 to 1.
    """

    num_delivered: int = 0
    mean_s: float = 0.0
    p95_s: float = 0.0
    machine_s: float = 0.0
    pickup_s: float = 0.0
    ride_s: float = 0.0
    late_share: float = 0.0
    wait_s: float = 0.0
    on_promise_share: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class HospitalDay:
    """A planned day, and what came of it with drawn service times.

    Parameters
    ----------
    quantile
        Probability with which orders are complete at their release.
    dispensing
        The machine's rounds.
    instance, deliveries
        What the robots have to carry, and the prescriptions among it.
    plan, report
        The robots' plan, and the checker's verdict on it.
    run
        Rounds of the lived days, one replication a day.
    days
        The lived days.
    """

    quantile: float
    dispensing: Dispensing
    instance: Instance
    deliveries: tuple[Delivery, ...]
    plan: Plan
    report: Report
    run: Run
    days: tuple[LivedDay, ...]

    @cached_property
    def status(self) -> dict[str, Status]:
        """What became of each prescription."""
        return {d.order.id: d.status(self.plan) for d in self.deliveries}

    @property
    def is_sound(self) -> bool:
        """Whether the checker accepts the plan and every lived day."""
        return self.report.is_feasible and all(day.report.is_feasible for day in self.days)

    def figures(self, priority: Priority | None = None) -> Figures:
        """Figures of all deliveries of all lived days, or of one priority."""
        of = {d.order.id: d for d in self.deliveries}
        brought = [
            (b, of[b.order])
            for day in self.days
            for b in day.brought
            if priority in (None, of[b.order].order.priority)
        ]
        if not brought:
            return Figures()
        end_to_end_s = [b.bedside_s - d.order.release_s for b, d in brought]
        kept = [
            b.bedside_s <= d.order.due_s for b, d in brought if d.order.due_s is not None
        ]  # fmt: skip
        num_days = len(self.days)
        return Figures(
            num_delivered=len(brought) // num_days,
            mean_s=float(np.mean(end_to_end_s)),
            p95_s=float(np.quantile(end_to_end_s, 0.95)),
            machine_s=float(np.mean([b.completed_s - d.order.release_s for b, d in brought])),
            pickup_s=float(np.mean([b.picked_s - b.completed_s for b, _ in brought])),
            ride_s=float(np.mean([b.bedside_s - b.picked_s for b, _ in brought])),
            late_share=float(np.mean([b.completed_s > d.ready_s for b, d in brought])),
            wait_s=sum(b.wait_s for b, _ in brought) / num_days,
            on_promise_share=float(np.mean(kept)) if kept else 1.0,
        )


def hospital_day(
    seed: int = 1,
    *,
    hospital: Instance | None = None,
    pharmacy: PharmacyDay | None = None,
    quantile: float = 0.9,
    round_s: float = 900.0,
    replications: int = 400,
    num_days: int = 50,
    method: str = "ruin",
    objective: str = "cost",
    max_iterations: int = 3000,
) -> HospitalDay:
    """Plan a day from prescription to bedside, and live through it.

    The machine works in rounds, see `wardwise.hospital.dispensing`. A quantile of each order's
    completion is the release of its transport. The robots' plan of the whole day is made in
    advance; the checker judges it, and each day that is lived through with drawn service times.

    Parameters
    ----------
    seed
        Of all randomness; the same seed gives the same result, bit for bit.
    hospital
        What else the robots carry; None: a generated one without its own flows of medicine.
    pharmacy
        Machine and prescriptions, wards as destinations; None: drawn for the hospital.
    quantile
        Probability with which an order is complete at its release, between 0 and 1.
    round_s, replications
        As `dispense` takes them.
    num_days
        Days to live through, at least 1.
    method, objective, max_iterations
        Of the robots' plan, as `solve` takes them.

    Raises
    ------
    ValueError
        Naming the parameter and its range, or as the parts do.
    """
    if num_days < 1:
        raise ValueError(f"num_days: expected at least 1, got {num_days}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    if hospital is None:
        hospital = without_medicine(generate_hospital(transfers=True, seed=seed))
    if pharmacy is None:
        pharmacy = draw_prescriptions(hospital, seed=seed)
    dispensing = dispense(pharmacy, round_s=round_s, replications=replications, seed=seed)
    instance, deliveries = with_deliveries(hospital, dispensing, quantile=quantile)
    plan = solve(
        instance, method=method, objective=objective, max_iterations=max_iterations,
        time_limit=1e9, seed=seed,
    )  # fmt: skip
    return live_days(
        dispensing, instance, deliveries, plan, check(instance, plan), quantile=quantile,
        num_days=num_days, seed=seed,
    )  # fmt: skip


def live_days(
    dispensing: Dispensing,
    instance: Instance,
    deliveries: tuple[Delivery, ...],
    plan: Plan,
    report: Report,
    *,
    quantile: float,
    num_days: int,
    seed: int,
) -> HospitalDay:
    """Live through days of a plan, however it was made, with other luck than it was made with."""
    luck = np.random.default_rng([seed, 1])
    run = live_rounds(dispensing.day, dispensing.rounds, num_days, luck)
    ids = [order.id for order in dispensing.day.orders]
    days = tuple(
        live(instance, plan, deliveries, dict(zip(ids, times_s, strict=True)))
        for times_s in run.completed_s.tolist()
    )
    return HospitalDay(
        quantile=quantile, dispensing=dispensing, instance=instance, deliveries=deliveries,
        plan=plan, report=report, run=run, days=days,
    )  # fmt: skip


def compare_quantiles(
    seed: int = 1, quantiles: Sequence[float] = QUANTILES, **settings: object
) -> tuple[HospitalDay, ...]:
    """The same day with the same luck, planned with several quantiles; see `hospital_day`."""
    return tuple(hospital_day(seed, quantile=q, **settings) for q in quantiles)  # type: ignore[arg-type]
