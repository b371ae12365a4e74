"""The thread that writes all texts, and the queue in front of it.

Requests come from any thread and wait in their order for a free slot of the decoder. Between two
steps the thread takes out texts that nobody waits for any more and fills the free slots. What a
step adds to a text is handed over as a `Piece`.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from weightwise.lm.decoder import Continuation, Decoder, Finish, Request
    from weightwise.lm.sampling import TokenScore

LOG = logging.getLogger(__name__)
COUNTS = (
    "requests", "prompt_tokens", "shared_tokens", "new_tokens", "stop", "length", "cancelled",
    "failed"
)  # fmt: skip


class QueueFullError(RuntimeError):
    """As many requests wait as may; try again later."""


class ClosedError(RuntimeError):
    """The engine takes no more requests."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one step added to a text.

    Parameters
    ----------
    text
        New characters; may be none.
    scores
        Log probabilities of new tokens, if asked for.
    num_tokens, logprob
        New tokens of the text so far, and the sum of their log probabilities if asked for.
    num_shared
        Tokens of its prompt that were taken from another text.
    finish
        Why the text has ended; ``None`` while it goes on.
    error
        What went wrong; nothing follows.
    """

    text: str = ""
    scores: tuple[TokenScore, ...] = ()
    num_tokens: int = 0
    logprob: float = 0.0
    num_shared: int = 0
    finish: Finish | None = None
    error: str | None = None


class Job:
    """A request on its way through the engine.

    Parameters
    ----------
    request
        What is asked for.
    deliver
        Takes the pieces, in the engine's thread.
    """

    def __init__(self, request: Request, deliver: Callable[[Piece], None]) -> None:
        self.request = request
        self.deliver = deliver
        self.is_cancelled = False
        self._num_characters = self._num_scores = 0

    def pass_on(self, one: Continuation) -> None:
        """Deliver what is new in a text."""
        piece = Piece(
            text=one.text[self._num_characters :],
            scores=tuple(one.scores[self._num_scores :]),
            num_tokens=len(one.tokens),
            logprob=one.logprob,
            num_shared=one.num_shared,
            finish=one.finish,
        )
        self._num_characters, self._num_scores = len(one.text), len(one.scores)
        if piece.text or piece.scores or piece.finish is not None:
            self.deliver(piece)


class Engine:
    """Runs a decoder in a thread of its own until `close`.

    Parameters
    ----------
    decoder
        Nobody else may use it.
    max_queue
        Most requests that wait for a slot, at least 0.

    Attributes
    ----------
    counts
        What was done so far, by the names of `COUNTS`; `stop` and `length` are reasons of ends,
        ``shared_tokens`` are those of prompts that were not read because another text had them.

    Raises
    ------
    ValueError
        If ``max_queue`` is below 0.
    """

    def __init__(self, decoder: Decoder, *, max_queue: int) -> None:
        if max_queue < 0:
            raise ValueError(f"max_queue: expected at least 0, got {max_queue}")
        # All names from the start: another thread may be reading the table.
        self.counts = Counter(dict.fromkeys(COUNTS, 0))
        self._decoder = decoder
        self._max_queue = max_queue
        self._changed = threading.Condition()
        self._is_closing = False
        self._waiting: deque[Job] = deque()
        self._running: dict[Continuation, Job] = {}
        self._thread = threading.Thread(target=self._run, name="weightwise-engine", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests in a slot."""
        return len(self._running)

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt and what is added."""
        return self._decoder.cache.capacity

    def submit(
        self, requests: Sequence[Request], deliver: Callable[[int, Piece], None]
    ) -> list[Job]:
        """Queue requests, all or none.

        Parameters
        ----------
        requests
            At least one.
        deliver
            Takes the number of a request and a piece of its text, in the engine's thread.

        Raises
        ------
        ValueError
            If the model cannot take a request.
        QueueFullError
            If there is no room for all of them.
        ClosedError
            After `close`.
        """
        for request in requests:
            self._decoder.check(request)
        jobs = [Job(request, _numbered(deliver, i)) for i, request in enumerate(requests)]
        with self._changed:
            if self._is_closing:
                raise ClosedError("the server is shutting down")
            room = self._max_queue + self._decoder.cache.batch - self.num_running
            if len(self._waiting) + len(jobs) > room:
                raise QueueFullError(
                    f"{len(self._waiting)} requests are waiting and {self.num_running} running; "
                    f"expected room for {len(jobs)} more, try again later"
                )
            self._waiting += jobs
            self.counts["requests"] += len(jobs)
            self.counts["prompt_tokens"] += sum(len(request.prompt) for request in requests)
            self._changed.notify()
        return jobs

    def cancel(self, jobs: Iterable[Job]) -> None:
        """Stop work on requests that nobody waits for; no harm if they are finished."""
        with self._changed:
            for job in jobs:
                job.is_cancelled = True
            self._changed.notify()

    def close(self) -> None:
        """End the thread after its present step; texts that are not finished get an error."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._prepare():
            try:
                grown = self._decoder.step()
            except Exception as error:
                # Such as too little memory: those in the slots fail, the server goes on.
                LOG.exception("step failed")
                self._fail(f"the model failed: {error}")
                continue
            for one in grown:
                self._pass_on(one)
        self._fail("the server is shutting down")

    def _prepare(self) -> bool:
        """Wait for work, take out what was cancelled, fill free slots; false at the end."""
        with self._changed:
            while not (self._is_closing or self._waiting or self._running):
                self._changed.wait()
            for one, job in list(self._running.items()):
                if job.is_cancelled:
                    self._decoder.remove(one)
                    del self._running[one]
                    self.counts["cancelled"] += 1
            kept = deque(job for job in self._waiting if not job.is_cancelled)
            self.counts["cancelled"] += len(self._waiting) - len(kept)
            self._waiting = kept
            while self._waiting and self._decoder.has_room(self._waiting[0].request):
                job = self._waiting.popleft()
                self._running[self._decoder.add(job.request)] = job
            return not self._is_closing

    def _pass_on(self, one: Continuation) -> None:
        job = self._running[one]
        self.counts["new_tokens"] += 1
        if len(one.tokens) == 1:
            self.counts["shared_tokens"] += one.num_shared
        if one.finish is not None:
            self.counts[one.finish] += 1
            with self._changed:
                del self._running[one]
        job.pass_on(one)

    def _fail(self, reason: str) -> None:
        with self._changed:
            jobs = list(self._running.values())
            if self._is_closing:
                jobs += self._waiting
                self._waiting.clear()
            for one in list(self._running):
                self._decoder.remove(one)
            self._running.clear()
            self.counts["failed"] += len(jobs)
        for job in jobs:
            job.deliver(Piece(error=reason))


def _numbered(deliver: Callable[[int, Piece], None], number: int) -> Callable[[Piece], None]:
    return lambda piece: deliver(number, piece)
