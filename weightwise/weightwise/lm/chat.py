"""Conversations as token ids: the chat format of Hunyuan-Large, and what of it is learnt.

Every message is its text with marks around it (`tokenizer_config.json` of the released model)::

    system      <|startoftext|> text <|extra_4|>
    user        <|startoftext|> text <|extra_0|>    without the first mark right after a system text
    assistant   text <|eos|>

The answer begins after ``<|extra_0|>`` and generation stops on ``<|eos|>`` or ``<|extra_5|>``.
Training on conversations takes its targets from every ``<|extra_0|>`` that is answered to the
next ``<|eos|>``, both included, and leaves all other tokens out (training script of the same
release). Marks are put in as ids, so that a message which spells one out stays a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from weightwise.lm.tiktoken import CHAT_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.lm.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)

# The same format for programs that read a `chat_template` (Jinja, as transformers has it).
JINJA_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{{ '<|startoftext|>' + message['content'] + '<|extra_4|>' }}"
    "{% elif message['role'] == 'user' %}"
    "{% if loop.index0 == 0 or messages[loop.index0 - 1]['role'] != 'system' %}"
    "{{ '<|startoftext|>' }}"
    "{% endif %}"
    "{{ message['content'] + '<|extra_0|>' }}"
    "{% else %}"
    "{{ message['content'] + '<|eos|>' }}"
    "{% endif %}"
    "{% endfor %}"
)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a conversation.

    Parameters
    ----------
    role
        Who speaks: ``system``, ``user`` or ``assistant``.
    content
        What is said.

    Raises
    ------
    ValueError
        If the role is another one or the content is no text.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role: expected one of {', '.join(ROLES)}, got {self.role!r}")
        if not isinstance(self.content, str):
            raise ValueError(  # noqa: TRY004, what a user can cause is a ValueError
                f"content: expected text, got {type(self.content).__name__}"
            )


def parse_messages(given: Any) -> list[Message]:
    """Conversation from parsed JSON: a list of objects with ``role`` and ``content``.

    Raises
    ------
    ValueError
        If it is something else; the message names the place, such as ``messages[2].role``.
    """
    if not isinstance(given, list) or not given:
        raise ValueError("messages: expected a list with at least one message")
    messages = []
    for number, one in enumerate(given):
        place = f"messages[{number}]"
        if not isinstance(one, dict) or not {"role", "content"} <= one.keys():
            raise ValueError(f"{place}: expected an object with role and content")
        try:
            messages.append(Message(role=one["role"], content=one["content"]))
        except ValueError as error:
            raise ValueError(f"{place}.{error}") from error
    return messages


class ChatTemplate:
    """Writes conversations as token ids.

    Parameters
    ----------
    tokenizer
        Has the special tokens `weightwise.lm.tiktoken.CHAT_TOKENS`.

    Attributes
    ----------
    stop_ids
        Generation stops on any of them.

    Raises
    ------
    ValueError
        If a chat token is missing.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = tokenizer.special_tokens
        missing = [name for name in CHAT_TOKENS if name not in special]
        if missing:
            raise ValueError(
                f"tokenizer: expected chat tokens, {missing[0]} is missing; train with "
                "data.chat_tokens = true, or give a tokenizer that has them"
            )
        self._tokenizer = tokenizer
        self._start = special["<|startoftext|>"]
        self._system_end = special["<|extra_4|>"]
        self._user_end = special["<|extra_0|>"]
        self._answer_end = special["<|eos|>"]
        self.stop_ids: tuple[int, ...] = (self._answer_end, special["<|extra_5|>"])

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ready for the assistant's answer.

        Parameters
        ----------
        messages
            A system message may come first and nowhere else, an assistant's comes right after a
            user's; the last one is a user's.

        Raises
        ------
        ValueError
            If the roles are in another order.
        """
        _check(messages)
        if messages[-1].role != "user":
            raise ValueError(
                f"messages: expected the last one to be a user's, got {messages[-1].role}"
            )
        return self._write(messages)[0]

    def encode_labelled(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Token ids of a conversation, and which of them are learnt.

        Parameters
        ----------
        messages
            As for `encode`, with an answer of the assistant among them.

        Returns
        -------
        tuple
            Ids, and for each whether it is a target: those from an answered user's
            ``<|extra_0|>`` to the ``<|eos|>`` of the answer.

        Raises
        ------
        ValueError
            If the roles are in another order, or nothing is answered.
        """
        _check(messages)
        if all(message.role != "assistant" for message in messages):
            raise ValueError("messages: expected an answer of the assistant to learn, got none")
        return self._write(messages)

    def encode_answer(self, text: str) -> list[int]:
        """Token ids that follow those of `encode` when the assistant says this text."""
        return [*self._tokenizer.encode(text), self._answer_end]

    def _write(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        is_learnt: list[bool] = []
        before: str | None = None
        for message in messages:
            text = self._tokenizer.encode(message.content)
            if message.role == "system":
                new = [self._start, *text, self._system_end]
            elif message.role == "user":
                start = [] if before == "system" else [self._start]
                new = [*start, *text, self._user_end]
            else:
                new = [*text, self._answer_end]
                is_learnt[-1] = True
            ids += new
            is_learnt += [message.role == "assistant"] * len(new)
            before = message.role
        return ids, is_learnt


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise ValueError("messages: expected at least one message, got none")
    before: str | None = None
    for number, message in enumerate(messages):
        if message.role == "system" and number:
            raise ValueError(f"messages[{number}]: expected a system message first or nowhere")
        if message.role == "assistant" and before != "user":
            raise ValueError(f"messages[{number}]: expected an assistant's answer after a user's")
        before = message.role
