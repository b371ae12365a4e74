"""Soft-label store: reading and writing beside the official layout, opening 14 million records.

``gather``  random batches of keys out of warm files, samples of a second of CPU time on one
            thread: ours by key with every record's checksum, the official layout as its own
            scripts read it (a dictionary of keys, a seek and a read for each sample), and rows of
            a memory-mapped NumPy array by place, without keys and checksums.
``write``   the same three the other way round, K = 10 and 100.
``open``    14 million records, from nothing to the first batch.
``pack``    size and KL error of compact records, for a teacher of a known sharpness.

Contenders run in turn, round by round; medians count.

    python weightwise/benchmarks/tinyvit_store.py [gather write open pack]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from weightwise.distill import SoftLabels, StoreConfig, StoreWriter, augmentation_seeds, pack, top_k
from weightwise.distill.official import official_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SYSTEM = "tinyvit"
BATCH, BATCHES, ROUNDS = 128, 400, 9
STORED = 1_000_000
MANY = 14_197_122  # images of ImageNet-22k
CLASSES = {10: 1000, 100: 21_841}
Labels = tuple[Any, Any, Any, Any]


def main() -> None:
    """Measure what the arguments ask for, by default everything."""
    parts = {"gather": gather, "write": write, "open": open_many, "pack": pack_error}
    torch.set_num_threads(1)
    for name in sys.argv[1:] or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder))


def emit(name: str, value: float, unit: str, **rest: Any) -> None:
    """Print a measurement."""
    print(json.dumps({"system": SYSTEM, "name": name, "value": value, "unit": unit, **rest}))
    sys.stdout.flush()


def labels_of(keys: NDArray[np.int64], k: int) -> Labels:
    """Made-up labels: different classes, falling probabilities."""
    start_N1, step_1K = (keys * 7919 % CLASSES[k])[:, None], np.arange(k)[None]
    indices = ((start_N1 + step_1K) % CLASSES[k]).astype(np.int16)
    values = np.broadcast_to((0.5 * 0.9**step_1K / k).astype(np.float16), indices.shape)
    return keys, augmentation_seeds(0, 0, keys), indices, np.ascontiguousarray(values)


def fill(path: Path, count: int, k: int, batch: int = 2**16) -> None:
    """Write a store of many images."""
    with StoreWriter(path, StoreConfig(classes=CLASSES[k], k=k), epoch=0) as writer:
        for start in range(0, count, batch):
            writer.append(*labels_of(np.arange(start, min(count, start + batch)), k))


class OfficialFile:
    """Reader of ``keys.txt`` and ``values.bin``: a dictionary, a seek and a read a sample."""

    def __init__(self, folder: Path, k: int) -> None:
        with (folder / "keys.txt").open() as file:
            self.place_of = {line.rstrip(): place for place, line in enumerate(file)}
        self.file, self.k, self.size = (folder / "values.bin").open("rb"), k, 4 + 4 * k

    def read(self, key: str) -> tuple[int, NDArray[np.int16], NDArray[np.float16]]:
        """Seed, classes and values of an image."""
        self.file.seek(self.place_of[key] * self.size)
        raw = self.file.read(self.size)
        seed = int(np.frombuffer(raw[:4], np.int32)[0])
        middle = 4 + 2 * self.k
        return seed, np.frombuffer(raw[4:middle], np.int16), np.frombuffer(raw[middle:], np.float16)

    def batch(self, keys: list[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The same of many."""
        seeds, indices, values = zip(*(self.read(str(key)) for key in keys), strict=True)
        return np.array(seeds), np.stack(indices), np.stack(values)


def official_rows(labels: Labels, k: int) -> NDArray[Any]:
    """Labels as official records."""
    _, seeds, indices, values = labels
    rows = np.empty(len(seeds), official_record(k))
    rows["seed"], rows["index"], rows["value"] = seeds, indices, values
    return rows


