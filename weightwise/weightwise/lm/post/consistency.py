r"""Agreement of several answers to one question: what each ends with, and what most of them say.

A question with one right answer is kept when enough independent answers agree (self-consistency,
arXiv 2203.11171). What has to agree is the final answer, however it is written: ``\boxed{1/2}``,
``Answer: 0.5``, ``#### .50`` and ``$\frac{1}{2}$`` are one.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARK = re.compile(
    r"^####[ \t]*(.+)$|\banswer[ \t*]*(?:is[ \t]*:?|:|=)[ \t*]*(\S.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_FENCE = re.compile(r"```[\w+#.-]*[ \t]*\n(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,2})?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_FRACTION = re.compile(r"([+-]?)(?:(\d+)\s+)?(\d+)\s*/\s*(\d+)")  # perhaps with a whole part
_CHOICE = re.compile(r"\(?([a-h])(?:[.):](?:\s.*)?|\)?)")
_VULGAR = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])")
_TEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_TEX_WORDS = re.compile(r"\\(?:text|mathrm|mathbf|boxed)\s*\{([^{}]*)\}")
_TEX_MARKS = re.compile(r"\\(?:left|right|displaystyle|[()\[\],;!$])|\$")
_OUTER = "*`\"'\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK} "
# Digits of the longest number that is taken as one.
_LONGEST = 100


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What most answers say.

    Parameters
    ----------
    answer
        The most frequent answer in normal form, the first of equals; ``None`` without answers.
    votes
        How many say so.
    """

    answer: str | None
    votes: int


def majority(answers: Sequence[str | None]) -> Agreement:
    """Count answers in normal form; ``None`` is a vote for nothing."""
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Agreement(answer=None, votes=0)
    answer, votes = counts.most_common(1)[0]
    return Agreement(answer=answer, votes=votes)


def final_answer(response: str) -> str | None:
    """What a response ends with, in normal form.

    The first of these that is there: the last box, the last mark such as ``Answer:`` or
    ``####``, fenced code, the last line.

    Returns
    -------
    str or None
        ``None`` if the response has no words.
    """
    found = _last_box(response)
    marks = list(_MARK.finditer(response))
    if found is None and marks:
        found = marks[-1][1] or marks[-1][2]
    if found is None and _FENCE.search(response):
        found = response
    if found is None:
        lines = [line for line in response.splitlines() if line.strip()]
        found = lines[-1] if lines else ""
    return normalise(found) or None


def normalise(answer: str) -> str:
    """Normal form of an answer: texts that say the same become the same.

    Numbers become whole numbers or fractions in lowest terms (``1,000.50`` is ``2001/2``), a
    percent sign stays; choices their letter; lists their members in normal form; fenced code its
    text without trailing blanks. Case, quotes, mark-up and a final full stop go.
    """
    fences = _FENCE.findall(answer)
    if fences:
        lines = textwrap.dedent(fences[-1]).strip("\n").splitlines()
        return "\n".join(line.rstrip() for line in lines)
    before, text = "", answer
    while before != text:  # quotes in brackets in quotes, marks that only a list leaves behind
        before, text = text, _simpler(text)
    return text


def _simpler(text: str) -> str:
    text = _without_wrapping(_without_tex(text))
    if (number := _number(text)) is not None:
        return number
    if choice := _CHOICE.fullmatch(text):
        return choice[1]
    return ", ".join(map(normalise, text.split(","))) if "," in text else text


def _without_tex(text: str) -> str:
    text = unicodedata.normalize("NFKC", _VULGAR.sub(" ", text)).casefold()
    text = text.replace("\N{FRACTION SLASH}", "/").replace("\N{MINUS SIGN}", "-")
    text = _TEX_WORDS.sub(r"\1", text.replace("\\%", "%"))
    return _TEX_MARKS.sub("", _TEX_FRACTION.sub(r" \1/\2 ", text))


def _without_wrapping(text: str) -> str:
    text = " ".join(text.split()).strip(_OUTER).removesuffix(".")
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _number(text: str) -> str | None:
    """Exact value of a number; ``None`` if the text is something else."""
    if len(text) > _LONGEST:
        return None
    percent = "%" if text.endswith("%") else ""
    text = text.removesuffix("%").rstrip()
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if _NUMBER.fullmatch(text):
        return f"{Fraction(text)}{percent}"
    if (parts := _FRACTION.fullmatch(text)) and int(parts[4]):
        value = int(parts[2] or 0) + Fraction(int(parts[3]), int(parts[4]))
        return f"{-value if parts[1] == '-' else value}{percent}"
    return None


def _last_box(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}``, its braces in balance."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for position in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position]
    return None
