"""Records of the instruction-data pipeline, each with an id and with what it was made from."""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from weightwise.lm.post.records import read_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

STRICT = ConfigDict(extra="forbid")
UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
Operator = Literal["rewrite", "self-instruct", "harder"]
# Style, prompt and generator of an instruction that was given and not generated.
GIVEN = "given"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Seed:
    """What instructions are made from.

    Parameters
    ----------
    id
        Names the seed; a hash of its content by default.
    source
        Where it comes from: a page, a repository, a book.
    domain
        Domain of the prompt bank.
    text
        Material that instructions are written about.
    instruction
        Instead of ``text``: an instruction to be taken as it is.
    answer
        Reference answer to ``instruction``, if there is one.
    """

    id: str = ""
    source: str = ""
    domain: str = Field(min_length=1)
    text: str | None = Field(default=None, min_length=1)
    instruction: str | None = Field(default=None, min_length=1)
    answer: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.text is None) == (self.instruction is None):
            raise ValueError("text: expected either text or instruction")
        if self.answer is not None and self.instruction is None:
            raise ValueError("answer: expected none without an instruction")
        if not self.id:
            content = (self.source, self.domain, self.text, self.instruction, self.answer)
            object.__setattr__(self, "id", hash_id("seed", *content))
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Instruction:
    """One instruction and how it came about.

    Parameters
    ----------
    id
        Names the instruction: a hash of its origin.
    seed_id, source
        The seed at the root of its line, and that seed's source.
    domain, style, difficulty
        Labels of the prompt bank.
    instruction
        The text.
    prompt_id
        Prompt that it was generated with.
    generator
        Name of the generator.
    seed
        Seed of the generator's draw.
    parent_id, operator, round
        For evolved ones: from which instruction, how, and in which round from 1.
    answer
        Reference answer, if there is one.
    """

    id: str
    seed_id: str
    source: str
    domain: str
    style: str
    difficulty: str
    instruction: str
    prompt_id: str
    generator: str
    seed: int
    parent_id: str | None = None
    operator: Operator | None = None
    round: int = 0
    answer: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Candidate:
    """One response to an instruction.

    Parameters
    ----------
    response
        The text.
    finish_reason
        ``stop``, ``length`` (cut off) or ``refused``.
    generator, seed
        Who generated it, and the seed of the draw.
    """

    response: str
    finish_reason: str
    generator: str
    seed: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Example:
    """An instruction with the response that is learnt.

    Parameters
    ----------
    instruction
        What is asked, with its provenance.
    response
        The chosen response.
    rejected
        A worse one, if there was one.
    score
        The critic's tier for the chosen response, 1 to 4.
    answer
        For tasks with one right answer: the majority's, in normal form.
    agreement
        For the same: share of the candidates that give it.
    generator, seed
        Who generated the chosen response, and the seed of the draw.
    split
        ``train`` or ``held-out``.
    """

    instruction: Instruction
    response: str
    rejected: str | None
    score: int
    answer: str | None
    agreement: float | None
    generator: str
    seed: int
    split: Literal["train", "held-out"]


def hash_id(*parts: object) -> str:
    """Sixteen hexadecimal digits that depend on all parts and their order."""
    content = json.dumps([None if part is None else str(part) for part in parts])
    return blake2b(content.encode(), digest_size=8).hexdigest()


def derive_seed(*parts: object) -> int:
    """Seed of 31 bits for one draw, whatever was drawn before."""
    return int(hash_id("draw", *parts), 16) >> 33


def is_held_out(seed_id: str, share: float) -> bool:
    """Whether what comes from a seed is held out: by hash, so that other seeds change nothing."""
    return int(hash_id("split", seed_id), 16) < share * 2**64


def read_seeds(path: Path, domains: Iterable[str]) -> list[Seed]:
    """Read seeds from a JSON-lines file with the fields of `Seed`.

    Parameters
    ----------
    path
        The file. Its name is the source of seeds that name none.
    domains
        Domains that a seed may have.

    Raises
    ------
    ValueError
        If the file has no seeds, or a line is none; with file, line and field.
    """
    adapter, known = TypeAdapter(Seed), tuple(domains)
    seeds: dict[str, Seed] = {}
    for place, record in read_records(path):
        try:
            # Strict by way of JSON: nothing is converted silently.
            seed = adapter.validate_json(to_json({"source": path.name} | record), strict=True)
        except ValidationError as error:
            raise ValueError(f"{place}: {_explain(error)}") from error
        if seed.domain not in known:
            raise ValueError(
                f"{place}: domain: expected one of {', '.join(known)}, got {seed.domain!r}"
            )
        if seeds.setdefault(seed.id, seed) is not seed:
            raise ValueError(f"{place}: id: expected one that no other seed has, got {seed.id!r}")
    if not seeds:
        raise ValueError(f"{path}: expected at least one seed, got none")
    return list(seeds.values())


def write_lines(path: Path, records: Iterable[object]) -> int:
    """Write records as JSON lines, the whole file or nothing of it; gives their number."""
    lines = [to_json(record) + "\n" for record in records]
    write_text(path, "".join(lines))
    return len(lines)


def write_text(path: Path, text: str) -> None:
    """Write a file, the whole of it or nothing."""
    partial = path.with_name(f".partial-{path.name}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def to_json(record: Any) -> str:
    """One line of JSON for a dict or a dataclass, with others in it."""
    return json.dumps(record, default=vars, ensure_ascii=False)


def _explain(error: ValidationError) -> str:
    """The first problem as ``field: expected …``."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    field = ".".join(map(str, problem["loc"])) or "record"
    if problem["type"] in UNKNOWN_KEY:
        return f"{field}: expected one of {', '.join(_FIELDS)}, got an unknown key"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{field}: expected a value, got none"
    return f"{field}: {problem['msg']}, got {problem['input']!r}"


_FIELDS: Sequence[str] = tuple(Seed.__dataclass_fields__)
