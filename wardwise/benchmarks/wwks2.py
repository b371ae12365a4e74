"""Ten thousand orders through a bad line: nothing lost, nothing given out twice.

The client and the robot simulator run in processes of their own and speak WWKS 2 over TCP, through
a line that breaks, and that damages, cuts, repeats and blows up messages in both directions. Both
processes are killed and started again several times, and go on from their journals. Afterwards the
two journals are compared by a checker that knows neither program, with the orders and the stock.

The machine works 20,000 times as fast as a real one. Responses are timed on the line, from the
request that passes to the response that comes back.

    python wardwise/benchmarks/wwks2.py [--orders 10000] [--trace FILE]

A trace is a log of a real robot, one message after the other; its messages are counted and its
outputs timed. Without one, or WARDWISE_WWKS2_TRACE, these rows are left out. The goals are those of
tests/wwks2_messages.txt of the public repository MT-TISI/wwks2-ads-gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from robots.ledgers import Verdict, compare
from robots.night import Night, spend
from robots.orders import draw_orders, draw_stock

from wardwise.dispenser.times import output_times
from wardwise.io import InputError
from wardwise.io.wwks2 import count_kinds, read_log
from wardwise.io.wwks2.parts import OutputStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.dispenser.times import OutputTime
    from wardwise.io.wwks2 import Envelope

ORDERS, SEED = 10_000, 1
KILLS = 8, 6  # of the robot, of the client
LIMIT_S = 1800.0
KINDS = {
    "StockInfoMessage": 21, "StatusRequest": 14, "StatusResponse": 14, "OutputRequest": 13,
    "OutputResponse": 13, "OutputMessage": 13, "InputRequest": 10, "InputResponse": 10,
    "InputMessage": 10, "StockInfoRequest": 3, "StockInfoResponse": 3,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=ORDERS, help="0: the trace alone")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kills", type=int, nargs=2, default=KILLS, metavar=("ROBOT", "CLIENT"))
    parser.add_argument("--keep", type=Path, help="folder for the journals; thrown away otherwise")
    parser.add_argument("--trace", type=Path, default=os.environ.get("WARDWISE_WWKS2_TRACE"))
    options = parser.parse_args()
    if options.trace is None:
        print("no trace of a real robot: --trace or WARDWISE_WWKS2_TRACE", file=sys.stderr)
    else:
        try:
            trace_rows(list(read_log(options.trace)))
        except InputError as error:
            print(error, file=sys.stderr)
            return 2
    if options.orders:
        with tempfile.TemporaryDirectory() as made:
            folder = options.keep or Path(made)
            folder.mkdir(parents=True, exist_ok=True)
            run(folder, options.orders, tuple(options.kills), options.seed)
    return 0


def run(folder: Path, count: int, kills: tuple[int, int], seed: int) -> None:
    """Work off the orders, check the books, print the rows."""
    night = asyncio.run(spend(folder, count, seed, kills, LIMIT_S))
    stock = draw_stock(count, seed)
    verdict = compare(
        draw_orders(count, seed), stock, folder / "robot.jsonl", folder / "client.jsonl"
    )  # fmt: skip
    for order_id, problem in [*verdict.lost.items(), *verdict.twice.items()]:
        print(f"{order_id}: {problem}", file=sys.stderr)
    left = sum(shelf.quantity for shelf in stock) - verdict.given
    book_rows(verdict, seed, {"difference": night.told["left"] - left})
    line_rows(night, seed)


def book_rows(verdict: Verdict, seed: int, stock: dict[str, int]) -> None:
    count = verdict.ends.total()
    packs = {"ordered": verdict.ordered, "given": verdict.given, "missing": verdict.missing}
    goal = [">=", ORDERS] if count >= ORDERS else None
    print_row("wwks2_orders", count, "orders", goal, {"ends": dict(verdict.ends)}, seed)
    print_row("wwks2_lost", len(verdict.lost), "orders", ["<=", 0], {}, seed)
    print_row("wwks2_twice", len(verdict.twice), "orders", ["<=", 0], {}, seed)
    print_row("wwks2_unaccounted", verdict.unaccounted, "packs", ["<=", 0], packs, seed)
    print_row(
        "wwks2_stock_difference", abs(stock["difference"]), "packs", ["<=", 0], {}, seed
    )  # fmt: skip


def line_rows(night: Night, seed: int) -> None:
    faults, told = night.line.faults, night.told
    for kind in ("disconnect", "malformed", "truncated", "duplicated", "oversized"):
        ways = {way: faults[f"{kind} {way}"] for way in ("to_robot", "to_client")}
        print_row(f"wwks2_{kind}", sum(ways.values()), "messages", None, ways, seed)
    print_row("wwks2_restarts", night.robot_kills + night.client_kills, "kills", None,
              {"robot": night.robot_kills, "client": night.client_kills}, seed)  # fmt: skip
    print_row("wwks2_messages_per_s", night.line.num_messages / night.seconds, "1/s", None,
              {"messages": night.line.num_messages, "seconds": round(night.seconds, 1),
               "client": told}, seed)  # fmt: skip
    by_kind = night.line.response_s
    of_all = [second for seconds in by_kind.values() for second in seconds]
    detail: dict[str, object] = {"responses": len(of_all), "p50": milliseconds(of_all, 50)}
    detail |= {kind: milliseconds(seconds, 99) for kind, seconds in by_kind.items()}
    print_row("wwks2_response_p99", milliseconds(of_all, 99), "ms", None, detail, seed)


def milliseconds(seconds: Sequence[float], percent: int) -> float:
    """Quantile of times, the smallest that so many percent do not exceed."""
    found = sorted(seconds)[max(0, math.ceil(len(seconds) * percent / 100) - 1)]
    return round(1000 * found, 3)


def trace_rows(trace: Sequence[Envelope]) -> None:
    counts = count_kinds(trace)
    rows: list[tuple[str, float, str, float]] = [
        (f"wwks2_trace_{kind}", counts[kind], "messages", goal) for kind, goal in KINDS.items()
    ]
    rows.insert(0, ("wwks2_trace", len(trace), "messages", sum(KINDS.values())))
    print_all([*rows, *time_rows(output_times(trace))])


def time_rows(times: Sequence[OutputTime]) -> list[tuple[str, float, str, float]]:
    """Figures of the outputs, rounded as the method sheet has them, with its values."""
    ended = [time.status for time in times]
    seconds = [time.total_s for time in times if time.status is OutputStatus.COMPLETED]
    logs = list(map(math.log, seconds))
    return [
        ("wwks2_trace_outputs", len(times), "outputs", 13),
        ("wwks2_trace_incomplete", ended.count(OutputStatus.INCOMPLETE), "outputs", 3),
        ("wwks2_trace_completed", len(seconds), "outputs", 10),
        ("wwks2_trace_mean", round(statistics.mean(seconds), 1), "s", 17.3),
        ("wwks2_trace_median", round(statistics.median(seconds), 1), "s", 16.5),
        ("wwks2_trace_sd", round(statistics.pstdev(seconds), 1), "s", 5.9),
        ("wwks2_trace_min", min(seconds), "s", 10),
        ("wwks2_trace_max", max(seconds), "s", 25),
        ("wwks2_trace_lognormal_mu", round(statistics.mean(logs), 2), "ln s", 2.79),
        ("wwks2_trace_lognormal_sigma", round(statistics.pstdev(logs), 2), "ln s", 0.35),
    ]


def print_all(rows: Sequence[tuple[str, float, str, float]]) -> None:
    for name, value, unit, goal in rows:
        print_row(name, value, unit, ["==", goal], {}, None)


def print_row(
    name: str, value: float, unit: str, goal: list[str | float] | None,
    detail: dict[str, object] | dict[str, int], seed: int | None,
) -> None:  # fmt: skip
    row = {
        "system": "pharmacy",
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "goal": goal,
        "seed": seed,
        "detail": detail,
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
