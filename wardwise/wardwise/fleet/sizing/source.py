"""Where simulated days come from: one day a seed, the same whatever fleet lives through it.

* `RedrawnDays`: the requests of one instance, with new releases and priorities.
* `PastDays`: days that were, drawn again with a little jitter.
* `HospitalDays`: new requests in one generated hospital.

Any object with a `name` and a method `day` will do; it must be possible to pickle it,
since days are simulated in several processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from wardwise.dynamism import draw_dynamic, latest_releases
from wardwise.fleet.solvers import solve
from wardwise.flows import FLOWS, TRANSFERS, draw_requests
from wardwise.generate import generate_hospital

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Request

DEFAULT_DEGREE = 0.5
REFERENCE_ITERATIONS = 20_000
FOREVER_S = 1e300
# Of the length of a day, for `PastDays` made of an instance.
JITTER_SHARE = 0.02


class DaySource(Protocol):
    """Days of one place."""

    @property
    def name(self) -> str:
        """What the days are days of."""

    def day(self, seed: int) -> Instance:
        """One day; requests with ``release_s`` 0 are known beforehand."""


@dataclass(frozen=True, kw_only=True)
class RedrawnDays:
    """Days with the same requests, of which others are known beforehand.

    Parameters
    ----------
    base
        Its releases and priorities are replaced, as `make_dynamic` does.
    reference_plan
        A feasible plan that serves all; no request appears too late for it.
    degree
        Share of the requests that appear during the day.
    priority_mix
        Chances of stat, urgent and routine.

    Raises
    ------
    ValueError
        If the plan is infeasible or denies a request.
    """

    base: Instance
    reference_plan: Plan
    degree: float = DEFAULT_DEGREE
    priority_mix: tuple[float, float, float] = (0.2, 0.3, 0.5)
    _latest_s: dict[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        latest_s = latest_releases(self.base, self.reference_plan)
        object.__setattr__(self, "_latest_s", latest_s)
        self.day(0)  # refuses a bad degree or mix

    @property
    def name(self) -> str:
        """The base and the degree in percent."""
        return f"{self.base.name}-dod{100 * self.degree:g}"

    def day(self, seed: int) -> Instance:
        """One day."""
        return draw_dynamic(
            self.base,
            self._latest_s,
            degree=self.degree,
            seed=seed,
            priority_mix=self.priority_mix,
        )


@dataclass(frozen=True, kw_only=True)
class PastDays:
    """Days that were: a bootstrap.

    Of several days one is drawn as a whole. Of a single one each request that came in
    during the day comes once more, not at all or several times, Poisson distributed
    with mean 1; what was known beforehand stays as it is. In both cases each request
    that came in is moved as a whole, with its window, by a uniform jitter.

    Parameters
    ----------
    days
        At least one; with several, all with the same places.
    jitter_s
        Largest shift to either side.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """

    days: tuple[Instance, ...]
    jitter_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.days:
            raise ValueError("days: expected at least one, got none")
        for day in self.days:
            if day.places != self.days[0].places:
                raise ValueError(
                    f"days: expected the places of {self.days[0].name!r} in all, "
                    f"{day.name!r} has others"
                )
        if not self.jitter_s >= 0:
            raise ValueError(f"jitter_s: expected at least 0, got {self.jitter_s}")

    @property
    def name(self) -> str:
        """That of the first day."""
        return self.days[0].name

    def day(self, seed: int) -> Instance:
        """One day."""
        rng = np.random.default_rng(seed)
        past = self.days[int(rng.integers(len(self.days)))]
        requests: list[Request] = []
        for request in past.requests:
            if request.release_s == 0:
                requests.append(request)
                continue
            times = int(rng.poisson(1.0)) if len(self.days) == 1 else 1
            for copy in range(times):
                shift_s = float(rng.uniform(-self.jitter_s, self.jitter_s))
                id_ = request.id if copy == 0 else f"{request.id}/{copy + 1}"
                requests.append(_moved(replace(request, id=id_), shift_s))
        return replace(past, name=f"{self.name}-seed{seed}", requests=tuple(requests))


@dataclass(frozen=True, kw_only=True)
class HospitalDays:
    """New requests every day in one generated hospital, as `generate_hospital` draws them.

    Parameters
    ----------
    num_floors, num_wards, start_h, hours, transfers
        As there.
    building_seed
        Of the building, which stays the same.
    """

    num_floors: int = 5
    num_wards: int = 24
    start_h: float = 6.0
    hours: float = 6.0
    transfers: bool = False
    building_seed: int = 1
    base: Instance = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        base = generate_hospital(
            num_floors=self.num_floors,
            num_wards=self.num_wards,
            start_h=self.start_h,
            hours=self.hours,
            dynamic=True,
            transfers=self.transfers,
            seed=self.building_seed,
        )
        object.__setattr__(self, "base", base)

    @property
    def name(self) -> str:
        """That of the building."""
        return self.base.name

    def day(self, seed: int) -> Instance:
        """One day."""
        site = self.base.site
        assert site is not None
        requests = draw_requests(
            [site.points[place.id] for place in self.base.places],
            self.base.travel_s,
            FLOWS + TRANSFERS if self.transfers else FLOWS,
            start_h=self.start_h,
            hours=self.hours,
            is_dynamic=True,
            rng=np.random.default_rng(seed),
        )
        return replace(self.base, name=f"{self.name}-day{seed}", requests=requests)


def days_of(instance: Instance, *, degree: float | None = None, seed: int = 0) -> DaySource:
    """Days like that of one instance.

    Parameters
    ----------
    instance
        With releases: a day that was, see `PastDays`. Without: `RedrawnDays`, with a
        reference plan found here.
    degree
        Redraw releases and priorities at this degree of dynamism in any case.
    seed
        Of the reference plan.

    Raises
    ------
    ValueError
        If the degree is out of range, or no plan serves all requests.
    """
    has_releases = any(request.release_s > 0 for request in instance.requests)
    if degree is None and has_releases:
        end_s = max(robot.end_s for robot in instance.robots)
        return PastDays(days=(instance,), jitter_s=JITTER_SHARE * end_s)
    requests = tuple(replace(request, release_s=0.0) for request in instance.requests)
    base = replace(instance, requests=requests)
    # Limited by iterations alone, so that the same seed gives the same days.
    plan = solve(base, time_limit=FOREVER_S, max_iterations=REFERENCE_ITERATIONS, seed=seed)
    degree = DEFAULT_DEGREE if degree is None else degree
    return RedrawnDays(base=base, reference_plan=plan, degree=degree)


def _moved(request: Request, shift_s: float) -> Request:
    """A request earlier or later by a shift, cut so that it stays within the day."""
    # Not all the way to 0: it would be known beforehand.
    shift_s = max(shift_s, -0.999 * request.release_s)
    ready_s = max(0.0, request.ready_s + shift_s)
    return replace(
        request,
        release_s=request.release_s + shift_s,
        ready_s=ready_s,
        due_s=max(ready_s, request.due_s + shift_s),
    )
