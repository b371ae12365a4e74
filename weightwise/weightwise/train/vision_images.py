"""Which images a vision model is trained and judged on: settings, and what they open.

Sources are those of `weightwise.images`. What is judged on comes from a place of its own, or is a
share of the images that the hash of their names decides.
"""

# Shapes: N images

from __future__ import annotations

import hashlib
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from weightwise.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Decoding,
    TarImages,
    View,
    composites,
    corrupt_labels,
    digits,
    folder_images,
    hugging_face_images,
    listed_images,
    split,
)

if TYPE_CHECKING:
    from weightwise.images import Source
    from weightwise.images.decode import Pixels

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FolderSource:
    """A folder for each class, see `weightwise.images.folder_images`.

    Parameters
    ----------
    kind
        Tells this class from the others.
    path, valid
        Folders to train and to judge on.
    """

    kind: Literal["folder"] = "folder"
    path: str
    valid: str | None = None

    @property
    def num_classes(self) -> int | None:
        """Classes, where known before anything is opened."""
        return None

    def open(self) -> tuple[Source, Source | None]:
        """Images to train and to judge on."""
        train = folder_images(Path(self.path))
        if self.valid is None:
            return train, None
        valid = folder_images(Path(self.valid))
        if valid.classes != train.classes:
            raise ValueError(
                f"{self.valid}: expected the {len(train.classes)} classes of {self.path}, got "
                f"{len(valid.classes)}, or other names"
            )
        return train, valid


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ListSource:
    """Files named in a CSV file, see `weightwise.images.listed_images`.

    Parameters
    ----------
    kind
        Tells this class from the others.
    path, valid
        Lists to train and to judge on; with numbers as labels.
    """

    kind: Literal["list"] = "list"
    path: str
    valid: str | None = None

    @property
    def num_classes(self) -> int | None:
        """Classes, where known before anything is opened."""
        return None

    def open(self) -> tuple[Source, Source | None]:
        """Images to train and to judge on."""
        valid = None if self.valid is None else listed_images(Path(self.valid))
        return listed_images(Path(self.path)), valid


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TarSource:
    """Shards of tar files, see `weightwise.images.TarImages`.

    Parameters
    ----------
    kind
        Tells this class from the others.
    paths, valid
        Shards to train and to judge on.
    """

    kind: Literal["tar"] = "tar"
    paths: tuple[str, ...] = Field(min_length=1)
    valid: tuple[str, ...] | None = None

    @property
    def num_classes(self) -> int | None:
        """Classes, where known before anything is opened."""
        return None

    def open(self) -> tuple[Source, Source | None]:
        """Images to train and to judge on."""
        valid = None if self.valid is None else TarImages([Path(one) for one in self.valid])
        return TarImages([Path(one) for one in self.paths]), valid


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HuggingFaceSource:
    """A dataset for the `datasets` library, see `weightwise.images.hugging_face_images`.

    Parameters
    ----------
    kind
        Tells this class from the others.
    name
        Folder written by ``save_to_disk``, or name of a dataset to load.
    split, valid
        Parts to train and to judge on.
    image, label
        Columns; ``none`` for a dataset without labels.
    """

    kind: Literal["hf"] = "hf"
    name: str = Field(min_length=1)
    split: str = "train"
    valid: str | None = None
    image: str = "image"
    label: str = "label"

    @property
    def num_classes(self) -> int | None:
        """Classes, where known before anything is opened."""
        return None

    def open(self) -> tuple[Source, Source | None]:
        """Images to train and to judge on."""
        label = None if self.label == "none" else self.label
        train, *valid = (
            hugging_face_images(self.name, part, self.image, label)
            for part in (self.split, self.valid)
            if part is not None
        )
        return train, valid[0] if valid else None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DigitsSource:
    """Handwritten digits, see `weightwise.images.digits`.

    Parameters
    ----------
    kind
        Tells this class from the others.
    size
        Side in pixels before augmentation, at least 8.
    """

    kind: Literal["digits"] = "digits"
    size: int = Field(default=32, ge=8, le=4096)

    @property
    def num_classes(self) -> int | None:
        """Ten."""
        return 10

    @property
    def valid(self) -> str | None:
        """The test part."""
        return "test"

    def open(self) -> tuple[Source, Source | None]:
        """Images to train and to judge on."""
        return digits("train", self.size), digits("test", self.size)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompositesSource:
    """Pairs of handwritten digits, see `weightwise.images.composites`.

    Parameters
    ----------
    kind
        Tells this class from the others.
    count, valid_count
        Images to train and to judge on, at least 1.
    seed
        Decides over digits, heights and order.
    size
        Side in pixels before augmentation, even, at least 16.
    """

    kind: Literal["composites"] = "composites"
    count: int = Field(default=4000, ge=1)
    valid_count: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0)
    size: int = Field(default=32, ge=16, le=4096, multiple_of=2)

    @property
    def num_classes(self) -> int | None:
        """A hundred."""
        return 100

    @property
    def valid(self) -> str | None:
        """The test part."""
        return "test"

    def open(self) -> tuple[Source, Source | None]:
        """Images to train and to judge on."""
        return (
            composites("train", self.count, self.seed, self.size),
            composites("test", self.valid_count, self.seed, self.size),
        )


