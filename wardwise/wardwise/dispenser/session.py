"""One client at the robot: first hello, then questions, answers, and what everybody is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from wardwise.dispenser.faults import damaged, truncated
from wardwise.dispenser.link import Link, understood
from wardwise.io.wwks2 import MessageError, messages, parts, write

if TYPE_CHECKING:
    from wardwise.dispenser.robot import Robot
    from wardwise.io.wwks2 import Envelope

log = logging.getLogger("wardwise.dispenser")

MAX_WAITING = 1000
MAX_QUOTE = 2000


class Session:
    """A connection of the robot.

    Parameters
    ----------
    robot
        Whose it is.
    reader, writer
        The connection.
    """

    def __init__(
        self, robot: Robot, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._robot = robot
        self._link = Link(reader, writer, max_bytes=robot.max_bytes)
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)
        self.subscriber: parts.Subscriber | None = None

    @property
    def peer(self) -> str:
        """Address of the client."""
        return self._link.peer

    def post(self, message: messages.Message) -> None:
        """Send a message when its turn comes; a client that does not read is dropped."""
        if self.subscriber is None and not isinstance(message, messages.HelloResponse):
            return  # who has not said hello is told nothing
        try:
            self._waiting.put_nowait(write(message))
        except asyncio.QueueFull:
            log.warning("dropped %s: it does not read its messages", self.peer)
            self._robot.spawn(self.close())

    async def run(self) -> None:
        """Serve until the client leaves or the line breaks."""
        sender = asyncio.ensure_future(self._send())
        hello = asyncio.get_running_loop().call_later(self._robot.hello_s, self._miss_hello)
        try:
            with contextlib.suppress(OSError):
                async for part in self._link.raw():
                    self._take(part)
        finally:
            hello.cancel()
            sender.cancel()

    async def close(self) -> None:
        """Break the connection."""
        await self._link.close()

    def _miss_hello(self) -> None:
        if self.subscriber is None:
            log.warning("dropped %s: no hello within %g s", self.peer, self._robot.hello_s)
            self._robot.spawn(self.close())

    def _take(self, part: bytes | MessageError) -> None:
        faults, rng = self._robot.faults, self._robot.rng
        if isinstance(part, bytes) and rng.random() < faults.garbled:
            part = damaged(part, rng)
        found = understood(part)
        if isinstance(found, MessageError):
            self._robot.num_refused += 1
            self._refuse(found, part if isinstance(part, bytes) else b"")
            return
        if isinstance(part, bytes):
            self._robot.write_record(part)
        self._answer(found)

    def _answer(self, envelope: Envelope) -> None:
        message = envelope.message
        if isinstance(message, messages.HelloRequest):
            self.subscriber = message.subscriber
        elif self.subscriber is None:
            log.warning("dropped %s: it did not say hello first", self.peer)
            self._robot.spawn(self.close())
            return
        try:
            for answer in self._robot.answers.to(message, self):
                self.post(answer)
        except MessageError as error:
            self._refuse(error, write(message))

    def _refuse(self, error: MessageError, data: bytes) -> None:
        quoted = data[:MAX_QUOTE].decode("utf-8", "replace")
        quoted = "".join(c if c >= " " and c not in "\ufffe\uffff" else "?" for c in quoted)
        self.post(
            messages.UnprocessedMessage(
                id=self._robot.new_id(), source=self._robot.device,
                destination=self.subscriber.id if self.subscriber else 0,
                reason=error.reason.value, text=str(error),
                message=parts.Unprocessed(id=error.message_id, text=quoted),
            )
        )  # fmt: skip

    async def _send(self) -> None:
        faults, rng = self._robot.faults, self._robot.rng
        with contextlib.suppress(OSError):
            while True:
                data = await self._waiting.get()
                if faults.delay_s:
                    await asyncio.sleep(rng.uniform(0, faults.delay_s))
                if rng.random() < faults.disconnect:
                    await self.close()
                    return
                if rng.random() < faults.oversized:
                    await self._link.send(_oversized(faults.oversized_bytes))
                await self._send_one(data)
        await self.close()

    async def _send_one(self, data: bytes) -> None:
        """Send a message as it is, or what a fault makes of it."""
        faults, rng = self._robot.faults, self._robot.rng
        if rng.random() < faults.malformed:
            await self._link.send(damaged(data, rng))
        elif rng.random() < faults.truncated:
            await self._link.send(truncated(data, rng))
        else:
            await self._link.send(data * (2 if rng.random() < faults.duplicated else 1))
            self._robot.write_record(data)


def _oversized(size: int) -> bytes:
    return b'<WWKS Version="2.0"><StatusRequest Id="' + b"x" * size + b'"/></WWKS>'
