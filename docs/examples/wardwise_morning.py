"""Plan the morning of a made-up hospital and let the checker judge the plan."""

from wardwise import check, generate_hospital, solve

hospital = generate_hospital(num_floors=4, num_wards=16, seed=7)
plan = solve(hospital, method="ruin", objective="hierarchical", max_iterations=20_000, seed=1)
report = check(hospital, plan)

print(f"{len(hospital.requests)} requests, {len(hospital.robots)} robots owned")
print(f"feasible: {report.is_feasible}, robots used: {report.cost.num_robots}")
print(f"late: {report.cost.num_late}, denied: {report.cost.num_denied}")

first = plan.trips[0]
print(f"{first.robot} leaves at {first.depart_s / 60:.0f} min for", end=" ")
print(", ".join(stop.request for stop in first.stops))
