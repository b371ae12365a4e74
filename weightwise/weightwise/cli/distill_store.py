"""The commands ``weightwise distill info``, ``verify``, ``merge`` and others: work on stores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from weightwise.cli.law_options import Json, print_json
from weightwise.cli.train import say
from weightwise.distill import (
    SoftLabels,
    StoreConfig,
    from_official,
    from_reinforced,
    merge,
    pack,
    read_reinforced,
    salvage,
    subset,
    to_official,
    to_reinforced,
    verify,
)
from weightwise.distill.apple import SUFFIXES
from weightwise.distill.header import SOFT, read_head
from weightwise.distill.official import FOLDER
from weightwise.distill.store import epoch_folders

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, STOPPED = 0, 1
Store = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")]
Stores = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="STORE")]
Epochs = Annotated[tuple[int, ...], tyro.conf.arg(metavar="EPOCH [EPOCH ...]")]
KeyFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Keys = Literal["index", "name"]


def info_command(store: Store, /, as_json: Json = False) -> int:
    """Tell what a store says about itself, and how much is in it; reads only the heads of files.

    Args:
        store: Folder of the store.
        as_json: Print one JSON object.
    """
    labels = SoftLabels(store)
    config, epochs = asdict(labels.config), [_epoch(labels, one) for one in labels.epochs]
    if as_json:
        print_json(store=str(store), config=config, epochs=epochs)
        return DONE
    console = Console()
    settings = Table("setting", "value")
    for name, value in config.items():
        settings.add_row(name, "" if value is None else str(value))
    console.print(settings)
    shown = Table("epoch", "labels", "files", "open files", "MB")
    for row in epochs:
        shown.add_row(
            str(row["epoch"]), str(row["labels"]), str(row["files"]), str(row["open"] or ""),
            f"{row['bytes'] / 1e6:.3g}",
        )  # fmt: skip
    console.print(shown)
    return DONE


def verify_command(store: Store, /, as_json: Json = False) -> int:
    """Read all of a store and check every record; the exit code is 1 if something is wrong.

    Args:
        store: Folder of the store.
        as_json: Print one JSON object.
    """
    found = verify(store)
    if as_json:
        print_json(**asdict(found))
    else:
        for epoch, count in found.num_images.items():
            print(f"epoch {epoch}: {count} images")
        if found.num_repeated:
            print(f"{found.num_repeated} labels twice, with the same seed")
        for path in found.open_files:
            print(f"{path}: open: it is being written, or its writer was killed")
        print("sound" if not found.problems else "\n".join(found.problems))
    if found.problems:
        say(f"{store}: {len(found.problems)} problems; salvage copies what is whole")
        return STOPPED
    return DONE


def merge_command(stores: Stores, /, out: Path, as_json: Json = False) -> int:
    """Make one store of several, with one file for each epoch.

    Args:
        stores: Stores of the same teacher and augmentation; what several have counts once.
        out: Folder of the new store.
        as_json: Print one JSON object.
    """
    merge(stores, out)
    return _made(out, as_json=as_json)


def subset_command(
    store: Store,
    /,
    out: Path,
    epochs: Epochs = (),
    top_k: int | None = None,
    keys: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Copy a part of a store.

    Args:
        store: Folder of the store.
        out: Folder of the new store.
        epochs: Epochs to keep, under their numbers. Default: all.
        top_k: Classes to keep of each image, the most probable ones. Default: all.
        keys: File with a name or number of an image on each line. Default: all images.
        as_json: Print one JSON object.
    """
    labels = SoftLabels(store)
    chosen = None if keys is None else _read_keys(keys, labels.config.keys)
    subset(store, out, keys=chosen, epochs=epochs or None, k=top_k)
    return _made(out, as_json=as_json)


def pack_command(
    store: Store,
    /,
    out: Path,
    packing: Literal["plain", "compact"] = "compact",
    as_json: Json = False,
) -> int:
    """Copy a store in another packing, and measure what that costs.

    Args:
        store: Folder of the store.
        out: Folder of the new store.
        packing: compact (8 bits a probability, and classes as differences) or plain.
        as_json: Print one JSON object.
    """
    found = pack(store, out, packing)
    more = f"{found.bytes_before:.1f} -> {found.bytes_after:.1f} bytes an image"
    return _made(
        out, as_json=as_json, record=asdict(found),
        summary=f"{more}; KL mean {found.kl_mean:.2g}, largest {found.kl_max:.2g} nats",
    )  # fmt: skip


def salvage_command(store: Store, /, out: Path, as_json: Json = False) -> int:
    """Copy all records of a damaged store that are whole.

    Args:
        store: Folder of the store.
        out: Folder of the new store.
        as_json: Print one JSON object.
    """
    lost = salvage(store, out)
    return _made(
        out, as_json=as_json, record={"damaged": lost}, summary=f"{lost} damaged stretches left out"
    )


