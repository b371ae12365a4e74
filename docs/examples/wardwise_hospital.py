"""A hospital's day from prescription to bedside, at three releases of the orders."""

from wardwise import generate_hospital
from wardwise.hospital import (
    compare_quantiles,
    draw_prescriptions,
    without_medicine,
)
from wardwise.pharmacy.problem import Priority

hospital = without_medicine(generate_hospital(num_floors=4, num_wards=16, transfers=True, seed=1))
pharmacy = draw_prescriptions(hospital, per_hour=24, seed=1)
days = compare_quantiles(1, (0.5, 0.9, 0.95), hospital=hospital, pharmacy=pharmacy)

first = days[0]
print(
    f"{len(first.deliveries)} prescriptions in {len(first.dispensing.rounds)} rounds, "
    f"{len(hospital.requests)} other transports, {len(hospital.robots)} robots"
)
for day in days:
    found = day.figures()
    print(
        f"released at {100 * day.quantile:.0f} %: sound: {day.is_sound}, "
        f"delivered: {found.num_delivered}, late orders: {100 * found.late_share:.0f} %, "
        f"robots wait {found.wait_s:.0f} s a day, to the bedside {found.mean_s / 60:.0f} min, "
        f"95 % within {found.p95_s / 60:.0f} min"
    )
for priority in Priority:
    found = days[1].figures(priority)
    parts = (found.machine_s, found.pickup_s, found.ride_s)
    print(
        f"{priority}: {found.num_delivered} delivered, "
        + " + ".join(f"{seconds / 60:.1f}" for seconds in parts)
        + f" min, 95 % within {found.p95_s / 60:.0f} min, "
        f"in time: {100 * found.on_promise_share:.0f} %"
    )
