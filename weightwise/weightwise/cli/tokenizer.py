"""The commands ``weightwise tokenizer train``, ``extend`` and ``show``."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from weightwise.cli.law_options import Json, print_json
from weightwise.lm import Tokenizer
from weightwise.lm.tiktoken import BYTES, SPECIAL_TOKENS, extend_ranks, write_ranks
from weightwise.train import FileSource
from weightwise.train.source import find_files, open_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from weightwise.train.source import Documents

# Long files are cut at line ends, so that work can be shared and progress be seen.
DOCUMENT_BYTES = 2**20
TEXTS_PER_BATCH = 64
SMALLEST_VOCAB = len(BYTES) + len(SPECIAL_TOKENS)

Texts = Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILES")]
Outputs = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE [FILE ...]")]


def train_command(
    files: tyro.conf.Positional[Texts],
    /,
    out: Outputs,
    vocab_size: int = 32_768,
    as_json: Json = False,
) -> int:
    """Learn a tokenizer from text files, with Hunyuan-Large's split into words.

    Args:
        files: Text files, folders (.txt, .md and .py files in them) or glob patterns.
        out: Files to write: NAME.json for a tokenizer.json, NAME.tiktoken for a rank file.
        vocab_size: Token ids in all: 256 bytes, 209 special tokens, and what is learnt.
        as_json: Print the result as one JSON object.
    """
    if vocab_size < SMALLEST_VOCAB:
        raise ValueError(f"vocab_size: expected at least {SMALLEST_VOCAB}, got {vocab_size}")
    _check_outputs(out)
    texts = _open(files)
    ranks = _learn(BYTES, texts, files, vocab_size - SMALLEST_VOCAB)
    tokenizer = Tokenizer.from_ranks(ranks)
    _write(tokenizer, ranks, out)
    size = _measure(tokenizer, texts)
    if as_json:
        print_json(out=[str(path) for path in out], vocab_size=tokenizer.vocab_size, **size)
        return 0
    print(f"{tokenizer.vocab_size} token ids, {_told(size)}, saved in {_listed(out)}")
    return 0


def extend_command(
    base: tyro.conf.Positional[Path],
    files: tyro.conf.Positional[Texts],
    /,
    out: Outputs,
    add: int,
    as_json: Json = False,
) -> int:
    """Add tokens learnt from other text to a tokenizer; those that it has keep their ids.

    Only the special tokens move: they follow the last ordinary one.

    Args:
        base: Rank file (.tiktoken), or tokenizer.json that train or extend wrote.
        files: Text files, folders (.txt, .md and .py files in them) or glob patterns.
        out: Files to write: NAME.json for a tokenizer.json, NAME.tiktoken for a rank file.
        add: Tokens to add, at least 1.
        as_json: Print the result as one JSON object.
    """
    if add < 1:
        raise ValueError(f"add: expected at least 1, got {add}")
    _check_outputs(out)
    before = Tokenizer.load(base)
    try:
        old = before.ranks()
    except ValueError as error:
        raise ValueError(f"{base}: {error}") from error
    texts = _open(files)
    ranks = _learn(old, texts, files, add)
    after = Tokenizer.from_ranks(ranks)
    _write(after, ranks, out)
    sizes = _measure(before, texts), _measure(after, texts)
    if as_json:
        print_json(
            out=[str(path) for path in out], vocab_size=after.vocab_size,
            num_added=len(ranks) - len(old), before=sizes[0], after=sizes[1],
        )  # fmt: skip
        return 0
    print(
        f"{len(ranks) - len(old)} tokens added to {len(old)}, {after.vocab_size} token ids, "
        f"saved in {_listed(out)}"
    )
    print(f"before: {_told(sizes[0])}")
    print(f"after:  {_told(sizes[1])}")
    return 0


def show_command(
    tokenizer: tyro.conf.Positional[Path],
    /,
    text: str | None = None,
    files: Texts = (),
    as_json: Json = False,
) -> int:
    """Tell what a tokenizer holds, how it cuts a text, and how short it makes files.

    Args:
        tokenizer: A tokenizer.json or a rank file (.tiktoken).
        text: Text whose tokens are shown with their ids.
        files: Text files, folders (.txt, .md and .py files in them) or glob patterns.
        as_json: Print the result as one JSON object.
    """
    words = Tokenizer.load(tokenizer)
    ids = None if text is None else words.encode(text)
    size = _measure(words, _open(files)) if files else None
    if as_json:
        print_json(
            vocab_size=words.vocab_size, special_tokens=words.special_tokens, ids=ids,
            tokens=None if ids is None else [words.decode([one]) for one in ids],
            compression=size,
        )  # fmt: skip
        return 0
    special = list(words.special_tokens.items())
    names = ", ".join(f"{name} {number}" for name, number in special[:5])
    more = f" and {len(special) - 5} more" if len(special) > 5 else ""
    print(f"{words.vocab_size} token ids, special ones: {names}{more}")
    if ids is not None:
        table = Table("id", "token")
        for one in ids:
            table.add_row(str(one), repr(words.decode([one])))
        Console().print(table)
    if size is not None:
        print(_told(size))
    return 0


def _learn(
    ranks: Sequence[bytes], texts: Documents, files: Sequence[str], num_new: int
) -> list[bytes]:
    total = sum(path.stat().st_size for path in find_files(FileSource(paths=tuple(files))))
    with _bar("reading", total) as advance:
        return extend_ranks(ranks, texts, num_new, on_text=advance)


def _measure(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Size of text in characters, bytes and tokens, and what a token holds of it."""
    num_characters = num_bytes = num_tokens = 0
    group: list[str] = []
    for text in texts:
        group.append(text)
        num_characters += len(text)
        num_bytes += len(text.encode())
        if len(group) == TEXTS_PER_BATCH:
            num_tokens += sum(map(len, tokenizer.encode_batch(group)))
            group.clear()
    num_tokens += sum(map(len, tokenizer.encode_batch(group)))
    return {
        "num_characters": num_characters,
        "num_bytes": num_bytes,
        "num_tokens": num_tokens,
        "characters_per_token": round(num_characters / max(num_tokens, 1), 4),
        "bytes_per_token": round(num_bytes / max(num_tokens, 1), 4),
    }


def _told(size: dict[str, float]) -> str:
    return (
        f"{size['num_characters']:,} characters in {size['num_tokens']:,} tokens: "
        f"{size['characters_per_token']:.2f} characters and {size['bytes_per_token']:.2f} bytes "
        "a token"
    )


def _open(files: Sequence[str]) -> Documents:
    if not files:
        raise ValueError("files: expected at least one file, folder or pattern")
    return open_documents(FileSource(paths=tuple(files), document_bytes=DOCUMENT_BYTES))


def _check_outputs(out: Sequence[Path]) -> None:
    for path in out:
        if path.suffix not in (".json", ".tiktoken"):
            raise ValueError(f"out: expected names that end in .json or .tiktoken, got {path}")


def _write(tokenizer: Tokenizer, ranks: Sequence[bytes], out: Sequence[Path]) -> None:
    for path in out:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            tokenizer.save(path)
        else:
            write_ranks(path, ranks)


def _listed(out: Sequence[Path]) -> str:
    return " and ".join(map(str, out))


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)

        def advance(num_bytes: int) -> None:
            progress.update(task, advance=num_bytes)
            if progress.tasks[0].completed >= total:
                progress.update(task, description="joining tokens", total=None)

        yield advance
