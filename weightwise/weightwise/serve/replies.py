"""What clients get: OpenAI's JSON for texts, parts of texts and errors."""

from __future__ import annotations

import json
import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.lm import Tokenizer
    from weightwise.lm.decoder import Finish
    from weightwise.lm.sampling import TokenScore

# Our messages begin with the field: "temperature: expected ...", "messages[1].role: ...".
FIELD = re.compile(r"([a-z_]+)[\w.\[\]]*: ")
LONGEST_MESSAGE = 500


class Form(Protocol):
    """How one kind of endpoint writes its texts."""

    def choice(
        self, index: int, text: str, scores: Sequence[TokenScore] | None, finish: Finish | None
    ) -> dict[str, Any]:
        """A whole text."""

    def part(
        self, index: int, text: str, scores: Sequence[TokenScore] | None, finish: Finish | None
    ) -> dict[str, Any]:
        """A piece of a stream."""

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        """The answer to a request that is not streamed."""

    def chunk(
        self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """One event of a stream."""


class ChatForm:
    """``/v1/chat/completions``.

    Parameters
    ----------
    tokenizer
        Gives the names of tokens.
    model
        Name of the model.
    """

    def __init__(self, tokenizer: Tokenizer, model: str) -> None:
        self._tokenizer = tokenizer
        self._head = _head("chatcmpl-", model)

    def choice(
        self, index: int, text: str, scores: Sequence[TokenScore] | None, finish: Finish | None
    ) -> dict[str, Any]:
        """A whole answer."""
        message = {"role": "assistant", "content": text}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(scores),
            "finish_reason": finish,
        }

    def part(
        self, index: int, text: str, scores: Sequence[TokenScore] | None, finish: Finish | None
    ) -> dict[str, Any]:
        """A piece of an answer."""
        return {
            "index": index,
            "delta": {"content": text} if text else {},
            "logprobs": self._logprobs(scores),
            "finish_reason": finish,
        }

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        """All answers."""
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def chunk(
        self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """One event of a stream."""
        return {**self._head, "object": "chat.completion.chunk", "choices": choices, "usage": usage}

    def opening(self, index: int) -> dict[str, Any]:
        """The first piece of a stream, which tells who speaks."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _logprobs(self, scores: Sequence[TokenScore] | None) -> dict[str, Any] | None:
        if scores is None:
            return None
        content = [
            {
                **self._named(score.token, score.logprob),
                "top_logprobs": [self._named(*pair) for pair in score.top],
            }
            for score in scores
        ]
        return {"content": content, "refusal": None}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        name = self._tokenizer.decode([token])
        return {"token": name, "logprob": logprob, "bytes": list(name.encode())}


class TextForm:
    """``/v1/completions``.

    Parameters
    ----------
    tokenizer
        Gives the names of tokens.
    model
        Name of the model.
    """

    def __init__(self, tokenizer: Tokenizer, model: str) -> None:
        self._tokenizer = tokenizer
        self._head = {**_head("cmpl-", model), "object": "text_completion"}

    def choice(
        self, index: int, text: str, scores: Sequence[TokenScore] | None, finish: Finish | None
    ) -> dict[str, Any]:
        """A text or a piece of one."""
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(scores),
            "finish_reason": finish,
        }

    part = choice

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        """All texts."""
        return {**self._head, "choices": choices, "usage": usage}

    def chunk(
        self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """One event of a stream."""
        return {**self._head, "choices": choices, "usage": usage}

    def _logprobs(self, scores: Sequence[TokenScore] | None) -> dict[str, Any] | None:
        if scores is None:
            return None
        name = self._tokenizer.decode
        return {
            "tokens": [name([score.token]) for score in scores],
            "token_logprobs": [score.logprob for score in scores],
            "top_logprobs": [{name([t]): value for t, value in score.top} for score in scores],
        }


def usage(num_prompt: int, num_new: int) -> dict[str, int]:
    """Numbers of tokens."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_new,
        "total_tokens": num_prompt + num_new,
    }


def error_reply(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """JSON of an error; the field is read from the front of the message."""
    field = FIELD.match(message) if kind == "invalid_request_error" else None
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE] + "..."
    param = field[1] if field else None
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data)}\n\n"


def _head(prefix: str, model: str) -> dict[str, Any]:
    return {"id": prefix + secrets.token_hex(12), "created": int(time.time()), "model": model}
