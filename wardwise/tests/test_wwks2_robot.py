"""The simulated robot: what it gives out, in which sequence, and what it remembers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import date

import pytest

from wardwise.dispenser import Faults, Robot, Stock
from wardwise.dispenser.link import Link
from wardwise.io.wwks2 import MessageError, messages, parts, write
from wardwise.io.wwks2.parts import CancelStatus, Criteria, OutputPriority, OutputStatus, State
from wardwise.pharmacy.problem import Bin
from wardwise.pharmacy.rack import Machine

MACHINE = Machine(points_m=((0.0, 0.0), (1.0, 0.0)))
BINS = (
    Bin(id="B1", drug="aspirin", cell=0, quantity=3, lot="L1", expiry=date(2027, 5, 31)),
    Bin(id="B2", drug="aspirin", cell=9, quantity=2, lot="L2", expiry=date(2026, 9, 30)),
    Bin(id="B3", drug="ibuprofen", cell=599, quantity=9),
    Bin(id="B4", drug="recalled", cell=5, quantity=4, is_recalled=True),
)
FAST = 1e6


class Raw:
    """A client without any manners of its own: it says what the test says."""

    def __init__(self, link):
        self.link, self._found = link, link.messages()

    async def hear(self, kind=messages.Message):
        """Next message of a kind, others passed over."""
        while True:
            found = await asyncio.wait_for(anext(self._found), 5)
            if isinstance(found, MessageError):
                raise found
            if isinstance(found.message, kind):
                return found.message

    async def say(self, *said):
        """Send messages or bytes, all at once."""
        await self.link.send(b"".join(s if isinstance(s, bytes) else write(s) for s in said))


@contextlib.asynccontextmanager
async def raw(port, device=100, *, hello=True):
    """A connection to the robot."""
    link = Link(*await asyncio.open_connection("127.0.0.1", port))
    client = Raw(link)
    try:
        if hello:
            subscriber = parts.Subscriber(
                id=device, type="IMS", manufacturer="m", product_info="p", version_info="1"
            )  # fmt: skip
            await client.say(messages.HelloRequest(id="h", subscriber=subscriber))
            assert (await client.hear()).subscriber.type == "Robot"
        yield client
    finally:
        await link.close()


def run(work, *, bins=BINS, machine=MACHINE, **settings):
    """Let a robot run while something is done with it and its port."""

    async def both():
        settings.setdefault("speed", FAST)
        async with Robot(machine, Stock.of_bins(bins), **settings) as robot:
            return await asyncio.wait_for(work(robot, await robot.start()), 20)

    return asyncio.run(both())


def request(number, article="aspirin", quantity=1, *, priority=OutputPriority.NORMAL, to=1, **more):
    """An output request of device 100."""
    return messages.OutputRequest(
        id=number, source=100, destination=999,
        details=parts.OutputDetails(output_destination=to, priority=priority),
        criteria=(Criteria(article_id=article, quantity=quantity, **more),),
    )  # fmt: skip


def test_first_expired_first_out():
    """Of two lots the one that expires first leaves first, and the message tells which packs."""

    async def work(_robot, port):
        async with raw(port) as client:
            await client.say(request("1", quantity=3, to=2))
            assert (await client.hear(messages.OutputResponse)).details.status == "Queued"
            done = await client.hear(messages.OutputMessage)
            (article,) = done.articles
            assert [pack.batch_number for pack in article.packs] == ["L2", "L2", "L1"]
            assert {pack.output_destination for pack in article.packs} == {2}
            assert done.details.status is OutputStatus.COMPLETED
            stock = await client.hear(messages.StockInfoMessage)
            assert [(a.id, a.quantity) for a in stock.articles] == [("aspirin", 2)]

    run(work)


@pytest.mark.parametrize(
    ("wish", "lots", "status"),
    [
        ({"quantity": 6}, ["L2", "L2", "L1", "L1", "L1"], OutputStatus.INCOMPLETE),
        ({"quantity": 2, "minimum_expiry_date": date(2027, 1, 1)}, ["L1"] * 2, "Completed"),
        ({"quantity": 3, "single_batch_number": True}, ["L1"] * 3, "Completed"),
        ({"quantity": 2, "single_batch_number": True}, ["L2"] * 2, "Completed"),
        ({"quantity": 4, "single_batch_number": True}, ["L1"] * 3, "Incomplete"),
        ({"quantity": 1, "batch_number": "L1"}, ["L1"], "Completed"),
        ({"quantity": 1, "article": "", "pack_id": 100_002}, ["L1"], "Completed"),
        ({"quantity": 1, "article": "recalled"}, [], "Incomplete"),
        ({"quantity": 1, "article": "unknown"}, [], "Incomplete"),
        ({"quantity": 1, "article": "ibuprofen", "minimum_expiry_date": date(2026, 1, 1)}, [],
         "Incomplete"),
        ({"quantity": 0}, [], "Rejected"),
        ({"quantity": 1, "article": ""}, [], "Rejected"),
        ({"quantity": 1, "to": 3}, [], "Rejected"),
        ({"quantity": 0, "sub_item_quantity": 5}, [], "Rejected"),
    ],
)  # fmt: skip
def test_wishes_are_met_or_refused(wish, lots, status):
    """Date, batch, one batch for all, a certain pack, recalled packs, places that are not there."""

    async def work(_robot, port):
        async with raw(port) as client:
            await client.say(request("1", **wish))
            answer = await client.hear(messages.OutputResponse)
            if answer.details.status is OutputStatus.REJECTED:
                return answer.details.status, []
            done = await client.hear(messages.OutputMessage)
            return done.details.status, [p.batch_number for a in done.articles for p in a.packs]

    assert run(work) == (status, lots)


def test_single_units_need_the_size_of_a_pack():
    """With the article's master data, 21 tablets are three packs of ten."""

    async def work(_robot, port):
        async with raw(port) as client:
            master = parts.Article(id="aspirin", max_sub_item_quantity=10)
            await client.say(messages.ArticleMasterSetRequest(id="m", articles=(master,)))
            answer = await client.hear(messages.ArticleMasterSetResponse)
            assert answer.set_result.value == "Accepted"
            await client.say(request("1", quantity=0, sub_item_quantity=21))
            done = await client.hear(messages.OutputMessage)
            return sum(len(article.packs) for article in done.articles)

    assert run(work) == 3


