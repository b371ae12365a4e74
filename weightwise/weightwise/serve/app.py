"""OpenAI's HTTP interface in front of an engine: completions, chat, models, health, metrics."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from weightwise.lm.chat import ChatTemplate
from weightwise.serve.call import Call
from weightwise.serve.engine import ClosedError, Engine, Piece, QueueFullError
from weightwise.serve.replies import ChatForm, Form, TextForm, Usage, error_reply, event
from weightwise.serve.schemas import ChatBody, CompletionBody, parse_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from weightwise.lm import Tokenizer
    from weightwise.lm.decoder import Request
    from weightwise.lm.sampling import TokenScore

MOST_BODY_BYTES = 4 * 2**20
BAD_REQUEST = "invalid_request_error"


class ApiError(Exception):
    """A request that is refused.

    Parameters
    ----------
    status
        HTTP status.
    message
        What is wrong; begins with the field where there is one.
    kind, code
        OpenAI's type and code of the error.
    """

    def __init__(
        self, status: int, message: str, *, kind: str = BAD_REQUEST, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code


def create_app(
    engine: Engine, tokenizer: Tokenizer, *, name: str, api_key: str | None = None
) -> FastAPI:
    """Build the application.

    Parameters
    ----------
    engine
        Writes the texts; closed when the application shuts down.
    tokenizer
        Of the model.
    name
        What clients call the model.
    api_key
        Key that clients must send as a bearer token; ``None`` for none.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(title="weightwise", lifespan=lifespan, openapi_url=None)
    _add_error_handlers(app)
    endpoints = _Endpoints(engine, tokenizer, name)

    def check_key(http: HttpRequest) -> None:
        given = http.headers.get("authorization", "")
        if api_key is None or hmac.compare_digest(given.encode(), f"Bearer {api_key}".encode()):
            return
        raise ApiError(
            401, "Authorization: expected Bearer and the server's key", code="invalid_api_key"
        )

    guarded = [Depends(check_key)]
    app.get("/health")(endpoints.health)
    app.get("/metrics")(endpoints.metrics)
    app.get("/v1/models", dependencies=guarded)(endpoints.models)
    app.post("/v1/completions", dependencies=guarded)(endpoints.completions)
    app.post("/v1/chat/completions", dependencies=guarded)(endpoints.chat)
    return app


class _Endpoints:
    def __init__(self, engine: Engine, tokenizer: Tokenizer, name: str) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._name = name
        self._no_chat = ""
        self._template: ChatTemplate | None = None
        try:
            self._template = ChatTemplate(tokenizer)
        except ValueError as error:
            self._no_chat = str(error)

    async def health(self) -> Response:
        """Whether texts can be written."""
        if self._engine.is_alive:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "stopped"}, status_code=503)

    async def metrics(self) -> Response:
        """Counters and gauges in Prometheus' text format."""
        engine = self._engine
        counters = {f"{name}_total": count for name, count in sorted(engine.counts.items())}
        gauges = {"requests_running": engine.num_running, "requests_waiting": engine.num_waiting}
        lines = [
            line
            for kind, table in (("counter", counters), ("gauge", gauges))
            for name, value in table.items()
            for line in (f"# TYPE weightwise_{name} {kind}", f"weightwise_{name} {value}")
        ]
        return PlainTextResponse("\n".join([*lines, ""]), media_type="text/plain; version=0.0.4")

    async def models(self) -> Response:
        """The only model."""
        model = {"id": self._name, "object": "model", "created": 0, "owned_by": "weightwise"}
        return JSONResponse({"object": "list", "data": [model]})

    async def completions(self, http: HttpRequest) -> Response:
        """Continue texts."""

        def requests_of(body: CompletionBody) -> list[Request]:
            return body.requests(self._tokenizer, self._engine.max_length)

        body, requests = await self._read(http, CompletionBody, requests_of)
        return await self._answer(http, body, requests, TextForm(self._tokenizer, self._name))

    async def chat(self, http: HttpRequest) -> Response:
        """Answer conversations."""
        template = self._template
        if template is None:
            raise ApiError(400, f"messages: {self._no_chat}; /v1/completions takes plain texts")

        def requests_of(body: ChatBody) -> list[Request]:
            return body.requests(template, self._engine.max_length)

        body, requests = await self._read(http, ChatBody, requests_of)
        return await self._answer(http, body, requests, ChatForm(self._tokenizer, self._name))

    async def _read(
        self, http: HttpRequest, kind: type[Any], requests_of: Callable[[Any], list[Request]]
    ) -> tuple[Any, list[Request]]:
        """The body and the requests that it means."""
        raw = await _read_body(http)
        try:
            body = parse_body(kind, raw)
            if body.model != self._name:
                raise ApiError(
                    404,
                    f"model: expected {self._name}, got {body.model!r}",
                    code="model_not_found",
                )
            # Tokens of a long prompt take their time; the event loop goes on meanwhile.
            return body, await asyncio.to_thread(requests_of, body)
        except ValueError as error:
            raise ApiError(400, str(error)) from error

    async def _answer(
        self,
        http: HttpRequest,
        body: CompletionBody | ChatBody,
        requests: list[Request],
        form: Form,
    ) -> Response:
        try:
            call = Call(self._engine, requests, http)
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        num_prompt = sum(len(request.prompt) for request in requests[:: body.num_written])
        usage = Usage(num_prompt=num_prompt, num_choices=body.num_written)
        if not body.stream:
            return JSONResponse(await _whole(call, len(requests), form, usage, body))
        return StreamingResponse(
            _events(call, len(requests), form, usage, body),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )


