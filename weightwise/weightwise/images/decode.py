"""From the bytes of a file to an RGB image, or to a reason why not.

Data sets of millions hold files that are cut off, mislabelled or made to exhaust memory. None may
end a run: each gives a `Note`, and the sample is left out. What can be decoded with a decision of
ours gives a note too: the first frame of an animation, CMYK and palettes to RGB, 16 bits to 8,
cameras' orientations carried out.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

Pixels: TypeAlias = bytes | Image.Image | NDArray[np.uint8]

_ORIENTATION = 0x0112  # tag of EXIF 2.3, section 4.6.4
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Modes that become RGB by a decision worth counting.
_KINDS = {"CMYK": "cmyk", "P": "palette", "PA": "palette", "RGBA": "alpha", "LA": "alpha"}
# Largest number of pixels that Pillow opens at all; twice its threshold for warnings.
_PILLOW_LIMIT = 178_956_970


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What is decoded.

    Parameters
    ----------
    max_pixels
        Larger images are left out before any of their pixels are decoded.
    formats
        Formats tried, Pillow's names. Formats that run other programs are not among the defaults.
    is_oriented
        Whether the orientation that a camera noted is carried out.
    """

    max_pixels: int = 89_478_485
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
    is_oriented: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.max_pixels <= _PILLOW_LIMIT:
            raise ValueError(f"max_pixels: expected 1 to {_PILLOW_LIMIT}, got {self.max_pixels}")
        if not self.formats:
            raise ValueError("formats: expected at least one, got none")


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something about an image that a person may want to know.

    Parameters
    ----------
    key
        Name of the sample.
    kind
        ``huge``, ``truncated`` or ``unreadable`` where it was left out; else ``animated``,
        ``cmyk``, ``palette``, ``alpha``, ``16-bit`` or ``oriented``.
    detail
        What the decoder said.
    is_skipped
        Whether the sample was left out.
    """

    key: str
    kind: str
    detail: str
    is_skipped: bool


@dataclass
class Report:
    """Notes of a run: every kind counted, every image left out listed.

    Parameters
    ----------
    num_read
        Images decoded.
    counts
        Number of notes by kind.
    skipped
        Notes of images left out, in the order of reading.
    """

    num_read: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[Note] = field(default_factory=list)

    def add(self, num_read: int, notes: Iterable[Note]) -> None:
        """Take in what a batch tells."""
        self.num_read += num_read
        for note in notes:
            self.counts[note.kind] += 1
            if note.is_skipped:
                self.skipped.append(note)

    @property
    def summary(self) -> str:
        """One line, kinds in alphabetical order."""
        kinds = "".join(f", {kind} {count}" for kind, count in sorted(self.counts.items()))
        return f"{self.num_read} images read, {len(self.skipped)} left out{kinds}"

    def lines(self) -> list[str]:
        """One line for each image left out."""
        return [f"{note.key}: {note.kind}: {note.detail}" for note in self.skipped]


def decode(key: str, data: Pixels, config: Decoding) -> tuple[Image.Image | None, tuple[Note, ...]]:
    """Decode an image.

    Parameters
    ----------
    key
        Name of the sample, for notes.
    data
        Bytes of a file, an image, or an array of shape (H, W) or (H, W, 3), uint8.
    config
        What is decoded.

    Returns
    -------
    tuple
        RGB image, or `None` where it is left out; and notes.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes, which are checked below, and of harmless oddities.
            warnings.simplefilter("ignore")
            image = _open(data, config)
            if image.width * image.height > config.max_pixels:
                return None, (_skipped(key, "huge", f"{image.width} x {image.height} pixels"),)
            return _to_rgb(key, image, config)
    except Image.DecompressionBombError as error:
        return None, (_skipped(key, "huge", str(error)),)
    except UnidentifiedImageError:  # its text has an address of memory, another in every run
        return None, (_skipped(key, "unreadable", f"expected one of {', '.join(config.formats)}"),)
    except Exception as error:  # decoders of damaged files raise nearly everything
        kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
        return None, (_skipped(key, kind, f"{type(error).__name__}: {error}"),)


def _open(data: Pixels, config: Decoding) -> Image.Image:
    if isinstance(data, Image.Image):
        return data
    if isinstance(data, np.ndarray):
        return Image.fromarray(data)
    return Image.open(io.BytesIO(data), formats=config.formats)


def _to_rgb(key: str, image: Image.Image, config: Decoding) -> tuple[Image.Image, tuple[Note, ...]]:
    if image.mode == "RGB" and image.format is None:
        return image, ()
    kinds = ["animated"] if getattr(image, "is_animated", False) else []
    image.load()
    turn = _TURNS.get(_orientation(image)) if config.is_oriented else None
    if image.mode in _KINDS:
        kinds.append(_KINDS[image.mode])
    if image.mode.startswith("I"):
        kinds.append("16-bit")
        image = _to_8_bit(image)
    if image.mode == "F":
        raise ValueError("expected whole numbers, got floating point")
    image = image.convert("RGB")
    if turn is not None:
        kinds.append("oriented")
        image = image.transpose(turn)
    return image, tuple(_kept(key, kind) for kind in kinds)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block says nothing; the pixels are fine
        return 1


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Keep the upper 8 of 16 bits; Pillow's own conversion cuts at 255."""
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    return Image.fromarray((values >> 8).astype(np.uint8))


def _skipped(key: str, kind: str, detail: str) -> Note:
    return Note(key=key, kind=kind, detail=" ".join(detail.split()), is_skipped=True)


def _kept(key: str, kind: str) -> Note:
    return Note(key=key, kind=kind, detail="decoded", is_skipped=False)
