"""The way of texts from the engine's thread to the event loop that answers a client."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fastapi import Request as HttpRequest

    from weightwise.lm.decoder import Request
    from weightwise.serve.engine import Engine, Piece


class Call:
    """The texts that one HTTP request asks for; if the client goes, they are cancelled.

    Parameters
    ----------
    engine
        Writes the texts.
    requests
        What is asked for.
    http
        Tells when the client goes; its body has been read.

    Raises
    ------
    ValueError, QueueFullError, ClosedError
        See `weightwise.serve.engine.Engine.submit`.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request], http: HttpRequest) -> None:
        loop = asyncio.get_running_loop()
        self._engine = engine
        self._queue: asyncio.Queue[tuple[int, Piece] | None] = asyncio.Queue()

        def deliver(number: int, piece: Piece) -> None:
            with suppress(RuntimeError):  # the loop has ended, and so has the client
                loop.call_soon_threadsafe(self._queue.put_nowait, (number, piece))

        self._jobs = engine.submit(requests, deliver)
        self._watcher = asyncio.create_task(self._watch(http))

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Numbers of texts with their pieces, until all have ended.

        Raises
        ------
        ClientDisconnect
            If the client goes.
        """
        num_open = len(self._jobs)
        try:
            while num_open:
                found = await self._queue.get()
                if found is None:
                    raise ClientDisconnect
                num_open -= found[1].finish is not None
                yield found
                if found[1].error is not None:
                    return
        finally:
            self._watcher.cancel()
            self._engine.cancel(self._jobs)

    async def _watch(self, http: HttpRequest) -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass
        self._engine.cancel(self._jobs)
        self._queue.put_nowait(None)