def convert_command(
    source: tyro.conf.Positional[Path],
    /,
    out: Path,
    to: Literal["official", "apple"] | None = None,
    classes: int | None = None,
    keys: Keys | None = None,
    teacher: str = "",
    as_json: Json = False,
) -> int:
    """Exchange stores with others: TinyViT's scripts, and data sets with a pickle for each image.

    With --to, SOURCE is a store of ours. Without it, SOURCE is in one of the two other layouts,
    which is told by its files, and becomes a store.

    Args:
        source: Folder to read.
        out: Folder to make.
        to: Layout to write: official (TinyViT's own scripts) or apple (reinforced data sets).
        classes: Number of classes of the teacher, which no other layout says.
        keys: Whether images go by index or by name. Default: numbers are indices.
        teacher: Who the teacher was.
        as_json: Print one JSON object.
    """
    if to is None:
        config = _foreign(source, classes, keys, teacher)
        read = from_official if _is_official(source) else from_reinforced
        read(source, out, config)
        return _made(out, as_json=as_json)
    if classes is not None or keys is not None or teacher:
        raise ValueError("classes, keys, teacher: expected none with --to, the store says them")
    write = to_official if to == "official" else to_reinforced
    write(source, out)
    if as_json:
        print_json(folder=str(out), layout=to)
    else:
        print(f"layout {to}: {out}")
    return DONE


def _epoch(labels: SoftLabels, number: int) -> dict[str, Any]:
    """What the heads of an epoch's files say."""
    paths = sorted(epoch_folders(labels.path)[number].glob("*.soft"))
    seals = [read_head(path, SOFT).seal for path in paths]
    return {
        "epoch": number,
        "labels": sum(seal.num_records for seal in seals if seal),
        "files": len(paths),
        "open": sum(seal is None for seal in seals),
        "bytes": sum(path.stat().st_size for path in paths),
    }


def _made(
    out: Path, *, as_json: bool, record: dict[str, Any] | None = None, summary: str = ""
) -> int:
    """Tell about a new store."""
    labels = SoftLabels(out)
    counts = [_epoch(labels, number)["labels"] for number in labels.epochs]
    if as_json:
        print_json(store=str(out), epochs=labels.epochs, labels=sum(counts), **(record or {}))
    else:
        more = f"; {summary}" if summary else ""
        print(f"{sum(counts)} labels in {len(counts)} epochs{more}: {out}")
    return DONE


def _read_keys(path: Path, kind: Keys) -> list[Any]:
    lines = path.read_text(encoding="utf-8").splitlines()
    if kind == "name":
        return list(lines)
    if not all(line.isdecimal() for line in lines):
        raise ValueError(f"{path}: expected a number on each line, as the store has them")
    return [int(line) for line in lines]


def _is_official(source: Path) -> bool:
    return any(FOLDER.fullmatch(one.name) for one in source.iterdir())


def _foreign(source: Path, classes: int | None, keys: Keys | None, teacher: str) -> StoreConfig:
    """What the files of another layout say, with what the user adds."""
    if classes is None:
        raise ValueError("classes: expected the teacher's number of classes, got none")
    if not source.is_dir():
        raise ValueError(f"{source}: expected a folder")
    first, k = _first_official(source) if _is_official(source) else _first_reinforced(source)
    found: Keys = keys or ("index" if str(first).isdecimal() else "name")
    return StoreConfig(classes=classes, k=k, keys=found, teacher=teacher, base_seed=None)


def _first_official(source: Path) -> tuple[str, int]:
    """First key, and number of classes in the name of the first folder."""
    folder = min(one for one in source.iterdir() if FOLDER.fullmatch(one.name))
    files: Sequence[Path] = sorted(folder.glob("rank*-keys.txt"))
    if not files:
        raise ValueError(f"{folder}: files: expected rank*-keys.txt, found none")
    with files[0].open(encoding="utf-8") as file:
        first = file.readline().rstrip("\n")
    match = FOLDER.fullmatch(folder.name)
    assert match is not None
    return first, int(match[1])


def _first_reinforced(source: Path) -> tuple[int | str, int]:
    """Key and number of classes of the first image."""
    files = sorted(one for one in source.iterdir() if one.name.endswith(SUFFIXES))
    if not files:
        raise ValueError(
            f"{source}: files: expected logits_top*_epoch* or some of {', '.join(SUFFIXES)}, "
            "found none"
        )
    key, samples = read_reinforced(files[0])
    if not samples:
        raise ValueError(f"{files[0]}: samples: expected at least one, got none")
    return key, len(samples[0].classes)