def gather(folder: Path) -> None:
    """Samples of a second, read at random."""
    for k in CLASSES:
        path, count = folder / str(k), STORED if k == 10 else STORED // 4
        fill(path, count, k)
        labels = SoftLabels(path)
        rows = official_rows(labels_of(np.arange(count), k), k)
        rows.tofile(path / "values.bin")
        (path / "keys.txt").write_text("".join(f"{key}\n" for key in range(count)))
        official = OfficialFile(path, k)
        mapped = np.memmap(path / "values.bin", official_record(k), "r")
        rng = np.random.default_rng(0)
        keys = [rng.integers(0, count, BATCH) for _ in range(BATCHES)]
        few = [one.tolist() for one in keys[: BATCHES // 10]]
        assert np.array_equal(labels.gather(0, keys[0]).indices, official.batch(few[0])[1])
        contenders = {
            "ours": (partial(labels.gather, 0), keys),
            "official": (official.batch, few),
            "numpy": (mapped.__getitem__, keys),
        }
        rate = rates(contenders)
        detail = {
            "samples_s": {name: round(one) for name, one in rate.items()},
            "records": count, "batch": BATCH, "rounds": ROUNDS, "threads": 1,
        }  # fmt: skip
        goal: dict[str, Any] = {"goal": [">=", 8e6]} if k == 10 else {}
        emit(f"store_gather_k{k}", rate["ours"], "samples/s", detail=detail, **goal)
        goal = {"goal": [">=", 40]} if k == 10 else {}
        emit(f"store_gather_over_official_k{k}", rate["ours"] / rate["official"], "x",
             peer="official layout: dictionary, seek, read", detail=detail, **goal)  # fmt: skip
        official.file.close()


def rates(contenders: dict[str, tuple[Callable[[Any], object], list[Any]]]) -> dict[str, float]:
    """Median samples of a second of CPU time, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(ROUNDS + 1):
        for name, (read, batches) in contenders.items():
            start = time.process_time()
            for one in batches:  # a student keeps no batch either
                read(one)
            if turn:  # the first one warms up
                seconds[name].append(time.process_time() - start)
    return {
        name: len(contenders[name][1]) * BATCH / statistics.median(seconds[name])
        for name in contenders
    }


def write(folder: Path) -> None:
    """Samples of a second, written in batches of a teacher."""
    for k, classes in CLASSES.items():
        labels = labels_of(np.arange(200_000 if k == 10 else 50_000), k)
        count, batch = len(labels[0]), 1024
        parts: list[Any] = [
            tuple(one[start : start + batch] for one in labels) for start in range(0, count, batch)
        ]
        seconds: dict[str, list[float]] = {"ours": [], "official": []}
        config = StoreConfig(classes=classes, k=k)
        for turn in range(ROUNDS + 1):
            start = time.process_time()
            with StoreWriter(folder / f"{k}-{turn}", config, epoch=0) as writer:
                for part in parts:
                    writer.append(*part)
            middle = time.process_time()
            _write_official(folder / f"official-{k}-{turn}", parts)
            end = time.process_time()
            if turn:
                seconds["ours"].append(middle - start)
                seconds["official"].append(end - middle)
        rate = {name: count / statistics.median(one) for name, one in seconds.items()}
        detail = {
            "samples_s": {name: round(one) for name, one in rate.items()},
            "records": count, "batch": batch, "rounds": ROUNDS, "threads": 1,
        }  # fmt: skip
        goal: dict[str, Any] = {"goal": [">=", 2e6]} if k == 10 else {}
        emit(f"store_write_k{k}", rate["ours"], "samples/s", detail=detail,
             peer="official layout: bytes of each sample joined", **goal)  # fmt: skip


def _write_official(path: Path, parts: list[Labels]) -> None:
    """Keys and bytes sample by sample, as the scripts pass them to their writing process."""
    path.mkdir()
    with (path / "keys.txt").open("w") as keys_file, (path / "values.bin").open("wb") as file:
        for keys, seeds, indices, values in parts:
            for row, key in enumerate(keys):
                keys_file.write(f"{key}\n")
                raw = seeds[row].tobytes() + indices[row].tobytes() + values[row].tobytes()
                file.write(raw)


def open_many(folder: Path) -> None:
    """Milliseconds until a store of 14 million images is ready."""
    start = time.process_time()
    fill(folder / "many", MANY, 10)
    written = time.process_time() - start
    start = time.process_time()
    SoftLabels(folder / "many").epoch(0)
    indexed = time.process_time() - start
    rng, found = np.random.default_rng(0), []
    for _ in range(2 * ROUNDS):
        start = time.perf_counter()
        labels = SoftLabels(folder / "many")
        labels.epoch(0)
        found.append(1e3 * (time.perf_counter() - start))
    detail = {
        "records": MANY, "write_s": round(written, 2), "index_s": round(indexed, 2),
        "bytes_index": (folder / "many" / "epoch-00000" / "index").stat().st_size,
    }  # fmt: skip
    emit("store_open_14m", statistics.median(found), "ms", goal=["<", 5], detail=detail)
    keys = [rng.integers(0, MANY, BATCH) for _ in range(BATCHES)]
    rate = rates({"ours": (partial(labels.gather, 0), keys)})
    emit("store_gather_14m", rate["ours"], "samples/s", detail={"records": MANY, "batch": BATCH})


def pack_error(folder: Path) -> None:
    """Bytes of a compact record and KL error of its target."""
    generator = torch.Generator().manual_seed(0)
    for k, classes in CLASSES.items():
        config, keys = StoreConfig(classes=classes, k=k), np.arange(2048)
        logits = 4 * torch.randn(len(keys), classes, generator=generator)
        with StoreWriter(folder / f"{k}", config, epoch=0) as writer:
            writer.append(keys, augmentation_seeds(0, 0, keys), *top_k(logits, config))
        report = pack(folder / f"{k}", folder / f"{k}-compact")
        detail = {
            "bytes_plain": report.bytes_before, "bytes_compact": report.bytes_after,
            "kl_max": report.kl_max, "teacher": "normal logits of deviation 4",
        }  # fmt: skip
        emit(f"store_compact_kl_k{k}", report.kl_mean, "nats", detail=detail)
        share = report.bytes_after / report.bytes_before
        emit(f"store_compact_size_k{k}", share, "x", detail=detail)


if __name__ == "__main__":
    main()
