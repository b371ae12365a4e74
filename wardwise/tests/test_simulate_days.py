"""Several simulated days: means, intervals, sources of days, processes, interruption."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from wardwise.fleet.dispatch import Policy
from wardwise.fleet.simulate import Days, Disturbances, simulate, simulate_days
from wardwise.fleet.simulate.run import plan_known
from wardwise.fleet.sizing import HospitalDays
from wardwise.generate import generate_hospital

LUCK = Disturbances(travel_cv=None, service_cv=0.5, uses_elevators=True)


@pytest.fixture(scope="module")
def hospital():
    """Two hours of a small hospital."""
    return generate_hospital(
        num_floors=3, num_wards=10, num_robots=4, hours=2, dynamic=True, seed=1
    )


@pytest.fixture(scope="module")
def days(hospital) -> Days:
    """Five days of it, in this process."""
    return simulate_days(hospital, num_days=5, disturbances=LUCK, seed=3, jobs=1)


def test_each_day_is_the_simulation_of_its_seed(hospital, days):
    """Day k has the plan of the first seed, and its own luck."""
    plan = plan_known(hospital, 3)
    for number, figures in enumerate(days.days):
        day = simulate(hospital, plan=plan, disturbances=LUCK, seed=3 + number)
        assert day.figures == figures
    assert days.is_complete
    assert (days.name, days.seed, days.disturbances) == (hospital.name, 3, LUCK)
    assert len(set(days.days)) == 5


def test_intervals_are_those_of_students_t(days):
    """Mean and 95 % interval over days, worked out by SciPy."""
    for name in ("distance_m", "cost", "utilisation", "lateness_s", "num_robots"):
        values = np.array([getattr(day, name) for day in days.days])
        interval = getattr(days, name)
        assert interval.mean == pytest.approx(values.mean())
        if values.std() > 0:
            error = values.std(ddof=1) / np.sqrt(5)
            low, high = student.interval(0.95, 4, loc=values.mean(), scale=error)
            assert (interval.low, interval.high) == pytest.approx((low, high))


def test_shares_are_of_all_requests_that_were_not_cancelled(hospital):
    """By hand from the counts of each day."""
    disturbances = replace(LUCK, cancels_per_s=3e-4)
    days = simulate_days(hospital, num_days=4, disturbances=disturbances, jobs=1)
    assert sum(each.num_cancelled for day in days.days for each in day.classes) > 0
    for priority in range(3):
        classes = [day.classes[priority] for day in days.days]
        whole = sum(each.num_requests - each.num_cancelled for each in classes)
        on_time = sum(each.num_on_time for each in classes)
        denied = sum(each.num_denied + each.num_unservable for each in classes)
        assert days.on_time[priority].mean == pytest.approx(on_time / whole)
        assert days.denied[priority].mean == pytest.approx(denied / whole)
        assert days.on_time[priority].low <= on_time / whole <= days.on_time[priority].high


def test_waits_are_those_of_the_days_with_rides(days):
    """Mean over days of each day's mean, before every door."""
    for door in days.elevators:
        waits = [
            each.wait_s
            for day in days.days
            for each in day.elevators
            if (each.elevator, each.floor) == (door.elevator, door.floor)
        ]
        assert door.wait_s.mean == pytest.approx(np.mean(waits))
        assert 0 <= door.queue_s.mean <= door.wait_s.mean
    assert {door.floor for door in days.elevators} == {0, 1, 2}


def test_a_source_gives_every_day_its_own_requests():
    """New requests each day in one building; each day is planned anew."""
    source = HospitalDays(num_floors=3, num_wards=10, hours=2)
    days = simulate_days(
        source, num_days=3, disturbances=LUCK, policy=Policy(may_hold=True), jobs=1
    )
    assert days.name == source.name
    assert len({sum(each.num_requests for each in day.classes) for day in days.days}) > 1
    day = simulate(source.day(1), disturbances=LUCK, policy=Policy(may_hold=True), seed=1)
    assert day.figures == days.days[1]


@pytest.mark.slow
def test_processes_change_nothing(hospital, days):
    """Two processes give the days of one, in order, with progress."""
    seen = []
    found = simulate_days(
        hospital,
        num_days=5,
        disturbances=LUCK,
        seed=3,
        jobs=2,
        on_progress=lambda *done: seen.append(done),
    )
    assert found == days
    assert seen == [(k, 5) for k in range(1, 6)]


def test_ctrl_c_keeps_the_days_that_are_done(hospital, days):
    """Interrupted behind the third day; before the second there is nothing to tell."""

    def interrupt_at(number):
        def interrupt(done, total):
            if done == number:
                os.kill(os.getpid(), signal.SIGINT)

        return interrupt

    settings = {"num_days": 5, "disturbances": LUCK, "seed": 3, "jobs": 1}
    found = simulate_days(hospital, on_progress=interrupt_at(3), **settings)
    assert not found.is_complete
    assert found.days == days.days[:3]
    with pytest.raises(KeyboardInterrupt):
        simulate_days(hospital, on_progress=interrupt_at(1), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_days": 1}, "num_days: expected at least 2, got 1"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"jobs": 0}, "jobs: expected at least 1, got 0"),
    ],
)
def test_parameters_out_of_range_are_refused(hospital, settings, message):
    """In one line, with the range."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        simulate_days(hospital, **settings)


def test_a_plan_for_days_with_other_requests_is_refused(hospital):
    """A plan belongs to one instance."""
    source = HospitalDays(num_floors=3, num_wards=10, hours=2)
    with pytest.raises(ValueError, match=r"^plan: expected none"):
        simulate_days(source, plan=plan_known(hospital, 0))
