"""Rules that a text must not break, whatever it is about: cheap, and before any critic is asked.

Repetition is measured as in the rules of Gopher (arXiv 2112.11446, appendix A), on word runs and
lines; the bounds are ours, loose enough for tables and code.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from weightwise.lm.post.words import split_words

RUN_WORDS = 4
# A text with this many runs of four words, of which less than half are different, repeats itself.
FEWEST_RUNS = 20
LEAST_DISTINCT = 0.5
# The same line so many times, if it is not a short one such as a brace.
MOST_EQUAL_LINES = 5
LONG_LINE = 20

_STUTTER = re.compile(r"([^\W_]{1,4}?)\1{29,}")
# UTF-8 read as Latin-1 or Windows-1252: a lead byte as a letter, then what is none.
_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac")
_TEMPLATE_MARK = re.compile(r"<\|[a-z_0-9]{1,30}\|>|\[/?INST\]")


def broken_rule(text: str) -> str | None:
    """Name the first rule that a text breaks.

    Returns
    -------
    str or None
        ``format`` (no words, a code fence left open, marks of a chat template), ``garbled``
        (characters that no text has, or wrongly decoded ones), ``repetitive``; ``None`` for none.
    """
    if not split_words(text) or text.count("```") % 2 or _TEMPLATE_MARK.search(text):
        return "format"
    if _is_garbled(text):
        return "garbled"
    return "repetitive" if _is_repetitive(text) else None


def _is_garbled(text: str) -> bool:
    if "\N{REPLACEMENT CHARACTER}" in text or len(_MOJIBAKE.findall(text)) >= 2:
        return True
    # Control, private and unassigned characters.
    return any(
        unicodedata.category(sign) in ("Cc", "Co", "Cn") for sign in set(text) - set("\n\r\t")
    )


def _is_repetitive(text: str) -> bool:
    if _STUTTER.search(text):
        return True
    lines = Counter(line.strip() for line in text.splitlines())
    if any(count >= MOST_EQUAL_LINES for line, count in lines.items() if len(line) >= LONG_LINE):
        return True
    found = [word for word in split_words(text) if word.isalnum()]
    runs = [tuple(found[start : start + RUN_WORDS]) for start in range(len(found) - RUN_WORDS + 1)]
    return len(runs) >= FEWEST_RUNS and len(set(runs)) < LEAST_DISTINCT * len(runs)
