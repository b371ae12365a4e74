"""HL7 messages over TCP: a listener that answers each one, and a sender that gets each one across.

MLLP frames (`wardwise.io.hl7.stream`) in both directions. The listener outlives whatever comes:
noise, damaged and oversized messages, clients that leave in the middle. The sender sends a message
again, under the same control id, until it is answered: whoever receives it must know it by that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Self

from wardwise.io.hl7 import Code, Hl7Error, Splitter, framed, parse, read_answer
from wardwise.io.hl7.message import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

log = logging.getLogger("wardwise.dispenser")

PORT = 2575  # registered for HL7 with IANA
MAX_CLIENTS = 64
_CHUNK = 65536
_DRAIN_S = 10.0


class Listener:
    """Answers messages; use it with ``async with``, or `start` and `stop`.

    Parameters
    ----------
    answer
        Called with a message, or why a frame was refused; what it returns is sent back, as by
        `wardwise.dispenser.intake.Intake.answer`. It must not raise.
    max_bytes
        Longer messages are refused.
    idle_s
        A client that is silent for so long is dropped.
    """

    def __init__(
        self,
        answer: Callable[[bytes | Hl7Error], bytes],
        *,
        max_bytes: int = MAX_BYTES,
        idle_s: float = 3600.0,
    ) -> None:
        if not 0 < idle_s < float("inf"):
            raise ValueError(f"idle_s: expected a finite number above 0, got {idle_s}")
        Splitter(max_bytes)  # refuses a limit that is too small
        self._answer, self._max_bytes, self._idle_s = answer, max_bytes, idle_s
        self.num_messages = 0
        self.num_noise = 0
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port, a free one for 0.

        Raises
        ------
        OSError
            If the port is taken.
        """
        self._server = await asyncio.start_server(self._serve, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Drop all clients and listen no more."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._clients):
            writer.transport.abort()
        while self._clients:
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if len(self._clients) >= MAX_CLIENTS:
            log.warning("turned %s away: %d others are there", peer, MAX_CLIENTS)
            writer.transport.abort()
            return
        self._clients.add(writer)
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError) as error:
            log.info("lost %s: %s", peer, error or "it was silent for too long")
        except asyncio.CancelledError:
            pass  # the listener stops
        except Exception:
            log.exception("the line to %s ended in an error", peer)
        finally:
            self._clients.discard(writer)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        splitter = Splitter(self._max_bytes)
        while True:
            async with asyncio.timeout(self._idle_s):
                data = await reader.read(_CHUNK)
            if not data:
                return
            noise = splitter.num_noise
            for part in splitter.feed(data):
                self.num_messages += 1
                writer.write(framed(self._answer(part)))
                async with asyncio.timeout(_DRAIN_S):
                    await writer.drain()
            if splitter.num_noise > noise:
                self.num_noise += splitter.num_noise - noise
                log.info("%d bytes between frames were passed over", splitter.num_noise - noise)


class Sender:
    """Sends messages to one listener, one after the other; use it with ``async with``.

    Parameters
    ----------
    host, port
        Where it listens.
    answer_s
        Patience with an answer; after that the message is sent again on a new line.
    backoff_s, most_backoff_s
        Wait before the second try, and at most; it doubles, less up to a half by chance.
    max_bytes
        Longer answers are refused.
    """

    def __init__(
        self,
        host: str,
        port: int = PORT,
        *,
        answer_s: float = 10.0,
        backoff_s: float = 0.5,
        most_backoff_s: float = 30.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        for name, value in (
            ("answer_s", answer_s), ("backoff_s", backoff_s), ("most_backoff_s", most_backoff_s),
        ):  # fmt: skip
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: expected a finite number above 0, got {value}")
        self._host, self._port, self._max_bytes = host, port, max_bytes
        self._answer_s, self._backoff_s, self._most_s = answer_s, backoff_s, most_backoff_s
        self.num_repeats = 0
        self._turn = asyncio.Lock()
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter, Splitter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hang_up()

    async def send(self, message: bytes) -> tuple[str, str]:
        """Send a message until it is answered.

        Returns
        -------
        Verdict (AA, AE, AR) and what was wrong.

        Raises
        ------
        Hl7Error
            If the message has no control id.
        ValueError
            If it holds a byte of the frame.
        """
        control, data = parse(message).head.text(10), framed(message)
        if not control:
            head = parse(message).head
            raise head.error(Code.REQUIRED_FIELD_MISSING, 10, "expected a control id, got nothing")
        wait_s = self._backoff_s
        async with self._turn:
            while True:
                try:
                    async with asyncio.timeout(self._answer_s):
                        return await self._ask(control, data)
                except (OSError, TimeoutError) as error:
                    log.info("no answer to %s: %s", control, error or "it took too long")
                except BaseException:
                    self._hang_up()  # a cancelled call leaves its answer in the line
                    raise
                self._hang_up()
                self.num_repeats += 1
                await asyncio.sleep(wait_s * (1 - secrets.randbelow(1000) / 2000))
                wait_s = min(2 * wait_s, self._most_s)

    async def _ask(self, control: str, data: bytes) -> tuple[str, str]:
        if self._line is None:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            self._line = reader, writer, Splitter(self._max_bytes)
        reader, writer, splitter = self._line
        writer.write(data)
        await writer.drain()
        while received := await reader.read(_CHUNK):
            for part in splitter.feed(received):
                found = _heard(part)
                if found and found[1] == control:
                    return found[0], found[2]
        raise ConnectionResetError("the other side closed the line")

    def _hang_up(self) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line[1].transport.abort()
        self._line = None


def _heard(part: bytes | Hl7Error) -> tuple[str, str, str] | None:
    """Verdict, control id and reason of an answer; None, and a line in the log, if it is none."""
    try:
        if isinstance(part, Hl7Error):
            raise part
        return read_answer(parse(part))
    except Hl7Error as error:
        log.warning("refused an answer: %s", error)
        return None