ImageSource: TypeAlias = Annotated[
    FolderSource | ListSource | TarSource | HuggingFaceSource | DigitsSource | CompositesSource,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImagesConfig:
    """Images, and how they become numbers.

    Parameters
    ----------
    source
        Where they come from.
    valid_share
        Share that is judged on and not trained on, above 0 and below 1; needed where the source
        has no ``valid``.
    corrupt_share, corrupt_seed
        Share of the training images that get a wrong label, 0 to 1, and what decides which.
    fit
        How images are brought to their size when they are judged, see
        `weightwise.images.EvalTransform`.
    mean, std
        Statistics of the channels, see `weightwise.images.View`.
    decoding
        Which files are decoded, and how, see `weightwise.images.Decoding`.
    num_workers
        Processes beside each one that trains which decode and augment; 0 for none.
    """

    source: ImageSource
    valid_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    corrupt_share: float = Field(default=0.0, ge=0.0, le=1.0)
    corrupt_seed: int = Field(default=0, ge=0)
    fit: Literal["crop", "square"] = "crop"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    decoding: Decoding = Decoding()
    num_workers: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_valid(self) -> Self:
        self.view(32)
        if self.source.valid is None and self.valid_share is None:
            raise ValueError("valid_share: expected a share where source.valid is missing")
        if self.source.valid is not None and self.valid_share is not None:
            raise ValueError(
                f"valid_share: expected none where the source has images to judge on, got "
                f"{self.valid_share}"
            )
        return self

    def view(self, size: int) -> View:
        """What a model with images of a size sees."""
        return View(size=size, mean=self.mean, std=self.std)


@plain_dataclass(frozen=True, kw_only=True)
class PreparedImages:
    """Opened images.

    Parameters
    ----------
    train, valid
        What to train and to judge on.
    numbers
        Number in the whole source of every training image, int64, (N,).
    fingerprint
        Hash of names and labels, in 16 hexadecimal digits.
    """

    train: Source
    valid: Source
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]]
    fingerprint: str


def open_images(config: ImagesConfig, num_classes: int, *, needs_labels: bool) -> PreparedImages:
    """Open images and look at their names and labels.

    Parameters
    ----------
    config
        Which ones.
    num_classes
        Classes C of the model.
    needs_labels
        Whether all training images must have one; those to judge on must always.

    Raises
    ------
    ValueError
        If a source is not as it should be, or labels are missing or not below C.
    """
    train, valid = config.source.open()
    numbers = np.arange(len(train))
    if valid is None:
        assert config.valid_share is not None
        part, valid = split(train, config.valid_share)
        train, numbers = part, part.numbers
    for name, source in (("train", train), ("valid", valid)):
        if not len(source):
            raise ValueError(f"images.source: expected images to {name} on, got none")
    if config.corrupt_share:
        train = corrupt_labels(train, config.corrupt_share, num_classes, config.corrupt_seed)
    digest = hashlib.blake2b(digest_size=8)
    for source, is_labelled in ((train, needs_labels), (valid, True)):
        for number in range(len(source)):
            key, label = source.key(number), source.label(number)
            if is_labelled and (label is None or not 0 <= label < num_classes):
                raise ValueError(
                    f"images.source: expected labels of 0 to {num_classes - 1}, as many as "
                    f"model.num_classes, got {label} for {key}"
                )
            digest.update(f"{key}\n{label}\n".encode("utf-8", "surrogateescape"))
    return PreparedImages(train=train, valid=valid, numbers=numbers, fingerprint=digest.hexdigest())


def named_by_number(source: Source, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Source:
    """The same images under their numbers, as stores of the kind ``index`` know them."""
    return _Numbered(source=source, numbers=numbers)


@plain_dataclass(frozen=True, kw_only=True)
class _Numbered:
    source: Source
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.source)

    def key(self, number: int) -> str:
        return str(self.numbers[number])

    def label(self, number: int) -> int | None:
        return self.source.label(number)

    def load(self, number: int) -> Pixels:
        return self.source.load(number)
