"""The client against the simulated robot over TCP: nothing lost, nothing given out twice."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import Counter

import pytest

from wardwise.dispenser import Faults, Robot, RobotClient, Stock, Timing, criteria_of
from wardwise.dispenser.link import Link
from wardwise.io.wwks2 import MessageError, messages, parts, write
from wardwise.io.wwks2.parts import CancelStatus, Criteria, OutputPriority, OutputStatus, State
from wardwise.journal import read_lines
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.problem import Line, Order

HURRY = Timing(
    hello_s=2, answer_s=0.5, keep_alive_s=0.5, recheck_s=0.5, poll_s=0.05, backoff_s=0.005,
    most_backoff_s=0.1,
)  # fmt: skip
ROUGH = Faults(
    disconnect=0.02, malformed=0.02, truncated=0.01, duplicated=0.02, garbled=0.05, oversized=0.01,
    oversized_bytes=100_000, not_ready=0.02, not_ready_s=2000.0, delay_s=0.001,
)  # fmt: skip
DAY = generate_pharmacy(1, num_orders=250, max_lines=3)
SMALL = 65536


def wanted(order):
    """Packs of an order."""
    return sum(line.quantity for line in order.lines)


def one(drug="D0001", quantity=1):
    """Packs of one drug."""
    return (Criteria(article_id=drug, quantity=quantity),)


def run(work, **settings):
    """Let a robot run while something is done with it and its port."""

    async def both():
        settings.setdefault("speed", 1e5)
        async with Robot(DAY.machine, Stock.of_bins(DAY.bins), **settings) as robot:
            async with asyncio.timeout(60):
                return await work(robot, await robot.start())

    return asyncio.run(both())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_nothing_is_lost_and_nothing_given_out_twice(seed, caplog):
    """Orders through broken lines, damaged and oversized messages both ways, and stops."""
    caplog.set_level("CRITICAL", "wardwise.dispenser")

    async def work(robot, port):
        async with RobotClient(
            "127.0.0.1", port, timing=HURRY, max_bytes=SMALL, seed=seed
        ) as client:
            waiting = [client.output(o.id, criteria_of(o), destination=1) for o in DAY.orders]
            # Asking again changes nothing, in the beginning and in the end.
            again = [client.output(o.id, criteria_of(o), destination=1) for o in DAY.orders[::2]]
            outcomes = await asyncio.gather(*waiting)
            assert await asyncio.gather(*again) == outcomes[::2]
        assert client.num_connections > 1
        assert client.num_refused >= 1
        assert robot.num_refused >= 1
        return robot.ledger, outcomes

    ledger, outcomes = run(work, faults=ROUGH, seed=seed, max_bytes=SMALL)
    given = {key[1]: [s.pack.id for s in task.packs] for key, task in ledger.tasks.items()}
    assert set(given) == {order.id for order in DAY.orders}
    for order, outcome in zip(DAY.orders, outcomes, strict=True):
        assert outcome.status is OutputStatus.COMPLETED
        assert len(given[order.id]) == wanted(order)
        assert sorted(pack.id for pack in outcome.packs) == sorted(given[order.id])
    left = [pack for packs in given.values() for pack in packs]
    assert len(left) == len(set(left))


def start_robot(start, port, state):
    """A robot in a process of its own; returns when it listens."""
    process = start(
        "-m", "wardwise", "wwks2-robot", "--port", port, "--json",
        "--state", state, "--seed", "1", "--speed", "5000",
    )  # fmt: skip
    return process, json.loads(process.until(r".*\n", stream=1)[0])


@pytest.mark.slow
def test_killed_robot_goes_on_where_it_was(start, tmp_path):
    """SIGKILL in the middle, twice: after the restarts each order has left exactly once."""
    state = tmp_path / "robot.jsonl"
    orders = DAY.orders[:60]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = []

    def begin():
        process, told = start_robot(start, port, state)
        processes.append(process)
        return told

    async def work():
        known = [begin()["known_outputs"]]
        async with RobotClient("127.0.0.1", port, timing=HURRY) as client:
            waiting = [client.output(order.id, criteria_of(order)) for order in orders]
            for part in (15, 40):
                await asyncio.gather(*waiting[:part])
                processes[-1].send_signal(signal.SIGKILL)
                processes[-1].wait()
                known.append(begin()["known_outputs"])
            outcomes = await asyncio.gather(*waiting)
            return known, client.num_connections, outcomes

    try:
        known, num_connections, outcomes = asyncio.run(work())
    finally:
        for process in processes:
            with process:
                pass
    assert known[0] == 0
    assert 15 <= known[1] < known[2] < 60
    assert num_connections >= 3
    events = [event for _, _, event in read_lines(state)]
    given = Counter(event["id"] for event in events if event["event"] == "pack")
    assert given == {order.id: wanted(order) for order in orders}
    packs = [event["pack"] for event in events if event["event"] == "pack"]
    assert len(packs) == len(set(packs))
    assert [len(outcome.packs) for outcome in outcomes] == [wanted(order) for order in orders]


def test_client_that_starts_again_asks_first():
    """A new client with the ids of an old one gets what the robot did for that one."""

    async def work(robot, port):
        async with RobotClient("127.0.0.1", port) as first:
            done = await first.output("RX1", one())
        async with RobotClient("127.0.0.1", port) as second:
            assert await second.output("RX1", one(), ask_first=True) == done
            assert len((await second.output("RX2", one(), ask_first=True)).packs) == 1
            assert second.num_repeats == 1
        return len(robot.ledger.tasks)

    assert run(work) == 2


def test_few_requests_wait_at_the_robot():
    """One in process and one behind it; the client's own queue goes by priority."""
    seen, ended = [], []

    async def work(robot, port):
        def hear(message):
            seen.append(sum(not task.status.is_final for task in robot.ledger.tasks.values()))

        async with RobotClient("127.0.0.1", port, on_event=hear, ahead=1) as client:
            for number in range(12):
                urgent = OutputPriority.HIGHEST if number == 11 else OutputPriority.NORMAL
                future = client.output(f"RX{number}", one(), priority=urgent)
                future.add_done_callback(lambda done: ended.append(done.result().id))
            await client.output("last", one())

    run(work)
    assert seen
    assert max(seen) <= 2
    assert ended == ["RX11", *(f"RX{number}" for number in range(11))]


