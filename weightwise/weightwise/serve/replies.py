"""What clients get: OpenAI's JSON for texts, parts of texts and errors."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.lm import Tokenizer
    from weightwise.lm.decoder import Finish
    from weightwise.lm.sampling import TokenScore
    from weightwise.serve.engine import Piece

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

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request that is not streamed."""

    def chunk(
        self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None
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

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """All answers."""
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def chunk(
        self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None
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

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """All texts."""
        return {**self._head, "choices": choices, "usage": usage}

    def chunk(
        self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None
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


@dataclass(kw_only=True)
class Usage:
    """Numbers of tokens of all texts of an answer.

    Parameters
    ----------
    num_prompt
        Tokens of the prompts; the choices of a prompt share it.
    num_choices
        Texts for each prompt.
    num_new
        New tokens of the texts that have ended.
    num_shared
        Tokens of their prompts that were not read again, because an earlier text began with them.
    """

    num_prompt: int
    num_choices: int
    num_new: int = 0
    num_shared: int = 0

    def count(self, number: int, piece: Piece) -> None:
        """Take note of the last piece of a text."""
        if piece.finish is not None:
            self.num_new += piece.num_tokens
            self.num_shared += 0 if number % self.num_choices else piece.num_shared

    def reply(self) -> dict[str, Any]:
        """OpenAI's table."""
        return {
            "prompt_tokens": self.num_prompt,
            "completion_tokens": self.num_new,
            "total_tokens": self.num_prompt + self.num_new,
            "prompt_tokens_details": {"cached_tokens": self.num_shared},
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
