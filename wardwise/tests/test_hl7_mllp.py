"""MLLP frames and real TCP: every message answered, none taken twice, nothing ends the listener."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.dispenser.intake import Intake
from wardwise.dispenser.mllp import Listener, Sender
from wardwise.dispenser.prescriptions import Prescriptions
from wardwise.dispenser.sinks import OrderList
from wardwise.errors import InputError
from wardwise.io.hl7 import Hl7Error, Splitter, framed, parse, read_answer
from wardwise.io.hl7.fields import now
from wardwise.journal import read_lines

MIDNIGHT = now().replace(hour=0, minute=0, second=0, microsecond=0)


def rde(control, *orders, patient="P1", head=""):
    """A message with orders (control, placer, group, drug, packs)."""
    lines = [
        f"MSH|^~\\&|CPOE|HOSP|ROBOT|PHARM|20260302081500{head}||RDE^O11|{control}|P|2.5.1",
        f"PID|||{patient}",
    ]
    for action, placer, group, drug, amount in orders:
        lines.append(f"ORC|{action}|{placer}||{group}")
        if action in ("NW", "XO"):
            lines += [f"RXE||{drug}||||||||{amount}|PACK", "TQ1|||||||||R", "RXR|PO"]
    return ("\r".join(lines) + "\r").encode()


def intake(journal=None, sink=None):
    """An intake whose orders go on a list."""
    found = OrderList() if sink is None else sink
    return Intake(found, Prescriptions(found, MIDNIGHT), journal=journal), found


def verdict(data):
    """AA, AE or AR, and why."""
    found, _, why = read_answer(parse(data))
    return found, why


CONTENT = st.binary(min_size=1, max_size=60).map(
    lambda data: data.replace(b"\x0b", b"v").replace(b"\x1c", b"f")
)
NOISE = st.sampled_from([b"", b"\r", b"\n\n", b"noise", b"\x00\xff", b"\x1c\r"])


@given(st.lists(st.tuples(NOISE, CONTENT), max_size=8), st.data())
def test_stream_may_be_cut_anywhere(parts, data):
    """With noise between the frames, the same messages come out whatever the chunks are."""
    stream = b"".join(noise + framed(content) for noise, content in parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter = Splitter()
    found = [
        part
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for part in splitter.feed(stream[start:end])
    ]
    assert found == [content for _, content in parts]
    assert splitter.pending_bytes == 0


@given(st.lists(st.binary(max_size=200), max_size=9))
def test_random_bytes_give_messages_or_refusals(chunks):
    """And never more is kept than allowed; a good frame behind them is read."""
    splitter = Splitter(64)
    for chunk in chunks:
        for part in splitter.feed(chunk):
            assert isinstance(part, bytes | Hl7Error)
        assert splitter.pending_bytes <= 64
    *_, last = splitter.feed(framed(b"good"))
    assert last == b"good"


def test_oversized_message_is_refused_once_and_not_kept():
    """A gigabyte in small pieces would need no memory; the next message is read."""
    splitter = Splitter(1000)
    found = list(splitter.feed(b"\x0b"))
    for _ in range(500):
        found += splitter.feed(b"x" * 99)
        assert splitter.pending_bytes <= 1000
    found += splitter.feed(b"\x1c\r" + framed(b"next"))
    assert [type(part) for part in found] == [Hl7Error, bytes]
    assert found[1] == b"next"
    with pytest.raises(ValueError, match="at least 64"):
        Splitter(10)
    with pytest.raises(ValueError, match="0x1c"):
        framed(b"a\x1cb")


async def ask(port, stream, num_answers, *, chunk=None):
    """Send bytes, in pieces, and wait for so many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    step = chunk or len(stream)
    for start in range(0, len(stream), step):
        writer.write(stream[start : start + step])
        await writer.drain()
    splitter, found = Splitter(), []
    while len(found) < num_answers and (data := await reader.read(65536)):
        found += splitter.feed(data)
    writer.close()
    return found


