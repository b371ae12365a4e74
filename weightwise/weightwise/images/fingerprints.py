"""What decides over the pixels that a seed stands for, and whether it is the same here.

A stored target belongs to an augmented image that is never stored: it is made again from a seed.
That works if the transform, the decoder and the libraries below do the same. A `Fingerprint`
names them all; its canary is a checksum of what they make of a built-in JPEG and a computed
image, so a change shows even where no version number tells of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, __version__, features

from weightwise.images.augment import draw_plan
from weightwise.images.decode import Decoding, decode
from weightwise.images.ops import OPERATIONS
from weightwise.images.randomness import VERSION
from weightwise.images.transform import EvalTransform, TrainTransform

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A JPEG of 24 x 16 pixels with halved colour channels: decoders differ in how they double them.
_JPEG = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERX"
    "RTc4UG1RV19iZ2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj"
    "Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCAAQABgDASIAAhEBAxEB/8QAGAAAAwEBAAAAAAAAAAAAAAAA"
    "AAMGAgT/xAAjEAACAQMEAgMBAAAAAAAAAAABAgMABAUREiExImFBgaGx/8QAFgEBAQEAAAAAAAAAAAAAAAAAAwIE"
    "/8QAIREAAgIBAgcAAAAAAAAAAAAAAQIDEQAEEiExQVFxsdH/2gAMAwEAAhEDEQA/AJjH2jEjiq7GWgjjMjjxUamk"
    "W1rbWS7rmVI9ADtJ8iOuB2aZdZVhZEWcDK8mih3HI76A/v5Q7BKopbvvyyYy5t1HAZu6vI8XjJAil7mRNsaj4143"
    "H0P3SiuGPHTSQBpi0jyMoYsSeB7+qK0IunjsMBfgfD7wmihRVRgCQOuf/9k="
)
# More seeds are not tried to find one for every operation.
_MOST_SEEDS = 512


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Everything that decides over augmented pixels.

    Parameters
    ----------
    config
        Settings of transform and decoding, as JSON with sorted names.
    version
        Version of the draws and operations here.
    pillow, numpy
        Versions of the libraries.
    decoder
        Libraries that decode JPEG, WebP and PNG's compression.
    canary
        Checksum of what they make of two images: 64 hexadecimal digits.
    """

    config: str
    version: int
    pillow: str
    numpy: str
    decoder: str
    canary: str

    @property
    def digest(self) -> str:
        """Hash of the settings and of the version here: 64 hexadecimal digits.

        Versions of libraries are left out: a newer one does no harm while the canary is the same,
        and where it is not, they tell why.
        """
        return hashlib.sha256(f"{self.version} {self.config}".encode()).hexdigest()

    def differences(self, other: Fingerprint) -> list[str]:
        """Tell two apart.

        Parameters
        ----------
        other
            The one found elsewhere.

        Returns
        -------
        list
            A line for each field that differs; settings one by one.
        """
        ours, theirs = ({**_flat(f), **asdict(f)} for f in (self, other))
        names = [name for name in ours | theirs if name != "config"]
        return [
            f"{name}: expected {ours.get(name)}, got {theirs.get(name)}"
            for name in names
            if ours.get(name) != theirs.get(name)
        ]


def fingerprint(
    transform: TrainTransform | EvalTransform, decoding: Decoding | None = None
) -> Fingerprint:
    """Describe a transform and what it runs on; takes some tens of milliseconds.

    Parameters
    ----------
    transform
        From images to tensors.
    decoding
        From files to images; the defaults if `None`.
    """
    decoding = Decoding() if decoding is None else decoding
    config = {
        "transform": {"kind": type(transform).__name__, **asdict(transform)},
        "decoding": asdict(decoding),
    }
    libraries = ("libjpeg_turbo", "jpg", "webp", "zlib_ng", "zlib")
    found = [f"{name} {features.version(name)}" for name in libraries if features.version(name)]
    return Fingerprint(
        config=json.dumps(_plain(config), sort_keys=True),
        version=VERSION,
        pillow=__version__,
        numpy=np.__version__,
        decoder=", ".join(found),
        canary=canary(transform, decoding),
    )


def canary(transform: TrainTransform | EvalTransform, decoding: Decoding | None = None) -> str:
    """Checksum of two images after decoding and transform, with seeds that show every operation.

    Parameters
    ----------
    transform
        From images to tensors.
    decoding
        From files to images; the defaults if `None`.

    Returns
    -------
    str
        SHA-256 in 64 hexadecimal digits.
    """
    decoding = Decoding() if decoding is None else decoding
    decoded, _ = decode("canary", base64.b64decode(_JPEG), decoding)
    found = hashlib.sha256()
    for image in (Image.fromarray(computed_pixels()), decoded):
        if image is None:  # a decoding without JPEG
            continue
        found.update(np.asarray(image).tobytes())
        for seed in telling_seeds(transform, image):
            for x_CSS in transform(image, seed):
                found.update(x_CSS.numpy().tobytes())
    return found.hexdigest()


def computed_pixels() -> NDArray[np.uint8]:
    """Pixels of 80 x 96 with slopes, edges and fine grain in every channel; whole numbers only."""
    row_HW, column_HW = np.mgrid[:80, :96]
    channels = (row_HW * column_HW // 7, row_HW**2 // 5 + column_HW, (row_HW // 9) * 37 + column_HW)
    return np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8)


def telling_seeds(transform: TrainTransform | EvalTransform, image: Image.Image) -> list[int]:
    """The first seeds that show an operation, flip or erasing not shown before."""
    if isinstance(transform, EvalTransform):
        return [0]
    shown: set[str] = set()
    seeds: list[int] = []
    for seed in range(_MOST_SEEDS):
        plan = draw_plan(transform.augmentation, seed, image.width, image.height)
        news = {name for name, _ in plan.ops} | {
            name for name, is_so in (("flip", plan.is_flipped), ("erase", plan.erasing)) if is_so
        }
        if not seeds or not news <= shown:
            seeds.append(seed)
            shown |= news
        if len(shown) == len(OPERATIONS) + 2:
            break
    return seeds


def _plain(value: object) -> object:
    """Whole numbers without a point, so that 9 and 9.0 are the same setting."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flat(fingerprint: Fingerprint) -> dict[str, object]:
    """Settings by path: ``transform.augmentation.scale``."""
    found: dict[str, object] = {}

    def visit(path: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                visit(f"{path}.{name}" if path else name, inner)
        else:
            found[path] = value

    visit("", json.loads(fingerprint.config))
    return found
