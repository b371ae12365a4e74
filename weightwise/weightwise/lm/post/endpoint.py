"""A generator behind HTTP: any server that speaks OpenAI's chat completions.

Requests run side by side. What fails for a reason that may pass (no connection, a time-out, too
many requests, a fault of the server, half an answer) is tried again, with twice the wait each
time; the server's ``Retry-After`` is heeded. What the server refuses for what it says (codes 400,
413, 422: too long a prompt, a content filter) is an answer too, unless many in a row are refused:
then it is rather the settings that are wrong. Anything else ends the work with one clear line,
after the requests under way have come back.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from weightwise.lm.post.calls import Completion, GeneratorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weightwise.lm.post.calls import Request

REFUSALS = (400, 413, 422)
PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
MOST_REFUSED_IN_A_ROW = 10
LONGEST_WAIT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """How to speak to a server.

    Parameters
    ----------
    api_key_env
        Environment variable that holds the key; by default none is sent.
    timeout_s
        Longest silence of the server, in seconds, above 0.
    max_retries
        Tries after the first, at least 0.
    backoff_s
        Wait before the second try, in seconds, at least 0; doubled for each further one.
    concurrency
        Requests under way at the same time, at least 1.
    requests_per_minute
        Most requests that are begun in a minute, above 0; by default any number.
    """

    api_key_env: str | None = None
    timeout_s: float = 120.0
    max_retries: int = 5
    backoff_s: float = 1.0
    concurrency: int = 8
    requests_per_minute: float | None = None

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s: expected above 0, got {self.timeout_s}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries: expected at least 0, got {self.max_retries}")
        if not self.backoff_s >= 0:
            raise ValueError(f"backoff_s: expected at least 0, got {self.backoff_s}")
        if self.concurrency < 1:
            raise ValueError(f"concurrency: expected at least 1, got {self.concurrency}")
        if self.requests_per_minute is not None and not self.requests_per_minute > 0:
            raise ValueError(
                f"requests_per_minute: expected above 0, got {self.requests_per_minute}"
            )


class EndpointGenerator:
    """Generates through a server.

    Parameters
    ----------
    url
        Up to the version, such as ``http://127.0.0.1:8000/v1``; the model's name may follow after
        a ``#``. Without it the server must have one model.
    config
        How to speak to it.

    Raises
    ------
    ValueError
        If the address is none, or the variable for the key is not set.
    GeneratorError
        If the server has to be asked for its models and does not answer, or has several.
    """

    def __init__(self, url: str, config: EndpointConfig) -> None:
        address, _, model = url.partition("#")
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url: expected http://host/v1 or https://host/v1, got {url!r}")
        self._address = address.rstrip("/")
        self._config = config
        self._headers = {"Content-Type": "application/json"}
        if config.api_key_env is not None:
            key = os.environ.get(config.api_key_env)
            if not key:
                raise ValueError(
                    f"api_key_env: expected a variable that is set, {config.api_key_env} is not"
                )
            self._headers["Authorization"] = f"Bearer {key}"
        self._stop = threading.Event()
        self._pace = _Pace(config.requests_per_minute, self._stop)
        self._model = model or self._only_model()

    @property
    def name(self) -> str:
        """Address and model."""
        return f"{self._address}#{self._model}"

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answer requests, several at a time; see `Generator`."""
        self._stop.clear()
        refused: list[tuple[int, Completion]] = []
        failure: GeneratorError | None = None
        for index, completion in self._side_by_side(requests):
            if completion.finish_reason == "refused":
                refused.append((index, completion))
                if len(refused) == MOST_REFUSED_IN_A_ROW:
                    failure = GeneratorError(
                        f"{self.name}: {len(refused)} requests in a row were refused, the last "
                        f"with: {completion.text}"
                    )
                    self._stop.set()
                continue
            yield index, completion
            # The server does answer: what it refused before is about those requests.
            yield from refused
            refused.clear()
        if failure is not None:
            raise failure
        yield from refused

    def _side_by_side(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answers as they come. After a failure, begin no more, and raise it when all are back."""
        left = iter(enumerate(requests))
        running: dict[Future[Completion], int] = {}
        failure: BaseException | None = None
        with ThreadPoolExecutor(self._config.concurrency) as pool:
            try:
                while True:
                    num_free = self._config.concurrency - len(running)
                    for index, request in islice(left, 0 if self._stop.is_set() else num_free):
                        running[pool.submit(self._complete, request)] = index
                    if not running:
                        break
                    try:
                        done, _ = wait(running, return_when=FIRST_COMPLETED)
                    except KeyboardInterrupt as interrupt:
                        failure = interrupt
                        self._stop.set()
                        continue
                    for future in done:
                        index, error = running.pop(future), future.exception()
                        if error is None:
                            yield index, future.result()
                        elif not self._stop.is_set():  # later ones may be due to the stop itself
                            failure = error
                            self._stop.set()
            finally:
                self._stop.set()
        if failure is not None:
            raise failure

    def _complete(self, request: Request) -> Completion:
        """Ask until there is an answer, or no try left."""
        body = {
            "model": self._model,
            "messages": [asdict(message) for message in request.messages],
            "temperature": request.temperature,
            "max_tokens": request.max_new_tokens,
            "seed": request.seed,
        }
        jitter = random.Random(request.seed)
        reason, wait_s = "stopped before the first try", 0.0
        for attempt in range(self._config.max_retries + 1):
            if self._stop.wait(wait_s) or self._pace.wait():
                break
            try:
                return _read_completion(self._send("/chat/completions", body))
            except _RefusedError as error:
                return Completion(text=str(error), finish_reason="refused")
            except _PassingError as error:
                reason = str(error)
                backoff_s = self._config.backoff_s * 2**attempt * jitter.uniform(0.5, 1)
                wait_s = min(max(backoff_s, error.retry_after_s), LONGEST_WAIT_S)
        raise GeneratorError(
            f"{self.name}: gave up after {self._config.max_retries + 1} tries; the last: {reason}"
        )

    def _only_model(self) -> str:
        try:
            reply = self._send("/models")
            names = [str(model["id"]) for model in reply["data"]]
        except (_RefusedError, _PassingError) as error:
            raise GeneratorError(f"{self._address}/models: {error}") from error
        except (KeyError, TypeError) as error:
            raise GeneratorError(f"{self._address}/models: expected a list of models") from error
        if len(names) != 1:
            raise GeneratorError(
                f"{self._address}: expected #MODEL after the address, one of {', '.join(names)}"
            )
        return names[0]

    def _send(self, path: str, body: object = None) -> Any:
        """One request, and the parsed answer."""
        request = urllib.request.Request(  # noqa: S310, the scheme was checked
            self._address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers=self._headers,
        )
        try:
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=self._config.timeout_s
            ) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                said = _error_message(error)
                retry_after_s = _seconds(error.headers.get("Retry-After", ""))
            if error.code in REFUSALS:
                raise _RefusedError(said) from error
            if error.code in PASSING:
                raise _PassingError(said, retry_after_s) from error
            hint = "; set api_key_env to the variable that holds the key"
            raise GeneratorError(
                f"{self._address}{path}: {said}{hint if error.code in (401, 403) else ''}"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            raise _PassingError(f"no answer: {str(cause) or type(error).__name__}") from error


class _RefusedError(Exception):
    """The server will not answer this request."""


class _PassingError(Exception):
    """The same request may have an answer later."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _Pace:
    """Spaces requests evenly."""

    def __init__(self, per_minute: float | None, stop: threading.Event) -> None:
        self._gap_s = 0.0 if per_minute is None else 60 / per_minute
        self._stop = stop
        self._lock = threading.Lock()
        self._next_s = 0.0

    def wait(self) -> bool:
        """Wait for the turn; whether the work was stopped meanwhile."""
        with self._lock:
            now_s = time.monotonic()
            start_s = max(now_s, self._next_s)
            self._next_s = start_s + self._gap_s
        return self._stop.wait(start_s - now_s)


def _read_completion(reply: Any) -> Completion:
    try:
        choice = reply["choices"][0]
        text, reason = choice["message"]["content"] or "", choice["finish_reason"]
    except (KeyError, IndexError, TypeError) as error:
        raise _PassingError("expected choices[0].message.content in the answer") from error
    if reason == "content_filter":
        return Completion(text="content filter", finish_reason="refused")
    return Completion(text=str(text), finish_reason="length" if reason == "length" else "stop")


def _error_message(error: urllib.error.HTTPError) -> str:
    """Code and words of the server, in one short line."""
    try:
        content = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        content = ""
    try:
        said = json.loads(content)["error"]
        content = said["message"] if isinstance(said, dict) else said
    except (ValueError, KeyError, TypeError):
        pass
    return f"{error.code} {error.reason}: {' '.join(str(content).split())[:200]}".removesuffix(": ")


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:  # a date, or nothing
        return 0.0
