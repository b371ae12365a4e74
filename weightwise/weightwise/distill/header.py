r"""What a store of soft labels says about itself, and the first 4096 bytes of its files.

A store is a folder::

    epoch-00000/a.soft      records that writer "a" has appended for epoch 0
    epoch-00000/b.soft      those of writer "b"
    epoch-00000/index       where each key's record is; made from the others when it is missing
    epoch-00001/...
    names-a.txt             names of images that writer "a" has seen, where keys are names

Every number is little-endian. A ``.soft`` file starts with

======  ====  =============================================================================
offset  size  content
======  ====  =============================================================================
0       8     ``WWSOFT\r\n``
8       4     version of the layout, 1
12      4     length of the description
16      4     CRC-32 of the description
32      8     number of records, once the writer has closed the file (the *seal*)
40      8     number of bytes of the file then
48      8     sum of the mixed places and checksums of all records then
56      4     CRC-32 of the 24 bytes before, not 0; 0 while the file is open
64      ...   the description: JSON with the fields of `StoreConfig` and the number of the epoch
4096    ...   records, see `weightwise.distill.records`
======  ====  =============================================================================

The index has the same head with ``WWINDX\r\n`` and its own description.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from weightwise.distill.keys import MAX_SEED

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import DTypeLike

VERSION = 1
SOFT, INDEX = b"WWSOFT\r\n", b"WWINDX\r\n"
HEADER_BYTES, JSON_AT, SEAL_AT = 4096, 64, 32
START, SEAL = struct.Struct("<8sIII"), struct.Struct("<QQQI")
MAX_TEXT = 1000
CHOICES = {
    "kind": ("probabilities", "logits"),
    "keys": ("index", "name"),
    "value_dtype": ("float16", "float32"),
    "packing": ("plain", "compact"),
}


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """What a store holds. All files of a store agree on all of it.

    Parameters
    ----------
    classes
        Number of classes C.
    k
        Number of stored classes of an image K, the largest one if ``mass`` is set; 1 to C.
    kind
        ``probabilities`` of the teacher, or its raw ``logits``.
    keys
        Whether images go by number in their data set (``index``) or by ``name``.
    value_dtype
        ``float16`` or ``float32``.
    packing
        ``plain`` (indices and values as they are), or ``compact`` (probabilities in 8 bits on a
        logarithmic scale, indices as differences; they come back in rising order).
    mass
        Store an image's classes until their probabilities sum up to this much, and at least one;
        `None` stores K of every image.
    teacher
        Who the teacher was; up to 1000 characters, as for the next two.
    fingerprint
        What the augmentation was: settings and versions of libraries.
    canary
        Checksum of a known image after it.
    base_seed
        Seeds are `augmentation_seeds` of it; `None` if they come from elsewhere.
    epochs
        Number of epochs that are planned; `None` if that is open.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    classes: int
    k: int
    kind: Literal["probabilities", "logits"] = "probabilities"
    keys: Literal["index", "name"] = "index"
    value_dtype: Literal["float16", "float32"] = "float16"
    packing: Literal["plain", "compact"] = "plain"
    mass: float | None = None
    teacher: str = ""
    fingerprint: str = ""
    canary: str = ""
    base_seed: int | None = 0
    epochs: int | None = None

    def __post_init__(self) -> None:
        whole = {"classes": (1, 2**24), "k": (1, self.classes), "base_seed": (0, MAX_SEED),
                 "epochs": (1, 99_999)}  # fmt: skip
        for name, (low, high) in whole.items():
            value = getattr(self, name)
            if value is None and name in ("base_seed", "epochs"):
                continue
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name}: expected {low} to {high}, got {value!r}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in ("teacher", "fingerprint", "canary"):
            text = getattr(self, name)
            if not isinstance(text, str) or len(json.dumps(text)) > MAX_TEXT + 2:
                raise ValueError(f"{name}: expected text of at most {MAX_TEXT} characters")
        if self.mass is not None and not 0 < self.mass <= 1:
            raise ValueError(f"mass: expected above 0 to 1, got {self.mass}")
        if self.kind == "logits" and (self.mass is not None or self.packing == "compact"):
            raise ValueError("kind: expected probabilities where mass or compact packing is set")

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """int16 up to 32,767 classes, uint16 up to 65,535, then uint32."""
        name = "<i2" if self.classes < 2**15 else "<u2" if self.classes < 2**16 else "<u4"
        return np.dtype(name)

    @property
    def record_dtype(self) -> np.dtype[Any]:
        """A plain record with K classes."""
        listed: list[Any] = [("check", "<u4"), ("seed", "<i4"), ("key", "<i8")]
        listed += [("count", "<u4")] * (self.mass is not None)
        listed += [("index", self.index_dtype, self.k), ("value", self.number_dtype, self.k)]
        size = np.dtype(listed).itemsize
        return np.dtype([*listed, ("", f"V{-size % 8}")] if size % 8 else listed)

    @property
    def number_dtype(self) -> np.dtype[Any]:
        """Type of the stored values, as bytes are ordered in the file."""
        code: DTypeLike = "<f2" if self.value_dtype == "float16" else "<f4"
        return np.dtype(code)


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What a writer has closed a file with.

    Parameters
    ----------
    num_records, num_bytes
        Records, and bytes of the whole file.
    digest
        Tells contents apart, see `weightwise.distill.records.digest_of`.
    """

    num_records: int
    num_bytes: int
    digest: int

    def pack(self) -> bytes:
        """Bytes at `SEAL_AT`."""
        body = SEAL.pack(self.num_records, self.num_bytes, self.digest, 0)[:-4]
        return body + struct.pack("<I", zlib.crc32(body) or 1)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The start of a file.

    Parameters
    ----------
    description
        What the JSON says.
    seal
        `None` if the file was not closed.
    """

    description: dict[str, Any]
    seal: Seal | None


