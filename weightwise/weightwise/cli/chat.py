"""The command ``weightwise chat``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tyro  # noqa: TC002 (the parser reads annotations)

from weightwise.cli.model_options import Dtype, Sampling, open_model
from weightwise.lm.chat import ChatTemplate, Message
from weightwise.lm.decoder import Decoder, Request
from weightwise.lm.sampling import CHAT_SAMPLING, SamplingConfig
from weightwise.train.files import write_text

if TYPE_CHECKING:
    from weightwise.lm import LanguageModel, Tokenizer
    from weightwise.lm.decoder import Continuation

HELP = "/reset forgets the conversation, /save FILE writes it as JSON, /quit leaves"


def chat_command(
    checkpoint: tyro.conf.Positional[Path],
    /,
    system: str | None = None,
    max_new_tokens: int | None = None,
    sampling: Sampling = CHAT_SAMPLING,
    seed: int = 1,
    dtype: Dtype = "float32",
) -> int:
    """Talk with a model that was trained on conversations.

    In a terminal, /reset forgets the conversation, /save FILE writes it, /quit leaves; Ctrl-C
    ends an answer. Otherwise standard input is one message, and the answer is printed.

    Args:
        checkpoint: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
        system: What the model is told before the conversation.
        max_new_tokens: Most tokens of an answer, at least 1. Default: what there is room for.
        sampling: How tokens are chosen.
        seed: Seed of the first answer; later ones have the seeds that follow.
        dtype: Type of the weights.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens: expected at least 1, got {max_new_tokens}")
    model, tokenizer, _ = open_model(checkpoint, dtype)
    try:
        template = ChatTemplate(tokenizer)
    except ValueError as error:
        raise ValueError(
            f"{checkpoint}: {error}; `weightwise generate` continues texts with any model"
        ) from error
    chat = Conversation(
        model,
        tokenizer,
        template,
        system=system,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
    )
    if sys.stdin.isatty():
        _talk(chat)
    else:
        text = sys.stdin.read().strip()
        if not text:
            raise ValueError("standard input: expected a message, got nothing")
        chat.ask(text)
    return 0


def _talk(chat: Conversation) -> None:
    """Read messages and commands until the end of input."""
    print(HELP, file=sys.stderr)
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        verb, _, argument = text.partition(" ")
        try:
            if verb == "/quit":
                return
            if verb == "/reset":
                chat.reset()
            elif verb == "/save":
                chat.save(argument.strip())
            elif text.startswith("/"):
                print(HELP, file=sys.stderr)
            elif text:
                chat.ask(text)
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)


class Conversation:
    """A conversation with a model; answers are printed as they come.

    Parameters
    ----------
    model, tokenizer, template
        Of a checkpoint that knows conversations.
    system
        Text of the system message; ``None`` for none.
    max_new_tokens
        Most tokens of an answer; ``None`` for what there is room for.
    sampling, seed
        How tokens are chosen, and the seed of the first answer.

    Attributes
    ----------
    messages
        What was said so far, without the system message.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        system: str | None,
        max_new_tokens: int | None,
        sampling: SamplingConfig,
        seed: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._template = template
        self._system = [] if system is None else [Message(role="system", content=system)]
        self._max_new_tokens = max_new_tokens
        self._sampling = sampling
        self._seed = seed
        self.messages: list[Message] = []

    def ask(self, text: str) -> None:
        """Print the answer to a message and remember both.

        The oldest questions and answers are forgotten where all would be too long.

        Raises
        ------
        ValueError
            If the message alone is too long.
        """
        question = Message(role="user", content=text)
        ids = self._shortened(question)
        room = self._model.config.max_length - len(ids)
        request = Request(
            prompt=ids,
            max_new_tokens=min(self._max_new_tokens or room, room),
            sampling=self._sampling,
            seed=self._seed,
            stop_ids=frozenset(self._template.stop_ids),
        )
        answer = self._write(request)
        self._seed += 1
        self.messages += [question, Message(role="assistant", content=answer.text)]

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = []

    def save(self, name: str) -> None:
        """Write the conversation as one JSON object with a list of messages.

        Raises
        ------
        ValueError
            If no file is named.
        """
        if not name:
            raise ValueError("/save: expected the name of a file")
        told = [{"role": m.role, "content": m.content} for m in [*self._system, *self.messages]]
        write_text(Path(name), json.dumps({"messages": told}, ensure_ascii=False) + "\n")

    def _shortened(self, question: Message) -> list[int]:
        """Token ids of what fits, with a quarter of the length left for the answer if possible."""
        longest = self._model.config.max_length
        wanted = min(self._max_new_tokens or longest, longest // 4)
        while True:
            ids = self._template.encode([*self._system, *self.messages, question])
            if len(ids) + wanted <= longest or not self.messages:
                break
            self.messages = self.messages[2:]
            print("(the oldest question and answer are forgotten)", file=sys.stderr)
        if len(ids) >= longest:
            raise ValueError(f"message: expected at most {longest - 1} tokens, got {len(ids)}")
        return ids

    def _write(self, request: Request) -> Continuation:
        longest = len(request.prompt) + request.max_new_tokens
        decoder = Decoder(self._model, self._tokenizer, num_slots=1, max_length=longest)
        answer = decoder.add(request)
        num_shown = 0
        try:
            while answer.finish is None:
                decoder.step()
                print(answer.text[num_shown:], end="", flush=True)
                num_shown = len(answer.text)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
        print()
        return answer