def test_urgent_outputs_come_first():
    """Requests that arrive together leave by priority, then in the sequence of arrival."""

    async def work(_robot, port):
        async with raw(port) as client:
            await client.say(
                request("low", "ibuprofen", priority=OutputPriority.LOW),
                request("first", "ibuprofen"),
                request("second", "ibuprofen"),
                request("stat", "ibuprofen", priority=OutputPriority.HIGHEST),
            )
            return [(await client.hear(messages.OutputMessage)).id for _ in range(4)]

    assert run(work) == ["stat", "first", "second", "low"]


def test_known_id_gets_its_state_and_no_second_pack():
    """The same request again, during and after, is answered and nothing more is given out."""

    async def work(robot, port):
        async with raw(port) as client:
            await client.say(request("1"), request("1"))
            answers = [await client.hear(messages.OutputResponse) for _ in range(2)]
            assert [answer.details.status for answer in answers] == ["Queued", "Queued"]
            done = await client.hear(messages.OutputMessage)
            await client.say(replace(request("1"), destination=0))
            assert (await client.hear(messages.OutputResponse)).details.status == "Queued"
            assert await client.hear(messages.OutputMessage) == done
            await client.say(request("1", quantity=2))
            assert (await client.hear(messages.OutputResponse)).details.status == "Rejected"
            assert len(robot.ledger.stock) == 18 - 1

    run(work)


@pytest.mark.parametrize("kind", [messages.OutputInfoRequest, messages.TaskInfoRequest])
def test_state_of_an_output_is_told(kind):
    """Unknown before, Completed with its packs afterwards, under both names of the question."""

    async def work(_robot, port):
        async with raw(port) as client:
            ask = kind(id="q", include_task_details=True, task=parts.Task(id="1", type="Output"))
            await client.say(ask)
            assert (await client.hear()).task.status is OutputStatus.UNKNOWN
            await client.say(request("1"))
            done = await client.hear(messages.OutputMessage)
            await client.say(ask)
            task = (await client.hear(messages.response_kind(ask))).task
            assert (task.status, task.articles) == (OutputStatus.COMPLETED, done.articles)

    run(work)


def test_cancelled_outputs_stop():
    """Queued: at once; in process: after the pack in hand; finished and unknown: too late."""

    async def work(robot, port):
        async with raw(port) as client:

            async def cancel(number):
                await client.say(
                    messages.TaskCancelRequest(id="c", task=parts.CancelTask(id=number))
                )
                return (await client.hear(messages.TaskCancelResponse)).task.status

            # 0.2 s of the clock for each of the packs at the end of the rack.
            await client.say(request("1", "ibuprofen", 9), request("2"))
            await client.hear(messages.OutputResponse)
            assert await cancel("2") is CancelStatus.CANCELLED
            ended = await client.hear(messages.OutputMessage)
            assert (ended.id, ended.details.status) == ("2", OutputStatus.ABORTED)
            assert await cancel("1") is CancelStatus.CANCELLED
            ended = await client.hear(messages.OutputMessage)
            assert (ended.id, ended.details.status) == ("1", OutputStatus.ABORTED)
            packs = [pack for article in ended.articles for pack in article.packs]
            assert len(packs) < 9
            assert len(robot.ledger.stock) == 18 - len(packs)
            assert await cancel("1") is CancelStatus.CANCEL_ERROR
            assert await cancel("3") is CancelStatus.UNKNOWN

    run(work, speed=100.0)


