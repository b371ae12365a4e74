"""A live hour: requests appear, are answered at once, and one robot breaks down."""

import tempfile
from pathlib import Path

import numpy as np

from wardwise import Costs, Instance, Place, Request, Robot
from wardwise.fleet.dispatch import Dispatcher, Journal, Policy

# One corridor: the pharmacy at 0 m, the wards at 100, 200 and -100 m; robots drive 1 m/s.
at_m = np.array([0.0, 100.0, 200.0, -100.0])
metres = np.abs(at_m[:, None] - at_m[None])
hospital = Instance(
    name="corridor",
    places=tuple(Place(id=name) for name in ("pharmacy", "ward A", "ward B", "ward C")),
    requests=(),
    robots=tuple(Robot(id=name, capacity=2, end_s=3600) for name in ("Ada", "Bob", "Cleo")),
    travel_s=metres,
    distance_m=metres,
    costs=Costs(per_metre=0.1),
)
journal = Path(tempfile.mkdtemp()) / "day.jsonl"
policy = Policy(protection=(0, 1, 2))  # the last spare is for stat requests
day = Dispatcher(hospital, policy=policy, journal=Journal(journal))


def ask(now_s, id_, **fields):
    """Submit a request and print the answer."""
    print(day.submit(Request(id=id_, load=1, service_s=20, **fields), now_s).explain())


ask(0, "meds", kind="deliver", place="ward B", ready_s=400, due_s=500, tolerance_s=100)
ask(60, "linen", place="ward A", due_s=900)
ask(70, "meal", kind="deliver", place="ward A", due_s=250)
ask(80, "blood", kind="deliver", place="ward C", due_s=200, priority=1)
ask(90, "sample", kind="transfer", origin="ward A", place="ward C", due_s=900, priority=2)
print(day.cancel("linen", 100).explain())
for decision in day.breakdown("Ada", 450, "ward A"):
    print(decision.explain())

for trip in day.plan().trips:
    stops = ", ".join(f"{stop.request} at {stop.start_s:.0f} s" for stop in trip.stops)
    print(f"{trip.robot}, out at {trip.depart_s:.0f} s: {stops}")
again = Dispatcher.replay(journal)
print(f"replayed {again.last.number} events, same plan: {again.plan() == day.plan()}")