def pack_head(magic: bytes, description: dict[str, Any]) -> bytes:
    """First bytes of a file, not sealed."""
    text = json.dumps(description).encode()
    start = START.pack(magic, VERSION, len(text), zlib.crc32(text))
    return (start.ljust(JSON_AT, b"\0") + text).ljust(HEADER_BYTES, b"\0")


def read_head(path: Path, magic: bytes) -> Head:
    """Read the start of a file.

    Raises
    ------
    ValueError
        If it is none of this kind and version, or damaged; with file and field.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error.strerror}") from error
    if len(raw) < HEADER_BYTES:
        raise ValueError(f"{path}: header: expected {HEADER_BYTES} bytes, got {len(raw)}")
    found, version, size, crc = START.unpack_from(raw)
    if found != magic:
        raise ValueError(f"{path}: header: expected {magic!r} at its start, got {found!r}")
    if version != VERSION:
        raise ValueError(f"{path}: version: expected {VERSION}, got {version}")
    text = raw[JSON_AT : JSON_AT + size]
    if zlib.crc32(text) != crc:
        raise ValueError(f"{path}: header: expected the checksum {crc:08x}, the bytes differ")
    *numbers, check = SEAL.unpack_from(raw, SEAL_AT)
    seal = Seal(num_records=numbers[0], num_bytes=numbers[1], digest=numbers[2]) if check else None
    if seal and seal.pack() != raw[SEAL_AT : SEAL_AT + SEAL.size]:
        raise ValueError(f"{path}: seal: expected the checksum {check:08x}, the bytes differ")
    return Head(description=json.loads(text), seal=seal)


def describe(config: StoreConfig, epoch: int) -> dict[str, Any]:
    """Description of a file of records."""
    return asdict(config) | {"epoch": epoch}


def read_config(path: Path, head: Head) -> tuple[StoreConfig, int]:
    """Settings and epoch of a file of records.

    Raises
    ------
    ValueError
        If the description lacks a field or has a wrong one; with file and field.
    """
    found = dict(head.description)
    epoch = found.pop("epoch", None)
    known = {one.name for one in fields(StoreConfig)}
    if found.keys() != known or type(epoch) is not int or epoch < 0:
        wrong = sorted(found.keys() ^ known) or ["epoch"]
        raise ValueError(f"{path}: header: expected other fields than it has: {', '.join(wrong)}")
    try:
        return StoreConfig(**found), epoch
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: header: {error}") from error


def check_same(path: Path, found: StoreConfig, expected: StoreConfig) -> None:
    """Refuse a file that says something else than expected, with file and field."""
    for one in fields(StoreConfig):
        check_field(path, found, one.name, getattr(expected, one.name))


def check_field(path: Path, found: StoreConfig, name: str, expected: object) -> None:
    """Refuse a file whose field has another value."""
    value = getattr(found, name)
    if value != expected:
        hint = "; these labels belong to another augmentation" if name in AUGMENTATION else ""
        raise ValueError(f"{path}: {name}: expected {expected!r}, got {value!r}{hint}")


AUGMENTATION = ("fingerprint", "canary", "base_seed")
