"""What clients send: OpenAI's request bodies, and the requests that they mean.

A body is a checked dataclass; fields that are unknown, mistyped or out of range are refused by
name. Beyond OpenAI's fields there are ``top_k``, ``min_p`` and ``repetition_penalty``. What has no
influence on the text (``user``, ``metadata``, ``store``) is taken and ignored.
"""

from __future__ import annotations

import secrets
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import from_json

from weightwise.lm.chat import ChatTemplate, Message, parse_messages
from weightwise.lm.decoder import MOST_LOGPROBS, Request
from weightwise.lm.sampling import CHAT_SAMPLING, SamplingConfig
from weightwise.train.recipe_errors import explain

if TYPE_CHECKING:
    from weightwise.lm import Tokenizer

MOST_CHOICES = 128  # texts of one request
MOST_STOPS, LONGEST_STOP = 16, 256
DEFAULT_NEW_TOKENS = 16  # OpenAI's default for completions
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StreamOptions:
    """How a stream is sent.

    Parameters
    ----------
    include_usage
        End with a chunk that tells the numbers of tokens.
    """

    include_usage: bool | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Body:
    """Fields that both kinds of requests have; see OpenAI's reference for their meaning."""

    model: str
    n: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Any = None
    seed: int | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None
    metadata: Any = None
    store: bool | None = None

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """Settings of the default where the body gives none."""
        names = [field.name for field in fields(SamplingConfig)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(default, **given)

    def stop_texts(self) -> tuple[str, ...]:
        """Texts of ``stop``, which is one or a list."""
        texts = [] if self.stop is None else self.stop
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or len(texts) > MOST_STOPS:
            raise ValueError(f"stop: expected a text or a list of at most {MOST_STOPS}")
        if not all(isinstance(text, str) and 0 < len(text) <= LONGEST_STOP for text in texts):
            raise ValueError(f"stop: expected texts of 1 to {LONGEST_STOP} characters")
        return tuple(texts)

    @property
    def num_choices(self) -> int:
        """Texts for each prompt in the answer."""
        return self.n or 1

    @property
    def num_written(self) -> int:
        """Texts for each prompt that are written, of which the likeliest are the choices."""
        return self.num_choices

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompletionBody(Body):
    """Body of ``/v1/completions``."""

    prompt: Any
    logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)
    echo: Literal[False] | None = None
    best_of: int | None = Field(default=None, ge=1, le=MOST_CHOICES)

    @property
    def num_written(self) -> int:
        """``best_of``, or else as many as there are choices."""
        return self.num_choices if self.best_of is None else self.best_of

    @property
    def wants_scores(self) -> bool:
        """Whether the answer has log probabilities in it."""
        return self.logprobs is not None

    def requests(self, tokenizer: Tokenizer, max_length: int) -> list[Request]:
        """One request for each prompt and text that is written, prompt by prompt."""
        prompts, num_written = _prompts(self.prompt, tokenizer), self.num_written
        if num_written < self.num_choices:
            raise ValueError(f"best_of: expected at least n {self.num_choices}, got {num_written}")
        if num_written > self.num_choices and self.stream:
            raise ValueError(
                f"best_of: expected n {self.num_choices} in a stream, whose texts are sent before "
                f"they can be compared, got {num_written}"
            )
        if len(prompts) * num_written > MOST_CHOICES:
            raise ValueError(
                f"n: expected at most {MOST_CHOICES} texts in all, "
                f"got {len(prompts)} prompts x {num_written}"
            )
        num_logprobs = self.logprobs
        if num_logprobs is None and num_written > self.num_choices:
            num_logprobs = 0  # texts are compared by what they are made of
        sampling = self.sampling(SamplingConfig())
        stop_ids = frozenset({tokenizer.eos_id})
        return [
            request
            for ids in prompts
            for request in _choices(
                self,
                ids,
                _room(ids, max_length, "max_tokens", self.max_tokens or DEFAULT_NEW_TOKENS),
                sampling,
                stop_ids,
                num_logprobs,
            )
        ]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ChatBody(Body):
    """Body of ``/v1/chat/completions``."""

    messages: Any
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)

    @property
    def wants_scores(self) -> bool:
        """Whether the answer has log probabilities in it."""
        return bool(self.logprobs)

    def requests(self, template: ChatTemplate, max_length: int) -> list[Request]:
        """One request for each choice."""
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: expected logprobs: true beside it")
        ids = template.encode(_messages(self.messages))
        name = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        wanted = self.max_completion_tokens or self.max_tokens
        return _choices(
            self,
            ids,
            _room(ids, max_length, name, wanted),
            self.sampling(CHAT_SAMPLING),
            frozenset(template.stop_ids),
            (self.top_logprobs or 0) if self.logprobs else None,
        )


