"""The commands orders and hl7-listen, as a user sees them."""

from __future__ import annotations

import asyncio
import json
import signal
import socket

import pytest

from wardwise.dispenser.mllp import Sender
from wardwise.io.pharmacy import read_pharmacy, write_pharmacy
from wardwise.io.pharmacy_tables import read_orders
from wardwise.pharmacy.generate import generate_pharmacy


def rde(control, *orders, time="20260302081500+0100"):
    """A message with orders (control, placer, group, drug, packs, priority)."""
    lines = [f"MSH|^~\\&|CPOE|HOSP|ROBOT|PHARM|{time}||RDE^O11|{control}|P|2.5.1",
             "PID|||P1", "PV1||I|W3^12"]  # fmt: skip
    for action, placer, group, drug, amount, priority in orders:
        lines.append(f"ORC|{action}|{placer}||{group}")
        if action in ("NW", "XO"):
            lines += [f"RXE||{drug}||||||||{amount}|PACK", f"TQ1|||||||||{priority}", "RXR|PO"]
    return "\r".join(lines) + "\r"


GOOD = rde("M1", ("NW", "O1", "G1", "D0001", 2, "S"), ("NW", "O2", "G1", "INSULIN", 1, "R"))
LATER = rde("M2", ("NW", "O3", "G1", "D0002", 1, "R"), ("CA", "O2", "", "", 0, ""))
FHIR = {
    "resourceType": "MedicationRequest", "id": "r1", "status": "active", "intent": "order",
    "medicationCodeableConcept": {"coding": [{"code": "D0001"}]},
    "subject": {"reference": "Patient/p1"}, "authoredOn": "2026-03-02T08:15:00+01:00",
    "dispenseRequest": {"quantity": {"value": 2}},
}  # fmt: skip


def test_messages_become_a_table_of_orders(run, tmp_path):
    """As they stand after the last message, in seconds of the day."""
    (tmp_path / "a.hl7").write_text(GOOD + LATER)
    result = run("orders", "a.hl7")
    assert result.code == 0
    assert "a.hl7: 1 orders, 2 lines, 0 of them by hand" in result.out
    assert "day from 2026-03-02T00:00:00+01:00" in result.out
    (order,) = read_orders(tmp_path / "orders.csv")
    assert [(line.drug, line.quantity) for line in order.lines] == [("D0001", 2), ("D0002", 1)]
    assert (order.id, order.priority, order.destination) == ("G1", "stat", "W3")
    assert order.release_s == 8.25 * 3600


def test_refused_messages_are_told_and_the_others_taken(run, tmp_path):
    """Exit code 1, a table with number, control id, and what was expected."""
    bad = rde("M9", ("ZZ", "O7", "G1", "D0001", 1, "R"))
    again = rde("M8", ("NW", "O1", "G1", "D0001", 1, "R"))
    (tmp_path / "a.hl7").write_text(bad + GOOD + again)
    result = run("orders", "a.hl7", "--json", "--output", "b.csv")
    document = json.loads(result.out)
    assert (result.code, result.err) == (1, "")
    assert [(row["where"], row["id"]) for row in document["refused"]] == [
        ("message 1", "M9"), ("message 3", "M8"),
    ]  # fmt: skip
    assert document["refused"][0]["reason"].startswith("ORC-1: expected one of NW, XO, CA")
    assert (len(document["orders"]), document["num_lines"]) == (1, 2)
    assert document["written"] == {"orders": "b.csv"}
    assert "refused" in run("orders", "a.hl7").out


@pytest.mark.slow
def test_day_with_bins_can_be_sequenced(run, tmp_path):
    """Machine and bins of one day, orders of another system; what is in no bin is by hand."""
    write_pharmacy(generate_pharmacy(1, num_orders=3), tmp_path / "day.json")
    (tmp_path / "a.hl7").write_text(GOOD)
    result = run("orders", "a.hl7", "--bins", "day.json", "--output", "new.json",
                 "--manual-s", "30", "--day-start", "2026-03-02T06:00+01:00")  # fmt: skip
    assert result.code == 0
    (order,) = read_pharmacy(tmp_path / "new.json").orders
    assert order.release_s == 2.25 * 3600
    assert [(line.drug, line.is_manual, line.manual_s) for line in order.lines] == [
        ("D0001", False, 0), ("INSULIN", True, 30),
    ]  # fmt: skip
    assert run("sequence", "new.json", "--replications", "5").code == 0


