"""What the commands that look at images share: the words for a source of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import tyro

from weightwise.images import (
    FileImages,
    TarImages,
    composites,
    digits,
    folder_images,
    hugging_face_images,
    listed_images,
)
from weightwise.images.sources import EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightwise.images import Source

Images = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IMAGES")]
NUM_COMPOSITES = 4000  # as in the recipes


def open_images(text: str) -> Source:
    """Open a source by what the command line calls it.

    Parameters
    ----------
    text
        A folder of class folders or of images, a CSV list, shards (``x.tar`` or a pattern such as
        ``data/*.tar``), ``digits[:PART]``, ``composites[:PART[:COUNT[:SEED]]]`` or
        ``hf:NAME[:SPLIT]``.

    Raises
    ------
    ValueError
        If it is none of these, or has no images.
    """
    kind, *more = text.split(":")
    if kind in BUILT_IN:
        return BUILT_IN[kind](more)
    path = Path(text)
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".csv":
        return listed_images(path)
    if path.suffix == ".tar":
        shards = sorted(path.parent.glob(path.name))
        if shards:
            return TarImages(shards)
    raise ValueError(
        f"images: expected a folder, a .csv list, .tar shards, digits, composites or hf:NAME, got "
        f"{text!r}"
    )


def _folder(path: Path) -> Source:
    """Class folders, shards, or, where there are neither, images without labels."""
    shards = sorted(path.glob("*.tar"))
    if shards:
        return TarImages(shards)
    if any(one.is_dir() for one in path.iterdir()):
        return folder_images(path)
    names = sorted(
        one.name for one in path.iterdir() if one.suffix.removeprefix(".").lower() in EXTENSIONS
    )
    return FileImages(path, names)


def _digits(words: list[str]) -> Source:
    part, *_ = _words("digits[:PART]", words, ["train"])
    return digits(cast('Literal["train", "test"]', part))


def _composites(words: list[str]) -> Source:
    form = "composites[:PART[:COUNT[:SEED]]]"
    part, *numbers = _words(form, words, ["train", str(NUM_COMPOSITES), "0"])
    try:
        count, seed = map(int, numbers)
    except ValueError:
        raise ValueError(f"images: expected {form} with whole numbers, got {numbers}") from None
    return composites(cast('Literal["train", "test"]', part), count, seed)


def _hugging_face(words: list[str]) -> Source:
    name, split, *_ = _words("hf:NAME[:SPLIT]", words, ["", "train"])
    if not name:
        raise ValueError("images: expected hf:NAME[:SPLIT], got no name")
    return hugging_face_images(name, split)


def _words(form: str, given: list[str], defaults: list[str]) -> list[str]:
    """Given words, and the defaults of the others."""
    if len(given) > len(defaults):
        raise ValueError(f"images: expected {form}, got {len(given)} words after the first")
    return [*given, *defaults[len(given) :]]


BUILT_IN: dict[str, Callable[[list[str]], Source]] = {
    "digits": _digits,
    "composites": _composites,
    "hf": _hugging_face,
}
