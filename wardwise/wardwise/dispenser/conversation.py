"""One side of a WWKS 2 line that must not end: hello, questions and answers, reconnection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from typing import TYPE_CHECKING, Any, Self

from wardwise import __version__
from wardwise.dispenser.link import Link
from wardwise.io.wwks2 import MessageError, Reason, messages, parts, write

if TYPE_CHECKING:
    from types import TracebackType

    from wardwise.dispenser.orders import Timing

log = logging.getLogger("wardwise.dispenser")


class Conversation:
    """A connection to a robot that is made again whenever it breaks; use it with ``async with``.

    Parameters
    ----------
    host, port
        Where the robot listens.
    device
        Number of this side, 100 to 199.
    timing
        How patient it is.
    max_bytes
        Longer messages are refused.
    seed
        Of the waits before it connects again.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        device: int,
        timing: Timing,
        max_bytes: int,
        seed: int | None,
    ) -> None:
        if not 100 <= device <= 199:
            raise ValueError(f"device: expected 100 to 199, got {device}")
        self._host, self._port, self.device = host, port, device
        self._timing, self._max_bytes = timing, max_bytes
        self._rng = random.Random(seed)
        self.robot: parts.Subscriber | None = None
        self.num_connections = self.num_refused = 0
        self._link: Link | None = None
        self._answers: dict[tuple[str, str], asyncio.Future[Any]] = {}
        self._name, self._num_ids = secrets.token_hex(3), 0
        self._has_new_names = False
        self._is_open, self._look = asyncio.Event(), asyncio.Event()
        self._heard_at = 0.0
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._runner = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    async def ask(self, request: messages.Message) -> Any:
        """Send any request but for outputs, and wait for its response, over broken lines, too.

        Raises
        ------
        ValueError
            If it is no request.
        MessageError
            If the robot does not understand it.
        """
        while True:
            await self._is_open.wait()
            try:
                return await self._ask(request)
            except OSError:
                await asyncio.sleep(0)

    async def stock(self, *articles: str, with_packs: bool = True) -> tuple[parts.Article, ...]:
        """What is in the machine, of some articles or of all."""
        criteria = tuple(parts.StockCriteria(article_id=name) for name in articles)
        request = messages.StockInfoRequest(
            id=self.new_id(), source=self.device, include_packs=with_packs, criteria=criteria
        )  # fmt: skip
        found: messages.StockInfoResponse = await self.ask(request)
        return found.articles

    async def status(self) -> messages.StatusResponse:
        """Whether the machine is ready, with its components."""
        request = messages.StatusRequest(
            id=self.new_id(), source=self.device, include_details=True
        )  # fmt: skip
        found: messages.StatusResponse = await self.ask(request)
        return found

    async def _run(self) -> None:
        pause_s = self._timing.backoff_s
        while True:
            num_before = self.num_connections
            try:
                await self._session()
            except (OSError, MessageError) as error:
                log.info("no robot at %s:%d: %s", self._host, self._port, error)
            if self.num_connections > num_before:
                pause_s = self._timing.backoff_s
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1))
            pause_s = min(2 * pause_s, self._timing.most_backoff_s)

    async def _session(self) -> None:
        """One connection, from hello until it breaks."""
        async with asyncio.timeout(self._timing.hello_s):
            reader, writer = await asyncio.open_connection(self._host, self._port)
        self._link = Link(reader, writer, max_bytes=self._max_bytes)
        jobs = [asyncio.ensure_future(job) for job in (self._read(self._link), self._converse())]
        try:
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._is_open.clear()
            for job in jobs:
                job.cancel()
            ends = await asyncio.gather(*jobs, return_exceptions=True)
            await self._link.close()
            self._link = None
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the line broke"))
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _read(self, link: Link) -> None:
        async for found in link.messages():
            self._heard_at = now()
            if isinstance(found, MessageError):
                self.num_refused += 1
                self._miss()
            else:
                await self._take(found.message)

    async def _converse(self) -> None:
        """Say hello, then look after the line until it breaks."""
        request = messages.HelloRequest(id=self.new_id(), subscriber=self._self())
        hello = await self._ask(request, self._timing.hello_s)
        self.robot = hello.subscriber
        self.num_connections += 1
        await self._begin()
        self._is_open.set()
        while True:
            self._look.clear()
            await self._turn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.poll_s):
                    await self._look.wait()

    async def _begin(self) -> None:
        """Do what a new connection needs."""

    async def _turn(self) -> None:
        """Do what is to be done now; called when something has happened, and now and then."""

    async def _hear(self, message: messages.Message) -> None:
        """Take a message that answers no question."""

    def _miss(self) -> None:
        """Know that something was said and not understood."""

    async def _take(self, message: messages.Message) -> None:
        answer = self._answers.get((type(message).__name__, message.id))
        if answer is not None:
            if not answer.done():
                answer.set_result(message)
        elif isinstance(message, messages.KeepAliveRequest):
            number = message.id
            await self._send(
                messages.KeepAliveResponse(
                    id=number, source=self.device, destination=message.source
                )
            )  # fmt: skip
        elif isinstance(message, messages.UnprocessedMessage):
            log.warning("the robot refused a message: %s: %s", message.reason, message.text)
            self._pass_refusal(message)
            await self._hear(message)
        else:
            await self._hear(message)

    def _pass_refusal(self, message: messages.UnprocessedMessage) -> None:
        """Give the refusal of a question to whoever asked it."""
        number = message.message.id if message.message else ""
        for (_, asked), answer in self._answers.items():
            if number and asked == number and not answer.done():
                known = message.reason in list(Reason)
                reason = Reason(message.reason) if known else Reason.NOT_SUPPORTED
                answer.set_exception(MessageError(reason, message.text, message_id=number))

    async def _send(self, message: messages.Message) -> None:
        if self._link is None:
            raise ConnectionError("the line is down")
        await self._link.send(write(message))

    async def _ask(self, request: messages.Message, patience_s: float | None = None) -> Any:
        """Send a request and wait for its response on this connection.

        Raises
        ------
        OSError
            If the line breaks or nothing comes in time.
        MessageError
            If the robot refuses it.
        """
        kind = messages.response_kind(request)
        if kind is None:
            raise ValueError(f"request: expected one, got {type(request).__name__}")
        key = kind.__name__, request.id
        answer = self._answers[key] = asyncio.get_running_loop().create_future()
        try:
            await self._send(request)
            async with asyncio.timeout(patience_s or self._timing.answer_s):
                return await answer
        finally:
            del self._answers[key]

    async def _ask_either(self, new: messages.Message, old: messages.Message) -> Any:
        """Ask by the name that the robot knows; machines of rev. 6.22 know the older ones."""
        try:
            return await self._ask(new if self._has_new_names else old)
        except MessageError as error:
            if error.reason is not Reason.NOT_SUPPORTED:
                raise
            self._has_new_names = not self._has_new_names
            return await self._ask(new if self._has_new_names else old)

    def new_id(self) -> str:
        """Id for a request that is no output."""
        self._num_ids += 1
        return f"{self._name}-{self._num_ids}"

    def _self(self) -> parts.Subscriber:
        return parts.Subscriber(
            id=self.device, type=parts.CLIENT_TYPE, manufacturer="wardwise",
            product_info="wardwise", version_info=__version__,
            capabilities=tuple(parts.Capability(name=name) for name in parts.CAPABILITIES),
        )  # fmt: skip


def now() -> float:
    """Seconds of the loop's clock."""
    return asyncio.get_running_loop().time()
