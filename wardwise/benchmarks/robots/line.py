"""A line between client and robot that breaks, and mistreats what passes, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import Counter
from dataclasses import dataclass

END = b"</WWKS>"
_LEAD = re.compile(rb'<WWKS[^>]*>\s*<([A-Za-z]+)[^>]*? ?Id="([^"]*)"')
_OVER = re.compile(rb'Status="(Completed|Incomplete|Aborted)"')


@dataclass(frozen=True, kw_only=True)
class Mischief:
    """Shares of the messages that something is done to."""

    disconnect: float = 0.003
    malformed: float = 0.003
    truncated: float = 0.001
    duplicated: float = 0.005
    oversized: float = 0.0005
    oversized_bytes: int = 17_000_000


class Line:
    """Listens for the client and passes on to the robot.

    Parameters
    ----------
    mischief
        What goes wrong, and how often.
    seed
        Of all that goes wrong.
    """

    def __init__(self, mischief: Mischief, seed: int) -> None:
        self.mischief, self.rng = mischief, random.Random(f"line {seed}")
        self.robot_port = 0
        self.faults: Counter[str] = Counter()
        self.num_messages = 0
        self.ended: set[bytes] = set()
        self.response_s: dict[str, list[float]] = {}
        self._asked: dict[tuple[bytes, bytes], float] = {}
        self._server: asyncio.Server | None = None
        self._big = b'<WWKS Version="2.0"><StatusRequest Id="%s"/></WWKS>' % (
            b"x" * mischief.oversized_bytes
        )

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.robot_port)
        except OSError:
            writer.transport.abort()
            return
        self._asked.clear()
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer, "to_robot")),
            asyncio.ensure_future(self._pump(far_reader, writer, "to_client")),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, far_writer):
            one.transport.abort()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str
    ) -> None:
        """Pass messages on one way until the line breaks."""
        kept = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                *found, kept = (kept + data).split(END)
                for message in found:
                    sent = self._mistreat(message + END, way)
                    writer.write(sent or b"")
                    await writer.drain()
                    if sent is None:
                        return

    def _mistreat(self, message: bytes, way: str) -> bytes | None:
        """What is passed on of a message; None: the line breaks."""
        self.num_messages += 1
        shares = self.mischief
        kinds = ("disconnect", "malformed", "truncated", "duplicated", "oversized")
        weights = [getattr(shares, kind) for kind in kinds]
        (kind,) = self.rng.choices((*kinds, ""), (*weights, 1 - sum(weights)))
        if kind:
            self.faults[f"{kind} {way}"] += 1
        if kind == "disconnect":
            return None
        if kind == "malformed":
            return self._malformed(message)
        if kind == "truncated":
            return message[: self.rng.randrange(1, len(message) - len(END))]
        self._note(message, way)
        if kind == "duplicated":
            return message * 2
        return self._big + message if kind == "oversized" else message

    def _malformed(self, message: bytes) -> bytes:
        """A message that no receiver may take for a good one."""
        at = self.rng.randrange(1, len(message) - len(END))
        name = (_LEAD.search(message) or [b"", b"WWKS"])[1]
        return self.rng.choice([
            message[:at] + b"<&\xff" + message[at:],
            message[:at] + b"\x00" + message[at:],
            message.replace(b'"', b"", 1),
            message.replace(b'Version="2.0"', b'Version="9.9"', 1),
            message.replace(b' Id="', b' Di="', 1),
            message.replace(name, b"Riddle" + name),
        ])  # fmt: skip

    def _note(self, message: bytes, way: str) -> None:
        """Measure from request to response, and count orders that have ended."""
        lead = _LEAD.search(message)
        if lead is None:
            return
        name, number = lead.groups()
        if way == "to_robot" and name.endswith(b"Request"):
            self._asked.setdefault((name[:-7], number), time.perf_counter())
        elif way == "to_client" and name.endswith(b"Response"):
            asked_at = self._asked.pop((name[:-8], number), None)
            if asked_at is not None:
                kind = name[:-8].decode()
                self.response_s.setdefault(kind, []).append(time.perf_counter() - asked_at)
        elif name == b"OutputMessage" and _OVER.search(message):
            self.ended.add(number)