def test_fhir_bundle_becomes_orders(run, tmp_path):
    """Planned, on hold, dropped and refused ones."""
    requests = [
        FHIR, FHIR | {"id": "r2", "status": "on-hold"}, FHIR | {"id": "r3", "status": "stopped"},
        FHIR | {"id": "r4", "priority": "soon"},
    ]  # fmt: skip
    entries = [{"resource": one} for one in requests]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    (tmp_path / "a.json").write_text(json.dumps(bundle))
    result = run("orders", "a.json", "--json")
    document = json.loads(result.out)
    assert result.code == 1
    assert [order["id"] for order in document["orders"]] == ["r1"]
    found = {name: document[name][0]["id"] for name in ("parked", "dropped", "refused")}
    assert found == {"parked": "r2", "dropped": "r3", "refused": "r4"}
    assert document["refused"][0]["where"] == "entry[3].resource.priority"
    (tmp_path / "a.json").write_text(json.dumps(FHIR))
    assert run("orders", "a.json").code == 0
    assert read_orders(tmp_path / "orders.csv")[0].lines[0].quantity == 2


@pytest.mark.parametrize(
    ("text", "args", "told"),
    [
        ("hello", (), "error: in.txt: expected HL7 messages or a FHIR resource, got b'hello'"),
        ("", (), "error: in.txt: expected HL7 messages or a FHIR resource"),
        ('{"a": ', (), "error: in.txt: line 1, column 7: expected JSON"),
        ("{}", (), "error: in.txt: resourceType: expected MedicationRequest or Bundle"),
        (GOOD, ("--day-start", "noon"), "error: --day-start: expected a time as 2026-03-02T00:00"),
        (GOOD, ("--output", "new.json"), "error: --output: expected --bins too"),
        (GOOD, ("--output", "no/orders.csv"), "no folder is called 'no'"),
        (GOOD, ("--bins", "small.txt"), "error: small.txt"),
        (GOOD.replace("20260302081500+0100", ""), (), "expected a line with a time"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(run, tmp_path, text, args, told):
    """Exit code 2, no traceback, no file."""
    (tmp_path / "in.txt").write_text(text)
    before = sorted(tmp_path.iterdir())
    result = run("orders", "in.txt", *args)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_but_refusals_writes_no_file(run, tmp_path):
    """Exit code 1, and no table of nothing."""
    (tmp_path / "a.hl7").write_text("MSH|^~\\&|A\rPID|1\r")
    assert run("orders", "a.hl7").code == 1
    assert not (tmp_path / "orders.csv").exists()


def test_second_listener_leaves_the_table_of_the_first_alone(run, tmp_path):
    """The port is taken: exit code 2, and nothing is written."""
    (tmp_path / "orders.csv").write_text("theirs")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("hl7-listen", "--port", str(taken.getsockname()[1]))
    assert (result.code, result.out) == (2, "")
    assert "address already in use" in result.err.lower()
    assert (tmp_path / "orders.csv").read_text() == "theirs"


def listen(start):
    """A listener in a process of its own, and what it says first."""
    process = start(
        "-m", "wardwise", "hl7-listen", "--port", "0", "--json",
        "--journal", "intake.jsonl", "--day-start", "2026-03-02T00:00+01:00",
    )  # fmt: skip
    return process, json.loads(process.until(r".*\n", stream=1)[0])


@pytest.mark.slow
def test_listener_that_is_killed_goes_on_where_it_was(start, monkeypatch, tmp_path):
    """SIGKILL after each message: the table is whole, and what comes again changes nothing."""
    monkeypatch.chdir(tmp_path)

    async def send(port, *messages):
        async with Sender("127.0.0.1", port) as sender, asyncio.timeout(30):
            return [await sender.send(message.encode()) for message in messages]

    for number, messages in enumerate(((GOOD,), (GOOD, LATER), (GOOD, LATER)), start=1):
        process, told = listen(start)
        assert told["orders"] == min(number - 1, 1)
        assert asyncio.run(send(told["port"], *messages)) == [("AA", "")] * len(messages)
        process.send_signal(signal.SIGKILL if number < 3 else signal.SIGINT)
        code = process.wait(20)
        assert "Traceback" not in process.err
    assert code == 0
    (order,) = read_orders(tmp_path / "orders.csv")
    assert [line.drug for line in order.lines] == ["D0001", "D0002"]
