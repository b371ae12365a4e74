"""The server process: listens until a signal comes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

SHUTDOWN_S = 30  # for texts that are being written


def run_server(app: FastAPI, listener: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM; texts that are being written are finished first.

    Parameters
    ----------
    app
        See `weightwise.serve.app.create_app`.
    listener
        Bound socket; closed at the end.
    """
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    with suppress(KeyboardInterrupt):  # passed on by the server after it has ended
        uvicorn.Server(settings).run(sockets=[listener])
