"""Small tasks with exactly known answers, and a generator for them that errs as often as asked.

Sums, words and lists in a few fixed sentences: an instruction can be read back into its task, so
right and wrong answers are told apart without a model. The generator plays every part of the
pipeline, at no cost and with the same result each time. It makes the small instruction set on which
fine-tuning and preferences are shown, and it is the pipeline's test.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weightwise.lm.post.calls import Completion
from weightwise.lm.post.consistency import final_answer, normalise
from weightwise.lm.post.instructions import Seed, derive_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from weightwise.lm.post.calls import Request

Arguments = dict[str, str]

_STOCK = """
ant arm bag bed box bus cat cup day dog egg fan fish fog hat ice jam key leaf lamp map milk moon
nest oak pen rain road sand ship snow star tree wind wolf wood apple beach bread brick chair cloud
dance eagle flame glass grape horse house knife lemon light mouse ocean paper piano plant river
sheep stone storm sugar table tiger train water wheat world bottle bridge butter candle carpet
castle cheese circle cotton desert doctor dragon engine family finger flower forest garden guitar
hammer island kitten ladder letter market mirror monkey orange pencil planet pocket rabbit ribbon
rocket school silver spider spring summer ticket tunnel turtle valley violin window winter balance
bicycle blanket cabinet captain chicken country crystal curtain diamond dolphin feather gallery
harvest journey kitchen lantern library machine morning pattern penguin rainbow science station
student teacher theatre village weather building calendar children computer darkness dinosaur
elephant festival hospital keyboard language mountain notebook painting question sandwich sentence
sunshine telescope adventure butterfly chocolate crocodile furniture landscape newspaper orchestra
passenger submarine
"""
# Short to long: the difficulty of a task on words is their length.
WORDS = tuple(_STOCK.split())
MOST_LEVELS = 3


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of task.

    Parameters
    ----------
    domain
        ``arithmetic``, ``strings`` or ``lists``.
    sentences
        Ways to put it, with places in braces.
    draw
        Makes what stands in the places, for a level from 0 to 2.
    solve
        The one right answer.
    """

    domain: str
    sentences: tuple[str, ...]
    draw: Callable[[np.random.Generator, int], Arguments]
    solve: Callable[[Arguments], str]

    def write(self, draw: np.random.Generator, arguments: Arguments, but: str = "") -> str:
        """Put it in one of the sentences, and not in the one that was used already."""
        texts = [sentence.format(**arguments) for sentence in self.sentences]
        return str(draw.choice([text for text in texts if text != but]))


def _pair(draw: np.random.Generator, level: int) -> Arguments:
    most = 10 ** (level + 1)
    return {name: str(draw.integers(1, most)) for name in ("a", "b")}


def _ordered_pair(draw: np.random.Generator, level: int) -> Arguments:
    pair = _pair(draw, level)
    a, b = sorted(map(int, pair.values()), reverse=True)
    return {"a": str(a), "b": str(b)}


def _factors(draw: np.random.Generator, level: int) -> Arguments:
    return {"a": str(draw.integers(2, 10 ** (level + 1))), "b": str(draw.integers(2, 10))}


def _word(draw: np.random.Generator, level: int) -> Arguments:
    lengths = ((3, 5), (6, 7), (8, 12))[level]
    return {"word": str(draw.choice([w for w in WORDS if lengths[0] <= len(w) <= lengths[1]]))}


def _letter_in_word(draw: np.random.Generator, level: int) -> Arguments:
    word = _word(draw, level)["word"]
    return {"letter": str(draw.choice(list(word))), "word": word}


def _numbers(draw: np.random.Generator, level: int) -> Arguments:
    numbers = draw.choice(np.arange(1, 10 ** min(level + 1, 2)), size=3 + level, replace=False)
    return {"numbers": ", ".join(map(str, numbers))}


def _int_list(arguments: Arguments) -> list[int]:
    return [int(number) for number in arguments["numbers"].split(", ")]


TASKS = (
    Task(
        domain="arithmetic",
        sentences=("What is {a} + {b}?", "Add {a} and {b}.", "Give the sum of {a} and {b}."),
        draw=_pair,
        solve=lambda given: str(int(given["a"]) + int(given["b"])),
    ),
    Task(
        domain="arithmetic",
        sentences=("What is {a} - {b}?", "Take {b} away from {a}.", "Subtract {b} from {a}."),
        draw=_ordered_pair,
        solve=lambda given: str(int(given["a"]) - int(given["b"])),
    ),
    Task(
        domain="arithmetic",
        sentences=("What is {a} times {b}?", "Multiply {a} by {b}."),
        draw=_factors,
        solve=lambda given: str(int(given["a"]) * int(given["b"])),
    ),
    Task(
        domain="strings",
        sentences=('Reverse the word "{word}".', 'Spell "{word}" backwards.'),
        draw=_word,
        solve=lambda given: given["word"][::-1],
    ),
    Task(
        domain="strings",
        sentences=(
            'How many times does the letter "{letter}" occur in "{word}"?',
            'Count the letter "{letter}" in the word "{word}".',
        ),
        draw=_letter_in_word,
        solve=lambda given: str(given["word"].count(given["letter"])),
    ),
    Task(
        domain="strings",
        sentences=('How many letters has the word "{word}"?', 'Count the letters of "{word}".'),
        draw=_word,
        solve=lambda given: str(len(given["word"])),
    ),
    Task(
        domain="lists",
        sentences=("Sort the numbers {numbers}.", "Put {numbers} in ascending order."),
        draw=_numbers,
        solve=lambda given: ", ".join(map(str, sorted(_int_list(given)))),
    ),
    Task(
        domain="lists",
        sentences=("Which is the largest of {numbers}?", "Give the maximum of {numbers}."),
        draw=_numbers,
        solve=lambda given: str(max(_int_list(given))),
    ),
    Task(
        domain="lists",
        sentences=("Which is the smallest of {numbers}?", "Give the minimum of {numbers}."),
        draw=_numbers,
        solve=lambda given: str(min(_int_list(given))),
    ),
)
DOMAINS = tuple(dict.fromkeys(task.domain for task in TASKS))

