"""The server process: listens until a signal comes."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from weightwise.serve.engine import Engine

SHUTDOWN_S = 30  # for texts that are being written
FAREWELL_S = 5  # for telling clients whose texts are given up


class _Server(uvicorn.Server):
    """Gives texts up that take too long at the end; answers then end with an error in words."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        give_up = threading.Thread(target=self._engine.close, daemon=True)
        timer = asyncio.get_running_loop().call_later(SHUTDOWN_S, give_up.start)
        await super().shutdown(sockets)
        timer.cancel()


def run_server(app: FastAPI, listener: socket.socket, engine: Engine) -> None:
    """Answer until SIGINT or SIGTERM; texts that are being written are finished first.

    Only for the main thread, which takes signals.

    Parameters
    ----------
    app
        See `weightwise.serve.app.create_app`.
    listener
        Bound socket; closed at the end.
    engine
        What writes the texts of the application.
    """
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_S + FAREWELL_S,
    )
    # Passed on by the server after it has ended: SIGTERM would then end the process as a failure.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        _Server(settings, engine).run(sockets=[listener])
