"""What a store says of the augmentation behind its labels, and that augmentation again.

A store belongs to the random part alone: crops, operations and erased rectangles, and how files
are decoded. Teacher and student may see other sizes and other means. So fingerprint and canary are
those of a transform with one fixed view, and both sides come to the same ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightwise.images import (
    Augmentation,
    Decoding,
    RandAugment,
    TrainTransform,
    View,
    fingerprint,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from weightwise.distill.header import StoreConfig
    from weightwise.distill.store import SoftLabels

# Its size decides over no draw; a small one makes the canary cheap.
VIEW = View(size=64)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """An augmentation and a decoding, which a seed turns into the same pixels again.

    Parameters
    ----------
    augmentation
        The random part.
    decoding
        From files to images.
    """

    augmentation: Augmentation
    decoding: Decoding

    def identity(self) -> tuple[str, str]:
        """Fingerprint and canary, as `StoreConfig` and `SoftLabels` take them.

        The fingerprint is readable: version of the draws, then the settings as JSON. The canary
        is made on this machine.
        """
        found = fingerprint(
            TrainTransform(augmentation=self.augmentation, views=(VIEW,)), self.decoding
        )
        settings = json.loads(found.config)
        listed = settings["transform"]["augmentation"], settings["decoding"]
        text = json.dumps(dict(zip(("augmentation", "decoding"), listed, strict=True)))
        return f"{found.version} {text}", found.canary


def replay_of(config: StoreConfig) -> Replay:
    """Read the augmentation of a store off its fingerprint.

    Parameters
    ----------
    config
        What the store says about itself.

    Raises
    ------
    ValueError
        If the fingerprint is none of `Replay.identity`, as in stores of other origin.
    """
    _, _, text = config.fingerprint.partition(" ")
    try:
        settings = json.loads(text)
        augmentation, decoding = settings["augmentation"], settings["decoding"]
        drawn = augmentation["rand_augment"]
        plain = {name: _tuple(value) for name, value in augmentation.items()}
        plain["rand_augment"] = None if drawn is None else RandAugment(**drawn)
        found = Replay(
            augmentation=Augmentation(**plain),
            decoding=Decoding(**{name: _tuple(value) for name, value in decoding.items()}),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "fingerprint: expected settings of an augmentation, got "
            f"{config.fingerprint[:40]!r}; labels of unknown augmentations cannot be checked"
        ) from error
    return found


@dataclass(frozen=True, kw_only=True)
class StoredSeeds:
    """Seeds of samples as a store has them, for `weightwise.images.ImageLoader`.

    Parameters
    ----------
    labels
        The store. It may come from elsewhere and have seeds that are no function of the keys.
    """

    labels: SoftLabels

    def __call__(self, base: int, epoch: int, keys: Sequence[str]) -> NDArray[Any]:  # noqa: ARG002
        """Seeds of keys in an epoch; the base seed is that of the store."""
        chosen: Any = list(map(int, keys)) if self.labels.config.keys == "index" else keys
        return self.labels.gather(epoch, chosen).seeds


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
