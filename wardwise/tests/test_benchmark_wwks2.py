"""The benchmark of the robot's interface: its checker finds what is wrong, its line does harm."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.robots.ledgers import compare
from benchmarks.robots.line import END, Line, Mischief
from benchmarks.robots.orders import Shelf, Wish
from wardwise.dispenser.times import input_times, output_times
from wardwise.io.wwks2 import (
    MessageError,
    Splitter,
    count_kinds,
    messages,
    parse,
    parts,
    read_log,
    write,
)

BENCHMARK = Path(__file__).resolve().parent.parent / "benchmarks" / "wwks2.py"
WISHES = (
    Wish(id="A", packs=(("x", 2),), place=1, priority="Normal"),
    Wish(id="B", packs=(("y", 2),), place=1, priority="Normal"),
    Wish(id="C", packs=(("x", 1),), place=9, priority="Normal"),
)
SHELVES = (
    Shelf(id="S", drug="x", column=0, row=0, expiry="2027-01-01", quantity=9),
    Shelf(id="T", drug="y", column=1, row=0, expiry="2027-01-01", quantity=1),
)


def pack(order_id, number):
    """Line of the robot's journal for a pack that has left."""
    return {"event": "pack", "source": 100, "id": order_id, "criterion": 0, "pack": number}


def ended(order_id, status):
    """Line of the robot's journal for an output that has ended."""
    return {"event": "end", "source": 100, "id": order_id, "status": status}


def told(order_id, status, drug="x", *numbers):
    """Line of the client's journal for an output that has ended."""
    packs = "".join(f'<Pack Id="{number}"/>' for number in numbers)
    text = (
        f'<WWKS><OutputMessage Id="{order_id}"><Details Status="{status}"/>'
        f'<Article Id="{drug}">{packs}</Article></OutputMessage></WWKS>'
    )
    return {"event": "end", "message": text}


ROBOT = (
    pack("A", 1), pack("A", 2), ended("A", "Completed"), pack("B", 7), ended("B", "Incomplete"),
)  # fmt: skip
CLIENT = (
    told("A", "Completed", "x", 1, 2), told("B", "Incomplete", "y", 7), told("C", "Rejected"),
)  # fmt: skip


def judge(folder, robot=ROBOT, client=CLIENT):
    """Verdict on two journals."""
    paths = folder / "robot", folder / "client"
    for path, events in zip(paths, (robot, client), strict=True):
        lines = [json.dumps(event) for event in events]
        path.write_text("\n".join([*lines, '{"cut off by a kill']), encoding="utf-8")
    return compare(WISHES, SHELVES, *paths)


def test_books_that_agree_are_accepted(tmp_path):
    """Three packs of five left, the other two were reported: one short, one at no place."""
    verdict = judge(tmp_path)
    assert (verdict.lost, verdict.twice) == ({}, {})
    assert (verdict.ordered, verdict.given, verdict.missing) == (5, 3, 2)
    assert verdict.unaccounted == 0


