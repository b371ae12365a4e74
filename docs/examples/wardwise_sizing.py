"""How many robots a small hospital should own, and how many of them keep back."""

from wardwise.fleet.sizing import HospitalDays, size

days = HospitalDays(num_wards=12, hours=4)  # new requests every day, from 6 to 10 o'clock
found = size(
    days,
    days=100,
    seed=1,
    spares=range(4),
    protection=[(1, 1), (2, 2)],  # spares kept back from urgent, from routine requests
    max_denial={1: 0.02},  # at most 2 % of the stat requests
    jobs=1,
)
print("robots  kept back   cost a day     % denied: stat  urgent  routine   calls lost  Erlang B")
for fleet in found.outcomes:
    cost = fleet.cost_owned
    half = (cost.high - cost.low) / 2
    denied = " ".join(f"{100 * share.mean:7.1f}" for share in fleet.denied)
    print(
        f"{fleet.num_robots:6} {fleet.protection[1]:6} / {fleet.protection[2]}"
        f"  {cost.mean:6.1f} ± {half:5.1f}         {denied}"
        f" {100 * fleet.lost_calls[0].mean:11.1f} {100 * fleet.erlang_b:9.1f}"
    )
print(*found.advice(), sep="\n")
