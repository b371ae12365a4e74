"""Words of a text, for comparing texts without their layout.

Width, case and everyday punctuation carry no weight; other symbols do, since ``17 + 25`` is not
``17 - 25``. Scripts that are written without spaces count character by character.
"""

from __future__ import annotations

import re
import unicodedata

# Kana, Han and Hangul.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[^\w\s.,;:!?\"'()\[\]]")


def split_words(text: str) -> list[str]:
    """Words and symbols of a text, in lower case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