@pytest.mark.parametrize(
    ("robot", "client", "lost", "twice"),
    [
        (ROBOT, CLIENT[1:], {"A": "the client does not know how it ended"}, {}),
        (ROBOT, (told("A", "Completed", "x", 1), *CLIENT[1:]),
         {"A": "other packs for the client than for the robot"}, {}),
        (ROBOT[1:], CLIENT, {"A": "other packs for the client than for the robot"}, {}),
        ((*ROBOT[:2], *ROBOT[3:]), CLIENT, {"A": "Completed for the client, None for the robot"},
         {}),
        (ROBOT, (told("A", "Rejected"), *CLIENT[1:]), {"A": "rejected without need"}, {}),
        ((pack("A", 1), ended("A", "Completed"), *ROBOT[3:]),
         (told("A", "Completed", "x", 1), *CLIENT[1:]), {"A": "Completed with 1 packs"}, {}),
        ((pack("A", 1), ended("A", "Incomplete"), *ROBOT[3:]),
         (told("A", "Incomplete", "x", 1), *CLIENT[1:]), {"A": "short while there were packs"},
         {}),
        ((pack("A", 3), *ROBOT), (told("A", "Completed", "x", 1, 2, 3), *CLIENT[1:]),
         {"A": "Completed with 3 packs"}, {"A": "more packs than were asked for"}),
        ((*ROBOT, pack("B", 2)), (CLIENT[0], told("B", "Incomplete", "y", 7, 2), CLIENT[2]),
         {"B": "Incomplete with 2 packs"}, {"B": "a pack that had left before"}),
        ((*ROBOT, pack("Z", 4)), CLIENT, {}, {"Z": "left without an order"}),
    ],
)  # fmt: skip
def test_each_wrong_entry_is_found(tmp_path, robot, client, lost, twice):
    """One entry changed in either book: the order is named with the reason."""
    verdict = judge(tmp_path, robot, client)
    assert verdict.twice == twice
    assert {key: verdict.lost.get(key) for key in lost} == lost


def test_no_malformed_message_is_taken_for_a_good_one():
    """Whatever the line makes of a message, the reader refuses it, and reads the next one."""
    line = Line(Mischief(oversized_bytes=100), 1)
    good = write(messages.OutputRequest(id="RX1", details=parts.OutputDetails(
        output_destination=1)))  # fmt: skip
    for _ in range(200):
        broken, after = Splitter().feed(line._malformed(good) + good)
        with pytest.raises(MessageError):
            parse(broken)
        assert after == good


@pytest.mark.slow
def test_the_line_does_all_that_it_says():
    """Each kind of harm in each direction, as often as it was asked for."""

    async def work():
        heard = []

        async def echo(reader, writer):
            while data := await reader.read(65536):
                heard.append(data)
                writer.write(data)
            writer.close()

        shares = dict.fromkeys(
            ("disconnect", "malformed", "truncated", "duplicated", "oversized"), 0.1
        )  # fmt: skip
        line = Line(Mischief(**shares, oversized_bytes=1000), 1)
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        line.robot_port, port = server.sockets[0].getsockname()[1], await line.start()
        while line.num_messages < 600:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                writer.write(b'<WWKS><KeepAliveRequest Id="1"/>' + END)
                try:
                    async with asyncio.timeout(0.05):
                        if not await reader.read(65536):
                            break
                except TimeoutError:
                    continue
                except OSError:
                    break
            writer.close()
        line.close()
        server.close()
        return line.faults

    faults = asyncio.run(work())
    assert len(faults) == 10
    assert all(count >= 5 for count in faults.values())  # of about 30


@pytest.mark.slow
def test_small_benchmark_ends_with_nothing_lost(tmp_path):
    """Real processes, a bad line, two kills of each: the rows that count say zero."""
    command = [
        sys.executable, BENCHMARK, "--orders", "150", "--kills", "2", "2", "--keep", tmp_path,
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    rows = {row["name"]: row for row in map(json.loads, run.stdout.splitlines())}
    assert rows["wwks2_orders"]["value"] == 150
    for name in ("lost", "twice", "unaccounted", "stock_difference"):
        assert rows[f"wwks2_{name}"]["value"] == 0
    assert rows["wwks2_restarts"]["value"] == 4


TRACE = os.environ.get("WARDWISE_WWKS2_TRACE")


@pytest.mark.skipif(not TRACE, reason="WARDWISE_WWKS2_TRACE names no log of a real robot")
def test_log_of_a_real_robot_is_read_to_its_end():
    """All messages, and an end for each output and input that was asked for."""
    trace = list(read_log(TRACE))
    kinds = count_kinds(trace)
    assert trace
    assert len(output_times(trace)) == kinds["OutputRequest"]
    assert len(input_times(trace)) == kinds["InputRequest"]
