"""What client and robot know after a restart, and what no listener or peer can make them lose."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from wardwise.dispenser import Robot, RobotClient, Stock, Timing
from wardwise.dispenser.link import Link
from wardwise.dispenser.memory import Memory
from wardwise.io import InputError
from wardwise.io.wwks2 import messages, parts, write
from wardwise.io.wwks2.parts import CancelStatus, Criteria, OutputStatus
from wardwise.pharmacy.problem import Bin
from wardwise.pharmacy.rack import Machine

BINS = (Bin(id="B1", drug="aspirin", cell=0, quantity=40),)
HURRY = Timing(
    hello_s=2, answer_s=0.5, keep_alive_s=0.5, recheck_s=0.5, poll_s=0.05, backoff_s=0.005,
    most_backoff_s=0.1,
)  # fmt: skip


def one(quantity=1):
    """Packs of the only drug."""
    return (Criteria(article_id="aspirin", quantity=quantity),)


def run(work, **settings):
    """Let a robot run while something is done with it and its port."""

    async def both():
        settings.setdefault("speed", 1e6)
        async with Robot(Machine(), Stock.of_bins(BINS), **settings) as robot:
            async with asyncio.timeout(20):
                return await work(robot, await robot.start())

    return asyncio.run(both())


def test_client_goes_on_from_its_journal(tmp_path):
    """Ended outputs keep their outcome, others go on unasked, and each leaves once."""
    path = tmp_path / "client.jsonl"

    async def work(robot, port):
        async with RobotClient("127.0.0.1", port, journal=path) as client:
            done = await client.output("RX1", one(2))
            await robot.stop()  # from here on nothing is answered
            client.output("RX2", one(3))
            client.output("RX3", one())
        async with Robot(Machine(), robot.ledger.stock, speed=1e6) as again:
            number = await again.start()
            async with RobotClient("127.0.0.1", number, journal=path) as client:
                assert list(client.orders) == ["RX1", "RX2", "RX3"]
                assert await client.output("RX1", one(2)) == done
                assert len((await client.orders["RX2"]).packs) == 3
                with pytest.raises(ValueError, match="'RX2' was used for another request"):
                    client.output("RX2", one())
                assert (await client.orders["RX3"]).status is OutputStatus.COMPLETED
                assert client.num_repeats <= 1  # RX3 was never sent, RX2 perhaps
            assert list(again.ledger.tasks) == [(100, "RX2"), (100, "RX3")]
        async with RobotClient("127.0.0.1", 1, journal=path) as client:
            assert [len((await end).packs) for end in client.orders.values()] == [2, 3, 1]

    run(work)


def test_cancelled_output_stays_cancelled_after_a_restart(tmp_path):
    """What was called off and is not known to the robot ends aborted, and nothing leaves."""
    path = tmp_path / "client.jsonl"

    async def work(robot, port):
        async with RobotClient("127.0.0.1", 1, journal=path) as client:
            client.output("RX1", one())
            client.output("RX2", one())
            assert await client.cancel("RX1") is CancelStatus.CANCELLED
        async with RobotClient("127.0.0.1", port, journal=path) as client:
            outcomes = await asyncio.gather(*client.orders.values())
        assert [outcome.status for outcome in outcomes] == ["Aborted", "Completed"]
        assert list(robot.ledger.tasks) == [(100, "RX2")]

    run(work)


def test_kill_between_two_lines_of_a_cancellation(tmp_path):
    """A cancellation whose end was not written down is ended by the next start."""
    path = tmp_path / "client.jsonl"
    memory = Memory(100, path)
    details = parts.OutputDetails(output_destination=1)
    memory.ask(messages.OutputRequest(id="RX1", source=100, details=details, criteria=one()))
    memory.cancel("RX1")
    memory.close()

    async def work(robot, port):
        async with RobotClient("127.0.0.1", port, journal=path) as client:
            assert (await client.orders["RX1"]).status is OutputStatus.ABORTED
        assert not robot.ledger.tasks

    run(work)


def test_journal_of_another_client_is_refused(tmp_path):
    """The robot knows outputs by the number of the device: another one would ask in vain."""
    path = tmp_path / "client.jsonl"
    Memory(100, path).close()
    with pytest.raises(InputError, match=r"client\.jsonl:1: expected an event that fits"):
        RobotClient("h", device=101, journal=path)
    path.write_bytes(path.read_bytes().replace(b"100", b"101"))
    with pytest.raises(InputError, match="valid checksum"):
        RobotClient("h", device=101, journal=path)


def test_giving_up_waiting_cancels_nothing():
    """Who waits no longer, by a time limit or otherwise, leaves the output as it is."""

    async def work(_robot, port):
        async with RobotClient("127.0.0.1", port) as client:
            waiting = client.output("RX1", one())
            waiting.cancel()
            assert (await client.output("RX1", one())).status is OutputStatus.COMPLETED

    run(work)


def test_error_of_a_listener_stops_nothing(caplog):
    """Outputs and inputs go on when what is called for them raises."""

    def fail(_message):
        raise RuntimeError("no")

    async def work(robot, port):
        async with RobotClient("127.0.0.1", port, on_event=fail, on_input=fail) as client:
            await client.status()
            scan = asyncio.ensure_future(robot.insert("aspirin", parts.Pack()))
            for number in range(3):
                assert len((await client.output(f"RX{number}", one())).packs) == 1
            assert client.num_connections == 1
            scan.cancel()

    run(work)
    assert "on_event: an error at StockInfoMessage" in caplog.text
    assert "no answer to the input" in caplog.text


def test_own_messages_said_twice_are_no_events():
    """A repeated response or end of an own output is not told as one of somebody else."""
    told = []

    async def work(robot, port):
        async with RobotClient("127.0.0.1", port, on_event=told.append) as client:
            await client.output("RX1", one())
            robot.broadcast(robot.ledger.tasks[100, "RX1"].message(999))
            robot.output_by_hand("aspirin")
            while not any(isinstance(m, messages.OutputMessage) for m in told):
                await asyncio.sleep(0.01)

    run(work)
    assert [m.id for m in told if isinstance(m, messages.OutputMessage)] == [parts.MANUAL_ID]


def test_single_units_are_counted_once_and_for_all(tmp_path):
    """A robot that is started again without the sizes of packs still brings what it took on."""
    state = tmp_path / "robot.jsonl"
    wish = (Criteria(article_id="aspirin", quantity=0, sub_item_quantity=21),)

    async def first(robot, port):
        async with RobotClient("127.0.0.1", port) as client:
            master = parts.Article(id="aspirin", max_sub_item_quantity=10)
            await client.ask(messages.ArticleMasterSetRequest(id="m", articles=(master,)))
            client.output("RX1", wish)
            while not robot.ledger.tasks:
                await asyncio.sleep(0.005)

    async def second(_robot, port):
        async with RobotClient("127.0.0.1", port) as client:
            return len((await client.output("RX1", wish, ask_first=True)).packs)

    run(first, state=state, speed=0.01)
    assert run(second, state=state) == 3


def test_packs_that_left_in_boxes_count():
    """A robot that tells each box by itself and packs only there: the outcome has them all."""

    def said(message):
        boxed = replace(message.details, status=OutputStatus.BOX_RELEASED)
        for number in (7, 8):
            article = parts.Article(id="aspirin", packs=(parts.Pack(id=number),))
            yield messages.OutputMessage(id=message.id, details=boxed, articles=(article,))
        last = parts.Article(id="aspirin", packs=(parts.Pack(id=8), parts.Pack(id=9)))
        yield messages.OutputMessage(
            id=message.id, articles=(last,),
            details=replace(message.details, status=OutputStatus.COMPLETED),
        )  # fmt: skip

    async def serve(reader, writer):
        link = Link(reader, writer)
        async for found in link.messages():
            message = found.message
            if isinstance(message, messages.HelloRequest):
                await link.send(write(messages.HelloResponse(
                    id=message.id, subscriber=replace(message.subscriber, id=777)
                )))  # fmt: skip
            elif isinstance(message, messages.OutputRequest):
                await link.send(b"".join(map(write, said(message))))
        await link.close()

    async def work():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(20), RobotClient("127.0.0.1", port, timing=HURRY) as client:
            outcome = await client.output("RX1", one(3), box="B")
        server.close()
        return sorted(pack.id for pack in outcome.packs)

    assert asyncio.run(work()) == [7, 8, 9]
