"""Build a tiny instance by hand, plan it, and see a broken plan refused."""

from dataclasses import replace

import numpy as np

from wardwise import Instance, Place, Request, Robot, check, solve

metres = np.array([[0, 70, 140], [70, 0, 70], [140, 70, 0]], dtype=float)
instance = Instance(
    name="two wards",
    places=(Place(id="dock"), Place(id="ward A", x_m=70), Place(id="ward B", x_m=140)),
    requests=(
        Request(id="meal", place="ward A", kind="deliver", load=1, due_s=600, service_s=60),
        Request(id="sample", place="ward B", kind="collect", load=1, due_s=900, service_s=30),
    ),
    robots=(Robot(id="R1", capacity=4, end_s=3600), Robot(id="R2", capacity=4, end_s=3600)),
    travel_s=metres / 0.7,  # robots drive 0.7 m/s
    distance_m=metres,
)
plan = solve(instance, time_limit=1)
for trip in plan.trips:
    stops = ", ".join(f"{stop.request} at {stop.start_s:.0f} s" for stop in trip.stops)
    print(f"{trip.robot}: {stops}; back at {trip.return_s:.0f} s")

late = replace(plan.trips[0].stops[1], start_s=1000.0)
broken = replace(plan, trips=(replace(plan.trips[0], stops=(plan.trips[0].stops[0], late)),))
for violation in check(instance, broken).violations:
    print(f"{violation.constraint}: {violation.message}")
