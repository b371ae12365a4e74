"""Ctrl-C and SIGTERM as a request to stop after the current step."""

from __future__ import annotations

import math
import signal
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# torchrun passes Ctrl-C on to its workers, which may have had it from the terminal already.
SAME_PRESS_S = 1.0


class StopRequest:
    """Within this context Ctrl-C and SIGTERM set a flag; a second Ctrl-C interrupts at once.

    Signals reach the main thread only, so in any other thread this does nothing.

    Attributes
    ----------
    is_set
        Whether a signal has come.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._first_s = math.inf
        self._before = {number: signal.getsignal(number) for number in SIGNALS}

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and time.monotonic() > self._first_s + SAME_PRESS_S:
            raise KeyboardInterrupt
        if not self.is_set:
            self._first_s = time.monotonic()
        self.is_set = True

    def __enter__(self) -> Self:
        if _is_main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        if _is_main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
