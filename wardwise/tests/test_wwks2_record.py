"""The simulated robot's stock, its memory and its record, and times learned from records."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date

import pytest

from wardwise.dispenser import Robot, RobotClient, Stock
from wardwise.dispenser.times import expected_output_s, input_times, output_times
from wardwise.io import InputError
from wardwise.io.wwks2 import count_kinds, messages, parts, read_log, write
from wardwise.io.wwks2.parts import Criteria, OutputStatus
from wardwise.pharmacy.problem import Bin
from wardwise.pharmacy.rack import Machine

MACHINE = Machine(points_m=((0.0, 0.0), (1.0, 0.0)))
BINS = (
    Bin(id="B1", drug="aspirin", cell=0, quantity=3, lot="L1", expiry=date(2027, 5, 31)),
    Bin(id="B2", drug="aspirin", cell=9, quantity=2, lot="L2", expiry=date(2026, 9, 30)),
    Bin(id="B3", drug="ibuprofen", cell=599, quantity=9),
    Bin(id="B4", drug="recalled", cell=5, quantity=4, is_recalled=True),
)


def run(work, *, speed=1e6, **settings):
    """Let a robot run while something is done with it and its port."""

    async def both():
        async with Robot(MACHINE, Stock.of_bins(BINS), speed=speed, **settings) as robot:
            async with asyncio.timeout(20):
                return await work(robot, await robot.start())

    return asyncio.run(both())


def one(drug, quantity=1):
    """Packs of one drug."""
    return (Criteria(article_id=drug, quantity=quantity),)


@pytest.mark.slow
def test_time_of_an_output_is_that_of_the_arm(tmp_path):
    """Way to the pack and to the place, and two handlings, in seconds of the machine."""

    async def work(_robot, port):
        async with RobotClient("127.0.0.1", port) as client:
            for number, drug in enumerate(("ibuprofen", "aspirin", "ibuprofen")):
                await client.output(f"RX{number}", one(drug), destination=number % 2 + 1)

    record = tmp_path / "robot.log"
    run(work, speed=50.0, record=record)
    times = output_times(read_log(record))
    reach_s = MACHINE.reach_s
    # From point 1, 1 and 2 to cells 599, 9 and 599, and to points 1, 2 and 1.
    expected_s = [
        reach_s[0, 599] * 2 + 4, reach_s[0, 9] + reach_s[1, 9] + 4,
        reach_s[1, 599] + reach_s[0, 599] + 4,
    ]  # fmt: skip
    for time, expected in zip(times, expected_s, strict=True):
        assert time.own_s >= expected / 50 - 0.002  # stamps are in milliseconds
        assert time.total_s >= time.own_s


def allow(message):
    """Answer to a scan: this is ibuprofen, unless it has no date."""
    (article,) = message.articles
    (pack,) = article.packs
    verdict = "Allowed" if pack.expiry_date else "RejectedNoExpiryDate"
    handled = replace(pack, handling=parts.Handling(input=verdict))
    return messages.InputResponse(
        id=message.id, articles=(parts.Article(id="ibuprofen", packs=(handled,)),)
    )  # fmt: skip


def test_packs_come_in_when_the_pharmacy_allows_it():
    """A scanned pack is stored under the article that the answer names, or it is not."""

    async def work(robot, port):
        told = []
        async with RobotClient("127.0.0.1", port, on_event=told.append, on_input=allow) as client:
            await client.status()
            good = parts.Pack(scan_code="0104\x1d17", expiry_date=date(2028, 1, 1))
            assert await robot.insert("", good)
            assert not await robot.insert("", parts.Pack(scan_code="0104"))
            (article,) = await client.stock("ibuprofen")
            assert article.quantity == 10
            assert article.packs[0].scan_code == "0104\x1d17"
            ends = [m for m in told if isinstance(m, messages.InputMessage)]
            handling = [m.articles[0].packs[0].handling.input for m in ends]
            assert handling == ["Completed", "Aborted"]
            wish = messages.InitiateInputRequest(
                id="i", source=100, details=parts.InputDetails(input_source=1),
                articles=(parts.Article(packs=(good,)),),
            )  # fmt: skip
            assert (await client.ask(wish)).details.status == "Accepted"
            while not any(isinstance(m, messages.InitiateInputMessage) for m in told):
                await asyncio.sleep(0.01)
            assert told[-1].details.status == "Completed"
            assert len(robot.ledger.stock) == 18 + 2

    run(work)


def test_settings_of_the_machine_are_told():
    """Deliveries are taken, locations and configuration told."""

    async def work(robot, port):
        async with RobotClient("127.0.0.1", port) as client:
            delivery = parts.StockDelivery(delivery_number="4711")
            said = messages.StockDeliverySetRequest(id="d", stock_deliveries=(delivery,))
            assert (await client.ask(said)).set_result.value == "Accepted"
            assert robot.deliveries == {"4711": delivery}
            for number, status in (("4711", "Queued"), ("4712", "Unknown")):
                ask = messages.StockDeliveryInfoRequest(id=number, task=parts.Task(id=number))
                assert (await client.ask(ask)).task.status == status
            places = await client.ask(messages.StockLocationInfoRequest(id="l"))
            assert [place.id for place in places.stock_locations] == ["MAIN"]
            answer = await client.ask(messages.ConfigurationGetRequest(id="c"))
            assert answer.configuration.text == "places of output: 1 to 2"
            with pytest.raises(ValueError, match="request: expected one, got OutputMessage"):
                await client.ask(messages.KINDS["OutputMessage"].__new__(messages.OutputMessage))

    run(work)


def test_record_holds_what_was_said(tmp_path):
    """A morning as a machine logged it: 13 outputs of which 3 are short, 10 inputs, and so on."""

    async def work(robot, port):
        async with RobotClient("127.0.0.1", port, on_input=allow, ahead=0) as client:
            for number in range(13):
                drug = "nothing" if number % 5 == 4 or number == 12 else "ibuprofen"
                outcome = await client.output(f"RX{number}", one(drug))
                assert outcome.status == ("Incomplete" if drug == "nothing" else "Completed")
                if number < 10:
                    await robot.insert("", parts.Pack(expiry_date=date(2028, 1, 1)))
            for _ in range(14):
                await client.status()
            for _ in range(3):
                await client.stock("aspirin")

    record = tmp_path / "robot.log"
    run(work, record=record)
    assert count_kinds(read_log(record)) == {
        "HelloRequest": 1, "HelloResponse": 1, "OutputRequest": 13, "OutputResponse": 13,
        "OutputMessage": 13, "InputRequest": 10, "InputResponse": 10, "InputMessage": 10,
        "StatusRequest": 14, "StatusResponse": 14, "StockInfoRequest": 3, "StockInfoResponse": 3,
        # One for each output that gave something and each input.
        "StockInfoMessage": 10 + 10,
    }  # fmt: skip
    times = output_times(read_log(record))
    assert [t.num_packs for t in times].count(0) == 3
    assert len(input_times(read_log(record))) == 10
    expected_s = expected_output_s(times)
    assert set(expected_s) == {"", "ibuprofen"}
    assert expected_s[""] == pytest.approx(sum(t.own_s for t in times if t.num_packs) / 10)


def stamped(message, second):
    """A message of a log at a second."""
    at = f"2026-01-01T00:00:{second:02d}Z".encode()
    return write(message).replace(b'TimeStamp="', b'TimeStamp="' + at + b'" Was="', 1) + b"\n"


def test_times_are_learned_from_stamps(tmp_path):
    """Two outputs that wait for each other, worked out by hand."""

    def asked(number, article):
        details = parts.OutputDetails(output_destination=1)
        return messages.OutputRequest(
            id=number, source=100, destination=999, details=details, criteria=one(article)
        )  # fmt: skip

    def ended(number, article):
        details = parts.OutputDetails(output_destination=1, status=OutputStatus.COMPLETED)
        packs = (parts.Pack(id=5, machine_location="M2"),)
        return messages.OutputMessage(
            id=number, source=999, destination=100, details=details,
            articles=(parts.Article(id=article, packs=packs),),
        )  # fmt: skip

    log = tmp_path / "log"
    log.write_bytes(
        stamped(asked("1", "a"), 0) + stamped(asked("2", "b"), 1)
        + stamped(ended("1", "a"), 10) + stamped(ended("2", "b"), 30)
        + stamped(ended("9", "c"), 40)
    )  # fmt: skip
    first, second = output_times(read_log(log))
    assert (first.total_s, first.own_s, first.machine_location) == (10.0, 10.0, "M2")
    assert (second.total_s, second.own_s) == (29.0, 20.0)  # 10 to 30
    # Mean 15; a: (10 + 3 * 15) / 4, b: (20 + 45) / 4.
    assert expected_output_s([first, second]) == {"": 15.0, "a": 13.75, "b": 16.25}
    with pytest.raises(ValueError, match="expected a completed output of one pack"):
        expected_output_s([])
    with pytest.raises(ValueError, match="weight: expected at least 0"):
        expected_output_s([first], weight=-1)


def test_output_without_packs_leaves_the_arm_to_others(tmp_path):
    """An output that is short at once does not shorten the time of the one in process."""
    details = parts.OutputDetails(output_destination=1)

    def asked(number):
        return messages.OutputRequest(
            id=number, source=100, destination=999, details=details, criteria=one("a")
        )  # fmt: skip

    def ended(number, status, *packs):
        return messages.OutputMessage(
            id=number, source=999, destination=100, details=replace(details, status=status),
            articles=(parts.Article(id="a", packs=packs),) if packs else (),
        )  # fmt: skip

    log = tmp_path / "log"
    log.write_bytes(
        stamped(asked("2"), 0) + stamped(asked("3"), 8)
        + stamped(ended("3", OutputStatus.INCOMPLETE), 8)
        + stamped(ended("2", OutputStatus.COMPLETED, parts.Pack(id=5)), 12)
    )  # fmt: skip
    assert [time.own_s for time in output_times(read_log(log))] == [0.0, 12.0]


def test_robot_remembers_what_it_gave_out(tmp_path):
    """Started again with its journal it has the packs and outputs of before, inputs included."""

    async def first(robot, port):
        async with RobotClient("127.0.0.1", port, on_input=allow) as client:
            await client.output("RX1", one("aspirin", 2))
            assert await robot.insert("", parts.Pack(expiry_date=date(2028, 1, 1)))
            return await client.stock()

    async def second(robot, port):
        async with RobotClient("127.0.0.1", port) as client:
            done = await client.output("RX1", one("aspirin", 2))
            assert [pack.batch_number for pack in done.packs] == ["L2", "L2"]
        return robot.ledger.stock.articles(with_packs=True)

    state = tmp_path / "state.jsonl"
    before = run(first, state=state)
    after = run(second, state=state)
    assert {a.id: a.packs for a in after} == {a.id: a.packs for a in before}
    state.write_bytes(state.read_bytes().replace(b'"pack"', b'"tack"', 1))
    with pytest.raises(InputError, match="valid checksum"):
        Robot(MACHINE, Stock.of_bins(BINS), state=state)


def test_journal_of_another_stock_is_refused(tmp_path):
    """A journal that takes packs out which are not there does not go with the stock."""

    async def work(_robot, port):
        async with RobotClient("127.0.0.1", port) as client:
            await client.output("RX1", one("aspirin", 2))

    state = tmp_path / "state.jsonl"
    run(work, state=state)
    with pytest.raises(InputError, match="an event that fits what came before"):
        Robot(MACHINE, Stock.of_bins(BINS[2:3]), state=state)
    with pytest.raises(ValueError, match="pack: id: 100000 is there already"):
        stock = Stock.of_bins(BINS)
        wish = Criteria(article_id="aspirin", quantity=1, pack_id=100_000)
        stock.add(stock.next_pack(wish, wanted=1, lot=None))
