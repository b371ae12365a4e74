"""Asking generators, with every answer on disk before the next step depends on it.

Generating is what costs time and money; all else in the pipeline is cheap and always comes out
the same. So the log of calls is the only state: one line an answer, written in one piece the
moment it comes, found again by a hash of all that was asked. A pipeline that is run again asks
only what it has no answer to, whether it was killed, failed, or has other settings now.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, Protocol

from weightwise.lm.post.instructions import to_json
from weightwise.lm.post.records import read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from weightwise.lm.chat import Message

Purpose = Literal["instruct", "rewrite", "self-instruct", "harder", "respond", "critique"]
FinishReason = Literal["stop", "length", "refused"]


class GeneratorError(Exception):
    """A generator cannot go on; what it answered before is kept.

    Cure what the message says, then run the same again.
    """


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a generator is asked.

    Parameters
    ----------
    purpose
        Step of the pipeline.
    messages
        The chat to be continued: all that a language model needs to know.
    domain, level
        Subject, and difficulty from 0.
    subject
        Text that the request is about: material of a seed, or an instruction.
    response
        For a critique, the response to judge.
    seed
        Seed of the draw.
    temperature
        0 takes the likeliest token.
    max_new_tokens
        Longest answer.
    """

    purpose: Purpose
    messages: tuple[Message, ...]
    domain: str
    level: int
    subject: str
    response: str = ""
    seed: int
    temperature: float
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a generator answers.

    Parameters
    ----------
    text
        The answer, or why there is none.
    finish_reason
        ``stop`` at its end, ``length`` if it was cut off, ``refused`` if there is none.
    """

    text: str
    finish_reason: FinishReason


class Generator(Protocol):
    """Somebody who continues chats.

    Attributes
    ----------
    name
        Tells generators apart, in provenance and in the log of calls.
    """

    @property
    def name(self) -> str:
        """Name; the same whenever the answers would be."""

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answer every request, each with its index, in the order in which they are done.

        Raises
        ------
        GeneratorError
            If it cannot go on. All that it has answered has been yielded before.
        """


@dataclass(frozen=True, kw_only=True)
class Router:
    """Who generates what.

    Parameters
    ----------
    default
        Generators of all domains that have none of their own; at least one.
    routes
        Generators by domain.

    Raises
    ------
    ValueError
        If a domain is left without generators.
    """

    default: tuple[Generator, ...]
    routes: Mapping[str, tuple[Generator, ...]]

    def __post_init__(self) -> None:
        if not self.default or not all(self.routes.values()):
            raise ValueError("router: expected at least one generator for every domain")

    def pick(self, domain: str, index: int) -> Generator:
        """The generator for the ``index``-th call of a kind: they take turns."""
        generators = self.routes.get(domain, self.default)
        return generators[index % len(generators)]


class CallLog:
    """Answers of generators, in a file.

    Parameters
    ----------
    path
        The file; made if missing. A line that a crash left unfinished is removed.

    Raises
    ------
    ValueError
        If another line is no answer, with file and line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()
        _cut_unfinished(path)
        self._answers: dict[str, Completion] = {}
        for place, record in read_records(path):
            try:
                key = record["key"]
                self._answers[key] = Completion(
                    text=record["text"], finish_reason=record["finish_reason"]
                )
            except KeyError as error:
                raise ValueError(
                    f"{place}: expected the answer to a call, {error} missing"
                ) from error

    def ask(
        self,
        calls: Sequence[tuple[Generator, Request]],
        on_answer: Callable[[int, int], None] = lambda *_: None,
    ) -> list[Completion]:
        """Answers to all calls, in order; generators are asked only what the log does not have.

        Parameters
        ----------
        calls
            Whom to ask what.
        on_answer
            Told, at the start and after each answer, how many there are and of how many.

        Raises
        ------
        GeneratorError
            If a generator cannot go on.
        """
        keys = [_key(generator, request) for generator, request in calls]
        missing: dict[str, dict[str, Request]] = {}
        generators: dict[str, Generator] = {}
        for key, (generator, request) in zip(keys, calls, strict=True):
            if key not in self._answers:
                generators[generator.name] = generator
                missing.setdefault(generator.name, {})[key] = request
        num_missing = sum(map(len, missing.values()))
        num_all = len(set(keys))
        on_answer(num_all - num_missing, num_all)
        with self._path.open("ab", buffering=0) as file:
            try:
                for name, asked in missing.items():
                    for key, completion in _generate(generators[name], asked):
                        self._add(file, key, name, completion)
                        num_missing -= 1
                        on_answer(num_all - num_missing, num_all)
            finally:
                os.fsync(file.fileno())
        return [self._answers[key] for key in keys]

    def _add(self, file: Any, key: str, generator: str, completion: Completion) -> None:
        # Half of a surrogate pair cannot be written as UTF-8.
        text = completion.text.encode("utf-8", "replace").decode()
        kept = Completion(text=text, finish_reason=completion.finish_reason)
        line = to_json({"key": key, "generator": generator} | vars(kept)) + "\n"
        file.write(line.encode())
        self._answers[key] = kept


def _generate(
    generator: Generator, asked: Mapping[str, Request]
) -> Iterator[tuple[str, Completion]]:
    keys, open_keys = list(asked), set(asked)
    for index, completion in generator.generate(list(asked.values())):
        open_keys.remove(keys[index])
        yield keys[index], completion
    if open_keys:
        raise GeneratorError(
            f"{generator.name}: expected {len(keys)} answers, got {len(keys) - len(open_keys)}"
        )


def _key(generator: Generator, request: Request) -> str:
    """Hash of all that an answer depends on."""
    content = json.dumps([generator.name, request], default=vars, sort_keys=True)
    return blake2b(content.encode(), digest_size=16).hexdigest()


def _cut_unfinished(path: Path) -> None:
    """Remove what follows the last line end."""
    with path.open("r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)
            os.fsync(file.fileno())