BodyKind = TypeVar("BodyKind", CompletionBody, ChatBody)
ADAPTERS: dict[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (CompletionBody, ChatBody)
}


def parse_body(kind: type[BodyKind], raw: bytes) -> BodyKind:
    """Read a request body.

    Raises
    ------
    ValueError
        If it is no JSON object or a field is wrong; the message names the field.
    """
    try:
        table = from_json(raw)
    except ValueError as error:
        raise ValueError(f"body: expected JSON, got {error}") from error
    if not isinstance(table, dict):
        name = type(table).__name__
        raise ValueError(f"body: expected a JSON object, got {name}")  # noqa: TRY004
    try:
        body: BodyKind = ADAPTERS[kind].validate_json(raw)
    except ValidationError as error:
        raise ValueError(explain(error, kind, table)) from error
    return body


def _choices(
    body: Body,
    ids: list[int],
    max_new_tokens: int,
    sampling: SamplingConfig,
    stop_ids: frozenset[int],
    num_logprobs: int | None,
) -> list[Request]:
    """Requests for the texts of one prompt; they have seeds one after the other."""
    seed = secrets.randbits(62) if body.seed is None else body.seed
    return [
        Request(
            prompt=ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed + choice,
            stop_ids=stop_ids,
            stop_texts=body.stop_texts(),
            num_logprobs=num_logprobs,
        )
        for choice in range(body.num_written)
    ]


def _room(ids: list[int], max_length: int, name: str, wanted: int | None) -> int:
    """New tokens: as many as are wanted, or as there is room for."""
    room = max_length - len(ids)
    if room < 1:
        raise ValueError(
            f"prompt: expected at most {max_length - 1} tokens (max_length {max_length}), "
            f"got {len(ids)}"
        )
    if wanted is not None and wanted > room:
        raise ValueError(
            f"{name}: expected at most {room} (max_length {max_length}, prompt {len(ids)}), "
            f"got {wanted}"
        )
    return room if wanted is None else wanted


def _prompts(prompt: Any, tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of a text or of ids, or of each in a list."""
    several = prompt if isinstance(prompt, list) and not _is_ids(prompt) else [prompt]
    if not several or not all(isinstance(one, str) or _is_ids(one) for one in several):
        raise ValueError("prompt: expected a text, token ids, or a list of such")
    return [
        (tokenizer.encode(one) or [tokenizer.eos_id]) if isinstance(one, str) else one
        for one in several
    ]


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _messages(given: Any) -> list[Message]:
    """Messages whose content is a text, or a list of parts that are texts."""
    if not isinstance(given, list):
        return parse_messages(given)
    return parse_messages([_with_text(f"messages[{i}]", one) for i, one in enumerate(given)])


def _with_text(place: str, message: Any) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    texts = [part.get("text") if isinstance(part, dict) else None for part in content]
    for part, text in zip(content, texts, strict=True):
        if not isinstance(text, str) or part.get("type") != "text":
            raise ValueError(f"{place}.content: expected a text or parts of type text")
    return {**message, "content": "".join(text for text in texts if text)}