def test_silent_and_rude_clients_are_dropped():
    """Who says nothing in time, or something else before hello, loses the connection."""

    async def work(_robot, port):
        async with raw(port, hello=False) as client:
            with pytest.raises(StopAsyncIteration):
                await client.hear()
        async with raw(port, hello=False) as client:
            await client.say(messages.StatusRequest(id="1"))
            with pytest.raises(StopAsyncIteration):
                await client.hear()

    run(work, hello_s=0.1)


@pytest.mark.parametrize(
    ("noise", "reason", "number"),
    [
        (b'<WWKS Version="2.0"><Dance Id="9"/></WWKS>', "NotSupported", "9"),
        (b"<WWKS>&lt;</WWKS>", "SyntaxError", ""),
        (b'<WWKS Version="2.0"><OutputRequest Id="7"/></WWKS>', "DataError", "7"),
        (b"\xff\xfe</WWKS>", "SyntaxError", ""),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]></WWKS>", "SyntaxError", ""),
        (b"<WWKS>" + b"x" * 9000 + b"</WWKS>", "SyntaxError", ""),
        (b'<WWKS Version="2.0"><StatusResponse Id="5" State="Ready"/></WWKS>', "NotSupported", "5"),
    ],
)
def test_noise_is_answered_and_the_line_goes_on(noise, reason, number):
    """Unknown, broken, hostile and oversized messages get their reason; the next one is served."""

    async def work(robot, port):
        async with raw(port) as client:
            await client.say(noise, messages.KeepAliveRequest(id="k"))
            refused = await client.hear(messages.UnprocessedMessage)
            assert (refused.reason, refused.message.id) == (reason, number)
            assert (await client.hear(messages.KeepAliveResponse)).id == "k"
            return robot.num_refused

    assert run(work, max_bytes=8000) == (0 if number == "5" else 1)


def test_everybody_hears_of_outputs_and_only_one_gets_answers():
    """Two clients: answers go to the one that asked, news to both."""

    async def work(_robot, port):
        async with raw(port) as one, raw(port, 101) as two:
            await one.say(request("1"))
            assert isinstance(await one.hear(), messages.OutputResponse)
            heard = [await client.hear() for client in (one, two)]
            assert isinstance(heard[0], messages.OutputMessage)
            assert heard[0] == heard[1]
            assert heard[0].destination == 100
            # The same id of another device is another output.
            await two.say(replace(request("1"), source=101))
            assert (await two.hear(messages.OutputResponse)).destination == 101
            assert (await one.hear(messages.OutputMessage)).destination == 101

    run(work)


def test_stopped_machine_turns_outputs_down():
    """NotReady is told, outputs are rejected, and an output in process waits."""

    async def work(robot, port):
        async with raw(port) as client:
            halt = asyncio.ensure_future(robot.halt(0.2 * FAST))
            await asyncio.sleep(0)
            await client.say(messages.StatusRequest(id="s", include_details=True), request("1"))
            status = await client.hear(messages.StatusResponse)
            assert status.state is State.NOT_READY
            assert [c.state for c in status.components] == [State.NOT_READY]
            assert (await client.hear(messages.OutputResponse)).details.status == "Rejected"
            await halt
            await client.say(request("1"))
            assert (await client.hear(messages.OutputResponse)).details.status == "Queued"
            assert (await client.hear(messages.OutputMessage)).details.status == "Completed"

    run(work)


def test_output_at_the_machine_has_the_id_one():
    """What somebody takes at the machine itself is told with id 1."""

    async def work(robot, port):
        async with raw(port) as client:
            robot.output_by_hand("aspirin", 2)
            done = await client.hear(messages.OutputMessage)
            assert (done.id, done.destination) == ("1", 100)
            assert len(done.articles[0].packs) == 2

    run(work)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: Robot(MACHINE, Stock([]), device=100), "device: expected 200 to 999, got 100"),
        (lambda: Robot(MACHINE, Stock([]), speed=0.0), "speed: expected a finite number above 0"),
        (lambda: Stock.of_bins(BINS, most_packs=0), "most_packs: expected 1 to 99999, got 0"),
        (lambda: Faults(disconnect=1.0), "disconnect: expected 0 to less than 1, got 1.0"),
        (lambda: Faults(delay_s=-1.0), "delay_s: expected a finite number of at least 0"),
        (lambda: Faults(oversized_bytes=0), "oversized_bytes: expected at least 1, got 0"),
        (lambda: Faults.of_text("fire=1"), "faults: expected disconnect, malformed"),
        (lambda: Faults.of_text("delay-s=long"), "faults: delay_s: expected a number, got 'long'"),
    ],
)
def test_wrong_settings_are_named(call, problem):
    """Each refusal names the setting, its range and what was given."""
    with pytest.raises(ValueError, match=problem):
        call()


def test_faults_are_read_from_text():
    """Dashes or underscores, whole numbers where they belong, nothing for nothing."""
    assert Faults.of_text("") == Faults()
    assert Faults.of_text("disconnect=0.1, not-ready=0.2,oversized_bytes=9") == Faults(
        disconnect=0.1, not_ready=0.2, oversized_bytes=9
    )  # fmt: skip