async def _whole(
    call: Call, num_texts: int, form: Form, usage: Usage, body: CompletionBody | ChatBody
) -> dict[str, Any]:
    """Wait for all texts; the choices are the likeliest ones of each prompt."""
    texts = [""] * num_texts
    scores: list[list[TokenScore]] = [[] for _ in range(num_texts)]
    last = [Piece()] * num_texts
    async for number, piece in call.pieces():
        if piece.error is not None:
            raise ApiError(500, piece.error, kind="server_error")
        texts[number] += piece.text
        scores[number] += piece.scores
        last[number] = piece
        usage.count(number, piece)
    choices = [
        form.choice(i, texts[k], scores[k] if body.wants_scores else None, last[k].finish)
        for i, k in enumerate(_likeliest(last, body.num_written, body.num_choices))
    ]
    return form.whole(choices, usage.reply())


def _likeliest(last: list[Piece], num_written: int, num_choices: int) -> list[int]:
    """Numbers of the texts of each prompt whose tokens are likeliest on average, best first."""
    numbers = range(len(last))
    if num_written == num_choices:
        return list(numbers)
    prompts = (numbers[first : first + num_written] for first in numbers[::num_written])
    return [
        number
        for texts in prompts
        for number in sorted(texts, key=lambda k: -last[k].logprob / last[k].num_tokens)[
            :num_choices
        ]
    ]


async def _events(
    call: Call, num_texts: int, form: Form, usage: Usage, body: CompletionBody | ChatBody
) -> AsyncIterator[str]:
    """Server-sent events of a stream."""
    if isinstance(form, ChatForm):
        for number in range(num_texts):
            yield event(form.chunk([form.opening(number)]))
    try:
        async for number, piece in call.pieces():
            if piece.error is not None:
                yield event(error_reply(piece.error, "server_error"))
                return
            usage.count(number, piece)
            scores = piece.scores if body.wants_scores else None
            yield event(form.chunk([form.part(number, piece.text, scores, piece.finish)]))
    except ClientDisconnect:
        return
    if body.wants_usage:
        yield event(form.chunk([], usage.reply()))
    yield "data: [DONE]\n\n"


async def _read_body(http: HttpRequest) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in http.stream():
        size += len(piece)
        if size > MOST_BODY_BYTES:
            raise ApiError(413, f"body: expected at most {MOST_BODY_BYTES} bytes, got more")
        pieces.append(piece)
    return b"".join(pieces)


def _add_error_handlers(app: FastAPI) -> None:
    """Errors as OpenAI's JSON."""

    async def refused(_: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        reply = error_reply(str(error), error.kind, error.code)
        return JSONResponse(reply, status_code=error.status)

    async def busy(_: HttpRequest, error: Exception) -> Response:
        reply = error_reply(str(error), "rate_limit_error", "rate_limit_exceeded")
        return JSONResponse(reply, status_code=429, headers={"Retry-After": "1"})

    async def closed(_: HttpRequest, error: Exception) -> Response:
        return JSONResponse(error_reply(str(error), "server_error"), status_code=503)

    async def gone(_: HttpRequest, __: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it; the number is nginx's

    async def unknown(_: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reply = error_reply(str(error.detail), BAD_REQUEST)
        return JSONResponse(reply, status_code=error.status_code, headers=error.headers)

    async def broken(_: HttpRequest, error: Exception) -> Response:
        return JSONResponse(error_reply(f"internal error: {error}", "server_error"), 500)

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(QueueFullError, busy)
    app.add_exception_handler(ClosedError, closed)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(404, unknown)
    app.add_exception_handler(405, unknown)
    app.add_exception_handler(Exception, broken)