@pytest.mark.slow
def test_cancelled_outputs_end_aborted():
    """Waiting here, waiting there, in process; what has ended cannot be cancelled."""

    async def work(_robot, port):
        async with RobotClient("127.0.0.1", port, ahead=1) as client:
            first = client.output("RX1", one(quantity=30))
            second, third = client.output("RX2", one()), client.output("RX3", one())
            await client.status()
            await asyncio.sleep(0.05)
            assert await client.cancel("RX3") is CancelStatus.CANCELLED
            assert await client.cancel("RX2") is CancelStatus.CANCELLED
            assert await client.cancel("RX1") is CancelStatus.CANCELLED
            outcomes = await asyncio.gather(first, second, third)
            assert {outcome.status for outcome in outcomes} == {OutputStatus.ABORTED}
            assert len(outcomes[0].packs) < 30
            assert await client.cancel("RX1") is CancelStatus.CANCEL_ERROR
            assert await client.cancel("4") is CancelStatus.UNKNOWN

    run(work, speed=200.0)


@pytest.mark.slow
def test_stopped_machine_is_waited_for():
    """Outputs that it turns down are sent again when it is ready; both states are told."""
    told = []

    async def work(robot, port):
        async with RobotClient(
            "127.0.0.1", port, timing=HURRY, on_event=told.append
        ) as client:  # fmt: skip
            halt = asyncio.ensure_future(robot.halt(0.3 * 1e5))
            await asyncio.sleep(0)
            outcome = await client.output("RX1", one())
            assert halt.done()
            return outcome.status

    assert run(work) is OutputStatus.COMPLETED
    states = [m.state for m in told if isinstance(m, messages.StatusResponse)]
    assert states == [State.NOT_READY, State.READY]


def test_impossible_output_is_rejected_in_the_end():
    """A robot that is ready and still turns it down three times means it."""

    async def work(_robot, port):
        async with RobotClient("127.0.0.1", port, timing=HURRY) as client:
            refused = client.output("RX1", one(), destination=9)
            return (await refused).status, (await client.output("RX2", one())).status

    assert run(work) == (OutputStatus.REJECTED, OutputStatus.COMPLETED)


