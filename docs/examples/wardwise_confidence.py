"""What it costs to be on time on 90, 95 and 99 days in a hundred."""

from dataclasses import replace

from wardwise import generate_hospital
from wardwise.fleet.randomness import Promise, Randomness
from wardwise.fleet.sizing import size_for_promises

# The deliveries of a morning that can wait least, and two robots.
drawn = generate_hospital(num_floors=3, num_wards=12, hours=2, seed=3)
narrow = sorted(drawn.requests, key=lambda request: request.latest_s - request.earliest_s)[:16]
hospital = replace(
    drawn,
    requests=tuple(replace(request, tolerance_s=0.0) for request in narrow),
    robots=drawn.robots[:2],
    randomness=Randomness(),
)
found = size_for_promises(
    hospital,
    [Promise(late_share=(share, share, share)) for share in (0.1, 0.05, 0.01)],
    max_robots=5,
    time_limit=600,
    max_iterations=3000,
)
for level in found.levels:
    kept = {None: "nothing promised", True: "kept", False: "not kept"}[level.is_kept]
    print(f"{level.name:10} {level.num_robots} robots {level.distance_m:8,.1f} m  {kept}")
