"""A hospital's morning with luck: slow corridors, busy elevators, a robot that fails."""

from wardwise import generate_hospital
from wardwise.fleet.simulate import Disturbances, simulate, simulate_days

hospital = generate_hospital(num_floors=3, num_wards=10, num_robots=4, dynamic=True, seed=2)
luck = Disturbances(
    travel_cv=None,  # as the building has it
    service_cv=0.5,
    uses_elevators=True,
    driving_s_per_failure=3 * 3600,
    repair_s=1200,
    cancels_per_s=1 / 200_000,
)
day = simulate(hospital, disturbances=luck, seed=1)
figures = day.figures
print(f"{len(day.records)} events, accepted by the referee: {day.report.is_feasible}")
for name, one in zip(("stat", "urgent", "routine"), figures.classes, strict=True):
    print(
        f"{name}: {one.num_requests} requests, {one.num_on_time} on time, {one.num_late} late, "
        f"{one.num_denied + one.num_unservable} denied, {one.num_cancelled} cancelled"
    )
print(f"{figures.num_breakdowns} breakdowns, robots busy {100 * figures.utilisation:.0f} %")
for door in figures.elevators:
    print(
        f"{door.elevator}, floor {door.floor}: {door.num_rides} rides, waits {door.wait_s:.0f} s, "
        f"{door.queue_s:.0f} s of it for other robots"
    )

planned = simulate_days(hospital, num_days=2, jobs=1)
days = simulate_days(hospital, disturbances=luck, num_days=20, jobs=1)
print(f"as planned, on time: {', '.join(f'{100 * x.mean:.0f} %' for x in planned.on_time)}")
print(
    "20 days, on time: "
    + ", ".join(f"{100 * x.low:.0f} to {100 * x.high:.0f} %" for x in days.on_time)
)
