"""Tasks that need no download: enlarged digits, and pairs of them with a hundred classes.

scikit-learn brings 1797 handwritten digits of 8 x 8 pixels (UCI, Alpaydin & Kaynak 1998). A
composite puts two of them side by side, each at a height of its own; its class is the number
from 00 to 99 that they show. Digits of the test part appear in composites of the test part only.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL import Image

from weightwise.images.sources import ArrayImages
from weightwise.images.subsets import is_held_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

Part: TypeAlias = Literal["train", "test"]
TEST_FRACTION = 0.2
_LARGEST = 16  # ink of a pixel in scikit-learn's data, 0 ... 16


def digits(part: Part, size: int = 32) -> ArrayImages:
    """Handwritten digits, enlarged.

    Parameters
    ----------
    part
        ``train`` or ``test``, four fifths and one fifth, decided by the hash of the key.
    size
        Side S in pixels, at least 8.

    Returns
    -------
    ArrayImages
        Grey images of S x S pixels, 10 classes.

    Raises
    ------
    ValueError
        If an argument is wrong, or the extra is not installed.
    """
    _require_size(size, 8)
    pixels_N88, label_N, keys = _small(part)
    return ArrayImages(
        pixels=np.stack([_enlarge(one_88, size) for one_88 in pixels_N88]),
        labels=label_N,
        keys=keys,
    )


def composites(part: Part, count: int, seed: int, size: int = 32) -> ArrayImages:
    """Two digits side by side.

    Parameters
    ----------
    part
        Which digits are used: ``train`` or ``test``.
    count
        Images N, at least 1; classes are equally frequent up to one.
    seed
        Decides over digits, heights and order.
    size
        Side S in pixels, even, at least 16.

    Returns
    -------
    ArrayImages
        Grey images of S x S pixels, 100 classes.

    Raises
    ------
    ValueError
        If an argument is wrong, or the extra is not installed.
    """
    _require_size(size, 16)
    if size % 2:
        raise ValueError(f"size: expected an even number, got {size}")
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    half = size // 2
    large_NHH, label_N = _large(part, half)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, part == "test"))))
    class_N = rng.permutation(np.arange(count) % 100)
    canvas = np.zeros((count, size, size), dtype=np.uint8)
    numbers_of = [np.flatnonzero(label_N == digit) for digit in range(10)]
    for image, number in zip(canvas, class_N, strict=True):
        for left, digit in ((0, number // 10), (half, number % 10)):
            top = rng.integers(0, size - half + 1)
            chosen = numbers_of[digit][rng.integers(len(numbers_of[digit]))]
            image[top : top + half, left : left + half] = large_NHH[chosen]
    keys = tuple(f"composite-{part}-{seed}-{i}" for i in range(count))
    return ArrayImages(pixels=canvas, labels=class_N, keys=keys)


def _small(part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Digits of a part, 8 x 8 pixels of 0 ... 255, with labels and keys."""
    if part not in ("train", "test"):
        raise ValueError(f"part: expected train or test, got {part!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "digits: expected the extra vision: pip install 'weightwise[vision]'"
        ) from error
    found = load_digits()
    keys = [f"digit-{i}" for i in range(len(found.target))]
    chosen = [i for i, k in enumerate(keys) if is_held_out(k, TEST_FRACTION) == (part == "test")]
    pixels_N88 = np.rint(found.images[chosen] * (255 / _LARGEST)).astype(np.uint8)
    return pixels_N88, found.target[chosen].astype(np.int64), tuple(keys[i] for i in chosen)


@functools.cache
def _large(part: Part, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Digits of a part, enlarged, with labels; nobody writes into them."""
    pixels_N88, label_N, _ = _small(part)
    return np.stack([_enlarge(one_88, size) for one_88 in pixels_N88]), label_N


def _enlarge(pixels_88: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels_88).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _require_size(size: int, least: int) -> None:
    if not least <= size <= 4096:
        raise ValueError(f"size: expected {least} to 4096 pixels, got {size}")