def test_orders_become_criteria():
    """Lines by hand are left out; the earliest date goes along."""
    lines = (Line(drug="a", quantity=2), Line(drug="b", is_manual=True))
    assert criteria_of(Order(id="1", lines=lines)) == (Criteria(article_id="a", quantity=2),)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: RobotClient("h", device=99), "device: expected 100 to 199, got 99"),
        (lambda: RobotClient("h", ahead=-1), "ahead: expected at least 0, got -1"),
        (lambda: Timing(poll_s=0.0), "poll_s: expected a finite number above 0, got 0.0"),
    ],
)
def test_wrong_settings_are_named(call, problem):
    """Each refusal names the setting and its range."""
    with pytest.raises(ValueError, match=problem):
        call()


def test_id_stands_for_one_request():
    """The same id with other packs is a mistake, and so is what cannot be sent."""

    async def work(_robot, port):
        async with RobotClient("127.0.0.1", port) as client:
            client.output("RX1", one())
            with pytest.raises(ValueError, match="'RX1' was used for another request"):
                client.output("RX1", one(quantity=2))
            with pytest.raises(ValueError, match="'1' is the id of outputs made at the machine"):
                client.output("1", one())
            with pytest.raises(ValueError, match="quantity: expected 0 to"):
                client.output("RX2", one(quantity=-1))

    run(work)


class Peer:
    """A robot of another make: it answers as a function of the test says."""

    def __init__(self, answer):
        self.answer, self.heard, self.num_connections = answer, [], 0

    async def serve(self, reader, writer):
        """One connection."""
        self.num_connections += 1
        link = Link(reader, writer)
        try:
            async for found in link.messages():
                self.heard.append(found.message)
                for message in self.answer(found.message):
                    await link.send(write(message))
        except OSError:
            pass
        finally:
            await link.close()


def against(answer, work):
    """Run a client against such a robot."""

    async def both():
        peer = Peer(answer)
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(20):
            async with RobotClient("127.0.0.1", port, timing=HURRY) as client:
                await work(peer, client)
        server.close()

    asyncio.run(both())


def hello(message):
    """Answer to hello, and to nothing else."""
    if isinstance(message, messages.HelloRequest):
        subscriber = parts.Subscriber(
            id=777, type="Robot", manufacturer="m", product_info="p", version_info="1"
        )  # fmt: skip
        yield messages.HelloResponse(id=message.id, subscriber=subscriber)


@pytest.mark.slow
def test_dead_line_is_found_out():
    """A robot that says no more after hello is left, and visited again."""

    async def work(peer, client):
        while client.num_connections < 3:
            await asyncio.sleep(0.02)
        assert any(isinstance(m, messages.KeepAliveRequest) for m in peer.heard)

    against(hello, work)


@pytest.mark.slow
def test_robot_may_know_the_new_names_only():
    """The client asks by the older name first, and then by the one that is understood."""

    def answer(message):
        yield from hello(message)
        match message:
            case messages.TaskInfoRequest():
                yield messages.UnprocessedMessage(
                    id="u", reason="NotSupported", message=parts.Unprocessed(id=message.id)
                )
            case messages.OutputInfoRequest(id=number, task=task):
                told = parts.Task(id=task.id, status=OutputStatus.INCOMPLETE)
                yield messages.OutputInfoResponse(id=number, task=told)
            case messages.KeepAliveRequest(id=number):
                yield messages.KeepAliveResponse(id=number)
            case messages.StatusRequest(id=number):
                yield messages.StatusResponse(id=number, state=State.READY)

    async def work(peer, client):
        # The request is never answered: after a while the client asks what has become of it.
        assert (await client.output("RX1", one())).status is OutputStatus.INCOMPLETE
        assert (await client.output("RX2", one())).status is OutputStatus.INCOMPLETE
        names = Counter(type(message).__name__ for message in peer.heard)
        assert names["TaskInfoRequest"] == 1
        assert names["OutputRequest"] == 2

    against(answer, work)


def test_refused_question_is_an_error():
    """What the robot does not understand is told to whoever asked."""

    def answer(message):
        yield from hello(message)
        if isinstance(message, messages.StockInfoRequest):
            yield messages.UnprocessedMessage(
                id="u", reason="DataError", text="no", message=parts.Unprocessed(id=message.id)
            )
        if isinstance(message, messages.KeepAliveRequest):
            yield messages.KeepAliveRequest(id="mine", source=777)

    async def work(peer, client):
        with pytest.raises(MessageError, match="no"):
            await client.stock("a")
        while not any(isinstance(m, messages.KeepAliveResponse) for m in peer.heard):
            await asyncio.sleep(0.02)

    against(answer, work)
