"""Reading a store of soft labels: what a teacher has said, for any number of students.

    labels = SoftLabels("labels", fingerprint=config.fingerprint(), canary=config.canary())
    batch = labels.gather(epoch, keys)      # seeds, classes, values: see `SoftBatch`

A store has the labels of some epochs, and of each maybe not all images. A student that trains for
longer gets the stored epochs over and over again, with a warning.
"""

# Shapes: B keys of a batch, K classes of an image

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from weightwise.distill.epoch import Epoch, SoftBatch
from weightwise.distill.keys import is_names, key_ids
from weightwise.distill.lookup import MISSING
from weightwise.distill.names import read_names
from weightwise.distill.shard import peek

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weightwise.distill.header import StoreConfig
    from weightwise.distill.keys import Keys

FOLDER = re.compile(r"epoch-(\d{5})")


class StoredEpochsRepeatWarning(UserWarning):
    """Labels of another epoch are used: the asked epoch, or an image in it, is not stored.

    The student sees the same augmentations again. Write more epochs (`StoreWriter`), train for
    fewer, or open the store with ``on_missing="refuse"`` to get an error instead.
    """


class SoftLabels:
    """A store, opened for reading; takes no longer for large ones. Can be sent to other processes.

    Parameters
    ----------
    path
        Folder of the store.
    on_missing
        ``cycle`` uses the next stored epochs, in turn, where an epoch or some of its images are
        not stored, and warns once. ``refuse`` raises.
    classes, k, teacher, fingerprint, canary, base_seed
        What the store has to say about itself, where given. With the fingerprint and the canary of
        the student's own augmentation, labels of any other one are refused.

    Attributes
    ----------
    config
        What the store says about itself.
    epochs
        Numbers of the stored epochs, rising.

    Raises
    ------
    ValueError
        If there is no store, it is empty, another one than expected, or damaged; with file and
        field.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        on_missing: Literal["cycle", "refuse"] = "cycle",
        classes: int | None = None,
        k: int | None = None,
        teacher: str | None = None,
        fingerprint: str | None = None,
        canary: str | None = None,
        base_seed: int | None = None,
    ) -> None:
        if on_missing not in ("cycle", "refuse"):
            raise ValueError(f"on_missing: expected cycle or refuse, got {on_missing!r}")
        wanted = {
            "classes": classes, "k": k, "teacher": teacher, "fingerprint": fingerprint,
            "canary": canary, "base_seed": base_seed,
        }  # fmt: skip
        self.path, self.on_missing = Path(path), on_missing
        self._expected = {name: value for name, value in wanted.items() if value is not None}
        folders = epoch_folders(self.path)
        if not folders:
            raise ValueError(f"{path}: files: expected a store with epoch-*/*.soft, found none")
        self.epochs = sorted(folders)
        first = min(folders[self.epochs[0]].glob("*.soft"))
        self.config: StoreConfig = peek(first, expected=self._expected)[0]
        self._folders = folders
        self._open: dict[int, Epoch] = {}
        self._has_warned = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.on_missing, self._expected)

    def gather(self, epoch: int, keys: Keys) -> SoftBatch:
        """Labels of a batch.

        Parameters
        ----------
        epoch
            Number of the student's epoch, from 0.
        keys
            Images, by number or name as the store has them.

        Returns
        -------
        SoftBatch
            Arrays in the order of the keys. Those of other shape are views of one array of
            records; what changes them does not change the store.

        Raises
        ------
        ValueError
            If a key is not stored and may not be taken from another epoch, or a record is damaged.
        """
        id_B = ids_for(self.config, keys)
        opened = self._open.get(epoch)
        if opened is None:
            opened = self.epoch(epoch if epoch in self._folders else self._instead_of(epoch))
        batch, num_missing = opened.gather(id_B)
        if num_missing:
            self._fill(batch, id_B, opened.number, keys)
        return batch

    def contains(self, epoch: int, keys: Keys) -> NDArray[np.bool_]:
        """Which keys are stored for an epoch; none for an epoch that is not."""
        id_B = self.ids_of(keys)
        if epoch not in self._folders:
            return np.zeros(len(id_B), dtype=np.bool_)
        return self.epoch(epoch).contains(id_B)

    def epoch(self, number: int) -> Epoch:
        """A stored epoch, opened when it is first asked for.

        Raises
        ------
        ValueError
            If it is not stored, or damaged.
        """
        if number not in self._open:
            if number not in self._folders:
                raise ValueError(
                    f"{self.path}: epoch: expected one of {_brief(self.epochs)}, got {number}"
                )
            self._open[number] = Epoch(self._folders[number], self.config, number)
        return self._open[number]

    def ids_of(self, keys: Keys) -> NDArray[np.int64]:
        """Ids of keys of the kind that this store has.

        Raises
        ------
        ValueError
            If they are of the other kind.
        """
        return ids_for(self.config, keys)

    def names(self) -> dict[int, str]:
        """Names of all images by id; none where keys are numbers."""
        return read_names(self.path)

    def _instead_of(self, epoch: int) -> int:
        if self.on_missing == "refuse" or epoch < 0:
            raise ValueError(
                f"{self.path}: epoch: expected one of {_brief(self.epochs)}, got {epoch}"
            )
        self._warn(f"epoch {epoch} is not stored")
        return self.epochs[epoch % len(self.epochs)]

    def _fill(self, batch: SoftBatch, id_B: NDArray[np.int64], number: int, keys: Keys) -> None:
        """Take missing images from the epochs after this one, in turn."""
        missing = np.flatnonzero(batch.counts == MISSING)
        place = self.epochs.index(number)
        others = [*self.epochs[place + 1 :], *self.epochs[:place]]
        for other in others if self.on_missing == "cycle" else []:
            found, _ = self.epoch(other).gather(id_B[missing])
            is_found = found.counts != MISSING
            columns: list[tuple[Any, Any]] = list(zip(batch, found, strict=True))
            for whole, part in columns:
                whole[missing[is_found]] = part[is_found]
            missing = missing[~is_found]
            if not len(missing):
                self._warn(f"epoch {number} does not have all images")
                return
        where = f"epoch {number}" if self.on_missing == "refuse" else "any epoch"
        raise ValueError(
            f"{self.path}: keys: expected all {len(id_B)} in {where}, {len(missing)} are not "
            f"stored, the first is {list(keys)[missing[0]]!r}"
        )

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            text = f"{self.path}: {what}; labels of other epochs are used again"
            warnings.warn(text, StoredEpochsRepeatWarning, stacklevel=4)
        self._has_warned = True


def _reopen(path: Path, on_missing: Literal["cycle", "refuse"], expected: Any) -> SoftLabels:
    return SoftLabels(path, on_missing=on_missing, **expected)


def ids_for(config: StoreConfig, keys: Keys) -> NDArray[np.int64]:
    """Ids of keys of the kind that a store has.

    Raises
    ------
    ValueError
        If they are of the other kind.
    """
    ids = key_ids(keys)
    if ids is keys and config.keys == "index":  # the usual case, at once
        return ids
    if len(ids) and (config.keys == "name") != is_names(keys):
        wanted = "names" if config.keys == "name" else "numbers"
        raise ValueError(f"keys: expected {wanted}, as the store has them, got {keys[0]!r}")
    return ids


def epoch_folders(path: Path) -> dict[int, Path]:
    """Folders of the epochs of a store that have files."""
    found = {one: FOLDER.fullmatch(one.name) for one in (path.iterdir() if path.is_dir() else ())}
    return {
        int(match[1]): folder
        for folder, match in found.items()
        if match and next(folder.glob("*.soft"), None)
    }


def _brief(epochs: list[int]) -> str:
    """A few numbers of a list."""
    some = [str(one) for one in epochs[:4]]
    return ", ".join(some if len(epochs) < 5 else [*some, f"... {epochs[-1]}"])