def test_every_message_is_answered_over_tcp(caplog):
    """Good ones, bad ones, noise, an oversized one, in pieces of seven bytes, by three clients."""
    caplog.set_level("CRITICAL", "wardwise.dispenser")
    taker, orders = intake()

    async def work():
        async with Listener(taker.answer, max_bytes=2000) as listener, asyncio.timeout(30):
            port = await listener.start()
            streams = []
            for k in range(3):
                good = [
                    framed(rde(f"M{k}.{n}", ("NW", f"O{k}.{n}", f"G{k}", f"D{n}", 1)))
                    for n in range(5)
                ]
                bad = [framed(b"hello"), framed(b"MSH|^~\\&|" + b"x" * 5000), framed(b"")]
                streams.append(b"noise".join([*good[:3], *bad, *good[3:]]))
            found = await asyncio.gather(*(ask(port, stream, 8, chunk=7) for stream in streams))
            assert listener.num_messages == 24
            assert listener.num_noise > 0
            return found

    for answers in asyncio.run(work()):
        verdicts = [verdict(data)[0] for data in answers]
        assert verdicts == ["AA"] * 3 + ["AE"] * 3 + ["AA"] * 2
    assert {name: len(order.lines) for name, order in orders.orders.items()} == {
        "G0": 5, "G1": 5, "G2": 5,
    }  # fmt: skip


def test_client_that_leaves_or_is_silent_hurts_nobody():
    """In the middle of a message, and without a word."""
    taker, orders = intake()

    async def work():
        async with Listener(taker.answer, idle_s=0.2) as listener, asyncio.timeout(30):
            port = await listener.start()
            for _ in range(3):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(framed(rde("M1", ("NW", "O1", "G1", "D1", 1)))[:-9])
                writer.transport.abort()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read(1) == b""  # dropped after its silence
            writer.close()
            return await ask(port, framed(rde("M2", ("NW", "O2", "G2", "D1", 1))), 1)

    assert verdict(asyncio.run(work())[0]) == ("AA", "")
    assert set(orders.orders) == {"G2"}


def test_repeated_message_gets_the_same_answer_and_does_nothing():
    """Also with another time in MSH; other content under the same control id is refused."""
    taker, orders = intake()
    first = taker.answer(rde("M1", ("NW", "O1", "G1", "D1", 2)))
    assert taker.answer(rde("M1", ("NW", "O1", "G1", "D1", 2))) == first
    assert taker.answer(rde("M1", ("NW", "O1", "G1", "D1", 2), head="+0100")) == first
    told = verdict(taker.answer(rde("M1", ("NW", "O1", "G1", "D1", 3))))
    assert told == ("AE", "MSH-10: expected a new control id, got 'M1' again with other content")
    assert taker.answer(rde("M1", ("NW", "O1", "G1", "D1", 2))) == first
    assert orders.orders["G1"].lines[0].quantity == 2
    bad = taker.answer(rde("M2", ("CA", "O9", "", "", 0)))
    assert verdict(bad)[0] == "AE"
    assert taker.answer(rde("M2", ("CA", "O9", "", "", 0))) == bad
    # What was refused may be put right under its old number: nothing was taken of it.
    assert verdict(taker.answer(rde("M2", ("CA", "O1", "", "", 0))))[0] == "AA"
    assert orders.orders == {}


def test_restart_remembers_lines_and_answers(tmp_path):
    """The journal gives the same answers, and cancellations find their lines."""
    path = tmp_path / "intake.jsonl"
    messages = [
        rde("M1", ("NW", "O1", "G1", "D1", 2), ("NW", "O2", "G1", "D2", 1)),
        rde("M2", ("NW", "O3", "G1", "D3", 1)), rde("M3", ("CA", "O2", "", "", 0)),
        rde("M4", ("NW", "O1", "G1", "D1", 2)), rde("M5", ("HD", "O3", "", "", 0)),
    ]  # fmt: skip
    taker, orders = intake(path)
    answers = [taker.answer(message) for message in messages]
    assert [verdict(data)[0] for data in answers] == ["AA", "AA", "AA", "AE", "AA"]
    taker.close()
    again, restored = intake(path)
    assert [again.answer(message) for message in messages] == answers
    assert restored.orders == orders.orders
    assert [item.id for item in again.prescriptions.held] == ["O3"]
    again.answer(rde("M6", ("RL", "O3", "", "", 0)))
    assert [line.drug for line in restored.orders["G1"].lines] == ["D1", "D3"]
    again.close()


def test_crash_between_writing_and_doing(tmp_path):
    """Cut off after each line of the journal, the message sent again is taken exactly once."""
    path = tmp_path / "intake.jsonl"
    message = rde("M1", ("NW", "O1", "G1", "D1", 2))
    taker, _ = intake(path)
    first = taker.answer(message)
    taker.close()
    lines = [line for _, line, _ in read_lines(path)]
    assert len(lines) == 3  # begin, message, answer
    for kept in range(4):
        for rest in (b"", b'{"n":'):
            path.write_bytes(b"".join(lines[:kept]) + rest)
            again, restored = intake(path)
            assert set(restored.orders) == ({"G1"} if kept >= 2 else set())
            assert verdict(again.answer(message)) == ("AA", "")
            assert (again.answer(message) == first) or kept < 3
            assert restored.orders["G1"].lines[0].quantity == 2
            again.close()
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(InputError, match="lines are missing"):
        intake(path)