_PLACES = {
    "a": r"\d+", "b": r"\d+", "word": "[a-z]+", "letter": "[a-z]", "numbers": r"\d+(?:, \d+)*",
}  # fmt: skip


def _pattern(sentence: str) -> re.Pattern[str]:
    parts = []
    for text, place, _, _ in string.Formatter().parse(sentence):
        parts.append(re.escape(text))
        if place is not None:
            parts.append(f"(?P<{place}>{_PLACES[place]})")
    return re.compile("".join(parts))


_PATTERNS = [(_pattern(sentence), task) for task in TASKS for sentence in task.sentences]


def read_task(instruction: str) -> tuple[Task, Arguments] | None:
    """The task that an instruction asks for, and its arguments; ``None`` for other texts."""
    for pattern, task in _PATTERNS:
        if match := pattern.fullmatch(instruction.strip()):
            return task, match.groupdict()
    return None


def solve(instruction: str) -> str | None:
    """The right answer to an instruction; ``None`` for texts that are no task."""
    found = read_task(instruction)
    return None if found is None else found[0].solve(found[1])


def task_seeds(count: int, seed: int) -> list[Seed]:
    """Seeds for the generator of tasks, all domains in turn.

    Parameters
    ----------
    count
        How many, at least 1.
    seed
        The same gives the same.

    Raises
    ------
    ValueError
        If the count is below 1.
    """
    if count < 1:
        raise ValueError(f"num_tasks: expected at least 1, got {count}")
    return [
        Seed(source="tasks", domain=DOMAINS[k % len(DOMAINS)], text=f"task {k} of seed {seed}")
        for k in range(count)
    ]


class TaskGenerator:
    """Makes, changes, answers and judges small tasks.

    Parameters
    ----------
    error_rate
        Probability of a wrong answer, 0 to 1. Judgements are always right.

    Raises
    ------
    ValueError
        If the rate is out of range.
    """

    def __init__(self, error_rate: float = 0.3) -> None:
        if not 0 <= error_rate <= 1:
            raise ValueError(f"error_rate: expected 0 to 1, got {error_rate}")
        self._error_rate = error_rate

    @property
    def name(self) -> str:
        """Kind and error rate."""
        return f"tasks:{self._error_rate:g}"

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answer requests in order; see `Generator`."""
        for index, request in enumerate(requests):
            yield index, self._complete(request)

    def _complete(self, request: Request) -> Completion:
        if request.domain not in DOMAINS:
            raise ValueError(
                f"{self.name}: expected domain {', '.join(DOMAINS)}, got {request.domain!r}"
            )
        draw = np.random.default_rng(derive_seed(request.seed, request.purpose, request.subject))
        if request.purpose == "instruct":
            return _stop(_new_task(draw, request.domain, request.level))
        found = read_task(request.subject)
        if found is None:
            return Completion(text="not one of the small tasks", finish_reason="refused")
        task, arguments = found
        right = task.solve(arguments)
        if request.purpose == "rewrite":
            return _stop(task.write(draw, arguments, but=request.subject))
        if request.purpose == "respond":
            is_wrong = draw.random() < self._error_rate
            return _stop(wrong_answer(draw, right) if is_wrong else right)
        if request.purpose == "critique":
            is_right = final_answer(request.response) == normalise(right)
            return _stop(f"Score: {4 if is_right else 1}")
        level = request.level + (request.purpose == "harder")
        return _stop(task.write(draw, task.draw(draw, min(level, MOST_LEVELS - 1))))


def wrong_answer(draw: np.random.Generator, right: str) -> str:
    """An answer that is close to the right one."""
    if right.isdecimal():
        steps: Mapping[bool, list[int]] = {True: [1, 2, 10], False: [-2, -1, 1, 2]}
        return str(int(right) + int(draw.choice(steps[int(right) < 2])))
    is_list = ", " in right
    parts = right.split(", ") if is_list else list(right)
    swaps = [k for k in range(len(parts) - 1) if parts[k] != parts[k + 1]]
    if swaps:
        k = int(draw.choice(swaps))
        parts[k], parts[k + 1] = parts[k + 1], parts[k]
    else:
        parts.append(parts[-1])
    return (", " if is_list else "").join(parts)


def _new_task(draw: np.random.Generator, domain: str, level: int) -> str:
    tasks = [task for task in TASKS if task.domain == domain]
    task = tasks[draw.integers(len(tasks))]
    return task.write(draw, task.draw(draw, min(level, MOST_LEVELS - 1)))


def _stop(text: str) -> Completion:
    return Completion(text=text, finish_reason="stop")
