"""What a hospital's own days say about its times, and whether it keeps its promise."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from wardwise import generate_hospital, solve
from wardwise.fleet.learn import learn
from wardwise.fleet.randomness import Law, Promise, Randomness, Spread
from wardwise.fleet.simulate import simulate_plan_days
from wardwise.io import read_log, write_log

planned = generate_hospital(num_floors=2, num_wards=10, num_robots=4, hours=2, seed=1)
plan = solve(planned, method="insertion")
# The twin stands for the building, which is more crowded than anybody thinks.
truth = Randomness(
    travel=Spread(law=Law.LOGNORMAL, cv=0.3),
    service=Spread(cv=0.5),
    elevator=Spread(cv=0.8),
    day=0.2,
)
hospital = replace(planned, randomness=truth)
with TemporaryDirectory() as folder:
    log = Path(folder, "days.jsonl")
    with write_log(log, hospital.name) as take:
        simulate_plan_days(hospital, plan, num_days=40, uses_building=True, on_day=take)
    found = learn(replace(planned, promise=Promise()), read_log(log).days())

for what in ("travel", "service", "elevator"):
    fit = getattr(found, what)
    print(f"{what}: {fit.spread.law}, cv {fit.spread.cv:.2f}, from {fit.count} measurements")
print(f"common to the legs of a day: cv {found.day.cv:.2f}")
for each in found.lateness:
    print(f"{each.name}: {each.num_late} of {each.count} late, promised {100 * each.promised:g} %")
for alarm in found.alarms:
    print(f"alarm: {alarm}")
