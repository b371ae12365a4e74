"""One TCP connection that carries WWKS 2 messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from wardwise.io.wwks2 import Envelope, MessageError, Splitter, parse
from wardwise.io.wwks2.xml import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logging.getLogger("wardwise.dispenser")

_CHUNK = 65536
_DRAIN_S = 10.0


class Link:
    """Bytes out, messages in.

    Parameters
    ----------
    reader, writer
        An open connection.
    max_bytes
        Longer messages are refused.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._splitter = Splitter(max_bytes)
        self.peer = str(writer.get_extra_info("peername"))

    async def raw(self) -> AsyncIterator[bytes | MessageError]:
        """Messages as they stand in the stream, until the other side closes it.

        Raises
        ------
        OSError
            If the connection breaks.
        """
        while data := await self._reader.read(_CHUNK):
            for part in self._splitter.feed(data):
                yield part

    async def messages(self) -> AsyncIterator[Envelope | MessageError]:
        """Messages that were understood, and refusals of the others."""
        async for part in self.raw():
            yield understood(part)

    async def send(self, data: bytes) -> None:
        """Write bytes, and wait while the other side does not take them.

        Raises
        ------
        OSError
            If the connection breaks, or nothing is taken for ten seconds.
        """
        self._writer.write(data)
        async with asyncio.timeout(_DRAIN_S):
            await self._writer.drain()

    async def close(self) -> None:
        """Close the connection at once; what is not sent is lost."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def understood(part: bytes | MessageError) -> Envelope | MessageError:
    """Message of a part of a stream, or why there is none; refusals are logged."""
    refusal = part if isinstance(part, MessageError) else None
    if isinstance(part, bytes):
        try:
            return parse(part)
        except MessageError as error:
            refusal = error
    assert refusal is not None
    log.warning("refused a message: %s: %s", refusal.reason, refusal)
    return refusal
