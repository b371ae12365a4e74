"""Shards: tar files in which the files of a sample stand together, named alike (webdataset).

The name up to the first dot of its last part is the key; what follows tells what a file is: an
image, ``cls``, the number of the class in decimals, or ``json``, an object with the class as its
whole number ``label`` or ``cls``; a file ``cls`` has the last word. `TarImages` goes through the
headers once and then reads samples by number, in any order; `stream_tar` reads a tar file from its
beginning to its end, also a compressed one. A shard that is cut off gives all samples but the last,
whose class or image may be in the part that is missing.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weightwise.images.decode import Note
from weightwise.images.sources import EXTENSIONS, require_unique

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# What a damaged, possibly compressed, tar file raises while it is read.
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error)
# A class is a number of a few digits; a longer file is something else. Captions and the like may
# stand beside it in an object.
_LABEL_BYTES, _JSON_BYTES = 20, 1 << 20


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample from a stream.

    Parameters
    ----------
    key
        Name.
    label
        Class; `None` where it is unknown.
    data
        Bytes of the image file.
    """

    key: str
    label: int | None
    data: bytes


@dataclass
class _Entry:
    """What is known of a sample while its files go by."""

    key: str
    image: tuple[int, int] | bytes | None = None
    label: int | None = None
    has_cls: bool = False


class TarImages:
    """Samples of uncompressed shards, by number.

    Parameters
    ----------
    paths
        Shards, in order.

    Attributes
    ----------
    notes
        Shards that are cut off.

    Raises
    ------
    ValueError
        If a shard cannot be read at all, no shard has an image, or a key occurs twice.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._places: list[tuple[int, int, int]] = []
        self._keys: list[str] = []
        self._labels: list[int | None] = []
        notes: list[Note] = []
        for shard, path in enumerate(self._paths):
            for entry in _index(path, notes):
                assert isinstance(entry.image, tuple)
                self._places.append((shard, *entry.image))
                self._keys.append(entry.key)
                self._labels.append(entry.label)
        self.notes = tuple(notes)
        if not self._keys:
            raise ValueError("paths: expected shards with at least one image, got none")
        require_unique(self._keys, "shards")

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, number: int) -> str:
        """Name of the sample in its shard."""
        return self._keys[number]

    def label(self, number: int) -> int | None:
        """Class of the sample."""
        return self._labels[number]

    def load(self, number: int) -> bytes:
        """Bytes of the image file."""
        shard, start, size = self._places[number]
        # Opened for every sample: a file shared with forked workers would share its position.
        with self._paths[shard].open("rb") as file:
            file.seek(start)
            data = file.read(size)
        if len(data) < size:
            raise OSError(f"{self._paths[shard]}: truncated at byte {start + len(data)}")
        return data


@dataclass
class TarStream:
    """Samples of shards from beginning to end; iterate over it once or several times.

    Parameters
    ----------
    paths
        Shards, also compressed ones.
    part, num_parts
        Which process of how many this is: it reads every ``num_parts``-th shard.
    notes
        Filled with the shards that are cut off.

    Raises
    ------
    ValueError
        If there are fewer shards than parts, or no such part.
    """

    paths: Sequence[Path]
    part: int = 0
    num_parts: int = 1
    notes: list[Note] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 1 <= self.num_parts <= len(self.paths):
            raise ValueError(
                f"num_parts: expected 1 to {len(self.paths)}, the number of shards, "
                f"got {self.num_parts}"
            )
        if not 0 <= self.part < self.num_parts:
            raise ValueError(f"part: expected 0 to {self.num_parts - 1}, got {self.part}")

    def __iter__(self) -> Iterator[Sample]:
        for path in self.paths[self.part :: self.num_parts]:
            yield from stream_tar(path, self.notes)


def stream_tar(path: Path, notes: list[Note]) -> Iterator[Sample]:
    """Read the samples of a shard one after the other.

    Parameters
    ----------
    path
        The shard; may be compressed.
    notes
        Gets a note if the shard is cut off.

    Yields
    ------
    Sample
        Those that have an image.
    """
    try:
        with tarfile.open(path, "r|*") as tar:
            entry: _Entry | None = None
            for member in tar:
                key, kind = _key_and_kind(member.name)
                if not member.isfile() or not kind:
                    continue
                if entry is None or entry.key != key:
                    yield from _whole(entry)
                    entry = _Entry(key)
                _take(tar, member, kind, entry, is_streamed=True)
            _require_end(tar)
            yield from _whole(entry)
    except _DAMAGE as error:
        notes.append(_cut_off(path, error))


def _whole(entry: _Entry | None) -> Iterator[Sample]:
    if entry is not None and isinstance(entry.image, bytes):
        yield Sample(key=entry.key, label=entry.label, data=entry.image)


def _index(path: Path, notes: list[Note]) -> list[_Entry]:
    """Places of the images of a shard."""
    entries: list[_Entry] = []
    try:
        end = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, kind = _key_and_kind(member.name)
                if not member.isfile() or not kind:
                    continue
                if not entries or entries[-1].key != key:
                    entries.append(_Entry(key))
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError(f"{member.name} goes beyond the end of the file")
                _take(tar, member, kind, entries[-1], is_streamed=False)
            _require_end(tar)
    except _DAMAGE as error:
        if not entries:
            raise ValueError(f"{path}: expected an uncompressed tar file ({error})") from error
        notes.append(_cut_off(path, error))
        entries.pop()
    return [entry for entry in entries if entry.image is not None]


def _require_end(tar: tarfile.TarFile) -> None:
    """Raise if the block of zeros is missing that follows the last file."""
    assert tar.fileobj is not None
    if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end is missing")


def _take(
    tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str, entry: _Entry, *, is_streamed: bool
) -> None:
    """Note what a file says of its sample; of several images the first one counts."""
    if kind == "cls" and member.size <= _LABEL_BYTES:
        text = _read(tar, member).strip()
        entry.label, entry.has_cls = (int(text) if text.isdigit() else None), True
    elif kind == "json" and member.size <= _JSON_BYTES and not entry.has_cls:
        entry.label = _label_of(_read(tar, member))
    elif kind in EXTENSIONS and entry.image is None:
        place = (member.offset_data, member.size)
        entry.image = _read(tar, member) if is_streamed else place


def _label_of(text: bytes) -> int | None:
    """Class that an object states; what is no such object states none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    named = [found.get(name) for name in ("label", "cls")] if isinstance(found, dict) else []
    return next((one for one in named if type(one) is int and one >= 0), None)


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    data = file.read()
    if len(data) < member.size:
        raise tarfile.ReadError(f"{member.name} is cut off")
    return data


def _key_and_kind(name: str) -> tuple[str, str]:
    folder, slash, last = name.rpartition("/")
    stem, _, kind = last.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def _cut_off(path: Path, error: Exception) -> Note:
    return Note(
        key=str(path), kind="truncated", detail=f"the rest of the shard: {error}", is_skipped=True
    )
