"""The prompt bank: domains, styles and difficulties, and the texts that ask a generator.

The bank is a TOML file; ``prompts.toml`` beside this module is the one that comes with the
library. Copy and change it for other domains or another language.
"""

from __future__ import annotations

import json
import string
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from weightwise.lm.post.instructions import UNKNOWN_KEY

STRICT = ConfigDict(extra="forbid")
BUILTIN_BANK = Path(__file__).with_name("prompts.toml")

Text = Annotated[str, Field(min_length=1)]
Labels = Annotated[dict[Annotated[str, Field(pattern=r"^[^\s/]+$")], Text], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Domain:
    """A subject.

    Parameters
    ----------
    description
        What the generator is told about it.
    is_objective
        Questions have one right answer, so that responses can be compared by it.
    is_low_resource
        Evolution also models new instructions on those that are there.
    """

    description: Text
    is_objective: bool = False
    is_low_resource: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Templates:
    """Texts with places in braces, one for each thing that a generator is asked.

    Parameters
    ----------
    instruct
        An instruction from material; ``{text}``, ``{domain}``, ``{style}``, ``{difficulty}``.
    rewrite
        The same instruction, clearer; ``{instruction}``.
    self_instruct
        Another instruction of the same kind; ``{domain}``, ``{examples}``.
    harder
        A harder instruction; ``{instruction}``, ``{way}``.
    answer_form
        System message for questions with one right answer.
    critique
        A tier for a response; ``{instruction}``, ``{response}``.
    """

    instruct: Text
    rewrite: Text
    self_instruct: Text
    harder: Text
    answer_form: Text
    critique: Text


# What a template may and must mention.
PLACES = {
    "instruct": {"text", "domain", "style", "difficulty"},
    "rewrite": {"instruction"},
    "self_instruct": {"domain", "examples"},
    "harder": {"instruction", "way"},
    "answer_form": set(),
    "critique": {"instruction", "response"},
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PromptBank:
    """All that generators are asked with.

    Parameters
    ----------
    domains
        Subjects by name.
    styles, difficulties
        What each label means; difficulties from easy to hard.
    templates
        The texts.
    ways_harder
        How an instruction may be made harder.
    """

    domains: Annotated[dict[str, Domain], Field(min_length=1)]
    styles: Labels
    difficulties: Labels
    templates: Templates
    ways_harder: Annotated[tuple[Text, ...], Field(min_length=1)]

    def level(self, difficulty: str) -> int:
        """Rank of a difficulty, 0 for the easiest."""
        return list(self.difficulties).index(difficulty)

    def next_difficulty(self, difficulty: str) -> str:
        """The next harder one; the hardest stays."""
        names = list(self.difficulties)
        return names[min(self.level(difficulty) + 1, len(names) - 1)]


def read_bank(path: Path = BUILTIN_BANK) -> PromptBank:
    """Read a prompt bank.

    Parameters
    ----------
    path
        A TOML file.

    Raises
    ------
    ValueError
        If the file is no bank, or a template mentions something else than it is given; the message
        names file and field.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected TOML, got {error}") from error
    try:
        # Strict by way of JSON, which has lists for tuples: nothing is converted silently.
        bank = TypeAdapter(PromptBank).validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt key is also a missing one: say the former.
        problem = next((p for p in problems if p["type"] in UNKNOWN_KEY), problems[0])
        field = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{path}: {field}: {problem['msg']}") from error
    for name in (field.name for field in fields(Templates)):
        _check_places(path, name, getattr(bank.templates, name))
    return bank


def _check_places(path: Path, name: str, template: str) -> None:
    try:
        found = {
            place for _, place, _, _ in string.Formatter().parse(template) if place is not None
        }
    except ValueError as error:
        raise ValueError(f"{path}: templates.{name}: {error}; write {{{{ for a brace") from error
    if found != PLACES[name]:
        wanted = ", ".join(f"{{{place}}}" for place in sorted(PLACES[name])) or "no places"
        raise ValueError(
            f"{path}: templates.{name}: expected {wanted}, got {', '.join(sorted(found)) or 'none'}"
        )
