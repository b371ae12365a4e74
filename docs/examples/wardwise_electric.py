"""A hospital's robots with batteries: planned, charged, certified."""

from wardwise import check, generate_hospital, solve
from wardwise.fleet.chance import certify

hospital = generate_hospital(
    num_floors=3, num_wards=12, hours=8, seed=1, batteries=True, late_share=0.05
)
print(f"{len(hospital.requests)} requests, {len(hospital.robots)} robots")

plan = solve(hospital, time_limit=60, max_iterations=300, seed=1)
report = check(hospital, plan)
cost = report.cost
print(f"feasible: {report.is_feasible}, {cost.num_robots} robots, {cost.distance_m:.0f} m")
print(
    f"{cost.energy_wh:.0f} Wh taken, {cost.charged_wh:.0f} Wh charged in {cost.num_charges} charges"
)
charges = [charge for trip in plan.trips for charge in trip.charges]
for station in hospital.stations:
    minutes = [(c.end_s - c.start_s) / 60 for c in charges if c.station == station.id]
    print(f"{station.id}: {len(minutes)} charges, {sum(minutes):.0f} minutes in all")

certificate = certify(hospital, plan).certificate
upper = max(risk.upper for risk in certificate.requests)
print(
    f"promise kept: {certificate.holds}, nothing is late on more than {100 * upper:.1f} % of days"
)