class Unsure(OrderList):
    """A list whose disk is full for the first few times."""

    failures = 2

    def submit(self, order):
        """Fail, then work."""
        if self.failures:
            self.failures -= 1
            raise OSError(28, "No space left on device")
        super().submit(order)


def test_sink_that_fails_is_tried_again(tmp_path, caplog):
    """The sender is told of the trouble (AR); when it asks again, or another one, it is done."""
    caplog.set_level("CRITICAL", "wardwise.dispenser")
    taker, orders = intake(tmp_path / "intake.jsonl", Unsure())
    message = rde("M1", ("NW", "O1", "G1", "D1", 2))
    for _ in range(2):
        told, why = verdict(taker.answer(message))
        assert (told, orders.orders) == ("AR", {})
        assert why == "message: expected no error here, got one"
    assert verdict(taker.answer(rde("M2", ("NW", "O2", "G2", "D1", 2)))) == ("AA", "")
    assert set(orders.orders) == {"G1", "G2"}
    assert verdict(taker.answer(message)) == ("AA", "")
    taker.close()


def test_sender_gets_each_message_across_a_bad_line():
    """The line breaks before, in the middle of and after answers: each order is taken once."""
    taker, orders = intake()
    mood, writers = {"n": 0}, []

    async def moody(reader, writer):
        writers.append(writer)
        splitter = Splitter()
        while data := await reader.read(65536):
            for part in splitter.feed(data):
                mood["n"] += 1
                found = framed(taker.answer(part)) if mood["n"] % 4 else b""
                writer.write(found[: 20 if mood["n"] % 4 == 1 else None])
                if mood["n"] % 4 < 2:
                    writer.close()
                    return
                writer.write(framed(b"garbage") + framed(b"MSH|^~\\&|A"))

    async def work():
        server = await asyncio.start_server(moody, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings_ = {"answer_s": 5.0, "backoff_s": 0.001, "most_backoff_s": 0.01}
        async with Sender("127.0.0.1", port, **settings_) as sender, asyncio.timeout(30):
            for k in range(20):
                message = rde(f"M{k}", ("NW", f"O{k}", f"G{k}", "D1", 1))
                assert await sender.send(message) == ("AA", "")
            assert await sender.send(rde("M99", ("CA", "none", "", "", 0))) == (
                "AE", "ORC-2: expected an order that came before, got 'none'",
            )  # fmt: skip
            with pytest.raises(Hl7Error, match="MSH-10: expected a control id"):
                await sender.send(rde("", ("CA", "none", "", "", 0)))
            assert sender.num_repeats > 5
        server.close()
        for writer in writers:
            writer.transport.abort()
            await asyncio.sleep(0)

    asyncio.run(work())
    assert len(orders.orders) == 20


def test_clean_line_needs_one_try_and_leaves_nothing_in_the_log(caplog):
    """A hundred messages in a row: nothing is repeated, and no answer is refused."""
    caplog.set_level("INFO", "wardwise.dispenser")
    taker, orders = intake()

    async def work():
        async with (
            Listener(taker.answer) as listener,
            Sender("127.0.0.1", await listener.start()) as sender,
            asyncio.timeout(30),
        ):
            for k in range(100):
                message = rde(f"M{k}", ("NW", f"O{k}", f"G{k}", "D1", 1))
                assert await sender.send(message) == ("AA", "")
            assert (sender.num_repeats, listener.num_messages) == (0, 100)

    asyncio.run(work())
    assert len(orders.orders) == 100
    assert caplog.text == ""


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 3))
def test_noise_never_raises_and_is_always_answered(data, cut):
    """Random bytes, and good messages with random bytes inside."""
    taker, _ = intake()
    good = rde("M1", ("NW", "O1", "G1", "D1", 2))
    for message in (data, good[: cut * 40] + data + good[cut * 40 :], good + data):
        assert verdict(taker.answer(message))[0] in ("AA", "AE", "AR")


def test_journal_of_something_else_is_refused(tmp_path):
    """In one line."""
    path = tmp_path / "intake.jsonl"
    path.write_bytes(os.urandom(50) + b"\n")
    with pytest.raises(InputError, match="expected a line with a valid checksum"):
        intake(path)
