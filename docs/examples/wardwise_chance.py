"""How often a hospital's plan is late on random days, with what confidence."""

from dataclasses import replace

from wardwise import generate_hospital, solve
from wardwise.fleet.chance import certify, expected_cost, forecast, service_levels
from wardwise.fleet.randomness import Promise, Randomness

planned = generate_hospital(seed=1)
hospital = replace(planned, randomness=Randomness(), promise=Promise())
plan = certify(hospital, solve(planned, method="insertion"))

certificate = plan.certificate
print(f"{certificate.num_scenarios} days, promise kept: {certificate.holds}")
for level in service_levels(hospital, certificate):
    print(
        f"priority {level.priority}: {level.num_requests} requests, late "
        f"{100 * level.mean_late_share:.1f} % of days, the worst "
        f"{100 * level.largest_late_share:.1f} %, at most {100 * level.largest_upper:.1f} %"
    )
worst = max(certificate.requests, key=lambda risk: risk.late_share)
chain = forecast(hospital, plan).requests[worst.request]
print(f"{worst.request}: by the normal chain {100 * chain.late_share:.1f} %")
print(f"lateness costs {expected_cost(hospital, plan).lateness_cost:.1f} a day")
