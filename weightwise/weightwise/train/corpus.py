"""The built-in corpus: the text that every Python installation carries.

It consists of the language reference in `pydoc_data.topics` and the sources of the standard
library, about 10 MB. No download is needed, and the order is fixed. The text differs a little
between Python releases, so figures from different releases are not comparable to the last
digit.
"""

from __future__ import annotations

import hashlib
import math
import os
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Foreign packages, tests, and tables of character codes, which are no prose and no programs.
LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
)
# Written when Python was built: they hold paths and flags of that machine.
BUILD_FILES = ("_sysconfigdata", "config-")


def builtin_texts(max_bytes: int | None) -> list[str]:
    """Texts of the built-in corpus in a fixed order.

    Parameters
    ----------
    max_bytes
        Keep only so many bytes of documents, chosen by the hash of their names so that a small
        corpus is a fair sample of the whole; ``None`` keeps all.

    Returns
    -------
    list of str
        One text per topic or source file, sorted by the hash of its name.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    names = [f"topics/{name}" for name in topics]
    names += [f"lib/{path.relative_to(library).as_posix()}" for path in _sources(library)]
    texts: list[str] = []
    room = math.inf if max_bytes is None else max_bytes
    for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()):
        kind, _, rest = name.partition("/")
        text = topics[rest] if kind == "topics" else (library / rest).read_text(encoding="utf-8")
        room -= len(text.encode())
        if room < 0:
            break
        texts.append(text)
    return texts


def _sources(library: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(library):
        # Not looked into: foreign packages alone can hold ten times as many files.
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in files:
            path = Path(folder, name)
            top = path.relative_to(library).parts[0]
            if path.suffix == ".py" and not top.startswith(BUILD_FILES):
                yield path
